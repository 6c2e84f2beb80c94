"""ONNX nodes for scikit-learn's neural network as a regressor; skl2onnx exports the classifier exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline

from training.train.algorithms import ESTIMATOR
from training.train.onnx.nodes import Nodes, register
from training.train.onnx.targets import unwrapped

_ACTIVATIONS = {"identity": "Identity", "logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}


@dataclass(frozen=True, eq=False)
class Network(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Layers of weights and intercepts, with an activation between them."""

    weights: list[NDArray[np.float64]]
    intercepts: list[NDArray[np.float64]]
    activation: str


def compact(fitted: Pipeline) -> Pipeline:
    """Rewrite a pipeline that ends in a neural network for a value; others are returned as they are."""
    model, scale, mean = unwrapped(fitted[-1])
    if type(model) is not MLPRegressor or model.out_activation_ != "identity":
        return fitted
    weights = [*model.coefs_[:-1], model.coefs_[-1] * scale]
    intercepts = [*model.intercepts_[:-1], model.intercepts_[-1] * scale + mean]
    return Pipeline([*fitted.steps[:-1], (ESTIMATOR, Network(weights, intercepts, model.activation))])


def register_converters() -> None:
    """Register the converter of `Network`."""
    register(Network, _write)


def _write(nodes: Nodes, network: Network) -> None:
    value = nodes.values
    *hidden, last = zip(network.weights, network.intercepts, strict=True)
    for weights, intercepts in hidden:
        value = nodes.add(_ACTIVATIONS[network.activation], nodes.add("Gemm", value, weights, intercepts))
    nodes.answer(nodes.add("Gemm", value, *last))
