"""Train one algorithm, export it to ONNX and measure that file.

Reads  data/train.parquet, data/test.parquet, data/profile.json, params.yaml (evaluate, train.algorithms.NAME)
Writes candidates/NAME/{model.onnx,report.json}, candidates/NAME/plots/*.csv and metrics/NAME.json

Every figure is measured on the exported file with the service's own predictor. The stage fails if the file and the
fitted estimator disagree, on the data or on generated rows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from app.contract import ModelFile, Score, sha256
from app.predictor import Classifier
from common import files
from training.base import cli, config
from training.base.config import AlgorithmSettings, AlgorithmsSettings, EvaluateSettings, Settings
from training.base.errors import ConfigError, ParityError
from training.data.dataset import TEST_FILE, TRAIN_FILE, Profile, Split, joined, read_profile, read_split
from training.results import report, scores
from training.results.report import ClassScores, FoldScores, Importance, Parity, Report, SearchOutcome
from training.train import algorithms
from training.train.curves import curves
from training.train.onnx import export
from training.train.search import search

log = logging.getLogger(__name__)

SHUFFLES = 10
"""Shuffles of each feature for its importance."""


class TrainStageSettings(Settings):
    evaluate: EvaluateSettings
    train: AlgorithmsSettings


@dataclass(frozen=True)
class Task:
    """One algorithm, its evaluation, and the data."""

    name: str
    block: AlgorithmSettings
    evaluate: EvaluateSettings
    profile: Profile
    train: Split
    test: Split


def main(arguments: Sequence[str] | None = None) -> None:
    parser = cli.parser("training.train", __doc__)
    parser.add_argument("algorithm", help="a block under train.algorithms in params.yaml")
    task = _task(parser.parse_args(arguments).algorithm)
    fitted, parameters, outcome = _fit(task, task.train)
    model = _export(task, fitted, parameters)
    parity = _parity(task, fitted, model, parameters)
    cv = _cross_validate(task)
    result, tables = _measure(task, model, cv, parity, outcome)
    _write(result, model, tables)
    score = task.evaluate.score
    log.info(
        "%s: %s %.4f ± %.4f over %d folds, %.4f on test; %s bytes, agrees on %s rows",
        task.name,
        score,
        cv[score].mean,
        cv[score].std,
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
            fitted: Pipeline = clone(pipeline).fit(algorithms.inputs(split), split.labels)
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
        prefix = algorithms.create(task.name).prefix
        outcome = search(pipeline, prefix, task.block.search, split, task.evaluate.score, task.name)
        pipeline.set_params(**{prefix + key: value for key, value in outcome.best.items()})
        parameters |= outcome.best
    return fit(pipeline, split, task.name, parameters), parameters, outcome


def _parity(task: Task, fitted: Pipeline, model: bytes, parameters: Mapping[str, Any]) -> Parity:
    """Compare file and estimator on all data, on the features' grid, and on the half steps between."""
    predictor = Classifier(model, task.profile.layout)
    whole = joined(task.train, task.test)
    generated = export.generated_rows(task.profile, whole, task.evaluate.parity_rows, task.evaluate.seed)
    try:
        return export.check_parity(fitted, predictor, whole, generated)
    except ParityError as error:
        raise ParityError(f"{_where(task.name, parameters)}: {error}") from None


def _cross_validate(task: Task) -> dict[str, FoldScores]:
    """Score on stratified folds. Each fold is searched, fitted, exported and measured like the whole."""
    evaluate, train = task.evaluate, task.train
    smallest = int(np.bincount(train.labels).min())
    if smallest < evaluate.folds:
        raise ConfigError(
            f"evaluate.folds is {evaluate.folds}, but the rarest class has {smallest} training rows: "
            "use fewer folds or more data"
        )
    folds = StratifiedKFold(evaluate.folds, shuffle=True, random_state=evaluate.seed)
    measured = []
    for inner, outer in folds.split(train.labels, train.labels):
        fitted, parameters, _ = _fit(task, train.take(inner))
        held_out = train.take(outer)
        predictor = Classifier(_export(task, fitted, parameters), task.profile.layout)
        measured.append(
            scores.point(held_out.labels, *predictor.predict(held_out.numbers, held_out.categories))
        )
    return {metric: _over_folds([each[metric] for each in measured]) for metric in scores.METRICS}


