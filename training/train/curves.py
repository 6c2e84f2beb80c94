"""The tables behind a model's plots, one row per mark; the templates in `.dvc/plots` draw them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from training.data.dataset import Profile
from training.results.figures import Answers
from training.results.report import Report

CALIBRATION_BINS = 10
MAXIMUM_POINTS = 200
"""Points of one curve: a screen shows no more, and plots are stored for every commit."""
MAXIMUM_ROWS = 1000
"""Points of a scatter plot."""


def curves(
    target: NDArray[Any], answers: Answers, report: Report, profile: Profile
) -> dict[str, pd.DataFrame]:
    """Frames by plot name, measured on the given rows.

    Args:
        target: actual classes or values, shape (rows,).
        answers: of the model for the same rows.
        report: gives the confusion counts and the importance.
        profile: gives the classes' names.
    """
    tables = (
        _of_classes(target, answers[1], report, profile)
        if profile.classes
        else _of_values(target, answers[0])
    )
    return {**tables, "importance": _importance(report)}


def _of_classes(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], report: Report, profile: Profile
) -> dict[str, pd.DataFrame]:
    roc, precision_recall, calibration = [], [], []
    for index, name in enumerate(profile.classes):
        actual, score = labels == index, probabilities[:, index].astype(np.float64)
        fpr, tpr, _ = roc_curve(actual, score)
        roc.append(_curve(name, fpr=fpr, tpr=tpr))
        precision, recall, _ = precision_recall_curve(actual, score)
        precision_recall.append(_curve(name, recall=recall, precision=precision))
        calibration.append(_calibration(name, actual, score))
    return {
        "confusion": _confusion(report, profile.classes),
        "roc": pd.concat(roc),
        "precision_recall": pd.concat(precision_recall),
        "calibration": pd.concat(calibration),
    }


def _of_values(actual: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, pd.DataFrame]:
    """Actual against predicted values, and the residuals, of rows that stand for all: every n-th by actual value."""
    rows = np.argsort(actual, kind="stable")
    if len(rows) > MAXIMUM_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAXIMUM_ROWS).round().astype(int)]
    return {
        "predicted": pd.DataFrame({"predicted": predicted[rows], "actual": actual[rows]}),
        "residuals": pd.DataFrame({"predicted": predicted[rows], "residual": (actual - predicted)[rows]}),
    }


def _curve(name: str, **axes: NDArray[np.float64]) -> pd.DataFrame:
    frame = pd.DataFrame({"class": name, **axes})
    if len(frame) > MAXIMUM_POINTS:
        keep = np.unique(np.linspace(0, len(frame) - 1, MAXIMUM_POINTS).round().astype(int))
        frame = frame.iloc[keep]
    return frame


def _calibration(name: str, actual: NDArray[np.bool_], score: NDArray[np.float64]) -> pd.DataFrame:
    observed, predicted = calibration_curve(actual, score, n_bins=CALIBRATION_BINS)
    # scikit-learn's calibration_curve leaves out empty bins and does not return the rows of the others.
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], score), minlength=CALIBRATION_BINS)
    return pd.DataFrame(
        {"class": name, "predicted": predicted, "observed": observed, "count": counts[counts > 0]}
    )


def _confusion(report: Report, classes: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for actual, counts in zip(classes, report.confusion, strict=True):
        total = max(1, sum(counts))
        for predicted, count in zip(classes, counts, strict=True):
            rows.append({"actual": actual, "predicted": predicted, "count": count, "share": count / total})
    return pd.DataFrame(rows)


def _importance(report: Report) -> pd.DataFrame:
    ranked = sorted(report.importance.items(), key=lambda item: (-item[1].mean, item[0]))
    return pd.DataFrame(
        {"feature": name, "importance": each.mean, "low": each.mean - each.std, "high": each.mean + each.std}
        for name, each in ranked
    )
