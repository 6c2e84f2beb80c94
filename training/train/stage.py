"""Train one algorithm, export it to ONNX and measure that file.

Reads  data/train.parquet, data/test.parquet, data/profile.json, params.yaml (evaluate, train.algorithms.NAME)
Writes candidates/NAME/{model.onnx,report.json}, candidates/NAME/plots/*.csv and metrics/NAME.json

Every figure is measured on the exported file with the service's own predictor. The stage fails if the file and the
fitted estimator disagree, on the data or on generated rows.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from app.contract import Decision, Interval, ModelFile, Score, sha256
from common import files
from training.base import cli, config
from training.base.config import (
    LOWER_IS_BETTER,
    METRICS,
    AlgorithmSettings,
    AlgorithmsSettings,
    DecisionSettings,
    EvaluateSettings,
    Metric,
    Settings,
)
from training.base.errors import ConfigError, DataError, ParityError
from training.data.dataset import (
    SLICE,
    TEST_FILE,
    TRAIN_FILE,
    Profile,
    Split,
    joined,
    read_profile,
    read_split,
)
from training.results import classification, regression, report, scores
from training.results.figures import Answers, decimals, rounded
from training.results.report import (
    Baseline,
    ClassScores,
    FoldScores,
    Importance,
    Parity,
    Report,
    SearchOutcome,
    Slice,
)
from training.results.scores import Scoring
from training.train import algorithms, baseline, ledger
from training.train.curves import curves
from training.train.decision import cost_matrix, decide, decided
from training.train.folds import folds
from training.train.onnx import export
from training.train.parity import check_parity, generated_rows
from training.train.search import search

log = logging.getLogger(__name__)

SHUFFLES = 10
"""Shuffles of each feature for its importance."""


class TrainStageSettings(Settings):
    evaluate: EvaluateSettings
    decision: DecisionSettings = DecisionSettings()
    train: AlgorithmsSettings


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
    def score(self) -> Metric:
        return self.evaluate.score_of(self.profile.task)

    @cached_property
    def scoring(self) -> Scoring:
        return scores.of(self.profile.task, cost_matrix(self.decision, self.profile))

    def answerer(self, model: bytes) -> Callable[[Split], Answers]:
        """A function that runs a model file."""
        return self.scoring.answerer(model, self.profile.layout)


@dataclass(frozen=True)
class Fold:
    """Rows that a fold was not fitted on, and what its model file and the baseline say of them."""

    held_out: Split
    answers: Answers
    baseline: Answers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = cli.parser("training.train", __doc__)
    parser.add_argument("algorithm", help="a block under train.algorithms in params.yaml")
    task = _task(parser.parse_args(arguments).algorithm)
    fitted, parameters, outcome = _fit(task, task.train)
    model = _export(task, fitted, parameters)
    parity = _parity(task, fitted, model, parameters)
    cv = _cross_validate(task)
    decision = _decision(task, cv)
    if decision is not None:
        model = export.with_decision(model, decision, task.profile.classes)
    result, tables = _measure(task, model, cv, decision, parity, outcome)
    _write(task, result, model, tables)
    ledger.forget(task.name)
    score = task.score
    log.info(
        "%s: %s %.4f ± %.4f over %d folds, %.4f on test; %s bytes, agrees on %s rows",
        task.name,
        score,
        result.cv[score].mean,
        result.cv[score].std,
        task.evaluate.folds,
        result.test[score].value,
        f"{len(model):,}",
        f"{parity.data_rows + parity.generated_rows:,}",
    )


def _task(name: str) -> Task:
    settings = config.load(TrainStageSettings)
    if name not in settings.train.algorithms:
        raise ConfigError(
            f"{name!r} has no block under train.algorithms in params.yaml; "
            f"there are {', '.join(settings.train.algorithms)}"
        )
    profile = read_profile()
    return Task(
        name=name,
        block=settings.train.algorithms[name],
        evaluate=settings.evaluate,
        decision=settings.decision,
        profile=profile,
        train=read_split(TRAIN_FILE, profile),
        test=read_split(TEST_FILE, profile),
    )


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
            fitted: Pipeline = clone(pipeline).fit(algorithms.inputs(split), split.target, split.weights)
        except Exception as error:
            # scikit-learn and xgboost check parameters only here, with exceptions of many classes.
            raise _refusal("be fitted", name, parameters, error) from error
    if any(issubclass(each.category, ConvergenceWarning) for each in caught):
        log.warning("%s did not converge: raise max_iter under train.algorithms.%s", name, name)
    return fitted


def _export(task: Task, fitted: Pipeline, parameters: Mapping[str, Any]) -> bytes:
    """Export a fitted pipeline.

    Raises:
        ConfigError: the converter does not support the estimator with these parameters.
    """
    try:
        return export.export(fitted, task.profile.layout)
    except Exception as error:
        # The converters raise exceptions of many classes, depending on the parameters.
        raise _refusal("be exported to ONNX", task.name, parameters, error) from error


def _refusal(action: str, name: str, parameters: Mapping[str, Any] | None, error: Exception) -> ConfigError:
    return ConfigError(f"{_where(name, parameters)} cannot {action}: {algorithms.reason(error)}")


def _where(name: str, parameters: Mapping[str, Any] | None) -> str:
    return f"train.algorithms.{name}" + (f" with {algorithms.described(parameters)}" if parameters else "")


def _fit(task: Task, split: Split) -> tuple[Pipeline, dict[str, Any], SearchOutcome | None]:
    """Fit on a split; if the block has a search, with the parameters that it finds within that split.

    Returns:
        The fitted pipeline, the block's parameters with those that the search found, and the search's outcome.
    """
    pipeline = algorithms.pipeline(task.name, task.block, task.profile)
    parameters, outcome = dict(task.block.parameters), None
    if task.block.search is not None:
        prefix = algorithms.create(task.name, task.profile.task).prefix
        outcome = search(pipeline, prefix, task.block.search, split, task.scoring, task.score, task.name)
        pipeline.set_params(**{prefix + key: value for key, value in outcome.best.items()})
        parameters |= outcome.best
    return fit(pipeline, split, task.name, parameters), parameters, outcome


def _parity(task: Task, fitted: Pipeline, model: bytes, parameters: Mapping[str, Any]) -> Parity:
    """Compare file and estimator on all data, on the features' grid, and on the half steps between."""
    whole = joined(task.train, task.test)
    generated = generated_rows(task.profile, whole, task.evaluate.parity_rows, task.evaluate.seed)
    try:
        return check_parity(fitted, task.answerer(model), whole, generated)
    except ParityError as error:
        raise ParityError(f"{_where(task.name, parameters)}: {error}") from None


