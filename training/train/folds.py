"""Divides rows into folds, for cross-validation and for the search within it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from training.data.dataset import Split

Rows = NDArray[np.intp]


def folds(split: Split, count: int, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Positions of the rows to fit on and of those to measure on, for each fold. Classes keep their shares."""
    kind: Any = StratifiedKFold if is_classes(split.target) else KFold
    yield from kind(count, shuffle=True, random_state=seed).split(split.target, split.target)


def smallest(split: Split) -> tuple[int, str]:
    """How many rows there are for folds, and of what: those of the rarest class, or all."""
    if is_classes(split.target):
        return int(np.bincount(split.target).min()), "the rarest class has {} rows"
    return len(split) // 2, "there are {} pairs of rows"


def is_classes(target: NDArray[Any]) -> bool:
    """Whether a split's target has classes, and not values."""
    return target.dtype == np.int64
