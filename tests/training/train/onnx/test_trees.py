"""Trees that compare float64 values as scikit-learn compares them after a cast to float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from tests.tools import examples
from tests.training.problems import Problem, answers, fitted, kinds, problem, problems
from training.train.onnx import trees

VALUES = st.one_of(
    st.floats(-(2.0**126), 2.0**126),
    st.floats(-(2.0**126), 2.0**126, width=32),
    st.floats(-1e-44, 1e-44),
    st.integers(-1000, 1000).map(lambda steps: steps / 20),
)


@settings(max_examples=examples(300))
@given(VALUES, VALUES)
def test_a_value_passes_the_limit_if_its_cast_passes_the_threshold(threshold: float, value: float) -> None:
    (limit,) = trees.passing(np.array([threshold]))
    for each in (value, threshold, limit, np.nextafter(limit, -np.inf)):
        assert (float(np.float32(each)) <= threshold) == (each <= limit)
    assert float(np.float32(np.nextafter(limit, np.inf))) > threshold


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(problems(), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_files_answer_as_scikit_learn_at_and_beside_every_threshold(
    small: Problem, count: int, seed: int
) -> None:
    estimator = (
        DecisionTreeClassifier(random_state=seed)
        if count == 1
        else RandomForestClassifier(count, random_state=seed)
    )
    pipeline = fitted(estimator, small, scale=False)
    thresholds = np.concatenate(
        [each.tree_.threshold for each in getattr(estimator, "estimators_", [estimator])]
    )
    at = thresholds[:500, np.newaxis] * np.ones(small.X.shape[1])
    limits = trees.passing(at)
    rows = np.concatenate([small.asked, at, limits, np.nextafter(limits, np.inf), at.astype(np.float32)])
    label, probabilities = answers(pipeline, rows)
    assert (label == pipeline.predict(rows)).all()
    assert np.abs(probabilities - pipeline.predict_proba(rows)).max() < 1e-7


@pytest.mark.parametrize(
    ("estimator", "classes", "expected"),
    [
        (DecisionTreeClassifier(), 3, ["TreeEnsembleClassifier"]),
        (DecisionTreeClassifier(), 2, ["TreeEnsembleClassifier", "Slice"]),
        (RandomForestClassifier(5), 3, ["TreeEnsembleClassifier", "Div"]),
        (RandomForestClassifier(5), 2, ["TreeEnsembleClassifier", "Slice", "Div"]),
    ],
)
def test_nothing_is_cast_and_a_single_tree_not_divided(
    estimator: DecisionTreeClassifier, classes: int, expected: list[str]
) -> None:
    small = problem(seed=1, classes=classes, features=3)
    assert kinds(fitted(estimator, small, scale=False), small.X) == expected