def _cross_validate(task: Task) -> list[Fold]:
    """Answers for the rows of each fold, which is searched, fitted and exported like the whole."""
    train = task.train
    found = []
    for inner, outer in folds(train, task.evaluate.folds, task.evaluate.seed, "evaluate.folds"):
        rows, held_out = train.take(inner), train.take(outer)
        fitted, parameters, _ = _fit(task, rows)
        answers = task.answerer(_export(task, fitted, parameters))(held_out)
        found.append(Fold(held_out, answers, baseline.answers(rows, held_out)))
    return found


def _decision(task: Task, cv: Sequence[Fold]) -> Decision | None:
    """The decision for a class, tuned on the given folds if the settings ask for it; None for a regression."""
    if task.profile.task == "regression":
        if task.decision != DecisionSettings():
            raise ConfigError("decision is about classes, and the task is regression: remove it")
        return None
    target = np.concatenate([each.held_out.target for each in cv])
    probabilities = np.concatenate([each.answers[1] for each in cv])
    weights = [each.held_out.weights for each in cv if each.held_out.weights is not None]
    return decide(
        task.decision,
        task.profile,
        target,
        probabilities,
        task.score,
        np.concatenate(weights) if weights else None,
    )


def _fold_scores(task: Task, cv: Sequence[Fold]) -> dict[str, FoldScores]:
    """Every metric over the folds. A threshold for one of them is tuned on the others, so it does not flatter the score."""
    answered = []
    for each in cv:
        answers = each.answers
        if task.profile.classes and task.decision != DecisionSettings():
            others = [other for other in cv if other is not each]
            answers = (decided(_decision(task, others), task.profile.classes, answers[1]), answers[1])
        answered.append(answers)
    return _over_all(task, cv, answered)


def _over_all(task: Task, cv: Sequence[Fold], answered: Sequence[Answers]) -> dict[str, FoldScores]:
    measured = [
        scores.point(task.scoring, fold.held_out.target, answers, fold.held_out.weights)
        for fold, answers in zip(cv, answered, strict=True)
    ]
    if all(math.isnan(each[task.score]) for each in measured):
        raise ConfigError(
            f"evaluate.score {task.score} is defined in no fold: each has rows of one class only"
        )
    return {
        str(metric): _over_folds([each[metric] for each in measured], decimals(metric, task.train.target))
        for metric in task.scoring.metrics
    }


def _over_folds(values: Sequence[float], digits: int) -> FoldScores:
    # The ROC AUC of a fold whose rows are all of one class is not defined.
    known = [each for each in values if not math.isnan(each)] or [math.nan]
    return FoldScores(
        folds=tuple(values),
        mean=rounded(float(np.mean(known)), digits),
        std=rounded(float(np.std(known, ddof=1)), digits) if len(known) > 1 else 0.0,
    )


