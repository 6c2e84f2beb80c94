"""Grid, random and halving search, and that their score never flatters the cross-validation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.project import Project
from tests.training.rows import mixed
from training import algorithms, report
from training.config import AlgorithmSettings, Distribution, SearchSettings
from training.errors import ConfigError
from training.report import SearchOutcome
from training.search import _values, search


def run(name: str, **settings: Any) -> SearchOutcome:
    profile, rows = mixed()
    block = AlgorithmSettings.model_validate({"search": settings})
    assert block.search is not None
    pipeline = algorithms.pipeline(name, block, profile)
    return search(pipeline, algorithms.create(name).prefix, block.search, rows, "f1_macro", name)


def test_grid_tries_every_combination_and_finds_the_best() -> None:
    outcome = run("svm", method="grid", space={"C": [1e-6, 1.0], "gamma": ["scale", 1e-9]})
    assert outcome.candidates == 4
    assert outcome.best == {"C": 1.0, "gamma": "scale"}


def test_random_draws_its_budget_and_repeats_with_its_seed() -> None:
    space = {"max_depth": {"low": 1, "high": 6, "integer": True}, "min_samples_leaf": [1, 2, 4]}
    first = run("decision_tree", method="random", space=space, budget=7, seed=1)
    assert first.candidates == 7
    assert isinstance(first.best["max_depth"], int)
    assert first == run("decision_tree", method="random", space=space, budget=7, seed=1)


def test_halving_starts_with_its_budget() -> None:
    space = {"C": {"low": 0.001, "high": 100, "log": True}}
    outcome = run("logistic_regression", method="halving", space=space, budget=6)
    assert outcome.candidates > 6  # the survivors are tried again on more rows
    assert 0.001 <= outcome.best["C"] <= 100


def test_impossible_candidates_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"train\.algorithms\.svm\.search cannot run"):
        run("svm", method="grid", space={"C": [-1.0, -2.0]})


@pytest.mark.parametrize("log", [False, True])
def test_integers_include_both_ends(log: bool) -> None:
    drawn = _values(Distribution(low=1, high=3, integer=True, log=log))
    assert {int(drawn.rvs(random_state=seed)) for seed in range(60)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"method": "grid", "space": {"C": {"low": 1, "high": 2}}}, "a grid needs a list of values"),
        ({"method": "random", "space": {"C": []}}, "the list of values is empty"),
        ({"method": "random", "space": {"C": {"low": 2, "high": 1}}}, "low must be below high"),
        ({"method": "random", "space": {"C": {"low": 0, "high": 1, "log": True}}}, "needs low above 0"),
    ],
)
def test_a_space_that_makes_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SearchSettings.model_validate(settings)


def test_the_stage_reports_what_the_search_found(trained: Project) -> None:
    trained.change(
        train__algorithms__decision_tree={
            "min_samples_leaf": 2,
            "search": {"method": "grid", "space": {"max_depth": [1, 3]}},
        }
    )
    trained.run("train", "decision_tree")
    result = report.read("decision_tree")
    assert result.search is not None
    assert result.search.best == {"max_depth": 3}
    assert result.parameters == {"min_samples_leaf": 2, "max_depth": 3}
