"""Scores one candidate of a search by cross-validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from training.base.errors import ConfigError
from training.data.dataset import Split
from training.results import scores
from training.results.figures import decimals, rounded
from training.results.scores import Scoring
from training.sections.algorithms import SearchSettings
from training.sections.metrics import LOWER_IS_BETTER, Metric
from training.train.algorithms import described, fit, inputs, reason
from training.train.folds import Rows, folds
from training.train.ledger import Ledger
from training.train.parity import blocks

Candidate = dict[str, Any]


class Trial:
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
        ledger: Ledger,
    ) -> None:
        self._pipeline = pipeline
        self._prefix = prefix
        self._settings = settings
        self._scoring = scoring
        self._score = score
        self._sign = -1 if score in LOWER_IS_BETTER else 1
        self._name = name
        self._ledger = ledger
        self.unconverged = 0

    def mean(self, candidate: Candidate, split: Split) -> float:
        """The mean over the folds. Raises ConfigError, which names the candidate."""
        return self.mean_of(list(self.values(candidate, split)), split)

    def mean_of(self, values: list[float], split: Split) -> float:
        """The mean of some folds' values, rounded, so that the last bits of a sum do not decide between equal ones."""
        return self._sign * rounded(float(np.mean(values)), decimals(self._score, split.target))

    def values(self, candidate: Candidate, split: Split) -> Iterator[float]:
        """The score of each fold; one that an interrupted search knew already is not computed again.

        Raises:
            ConfigError: the candidate cannot be fitted or scored; names it.
        """
        for number, (inner, outer) in enumerate(self._folds(split)):
            value = self._ledger.get(candidate, len(split), number)
            if value is None:
                try:
                    value = self._value(candidate, split.take(inner), split.take(outer))
                except Exception as error:
                    # Estimators check their parameters only in `fit`, with exceptions of many classes.
                    raise self._refusal(candidate, "cannot be fitted", reason(error)) from error
                if not math.isfinite(value):
                    raise self._refusal(candidate, f"has no finite {self._score}", f"it is {value}")
                self._ledger.add(candidate, len(split), number, value)
            yield value

    def _folds(self, split: Split) -> Iterator[tuple[Rows, Rows]]:
        where = f"train.algorithms.{self._name}.search.folds"
        return folds(split, self._settings.folds, self._settings.seed, where)

    def _value(self, candidate: Candidate, inner: Split, outer: Split) -> float:
        pipeline = clone(self._pipeline)
        pipeline.set_params(**{self._prefix + key: value for key, value in candidate.items()})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            fitted = fit(pipeline, inner)
        self.unconverged += any(issubclass(each.category, ConvergenceWarning) for each in caught)
        # All at once, so that small data gives the same bits as ever.
        parts = blocks(outer) if inner.is_large else [outer]
        answered = [self._scoring.fitted_answers(fitted, inputs(each), self._score) for each in parts]
        answers = (
            answered[0] if len(answered) == 1 else tuple(map(np.concatenate, zip(*answered, strict=True)))
        )
        return scores.point(self._scoring, outer.target, answers, outer.weights)[self._score]

    def _refusal(self, candidate: Candidate, what: str, why: str) -> ConfigError:
        return ConfigError(
            f"train.algorithms.{self._name}.search: the candidate {described(candidate)} {what}: {why}; "
            "change the search space so that every candidate can be tried"
        )
