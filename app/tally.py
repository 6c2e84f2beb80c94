"""What predicted rows add to the model's metrics, as plain numbers.

The process that predicts them may be another one than the process that has the metrics, and needs none of their library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.answers import PredictedRow, answers_of
from app.contract import Layout, Manifest
from app.schema import Rows

CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Tally:
    """Counts of rows; bins without rows may be missing at the end of a list.

    Attributes:
        rows: their number.
        bins: rows by the bin of their answer.
        confidences: rows by `CONFIDENCE_BUCKETS`; empty for a regression.
        sum: of the answers' measures.
        numbers: for each number and datetime in the order of the features, rows by bin.
        categories: for each category in the order of the features, rows by value.
    """

    rows: int
    bins: list[int]
    confidences: list[int]
    sum: float
    numbers: list[list[int]]
    categories: list[dict[str, int]]


class Tallies:
    """Counts rows for the metrics of the model that a manifest describes."""

    def __init__(self, manifest: Manifest) -> None:
        layout = Layout.of(manifest.features)
        self._confident = answers_of(manifest).measure == "confidence"
        # All parts of a datetime are missing together, so the first one tells.
        self._numbers = [
            (
                layout.places(each).start,
                np.array(each.edges if each.type == "number" else ()),
                len(each.bins) - 1 if each.missing else None,
            )
            for each in manifest.features
            if each.type != "category"
        ]
        self._has_categories = bool(layout.categories)

    def of(self, rows: Rows, indices: NDArray[np.int64], measures: NDArray[np.float64]) -> Tally:
        """Count rows by the bins and measures of their answers, and by the bins of their values."""
        confidences: list[int] = []
        if self._confident:
            # Sums of float32 probabilities may exceed 1 by a rounding error.
            measures = np.minimum(measures, 1.0)
            confidences = np.bincount(np.searchsorted(CONFIDENCE_BUCKETS, measures, side="left")).tolist()
        by_column = rows.numbers.T
        return Tally(
            len(rows),
            np.bincount(indices).tolist(),
            confidences,
            float(measures.sum()) if self._confident else sum(measures.tolist()),
            [_binned(by_column[place], edges, missing) for place, edges, missing in self._numbers],
            [] if rows.categories is None else [dict(Counter(each.tolist())) for each in rows.categories.T],
        )

    def of_rows(self, predicted: Sequence[PredictedRow]) -> Tally:
        """Count rows that were predicted one by one."""
        numbers, categories, indices, measures = zip(*predicted, strict=True)
        rows = Rows(
            np.array(numbers, dtype=np.float64),
            np.array(categories, dtype=object) if self._has_categories else None,
        )
        return self.of(rows, np.array(indices), np.array(measures))


def _binned(values: NDArray[np.float64], edges: NDArray[np.float64], missing: int | None) -> list[int]:
    bins = np.searchsorted(edges, values, side="right")
    if missing is not None:
        bins[np.isnan(values)] = missing
    counts: list[int] = np.bincount(bins).tolist()
    return counts
