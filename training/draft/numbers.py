"""Columns of numbers: their range, and whether they identify the rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.cells import Cells, as_written
from training.data.columns import as_numbers, as_text
from training.draft.texts import HANDFUL, MOST_ODD, MOST_REPLACED, missing_share, times
from training.prepare.rules import LARGEST

WIDENED = 0.25
_IDENTIFIER = re.compile(
    r"(?:.*[_\s.-])?(?:id|index|idx|key|uuid|guid|row_?names?|unnamed_\d+)", re.IGNORECASE
)


@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Attributes:
        values: float64, NaN where missing.
        comment: what was seen.
        replaced: `data.replace` for its odd cells.
    """

    values: pd.Series[float]
    comment: str
    replaced: dict[str, str]

    @property
    def seen(self) -> NDArray[np.floating[Any]]:
        return self.values.dropna().to_numpy(np.float64)

    @property
    def settings(self) -> dict[str, Any]:
        """As a feature."""
        missing = int(self.values.isna().sum())
        return {
            "type": "number",
            "range": list(_padded(self.seen)),
            **missing_share(missing, len(self.values)),
        }


def number_column(column: pd.Series[Any], replaced: dict[str, str], cells: Cells) -> Number | str:
    """The numbers, with the replacements also of those that are too large; or why the column is left out."""
    swapped = column
    if replaced:
        text = as_text(column)[0]
        swapped = text.map(lambda each: replaced.get(each, each), na_action="ignore")
        swapped = swapped.where(swapped != "", None).astype("str")
    values = as_numbers(swapped, cells)[0]
    huge = values.abs() > LARGEST
    infinite: dict[str, str] = {}
    if huge.any():
        texts = as_text(swapped)[0][huge].unique()
        if huge.sum() > MOST_ODD * values.notna().sum() or len(texts) > MOST_REPLACED:
            return f"left out, since {int(huge.sum())} values are infinite or beyond {LARGEST:g}"
        infinite = {str(each): "" for each in texts}
        values = values.mask(huge)
    seen = values.dropna().to_numpy(np.float64)
    if not len(seen):
        return "left out, since every value is missing"
    low, high = float(seen.min()), float(seen.max())
    if low == high and len(seen) == len(values):
        return f"left out, since it is {as_written(low)} in every row"
    notes = [f"seen {_shown(low)} to {_shown(high)}"]
    if infinite:
        notes.append(f"{int(huge.sum())} are infinite or beyond {LARGEST:g}, which become missing")
    notes += _sentinels(seen)
    return Number(values, "; ".join(notes), {**replaced, **infinite})


def identifies(name: str, seen: NDArray[np.floating[Any]]) -> bool:
    """Whether numbers identify the rows, with or without gaps."""
    if len(seen) < 3 or not (seen == np.round(seen)).all():
        return False
    steps = np.diff(seen)
    distinct = len(np.unique(seen))
    if distinct < len(seen):
        return bool(_IDENTIFIER.fullmatch(name) or name.endswith(("Id", "ID"))) and distinct > max(
            2 * HANDFUL, len(seen) / 2
        )
    if np.array_equal(np.sort(seen), np.arange(len(seen)) + seen.min()):
        return True
    in_order = len(seen) >= HANDFUL and bool((steps > 0).all() or (steps < 0).all())
    return in_order or bool(_IDENTIFIER.fullmatch(name) or name.endswith(("Id", "ID")))


def _sentinels(seen: NDArray[np.floating[Any]]) -> Iterator[str]:
    """Numbers such as -999 that are far from all others and may mean a missing value."""
    distinct, counts = np.unique(seen, return_counts=True)
    if len(distinct) < 4:
        return
    for place, inner in ((0, distinct[1:]), (-1, distinct[:-1])):
        value, gap = distinct[place], abs(distinct[place] - inner[place])
        if re.fullmatch(r"-?9{2,}|-1", as_written(float(value))) and (
            counts[place] > 1 and gap > inner[-1] - inner[0]
        ):
            text = as_written(float(value))
            yield (
                f"{text} ({times(int(counts[place]))}) is far from the others: if it means that there is no value, "
                f'replace "{text}" by ""'
            )


def _padded(seen: NDArray[np.floating[Any]]) -> tuple[float, float]:
    low, high = float(seen.min()), float(seen.max())
    if set(np.unique(seen)) <= {0.0, 1.0}:
        return 0, 1
    span = (high - low) or abs(high) or 1.0
    digits = min(1 - math.floor(math.log10(span)), 30)
    if (seen == np.round(seen)).all():
        digits = min(digits, 0)
    wider_low = math.floor((low - span * WIDENED) * 10.0**digits) / 10.0**digits
    wider_high = math.ceil((high + span * WIDENED) * 10.0**digits) / 10.0**digits
    if low >= 0:
        wider_low = max(wider_low, 0.0)
    elif high <= 0:
        wider_high = min(wider_high, 0.0)
    return _tidy(min(wider_low, low)), _tidy(max(wider_high, high))


def _shown(value: float) -> str:
    """Round for display: 15.93 instead of 15.930000000000064."""
    return as_written(_tidy(float(f"{value:.12g}")))


def _tidy(value: float) -> float:
    """Whole numbers without decimals."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
