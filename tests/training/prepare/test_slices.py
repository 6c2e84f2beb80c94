"""Scores by the values of a column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.cells import PLAIN
from tests.training.project import Project
from training.base.errors import ConfigError, GateError
from training.prepare.slices import with_slices
from training.results import leaderboard, report


def labels(values: list[object]) -> list[str]:
    raw = pd.DataFrame({"x": values})
    rows = pd.DataFrame(index=pd.RangeIndex(1, len(raw) + 1))
    return list(with_slices(rows, raw, ["x"], PLAIN)["slice.x"])


def test_texts_are_slices_and_missing_ones_too() -> None:
    assert labels(["f", " m ", None, ""]) == ["f", "m", "missing", "missing"]


def test_few_numbers_are_slices() -> None:
    assert labels([2019, 2020, 2020]) == ["2019", "2020", "2020"]


def test_many_numbers_are_cut_into_intervals() -> None:
    found = labels([*range(100), None])
    assert found[0] == "..25"
    assert found[50] == "50..74"
    assert found[-1] == "missing"
    assert len(set(found)) == 5


def test_few_dates_are_slices_and_many_are_cut_into_intervals() -> None:
    assert labels(["2024-05-01", "2024-05", None]) == ["2024-05-01", "2024-05-01", "missing"]
    assert labels([pd.Timestamp("2024-05-01 12:00"), None]) == ["2024-05-01T12:00:00Z", "missing"]
    days = [f"{each:%Y-%m-%d}" for each in pd.date_range("2024-01-01", periods=100)]
    found = labels([*days, None])
    assert found[0] == "..2024-01-26"
    assert found[50] == "2024-02-19..2024-03-15"
    assert found[-1] == "missing"
    assert len(set(found)) == 5


def test_rows_that_were_dropped_move_nothing() -> None:
    raw = pd.DataFrame({"x": ["a", "b", "c"]})
    assert with_slices(pd.DataFrame(index=[1, 3]), raw, ["x"], PLAIN)["slice.x"].tolist() == ["a", "c"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("sex", ["a"], "evaluate.slices: there is no column 'sex'; the data has x"),
        ("x", [f"p{each}" for each in range(21)], "'x' has 21 different values, and slices are at most 20"),
    ],
)
def test_what_cannot_be_a_slice_is_named(name: str, values: list[str], message: str) -> None:
    raw = pd.DataFrame({"x": values})
    with pytest.raises(ConfigError, match=message):
        with_slices(pd.DataFrame(index=pd.RangeIndex(1, len(raw) + 1)), raw, [name], PLAIN)


@pytest.mark.slow
def test_the_gate_bounds_the_worst_slice(project: Project) -> None:
    """The class follows from x on one site and is noise on the other; the site is not a feature."""
    random = np.random.default_rng(6)
    x, site = random.normal(size=400).round(3), np.where(np.arange(400) % 2 == 0, "north", "south")
    kind = np.where(site == "north", x > 0, random.random(400) > 0.5)
    table = pd.DataFrame({"x": x, "site": site, "kind": np.where(kind, "yes", "no")})
    table.to_csv(project.root / "data/source/sites.csv", index=False)
    params = project.params()
    params["data"] = {"source": "data/source/sites.csv"}
    params["schema"] = {"target": "kind", "duplicates": "keep", "features": {"x": {"type": "number"}}}
    params["evaluate"]["slices"] = ["site", "x"]
    params["select"] = {"gate": {"minimum": {"accuracy": 0.5}, "worst_slice": {"accuracy": 0.7}}}
    params["train"]["algorithms"] = {"logistic_regression": None}
    project.write(params)
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)
    project.run("train", "logistic_regression")
    found = report.read("logistic_regression").slices
    assert found["site"]["north"].test["accuracy"].value > 0.9
    assert found["site"]["south"].test["accuracy"].value < 0.7
    assert len(found["x"]) == 4
    assert sum(each.rows for each in found["site"].values()) == 100
    with pytest.raises(
        GateError, match=r"test accuracy of site 'south' \(\d+ rows\) is 0\.\d+, and select\.gate\.worst"
    ):
        project.run("select")
    assert leaderboard.read().missed == ("worst_slice.accuracy",)
    card = (project.root / "MODEL_CARD.md").read_text()
    assert "## By slice of the test split" in card
    assert "| site | south |" in card
