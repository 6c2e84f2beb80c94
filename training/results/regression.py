"""Regression: the scores of values, and the prediction interval around them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract import Layout
from app.predictor import Regressor
from training.data.dataset import Split
from training.data.texts import at_once
from training.results.figures import Answers, Floats
from training.sections.metrics import METRICS, Metric


class Regression:
    """What scores need to know of numbers as targets; answers are `(values,)`."""

    metrics: tuple[Metric, ...] = METRICS["regression"]

    def answerer(self, model: bytes, layout: Layout) -> Callable[[Split], Answers]:
        predictor = Regressor(model, layout)
        return lambda split: (predictor.predict(split.numbers, at_once(split.categories)),)

    def fitted_answers(self, pipeline: Any, X: Any, score: Metric) -> Answers:  # noqa: ARG002
        return (np.asarray(pipeline.predict(X), dtype=np.float64).ravel(),)

    def strata(self, target: NDArray[Any]) -> list[NDArray[np.intp]]:
        return [np.arange(len(target))]

    def scores(self, target: NDArray[Any], answers: Answers, weights: Floats) -> dict[Metric, Floats]:
        """As scikit-learn defines them; R² of values that do not differ is 1 if all are met, else 0."""
        (values,) = answers
        errors = np.abs(values - target)
        total = weights.sum(axis=1)
        squares = weights @ errors**2
        # Around the mean of all rows, so that a target far from zero loses no digits.
        centred = target - target.mean()
        means = weights @ centred / total
        spread = (weights * (centred - means[:, np.newaxis]) ** 2).sum(axis=1)
        r2 = np.where(squares > 0, 0.0, 1.0)
        np.divide(spread - squares, spread, out=r2, where=spread > 0)
        return {
            "r2": r2,
            "rmse": np.sqrt(squares / total),
            "mae": weights @ errors / total,
            "median_absolute_error": _median(errors, weights),
        }


def margin(errors: Floats, level: float, weights: Floats | None = None) -> float:
    """Half the width of an interval that holds a new value with the given probability.

    Args:
        errors: absolute errors of rows that the model was not fitted on, shape (rows,).
        level: the probability.
        weights: how much each row counts; the new one counts as much as the mean of them.

    Returns:
        The order statistic of split conformal prediction, ceil((rows + 1) * level); the largest error if there are too few.
    """
    if weights is not None:
        order = np.argsort(errors, kind="stable")
        counted = np.cumsum(weights[order]) / weights.mean()
        # Sums of equal weights may be a little below the whole number that they stand for.
        rank = int(np.searchsorted(counted, (len(errors) + 1) * level - 1e-9))
        return float(errors[order][min(rank, len(errors) - 1)])
    rank = min(len(errors), math.ceil((len(errors) + 1) * level))
    return float(np.sort(errors)[rank - 1])


def _median(errors: Floats, weights: Floats) -> Floats:
    """The median of errors that occur as often as the weights say, for each set of weights."""
    order = np.argsort(errors, kind="stable")
    ranked = errors[order]
    counts = np.cumsum(weights[:, order], axis=1)
    half = counts[:, -1:] / 2
    # For an even number of rows, the mean of the two in the middle.
    lower, upper = (counts >= half).argmax(axis=1), (counts > half).argmax(axis=1)
    middle: Floats = (ranked[lower] + ranked[upper]) / 2
    return middle
