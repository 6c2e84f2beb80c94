"""Decisions with thresholds and costs: how they are made, and that the model file makes the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from app.contract import Decision, read_bundle
from app.predictor import Classifier, load
from tests.training.project import Project
from tests.training.rows import mixed, numbers
from training.base.errors import ConfigError
from training.results import report
from training.sections.algorithms import AlgorithmSettings
from training.sections.decision import DecisionSettings
from training.select.stage import BUNDLE
from training.train import algorithms
from training.train import fitting as train
from training.train.decision import cost_matrix, decide, decided
from training.train.onnx import export

PROFILE, ROWS = numbers()
THREE, ROWS_OF_THREE = mixed(classes=3)
COST = {"false_positive": 1, "false_negative": 8}


def settings(**keys: object) -> DecisionSettings:
    return DecisionSettings.model_validate(keys)


def rows_and_probabilities(seed: int, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    target = random.integers(0, 2, rows)
    second = np.clip(0.35 * target + random.uniform(0, 0.65, rows), 0, 1).round(3)
    return target, np.column_stack([1 - second, second])


@given(st.integers(0, 1000), st.floats(0, 20), st.floats(0, 20))
def test_no_other_threshold_costs_less(seed: int, false_positive: float, false_negative: float) -> None:
    target, probabilities = rows_and_probabilities(seed)
    chosen = settings(
        threshold="tuned", cost={"false_positive": false_positive, "false_negative": false_negative}
    )
    decision = decide(chosen, PROFILE, target, probabilities, "accuracy")
    assert decision is not None
    assert decision.threshold is not None
    cost = cost_matrix(chosen, PROFILE)
    assert cost is not None
    reached = cost[target, decided(decision, PROFILE.classes, probabilities)].mean()
    for threshold in np.arange(1, 100) / 100:
        other = cost[target, (probabilities[:, 1] >= threshold).astype(int)].mean()
        assert reached <= other + 1e-6


def _f1(target: np.ndarray, predicted: np.ndarray) -> float:
    return float(f1_score(target, predicted, average="macro"))


def test_weights_count_where_a_threshold_is_tuned() -> None:
    target, probabilities = rows_and_probabilities(4)
    weights = np.where(target == 0, 9.0, 1.0)
    again = np.repeat(np.arange(len(target)), weights.astype(int))
    chosen = settings(threshold="tuned", cost=COST)
    weighted = decide(chosen, PROFILE, target, probabilities, "accuracy", weights)
    assert weighted == decide(chosen, PROFILE, target[again], probabilities[again], "accuracy")
    assert weighted != decide(chosen, PROFILE, target, probabilities, "accuracy")


def test_without_costs_the_score_is_what_is_tuned_for() -> None:
    target, probabilities = rows_and_probabilities(4)
    decision = decide(settings(threshold="tuned"), PROFILE, target, probabilities, "f1_macro")
    assert decision is not None
    assert decision.threshold != 0.5
    reached = _f1(target, decided(decision, PROFILE.classes, probabilities))
    others = [_f1(target, (probabilities[:, 1] >= each).astype(int)) for each in np.arange(1, 1000) / 1000]
    assert reached >= max(others) - 1e-5
    right = (decided(decision, PROFILE.classes, probabilities) == target).mean()
    assert right > (probabilities.argmax(axis=1) == target).mean()


def test_the_positive_class_may_be_the_first() -> None:
    first, second = (cost_matrix(settings(positive=name, cost=COST), PROFILE) for name in PROFILE.classes)
    assert first is not None
    assert second is not None
    assert second.tolist() == [[0, 1], [8, 0]]
    assert first.tolist() == [[0, 8], [1, 0]]


def test_nothing_asked_is_the_most_probable_class() -> None:
    target, probabilities = rows_and_probabilities(4)
    assert decide(settings(), PROFILE, target, probabilities, "accuracy") is None


@pytest.mark.parametrize("name", ["logistic_regression", "decision_tree", "random_forest", "svm", "xgboost"])
@pytest.mark.parametrize("positive", [0, 1])
def test_the_file_decides_by_threshold(name: str, positive: int) -> None:
    pipeline = algorithms.pipeline(name, AlgorithmSettings.model_validate({}), PROFILE)
    plain = export.export(train.fit(pipeline, ROWS, name), PROFILE.layout)
    _, probabilities = Classifier(plain, PROFILE.layout).predict(ROWS.numbers)
    # A probability that rows have, so that some are exactly at the threshold.
    threshold = float(np.sort(probabilities[:, positive].astype(np.float64))[len(ROWS) // 3])
    decision = Decision(positive=PROFILE.classes[positive], threshold=threshold)
    predictor = Classifier(export.with_decision(plain, decision, PROFILE.classes), PROFILE.layout)
    label, same = predictor.predict(ROWS.numbers)
    assert np.array_equal(same, probabilities)
    assert np.array_equal(label, decided(decision, PROFILE.classes, probabilities))
    one, shares = predictor.predict_row(ROWS.numbers[0].tolist(), [])
    assert (one, shares) == (label[0], probabilities[0].tolist())


def test_the_file_decides_by_expected_cost() -> None:
    pipeline = algorithms.pipeline("logistic_regression", AlgorithmSettings.model_validate({}), THREE)
    plain = export.export(train.fit(pipeline, ROWS_OF_THREE, "logistic_regression"), THREE.layout)
    cost = cost_matrix(settings(cost={THREE.classes[2]: {THREE.classes[0]: 50, THREE.classes[1]: 5}}), THREE)
    assert cost is not None
    decision = Decision(cost=tuple(map(tuple, cost.tolist())))
    predictor = Classifier(export.with_decision(plain, decision, THREE.classes), THREE.layout)
    label, probabilities = predictor.predict(ROWS_OF_THREE.numbers, ROWS_OF_THREE.categories)
    assert np.array_equal(label, (probabilities @ cost).argmin(axis=1))
    assert (label != probabilities.argmax(axis=1)).any()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"threshold": "tuned"}, "threshold needs two classes, and there are 3"),
        (
            {"cost": COST},
            r"false_positive and false_negative is for two classes, and there are 3: write \{ACTUAL",
        ),
        ({"cost": {"kind 0": {"kind 9": 1}}}, "decision.cost.kind 0: there is no class 'kind 9'"),
        ({"cost": {"kind 0": {"kind 0": 1}}}, "decision.cost.kind 0.kind 0: a right answer costs nothing"),
    ],
)
def test_what_does_not_fit_three_classes_is_named(keys: dict[str, object], message: str) -> None:
    target = ROWS_OF_THREE.target
    with pytest.raises(ConfigError, match=message):
        decide(settings(**keys), THREE, target, np.eye(3)[target], "accuracy")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"threshold": 0}, "threshold"),
        ({"threshold": "best"}, "tuned"),
        ({"cost": {"false_positive": 1}}, "cost is {false_positive: …, false_negative: …}, or"),
        ({"cost": {"false_positive": -1, "false_negative": 1}}, "greater than or equal to 0"),
        ({"cost": {"a": {"b": float("inf")}}}, "finite"),
    ],
)
def test_settings_that_make_no_sense_are_named(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**keys)


def test_a_tuned_threshold_needs_something_to_tune_for() -> None:
    target, probabilities = rows_and_probabilities(4)
    with pytest.raises(ConfigError, match=r"tuned needs decision\.cost, because evaluate\.score roc_auc"):
        decide(settings(threshold="tuned"), PROFILE, target, probabilities, "roc_auc")


@pytest.mark.slow
def test_the_stages_tune_measure_and_bundle_a_decision(project: Project) -> None:
    params = project.params()
    params["data"] = {"source": "sklearn:breast_cancer"}
    params["schema"] = {
        "target": "target",
        "features": {name: {"type": "number"} for name in ("mean_radius", "mean_texture", "mean_smoothness")},
    }
    params["train"]["algorithms"] = {"logistic_regression": None}
    params["select"] = {"gate": {"maximum": {"cost": 0.4}}}
    params["decision"] = {"threshold": "tuned", "positive": "malignant", "cost": COST}
    project.write(params)
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)
    project.run("train", "logistic_regression")
    project.run("select")
    bundle = read_bundle(BUNDLE)
    decision = bundle.manifest.decision
    assert decision is not None
    assert decision.positive == "malignant"
    assert decision.threshold is not None
    assert decision.threshold < 0.4
    result = report.read("logistic_regression")
    assert result.test["cost"].value <= 0.4
    assert result.cv["cost"].mean < 1
    predictor = load(bundle)
    assert isinstance(predictor, Classifier)
    card = (project.root / "MODEL_CARD.md").read_text()
    assert f"The answer is malignant from a probability of {decision.threshold:g} on." in card
    project.change(decision={"threshold": 0.5, "positive": "malignant", "cost": COST})
    project.run("train", "logistic_regression")
    assert report.read("logistic_regression").cv["cost"].mean > result.cv["cost"].mean
