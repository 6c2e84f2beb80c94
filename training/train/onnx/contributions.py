"""ONNX nodes for what each feature adds to a prediction: SHAP values, exact for sums and for trees.

Sums that have one term for each column are explained by each term's distance from its mean over the training rows. Trees are
explained along their paths, with the training rows that took each branch as weights (path-dependent TreeSHAP). A path with
the columns U adds its leaf's value v if the row keeps to all of its conditions. Let o be 1 for a column whose condition the
row keeps and 0 for others, and z the share of the training rows that keep it. Column j then adds

    v · (o_j - z_j) · ∫ ∏ (t·o_k + (1-t)·z_k) dt   over t from 0 to 1 and over the k in U other than j.

The integrand is a polynomial, which Gauss-Legendre quadrature with half as many points as U has columns integrates exactly.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from training.train.onnx.ensembles import Ensemble, Floats, Link
from training.train.onnx.nodes import Nodes, register
from training.train.onnx.paths import Condition, paths

MOST_FACTORS = 1_000_000
"""Of the products for one row. They need 30 MB and 10 ms."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Contributions(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Contributions of shape (rows, features, outputs), which together with the bases are the model's raw scores.

    Attributes:
        features: to which feature each column belongs.
        count: how many features there are.
        bases: the mean score of each output over the training rows.
    """

    features: Integers
    count: int
    bases: Floats


@dataclass(frozen=True, eq=False)
class OfTerms(Contributions):
    """Of sums with one term for each column.

    Attributes:
        means: of the columns.
        weights: shape (columns, outputs).
    """

    means: Floats
    weights: Floats


@dataclass(frozen=True, eq=False)
class OfPaths(Contributions):
    """Of trees.

    Attributes:
        conditions: each only once, with its column.
        groups: the paths, those with equally many columns together.
        single: whether values are compared as float32.
    """

    conditions: Sequence[tuple[int, Condition]]
    groups: Sequence[Group]
    single: bool


@dataclass(frozen=True, eq=False)
class Group:
    """Paths with equally many columns.

    Attributes:
        conditions: indices of the conditions, of shape (columns of a path, paths).
        leaves: what each leaf adds, of shape (paths, outputs of a leaf).
        outputs: to which output each path adds; 0 if its leaf adds to all.
    """

    conditions: Integers
    leaves: Floats
    outputs: Integers

    @property
    def points(self) -> int:
        """Of the quadrature."""
        return -(-len(self.conditions) // 2)


def of_terms(weights: Floats, intercepts: Floats, means: Floats, features: Integers, count: int) -> OfTerms:
    bases = [math.fsum(each) for each in np.column_stack([weights.T * means, intercepts])]
    return OfTerms(features, count, np.array(bases), means, weights)


def of_trees(ensemble: Ensemble, outputs: int, features: Integers, count: int) -> OfPaths:
    """The contributions to the sums of trees.

    Args:
        ensemble: trees whose leaves have one value, for the output at the tree's place modulo their count; or one for each.
        outputs: how many there are.
        features: to which feature each column belongs.
        count: how many features there are.
    """
    known: dict[tuple[int, Condition], int] = {}
    found: defaultdict[int, list[tuple[list[int], Floats, int]]] = defaultdict(list)
    terms: list[list[float]] = [[] for _ in range(outputs)]
    scale = 1 / len(ensemble.trees) if ensemble.link is Link.MEAN else 1.0
    for place, tree in enumerate(ensemble.trees):
        output = 0 if ensemble.wide else place % outputs
        for leaf, passed in paths(tree):
            value = tree.values[leaf] * scale
            expected = value * math.prod(each.share for each in passed.values())
            for each, term in enumerate(expected.tolist(), output):
                terms[each].append(term)
            if passed and value.any():
                numbers = [known.setdefault(each, len(known)) for each in passed.items()]
                found[len(passed)].append((numbers, value, output))
    return OfPaths(
        features,
        count,
        np.array([math.fsum(each) for each in terms]),
        list(known),
        [_group(each) for _, each in sorted(found.items())],
        ensemble.single,
    )


def _group(found: Sequence[tuple[list[int], Floats, int]]) -> Group:
    conditions, leaves, outputs = zip(*found, strict=True)
    return Group(np.array(conditions).T, np.array(leaves), np.array(outputs))


def factors(explained: OfPaths) -> int:
    """How many factors the products for one row have."""
    return sum(each.conditions.size * max(each.points, each.leaves.shape[1]) for each in explained.groups)


def register_converters() -> None:
    """Register the converters of both kinds."""
    register(OfTerms, _write_terms)
    register(OfPaths, _write_paths)


def _write_terms(nodes: Nodes, explained: OfTerms) -> None:
    values = nodes.add("Transpose", nodes.values, perm=[1, 0])
    distances = nodes.add("Sub", values, explained.means[:, np.newaxis])
    terms = nodes.add(
        "Mul", nodes.add("Unsqueeze", distances, np.array([1])), explained.weights[:, :, np.newaxis]
    )
    sums = _zeros(nodes, values, [explained.count, len(explained.bases)])
    _answer(nodes, _added(nodes, sums, explained.features, terms), explained)


def _write_paths(nodes: Nodes, explained: OfPaths) -> None:
    # Rows are the last axis, so that each node works on long pieces of memory.
    values = nodes.add("Transpose", nodes.values, perm=[1, 0])
    outputs = len(explained.bases)
    of_leaf = explained.groups[0].leaves.shape[1] if explained.groups else outputs
    places = outputs // of_leaf
    sums = _zeros(nodes, values, [explained.count * places, of_leaf])
    if explained.groups:
        kept = _kept(nodes, values, explained)
        features = explained.features[[column for column, _ in explained.conditions]]
        shares = np.array([each.share for _, each in explained.conditions])
        for group in explained.groups:
            added = _of_group(nodes, kept, group, shares[group.conditions])
            targets = features[group.conditions] * places + group.outputs
            sums = _added(nodes, sums, targets.ravel(), added)
    _answer(nodes, sums, explained)


def _kept(nodes: Nodes, values: str, explained: OfPaths) -> str:
    """Whether each row keeps each condition, as 1 or 0, of shape (conditions, rows)."""
    kinds: defaultdict[int, list[int]] = defaultdict(list)
    for number, (column, condition) in enumerate(explained.conditions):
        kinds[column if condition.codes or condition.among else -1].append(number)
    if explained.single:
        values = nodes.add("Cast", values, to=onnx.TensorProto.FLOAT)
        values = nodes.add("Cast", values, to=onnx.TensorProto.DOUBLE)
    parts = []
    for column, numbers in kinds.items():
        asked = [explained.conditions[each] for each in numbers]
        parts.append(
            _compared(nodes, values, asked)
            if column < 0
            else _looked_up(nodes, values, column, [condition for _, condition in asked])
        )
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([*kinds.values()]))
    return nodes.add("Gather", nodes.add("Concat", *parts, axis=0), order, axis=0)


def _compared(nodes: Nodes, values: str, asked: Sequence[tuple[int, Condition]]) -> str:
    """Conditions on numbers."""
    columns, conditions = zip(*asked, strict=True)
    above, up_to, missing = (
        np.array(each)[:, np.newaxis] for each in zip(*(each[:3] for each in conditions), strict=True)
    )
    given = nodes.add("Gather", values, np.array(columns), axis=0)
    kept = nodes.add(
        "And",
        nodes.add("LessOrEqual", given, up_to),
        nodes.add("Not", nodes.add("LessOrEqual", given, above)),
    )
    if missing.any():
        kept = nodes.add("Or", kept, nodes.add("And", nodes.add("IsNaN", given), missing))
    return nodes.add("Cast", kept, to=onnx.TensorProto.DOUBLE)


def _looked_up(nodes: Nodes, values: str, column: int, conditions: Sequence[Condition]) -> str:
    """Conditions on the code of a category."""
    size = 1 + max(max(each.codes, default=0) for each in conditions)
    # The last column is of codes that no condition names: larger ones, and -1 for an unknown category.
    table = np.array([[not each.among] * (size + 1) for each in conditions], dtype=np.float64)
    for row, each in zip(table, conditions, strict=True):
        row[sorted(each.codes)] = each.among
    codes = nodes.add(
        "Cast", nodes.add("Gather", values, np.array(column), axis=0), to=onnx.TensorProto.INT64
    )
    return nodes.add("Gather", table, nodes.add("Min", codes, np.array(size)), axis=1)


def _of_group(nodes: Nodes, kept: str, group: Group, shares: Floats) -> str:
    """What the conditions of paths add, of shape (conditions, outputs of a leaf, rows)."""
    points, weights = np.polynomial.legendre.leggauss(group.points)
    at, weights = ((each[:, np.newaxis, np.newaxis]) for each in ((points + 1) / 2, weights / 2))
    shares = shares[:, :, np.newaxis]
    kept = nodes.add("Gather", kept, group.conditions, axis=0)
    # Of the axes columns of a path, points, paths and rows. The first product is of constants, for whoever loads the file.
    of_share = nodes.add("Mul", shares[:, np.newaxis], 1 - at)
    of_kept = nodes.add("Mul", nodes.add("Unsqueeze", kept, np.array([1])), at)
    factors = nodes.add("Add", of_kept, of_share)
    product = nodes.add("Mul", nodes.add("ReduceProd", factors, np.array([0]), keepdims=1), weights)
    integrals = nodes.add("ReduceSum", nodes.add("Div", product, factors), np.array([1]), keepdims=0)
    added = nodes.add("Mul", integrals, nodes.add("Sub", kept, shares))
    added = nodes.add("Mul", nodes.add("Unsqueeze", added, np.array([2])), group.leaves[:, :, np.newaxis])
    return nodes.add("Reshape", added, np.array([group.conditions.size, group.leaves.shape[1], -1]))


def _zeros(nodes: Nodes, values: str, shape: Sequence[int]) -> str:
    """Zeros of a shape that has the rows as a further axis."""
    rows = nodes.add("Shape", values, start=1)
    whole = nodes.add("Concat", np.array(shape), rows, axis=0)
    return nodes.add("ConstantOfShape", whole, value=onnx.numpy_helper.from_array(np.zeros(1)))


def _added(nodes: Nodes, sums: str, targets: Integers, added: str) -> str:
    """Sums to which each piece is added at its target."""
    return nodes.add("ScatterND", sums, targets[:, np.newaxis], added, reduction="add")


def _answer(nodes: Nodes, sums: str, explained: Contributions) -> None:
    by_feature = nodes.add("Reshape", sums, np.array([explained.count, len(explained.bases), -1]))
    nodes.answer(nodes.add("Transpose", by_feature, perm=[2, 0, 1]))
