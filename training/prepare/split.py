"""Divides the rows into training and test split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.base.config import SchemaSettings, SplitSettings
from training.base.errors import DataError

FEWEST_ROWS_PER_FOLD = 2
"""Of a regression: R² needs two values."""


def split(frame: pd.DataFrame, target: str, settings: SplitSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split into train and test; rows keep their order.

    The classes' shares are kept. Every class with at least two rows is in both, however small the test share is. A target
    of numbers has no classes: the test rows are drawn from all rows.
    """
    labels = frame[target].to_numpy()
    generator = np.random.default_rng(settings.seed)
    chosen = np.zeros(len(frame), dtype=bool)
    if frame[target].dtype == np.float64:
        groups = [np.arange(len(frame))]
    else:
        groups = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    sizes = np.array([len(each) for each in groups])
    for rows, count in zip(groups, _test_rows(sizes, settings.test_share), strict=True):
        chosen[generator.permutation(rows)[:count]] = True
    return frame[~chosen].reset_index(drop=True), frame[chosen].reset_index(drop=True)


def check_size(train: pd.DataFrame, classes: Iterable[str], schema: SchemaSettings, folds: int) -> None:
    """Raise DataError if the training rows are too few for cross-validation."""
    if schema.task == "regression":
        if len(train) < FEWEST_ROWS_PER_FOLD * folds:
            raise DataError(
                f"{len(train)} training rows are too few for evaluate.folds ({folds}): use fewer folds or more data"
            )
        return
    rare = too_rare(train[schema.target], classes, folds)
    if rare:
        raise DataError(_rare_message(rare, schema, folds))


def too_rare(labels: pd.Series[Any], classes: Iterable[str], folds: int) -> dict[str, int]:
    """The classes with fewer training rows than folds, with their number of rows."""
    counts = labels.value_counts()
    return {name: int(counts.get(name, 0)) for name in classes if counts.get(name, 0) < folds}


def _rare_message(rare: dict[str, int], schema: SchemaSettings, folds: int) -> str:
    names = ", ".join(f"{name!r} has {count}" for name, count in rare.items())
    first = next(iter(rare))
    return (
        f"{schema.target}: fewer training rows of a class than evaluate.folds ({folds}): {names}; "
        f"merge it with another class (`data.replace: {{{schema.target}: {{{first}: OTHER}}}}`), "
        f"leave its rows out (`schema.drop_classes: [{', '.join(rare)}]`), or use fewer folds"
    )


def _test_rows(sizes: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The number of test rows of each class: integers whose sum is nearest to the share of all rows."""
    exact = sizes * share
    counts = np.floor(exact).astype(np.int64)
    largest_rest_first = np.argsort(counts - exact, kind="stable")
    counts[largest_rest_first[: round(float(exact.sum())) - counts.sum()]] += 1
    bounded: NDArray[np.int64] = np.maximum(np.minimum(counts, sizes - 1), 1)
    return bounded
