"""The factories, what their blocks may say, and the imputation that goes into the model file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.training.rows import mixed
from training import algorithms, train
from training.algorithms import MedianImputer
from training.config import AlgorithmSettings
from training.errors import ConfigError


def block(**keys: object) -> AlgorithmSettings:
    return AlgorithmSettings.model_validate(keys)


def test_a_misspelt_algorithm_is_named_with_a_guess() -> None:
    profile, _ = mixed()
    with pytest.raises(ConfigError, match=r"train\.algorithms\.random_forrest.*did you mean random_forest\?"):
        algorithms.pipeline("random_forrest", block(), profile)


@pytest.mark.parametrize("name", algorithms.FACTORIES)
def test_an_unknown_parameter_is_refused_before_fitting(name: str) -> None:
    profile, _ = mixed()
    with pytest.raises(
        ConfigError, match=rf"train\.algorithms\.{name}\.colour: {name} has no such parameter"
    ):
        algorithms.pipeline(name, block(colour="red"), profile)
    with pytest.raises(ConfigError, match="has no such parameter"):
        algorithms.pipeline(name, block(search={"method": "grid", "space": {"colour": [1]}}), profile)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("logistic_regression", {"C": -1}),
        ("decision_tree", {"max_depth": "deep"}),
        ("random_forest", {"n_estimators": 0}),
        ("svm", {"C": -1}),
        ("xgboost", {"max_depth": -3}),
    ],
)
def test_an_impossible_value_is_a_config_error(name: str, parameters: dict[str, object]) -> None:
    profile, rows = mixed()
    pipeline = algorithms.pipeline(name, block(**parameters), profile)
    with pytest.raises(ConfigError, match=rf"train\.algorithms\.{name} cannot be fitted: "):
        train.fit(pipeline, rows, name)


def test_parameters_reach_the_estimator_behind_the_calibration() -> None:
    profile, _ = mixed()
    pipeline = algorithms.pipeline("svm", block(C=7.5), profile)
    assert pipeline.get_params()["estimator__estimator__C"] == 7.5


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 4)),
        elements=st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))),
    )
)
def test_imputation_fills_every_gap_and_nothing_else(values: np.ndarray) -> None:
    filled = MedianImputer().fit(values).transform(values)
    missing = np.isnan(values)
    assert not np.isnan(filled).any()
    assert (filled[~missing] == values[~missing]).all()
    for column in range(values.shape[1]):
        seen = values[~missing[:, column], column]
        expected = np.median(seen) if seen.size else 0.0
        assert (filled[missing[:, column], column] == expected).all()
