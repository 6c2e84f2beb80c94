"""Searches an algorithm's parameters by grid, at random or by successive halving, as its block asks.

A candidate that cannot be fitted or scored ends the search with an error that names it. Without it, the search would
report a best among candidates that it never tried.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.pipeline import Pipeline

from training.base.config import LOWER_IS_BETTER, Distribution, Metric, SearchSettings
from training.base.errors import ConfigError
from training.data.dataset import Split
from training.results import scores
from training.results.figures import Answers, decimals, rounded
from training.results.report import SearchOutcome
from training.results.scores import Scoring
from training.train.algorithms import described, inputs, reason
from training.train.folds import Rows, folds, is_classes

log = logging.getLogger(__name__)

HALVING_FACTOR = 3
"""Each round keeps one candidate in so many and uses so many times the rows."""
DRAWS = 10
"""Samples per candidate of the budget, because small integers repeat."""
ROWS_TO_FIT = 5
"""Rows of each class that a fold needs to fit on: the calibration of an SVM needs as many."""

Candidate = dict[str, Any]


def search(
    pipeline: Pipeline,
    prefix: str,
    settings: SearchSettings,
    split: Split,
    scoring: Scoring,
    score: Metric,
    name: str,
) -> SearchOutcome:
    """Find the best parameters by cross-validation within a split.

    Args:
        pipeline: unfitted; parameters that are not searched are already set.
        prefix: of the searched parameters' names, seen from the pipeline.
        settings: method, space, budget and seed.
        split: the only rows that the search uses.
        scoring: measures the candidates.
        score: what to optimise.
        name: of the algorithm, for messages.

    Raises:
        ConfigError: a class has fewer rows than the search has folds, or a candidate cannot be fitted or scored.
    """
    trial = _Trial(pipeline, prefix, settings, scoring, score, name)
    candidates = _candidates(settings)
    if settings.method != "grid" and len(candidates) < settings.budget:
        log.info("%s: the search space has %d candidates, fewer than its budget", name, len(candidates))
    count = len(candidates)
    for rows in (
        _rounds(len(candidates), split, settings, scoring) if settings.method == "halving" else [split]
    ):
        means = [trial.mean(each, rows) for each in candidates]
        # Equal means keep the order in which the space lists them.
        ranked = sorted(range(len(candidates)), key=lambda each: -means[each])
        best, mean = candidates[ranked[0]], means[ranked[0]]
        candidates = [candidates[each] for each in ranked[: math.ceil(len(ranked) / HALVING_FACTOR)]]
    if trial.unconverged:
        log.warning("%s: %d fits of the search did not converge", name, trial.unconverged)
    return SearchOutcome(
        method=settings.method,
        candidates=count,
        best=best,
        score=abs(mean),
    )


class _Trial:
    """Scores candidates by cross-validation, larger is better.

    Attributes:
        unconverged: how many fits did not converge so far.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        prefix: str,
        settings: SearchSettings,
        scoring: Scoring,
        score: Metric,
        name: str,
    ) -> None:
        self._pipeline = pipeline
        self._prefix = prefix
        self._settings = settings
        self._scoring = scoring
        self._score = score
        self._sign = -1 if score in LOWER_IS_BETTER else 1
        self._name = name
        self.unconverged = 0

    def mean(self, candidate: Candidate, split: Split) -> float:
        """The mean over the folds. Raises ConfigError, which names the candidate."""
        values = []
        for inner, outer in self._folds(split):
            try:
                value = self._value(candidate, split.take(inner), split.take(outer))
            except Exception as error:
                # Estimators check their parameters only in `fit`, with exceptions of many classes.
                raise self._refusal(candidate, "cannot be fitted", reason(error)) from error
            if not math.isfinite(value):
                raise self._refusal(candidate, f"has no finite {self._score}", f"it is {value}")
            values.append(value)
        # Rounded, so that the last bits of a sum do not decide between equal candidates.
        return self._sign * rounded(float(np.mean(values)), decimals(self._score, split.target))

    def _folds(self, split: Split) -> Iterator[tuple[Rows, Rows]]:
        where = f"train.algorithms.{self._name}.search.folds"
        return folds(split, self._settings.folds, self._settings.seed, where)

    def _value(self, candidate: Candidate, inner: Split, outer: Split) -> float:
        pipeline = clone(self._pipeline)
        pipeline.set_params(**{self._prefix + key: value for key, value in candidate.items()})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            pipeline.fit(inputs(inner), inner.target, inner.weights)
        self.unconverged += any(issubclass(each.category, ConvergenceWarning) for each in caught)
        if not is_classes(outer.target):
            answers: Answers = (np.asarray(pipeline.predict(inputs(outer)), dtype=np.float64).ravel(),)
            return scores.point(self._scoring, outer.target, answers, outer.weights)[self._score]
        # Labels follow from the probabilities: asking an SVM for both computes its kernel twice.
        probabilities: NDArray[np.floating[Any]] = pipeline.predict_proba(inputs(outer))
        predicted = self._scoring.predicted(probabilities, self._score)
        return scores.point(self._scoring, outer.target, (predicted, probabilities), outer.weights)[
            self._score
        ]

    def _refusal(self, candidate: Candidate, what: str, why: str) -> ConfigError:
        return ConfigError(
            f"train.algorithms.{self._name}.search: the candidate {described(candidate)} {what}: {why}; "
            "change the search space so that every candidate can be tried"
        )


