"""Scores of a model's answers, for one set of rows or for thousands of resamples of it at once.

A resample is a vector of row weights (how often each row was drawn). All scores are computed from weights
by matrix products, so that a thousand resamples cost milliseconds; a test holds them to scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
MOST_ROWS = 50_000
"""From which resamples are drawn; of more, so many at random."""
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
    few = _few(target, seed, weights, groups)
    drawn = _resampled(scoring, [few.of(answers)], few.target, resamples, seed, few.weights, few.groups)[0]
    middle = few.middle(scoring, answers)
    return {
        str(name): _around(
            value, few.scaled(drawn[name], middle[name], value), confidence, decimals(name, target)
        )
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
    few = _few(target, seed, weights, groups)
    before, after = _resampled(
        scoring, [few.of(first), few.of(second)], few.target, resamples, seed, few.weights, few.groups
    )
    points = point(scoring, target, first, weights), point(scoring, target, second, weights)
    middles = few.middle(scoring, first), few.middle(scoring, second)
    found = {}
    for name in scoring.metrics:
        digits = decimals(name, target)
        value = rounded(points[1][name] - points[0][name], digits)
        middle = middles[1][name] - middles[0][name]
        found[str(name)] = _around(
            value, few.scaled(after[name] - before[name], middle, value), confidence, digits
        )
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
    few = _few(hits, seed, weights, groups)
    counted = np.ones(len(few.target)) if few.weights is None else few.weights
    found = [
        each @ (counted * few.target) / (each @ counted)
        for each in _draws(random, [np.arange(len(few.target))], few.groups, resamples)
    ]
    middle = float(np.average(few.target, weights=counted))
    return _around(value, few.scaled(np.concatenate(found), middle, value), confidence)


@dataclass(frozen=True)
class _Few:
    """The rows that are drawn from, if there are too many to draw from all.

    The deviation of a mean falls with the root of the number of rows, so the resamples of a part are scaled to the whole.
    """

    rows: NDArray[np.intp] | None
    target: NDArray[Any]
    weights: Floats | None
    groups: Groups | None
    scale: float

    def of(self, answers: Answers) -> Answers:
        return answers if self.rows is None else tuple(each[self.rows] for each in answers)

    def middle(self, scoring: Scoring, answers: Answers) -> dict[Metric, float]:
        """The metrics of these rows themselves."""
        if self.rows is None:
            return dict.fromkeys(scoring.metrics, 0.0)
        return point(scoring, self.target, self.of(answers), self.weights)

    def scaled(self, drawn: Floats, middle: float, value: float) -> Floats:
        return drawn if self.rows is None else value + (drawn - middle) * self.scale


def _few(target: NDArray[Any], seed: int, weights: Floats | None, groups: Groups | None) -> _Few:
    """All rows if there are at most `MOST_ROWS`, else so many at random; of groups, whole ones."""
    if len(target) <= MOST_ROWS:
        return _Few(None, target, weights, groups, 1.0)
    random = np.random.default_rng(seed)
    if groups is None:
        rows = np.sort(random.choice(len(target), MOST_ROWS, replace=False))
        scale = (MOST_ROWS / len(target)) ** 0.5
    else:
        known, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        order = random.permutation(len(known))
        count = max(2, int(np.searchsorted(np.cumsum(sizes[order]), MOST_ROWS)))
        rows = np.flatnonzero(np.isin(numbers, order[:count]))
        scale = (min(count, len(known)) / len(known)) ** 0.5
    return _Few(
        rows,
        target[rows],
        None if weights is None else weights[rows],
        None if groups is None else groups[rows],
        scale,
    )


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