def _over_folds(values: Sequence[float]) -> FoldScores:
    return FoldScores(
        folds=tuple(values),
        mean=scores.rounded(float(np.mean(values))),
        std=scores.rounded(float(np.std(values, ddof=1))),
    )


def _measure(
    task: Task, model: bytes, cv: dict[str, FoldScores], parity: Parity, outcome: SearchOutcome | None
) -> tuple[Report, dict[str, pd.DataFrame]]:
    """Measure the model file on both splits.

    Returns:
        The report, and the tables behind the plots by name.
    """
    profile, train, test, evaluate = task.profile, task.train, task.test, task.evaluate
    predictor = Classifier(model, profile.layout)
    on_train = predictor.predict(train.numbers, train.categories)
    on_test = predictor.predict(test.numbers, test.categories)
    result = Report(
        algorithm=task.name,
        parameters={**task.block.parameters, **(outcome.best if outcome else {})},
        search=outcome,
        score=evaluate.score,
        cv=cv,
        train={key: Score(value=value) for key, value in scores.point(train.labels, *on_train).items()},
        test=scores.with_intervals(
            test.labels,
            *on_test,
            resamples=evaluate.bootstrap,
            confidence=evaluate.confidence,
            seed=evaluate.seed,
        ),
        per_class={
            each: ClassScores.model_validate(values)
            for each, values in zip(profile.classes, scores.per_class(test.labels, *on_test), strict=True)
        },
        confusion=tuple(map(tuple, scores.confusion(test.labels, on_test[0], len(profile.classes)).tolist())),
        importance=_importance(predictor, test, profile, evaluate),
        model=ModelFile(sha256=sha256(model), bytes=len(model), opset=export.OPSET),
        complexity=export.complexity(model),
        parity=parity,
    )
    return result, curves(test.labels, on_test[1], result, profile)


def _importance(
    predictor: Classifier, test: Split, profile: Profile, evaluate: EvaluateSettings
) -> dict[str, Importance]:
    """How much worse the score gets when a feature's values are shuffled among the rows."""
    random = np.random.default_rng(evaluate.seed)
    sign = -1.0 if evaluate.score in scores.LOWER_IS_BETTER else 1.0

    def measure(numbers: NDArray[np.float64], categories: NDArray[np.object_]) -> float:
        predicted = predictor.predict(numbers, categories)
        return sign * float(scores.scores(test.labels, *predicted)[evaluate.score][0])

    intact = measure(test.numbers, test.categories)
    layout = profile.layout
    result = {}
    for feature in profile.features:
        losses = []
        for _ in range(SHUFFLES):
            tensors: dict[str, NDArray[Any]] = {
                "number": test.numbers.copy(),
                "category": test.categories.copy(),
            }
            names = layout.numbers if feature.type == "number" else layout.categories
            column = tensors[feature.type][:, names.index(feature.name)]
            column[:] = random.permutation(column)
            losses.append(intact - measure(tensors["number"], tensors["category"]))
        result[feature.name] = Importance(
            mean=scores.rounded(float(np.mean(losses))), std=scores.rounded(float(np.std(losses)))
        )
    return result


def _write(result: Report, model: bytes, tables: dict[str, pd.DataFrame]) -> None:
    folder = report.directory(result.algorithm)
    files.write_bytes(folder / "model.onnx", model)
    with files.replacing(folder / "plots") as temporary:
        temporary.mkdir()
        for name, frame in tables.items():
            files.write_csv(temporary / f"{name}.csv", frame)
    files.write_json(report.metrics_file(result.algorithm), _headline(result))
    report.write(result)


def _headline(result: Report) -> dict[str, dict[str, float | None]]:
    """The figures that a person compares between revisions; report.json has all."""
    cv, test = result.cv[result.score], result.test
    return {
        "cv": {result.score: cv.mean, "std": cv.std},
        "test": {
            "accuracy": test["accuracy"].value,
            "f1_macro": test["f1_macro"].value,
            "roc_auc": test["roc_auc"].value,
            "log_loss": test["log_loss"].value,
            f"{result.score}_low": test[result.score].low,
            f"{result.score}_high": test[result.score].high,
        },
        "train": {result.score: result.train[result.score].value},
    }
