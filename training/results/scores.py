"""Classification scores, for one set of rows or for thousands of resamples of it at once.

A resample is a vector of row weights (how often each row was drawn). All scores are computed from weights
by matrix products, so that a thousand resamples cost milliseconds; a test holds them to scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from app.contract import Score
from training.base.config import Metric

Floats = NDArray[np.float64]
Answers = tuple[NDArray[np.int64], NDArray[np.floating[Any]]]
"""What a model says of some rows: classes of shape (rows,), probabilities of shape (rows, classes)."""

METRICS: tuple[Metric, ...] = get_args(Metric)
LOWER_IS_BETTER = frozenset({"log_loss"})
DECIMALS = 6
"""Of every figure that is written: enough to rank by, and free of the last bits' noise."""

_CHUNK = 4_000_000
"""Weights held at once, in numbers (32 MB): rows times resamples may be far more."""


def rounded(value: float) -> float:
    return round(float(value), DECIMALS)


def scores(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    weights: Floats | None = None,
) -> dict[Metric, Floats]:
    """Every metric for each set of weights.

    Args:
        labels: actual classes, shape (rows,).
        predicted: predicted classes, shape (rows,).
        probabilities: shape (rows, classes).
        weights: shape (sets, rows), each row of it one set; absent means one set of ones.

    Returns:
        Arrays of shape (sets,). A class that is never predicted has precision 0, as in scikit-learn.
    """
    if weights is None:
        weights = np.ones((1, len(labels)))
    count = probabilities.shape[1]
    precision, recall, f1, support = _per_class(labels, predicted, weights, count)
    share = support / support.sum(axis=1, keepdims=True)
    hits = (weights * (labels == predicted)).sum(axis=1)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))
    return {
        "accuracy": hits / weights.sum(axis=1),
        "precision_macro": precision.mean(axis=1),
        "recall_macro": recall.mean(axis=1),
        "f1_macro": f1.mean(axis=1),
        "precision_weighted": (precision * share).sum(axis=1),
        "recall_weighted": (recall * share).sum(axis=1),
        "f1_weighted": (f1 * share).sum(axis=1),
        "log_loss": weights @ losses / weights.sum(axis=1),
        "roc_auc": _roc_auc(labels, probabilities, weights),
    }


def point(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]
) -> dict[Metric, float]:
    """Every metric of one set of rows, rounded."""
    return {name: rounded(value[0]) for name, value in scores(labels, predicted, probabilities).items()}


def with_intervals(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Score]:
    """Every metric with a percentile bootstrap interval.

    Rows are drawn within each class, so that no resample misses a class.
    """
    drawn = _resampled([(predicted, probabilities)], labels, resamples, seed)[0]
    return {
        str(name): _around(value, drawn[name], confidence)
        for name, value in point(labels, predicted, probabilities).items()
    }


def paired(
    labels: NDArray[np.int64],
    first: Answers,
    second: Answers,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Score]:
    """How far the second model's metrics are above the first's on the same rows, with intervals.

    Both are measured on each resample: how hard the drawn rows are cancels out, and the interval is much
    narrower than those of the two models would suggest.
    """
    before, after = _resampled([first, second], labels, resamples, seed)
    points = point(labels, *first), point(labels, *second)
    return {
        str(name): _around(rounded(points[1][name] - points[0][name]), after[name] - before[name], confidence)
        for name in METRICS
    }


def _resampled(
    models: Sequence[Answers], labels: NDArray[np.int64], resamples: int, seed: int
) -> list[dict[Metric, Floats]]:
    """Every metric of each model on the same bootstrap resamples, drawn within each class."""
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(labels == each) for each in np.unique(labels)]
    per_chunk = max(1, _CHUNK // len(labels))
    parts: list[list[dict[Metric, Floats]]] = [[] for _ in models]
    for start in range(0, resamples, per_chunk):
        size = min(per_chunk, resamples - start)
        weights = np.zeros((size, len(labels)))
        for rows in strata:
            weights[:, rows] = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size)
        for part, (predicted, probabilities) in zip(parts, models, strict=True):
            part.append(scores(labels, predicted, probabilities, weights))
    return [{name: np.concatenate([each[name] for each in part]) for name in METRICS} for part in parts]


def _around(value: float, drawn: Floats, confidence: float) -> Score:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Score(value=value, low=rounded(low), high=rounded(high))


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts of shape (classes, classes): row = actual, column = predicted."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]
) -> list[dict[str, float]]:
    """Precision, recall, f1, one-against-rest ROC AUC and support of each class."""
    weights = np.ones((1, len(labels)))
    count = probabilities.shape[1]
    precision, recall, f1, support = _per_class(labels, predicted, weights, count)
    return [
        {
            "precision": rounded(precision[0, each]),
            "recall": rounded(recall[0, each]),
            "f1": rounded(f1[0, each]),
            "roc_auc": rounded(_binary_auc(labels == each, probabilities[:, each], weights)[0]),
            "support": int(support[0, each]),
        }
        for each in range(count)
    ]


def _per_class(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], weights: Floats, count: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Precision, recall, f1 and support, each of shape (sets, classes)."""
    actual = np.eye(count)[labels]
    chosen = np.eye(count)[predicted]
    support = weights @ actual
    selected = weights @ chosen
    hits = weights @ (actual * chosen)
    precision = _ratio(hits, selected)
    recall = _ratio(hits, support)
    return precision, recall, _ratio(2 * hits, support + selected), support


def _ratio(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return result


def _roc_auc(labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], weights: Floats) -> Floats:
    """Of the second class when there are two, otherwise the mean over one class against the rest."""
    count = probabilities.shape[1]
    if count == 2:
        return _binary_auc(labels == 1, probabilities[:, 1], weights)
    each = [_binary_auc(labels == one, probabilities[:, one], weights) for one in range(count)]
    mean: Floats = np.mean(each, axis=0)
    return mean


def _binary_auc(positive: NDArray[np.bool_], score: NDArray[np.floating[Any]], weights: Floats) -> Floats:
    """Chance that a positive row scores above a negative one; ties count half. NaN if a side is empty."""
    _, group = np.unique(score, return_inverse=True)
    groups = int(group.max()) + 1
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(groups))
    above = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    lower = np.cumsum(below, axis=1) - below / 2
    total = above.sum(axis=1) * below.sum(axis=1)
    wins = (above * lower).sum(axis=1)
    result: Floats = np.divide(wins, total, out=np.full(len(weights), np.nan), where=total > 0)
    return result
