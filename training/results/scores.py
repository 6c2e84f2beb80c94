"""Scores of a model's answers, for one set of rows or for thousands of resamples of it at once.

A resample is a vector of row weights (how often each row was drawn). All scores are computed from weights
by matrix products, so that a thousand resamples cost milliseconds; a test holds them to scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.contract import Layout, Score, Task
from training.data.dataset import Split
from training.results.classification import Classification
from training.results.figures import DECIMALS, Answers, Floats, decimals, rounded
from training.results.regression import Regression
from training.sections.metrics import Metric

Groups = NDArray[np.int64]
"""To which group each row belongs."""
_CHUNK = 4_000_000
"""Weights held at once, in numbers (32 MB): rows times resamples may be far more."""


class Scoring(Protocol):
    """What the tasks do differently when a model is measured."""

    metrics: tuple[Metric, ...]

    def answerer(self, model: bytes, layout: Layout) -> Callable[[Split], Answers]:
        """A function that runs a model file."""

    def scores(self, target: NDArray[Any], answers: Answers, weights: Floats) -> dict[Metric, Floats]:
        """Every metric of the task for each set of weights.

        Args:
            target: actual classes or values, shape (rows,).
            answers: of the model.
            weights: shape (sets, rows), each row of it one set.

        Returns:
            Arrays of shape (sets,).
        """

    def fitted_answers(self, pipeline: Any, X: Any, score: Metric) -> Answers:
        """What a fitted scikit-learn pipeline says, where this score is what counts."""

    def strata(self, target: NDArray[Any]) -> list[NDArray[np.intp]]:
        """The groups of rows from which a resample draws as many rows as they have."""


def of(task: Task, cost: Floats | None = None) -> Scoring:
    """What a task's models are measured by.

    Args:
        task: of the model.
        cost: of a classification, shape (classes, classes): row = actual class, column = answered.
    """
    return Regression() if task == "regression" else Classification(cost)


def point(
    scoring: Scoring, target: NDArray[Any], answers: Answers, weights: Floats | None = None
) -> dict[Metric, float]:
    """Every metric of one set of rows, rounded. Weights say how much each row counts."""
    values = scoring.scores(target, answers, _counted(np.ones((1, len(target))), weights))
    return {name: rounded(value[0], decimals(name, target)) for name, value in values.items()}


def with_intervals(
    scoring: Scoring,
    target: NDArray[Any],
    answers: Answers,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    weights: Floats | None = None,
    groups: Groups | None = None,
) -> dict[str, Score]:
    """Every metric with a percentile bootstrap interval.

    The rows of a classification are drawn within each class, so that no resample misses a class. Rows of a group are alike, so
    whole groups are drawn; of a classification, within those whose most frequent class is the same.
    """
    drawn = _resampled(scoring, [answers], target, resamples, seed, weights, groups)[0]
    return {
        str(name): _around(value, drawn[name], confidence, decimals(name, target))
        for name, value in point(scoring, target, answers, weights).items()
    }


def paired(
    scoring: Scoring,
    target: NDArray[Any],
    first: Answers,
    second: Answers,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    weights: Floats | None = None,
    groups: Groups | None = None,
) -> dict[str, Score]:
    """How far the second model's metrics are above the first's on the same rows, with intervals.

    Both are measured on each resample: how hard the drawn rows are cancels out, and the interval is much
    narrower than those of the two models would suggest.
    """
    before, after = _resampled(scoring, [first, second], target, resamples, seed, weights, groups)
    points = point(scoring, target, first, weights), point(scoring, target, second, weights)
    found = {}
    for name in scoring.metrics:
        digits = decimals(name, target)
        value = rounded(points[1][name] - points[0][name], digits)
        found[str(name)] = _around(value, after[name] - before[name], confidence, digits)
    return found


def proportion(
    hits: NDArray[np.bool_],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    weights: Floats | None = None,
    groups: Groups | None = None,
) -> Score:
    """A share of the rows with its bootstrap interval."""
    random = np.random.default_rng(seed)
    value = rounded(np.average(hits, weights=weights))
    if weights is None and groups is None:
        return _around(value, random.binomial(len(hits), hits.mean(), resamples) / len(hits), confidence)
    counted = np.ones(len(hits)) if weights is None else weights
    found = [
        each @ (counted * hits) / (each @ counted)
        for each in _draws(random, [np.arange(len(hits))], groups, resamples)
    ]
    return _around(value, np.concatenate(found), confidence)


def _resampled(
    scoring: Scoring,
    models: Sequence[Answers],
    target: NDArray[Any],
    resamples: int,
    seed: int,
    weights: Floats | None,
    groups: Groups | None,
) -> list[dict[Metric, Floats]]:
    """Every metric of each model on the same bootstrap resamples."""
    random = np.random.default_rng(seed)
    parts: list[list[dict[Metric, Floats]]] = [[] for _ in models]
    for drawn in _draws(random, scoring.strata(target), groups, resamples):
        for part, answers in zip(parts, models, strict=True):
            part.append(scoring.scores(target, answers, _counted(drawn, weights)))
    return [
        {name: np.concatenate([each[name] for each in part]) for name in scoring.metrics} for part in parts
    ]


def _draws(
    random: np.random.Generator, strata: Sequence[NDArray[np.intp]], groups: Groups | None, resamples: int
) -> Iterator[Floats]:
    """How often each row is drawn in each resample, in chunks of shape (resamples, rows)."""
    rows, place = sum(map(len, strata)), None
    if groups is not None:
        known, numbers = np.unique(groups, return_inverse=True)
        # The only group of a slice says nothing of others, so its rows are drawn.
        if len(known) > 1:
            place = numbers
            shares = np.stack([np.bincount(numbers[each], minlength=len(known)) for each in strata])
            home = shares.argmax(axis=0)
            strata = [
                each for each in (np.flatnonzero(home == one) for one in range(len(strata))) if len(each)
            ]
    per_chunk = max(1, _CHUNK // rows)
    for start in range(0, resamples, per_chunk):
        size = min(per_chunk, resamples - start)
        drawn = np.zeros((size, sum(map(len, strata))))
        for each in strata:
            drawn[:, each] = random.multinomial(len(each), np.full(len(each), 1 / len(each)), size)
        yield drawn if place is None else drawn[:, place]


def _counted(drawn: Floats, weights: Floats | None) -> Floats:
    """How much each row counts in each set: how often it was drawn times its own weight."""
    return drawn if weights is None else drawn * weights


def _around(value: float, drawn: Floats, confidence: float, digits: int = DECIMALS) -> Score:
    tail = (1 - confidence) / 2
    # A resample of groups may miss a class, and a score that is not defined without it.
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known if len(known) else drawn, [tail, 1 - tail])
    return Score(value=value, low=rounded(low, digits), high=rounded(high, digits))
