"""The metrics that params.yaml can name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from app.contract import Task
from training.base.config import PARAMS_FILE
from training.base.errors import ConfigError

_ClassMetric = Literal[
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "log_loss",
    "roc_auc",
    "average_precision",
    "brier_score",
    "calibration_error",
    "cost",
]
_ValueMetric = Literal["r2", "rmse", "mae", "median_absolute_error"]
Metric = Literal[_ClassMetric, _ValueMetric]
METRICS: dict[Task, tuple[Metric, ...]] = {
    "classification": get_args(_ClassMetric),
    "regression": get_args(_ValueMetric),
}
"""`cost` only where params.yaml says what mistakes cost (`decision.cost`)."""
LOWER_IS_BETTER: frozenset[Metric] = frozenset(
    {"log_loss", "brier_score", "calibration_error", "cost", "rmse", "mae", "median_absolute_error"}
)
OF_PROBABILITIES: frozenset[Metric] = frozenset(
    {"log_loss", "roc_auc", "average_precision", "brier_score", "calibration_error"}
)
"""Metrics that a threshold does not change."""
SECOND_SCORE: dict[Task, Metric] = {"classification": "log_loss", "regression": "rmse"}
"""The metric that is shown beside the one that selects."""


def check_metrics(where: str, metrics: Iterable[Metric], task: Task) -> None:
    """Raise ConfigError for a metric that a task does not have."""
    if wrong := [each for each in metrics if each not in METRICS[task]]:
        raise ConfigError(
            f"{PARAMS_FILE}: {where}: {wrong[0]} is no metric of a {task}; there are {', '.join(METRICS[task])}"
        )
