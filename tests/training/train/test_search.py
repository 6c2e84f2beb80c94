"""Grid, random and halving search, and that their score never flatters the cross-validation."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.training.project import Project
from tests.training.rows import mixed, prepared
from training.base.errors import ConfigError
from training.data.dataset import Profile, Split
from training.results import report, scores
from training.results.report import SearchOutcome
from training.sections.algorithms import AlgorithmSettings, Distribution, SearchSettings
from training.sections.metrics import Metric
from training.train import algorithms
from training.train.ledger import Ledger, forget
from training.train.search import _values, search
from training.train.trials import Measure, Trial


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search remembers its values in the folder of its model."""
    monkeypatch.chdir(tmp_path)


def run(
    name: str, *, data: tuple[Profile, Split] | None = None, score: Metric = "f1_macro", **settings: Any
) -> SearchOutcome:
    profile, rows = data or mixed()
    block = AlgorithmSettings.model_validate({"search": settings})
    assert block.search is not None
    pipeline = algorithms.pipeline(name, block, profile)
    return search(
        pipeline,
        algorithms.create(name, "classification").prefix,
        block.search,
        rows,
        scores.of("classification"),
        score,
        name,
    )


def test_grid_tries_every_combination_and_finds_the_best() -> None:
    outcome = run("svm", method="grid", space={"C": [1e-6, 1.0], "gamma": ["scale", 1e-9]})
    assert outcome.candidates == 4
    assert outcome.best == {"C": 1.0, "gamma": "scale"}


@pytest.mark.slow
def test_random_draws_its_budget_and_repeats_with_its_seed() -> None:
    space = {"max_depth": {"low": 1, "high": 6, "integer": True}, "min_samples_leaf": [1, 2, 4]}
    first = run("decision_tree", method="random", space=space, budget=7, seed=1)
    assert first.candidates == 7
    assert isinstance(first.best["max_depth"], int)
    assert first == run("decision_tree", method="random", space=space, budget=7, seed=1)


def test_halving_starts_with_its_budget() -> None:
    space = {"C": {"low": 0.001, "high": 100, "log": True}}
    outcome = run("logistic_regression", method="halving", space=space, budget=6)
    assert outcome.candidates == 6
    assert 0.001 <= outcome.best["C"] <= 100


def rare(share: float, rows: int = 1000) -> tuple[Profile, Split]:
    """Two classes that a number tells apart, and a third one with that share of the rows."""
    random = np.random.default_rng(1)
    length = np.round(random.uniform(0, 10, rows), 1)
    kind = np.where(random.random(rows) < share, "rare", np.where(length > 5, "long", "short"))
    width = np.where(kind == "rare", random.uniform(4, 5, rows), random.uniform(0, 4.5, rows))
    return prepared(pd.DataFrame({"length": length, "width": np.round(width, 2), "kind": kind}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "score"), [("logistic_regression", "roc_auc"), ("svm", "log_loss")])
def test_halving_keeps_every_class_in_every_round(
    name: str, score: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[float, NDArray[np.int64]]] = []
    means = Trial.means

    def watched(trial: Trial, candidates: Sequence[dict[str, Any]], split: Split) -> list[float]:
        tried.extend((each["C"], np.bincount(split.target, minlength=3)) for each in candidates)
        return means(trial, candidates, split)

    monkeypatch.setattr(Trial, "means", watched)
    data = rare(0.03)
    space = {"C": {"low": 0.01, "high": 10, "log": True}}
    outcome = run(name, data=data, score=score, method="halving", space=space, budget=9)
    assert outcome.candidates == 9
    assert len({candidate for candidate, _ in tried}) == 9
    assert [len(list(group)) for _, group in itertools.groupby(tried, lambda each: each[1].sum())] == [
        9,
        3,
        1,
    ]
    assert min(counts.min() for _, counts in tried) >= 8
    assert tried[-1][1].sum() == len(data[1])
    assert np.isfinite(outcome.score)


