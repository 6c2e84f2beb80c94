"""Estimators and transformers of a model's own, and what becomes of them in the file."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training import own_code
from tests.training.rows import mixed, values
from tests.training.train.onnx import own_models
from training.base.errors import ConfigError
from training.results.report import Parity
from training.sections.algorithms import AlgorithmSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.train import algorithms, parity
from training.train.explanation import UnexplainedError, explain
from training.train.fitting import Task, exported, fit

HERE = "custom.models"
LINEAR = "sklearn.linear_model:LogisticRegression"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model with the code of `own_models`."""
    (tmp_path / "custom").mkdir()
    shutil.copy(own_models.__file__, tmp_path / "custom/models.py")
    monkeypatch.chdir(tmp_path)
    with own_code.forgotten(tmp_path):
        yield


def task(**keys: Any) -> Task:
    profile, rows = values() if keys.pop("number", False) else mixed()
    block = AlgorithmSettings.model_validate(keys)
    return Task("mine", block, EvaluateSettings(), DecisionSettings(), profile, rows, rows)


def compared(task: Task) -> Parity:
    fitted = fit(algorithms.pipeline(task.name, task.block, task.profile), task.train, task.name)
    answer = task.answerer(exported(task, fitted, {}))
    generated = [parity.grid_rows(task.profile, task.train, 5000, fraction=each, seed=1) for each in (1, 2)]
    return parity.check_parity(fitted, answer, task.train, generated)


def refusal(**keys: Any) -> str:
    with pytest.raises(ConfigError) as error:
        compared(task(**keys))
    text = str(error.value)
    assert text.startswith("train.algorithms.mine")
    assert "\n" not in text
    return text


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    ["stacked", "quadratic", "bagged", "boosted", "behind_components", "OwnLinear"],
)
def test_classifiers_agree_with_their_files(function: str) -> None:
    assert compared(task(estimator=f"{HERE}:{function}")).label_differences == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    ["process", "huber", "OwnMean"],
)
def test_regressors_agree_with_their_files(function: str) -> None:
    assert compared(task(estimator=f"{HERE}:{function}", number=True)).generated_rows == 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    ["products", "by_name", "side_by_side", "Ratio"],
)
def test_features_agree_with_their_files(function: str) -> None:
    """The linear model folds its scaling in, which now are of the made columns."""
    assert compared(task(estimator=LINEAR, features=f"{HERE}:{function}", max_iter=2000))


@pytest.mark.parametrize("name", ["logistic_regression", "decision_tree", "xgboost", "svm"])
def test_features_of_the_projects_own_algorithms(name: str) -> None:
    made = task(features=f"{HERE}:Ratio")
    fitted = fit(algorithms.pipeline(name, made.block, made.profile), made.train, name)
    assert parity.check_parity(fitted, made.answerer(exported(made, fitted, {})), made.train, [])


def test_the_same_step_makes_the_same_bytes_without_a_trace_of_where() -> None:
    made = task(estimator=f"{HERE}:OwnLinear", features=f"{HERE}:Ratio")
    fitted = fit(algorithms.pipeline(made.name, made.block, made.profile), made.train, made.name)
    assert exported(made, fitted, {}) == exported(made, fitted, {})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "nothing",
            r"the step Silent has no converter: give it a method to_onnx, or have its module register",
        ),
        ("gone", "to_onnx of Gone returns NoneType, and not an onnx.ModelProto"),
        (
            "fixed",
            "to_onnx of Fixed returns a model whose input x has exactly 1 rows: export it with a first dim",
        ),
        ("whole", "to_onnx of Whole returns a model whose input x is not float or double"),
        ("two", r"to_onnx of Two returns a model with 2 inputs \(x, z\), and not one"),
        (
            "Raising",
            r"cannot be exported to ONNX: no file today \(custom/models\.py:\d+\)$",
        ),
    ],
)
def test_a_step_that_cannot_be_exported_is_named(function: str, message: str) -> None:
    assert re.search(message, refusal(estimator=f"{HERE}:{function}", number=True))


def test_a_transformer_that_cannot_be_exported_is_named() -> None:
    assert "the step SplineTransformer has no converter" in refusal(
        estimator=LINEAR, features=f"{HERE}:splines"
    )


def test_a_transformer_gets_named_numbers_without_gaps() -> None:
    for name in ("logistic_regression", "xgboost"):
        made = task(features=f"{HERE}:Spy")
        fit(algorithms.pipeline(name, made.block, made.profile), made.train, name)
    seen = sys.modules[HERE].Spy.seen
    assert len(seen) == 2
    assert all(
        tuple(each.columns) == made.profile.layout.numbers and not each.isna().any(axis=None) for each in seen
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"estimator": "sklearn.linear_model:RidgeClassifier"},
            "RidgeClassifier has no predict_proba, and the service",
        ),
        ({"estimator": LINEAR, "alpha": 1}, r"mine\.alpha: mine has no such parameter"),
        (
            {"estimator": f"{HERE}:bagged", "estimator__random_state": None},
            "estimator__random_state: null would train",
        ),
        (
            {"features": f"{HERE}:products", "monotone_constraints": {"length": 1}},
            "gets the columns that .*:products makes, and not the numbers",
        ),
        (
            {"features": f"{HERE}:products", "categories": "native"},
            "native needs to know the place of each column",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_fitting(keys: dict[str, Any], message: str) -> None:
    made = task(**keys)
    with pytest.raises(ConfigError, match=message):
        algorithms.pipeline("mine" if "estimator" in keys else "xgboost", made.block, made.profile)


def test_a_seed_is_set_where_there_is_none() -> None:
    made = task(estimator=f"{HERE}:bagged", estimator__random_state=3)
    parameters = algorithms.pipeline("mine", made.block, made.profile)[-1].get_params()
    assert (parameters["random_state"], parameters["estimator__random_state"]) == (7, 3)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"estimator": f"{HERE}:OwnMean", "number": True}, "it is neither linear nor made of trees"),
        ({"estimator": f"{HERE}:behind_components"}, "it is neither linear nor made of trees"),
        ({"estimator": LINEAR, "features": f"{HERE}:Ratio"}, "its columns are made by custom.models:Ratio"),
    ],
)
def test_what_is_not_explained_says_why(keys: dict[str, Any], reason: str) -> None:
    made = task(**keys)
    fitted = fit(algorithms.pipeline("mine", made.block, made.profile), made.train, "mine")
    with pytest.raises(UnexplainedError, match=reason):
        explain(made, fitted)


def test_an_estimator_of_scikit_learn_is_explained_as_the_projects_own() -> None:
    made = task(estimator=LINEAR)
    fitted = fit(algorithms.pipeline("mine", made.block, made.profile), made.train, "mine")
    assert explain(made, fitted)[1].largest_difference < 1e-6
