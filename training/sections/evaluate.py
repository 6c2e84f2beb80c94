"""The section `evaluate`: how a model is measured."""

from __future__ import annotations

from pydantic import Field

from app.contract import Task
from training.base.section import Settings, Text
from training.sections.metrics import Metric, check_metrics

_DEFAULT_SCORE: dict[Task, Metric] = {"classification": "f1_macro", "regression": "r2"}


class EvaluateSettings(Settings):
    folds: int = Field(default=5, ge=2)
    seed: int = Field(default=7, ge=0)
    score: Metric | None = None
    """What cross-validation and search optimise; f1_macro or r2 when absent."""
    bootstrap: int = Field(default=1000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    parity_rows: int = Field(default=100_000, ge=1000)
    interval: float = Field(default=0.9, ge=0.5, lt=1)
    """The share of the true values that a regression's prediction interval is made to hold."""

    slices: tuple[Text, ...] = ()
    """Columns of the source by whose values the test split is measured, too; they need not be features."""

    def score_of(self, task: Task) -> Metric:
        """The metric to optimise.

        Raises:
            ConfigError: the task does not have it.
        """
        score = self.score or _DEFAULT_SCORE[task]
        check_metrics("evaluate.score", [score], task)
        return score
