"""How a table's cell is read by training, and by the service if a request has values that are written like cells.

Only an empty cell, and the words in `data.missing` of params.yaml, mean a missing value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Set
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE)
_BLANKS = "[ \u00a0\u2009\u202f]"
"""Non-breaking spaces also separate groups of digits."""


class Cells(BaseModel):
    """How the cells of one source are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    missing: tuple[str, ...] = ()
    """Texts that mean a missing value, in addition to the empty one."""
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", "'", " "] = ""
    """Separates groups of three digits."""

    def words(self, keep: Set[str] = frozenset()) -> frozenset[str]:
        """The texts that mean a missing value, except those in `keep`."""
        return frozenset({"", *self.missing} - keep)

    @cached_property
    def missing_numbers(self) -> tuple[float, ...]:
        """Words for a missing value that are numbers, such as -999, for columns of numbers."""
        found = []
        for word in self.missing:
            try:
                number = PLAIN.number(word)
            except ValueError:
                continue
            if math.isfinite(number) and as_written(number) == word:
                found.append(number)
        return tuple(found)

    def number(self, text: str) -> float:
        """Read a stripped text as a number.

        Raises:
            ValueError: it is not one.
        """
        if self._grouped is not None and self._grouped.fullmatch(text):
            text = re.sub(_BLANKS, "", text) if self.thousands == " " else text.replace(self.thousands, "")
        if self.decimal == ",":
            if "." in text:
                raise ValueError(text)
            text = text.replace(",", ".")
        if not _NUMBER.fullmatch(text):
            raise ValueError(text)
        return float(text)

    @cached_property
    def _grouped(self) -> re.Pattern[str] | None:
        if not self.thousands:
            return None
        mark = _BLANKS if self.thousands == " " else re.escape(self.thousands)
        return re.compile(
            rf"[+-]?[1-9]\d{{0,2}}(?:{mark}\d{{3}})+(?:{re.escape(self.decimal)}\d*)?", re.ASCII
        )


PLAIN = Cells()
"""Numbers have a decimal point, and only an empty cell is missing."""


def as_written(value: str | bool | float) -> str:
    """A value as text: strings are stripped, 2.0 is 2, True is true."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not value.is_integer():
        return repr(value)
    return str(int(value))
