"""The comparison of drafted models with tuned gradient boosting."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import REFERENCES, Comparison, Reference, Tuned, report, tune
from benchmarks.sets import SETS
from tests.tools import require_package
from tests.training.rows import mixed, values
from training.train.folds import folds


def comparison(test: float, **references: tuple[float, float]) -> Comparison:
    return Comparison(
        rows=100,
        score="f1_macro",
        algorithm="ridge",
        cv=0.7,
        test=test,
        baseline=0.5,
        references={name: Tuned(cv=cv, test=reached) for name, (cv, reached) in references.items()},
    )


def test_the_reference_is_the_best_in_the_folds_and_not_on_the_test_split() -> None:
    found = comparison(0.8, LightGBM=(0.7, 0.9), CatBoost=(0.8, 0.7))
    assert found.reference == "CatBoost"
    assert found.normalised == pytest.approx(1.5)
    assert found.against_best == pytest.approx(0.75)
    assert comparison(0.8, LightGBM=(0.7, 0.505)).normalised is None


def test_the_report_counts_the_sets_and_shows_the_median() -> None:
    names = [each.model for each in SETS[:3]]
    reached = dict.fromkeys(REFERENCES, (0.7, 0.7))
    found = {name: comparison(test, **reached) for name, test in zip(names, (0.6, 0.65, 0.9), strict=True)}
    text = report(found)
    assert "The median normalised score is 0.750 (asked: 0.98)" in text
    assert "A quarter of the sets is below 0.625, and the lowest is 0.500." in text
    assert "3 of the 40 sets were measured, and 3 have a normalised score" in text


def test_a_report_of_sets_without_a_score_says_so() -> None:
    found = {SETS[0].model: comparison(0.6, **dict.fromkeys(REFERENCES, (0.5, 0.5)))}
    assert "1 of the 40 sets were measured, and 0 have a normalised score." in report(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("classes", [3, 0])
def test_a_reference_learns_from_numbers_categories_and_gaps(name: str, classes: int) -> None:
    require_package({"LightGBM": "lightgbm", "CatBoost": "catboost"}.get(name, "scikit-learn"))
    profile, rows = mixed(rows=300, classes=classes) if classes else values(rows=300)
    train, test = rows.take(np.arange(200)), rows.take(np.arange(200, 300))
    reference = Reference(name, profile, "f1_macro" if classes else "r2")
    found = tune(reference, train, test, list(folds(train, 3, 7, "folds")), trials=2)
    assert found.cv > 0.45
    assert found.test > 0.45
