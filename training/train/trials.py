"""Scores one candidate of a search by cross-validation."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from training.base.errors import ClusterError, ConfigError
from training.base.progress import progress
from training.data.dataset import Split, Taken
from training.results import scores
from training.results.figures import decimals, rounded
from training.results.scores import Scoring
from training.sections.algorithms import SearchSettings
from training.sections.metrics import LOWER_IS_BETTER, Metric
from training.train import engine
from training.train.algorithms import described, fit, inputs, reason
from training.train.folds import folds
from training.train.ledger import Ledger
from training.train.parity import blocks

Candidate = dict[str, Any]
Folds = Mapping[int, tuple[Taken, Taken]]


@dataclass(frozen=True)
class Measure:
    """Fits a candidate on some rows and scores it on others.

    Attributes:
        pipeline: unfitted; parameters that are not searched are already set.
        prefix: of the searched parameters' names, seen from the pipeline.
        scoring: measures the candidates.
        score: what to optimise.
    """

    pipeline: Pipeline
    prefix: str
    scoring: Scoring
    score: Metric

    def __call__(self, candidate: Candidate, inner: Split, outer: Split) -> tuple[float, bool]:
        """The score, and whether the fit converged."""
        pipeline = clone(self.pipeline)
        pipeline.set_params(**{self.prefix + key: value for key, value in candidate.items()})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            fitted = fit(pipeline, inner)
        converged = not any(issubclass(each.category, ConvergenceWarning) for each in caught)
        # All at once, so that small data gives the same bits as ever.
        parts = blocks(outer) if inner.is_large else [outer]
        answered = [self.scoring.fitted_answers(fitted, inputs(each), self.score) for each in parts]
        answers = (
            answered[0] if len(answered) == 1 else tuple(map(np.concatenate, zip(*answered, strict=True)))
        )
        return scores.point(self.scoring, outer.target, answers, outer.weights)[self.score], converged


class Trial:
    """Scores candidates by cross-validation, larger is better.

    Attributes:
        unconverged: how many fits did not converge so far.
    """

    def __init__(
        self,
        measure: Measure,
        settings: SearchSettings,
        name: str,
        ledger: Ledger,
    ) -> None:
        self._measure = measure
        self._settings = settings
        self._score = measure.score
        self._sign = -1 if measure.score in LOWER_IS_BETTER else 1
        self._name = name
        self._ledger = ledger
        self.unconverged = 0

    def means(self, candidates: Sequence[Candidate], split: Split) -> list[float]:
        """The mean of each candidate over the folds. Raises ConfigError, which names a candidate."""
        folds = range(self._settings.folds)
        values = {}
        with progress(f"{self._name}: search", len(candidates) * len(folds), "fits", len(split)) as done:
            for place, value in self._values(candidates, split):
                values[place] = value
                done.advance()
        return [
            self.mean_of([values[place, fold] for fold in folds], split) for place in range(len(candidates))
        ]

    def mean_of(self, values: list[float], split: Split) -> float:
        """The mean of some folds' values, rounded, so that the last bits of a sum do not decide between equal ones."""
        return self._sign * rounded(float(np.mean(values)), decimals(self._score, split.target))

    def values(self, candidate: Candidate, split: Split) -> Iterator[float]:
        """The score of each fold in order. Raises ConfigError, which names the candidate."""
        found: dict[int, float] = {}
        given = 0
        for (_, fold), value in self._values([candidate], split):
            found[fold] = value
            while given in found:
                yield found[given]
                given += 1

    def _values(
        self, candidates: Sequence[Candidate], split: Split
    ) -> Iterator[tuple[tuple[int, int], float]]:
        """Scores by the candidate's place and the fold, as they come; those that an interrupted search knew come first.

        Raises:
            ConfigError: a candidate cannot be fitted or scored; names it.
        """
        parts = self._folds(split)
        missing = []
        for place, fold in itertools.product(range(len(candidates)), parts):
            value = self._ledger.get(candidates[place], len(split), fold)
            if value is None:
                missing.append((place, fold))
            else:
                yield (place, fold), value
        # Fits on partitions use the workers themselves.
        runner = engine.runner(spread=self._measure.pipeline.partitions is None)
        tries = [(candidates[place], fold) for place, fold in missing]
        for number, tried in runner.completed(partial(_try, self._measure, parts), tries):
            candidate, fold = tries[number]
            if tried.problem:
                raise self._refusal(candidate, "cannot be fitted", tried.problem)
            if not math.isfinite(tried.value):
                raise self._refusal(candidate, f"has no finite {self._score}", f"it is {tried.value}")
            self.unconverged += not tried.converged
            self._ledger.add(candidate, len(split), fold, tried.value)
            yield missing[number], tried.value

    def _folds(self, split: Split) -> Folds:
        where = f"train.algorithms.{self._name}.search.folds"
        divided = folds(split, self._settings.folds, self._settings.seed, where)
        return {
            number: (Taken(split, inner), Taken(split, outer))
            for number, (inner, outer) in enumerate(divided)
        }

    def _refusal(self, candidate: Candidate, what: str, why: str) -> ConfigError:
        return ConfigError(
            f"train.algorithms.{self._name}.search: the candidate {described(candidate)} {what}: {why}; "
            "change the search space so that every candidate can be tried"
        )


@dataclass(frozen=True)
class _Tried:
    value: float = math.nan
    converged: bool = True
    problem: str = ""


def _try(measure: Measure, parts: Folds, what: tuple[Candidate, int]) -> _Tried:
    candidate, fold = what
    inner, outer = parts[fold]
    try:
        return _Tried(*measure(candidate, inner(), outer()))
    except ClusterError:
        raise
    except Exception as error:
        # Estimators check their parameters only in `fit`, with exceptions of many classes.
        return _Tried(problem=reason(error))
