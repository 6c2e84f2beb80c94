"""Exact ONNX nodes for scikit-learn's decision tree and random forest.

skl2onnx writes thresholds and leaf shares as float32 and divides each share by the number of trees. Where two
classes tie (with 30 trees and two classes, on one grid row in two hundred), the rounding then decides
otherwise than scikit-learn. Here thresholds and shares stay float64, onnxruntime adds them up in the
estimator's order, and the division comes last, so the label is decided on the very sums that scikit-learn has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

_ML_VERSION = 3
"""The first version of the node that holds float64."""


def register() -> None:
    """Make skl2onnx use these nodes for trees and forests."""
    for kind in (DecisionTreeClassifier, RandomForestClassifier):
        update_registered_converter(
            kind,
            f"Exact{kind.__name__}",
            _shape,
            _convert,
            options={"zipmap": [True, False, "columns"]},
        )


def _shape(operator: Any) -> None:
    operator.outputs[0].type = Int64TensorType([None])
    operator.outputs[1].type = FloatTensorType([None, len(operator.raw_operator.classes_)])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    fitted = operator.raw_operator
    trees = [each.tree_ for each in getattr(fitted, "estimators_", [fitted])]
    classes = len(fitted.classes_)
    label, probabilities = (each.full_name for each in operator.outputs)
    sums = scope.get_unique_variable_name("sums")
    # With two classes onnxruntime compares one of them with 0.5 instead of both with each other. A third
    # class that no leaf votes for makes it compare; its column is cut off again.
    voted = max(classes, 3)
    single, values = (scope.get_unique_variable_name(each) for each in ("single", "values"))
    # As scikit-learn does: values as float32, compared with thresholds in float64.
    container.add_node(
        "Cast", [operator.inputs[0].full_name], [single], to=onnx.TensorProto.FLOAT, op_version=13
    )
    container.add_node("Cast", [single], [values], to=onnx.TensorProto.DOUBLE, op_version=13)
    container.add_node(
        "TreeEnsembleClassifier",
        [values],
        [label, sums],
        op_domain="ai.onnx.ml",
        op_version=_ML_VERSION,
        name=scope.get_unique_operator_name("TreeEnsembleClassifier"),
        classlabels_int64s=list(range(voted)),
        post_transform="NONE",
        **_node_attributes(trees),
        **_leaf_attributes(trees, classes),
    )
    if voted > classes:
        sums = _first_columns(scope, container, sums, classes)
    count = scope.get_unique_variable_name("trees")
    container.add_initializer(count, onnx.TensorProto.FLOAT, [1], [float(len(trees))])
    container.add_node("Div", [sums, count], [probabilities], op_version=14)


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
        "nodes_values_as_tensor": onnx.numpy_helper.from_array(np.where(leaf, 0.0, threshold)),
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


def _first_columns(scope: Any, container: Any, values: str, count: int) -> str:
    names = [scope.get_unique_variable_name(each) for each in ("start", "end", "axis")]
    for name, value in zip(names, (0, count, 1), strict=True):
        container.add_initializer(name, onnx.TensorProto.INT64, [1], [value])
    result: str = scope.get_unique_variable_name("voted")
    container.add_node("Slice", [values, *names], [result], op_version=13)
    return result
