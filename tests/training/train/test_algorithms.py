"""The factories, what their blocks may say, and the imputation that goes into the model file."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss

from app.contract import Task
from tests.training.project import ROOT
from tests.training.rows import mixed, numbers, values
from training.base import config
from training.base.errors import ConfigError
from training.data.dataset import GROUP, TIME, Split
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms
from training.train import fitting as train
from training.train.algorithms import MedianImputer

EVERY = [(name, task) for task in ("classification", "regression") for name in algorithms.FACTORIES[task]]
WITHOUT_SEED = ("k_nearest_neighbors", "naive_bayes", "svm")
"""Where nothing is drawn; the support vector classifier has a seed that its regressor lacks."""


def block(**keys: object) -> AlgorithmSettings:
    return AlgorithmSettings.model_validate(keys)


def test_every_algorithm_has_defaults_and_no_other_name_has() -> None:
    assert config.defaults()["train"]["algorithms"].keys() == {name for name, _ in EVERY}


def test_the_documentation_has_a_row_for_each_algorithm() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([^|]*) ?\| ([^|]*) ?\| [^|]+ \|$", text, re.MULTILINE)
    listed = {(name, "classification") for name, classes, _ in rows if classes.strip()}
    assert listed | {(name, "regression") for name, _, numbers in rows if numbers.strip()} == {*EVERY}


@pytest.mark.parametrize("name", ["lightgbm", "catboost"])
def test_classes_have_weights_by_name_in_packages_of_their_own_too(name: str) -> None:
    profile, _ = mixed()
    key = "class_weights" if name == "catboost" else "class_weight"
    pipeline = algorithms.pipeline(name, block(**{key: {profile.classes[1]: 5}}), profile)
    assert pipeline[-1].get_params()[key] == {1: 5}


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_the_defaults_are_parameters_of_both_tasks(name: str, task: Task) -> None:
    profile, rows = mixed() if task == "classification" else values()
    settings = AlgorithmSettings.model_validate(config.defaults()["train"]["algorithms"][name])
    assert train.fit(algorithms.pipeline(name, settings, profile), rows, name)


def test_an_algorithm_of_the_other_task_is_named_with_those_there_are() -> None:
    profile, _ = mixed()
    with pytest.raises(
        ConfigError,
        match=r"ridge: ridge is for a regression, and the target is a classification; there are logistic_reg",
    ):
        algorithms.pipeline("ridge", block(), profile)
    profile, _ = values()
    with pytest.raises(
        ConfigError, match=r"naive_bayes is for a classification, and .* there are ridge, deci"
    ):
        algorithms.pipeline("naive_bayes", block(), profile)


@pytest.mark.parametrize("package", ["lightgbm", "catboost"])
def test_a_package_that_is_not_installed_is_one_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, _ = mixed()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf"the package {package} is not installed: run `uv add --group train {package}`$"
    ):
        algorithms.pipeline(package, block(), profile)


def test_a_misspelt_algorithm_is_named_with_a_guess() -> None:
    profile, _ = mixed()
    with pytest.raises(ConfigError, match=r"train\.algorithms\.random_forrest.*did you mean random_forest\?"):
        algorithms.pipeline("random_forrest", block(), profile)


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_an_unknown_parameter_is_refused_before_fitting(name: str, task: Task) -> None:
    profile, _ = mixed() if task == "classification" else values()
    with pytest.raises(
        ConfigError, match=rf"train\.algorithms\.{name}\.colour: {name} has no such parameter"
    ):
        algorithms.pipeline(name, block(colour="red"), profile)
    if name not in WITHOUT_SEED:
        with pytest.raises(ConfigError, match=r"has no such parameter; did you mean random_state\?"):
            algorithms.pipeline(name, block(randomstate=1), profile)
    with pytest.raises(ConfigError, match="has no such parameter"):
        algorithms.pipeline(name, block(search={"method": "grid", "space": {"colour": [1]}}), profile)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic_regression", "decision_tree", "random_forest", "svm"])
def test_classes_are_weighted_by_their_names(name: str) -> None:
    """Also where names are numbers that count otherwise than places do."""
    profile, rows = mixed()
    names = tuple(str(len(profile.classes) - 1 - place) for place in range(len(profile.classes)))
    profile = profile.model_copy(update={"classes": names})
    shallow = {"max_depth": 2} if name in ("decision_tree", "random_forest") else {}

    def share_of(place: int, **parameters: object) -> float:
        fitted = train.fit(algorithms.pipeline(name, block(**shallow, **parameters), profile), rows, name)
        return float(np.mean(fitted.predict(algorithms.inputs(rows)) == place))

    for place, each in enumerate(names):
        assert share_of(place, class_weight={int(each): 1000}) > share_of(place)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_weight": {7: 2}}, r"\.class_weight: there is no class 7; there are '"),
        ({"class_weight": {None: 2}}, r"\.class_weight: there is no class None; there are '"),
        (
            {"class_weight": {"FIRST": -1}},
            r"\.class_weight\.FIRST: -1 is not a weight; write a number above 0",
        ),
        ({"class_weight": {"FIRST": True}}, "True is not a weight"),
        (
            {"search": {"method": "grid", "space": {"class_weight": ["balanced", {"FIRST": 2}]}}},
            r"search\.space\.class_weight: weights of single classes cannot be searched",
        ),
    ],
)
def test_weights_that_make_no_sense_are_refused(keys: dict[str, object], message: str) -> None:
    profile, _ = mixed()
    profile = profile.model_copy(update={"classes": ("FIRST", *profile.classes[1:])})
    with pytest.raises(ConfigError, match=rf"train\.algorithms\.svm.*{message}"):
        algorithms.pipeline("svm", block(**keys), profile)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("svm", {"gamma": "big"}),
        ("xgboost", {"monotone_constraints": [1]}),
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
    (key, value), *_ = parameters.items()
    given = re.escape(f"train.algorithms.{name} with {key}: {value!r} cannot be fitted: ")
    with pytest.raises(ConfigError, match=given) as error:
        train.fit(pipeline, rows, name, parameters)
    assert not re.search(r"\n|Stack trace|/workspace|cross_val_predict", str(error.value))


@pytest.mark.parametrize(
    ("name", "key", "value", "remedy"),
    [
        ("lightgbm", "boosting_type", "rf", "use gbdt or dart"),
        ("catboost", "loss_function", "MultiClassOneVsAll", "use Logloss or MultiClass"),
        ("hist_gradient_boosting", "categorical_features", [0], "use from_dtype"),
        ("gradient_boosting", "loss", "exponential", "use log_loss"),
        ("xgboost", "booster", "gblinear", "use gbtree, or leave it out"),
        ("xgboost", "booster", "dart", "use gbtree, or leave it out"),
        ("xgboost", "multi_strategy", "multi_output_tree", "use one_output_per_tree, or leave it out"),
        ("xgboost", "objective", "reg:squarederror", "use binary:logistic or multi:softprob"),
        ("svm", "kernel", "precomputed", "use rbf or linear or poly or sigmoid"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_training(
    name: str, key: str, value: object, remedy: str
) -> None:
    profile, _ = mixed()
    line = rf"train\.algorithms\.{name}\.{{}}{key}: {re.escape(repr(value))} cannot be exported to ONNX; {remedy}"
    with pytest.raises(ConfigError, match=line.format("")):
        algorithms.pipeline(name, block(**{key: value}), profile)
    with pytest.raises(ConfigError, match=line.format(r"search\.space\.")):
        algorithms.pipeline(name, block(search={"method": "grid", "space": {key: [value]}}), profile)


@pytest.mark.parametrize(
    "name",
    [
        each
        for each, task in EVERY
        if task == "classification" and each not in ("k_nearest_neighbors", "naive_bayes")
    ],
)
def test_a_seed_that_changes_with_every_run_is_refused(name: str) -> None:
    profile, _ = mixed()
    with pytest.raises(ConfigError, match=rf"{name}\.random_state: null .* the same bytes; write a number"):
        algorithms.pipeline(name, block(random_state=None), profile)
    space = {"random_state": [1, None]}
    with pytest.raises(ConfigError, match=r"search\.space\.random_state: null"):
        algorithms.pipeline(name, block(search={"method": "grid", "space": space}), profile)


@pytest.mark.parametrize("solver", ["sag", "saga"])
def test_solvers_that_draw_rows_give_the_same_model_each_time(solver: str) -> None:
    profile, rows = mixed()
    pipeline = algorithms.pipeline("logistic_regression", block(solver=solver), profile)
    first, second = (train.fit(pipeline, rows, "logistic_regression")[-1].coef_ for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("text", ["1e2", "0,1", " .5", "-1", "inf", "NaN"])
def test_a_number_in_quotes_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=rf"learning_rate: '{re.escape(text)}' is text where a number is meant"
    ):
        block(learning_rate=text)


def test_parameters_reach_the_estimator_behind_the_calibration() -> None:
    profile, _ = mixed()
    pipeline = algorithms.pipeline("svm", block(C=7.5), profile)
    assert pipeline.get_params()["estimator__estimator__C"] == 7.5


def test_the_calibration_of_a_support_vector_machine_keeps_groups_apart() -> None:
    """On copies of a row, the machine is sure; how sure it may be of other groups, only other groups can tell."""
    profile, rows = numbers(rows=1200)
    target = rows.target.copy()
    flipped = np.random.default_rng(1).random(len(rows)) < 0.25
    target[flipped] = 1 - target[flipped]
    seen = np.random.default_rng(2).permutation(np.repeat(np.arange(120), 6))
    new = np.arange(300, len(rows))
    losses = {}
    for by in ("random", "group", "time"):
        frame = rows.frame.iloc[seen]
        if by != "random":
            frame = frame.assign(**{GROUP if by == "group" else TIME: seen.astype(np.float64)})
        split = Split(rows.numbers[seen], rows.categories[seen], target[seen], frame)
        pipeline = algorithms.pipeline("svm", block(gamma=5.0), profile)
        found = train.fit(pipeline, split, "svm").predict_proba(rows.numbers[new])
        losses[by] = log_loss(target[new], found)
    assert losses["random"] > 0.9
    assert max(losses["group"], losses["time"]) < 0.7


def test_a_class_in_one_group_alone_cannot_be_calibrated() -> None:
    profile, rows = numbers()
    frame = rows.frame.assign(**{GROUP: np.where(rows.target == 1, 0, np.arange(len(rows)) % 7 + 1)})
    split = Split(rows.numbers, rows.categories, rows.target, frame)
    with pytest.raises(
        ConfigError, match=r"svm cannot be fitted: it is calibrated on 5 parts .*schema\.drop_classes"
    ):
        train.fit(algorithms.pipeline("svm", block(), profile), split, "svm")


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
