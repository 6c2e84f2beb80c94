"""What the model card says of a prediction interval."""

from __future__ import annotations

import pytest

from app.contract import Interval, Score
from training.select import card


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.85, 0.95, ""),
        (0.90, 0.97, ""),
        (0.30, 0.40, "too narrow for the test split: it holds 35.0% of the true values and not 90%"),
        (0.91, 0.99, "too wide for the test split: it holds 95.0% of the true values and not 90%"),
    ],
)
def test_an_interval_that_misses_its_level_is_named(low: float, high: float, expected: str) -> None:
    coverage = Score(value=round((low + high) / 2, 3), low=low, high=high)
    found = card.off_level(Interval(level=0.9, margin=1.0, coverage=coverage))
    assert expected in found
    assert bool(expected) == bool(found)


def test_a_classification_has_no_interval() -> None:
    assert card.off_level(None) == ""
