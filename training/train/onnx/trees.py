"""Exact ONNX nodes for scikit-learn's decision tree and random forest.

skl2onnx writes thresholds and leaf shares as float32 and divides each share by the number of trees. If two classes tie
(with 30 trees and two classes, on one grid row in two hundred), the rounding can decide differently from scikit-learn.
Here thresholds and shares stay float64, onnxruntime adds them in the estimator's order, and the division comes last, so
the label depends on the same sums as in scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from training.train.onnx.nodes import Nodes, register


def register_converters() -> None:
    """Make skl2onnx use these nodes for trees and forests."""
    for kind in (DecisionTreeClassifier, RandomForestClassifier):
        register(kind, _write, FloatTensorType)


def passing(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest float64 values that are not above the thresholds after a cast to float32.

    scikit-learn casts the values; onnxruntime compares them with these limits without a cast. Rounding keeps the order
    of values, so exactly the values up to the limit pass. It lies midway between the last float32 that passes and
    the next one, or just below: a value that is exactly midway is rounded to the even one of the two.
    """
    last = thresholds.astype(np.float32)
    last = np.where(last > thresholds, np.nextafter(last, np.float32(-np.inf)), last)
    following = np.nextafter(last, np.float32(np.inf))
    midway = (last.astype(np.float64) + following.astype(np.float64)) / 2
    even = last.view(np.int32) % 2 == 0
    return np.where(even, midway, np.nextafter(midway, -np.inf))


def _write(nodes: Nodes, fitted: Any) -> None:
    trees = [each.tree_ for each in getattr(fitted, "estimators_", [fitted])]
    classes = len(fitted.classes_)
    # With two classes onnxruntime compares one of them with 0.5 instead of both with each other. A third class
    # without votes makes it compare; its column is removed afterwards.
    voted = max(classes, 3)
    label, shares = nodes.add_with_results(
        2,
        "TreeEnsembleClassifier",
        nodes.values,
        op_domain="ai.onnx.ml",
        classlabels_int64s=list(range(voted)),
        post_transform="NONE",
        **_node_attributes(trees),
        **_leaf_attributes(trees, classes),
    )
    if voted > classes:
        shares = nodes.add("Slice", shares, *(np.array([each]) for each in (0, classes, 1)))
    if len(trees) > 1:
        shares = nodes.add("Div", shares, np.array([len(trees)], dtype=np.float32))
    nodes.answer(label, shares)


def _node_attributes(trees: list[Any]) -> dict[str, Any]:
    leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    return {
        "nodes_treeids": np.repeat(np.arange(len(trees)), [tree.node_count for tree in trees]).tolist(),
        "nodes_nodeids": np.concatenate([np.arange(tree.node_count) for tree in trees]).tolist(),
        "nodes_featureids": np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.concatenate([np.maximum(tree.children_left, 0) for tree in trees]).tolist(),
        "nodes_falsenodeids": np.concatenate([np.maximum(tree.children_right, 0) for tree in trees]).tolist(),
        "nodes_values_as_tensor": onnx.numpy_helper.from_array(np.where(leaf, 0.0, passing(threshold))),
    }


def _leaf_attributes(trees: list[Any], classes: int) -> dict[str, Any]:
    """One vote per leaf and class: the class's share of the leaf's training rows."""
    leaves = [np.flatnonzero(tree.children_left < 0) for tree in trees]
    votes = [tree.value[rows, 0, :].ravel() for tree, rows in zip(trees, leaves, strict=True)]
    total = sum(map(len, leaves))
    return {
        "class_treeids": np.repeat(np.arange(len(trees)), [len(rows) * classes for rows in leaves]).tolist(),
        "class_nodeids": np.repeat(np.concatenate(leaves), classes).tolist(),
        "class_ids": np.tile(np.arange(classes), total).tolist(),
        "class_weights_as_tensor": onnx.numpy_helper.from_array(np.concatenate(votes)),
    }
