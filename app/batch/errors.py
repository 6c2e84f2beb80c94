"""The errors of batch scoring; the message of each is one line."""

from __future__ import annotations


class BatchError(Exception):
    """The run cannot start: an option or a place is invalid."""


class PartError(Exception):
    """A part cannot be scored; the others can."""
