"""Fits a pipeline on rows that are kept in files.

The preparation is fitted on a random sample, because a mean or a median of half a million rows is as good. All rows are then
prepared block by block into another file, and the estimator reads that one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble._forest import BaseForest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.tree import BaseDecisionTree

from training.data import memory
from training.data.dataset import Split
from training.train.algorithms.factories import SEED
from training.train.algorithms.inputs import inputs
from training.train.algorithms.weights import WeightedPipeline

PREPARATION_ROWS = 500_000
"""Rows on which scaling, imputation and encoding are fitted."""


def seen(split: Split) -> Split:
    """The rows on which the steps before the estimator are fitted: of a large split, a sample."""
    return split.sample(PREPARATION_ROWS, SEED) if split.is_large else split


def fit(pipeline: WeightedPipeline, split: Split, sample: Split) -> WeightedPipeline:
    """Fit a pipeline in place; the steps before the estimator on the sample."""
    *preparation, (_, estimator) = pipeline.steps
    weights = pipeline.weights(split.target, split.weights)
    prepared = Pipeline(preparation).fit(inputs(sample), sample.target) if preparation else None
    columns = _columns(prepared, split, _type(estimator))
    if isinstance(estimator, GaussianNB):
        _fit_in_blocks(estimator, columns, split.target, weights)
    elif weights is None:
        estimator.fit(columns, split.target)
    else:
        estimator.fit(columns, split.target, sample_weight=weights)
    return pipeline


def _columns(preparation: Pipeline | None, split: Split, kind: type) -> NDArray[Any]:
    """All rows as the estimator gets them, kept in a file."""
    if preparation is None and kind is np.float64:
        return split.numbers
    columns: NDArray[Any] | None = None
    for block in memory.blocks(len(split)):
        rows = inputs(Split(split.numbers[block], split.categories[block], split.target[block], None))
        made = rows if preparation is None else np.asarray(preparation.transform(rows))
        if columns is None:
            columns = memory.empty((len(split), made.shape[1]), kind)
        columns[block] = made
    assert columns is not None  # noqa: S101 - a large split has rows
    return columns


def _type(estimator: Any) -> type:
    """The type in which an estimator compares numbers, so that it makes no copy of them."""
    single = isinstance(estimator, BaseForest | BaseDecisionTree) or "xgboost" in type(estimator).__module__
    return np.float32 if single else np.float64


def _fit_in_blocks(
    estimator: GaussianNB, columns: NDArray[Any], target: NDArray[Any], weights: NDArray[Any] | None
) -> None:
    """Its `fit` copies the rows of each class; means and variances of blocks add up to the same."""
    classes = np.unique(target)
    for block in memory.blocks(len(columns)):
        estimator.partial_fit(
            columns[block], target[block], classes, None if weights is None else weights[block]
        )
