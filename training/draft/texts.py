"""The distinct cells of a column of texts, and the limits by which `training.draft` judges columns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.data.columns import as_text

MOST_ODD = 0.05
"""Share of cells that may become missing because they are not numbers."""
MOST_REPLACED = 200
"""Distinct cells of a column that a draft replaces one by one."""
HANDFUL = 10
FEWEST_ROWS_EACH = 4
"""Average rows of a category in a column with more than a handful of categories."""
SHOWN = 3
_MISSING_WORDS = frozenset(
    [
        "na",
        "n/a",
        "#n/a",
        "<na>",
        "n.a.",
        "n.a",
        "nan",
        "null",
        "none",
        "nil",
        "missing",
        "unknown",
        "undefined",
        "void",
        "blank",
        "empty",
        "#div/0!",
        "#value!",
        "#ref!",
        "#name?",
        "#num!",
        "#null!",
    ]
)


@dataclass(frozen=True)
class Texts:
    """The distinct cells of a column of texts, stripped.

    Attributes:
        counts: how often each occurs; empty cells are not among them.
        first: the row in which each stands first, from 1.
        rows: how many the column has.
    """

    counts: dict[str, int]
    first: dict[str, int]
    rows: int

    @classmethod
    def of(cls, column: pd.Series[Any]) -> Texts | None:
        """None for a column of numbers, dates or other values."""
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            return None
        text, wrong = as_text(column)
        if wrong.any() or (column.dtype == object and not column.map(_is_plain).all()):
            return None
        codes, distinct = pd.factorize(text)
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
        _, places = np.unique(codes[codes >= 0], return_index=True)
        # The index is the row's number in the source, because some rows may have been removed.
        rows = column.index.to_numpy()[codes >= 0][places] + 1
        names = [str(each) for each in distinct]
        return cls(
            dict(zip(names, counts.tolist(), strict=True)),
            dict(zip(names, rows.tolist(), strict=True)),
            len(column),
        )

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def are_codes(self) -> bool:
        """Whether texts such as 007 are codes rather than numbers, because others look alike."""
        padded = sum(count for each, count in self.counts.items() if re.match(r"0\d", each))
        lengths = {len(each) for each in self.counts if each.isdecimal()}
        return padded > MOST_ODD * self.total or (padded > 0 and len(lengths) == 1)

    def shown(self, some: Iterable[str]) -> str:
        """Cells with their number and first row, the most frequent ones first."""
        ranked = sorted(some, key=lambda each: (-self.counts[each], self.first[each]))
        parts = [
            f"{short(each)} ({times(self.counts[each])}, first in row {self.first[each]})"
            for each in ranked[:SHOWN]
        ]
        rest = f" and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else ""
        return ", ".join(parts) + rest


def is_placeholder(text: str) -> bool:
    """Whether a text is a common word for a missing value."""
    return text.lower() in _MISSING_WORDS or not any(map(str.isalnum, text))


def _is_plain(value: Any) -> bool:
    """Whether a cell of an untyped column is a text, a boolean or missing."""
    return isinstance(value, str | bool | np.bool_) or value is None or value is pd.NA or value != value  # noqa: PLR0124


def times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def short(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:27] + "…")


def missing_share(count: int, rows: int) -> dict[str, float]:
    """The share of missing values, rounded up."""
    return {"missing": math.ceil(count / rows * 100 - 1e-9) / 100} if count else {}


def advice_on_identifier(cells: int, distinct: int) -> str:
    """What to do about an identifier that several rows have."""
    if distinct == cells:
        return ""
    return "; draft with --group if rows of one value, such as a patient, belong together"
