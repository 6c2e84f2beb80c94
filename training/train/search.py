"""Searches an algorithm's parameters by grid, at random, by successive halving or by a model of the score (TPE).

A candidate that cannot be fitted or scored ends the search with an error that names it. Without it, the search would
report a best among candidates that it never tried.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.pipeline import Pipeline

from training.data.dataset import Split
from training.results.report import SearchOutcome
from training.results.scores import Scoring
from training.sections.algorithms import Distribution, SearchSettings
from training.sections.metrics import Metric
from training.train import tpe
from training.train.ledger import Ledger
from training.train.trials import Candidate, Measure, Trial

log = logging.getLogger(__name__)

HALVING_FACTOR = 3
"""Each round keeps one candidate in so many and uses so many times the rows."""
DRAWS = 10
"""Samples per candidate of the budget, because small integers repeat."""
ROWS_TO_FIT = 5
"""Rows of each class that a fold needs to fit on: the calibration of an SVM needs as many."""


def search(
    pipeline: Pipeline,
    prefix: str,
    settings: SearchSettings,
    split: Split,
    scoring: Scoring,
    score: Metric,
    name: str,
    code: Mapping[str, str] | None = None,
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
        code: digests of the model's own code that is searched.

    Raises:
        ConfigError: a class has fewer rows than the search has folds, or a candidate cannot be fitted or scored.
    """
    ledger = Ledger.of(name, split, settings, score, pipeline, code or {})
    trial = Trial(Measure(pipeline, prefix, scoring, score), settings, name, ledger)
    if settings.method == "tpe":
        return tpe.search(trial, split, settings, name)
    candidates = _candidates(settings)
    if settings.method != "grid" and len(candidates) < settings.budget:
        log.info(
            "%s: the search space has %s candidates, fewer than its budget", name, f"{len(candidates):,}"
        )
    count = len(candidates)
    for rows in (
        _rounds(len(candidates), split, settings, scoring) if settings.method == "halving" else [split]
    ):
        means = trial.means(candidates, rows)
        # Equal means keep the order in which the space lists them.
        ranked = sorted(range(len(candidates)), key=lambda each: -means[each])
        best, mean = candidates[ranked[0]], means[ranked[0]]
        candidates = [candidates[each] for each in ranked[: math.ceil(len(ranked) / HALVING_FACTOR)]]
    if trial.unconverged:
        log.warning("%s: %s fits of the search did not converge", name, f"{trial.unconverged:,}")
    return SearchOutcome(
        method=settings.method,
        candidates=count,
        best=best,
        score=abs(mean),
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
