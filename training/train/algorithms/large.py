"""Fits a pipeline on rows that are kept in files.

The preparation is fitted on a random sample, because a mean or a median of half a million rows is as good. All rows are then
prepared block by block into another file, and the estimator reads that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.compose import ColumnTransformer
from sklearn.ensemble._forest import BaseForest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import BaseDecisionTree

from training.data import memory
from training.data.dataset import Split, sampled
from training.train.algorithms.encoding import CrossFittedTargetEncoder
from training.train.algorithms.factories import SEED
from training.train.algorithms.inputs import inputs
from training.train.algorithms.weights import WeightedPipeline

PREPARATION_ROWS = 500_000
"""Rows on which scaling, imputation and encoding are fitted."""
WIDE = 100
"""Columns of encoded categories from which logistic regression gets rows without their zeros."""


def is_large(pipeline: WeightedPipeline, split: Split) -> bool:
    """Whether the rows are kept in files, or would have to be when they are prepared."""
    size = len(split) * (split.numbers.shape[1] + _width(pipeline)) * np.dtype(np.float64).itemsize
    return split.is_large or size >= memory.LARGE


def _width(pipeline: WeightedPipeline) -> int:
    """The columns that categories become."""
    encoders = [each for each in pipeline.get_params().values() if isinstance(each, OneHotEncoder)]
    return sum(len(known) for each in encoders for known in each.categories)


def seen(split: Split) -> Split:
    """The rows on which the steps before the estimator are fitted: of a large split, a sample."""
    return split.sample(PREPARATION_ROWS, SEED) if split.is_large else split


def fit(pipeline: WeightedPipeline, split: Split, sample: Split) -> WeightedPipeline:
    """Fit a pipeline in place; the steps before the estimator on the sample."""
    *preparation, (_, estimator) = pipeline.steps
    weights = pipeline.weights(split.target, split.weights)
    prepared, own = _fitted(Pipeline(preparation), sample) if preparation else (None, None)
    sparse = isinstance(estimator, LogisticRegression) and _width(pipeline) > WIDE
    columns = _sparse(prepared, split) if sparse else _columns(prepared, split, _type(estimator))
    if own is not None:
        columns[sampled(len(split), PREPARATION_ROWS, SEED)] = own
    if isinstance(estimator, GaussianNB):
        _fit_in_blocks(estimator, columns, split.target, weights)
    elif weights is None:
        estimator.fit(columns, split.target)
    else:
        estimator.fit(columns, split.target, sample_weight=weights)
    return pipeline


def _fitted(preparation: Pipeline, sample: Split) -> tuple[Pipeline, NDArray[Any] | None]:
    """Fit the steps before the estimator.

    Returns:
        The steps, and the prepared sample where that is not what they make of these rows later: target encoding must not
        show a row its own target.
    """
    if any(isinstance(each, CrossFittedTargetEncoder) for each in preparation.get_params().values()):
        return preparation, np.asarray(preparation.fit_transform(inputs(sample), sample.target))
    # A ColumnTransformer prepares all rows to fit, and needs no zeros for that.
    _write_zeros(preparation, write=False)
    preparation.fit(inputs(sample), sample.target)
    _write_zeros(preparation, write=True)
    return preparation, None


def _write_zeros(preparation: Pipeline, *, write: bool) -> None:
    for step in preparation.get_params().values():
        if isinstance(step, OneHotEncoder):
            step.sparse_output = not write
        if isinstance(step, ColumnTransformer) and hasattr(step, "transformers_"):
            step.sparse_output_ = not write
            for _, fitted, _ in step.transformers_:
                if isinstance(fitted, OneHotEncoder):
                    fitted.sparse_output = not write


def _columns(preparation: Pipeline | None, split: Split, kind: type) -> NDArray[Any]:
    """All rows as the estimator gets them, kept in a file."""
    if preparation is None and kind is np.float64:
        return split.numbers
    columns: NDArray[Any] | None = None
    for block, made in _prepared(preparation, split):
        if columns is None:
            columns = memory.empty((len(split), made.shape[1]), kind)
        columns[block] = made
    assert columns is not None  # noqa: S101 - a large split has rows
    return columns


def _sparse(preparation: Pipeline | None, split: Split) -> csr_array:
    """The same without the zeros, of which encoded categories have many; kept in files."""
    # Of the columns that a category becomes, at most one is not 0.
    most = len(split) * (split.numbers.shape[1] + split.categories.shape[1])
    kind = np.int32 if most < 2**31 else np.int64
    values, places = memory.empty((most,), np.float64), memory.empty((most,), kind)
    starts, width = np.zeros(len(split) + 1, kind), 0
    for block, made in _prepared(preparation, split):
        width, found = made.shape[1], csr_array(made)
        first = starts[block.start]
        values[first : first + found.nnz], places[first : first + found.nnz] = found.data, found.indices
        starts[block.start + 1 : block.stop + 1] = first + found.indptr[1:]
    count = starts[-1]
    return csr_array((values[:count], places[:count], starts), shape=(len(split), width))


def _prepared(preparation: Pipeline | None, split: Split) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks of rows as the estimator gets them."""
    size, start = min(1_000, memory.BLOCK), 0
    while start < len(split):
        block = slice(start, min(start + size, len(split)))
        rows = inputs(Split(split.numbers[block], split.categories[block], split.target[block], None))
        made = np.asarray(rows if preparation is None else preparation.transform(rows))
        yield block, made
        # The first block tells how wide rows become.
        start, size = block.stop, min(memory.BLOCK, max(1_000, memory.LARGE // (8 * made.shape[1])))


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
