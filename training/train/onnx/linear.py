"""Three ONNX nodes for logistic regression and one for ridge, whatever prepares the numbers in front of them.

skl2onnx needs ten: two to standardise the numbers, and four to look up classes that are their own indexes. A row
on its own costs a third of a microsecond a node, which is more than the arithmetic does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from training.train.algorithms import ESTIMATOR, unscaled
from training.train.onnx.nodes import Nodes, register

_LARGEST_SHIFT = 1e6
"""Largest shift of a sum by the means of the numbers, in units of a score or of a standard deviation's effect: with float64,
ten decimals are then exact."""


@dataclass(frozen=True, eq=False)
class Linear(BaseEstimator):  # type: ignore[misc]
    """Sums that are linear in the values.

    Attributes:
        weights: shape (values, sums).
        intercepts: shape (sums,).
    """

    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]


class Scores(ClassifierMixin, Linear):  # type: ignore[misc]
    """A score per class; the largest one wins, and their softmax are probabilities."""

    @property
    def classes_(self) -> NDArray[np.int64]:
        return np.arange(len(self.intercepts))


class Value(RegressorMixin, Linear):  # type: ignore[misc]
    """A single sum, which is the value."""


def compact(fitted: Pipeline) -> Pipeline:
    """Rewrite a pipeline that ends in a logistic regression or ridge; others are returned as they are."""
    model = fitted[-1]
    if type(model) not in (LogisticRegression, Ridge):
        return fitted
    weights, intercepts = np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_).astype(np.float64)
    kind, unit = Scores, 1.0
    if type(model) is Ridge:
        kind, unit = Value, float(np.abs(weights).max()) or 1.0
    elif len(model.classes_) == 2:
        # scikit-learn holds the second class's score; the first one's is zero.
        weights, intercepts = (np.insert(each, 0, 0.0, axis=-1) for each in (weights, intercepts))
    rest, scaler = unscaled(fitted)
    folded = _folded(weights, intercepts, scaler, unit) if scaler is not None else None
    if folded is None:
        return _ending_in(kind(weights, intercepts), fitted)
    return _ending_in(kind(*folded), rest)


def register_converters() -> None:
    """Register the converters of both."""
    register(Scores, _write_classification)
    register(Value, _write_regression)


def _folded(
    weights: NDArray[np.float64], intercepts: NDArray[np.float64], scaler: StandardScaler, unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Turn sums over standardised numbers into sums over the numbers, which come first among the values.

    Returns:
        None if the numbers lie so far from zero that their mean has to be subtracted first.
    """
    count = len(scaler.scale_)
    weights = weights.copy()
    weights[:count] /= scaler.scale_[:, np.newaxis]
    shifts = weights[:count] * scaler.mean_[:, np.newaxis]
    if np.abs(shifts).sum(axis=0).max() > _LARGEST_SHIFT * unit:
        return None
    # fsum rounds once, so the result is the same on every machine.
    return weights, intercepts - [math.fsum(each) for each in shifts.T]


def _ending_in(linear: Linear, fitted: Pipeline) -> Pipeline:
    return Pipeline([*fitted.steps[:-1], (ESTIMATOR, linear)])


def _write_classification(nodes: Nodes, linear: Scores) -> None:
    scores = nodes.add("Gemm", nodes.values, linear.weights, linear.intercepts)
    label = nodes.add("ArgMax", scores, axis=1, keepdims=0)
    nodes.answer(label, nodes.add("Softmax", scores, axis=1))


def _write_regression(nodes: Nodes, linear: Value) -> None:
    nodes.answer(nodes.add("Gemm", nodes.values, linear.weights, linear.intercepts))
