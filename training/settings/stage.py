"""Completes params.yaml with the repository's defaults, and checks every section: -> reports/settings.json.

Reads  params.yaml, training/defaults.yaml
Writes reports/settings.json

DVC compares the values in that file. So a changed default runs the stages of those models that use it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import Field

from app.contract import Task
from common import files, models, pipelines
from training.base import cli, config
from training.base.errors import ConfigError
from training.base.section import Settings
from training.custom import functions, sources
from training.custom.sources import Sources
from training.sections.algorithms import AlgorithmsSettings
from training.sections.card import CardSettings
from training.sections.data import DataSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.explain import Explain
from training.sections.metrics import OF_PROBABILITIES
from training.sections.schema import SchemaSettings
from training.sections.select import SelectSettings
from training.sections.split import SplitSettings
from training.sections.track import TrackSettings

log = logging.getLogger(__name__)


class Params(Settings):
    """Every section of params.yaml."""

    name: str = Field(min_length=1)
    data: DataSettings
    data_schema: SchemaSettings = Field(alias="schema")
    split: SplitSettings
    evaluate: EvaluateSettings
    decision: DecisionSettings
    explain: Explain
    train: AlgorithmsSettings
    select: SelectSettings
    card: CardSettings
    track: TrackSettings

    def named_metrics(self) -> set[str | None]:
        """The metrics that the gate or the selection names."""
        gate = self.select.gate
        rules = (
            gate.minimum,
            gate.maximum,
            gate.worst_slice,
            gate.production.maximum_drop,
            gate.production.maximum_rise,
        )
        return {self.evaluate.score, *(metric for each in rules for metric in each)}


def main() -> None:
    cli.parser("training.settings", __doc__).parse_args()
    document = config.read()
    params = config.validate(Params, document)
    task, name = params.data_schema.task, params.name
    _check_together(params)
    try:
        models.check_name(name)
    except models.ModelNameError as error:
        raise ConfigError(f"{config.PARAMS_FILE}: name: {error}") from None
    folder = models.further(Path.cwd())
    if folder and name != folder:
        raise ConfigError(
            f"{config.PARAMS_FILE}: name is {name!r}, and a model in {models.FOLDER}/ is called as its folder: "
            f"write `name: {folder}`"
        )
    _check_functions(params)
    _check_pipeline(task, sources.of_model(document))
    files.write_json(config.SETTINGS_FILE, sources.recorded(config.as_json(document)))
    log.info("%s holds the parameters of %s and the defaults", config.SETTINGS_FILE, name)


def _check_together(params: Params) -> None:
    """Refuse what no section can say of itself, before a stage has computed for it."""
    task, decision, gate = params.data_schema.task, params.decision, params.select.gate
    score = params.evaluate.score_of(task)
    gate.check(task)
    problem = ""
    if task == "regression" and decision != DecisionSettings():
        problem = "decision is about classes, and the task is regression: remove it"
    elif decision.cost is None and "cost" in params.named_metrics():
        problem = "cost is a metric, and decision.cost does not say what mistakes cost"
    elif decision.cost is None and decision.threshold == "tuned" and score in OF_PROBABILITIES:
        problem = f"decision.threshold: tuned needs decision.cost, because evaluate.score {score} does not depend on a threshold"
    elif gate.worst_slice and not params.evaluate.slices:
        problem = "select.gate.worst_slice needs evaluate.slices: [COLUMN, …]"
    if problem:
        raise ConfigError(f"{config.PARAMS_FILE}: {problem}")


def _check_functions(params: Params) -> None:
    """Refuse functions of the model's own that make no estimator or transformer."""
    shared = params.train.features
    for name, block in params.train.algorithms.items():
        where = f"{config.PARAMS_FILE}: train.algorithms.{name}"
        if block.estimator:
            functions.estimator(f"{where}.estimator", block.estimator, params.data_schema.task)
        if block.features:
            place = f"{config.PARAMS_FILE}: train" if block.features == shared else where
            functions.transformer(f"{place}.features", block.features)


def _check_pipeline(task: Task, own: Sources) -> None:
    """Refuse to start stages whose plots the models of this task do not write, or that would not see own code change."""
    file = pipelines.PIPELINE_FILE
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = pipelines.task_of(text)
    if found not in (None, task):
        raise ConfigError(
            f"{config.PARAMS_FILE}: schema.task is {task}, and {file} lists the plots of a {found}: run `make packages`"
        )
    if found and pipelines.render(text, task, own.places, own.packages) != text:
        raise ConfigError(
            f"{file} does not list what the model's own functions consist of "
            f"({', '.join((*own.places, *own.packages)) or 'nothing any more'}): run `make packages`"
        )
