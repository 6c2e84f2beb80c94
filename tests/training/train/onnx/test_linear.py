"""Logistic regression in three nodes against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression

from tests.training.problems import Problem, answers, fitted, kinds, problem, problems
from tests.training.rows import mixed
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms
from training.train import fitting as train
from training.train.onnx import linear


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    problems(),
    st.floats(-3, 3).map(lambda power: 10**power),
    st.booleans(),
    st.sampled_from([0.0, 100.0, -1e4]),
)
def test_it_answers_as_scikit_learn(
    small: Problem, strength: float, intercept: bool, distance: float
) -> None:
    moved = Problem(small.X + distance, small.y, small.asked + distance)
    pipeline = fitted(LogisticRegression(C=strength, fit_intercept=intercept, max_iter=1000), moved)
    label, probabilities = answers(pipeline, moved.asked)
    expected = pipeline.predict_proba(moved.asked)
    assert np.abs(probabilities - expected).max() < 1e-9
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    decided = first - second > 1e-9
    assert (label == pipeline.predict(moved.asked))[decided].all()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_is_three_nodes_with_the_scaling_in_them(classes: int) -> None:
    small = problem(seed=1, classes=classes, features=3)
    assert kinds(fitted(LogisticRegression(), small), small.X) == ["Gemm", "ArgMax", "Softmax"]


def test_classes_without_any_evidence_tie_as_in_scikit_learn() -> None:
    """So strong a penalty leaves no weights, and balanced classes no intercepts: the first class it is."""
    small = problem(seed=2, classes=4, features=2)
    estimator = LogisticRegression(C=1e-9, l1_ratio=1.0, solver="saga", fit_intercept=False, max_iter=1000)
    pipeline = fitted(estimator, small)
    assert not pipeline[-1].coef_.any()
    label, probabilities = answers(pipeline, small.asked)
    assert (label == 0).all()
    assert (label == pipeline.predict(small.asked)).all()
    assert (probabilities == 0.25).all()


def test_far_from_zero_the_mean_is_subtracted_first() -> None:
    """Values like a time in microseconds: 16 digits do not hold both their place and their differences."""
    near = problem(seed=3, classes=3, features=2)
    far = Problem(near.X + 1.7e9, near.y, near.asked + 1.7e9)
    pipeline = fitted(LogisticRegression(C=10), far)
    assert kinds(pipeline, far.X) == ["Sub", "Div", "Gemm", "ArgMax", "Softmax"]
    label, probabilities = answers(pipeline, far.asked)
    assert (label == pipeline.predict(far.asked)).all()
    assert np.abs(probabilities - pipeline.predict_proba(far.asked)).max() < 1e-12


def test_the_fitted_pipeline_is_left_as_it_was() -> None:
    profile, rows = mixed()
    pipeline = algorithms.pipeline("logistic_regression", AlgorithmSettings.model_validate({}), profile)
    trained = train.fit(pipeline, rows, "logistic_regression")
    before = trained.predict_proba(algorithms.inputs(rows))
    compact = linear.compact(trained)
    assert isinstance(compact[-1], linear.Linear)
    assert (trained.predict_proba(algorithms.inputs(rows)) == before).all()


def test_a_logistic_regression_inside_another_estimator_is_exported_as_before() -> None:
    small = problem(seed=4, classes=3, features=2)
    pipeline = fitted(CalibratedClassifierCV(LogisticRegression(), ensemble=False), small)
    assert linear.compact(pipeline) is pipeline
    label, probabilities = answers(pipeline, small.asked)
    assert (label == pipeline.predict(small.asked)).all()
    assert np.abs(probabilities - pipeline.predict_proba(small.asked)).max() < 1e-6