@pytest.mark.parametrize(
    ("method", "name", "space", "complaint"),
    [
        ("grid", "svm", {"C": [1.0, -1.0]}, r"C: -1\.0 cannot be fitted: The 'C' parameter must be a float"),
        (
            "halving",
            "svm",
            {"kernel": ["rbf", None]},
            r"kernel: null cannot be fitted: The 'kernel' parameter must",
        ),
        (
            "random",
            "svm",
            {"shrinking": [True, "y"], "C": [1]},
            r"shrinking: 'y', C: 1 cannot be fitted: The 'shrink",
        ),
        (
            "grid",
            "xgboost",
            {"max_depth": [2, "two"]},
            r"max_depth: 'two' cannot be fitted: Invalid Parameter format",
        ),
        (
            "random",
            "xgboost",
            {"eval_metric": ["auc", "x"]},
            r"eval_metric: 'x' cannot be fitted: Unknown metric function x;",
        ),
    ],
)
def test_one_impossible_candidate_is_an_error_that_names_it(
    method: str, name: str, space: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"train\.algorithms\.{name}\.search: the candidate {complaint}"
    ) as error:
        run(name, method=method, space=space)
    assert "\n" not in str(error.value)
    assert "change the search space" in str(error.value)


def test_a_score_that_is_not_a_number_is_an_error_that_names_the_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Measure, "__call__", lambda self, candidate, *_: (0.5 if candidate["C"] < 2 else np.nan, True)
    )
    with pytest.raises(ConfigError, match=r"the candidate C: 3\.0 has no finite f1_macro: it is nan"):
        run("svm", method="grid", space={"C": [1.0, 3.0, 4.0]})


def test_a_small_space_is_tried_once_and_its_size_reported() -> None:
    space = {"max_depth": {"low": 1, "high": 3, "integer": True}}
    assert run("decision_tree", method="random", space=space, budget=20).candidates == 3
    assert run("decision_tree", method="halving", space={"max_depth": [1, 2]}, budget=20).candidates == 2


def test_a_class_with_fewer_rows_than_folds_is_refused_with_a_remedy() -> None:
    with pytest.raises(
        ConfigError, match=r"search\.folds is 100, but the rarest class has \d+ rows: use fewer folds"
    ):
        run("svm", method="grid", space={"C": [1]}, folds=100)


def test_fits_that_do_not_converge_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    run("logistic_regression", method="grid", space={"max_iter": [1, 1000]})
    assert "logistic_regression: 3 fits of the search did not converge" in caplog.text


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
        ({"method": "random", "space": {"C": {"low": 1, "high": float("inf")}}}, "must be finite"),
        ({"method": "random", "space": {"C": {"low": 0.5, "high": 3, "integer": True}}}, "whole numbers"),
        ({"method": "random", "space": {"C": 5}}, "must be a list of values, or low and high"),
        ({"method": "grid", "space": {"C": [0.001, "1e2"]}}, "C: '1e2' is text where a number is meant"),
        ({"method": "grid", "space": {"C": [0.001, "0,1"]}}, "C: '0,1' is text where a number is meant"),
        ({"method": "grid", "space": {"C": [1.0, 2, 1.0]}}, r"C: 1\.0 is listed 2 times"),
        ({"method": "grid", "space": {"C": [1]}, "budget": 5}, "leave budget out"),
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


DEEP = {"max_depth": {"low": 1, "high": 12, "integer": True}, "min_samples_leaf": [1, 2, 4, 60]}


