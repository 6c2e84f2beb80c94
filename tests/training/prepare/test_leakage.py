"""Warnings about what training would know and the service would not, and a split that keeps it from knowing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.project import Project
from training.data.dataset import Origin, read_profile
from training.prepare import leakage
from training.prepare.checks import check
from training.prepare.split import split
from training.prepare.stage import resolve
from training.results import report
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings

ROWS = 400


def signs(*, group: str | None = None, **columns: Any) -> tuple[str, ...]:
    random = np.random.default_rng(3)
    kind = random.choice(["no", "yes"], ROWS)
    frame = pd.DataFrame(
        {"noise": random.normal(size=ROWS), "kind": kind}
        | {name: made(random, kind) if callable(made) else made for name, made in columns.items()}
    )
    regression = frame["kind"].dtype.kind == "f"
    features = {
        name: {
            "type": {"i": "number", "f": "number", "M": "datetime"}.get(frame[name].dtype.kind, "category")
        }
        for name in frame
        if name != "kind"
    }
    schema = SchemaSettings.model_validate(
        {
            "target": "kind",
            "task": "regression" if regression else "classification",
            "features": features,
            "duplicates": "keep",
            **({} if regression else {"min_rows_per_class": 2}),
        }
    )
    checked = check(frame, schema)
    train, test = split(checked.frame, "kind", SplitSettings())
    origin = Origin(source="made up", sha256="0" * 64, rows=ROWS, columns=tuple(frame))
    return leakage.signs(resolve(checked, schema, origin, train, test), train, test, group)


def test_ordinary_features_are_none() -> None:
    assert signs(count=lambda random, _: random.integers(0, 50, ROWS)) == ()


def test_a_date_that_tells_the_answer_is_named() -> None:
    days = pd.date_range("2024-01-01", periods=ROWS)
    kind = np.where(np.arange(ROWS) < ROWS // 2, "no", "yes")
    (sentence,) = signs(day=days, kind=kind)
    assert "'day' tells the class of" in sentence
    assert signs(day=days) == ()


def test_a_row_counter_is_one_in_any_order_and_from_any_start() -> None:
    for counter in (np.arange(ROWS), np.random.default_rng(1).permutation(ROWS) + 1000):
        columns: dict[str, Any] = {"Unnamed: 0": counter}
        (sentence,) = signs(**columns)
        assert "'Unnamed: 0' counts the rows" in sentence
        assert "leave it out of schema.features" in sentence


def test_a_feature_that_tells_the_class_is_one() -> None:
    (sentence,) = signs(outcome=lambda _, kind: np.where(kind == "yes", "paid", "open"))
    assert "'outcome' tells the class of 100.0% of the test rows" in sentence
    (sentence,) = signs(score=lambda random, kind: (kind == "yes") * 9 + random.normal(size=ROWS))
    assert "'score' tells the class of" in sentence


def test_one_that_tells_a_number_is_one() -> None:
    value = np.random.default_rng(5).normal(200, 20, ROWS)
    (sentence,) = signs(kind=value, in_feet=value * 3.28)
    assert "'in_feet' alone explains" in sentence
    assert signs(kind=value, near=lambda random, _: value + random.normal(0, 5, ROWS)) == ()


def test_of_a_frequent_class_every_feature_tells_most() -> None:
    kind = np.where(np.arange(ROWS) % 50 == 0, "yes", "no")
    assert signs(kind=kind, other=lambda random, _: random.normal(size=ROWS)) == ()


def test_equal_rows_on_both_sides_are_one() -> None:
    (sentence,) = signs(noise=np.repeat(np.arange(ROWS // 8) / 7, 8))
    assert "test rows equal a training row in all features" in sentence
    assert "split.by: group" in sentence


@pytest.mark.slow
def test_a_feature_that_names_the_groups_knows_nothing_of_others() -> None:
    patient = np.repeat(np.arange(ROWS // 4), 4).astype(float)
    assert signs(patient=patient) == ()
    (sentence,) = signs(group="patient", patient=patient)
    assert "'patient' names the groups of split.group" in sentence
    assert "leave it out of schema.features" in sentence


def test_a_random_split_overestimates_rows_repeated_in_groups_and_a_group_split_does_not(
    project: Project,
) -> None:
    """Patients measured five times, whose class has nothing to do with the measurements: nothing can be learnt."""
    random = np.random.default_rng(11)
    patients = 120
    patient = np.repeat(np.arange(patients), 5)
    columns = {
        name: (random.normal(size=patients)[patient] + random.normal(0, 0.01, len(patient))).round(4)
        for name in ("pulse", "pressure", "weight")
    }
    ill = random.permutation(np.arange(patients) % 2)[patient]
    table = pd.DataFrame({"patient": patient, **columns, "ill": np.where(ill, "yes", "no")})
    table.sample(frac=1, random_state=1).to_csv(project.root / "data/source/patients.csv", index=False)
    params = project.params()
    params["data"] = {"source": "data/source/patients.csv"}
    params["schema"] = {"target": "ill", "features": {name: {"type": "number"} for name in columns}}
    params["select"] = {"tie": 0}
    params["train"]["algorithms"] = {"decision_tree": {"max_depth": None, "min_samples_leaf": 1}}
    found = {}
    for by in ({"by": "random"}, {"by": "group", "group": "patient"}):
        params["split"] = by
        project.write(params)
        for stage in ("fetch", "prepare"):
            project.run(stage)
        project.run("train", "decision_tree")
        result = report.read("decision_tree")
        found[by["by"]] = (result.cv["accuracy"].mean, result.test["accuracy"].value)
    assert min(found["random"]) > 0.9
    assert max(found["group"]) < 0.65
    division = read_profile().division
    assert (division.train_groups + division.test_groups, division.left_out) == (patients, 0)
    assert (
        "by group, 90 groups to train and 30 others to test" in (project.root / "reports/data.md").read_text()
    )
