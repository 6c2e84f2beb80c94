"""Three ONNX nodes for logistic regression, whatever prepares the numbers in front of it.

skl2onnx needs ten: two to standardise the numbers, and four to look up classes that are their own indexes. A row
on its own costs a third of a microsecond a node, which is more than the arithmetic does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from training.train.algorithms import ESTIMATOR, unscaled
from training.train.onnx.nodes import Nodes, register

_LARGEST_SHIFT = 1e6
"""Largest shift of a score by the means of the numbers: with float64, ten decimals are then exact."""


class Linear(ClassifierMixin):  # type: ignore[misc]
    """A score per class that is linear in the values; the largest one wins, and their softmax are probabilities.

    Attributes:
        weights: shape (values, classes).
        intercepts: shape (classes,).
    """

    def __init__(self, weights: NDArray[np.float64], intercepts: NDArray[np.float64]) -> None:
        self.weights = weights
        self.intercepts = intercepts
        self.classes_ = np.arange(len(intercepts))


def compact(fitted: Pipeline) -> Pipeline:
    """Rewrite a pipeline that ends in a logistic regression; others are returned as they are."""
    model = fitted[-1]
    if type(model) is not LogisticRegression:
        return fitted
    weights, intercepts = model.coef_.T, model.intercept_
    if len(model.classes_) == 2:
        # scikit-learn holds the second class's score; the first one's is zero.
        weights, intercepts = (np.insert(each, 0, 0.0, axis=-1) for each in (weights, intercepts))
    linear = Linear(weights, intercepts)
    rest, scaler = unscaled(fitted)
    folded = _folded(linear, scaler) if scaler is not None else None
    if folded is None:
        return _ending_in(linear, fitted)
    return _ending_in(folded, rest)


def register_converters() -> None:
    """Register the converter of `Linear`."""
    register(Linear, _write, DoubleTensorType)


def _folded(linear: Linear, scaler: StandardScaler) -> Linear | None:
    """Turn scores of standardised numbers into scores of the numbers, which come first among the values.

    Returns:
        None if the numbers lie so far from zero that their mean has to be subtracted first.
    """
    count = len(scaler.scale_)
    weights = linear.weights.copy()
    weights[:count] /= scaler.scale_[:, np.newaxis]
    shifts = weights[:count] * scaler.mean_[:, np.newaxis]
    if np.abs(shifts).sum(axis=0).max() > _LARGEST_SHIFT:
        return None
    # fsum rounds once, so the result is the same on every machine.
    return Linear(weights, linear.intercepts - [math.fsum(each) for each in shifts.T])


def _ending_in(linear: Linear, fitted: Pipeline) -> Pipeline:
    return Pipeline([*fitted.steps[:-1], (ESTIMATOR, linear)])


def _write(nodes: Nodes, linear: Linear) -> None:
    scores = nodes.add("Gemm", nodes.values, linear.weights, linear.intercepts)
    nodes.answer(
        label=nodes.add("ArgMax", scores, axis=1, keepdims=0),
        probabilities=nodes.add("Softmax", scores, axis=1),
    )
