"""Classification: the scores of classes and probabilities, in total and by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract import Layout
from app.predictor import Classifier
from training.data.dataset import Split
from training.data.texts import at_once
from training.results.figures import Answers, Floats, rounded
from training.sections.metrics import METRICS, Metric

CALIBRATION_BINS = 10


class Classification:
    """What scores need to know of classes; answers are `(classes, probabilities)`."""

    def __init__(self, cost: Floats | None = None) -> None:
        self.cost = cost
        self.metrics: tuple[Metric, ...] = tuple(
            each for each in METRICS["classification"] if each != "cost" or cost is not None
        )

    def answerer(self, model: bytes, layout: Layout) -> Callable[[Split], Answers]:
        predictor = Classifier(model, layout)
        return lambda split: predictor.predict(split.numbers, at_once(split.categories))

    def fitted_answers(self, pipeline: Any, X: Any, score: Metric) -> Answers:
        """The most probable classes, or for the metric `cost` those of the lowest expected cost."""
        # Labels follow from the probabilities: asking an SVM for both computes its kernel twice.
        probabilities = pipeline.predict_proba(X)
        if score == "cost" and self.cost is not None:
            return (probabilities @ self.cost).argmin(axis=1), probabilities
        return probabilities.argmax(axis=1), probabilities

    def strata(self, target: NDArray[Any]) -> list[NDArray[np.intp]]:
        return [np.flatnonzero(target == each) for each in np.unique(target)]

    def scores(self, target: NDArray[Any], answers: Answers, weights: Floats) -> dict[Metric, Floats]:
        """As scikit-learn defines them; a class that is never predicted has precision 0."""
        predicted, probabilities = answers
        count = probabilities.shape[1]
        precision, recall, f1, support = _per_class(target, predicted, weights, count)
        share = support / support.sum(axis=1, keepdims=True)
        # A fold by time or group may have no row of a class: one that is not predicted either does not count.
        known = (support + _chosen(predicted, weights, count)) > 0
        hits = (weights * (target == predicted)).sum(axis=1)
        chosen = probabilities[np.arange(len(target)), target].astype(np.float64)
        losses = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))
        return {
            "accuracy": hits / weights.sum(axis=1),
            "precision_macro": _mean(precision, known),
            "recall_macro": _mean(recall, known),
            "f1_macro": _mean(f1, known),
            "precision_weighted": (precision * share).sum(axis=1),
            "recall_weighted": (recall * share).sum(axis=1),
            "f1_weighted": (f1 * share).sum(axis=1),
            "log_loss": weights @ losses / weights.sum(axis=1),
            "roc_auc": _by_class(_binary_auc, target, probabilities, weights),
            "average_precision": _by_class(_average_precision, target, probabilities, weights),
            "brier_score": weights @ _squares(target, probabilities) / weights.sum(axis=1),
            "calibration_error": _calibration_error(target, probabilities, weights),
            **self._costs(target, predicted, weights),
        }

    def _costs(
        self, target: NDArray[np.int64], predicted: NDArray[np.int64], weights: Floats
    ) -> dict[Metric, Floats]:
        if self.cost is None:
            return {}
        return {"cost": weights @ self.cost[target, predicted] / weights.sum(axis=1)}


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


def _chosen(predicted: NDArray[np.int64], weights: Floats, count: int) -> Floats:
    """How often each class is predicted, of shape (sets, classes)."""
    return weights @ np.eye(count)[predicted]


def _mean(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """The mean over the classes that are known, for each set."""
    mean: Floats = (values * known).sum(axis=1) / known.sum(axis=1)
    return mean


def _ratio(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return result


def _by_class(
    measure: Callable[[NDArray[np.bool_], NDArray[np.floating[Any]], Floats], Floats],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    weights: Floats,
) -> Floats:
    """Of the second class when there are two, otherwise the mean over one class against the rest.

    Classes without a row do not count; NaN where all rows are of one class.
    """
    count = probabilities.shape[1]
    if count == 2:
        return measure(labels == 1, probabilities[:, 1], weights)
    each = [measure(labels == one, probabilities[:, one], weights) for one in range(count)]
    defined = ~np.isnan(each)
    total, count_defined = np.where(defined, each, 0.0).sum(axis=0), defined.sum(axis=0)
    result: Floats = np.divide(
        total, count_defined, out=np.full(len(weights), np.nan), where=count_defined > 0
    )
    return result


def _binary_auc(positive: NDArray[np.bool_], score: NDArray[np.floating[Any]], weights: Floats) -> Floats:
    """Chance that a positive row scores above a negative one; ties count half. NaN if a side is empty."""
    above, below = _by_score(positive, score, weights)
    lower = np.cumsum(below, axis=1) - below / 2
    total = above.sum(axis=1) * below.sum(axis=1)
    wins = (above * lower).sum(axis=1)
    result: Floats = np.divide(wins, total, out=np.full(len(weights), np.nan), where=total > 0)
    return result


def _average_precision(
    positive: NDArray[np.bool_], score: NDArray[np.floating[Any]], weights: Floats
) -> Floats:
    """Precision at each score, weighted by the recall that it adds. NaN without a positive row."""
    above, below = (each[:, ::-1] for each in _by_score(positive, score, weights))
    hits = np.cumsum(above, axis=1)
    precision = _ratio(hits, hits + np.cumsum(below, axis=1))
    total = hits[:, -1]
    result: Floats = np.divide(
        (above * precision).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0
    )
    return result


def _by_score(
    positive: NDArray[np.bool_], score: NDArray[np.floating[Any]], weights: Floats
) -> tuple[Floats, Floats]:
    """The weights of positive and of negative rows with each distinct score, ascending; of shape (sets, scores)."""
    _, group = np.unique(score, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(int(group.max()) + 1))
    above: Floats = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below: Floats = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    return above, below


def _squares(labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> Floats:
    """The Brier score of each row: of two classes the square of one difference, of more the sum over all."""
    differences = probabilities.astype(np.float64)
    differences[np.arange(len(labels)), labels] -= 1
    squares = np.asarray(np.square(differences).sum(axis=1))
    if probabilities.shape[1] == 2:
        squares /= 2
    return squares


def _calibration_error(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], weights: Floats
) -> Floats:
    """The expected calibration error: in ten intervals of the highest probability, how far it is from the share of rows
    that it is right for, weighted by their rows (Guo et al. 2017).
    """
    highest = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((highest * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = np.eye(CALIBRATION_BINS)[place]
    gaps: Floats = np.abs(weights @ (bins * (right - highest)[:, np.newaxis])).sum(axis=1)
    error: Floats = gaps / weights.sum(axis=1)
    return error
