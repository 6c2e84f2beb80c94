"""Measures a model file on both splits: everything that its report says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from app.contract import Decision, Feature, Interval, ModelFile, Partitioned, Score, sha256
from training.base.errors import DataError
from training.data.dataset import SLICE, TEST_FILE, Profile, Split
from training.results import classification, regression, scores
from training.results.figures import Answers, decimals, rounded
from training.results.report import (
    Baseline,
    ClassScores,
    Importance,
    Parity,
    Report,
    SearchOutcome,
    Slice,
)
from training.sections.evaluate import EvaluateSettings
from training.sections.metrics import LOWER_IS_BETTER
from training.train import baseline, engine
from training.train.crossvalidation import Fold, fold_scores, over_folds
from training.train.curves import curves
from training.train.fitting import Task
from training.train.onnx import export

SHUFFLES = 10
"""Shuffles of each feature for its importance."""
SHUFFLED_ROWS = 6_000_000
"""Predictions for the importance of all features together."""
FEWEST_SHUFFLED_ROWS = 5000
"""Of each shuffle."""
MOST_TRAIN_ROWS = 200_000
"""On which the figures of the training split are measured; of more, so many at random."""


def importance_rows(features: int) -> int:
    """The most rows on which the importance of so many features is measured."""
    return max(FEWEST_SHUFFLED_ROWS, SHUFFLED_ROWS // (SHUFFLES * features))


def measure(
    task: Task,
    model: bytes,
    cv: Sequence[Fold],
    decision: Decision | None,
    parity: Parity,
    outcome: SearchOutcome | None,
) -> tuple[Report, dict[str, pd.DataFrame]]:
    """Measure the model file on both splits.

    Returns:
        The report, and the tables behind the plots by name.
    """
    profile, train, test, evaluate = task.profile, task.train, task.test, task.evaluate
    answer = task.answerer(model)
    fitted = train.sample(MOST_TRAIN_ROWS, evaluate.seed)
    on_train, on_test = answer(fitted), answer(test)
    result = Report(
        algorithm=task.name,
        parameters={
            **task.block.functions,
            **task.block.described,
            **(outcome.best if outcome else {}),
        },
        search=outcome,
        score=task.score,
        cv=fold_scores(task, cv),
        train={
            key: Score(value=value)
            for key, value in scores.point(task.scoring, fitted.target, on_train, fitted.weights).items()
        },
        test=scores.with_intervals(
            task.scoring, test.target, on_test, **_counted(test), **_bootstrap(evaluate)
        ),
        decision=decision,
        baseline=_baseline(task, cv),
        slices=_slices(task, on_test),
        **(_by_class(test, on_test, profile) if profile.value is None else _interval(task, cv, on_test)),
        importance=_importance(task, model, on_test),
        samples=_samples(task),
        model=ModelFile(sha256=sha256(model), bytes=len(model), opset=export.OPSET),
        partitioned=Partitioned(engine="dask", partitions=task.block.partitions)
        if task.block.partitions
        else None,
        complexity=export.complexity(model),
        parity=parity,
    )
    return result, curves(test.target, on_test, result, profile)


def _samples(task: Task) -> dict[str, int]:
    """How many rows the figures of too many rows come from."""
    most = {
        "the figures of the training split": (len(task.train), MOST_TRAIN_ROWS),
        "importance": (len(task.test), importance_rows(len(task.profile.features))),
        "intervals": (len(task.test), scores.MOST_ROWS),
    }
    return {what: limit for what, (rows, limit) in most.items() if rows > limit}


def _baseline(task: Task, cv: Sequence[Fold]) -> Baseline:
    on_test = baseline.answers(task.train, task.test)
    return Baseline(
        name=baseline.name(task.train),
        cv=over_folds(task, cv, [each.baseline for each in cv]),
        test=scores.with_intervals(
            task.scoring,
            task.test.target,
            on_test,
            **_counted(task.test),
            **_bootstrap(task.evaluate),
        ),
    )


def _slices(task: Task, answers: Answers) -> dict[str, dict[str, Slice]]:
    """The figures by the values of each column under evaluate.slices; a metric that a slice of one class does not have is left out."""
    test = task.test
    found: dict[str, dict[str, Slice]] = {}
    for column in task.evaluate.slices:
        if SLICE + column not in test.frame:
            raise DataError(f"{TEST_FILE} has no slices by {column!r}: run `dvc repro prepare`")
        labels = test.frame[SLICE + column].to_numpy()
        found[column] = {}
        for value in sorted(set(labels)):
            rows = np.flatnonzero(labels == value)
            figures = scores.with_intervals(
                task.scoring,
                test.target[rows],
                tuple(each[rows] for each in answers),
                **_counted(test.take(rows)),
                **_bootstrap(task.evaluate),
            )
            defined = {metric: score for metric, score in figures.items() if not math.isnan(score.value)}
            found[column][value] = Slice(rows=len(rows), test=defined)
    return found


def _counted(rows: Split) -> dict[str, Any]:
    """How rows count, and which are drawn together."""
    return {"weights": rows.weights, "groups": rows.groups}


def _bootstrap(evaluate: EvaluateSettings) -> dict[str, Any]:
    return {"resamples": evaluate.bootstrap, "confidence": evaluate.confidence, "seed": evaluate.seed}


def _by_class(test: Split, answers: Answers, profile: Profile) -> dict[str, Any]:
    """The fields of a report that a classification has."""
    figures = classification.per_class(test.target, *answers)
    counts = classification.confusion(test.target, answers[0], len(profile.classes))
    return {
        "per_class": {
            each: ClassScores.model_validate(values)
            for each, values in zip(profile.classes, figures, strict=True)
        },
        "confusion": tuple(map(tuple, counts.tolist())),
    }


def _interval(task: Task, cv: Sequence[Fold], answers: Answers) -> dict[str, Any]:
    """The fields of a report that a regression has.

    The errors are those of the folds' models on rows that they were not fitted on, so no training rows are set aside.
    """
    errors = np.concatenate([np.abs(each.answers[0] - each.held_out.target) for each in cv])
    weights = [each.held_out.weights for each in cv if each.held_out.weights is not None]
    margin = regression.margin(errors, task.evaluate.interval, np.concatenate(weights) if weights else None)
    held = np.abs(answers[0] - task.test.target) <= margin
    coverage = scores.proportion(held, **_counted(task.test), **_bootstrap(task.evaluate))
    edges = task.profile.value.edges if task.profile.value else ()
    predicted = np.concatenate([each.answers[0] for each in cv])
    bins = np.bincount(np.searchsorted(edges, predicted, side="right"), minlength=len(edges) + 1)
    return {
        "interval": Interval(level=task.evaluate.interval, margin=margin, coverage=coverage),
        "predicted": tuple((bins / len(predicted)).tolist()),
    }


def _importance(task: Task, model: bytes, on_test: Answers) -> dict[str, Importance]:
    """How much worse the score gets when a feature's values are shuffled among the rows of the test split."""
    features = task.profile.features
    few = replace(task, test=task.test.sample(importance_rows(len(features)), task.evaluate.seed))
    answers = on_test if few.test is task.test else task.answerer(model)(few.test)
    intact, digits = _score(task, few.test, answers), decimals(task.score, task.test.target)
    states = _states(np.random.default_rng(task.evaluate.seed), len(few.test), len(features))
    shuffled = engine.mapped(
        partial(_shuffled, few, model),
        zip(features, states, strict=True),
        f"{task.name}: importance",
        "features",
        len(few.test),
    )
    result = {}
    for feature, measured in zip(features, shuffled, strict=True):
        losses = [intact - each for each in measured]
        result[feature.name] = Importance(
            mean=rounded(float(np.mean(losses)), digits), std=rounded(float(np.std(losses)), digits)
        )
    return result


