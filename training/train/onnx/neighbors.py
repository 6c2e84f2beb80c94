"""ONNX nodes for our k nearest neighbours.

The training rows are ranked in float64, the ranks are compared as float32, and of equal ones the first is taken, as
`training.train.algorithms.neighbors` does.
"""

from __future__ import annotations

import numpy as np
import onnx
from sklearn.pipeline import Pipeline

from training.train.algorithms.neighbors import NearestNeighborsClassifier, NearestNeighborsRegressor
from training.train.onnx.nodes import Nodes, register


def compact(fitted: Pipeline) -> Pipeline:
    """Nothing is rewritten: both estimators are ours."""
    return fitted


def register_converters() -> None:
    """Register the converters of both estimators."""
    register(NearestNeighborsClassifier, _write_classification)
    register(NearestNeighborsRegressor, _write_regression)


def _write_classification(nodes: Nodes, fitted: NearestNeighborsClassifier) -> None:
    votes = np.eye(len(fitted.classes_))[fitted.labels_]
    counts = nodes.add(
        "ReduceSum", nodes.add("Gather", votes, _nearest(nodes, fitted)), np.array([1]), keepdims=0
    )
    shares = nodes.add("Div", counts, np.array(float(fitted.n_neighbors)))
    nodes.answer(nodes.add("ArgMax", counts, axis=1, keepdims=0), shares)


def _write_regression(nodes: Nodes, fitted: NearestNeighborsRegressor) -> None:
    targets = nodes.add("Gather", fitted.targets_, _nearest(nodes, fitted))
    nodes.answer(nodes.add("ReduceMean", targets, np.array([1]), keepdims=1))


def _nearest(nodes: Nodes, fitted: NearestNeighborsClassifier | NearestNeighborsRegressor) -> str:
    ranks = nodes.add("Gemm", nodes.values, fitted.rows_, fitted.half_squares_, alpha=-1.0, transB=1)
    ranks = nodes.add("Cast", ranks, to=onnx.TensorProto.FLOAT)
    _, positions = nodes.add_with_results(
        2, "TopK", ranks, np.array([fitted.n_neighbors]), largest=0, sorted=0
    )
    return positions
