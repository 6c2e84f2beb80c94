"""What goes wrong where a source is read."""

from __future__ import annotations


class DeliveryError(Exception):
    """A source cannot be read; the message is one line with what to do."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait
        """Seconds before which asking again is no use."""
