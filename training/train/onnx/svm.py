"""Exact ONNX nodes for support vector machines: a classifier with sigmoid calibration, a regressor, and their approximations.

skl2onnx writes support vectors and coefficients as float32, and separate nodes for each class: seventy for three
classes. If the decision between two classes is close, the rounding can decide it differently from scikit-learn, and the
votes amplify the difference. Here everything is float64, and twenty nodes compute all classes at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR

from training.train.algorithms import ESTIMATOR
from training.train.algorithms.nystroem import NystroemSVC, NystroemSVR
from training.train.onnx.nodes import Nodes, register
from training.train.onnx.targets import unwrapped

_Machine: TypeAlias = SVC | SVR | NystroemSVC | NystroemSVR


@dataclass(frozen=True, eq=False)
class CalibratedSVC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted SVC and the sigmoids over its decision function, 1 / (1 + exp(slope * decision + offset)).

    Attributes:
        svc: the classifier.
        slopes: one per class; of two classes only the second's.
        offsets: as `slopes`.
    """

    svc: SVC
    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @property
    def classes_(self) -> NDArray[np.int64]:
        classes: NDArray[np.int64] = self.svc.classes_
        return classes


@dataclass(frozen=True, eq=False)
class ScaledSVR(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted SVR or its approximation, and what its value is multiplied with and added to."""

    svr: SVR | NystroemSVR
    scale: float
    mean: float


def compact(fitted: Pipeline) -> Pipeline:
    """Rewrite a pipeline that ends in a calibrated SVC or an SVR; others are returned as they are.

    Other calibrations, ensembles of classifiers and kernels that are functions are not rewritten either.
    """
    model, scale, mean = unwrapped(fitted[-1])
    if type(model) in (SVR, NystroemSVR) and model.kernel in _KERNELS:
        return Pipeline([*fitted.steps[:-1], (ESTIMATOR, ScaledSVR(model, scale, mean))])
    if type(model) is not CalibratedClassifierCV or len(model.calibrated_classifiers_) > 1:
        return fitted
    (calibrated,) = model.calibrated_classifiers_
    svc = calibrated.estimator
    if type(svc) is not SVC or svc.kernel not in _KERNELS or calibrated.method != "sigmoid":
        return fitted
    slopes = np.array([each.a_ for each in calibrated.calibrators])
    offsets = np.array([each.b_ for each in calibrated.calibrators])
    return Pipeline([*fitted.steps[:-1], (ESTIMATOR, CalibratedSVC(svc, slopes, offsets))])


def register_converters() -> None:
    """Register the converters of all."""
    register(CalibratedSVC, _write_classification)
    register(NystroemSVC, _write_approximation)
    register(ScaledSVR, _write_regression)


def _write_regression(nodes: Nodes, model: ScaledSVR) -> None:
    svr = model.svr
    weights, intercept = svr.dual_coef_.T * model.scale, svr.intercept_ * model.scale + model.mean
    nodes.answer(nodes.add("Gemm", _KERNELS[svr.kernel](nodes, svr), weights, intercept))


def _write_classification(nodes: Nodes, model: CalibratedSVC) -> None:
    svc = model.svc
    similarities = _KERNELS[svc.kernel](nodes, svc)
    if len(svc.classes_) == 2:
        probabilities = _two_probabilities(nodes, similarities, *_calibrated_decisions(model))
    elif svc.decision_function_shape == "ovo":
        exponents = nodes.add("Gemm", similarities, *_calibrated_decisions(model))
        probabilities = _normalised_sigmoids(nodes, exponents)
    else:
        decisions = nodes.add("Gemm", similarities, *_pairwise_decisions(svc))
        probabilities = _normalised_sigmoids(nodes, _calibrated_votes(nodes, decisions, model))
    nodes.answer(nodes.add("ArgMax", probabilities, axis=1, keepdims=0), probabilities)


def _write_approximation(nodes: Nodes, model: NystroemSVC) -> None:
    similarities = _KERNELS[model.kernel](nodes, model)
    exponents = model.dual_coef_.T * model.slopes_, model.intercept_ * model.slopes_ + model.offsets_
    if len(model.classes_) == 2:
        probabilities = _two_probabilities(nodes, similarities, *exponents)
    else:
        probabilities = _normalised_sigmoids(nodes, nodes.add("Gemm", similarities, *exponents))
    nodes.answer(nodes.add("ArgMax", probabilities, axis=1, keepdims=0), probabilities)


def _rbf(nodes: Nodes, machine: _Machine) -> str:
    """exp(-gamma |x - s|²), with the square expanded: matrix products are faster than all differences."""
    gamma, vectors = float(machine._gamma), machine.support_vectors_
    squares = nodes.add("ReduceSumSquare", nodes.values, np.array([1]))
    products = nodes.add(
        "Gemm", nodes.values, 2 * gamma * vectors, -gamma * np.square(vectors).sum(axis=1), transB=1
    )
    return nodes.add("Exp", nodes.add("Gemm", squares, np.full((1, len(vectors)), -gamma), products))


def _linear(nodes: Nodes, machine: _Machine) -> str:
    return nodes.add("Gemm", nodes.values, machine.support_vectors_, transB=1)


def _polynomial(nodes: Nodes, machine: _Machine) -> str:
    return nodes.add("Pow", _scaled_products(nodes, machine), np.array(float(machine.degree)))


def _sigmoid(nodes: Nodes, machine: _Machine) -> str:
    return nodes.add("Tanh", _scaled_products(nodes, machine))


def _scaled_products(nodes: Nodes, machine: _Machine) -> str:
    return nodes.add(
        "Gemm",
        nodes.values,
        machine._gamma * machine.support_vectors_,
        np.array([float(machine.coef0)]),
        transB=1,
    )


_KERNELS: Mapping[str, Callable[[Nodes, _Machine], str]] = {
    "rbf": _rbf,
    "linear": _linear,
    "poly": _polynomial,
    "sigmoid": _sigmoid,
}
"""Each writes the similarity of a row to every support vector."""


def _pairwise_decisions(svc: SVC) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weights of the support vectors, and the intercepts, of the decision between each two classes.

    With more than two classes, a positive result means the first class; with two, the second.

    Returns:
        Weights of shape (vectors, decisions) and intercepts.
    """
    owner = np.repeat(np.arange(len(svc.classes_)), svc.n_support_)
    columns = []
    for first, second in itertools.combinations(range(len(svc.classes_)), 2):
        # libsvm stores one weight of a vector per other class, without an entry for its own class.
        against_second, against_first = svc.dual_coef_[second - 1], svc.dual_coef_[first]
        columns.append(
            np.where(owner == first, against_second, np.where(owner == second, against_first, 0.0))
        )
    return np.column_stack(columns), svc.intercept_


def _calibrated_decisions(model: CalibratedSVC) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Decisions scaled to exponents of the sigmoids; with the shape ovo the first of them stand for the classes."""
    weights, intercepts = _pairwise_decisions(model.svc)
    used = len(model.slopes)
    return weights[:, :used] * model.slopes, intercepts[:used] * model.slopes + model.offsets


def _two_probabilities(
    nodes: Nodes, similarities: str, weights: NDArray[np.float64], intercepts: NDArray[np.float64]
) -> str:
    # 1 / (1 + exp(z)) and its complement are the softmax of -z and 0.
    weights, intercepts = (np.insert(-each, 0, 0.0, axis=-1) for each in (weights, intercepts))
    return nodes.add("Softmax", nodes.add("Gemm", similarities, weights, intercepts), axis=1)


def _calibrated_votes(nodes: Nodes, decisions: str, model: CalibratedSVC) -> str:
    """The exponents slope * decision + offset, where a decision is the votes plus a third of the confidence.

    Each pairwise decision is one vote, for the first class if the result is zero. Confidence is s / (1 + |s|) of the
    sum s of the class's results, so that it only decides between equal votes.
    """
    classes, slopes = len(model.slopes), model.slopes
    sides = np.zeros((classes * (classes - 1) // 2, classes))
    for row, (first, second) in zip(sides, itertools.combinations(range(classes), 2), strict=True):
        row[first], row[second] = 1.0, -1.0
    # Every class starts with a vote for each decision in which it is first; a lost one moves the vote to the second.
    firsts = np.arange(classes)[::-1]
    lost = nodes.add("Cast", nodes.add("Less", decisions, np.array(0.0)), to=onnx.TensorProto.DOUBLE)
    votes = nodes.add("Gemm", lost, -sides * slopes, firsts * slopes + model.offsets)
    sums = nodes.add("Gemm", decisions, sides)
    confidence = nodes.add("Div", sums, nodes.add("Add", nodes.add("Abs", sums), np.array(1.0)))
    return nodes.add("Gemm", confidence, np.diag(slopes / 3), votes)


def _normalised_sigmoids(nodes: Nodes, exponents: str) -> str:
    # onnxruntime's Sigmoid is 1 - 1 / (1 + exp(-z)) on one side, which loses all digits where it is small, and these
    # are divided by their sum.
    sigmoids = nodes.add("Reciprocal", nodes.add("Add", nodes.add("Exp", exponents), np.array(1.0)))
    # If all of them are zero, the classes are equal, as in scikit-learn.
    positive = nodes.add("Max", sigmoids, np.array(np.finfo(np.float64).tiny))
    return nodes.add("LpNormalization", positive, p=1, axis=1)