def _candidates(settings: SearchSettings) -> list[Candidate]:
    """Distinct candidates: a small space may have fewer than the number of draws."""
    space = {key: _values(values) for key, values in settings.space.items()}
    drawn: Iterable[Candidate]
    if settings.method == "grid":
        drawn = ParameterGrid(space)
    else:
        lists = all(isinstance(values, list) for values in space.values())
        draws = (
            settings.budget if lists else DRAWS * settings.budget
        )  # it draws no combination of lists twice
        drawn = ParameterSampler(space, draws, random_state=settings.seed)
    found: dict[str, Candidate] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer combinations than draws: reported above
        for each in drawn:
            candidate = {key: _plain(each[key]) for key in settings.space}
            found[repr(candidate)] = candidate
            if len(found) == settings.budget and settings.method != "grid":
                break
    return list(found.values())


def _rounds(candidates: int, split: Split, settings: SearchSettings, scoring: Scoring) -> list[Split]:
    """The rows of each round of halving; each has every class, and the last one has all rows."""
    count = 1 + math.floor(math.log(candidates, HALVING_FACTOR) + 1e-9)
    random = np.random.default_rng(settings.seed)
    # A fold fits without one row in `folds`.
    least = math.ceil(ROWS_TO_FIT * settings.folds / (settings.folds - 1))
    groups = scoring.strata(split.target)
    shuffled = [random.permutation(rows) for rows in groups]
    sizes = [HALVING_FACTOR**-each for each in range(count - 1, -1, -1)]
    chosen = [
        np.sort(np.concatenate([rows[: max(least, round(len(rows) * size))] for rows in shuffled]))
        for size in sizes
    ]
    return [split.take(rows) for rows in chosen]


def _values(values: list[Any] | Distribution) -> Any:
    if isinstance(values, list):
        return values
    from scipy import stats

    if values.integer:
        # The range includes both ends, as a reader of the file expects.
        low, high = int(values.low), int(values.high) + 1
        return _LogIntegers(low, high) if values.log else stats.randint(low, high)
    if values.log:
        return stats.loguniform(values.low, values.high)
    return stats.uniform(values.low, values.high - values.low)


class _LogIntegers:
    """Integers whose logarithm is uniform, a distribution that scipy lacks."""

    def __init__(self, low: int, high: int) -> None:
        from scipy import stats

        self.continuous = stats.loguniform(low, high)

    def rvs(self, *, random_state: Any = None) -> int:
        return int(self.continuous.rvs(random_state=random_state))


def _plain(value: Any) -> Any:
    """A value that YAML and JSON can write: numpy's numbers become Python's."""
    return value.item() if hasattr(value, "item") else value
