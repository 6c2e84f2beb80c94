"""What goes wrong where a clone is read."""

from __future__ import annotations


class DeliveryError(Exception):
    """The clone or GitHub cannot be read; the message is one line with what to do."""
