"""Fits and exports one algorithm, on all training rows or on those of a fold."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from training.base.errors import ConfigError, ParityError
from training.base.progress import step
from training.custom import sources
from training.data.dataset import Profile, Split
from training.results import scores
from training.results.figures import Answers
from training.results.report import SearchOutcome
from training.results.scores import Scoring
from training.sections.algorithms import AlgorithmSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.metrics import Metric
from training.train import algorithms
from training.train.decision import cost_matrix
from training.train.onnx import export
from training.train.parity import check_parity
from training.train.search import search

log = logging.getLogger(__name__)
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One algorithm, its evaluation, and the data."""

    name: str
    block: AlgorithmSettings
    evaluate: EvaluateSettings
    decision: DecisionSettings
    profile: Profile
    train: Split
    test: Split

    @property
    def spread(self) -> bool:
        """Whether fits can be spread over machines; those on partitions are spread themselves."""
        return self.block.partitions is None

    @property
    def score(self) -> Metric:
        return self.evaluate.score_of(self.profile.task)

    @cached_property
    def scoring(self) -> Scoring:
        return scores.of(self.profile.task, cost_matrix(self.decision, self.profile))

    @cached_property
    def code(self) -> dict[str, str]:
        """Digests of what the block's own functions consist of."""
        own = self.block.functions.values()
        return sources.contents(sources.of(own)) if own else {}

    def answerer(self, model: bytes) -> Callable[[Split], Answers]:
        """A function that runs a model file."""
        return self.scoring.answerer(model, self.profile.layout)


def fit(pipeline: Pipeline, split: Split, name: str, parameters: Mapping[str, Any] | None = None) -> Pipeline:
    """Fit a clone.

    Args:
        pipeline: stays unfitted.
        split: the rows to fit on.
        name: of the algorithm, for messages.
        parameters: of its block, for messages.

    Raises:
        ConfigError: the estimator refuses one of its parameters.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            fitted = algorithms.fit(pipeline, split)
        except Exception as error:
            # scikit-learn and xgboost check parameters only here, with exceptions of many classes.
            raise refusal("be fitted", name, parameters, error) from error
    if any(issubclass(each.category, ConvergenceWarning) for each in caught):
        log.warning("%s did not converge: raise max_iter under train.algorithms.%s", name, name)
    return fitted


def exported(task: Task, fitted: Pipeline, parameters: Mapping[str, Any]) -> bytes:
    """Export a fitted pipeline.

    Raises:
        ConfigError: the converter does not support the estimator with these parameters.
    """
    try:
        return export.export(fitted, task.profile.layout) if not task.block.functions else _own(task, fitted)
    except Exception as error:
        # The converters raise exceptions of many classes, depending on the parameters.
        raise refusal("be exported to ONNX", task.name, parameters, error) from error


def _own(task: Task, fitted: Pipeline) -> bytes:
    """Export what has code of the model's own.

    Some converters are exact, or make a file that can be loaded, for float32 alone. Trees of scikit-learn see nothing else.
    """
    model, failure = None, None
    for single in (False, True):
        try:
            made = export.export(fitted, task.profile.layout, single=single)
            answer = task.answerer(made)
            answer(task.train.take(np.arange(min(3, len(task.train)))))
        except Exception as error:
            failure = failure or error
            continue
        try:
            check_parity(fitted, answer, task.train, [])
        except ParityError:
            model = model or made
        else:
            return made
    if model is None:
        raise failure or AssertionError
    # The stage says by how much it differs.
    return model


def refusal(action: str, name: str, parameters: Mapping[str, Any] | None, error: Exception) -> ConfigError:
    """The error of an algorithm that cannot do something."""
    return ConfigError(f"{where(name, parameters)} cannot {action}: {algorithms.reason(error)}")


def where(name: str, parameters: Mapping[str, Any] | None) -> str:
    return f"train.algorithms.{name}" + (f" with {algorithms.described(parameters)}" if parameters else "")


def fit_searched(task: Task, split: Split) -> tuple[Pipeline, Parameters, SearchOutcome | None]:
    """Fit on a split; if the block has a search, with the parameters that it finds within that split.

    Returns:
        The fitted pipeline, the block's parameters with those that the search found, and the search's outcome.
    """
    best, outcome = searched(task, split)
    with step(f"{task.name}: fit", len(split)):
        return *fit_with(task, split, best), outcome


def searched(task: Task, split: Split) -> tuple[Parameters, SearchOutcome | None]:
    """The parameters that the block's search finds within a split, and its outcome; nothing without a search."""
    if task.block.search is None:
        return {}, None
    pipeline = algorithms.pipeline(task.name, task.block, task.profile)
    outcome = search(
        pipeline, _prefix(task), task.block.search, split, task.scoring, task.score, task.name, task.code
    )
    return outcome.best, outcome


def fit_with(task: Task, split: Split, best: Parameters) -> tuple[Pipeline, Parameters]:
    """Fit on a split with the parameters that a search found; returns all parameters, too."""
    pipeline = algorithms.pipeline(task.name, task.block, task.profile)
    pipeline.set_params(**{_prefix(task) + key: value for key, value in best.items()})
    parameters = task.block.functions | task.block.parameters | best
    return fit(pipeline, split, task.name, parameters), parameters


def _prefix(task: Task) -> str:
    block, profile = task.block, task.profile
    return algorithms.create(task.name, profile.task, block.estimator, profile.train_rows).prefix
