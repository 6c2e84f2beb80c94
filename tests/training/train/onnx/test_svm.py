"""The calibrated support vector classifier in twenty nodes against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, LinearSVC

from tests.training.problems import Problem, answers, fitted, kinds, problem, problems
from training.train.onnx import svm

KERNELS = ("rbf", "linear", "poly", "sigmoid")


def calibrated(**parameters: Any) -> CalibratedClassifierCV:
    return CalibratedClassifierCV(SVC(**parameters), ensemble=False, cv=3)


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    kernel = draw(st.sampled_from(KERNELS))
    return {
        "kernel": kernel,
        # Polynomials of a large C take libsvm minutes.
        "C": 10 ** draw(st.floats(-3, 1 if kernel == "poly" else 3)),
        "gamma": draw(st.one_of(st.sampled_from(["scale", "auto"]), st.floats(-3, 1).map(lambda x: 10**x))),
        "degree": draw(st.integers(1, 4)),
        "coef0": draw(st.sampled_from([0.0, 1.0, -0.5])),
        "class_weight": draw(st.sampled_from([None, "balanced"])),
        "decision_function_shape": draw(st.sampled_from(["ovr", "ovr", "ovo"])),
        "break_ties": draw(st.booleans()),
    }


def closest_duel(pipeline: Pipeline, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each row is from the nearest point at which a duel of two classes goes the other way."""
    (model,) = pipeline[-1].calibrated_classifiers_
    duels = model.estimator._decision_function(pipeline[:-1].transform(rows))
    closest: NDArray[np.float64] = np.abs(duels.reshape(len(rows), -1)).min(axis=1)
    return closest


def assert_same(pipeline: Pipeline, rows: NDArray[np.float64]) -> None:
    """The same but where scikit-learn's own rounding decides: at a duel's very zero, and between equal classes."""
    label, probabilities = answers(pipeline, rows)
    expected = pipeline.predict_proba(rows)
    certain = closest_duel(pipeline, rows) > 1e-9
    assert np.abs(probabilities - expected)[certain].max(initial=0.0) < 1e-9
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    certain &= first - second > 1e-9
    assert (label == pipeline.predict(rows))[certain].all()
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-12


@pytest.mark.long("training/train", "app/predictor.py", "tests/training/train/onnx")
@settings(max_examples=60, deadline=None)
@given(problems(), parameters())
def test_it_answers_as_scikit_learn(small: Problem, chosen: dict[str, Any]) -> None:
    assert_same(fitted(calibrated(max_iter=100_000, **chosen), small), small.asked)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_every_label_is_the_same_where_no_row_is_at_a_zero(classes: int, kernel: str) -> None:
    small = problem(seed=5, classes=classes, features=4, step=0.01)
    pipeline = fitted(calibrated(kernel=kernel), small)
    assert closest_duel(pipeline, small.asked).min() > 1e-9
    label, _ = answers(pipeline, small.asked)
    assert (label == pipeline.predict(small.asked)).all()
    assert_same(pipeline, small.asked)


@pytest.mark.parametrize("kernel", KERNELS)
def test_parameters_may_be_whole_numbers(kernel: str) -> None:
    small = problem(seed=10, classes=3, features=2)
    assert_same(fitted(calibrated(kernel=kernel, C=1, gamma=1, coef0=1, degree=2), small), small.asked)


def test_a_duel_that_nobody_wins_goes_to_the_first_class() -> None:
    """Far from all vectors every duel is its intercept, which is zero where two classes mirror each other."""
    corners = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    X = np.repeat(corners, 6, axis=0)
    mirrored = Problem(X, np.repeat(np.arange(3), 6), np.array([[100.0, 100.0], [-50.0, 70.0]]))
    pipeline = fitted(calibrated(gamma=30.0), mirrored)
    duels = pipeline[-1].calibrated_classifiers_[0].estimator._decision_function(mirrored.asked)
    assert (duels[:, 0] == 0).all()
    label, probabilities = answers(pipeline, mirrored.asked)
    assert np.abs(probabilities - pipeline.predict_proba(mirrored.asked)).max() < 1e-12
    assert (label == pipeline.predict(mirrored.asked)).all()


@pytest.mark.parametrize("offset", [20.0, 50.0, 300.0, 1000.0])
def test_sigmoids_that_are_all_tiny_or_zero_are_normalised_as_in_scikit_learn(offset: float) -> None:
    small = problem(seed=6, classes=3, features=2)
    pipeline = fitted(calibrated(), small)
    for sigmoid in pipeline[-1].calibrated_classifiers_[0].calibrators:
        sigmoid.b_ += offset
    expected = pipeline.predict_proba(small.asked)
    label, probabilities = answers(pipeline, small.asked)
    if offset == 1000.0:
        assert (expected == 1 / 3).all()
    assert np.abs(probabilities - expected).max() < 1e-9
    assert (label == pipeline.predict(small.asked)).all()


def test_there_are_as_many_nodes_for_ten_classes_as_for_three() -> None:
    three, ten = (problem(seed=7, classes=classes, features=3) for classes in (3, 10))
    nodes = kinds(fitted(calibrated(), three), three.X)
    assert len(nodes) == 21
    assert len(kinds(fitted(calibrated(), ten), ten.X)) == 21


def test_two_classes_take_nine_nodes() -> None:
    two = problem(seed=8, classes=2, features=3)
    assert kinds(fitted(calibrated(), two), two.X) == [
        *("Sub", "Div", "Gemm", "ReduceSumSquare", "Gemm", "Exp", "Gemm", "Softmax", "ArgMax"),
    ]


@pytest.mark.parametrize(
    "estimator",
    [
        CalibratedClassifierCV(SVC(), ensemble=True, cv=3),
        CalibratedClassifierCV(SVC(), ensemble=False, cv=3, method="isotonic"),
        CalibratedClassifierCV(LinearSVC(), ensemble=False, cv=3),
        CalibratedClassifierCV(SVC(kernel=np.inner), ensemble=False, cv=3),
    ],
    ids=["ensemble", "isotonic", "another classifier", "a function for a kernel"],
)
def test_others_are_left_to_skl2onnx(estimator: CalibratedClassifierCV) -> None:
    small = problem(seed=9, classes=3, features=2)
    pipeline = fitted(estimator, small)
    assert svm.compact(pipeline) is pipeline
    if not callable(getattr(estimator.estimator, "kernel", None)):
        label, _ = answers(pipeline, small.X)
        assert (label == pipeline.predict(small.X)).mean() > 0.95