def _states(random: np.random.Generator, rows: int, features: int) -> Iterator[Mapping[str, Any]]:
    """The state of the generator before each feature's shuffles."""
    for _ in range(features):
        yield random.bit_generator.state
        for _ in range(SHUFFLES):
            random.permutation(rows)


def _shuffled(task: Task, model: bytes, what: tuple[Feature, Mapping[str, Any]]) -> list[float]:
    """The score after each shuffle of a feature."""
    feature, state = what
    test, layout, answer = task.test, task.profile.layout, task.answerer(model)
    random = np.random.default_rng()
    random.bit_generator.state = state
    # Copied once: with thousands of columns, a copy takes a good part of the time of an answer.
    shuffled = replace(test, numbers=test.numbers.copy(), categories=test.categories[:].copy())
    columns = (shuffled.categories if feature.type == "category" else shuffled.numbers)[
        :, layout.places(feature)
    ]
    intact = columns.copy()
    found = []
    for _ in range(SHUFFLES):
        columns[:] = intact[random.permutation(len(columns))]
        found.append(_score(task, shuffled, answer(shuffled)))
    return found


def _score(task: Task, split: Split, answers: Answers) -> float:
    """Larger is better."""
    sign = -1.0 if task.score in LOWER_IS_BETTER else 1.0
    return sign * scores.point(task.scoring, split.target, answers, split.weights)[task.score]
