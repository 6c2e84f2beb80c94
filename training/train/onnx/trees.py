"""Exact ONNX nodes for trees.

Other exporters write thresholds and leaves as float32. If two classes tie (with 30 trees and two classes, on one grid row
in two hundred), the rounding can decide differently from the estimator. Here thresholds and leaves have the estimator's
type, and onnxruntime adds them in the estimator's order, so the label depends on the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from training.train.algorithms import ESTIMATOR
from training.train.onnx import lookups
from training.train.onnx.ensembles import Classification, Ensemble, Link, Regression, Tree
from training.train.onnx.nodes import Nodes, register
from training.train.onnx.readers import read

DOMAIN = "ai.onnx.ml"
OPERATOR = "TreeEnsemble"
OPSET = 5
"""The version of that domain with this operator, which adds and answers in float64."""
SUM, LEQ, NO_TRANSFORM = 1, 0, 0
"""Numbers by which the operator TreeEnsemble knows its options."""


def compact(fitted: Pipeline) -> Pipeline:
    """Rewrite a pipeline that ends in trees; others are returned as they are."""
    ensemble = read(fitted[-1])
    if ensemble is None:
        return fitted
    fitted = Pipeline([*fitted.steps[:-1], (ESTIMATOR, ensemble)])
    return _with_columns_of_sets(fitted) if any(each.sets for each in ensemble.trees) else fitted


def register_converters() -> None:
    """Register the converters of `Ensemble`."""
    register(Classification, _write_classification, lambda each: each.single or each.wide)
    register(Regression, _write_regression, lambda each: each.single)


def _with_columns_of_sets(fitted: Pipeline) -> Pipeline:
    """Trees without sets: each set becomes a column, which the lookup of the category fills with 0 for its members.

    onnxruntime's own splits over sets are 1.2 to 2 times slower, take more of the file from 6 categories on, and there is
    none in the operator for votes.
    """
    ensemble, lookup = fitted[-1], lookups.lookup_of(fitted)
    if lookup is None:
        raise ValueError("splits over categories that are numbers are not supported: use categories: native")
    first = lookups.first_column(fitted)
    places: list[dict[Set[int], int]] = [{} for _ in lookup.known]
    for tree in ensemble.trees:
        for node, codes in tree.sets.items():
            column = places[tree.feature[node] - first]
            column.setdefault(codes, len(column))
    # A column that no tree asks for stands for a category without splits.
    starts = first + np.cumsum([0, *(max(1, len(each)) for each in places)])

    def asked(tree: Tree) -> Tree:
        feature, limit = tree.feature.copy(), tree.limit.copy()
        for node, codes in tree.sets.items():
            column = int(tree.feature[node]) - first
            feature[node], limit[node] = starts[column] + places[column][codes], 0.5
        return replace(tree, feature=feature, limit=limit, sets={})

    tables = []
    for known, sets in zip(lookup.known, places, strict=True):
        table = np.ones((len(known) + 1, max(1, len(sets))), dtype=np.uint8)
        for codes, column in sets.items():
            table[sorted(codes), column] = 0
        tables.append(table)
    whole = lookups.with_lookup(fitted, lookups.Lookup(lookup.known, tables))
    trees = [asked(each) for each in ensemble.trees]
    return Pipeline([*whole.steps[:-1], (ESTIMATOR, replace(ensemble, trees=trees))])


def _write_classification(nodes: Nodes, ensemble: Classification) -> None:
    if ensemble.wide:
        _write_votes(nodes, ensemble)
        return
    two = ensemble.link is Link.LOGISTIC
    scores = _sums(nodes, ensemble, 1 if two else ensemble.classes)
    if two:
        # A score of the first class, which the sum has to exceed. It is too small to change a probability.
        kind = _kind(ensemble)
        scores = nodes.add(
            "Gemm", scores, np.array([[0, 1]], dtype=kind), np.array([ensemble.cutoff, 0], dtype=kind)
        )
    probabilities = nodes.add("Softmax", scores, axis=1)
    compared = probabilities if ensemble.compares_probabilities and not two else scores
    nodes.answer(nodes.add("ArgMax", compared, axis=1, keepdims=0), probabilities)


def _write_regression(nodes: Nodes, ensemble: Regression) -> None:
    value = _sums(nodes, ensemble, 1)
    if ensemble.link is Link.EXPONENTIAL:
        value = nodes.add("Exp", value)
    elif ensemble.link is Link.MEAN and len(ensemble.trees) > 1:
        value = nodes.add("Div", value, np.array([len(ensemble.trees)], dtype=_kind(ensemble)))
    nodes.answer(value)


def _kind(ensemble: Ensemble) -> type[np.floating]:
    return np.float32 if ensemble.single else np.float64


def _sums(nodes: Nodes, ensemble: Ensemble, sums: int) -> str:
    """The sums of trees whose leaves add to one sum each: the tree at place i to number i modulo their count."""
    trees = [_with_root(each) for each in ensemble.trees]
    values = nodes.values
    if ensemble.single:
        values = nodes.add("Cast", values, to=onnx.TensorProto.FLOAT)
    kind = _kind(ensemble)
    inner = [np.flatnonzero(~each.leaf) for each in trees]
    # Inner nodes and leaves are numbered apart, over all trees.
    places = [np.where(each.leaf, each.leaf.cumsum(), (~each.leaf).cumsum()) - 1 for each in trees]
    first_nodes = np.cumsum([0, *map(len, inner)])
    first_leaves = np.cumsum([0, *(int(each.leaf.sum()) for each in trees)])

    def of_inner(values: Callable[[Tree], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([values(tree)[rows] for tree, rows in zip(trees, inner, strict=True)])

    def targets(side: str) -> tuple[list[int], list[int]]:
        """For each inner node, where a side leads, and whether to a leaf."""
        numbers, ends = [], []
        for tree, rows, place, node, leaf in zip(
            trees, inner, places, first_nodes, first_leaves, strict=False
        ):
            children = getattr(tree, side)[rows]
            end = tree.leaf[children]
            numbers.append(place[children] + np.where(end, leaf, node))
            ends.append(end)
        return np.concatenate(numbers).tolist(), np.concatenate(ends).astype(int).tolist()

    true_ids, true_leafs = targets("left")
    false_ids, false_leafs = targets("right")
    missing = of_inner(lambda tree: tree.missing_left).astype(int)
    attributes: dict[str, Any] = (
        {"nodes_missing_value_tracks_true": missing.tolist()} if missing.any() else {}
    )
    leaves = [tree.values[tree.leaf, 0] for tree in trees]
    return nodes.add(
        OPERATOR,
        values,
        op_domain=DOMAIN,
        op_version=1,
        n_targets=sums,
        aggregate_function=SUM,
        post_transform=NO_TRANSFORM,
        tree_roots=first_nodes[:-1].tolist(),
        nodes_featureids=of_inner(lambda tree: tree.feature).tolist(),
        nodes_modes=_tensor(np.full(first_nodes[-1], LEQ, dtype=np.uint8)),
        nodes_splits=_tensor(of_inner(lambda tree: tree.limit).astype(kind)),
        nodes_truenodeids=true_ids,
        nodes_trueleafs=true_leafs,
        nodes_falsenodeids=false_ids,
        nodes_falseleafs=false_leafs,
        leaf_targetids=np.repeat(np.arange(len(trees)) % sums, list(map(len, leaves))).tolist(),
        leaf_weights=_tensor(np.concatenate(leaves).astype(kind)),
        **attributes,
    )


def _with_root(tree: Tree) -> Tree:
    """A tree with at least one inner node, as the operator needs: a single leaf is put on both sides of one."""
    if not tree.leaf[0]:
        return tree
    return Tree(
        np.zeros(3, dtype=np.int64),
        np.zeros(3),
        np.zeros(3, dtype=bool),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.repeat(tree.values[:1], 3, axis=0),
        np.ones(3),
    )


def _write_votes(nodes: Nodes, ensemble: Classification) -> None:
    """Trees whose leaves add to every class, for which the operator TreeEnsemble would need a copy for each."""
    # With two classes onnxruntime compares one of them with 0.5 instead of both with each other. A third class
    # without votes makes it compare; its column is removed afterwards.
    voted = max(ensemble.classes, 3)
    label, sums = nodes.add_with_results(
        2,
        "TreeEnsembleClassifier",
        nodes.values,
        op_domain=DOMAIN,
        classlabels_int64s=list(range(voted)),
        post_transform="NONE",
        **_branches(ensemble.trees),
        **_votes(ensemble.trees),
    )
    if voted > ensemble.classes:
        sums = nodes.add("Slice", sums, *(np.array([each]) for each in (0, ensemble.classes, 1)))
    if ensemble.link is Link.SOFTMAX:
        sums = nodes.add("Softmax", sums, axis=1)
    elif len(ensemble.trees) > 1:
        sums = nodes.add("Div", sums, np.array([len(ensemble.trees)], dtype=np.float32))
    nodes.answer(label, sums)


def _branches(trees: Sequence[Tree]) -> dict[str, Any]:
    sizes = [len(tree.leaf) for tree in trees]
    leaf = np.concatenate([tree.leaf for tree in trees])
    missing = np.concatenate([tree.missing_left for tree in trees]) & ~leaf
    attributes = {
        "nodes_treeids": np.repeat(np.arange(len(trees)), sizes).tolist(),
        "nodes_nodeids": np.concatenate([np.arange(size) for size in sizes]).tolist(),
        "nodes_featureids": np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.concatenate([np.maximum(tree.left, 0) for tree in trees]).tolist(),
        "nodes_falsenodeids": np.concatenate([np.maximum(tree.right, 0) for tree in trees]).tolist(),
        "nodes_values_as_tensor": _tensor(
            np.where(leaf, 0.0, np.concatenate([tree.limit for tree in trees]))
        ),
    }
    if missing.any():
        attributes["nodes_missing_value_tracks_true"] = missing.astype(int).tolist()
    return attributes


def _votes(trees: Sequence[Tree]) -> dict[str, Any]:
    """One vote per leaf and class."""
    leaves = [np.flatnonzero(tree.leaf) for tree in trees]
    classes = trees[0].values.shape[1]
    votes = [tree.values[rows].ravel() for tree, rows in zip(trees, leaves, strict=True)]
    return {
        "class_treeids": np.repeat(np.arange(len(trees)), [len(rows) * classes for rows in leaves]).tolist(),
        "class_nodeids": np.repeat(np.concatenate(leaves), classes).tolist(),
        "class_ids": np.tile(np.arange(classes), sum(map(len, leaves))).tolist(),
        "class_weights_as_tensor": _tensor(np.concatenate(votes)),
    }


def _tensor(values: NDArray[Any]) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(values)