class TestTpe:
    def test_it_proposes_its_budget_and_repeats_with_its_seed(self) -> None:
        first = run("decision_tree", method="tpe", space=DEEP, budget=12, seed=1)
        forget("decision_tree")
        assert first == run("decision_tree", method="tpe", space=DEEP, budget=12, seed=1)
        assert first.candidates == 12
        assert first.best["min_samples_leaf"] < 60
        assert isinstance(first.best["max_depth"], int)

    def test_values_of_a_list_may_be_of_any_kind(self) -> None:
        space = {"class_weight": ["balanced", None], "C": {"low": 0.01, "high": 10, "log": True}}
        outcome = run("logistic_regression", method="tpe", space=space, budget=4)
        assert set(outcome.best) == {"class_weight", "C"}

    def test_hopeless_candidates_are_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fits: list[object] = []
        value = Measure.__call__

        def counted(measure: Measure, candidate: dict[str, Any], *rows: Split) -> tuple[float, bool]:
            fits.append(candidate)
            return value(measure, candidate, *rows)

        monkeypatch.setattr(Measure, "__call__", counted)
        counts = []
        for pruning in (False, True):
            fits.clear()
            run("decision_tree", method="tpe", space=DEEP, budget=20, pruning=pruning)
            counts.append(len(fits))
            forget("decision_tree")
        assert counts[0] == 60
        assert counts[1] < 60

    def test_no_candidate_is_proposed_after_the_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def slow(*_: object) -> tuple[float, bool]:
            time.sleep(0.05)
            return 0.5, True

        monkeypatch.setattr(Measure, "__call__", slow)
        outcome = run("decision_tree", method="tpe", space=DEEP, budget=1000, seconds=0.5)
        assert 1 <= outcome.candidates < 20

    @pytest.mark.parametrize(("seconds", "says"), [(None, "search: 6"), (600.0, "search for at most 600 s:")])
    def test_its_progress_counts_candidates(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        seconds: float | None,
        says: str,
    ) -> None:
        monkeypatch.setattr("training.base.progress.MANY", 1)
        monkeypatch.setattr("training.base.progress.SECONDS", 0.0)
        with caplog.at_level(logging.INFO, "training.base.progress"):
            run("decision_tree", method="tpe", space=DEEP, budget=6, seconds=seconds)
        said = [record.message for record in caplog.records]
        first, *lines = [each for each in said if each.startswith("decision_tree")]
        assert first.startswith(f"decision_tree: {says} candidates of ")
        assert len(lines) == 6
        assert ("of 6 candidates" in lines[0] and "left" in lines[0]) is (seconds is None)

    @pytest.mark.parametrize("keys", [{"seconds": 3}, {"pruning": False}])
    def test_its_keys_are_for_no_other_method(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(keys))} is for tpe, and the method is random"):
            run("decision_tree", method="random", space=DEEP, **keys)


@pytest.mark.parametrize("method", ["random", "halving", "tpe"])
def test_an_interrupted_search_goes_on_and_ends_as_one_that_was_not(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("decision_tree", method=method, space=DEEP, budget=9)
    forget("decision_tree")
    value = Measure.__call__
    fits = 0

    def interrupted(measure: Measure, candidate: dict[str, Any], *rows: Split) -> tuple[float, bool]:
        nonlocal fits
        fits += 1
        if fits == 11:
            raise KeyboardInterrupt
        return value(measure, candidate, *rows)

    monkeypatch.setattr(Measure, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("decision_tree", method=method, space=DEEP, budget=9)
    (file,) = Path("build/search").iterdir()
    with file.open("a") as stream:
        stream.write("[\"240/0/{'max")  # cut off
    fits = 100
    assert run("decision_tree", method=method, space=DEEP, budget=9) == whole
    computed = fits - 100
    forget("decision_tree")
    fits = 100
    run("decision_tree", method=method, space=DEEP, budget=9)
    assert computed == fits - 100 - 10


def test_other_rows_or_code_have_another_ledger() -> None:
    settings = SearchSettings(method="random", space={"C": [1, 2]})
    profile, rows = mixed()
    pipeline = algorithms.pipeline("svm", AlgorithmSettings.model_validate({}), profile)
    few = rows.take(np.arange(100))

    def known(split: Split, score: str = "f1_macro", code: str = "1") -> float | None:
        return Ledger.of("svm", split, settings, score, pipeline, {"net.py": code}).get({"C": 1}, 100, 0)

    Ledger.of("svm", rows, settings, "f1_macro", pipeline, {"net.py": "1"}).add({"C": 1}, 100, 0, 0.5)
    assert known(rows) == 0.5
    assert known(few) is None
    assert known(rows, score="roc_auc") is None
    assert known(rows, code="2") is None


def test_a_function_among_the_parameters_has_the_same_ledger_in_another_process() -> None:
    settings = SearchSettings(method="random", space={"C": [1, 2]})
    _, rows = mixed()
    first, second = (Pipeline([("own", FunctionTransformer(lambda X: X))]) for _ in range(2))
    Ledger.of("svm", rows, settings, "f1_macro", first, {}).add({"C": 1}, 100, 0, 0.5)
    assert Ledger.of("svm", rows, settings, "f1_macro", second, {}).get({"C": 1}, 100, 0) == 0.5
