"""The numbers that are measured, and how they are written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract import Score
from training.sections.metrics import Metric

Floats = NDArray[np.float64]
Answers = tuple[NDArray[Any], ...]
"""What a model says of some rows: classes and probabilities, or values. The first axis of each array is the row."""

DECIMALS = 6
"""Of every figure that is written: enough to rank by, and free of the last bits' noise."""
_IN_THE_UNIT: frozenset[Metric] = frozenset({"rmse", "mae", "median_absolute_error"})


def decimals(metric: Metric, target: NDArray[Any]) -> int:
    """The decimals of a metric; one in the target's unit has as many as its spread asks for."""
    spread = float(target.std()) if metric in _IN_THE_UNIT else 1.0
    return DECIMALS - math.floor(math.log10(spread)) if spread > 0 else DECIMALS


def rounded(value: float, digits: int = DECIMALS) -> float:
    return round(float(value), digits)


TITLES: dict[Metric, str] = {
    "accuracy": "accuracy",
    "precision_macro": "precision (macro)",
    "recall_macro": "recall (macro)",
    "f1_macro": "F1 (macro)",
    "precision_weighted": "precision (weighted)",
    "recall_weighted": "recall (weighted)",
    "f1_weighted": "F1 (weighted)",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "average_precision": "average precision",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
    "cost": "cost",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "median_absolute_error": "median absolute error",
}


def shown(value: float, digits: int = 3, beside: float | None = None) -> str:
    """A score for people: so many decimals, and fewer or more where a target's unit makes it large or tiny.

    Args:
        value: of the score.
        digits: decimals of a score of ordinary size.
        beside: the figure that this one belongs to, and that says how large is ordinary.
    """
    size = abs(value if beside is None else beside)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.{digits - (1 if size < 100 else 2)}f}"
    return f"{value:.{digits}f}" if size >= 0.001 or not size else f"{value:.{digits}g}"


def signed(value: float) -> str:
    """A difference of two scores for people."""
    return f"{value:+.3f}" if abs(value) < 10 else f"{'+' if value > 0 else ''}{shown(value)}"


def interval(score: Score, digits: int = 3) -> str:
    """A score with the interval around it, if it has one."""
    value, low, high = score.value, score.low, score.high
    if low is None or high is None:
        return shown(value, digits)
    size = max(abs(value), abs(low), abs(high))
    return f"{shown(value, digits, size)} [{shown(low, digits, size)}, {shown(high, digits, size)}]"


def spread(mean: float, deviation: float, digits: int = 3) -> str:
    """A mean and the standard deviation around it."""
    size = max(abs(mean), deviation)
    return f"{shown(mean, digits, size)} ± {shown(deviation, digits, size)}"