def _measure(
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
    on_train, on_test = answer(train), answer(test)
    result = Report(
        algorithm=task.name,
        parameters={**task.block.parameters, **(outcome.best if outcome else {})},
        search=outcome,
        score=task.score,
        cv=_fold_scores(task, cv),
        train={
            key: Score(value=value)
            for key, value in scores.point(task.scoring, train.target, on_train, train.weights).items()
        },
        test=scores.with_intervals(
            task.scoring, test.target, on_test, weights=test.weights, **_bootstrap(evaluate)
        ),
        decision=decision,
        baseline=_baseline(task, cv),
        slices=_slices(task, on_test),
        **(_by_class(test, on_test, profile) if profile.value is None else _interval(task, cv, on_test)),
        importance=_importance(task, answer),
        model=ModelFile(sha256=sha256(model), bytes=len(model), opset=export.OPSET),
        complexity=export.complexity(model),
        parity=parity,
    )
    return result, curves(test.target, on_test, result, profile)


def _baseline(task: Task, cv: Sequence[Fold]) -> Baseline:
    on_test = baseline.answers(task.train, task.test)
    return Baseline(
        name=baseline.name(task.train),
        cv=_over_all(task, cv, [each.baseline for each in cv]),
        test=scores.with_intervals(
            task.scoring,
            task.test.target,
            on_test,
            weights=task.test.weights,
            **_bootstrap(task.evaluate),
        ),
    )


def _slices(task: Task, answers: Answers) -> dict[str, dict[str, Slice]]:
    """The figures by the values of each column under evaluate.slices; ROC AUC is none where a slice has one class."""
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
                weights=None if test.weights is None else test.weights[rows],
                **_bootstrap(task.evaluate),
            )
            defined = {metric: score for metric, score in figures.items() if not math.isnan(score.value)}
            found[column][value] = Slice(rows=len(rows), test=defined)
    return found


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
    margin = regression.margin(errors, task.evaluate.interval)
    held = np.abs(answers[0] - task.test.target) <= margin
    coverage = scores.proportion(held, **_bootstrap(task.evaluate))
    edges = task.profile.value.edges if task.profile.value else ()
    predicted = np.concatenate([each.answers[0] for each in cv])
    bins = np.bincount(np.searchsorted(edges, predicted, side="right"), minlength=len(edges) + 1)
    return {
        "interval": Interval(level=task.evaluate.interval, margin=margin, coverage=coverage),
        "predicted": tuple((bins / len(predicted)).tolist()),
    }


def _importance(task: Task, answer: Callable[[Split], Answers]) -> dict[str, Importance]:
    """How much worse the score gets when a feature's values are shuffled among the rows of the test split."""
    test, layout = task.test, task.profile.layout
    random = np.random.default_rng(task.evaluate.seed)
    sign = -1.0 if task.score in LOWER_IS_BETTER else 1.0

    def measure(split: Split) -> float:
        return sign * scores.point(task.scoring, split.target, answer(split), split.weights)[task.score]

    intact, digits = measure(test), decimals(task.score, test.target)
    result = {}
    for feature in task.profile.features:
        losses = []
        for _ in range(SHUFFLES):
            tensors: dict[str, NDArray[Any]] = {
                "number": test.numbers.copy(),
                "category": test.categories.copy(),
            }
            names = layout.numbers if feature.type == "number" else layout.categories
            column = tensors[feature.type][:, names.index(feature.name)]
            column[:] = random.permutation(column)
            shuffled = replace(test, numbers=tensors["number"], categories=tensors["category"])
            losses.append(intact - measure(shuffled))
        result[feature.name] = Importance(
            mean=rounded(float(np.mean(losses)), digits), std=rounded(float(np.std(losses)), digits)
        )
    return result


def _write(task: Task, result: Report, model: bytes, tables: dict[str, pd.DataFrame]) -> None:
    folder = report.directory(result.algorithm)
    files.write_bytes(folder / "model.onnx", model)
    with files.replacing(folder / "plots") as temporary:
        temporary.mkdir()
        for name, frame in tables.items():
            files.write_csv(temporary / f"{name}.csv", frame)
    files.write_json(report.metrics_file(result.algorithm), _headline(task, result))
    report.write(result)


_HEADLINES: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1_macro", "roc_auc", "log_loss", "cost"),
    "regression": METRICS["regression"],
}


def _headline(task: Task, result: Report) -> dict[str, dict[str, float | None]]:
    """The figures that a person compares between revisions; report.json has all."""
    cv, test = result.cv[result.score], result.test
    coverage = {"interval_coverage": result.interval.coverage.value} if result.interval else {}
    return {
        "cv": {result.score: cv.mean, "std": cv.std},
        "test": {
            **{metric: test[metric].value for metric in _HEADLINES[task.profile.task] if metric in test},
            **coverage,
            f"{result.score}_low": test[result.score].low,
            f"{result.score}_high": test[result.score].high,
        },
        "train": {result.score: result.train[result.score].value},
    }
