"""The baseline in every leaderboard."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.training.project import Project
from training.base.errors import GateError
from training.data.dataset import TIME, Split
from training.results import leaderboard, report
from training.train import baseline


def split(target: list[float], dtype: type = np.float64, times: list[float] | None = None) -> Split:
    frame = pd.DataFrame({"x": np.zeros(len(target))} | ({TIME: times} if times else {}))
    return Split(
        np.zeros((len(target), 1)), np.empty((len(target), 0), dtype=object), np.array(target, dtype), frame
    )


def test_classes_are_answered_with_the_majority_and_their_shares() -> None:
    rows = split([0, 1, 1, 1], np.int64)
    label, shares = baseline.answers(rows, rows)
    assert baseline.name(rows) == "majority"
    assert label.tolist() == [1, 1, 1, 1]
    assert shares[0].tolist() == [0.25, 0.75]


def test_values_are_answered_with_their_mean() -> None:
    rows = split([1, 2, 6])
    assert baseline.name(rows) == "mean"
    assert baseline.answers(rows, split([0, 0]))[0].tolist() == [3.0, 3.0]


def test_by_time_values_are_answered_with_the_last() -> None:
    rows = split([1, 2, 6, 8], times=[5, 9, 1, 9])
    assert baseline.name(rows) == "last value"
    assert baseline.answers(rows, split([0]))[0].tolist() == [5.0]


@pytest.mark.slow
def test_a_champion_that_does_not_beat_it_does_not_pass(project: Project) -> None:
    """Classes that have nothing to do with the feature, three quarters of one of them."""
    random = np.random.default_rng(2)
    table = pd.DataFrame({"x": random.normal(size=200), "kind": np.where(np.arange(200) % 4 == 0, "b", "a")})
    table.to_csv(project.root / "data/source/noise.csv", index=False)
    params = project.params()
    params["data"] = {"source": "data/source/noise.csv"}
    params["schema"] = {"target": "kind", "features": {"x": {"type": "number"}}}
    params["evaluate"]["score"] = "accuracy"
    params["select"] = {"gate": {}}
    params["train"]["algorithms"] = {"decision_tree": {"max_depth": 8}, "logistic_regression": None}
    project.write(params)
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)
    for name in params["train"]["algorithms"]:
        project.run("train", name)
    with pytest.raises(
        GateError, match=r"cross-validated accuracy 0\.7467 does not beat 0\.7467, .* the majority"
    ):
        project.run("select")
    board = leaderboard.read()
    assert board.missed == ("baseline",)
    assert board.baseline is not None
    assert board.baseline.cv_mean == pytest.approx(0.7467, abs=0.001)
    assert report.read("decision_tree").baseline.test["accuracy"].value == pytest.approx(0.75, abs=0.02)
    assert "| baseline: majority |" in (project.root / "reports/leaderboard.md").read_text()
