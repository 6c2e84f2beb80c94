"""ONNX nodes that look up what an estimator sees of a category: its code, means of the target, or the sets that have it.

skl2onnx's ordinal encoder answers float32, and it knows no target encoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from training.train.algorithms import CATEGORIES, FEATURES
from training.train.onnx.nodes import Nodes


@dataclass(frozen=True, eq=False)
class Lookup(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Numbers for each column of categories.

    Attributes:
        known: the categories of each column.
        tables: for each column, a row of numbers for each of its categories, and a last one for all others.
    """

    known: Sequence[Sequence[str]]
    tables: Sequence[NDArray[Any]]


def compact(fitted: Pipeline) -> Pipeline:
    """Replace the encoder of categories by its answers; a one-hot encoder stays."""
    encoder = _part(fitted)
    if encoder is None or isinstance(encoder, OneHotEncoder):
        return fitted
    known = (encoder[0] if isinstance(encoder, Pipeline) else encoder).categories
    longest = max(map(len, known))
    # A text that is longer than all categories is none of them.
    unknown = "?" * (1 + max(len(each) for categories in known for each in categories))
    texts = np.full((longest + 1, len(known)), unknown, dtype=object)
    for column, categories in enumerate(known):
        texts[: len(categories), column] = categories
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the rows have no names of columns
        answers = np.asarray(encoder.transform(texts), dtype=np.float64).reshape(longest + 1, len(known), -1)
    tables = [answers[[*range(len(categories)), longest], column] for column, categories in enumerate(known)]
    return with_lookup(fitted, Lookup(known, tables))


def lookup_of(fitted: Pipeline) -> Lookup | None:
    """The lookup in a pipeline that `compact` rewrote."""
    part = _part(fitted)
    return part if isinstance(part, Lookup) else None


def first_column(fitted: Pipeline) -> int:
    """The estimator's first column of categories, behind the numbers."""
    (columns,) = (columns for name, _, columns in fitted[FEATURES].transformers_ if name == CATEGORIES)
    return int(columns[0])


def with_lookup(fitted: Pipeline, lookup: Lookup) -> Pipeline:
    """A copy of a pipeline with this lookup in place of its encoder of categories."""
    features = copy(fitted[FEATURES])
    features.transformers_ = [
        (name, lookup if name == CATEGORIES else part, columns)
        for name, part, columns in features.transformers_
    ]
    return Pipeline([(name, features if name == FEATURES else step) for name, step in fitted.steps])


def register_converters() -> None:
    """Register the converter of `Lookup`."""
    update_registered_converter(Lookup, "ExactLookup", _shape, _convert)


def _part(fitted: Pipeline) -> Any:
    features = fitted.named_steps.get(FEATURES)
    return features.named_transformers_.get(CATEGORIES) if isinstance(features, ColumnTransformer) else None


def _shape(operator: Any) -> None:
    width = sum(each.shape[1] for each in operator.raw_operator.tables)
    operator.outputs[0].type = DoubleTensorType([None, width])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    nodes, lookup = Nodes(scope, operator, container), operator.raw_operator
    columns = [nodes.values]
    if len(lookup.tables) > 1:
        ones = np.ones(len(lookup.tables), dtype=np.int64)
        columns = nodes.add_with_results(len(ones), "Split", nodes.values, ones, axis=1)
    found = [
        _looked_up(nodes, column, known, table)
        for column, known, table in zip(columns, lookup.known, lookup.tables, strict=True)
    ]
    joined = found[0] if len(found) == 1 else nodes.add("Concat", *found, axis=2)
    numbers = nodes.add("Squeeze", joined, np.array([1]))
    if lookup.tables[0].dtype != np.float64:
        numbers = nodes.add("Cast", numbers, to=onnx.TensorProto.DOUBLE)
    nodes.answer(numbers)


def _looked_up(nodes: Nodes, column: str, known: Sequence[str], table: NDArray[Any]) -> str:
    """The numbers of one column, of shape (rows, 1, numbers)."""
    rows, inverse = np.unique(table, axis=0, return_inverse=True)
    *places, default = inverse.ravel().tolist()
    # Those that are like unknown ones need no entry, but the node needs one entry.
    entries = [pair for pair in zip(known, places, strict=True) if pair[1] != default] or [
        (known[0], default)
    ]
    keys, values = zip(*entries, strict=True)
    index = nodes.add(
        "LabelEncoder",
        column,
        op_domain="ai.onnx.ml",
        op_version=2,
        keys_strings=list(keys),
        values_int64s=list(values),
        default_int64=default,
    )
    return nodes.add("Gather", rows, index, axis=0)
