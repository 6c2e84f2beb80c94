"""Train one algorithm, export it to ONNX and measure that file.

Reads  data/train.parquet, data/test.parquet, data/profile.json, params.yaml (evaluate, decision, explain,
       train.algorithms.NAME)
Writes candidates/NAME/{model.onnx,explain.onnx,report.json}, candidates/NAME/plots/*.csv and metrics/NAME.json

Every figure is measured on the exported file with the service's own predictor. The stage fails if the file and the
fitted estimator disagree, on the data or on generated rows. Without an explanation, explain.onnx is a sentence that says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from app.contract import EXPLANATION_FILE, MODEL_FILE
from common import files
from training.base import cli, config
from training.base.errors import ConfigError, ParityError
from training.base.progress import step
from training.base.section import Settings
from training.data.dataset import TEST_FILE, TRAIN_FILE, read_profile, read_split
from training.results import report
from training.results.report import Parity, Report
from training.sections.algorithms import AlgorithmsSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.explain import Explain
from training.sections.metrics import METRICS
from training.train import algorithms, engine, ledger
from training.train.crossvalidation import cross_validate, decision_of
from training.train.explanation import UnexplainedError, explain
from training.train.fitting import Task, exported, fit, fit_searched, refusal, where
from training.train.measures import measure
from training.train.onnx import export
from training.train.parity import check_parity, compared_rows, generated_rows

log = logging.getLogger(__name__)

UNEXPLAINED = b"There is no explanation: params.yaml does not ask for one, or report.json says why not.\n"
"""In place of a file that explains the model: DVC has no optional outputs, and warns of empty ones."""


class TrainStageSettings(Settings):
    evaluate: EvaluateSettings
    decision: DecisionSettings = DecisionSettings()
    explain: Explain = "none"
    train: AlgorithmsSettings


def main(arguments: Sequence[str] | None = None) -> None:
    parser = cli.parser("training.train", __doc__)
    parser.add_argument("algorithm", help="a block under train.algorithms in params.yaml")
    settings = config.load(TrainStageSettings)
    task = _task(settings, parser.parse_args(arguments).algorithm)
    with engine.opened(settings.train.engine):
        _train(task, settings.explain)


def _train(task: Task, explained: Explain) -> None:
    fitted, parameters, outcome = fit_searched(task, task.train)
    rows = len(task.train)
    with step(f"{task.name}: export to ONNX", rows):
        model = exported(task, fitted, parameters)
    with step(f"{task.name}: comparison of the file with the estimator", rows):
        _check_repeatable(task, model, parameters)
        parity = _parity(task, fitted, model, parameters)
    with step(f"{task.name}: explanation", rows if explained != "none" else 0):
        explanation, about_it = _explanation(explained, task, fitted, parameters)
    cv = cross_validate(task)
    decision = decision_of(task, cv)
    if decision is not None:
        model = export.with_decision(model, decision, task.profile.classes)
    with step(f"{task.name}: measurements", rows):
        result, tables = measure(task, model, cv, decision, parity, outcome)
    result = result.model_copy(update={**about_it, "approximated": algorithms.approximated(fitted)})
    _write(task, result, model, explanation, tables)
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


def _task(settings: TrainStageSettings, name: str) -> Task:
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


def _check_repeatable(task: Task, model: bytes, parameters: Mapping[str, Any]) -> None:
    """Refuse own code that makes another model of the same rows, because no other machine could reproduce it."""
    if not task.block.functions:
        return
    own = {key: value for key, value in parameters.items() if key not in task.block.functions}
    settings = task.block.model_copy(update={"parameters": own})
    again = fit(algorithms.pipeline(task.name, settings, task.profile), task.train, task.name, parameters)
    # Some converters number what they write within a process, so equal models may be files of other bytes.
    pair = [task.answerer(each)(task.train) for each in (model, exported(task, again, parameters))]
    if not all(map(np.array_equal, *pair)):
        raise ConfigError(
            f"{where(task.name, parameters)} makes another model each time it is fitted to the same rows: give every random "
            "generator that it uses a seed (numpy's and Python's shared ones have one)"
        )


def _parity(task: Task, fitted: Pipeline, model: bytes, parameters: Mapping[str, Any]) -> Parity:
    """Compare file and estimator on all data, on the features' grid, and on the half steps between."""
    whole = compared_rows(task.train, task.test, task.evaluate.seed)
    generated = generated_rows(task.profile, whole, task.evaluate.parity_rows, task.evaluate.seed)
    try:
        return check_parity(fitted, task.answerer(model), whole, generated)
    except ParityError as error:
        raise ParityError(f"{where(task.name, parameters)}: {error}") from None
    except Exception as error:
        if not task.block.functions:
            raise
        raise refusal("predict", task.name, parameters, error) from error


def _explanation(
    wanted: Explain, task: Task, fitted: Pipeline, parameters: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """The file that explains the model, `UNEXPLAINED` if there is none, and what the report says of it."""
    if wanted == "none":
        return UNEXPLAINED, {}
    try:
        file, explained = explain(task, fitted)
    except UnexplainedError as error:
        log.warning("%s cannot be explained: %s", where(task.name, parameters), error)
        return UNEXPLAINED, {"unexplained": str(error)}
    except ParityError as error:
        raise ParityError(f"{where(task.name, parameters)}: {error}") from None
    return file, {"explained": explained}


def _write(
    task: Task, result: Report, model: bytes, explanation: bytes, tables: dict[str, pd.DataFrame]
) -> None:
    folder = report.directory(result.algorithm)
    files.write_bytes(folder / MODEL_FILE, model)
    files.write_bytes(folder / EXPLANATION_FILE, explanation)
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
