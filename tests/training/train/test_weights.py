"""Rows and classes that count more than others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from app.cells import PLAIN
from tests.training.project import Project
from tests.training.rows import mixed, numbers
from training.base.errors import ConfigError, DataError
from training.data.dataset import WEIGHT, Split, as_split
from training.prepare.split import with_places
from training.results import report, scores
from training.sections.algorithms import AlgorithmSettings
from training.sections.split import SplitSettings
from training.train import algorithms
from training.train import fitting as train

WEIGHING = ("logistic_regression", "decision_tree", "svm", "xgboost", "gradient_boosting", "naive_bayes")


def weighted(rows: Split, weights: np.ndarray) -> Split:
    return replace(rows, frame=rows.frame.assign(**{WEIGHT: weights}))


@pytest.mark.parametrize("name", ["logistic_regression", "decision_tree", "xgboost", "naive_bayes"])
def test_a_weight_of_two_is_a_row_twice(name: str) -> None:
    profile, rows = numbers(rows=60)
    block = {"xgboost": {"n_estimators": 5}, "decision_tree": {"max_depth": 2}}.get(name, {})
    pipeline = algorithms.pipeline(name, AlgorithmSettings.model_validate(block), profile)
    # The scaling counts every row once.
    pipeline = type(pipeline)(pipeline.steps[-1:], class_weight=None)
    weights = np.where(np.arange(len(rows)) % 3 == 0, 2.0, 1.0)
    once = train.fit(pipeline, weighted(rows, weights), name)
    twice = train.fit(pipeline, rows.take(np.repeat(np.arange(len(rows)), weights.astype(int))), name)
    inputs = algorithms.inputs(rows)
    assert once.predict_proba(inputs) == pytest.approx(twice.predict_proba(inputs), abs=1e-3)
    plain = train.fit(pipeline, rows, name)
    assert plain.predict_proba(inputs) != pytest.approx(once.predict_proba(inputs), abs=1e-3)


@pytest.mark.parametrize("name", WEIGHING)
def test_balanced_classes_are_found_more_often(name: str) -> None:
    profile, rows = mixed(classes=2)
    rare = np.flatnonzero(rows.target == 1)[:25]
    rows = rows.take(np.concatenate([np.flatnonzero(rows.target == 0), rare]))
    found = []
    for block in ({}, {"class_weight": "balanced"}, {"class_weight": {profile.classes[1]: 50}}):
        shallow = {"max_depth": 2} if name == "decision_tree" else {}
        pipeline = algorithms.pipeline(name, AlgorithmSettings.model_validate(block | shallow), profile)
        shares = train.fit(pipeline, rows, name).predict_proba(algorithms.inputs(rows))
        found.append(shares[:, 1].mean())
    assert found[1] != found[0]
    assert found[2] >= found[0]


def test_an_estimator_without_weights_says_so() -> None:
    profile, rows = numbers()
    name = "k_nearest_neighbors"
    with pytest.raises(ConfigError, match="k_nearest_neighbors has no such parameter"):
        algorithms.pipeline(name, AlgorithmSettings.model_validate({"class_weight": "balanced"}), profile)
    pipeline = algorithms.pipeline(name, AlgorithmSettings.model_validate({}), profile)
    with pytest.raises(ConfigError, match="k_nearest_neighbors cannot be fitted"):
        train.fit(pipeline, weighted(rows, np.ones(len(rows))), name)


def test_scores_count_rows_by_their_weight() -> None:
    target, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    answers = (predicted, np.eye(2)[predicted])
    found = scores.point(scores.of("classification"), target, answers, np.array([1.0, 3.0, 1.0, 1.0]))
    assert found["accuracy"] == 0.5
    interval = scores.with_intervals(
        scores.of("classification"),
        target,
        answers,
        resamples=200,
        confidence=0.9,
        seed=1,
        weights=np.array([1.0, 3, 1, 1]),
    )["accuracy"]
    assert interval.value == 0.5
    assert interval.low is not None
    assert interval.low < 0.5


@pytest.mark.slow
def test_the_stages_take_a_column_of_weights(project: Project) -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=300).round(4)
    table = pd.DataFrame({"x": x, "kind": np.where(x + random.normal(size=300) > 0, "yes", "no")})
    table["people"] = np.where(table["kind"] == "yes", 10, 1)
    table.to_csv(project.root / "data/source/survey.csv", index=False)
    params = project.params()
    params["data"] = {"source": "data/source/survey.csv"}
    params["schema"] = {
        "target": "kind",
        "duplicates": "keep",
        "weight": "people",
        "features": {"x": {"type": "number"}},
    }
    params["select"] = {"gate": {}}
    params["train"]["algorithms"] = {"logistic_regression": None}
    recalls = []
    for weight in ("people", None):
        params["schema"]["weight"] = weight
        project.write(params)
        for stage in ("settings", "fetch", "prepare"):
            project.run(stage)
        project.run("train", "logistic_regression")
        result = report.read("logistic_regression")
        recalls.append(result.per_class["yes"].recall)
    assert recalls[0] > recalls[1]


@pytest.mark.parametrize("value", [0, -1, None, "many", float("inf")])
def test_what_is_no_weight_is_named(value: object) -> None:
    raw = pd.DataFrame({"w": pd.Series([1.0, value], dtype=object)})
    rows = pd.DataFrame({"x": [0.0, 1.0]}).set_axis(pd.RangeIndex(1, 3))
    with pytest.raises(DataError, match=r"row\.weight: 'w' is (missing|no number above 0) in row 2"):
        with_places(rows, raw, SplitSettings(), PLAIN, "w")


def test_splits_have_the_weights_of_their_rows() -> None:
    profile, rows = numbers(rows=30)
    frame = rows.frame.assign(**{WEIGHT: np.arange(30.0)})
    assert as_split(frame, profile).take(np.array([3, 1])).weights.tolist() == [3.0, 1.0]  # type: ignore[union-attr]
