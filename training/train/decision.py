"""Decides for a class: by a threshold, which is tuned on cross-validated predictions, or by the expected cost.

The decision becomes part of the model file, so that whatever runs the file makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract import Decision
from training.base.errors import ConfigError
from training.data.dataset import Profile
from training.results import scores
from training.results.figures import Floats
from training.results.scores import Scoring
from training.sections.decision import DecisionSettings, MistakeCosts
from training.sections.metrics import OF_PROBABILITIES, Metric

MOST_THRESHOLDS = 1000
DECIMALS = 4
"""Of a tuned threshold."""


def cost_matrix(settings: DecisionSettings, profile: Profile) -> Floats | None:
    """What it costs to answer a class (column) where another is right (row); None if nothing is said.

    Raises:
        ConfigError: there is no such class, or there are more than two classes for a false positive.
    """
    if settings.cost is None:
        return None
    classes = profile.classes
    matrix = np.zeros((len(classes), len(classes)))
    if isinstance(settings.cost, MistakeCosts):
        positive = positive_class(settings, profile)
        matrix[1 - positive, positive] = settings.cost.false_positive
        matrix[positive, 1 - positive] = settings.cost.false_negative
        return matrix
    for actual, answered in settings.cost.items():
        for name, cost in answered.items():
            row, column = (_position(each, f"decision.cost.{actual}", profile) for each in (actual, name))
            if row == column and cost:
                raise ConfigError(f"decision.cost.{actual}.{name}: a right answer costs nothing")
            matrix[row, column] = cost
    return matrix


def decide(
    settings: DecisionSettings,
    profile: Profile,
    target: NDArray[np.int64],
    probabilities: Floats,
    score: Metric,
    weights: Floats | None = None,
) -> Decision | None:
    """The decision that the settings ask for; None if the most probable class is it.

    Args:
        settings: of the decision.
        profile: gives the classes.
        target: actual classes of rows that the models behind the probabilities were not fitted on.
        probabilities: of the same rows, shape (rows, classes).
        score: is maximised by a tuned threshold where no costs are given.
        weights: how much each row counts.

    Raises:
        ConfigError: the settings do not fit the classes or the score.
    """
    cost = cost_matrix(settings, profile)
    if len(profile.classes) > 2:
        if settings.threshold != 0.5:
            raise ConfigError(
                f"decision.threshold needs two classes, and there are {len(profile.classes)}: say what mistakes cost "
                "(decision.cost), and the answer with the lowest expected cost is given"
            )
        return None if cost is None else Decision(cost=_rows(cost))
    if settings == DecisionSettings():
        return None
    positive = positive_class(settings, profile)
    threshold = settings.threshold
    if threshold == "tuned":
        threshold = _tuned(target, probabilities, positive, score, cost, weights)
    return Decision(
        positive=profile.classes[positive], threshold=threshold, cost=None if cost is None else _rows(cost)
    )


def decided(
    decision: Decision | None, classes: Sequence[str], probabilities: NDArray[Any]
) -> NDArray[np.int64]:
    """The classes that a decision gives for probabilities of shape (rows, classes); as the nodes in the model file."""
    exact = probabilities.astype(np.float64)
    if decision is None:
        return np.asarray(probabilities.argmax(axis=1))
    if decision.threshold is None:
        return np.asarray((exact @ np.array(decision.cost)).argmin(axis=1))
    positive = classes.index(decision.positive or "")
    return np.where(exact[:, positive] >= decision.threshold, positive, 1 - positive)


def _tuned(
    target: NDArray[np.int64],
    probabilities: Floats,
    positive: int,
    score: Metric,
    cost: Floats | None,
    weights: Floats | None,
) -> float:
    """The threshold with the lowest cost or the best score; of equal ones, the one nearest to one half."""
    if cost is None and score in OF_PROBABILITIES:
        raise ConfigError(
            f"decision.threshold: tuned needs decision.cost, because evaluate.score {score} does not depend on a threshold"
        )
    scoring = scores.of("classification", cost)
    metric: Metric = "cost" if cost is not None else score
    sign = -1.0 if cost is not None else 1.0
    found = probabilities[:, positive].astype(np.float64)
    distinct = np.unique(found)
    middles = np.unique(np.round((distinct[1:] + distinct[:-1]) / 2, DECIMALS))
    if len(middles) > MOST_THRESHOLDS:
        middles = np.unique(np.quantile(middles, np.linspace(0, 1, MOST_THRESHOLDS), method="nearest"))
    candidates = [
        each for each in sorted({0.5, *middles.tolist()}, key=lambda each: abs(each - 0.5)) if 0 < each < 1
    ]
    values = sign * _at_thresholds(scoring, metric, target, found, np.array(candidates), positive, weights)
    return float(candidates[int(np.argmax(values))])


def _at_thresholds(
    scoring: Scoring,
    metric: Metric,
    target: NDArray[np.int64],
    found: Floats,
    thresholds: Floats,
    positive: int,
    weights: Floats | None,
) -> Floats:
    """A metric of decided classes at each threshold.

    It depends only on how many rows of each class are decided for each class. So four rows stand for all, and each threshold
    is one set of their weights.
    """
    counted = np.ones(len(target)) if weights is None else weights
    actual, answered = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    cells = np.empty((len(thresholds), 4))
    for label in (0, 1):
        mine = np.flatnonzero(target == label)
        order = mine[np.argsort(found[mine], kind="stable")]
        total = np.concatenate([[0.0], np.cumsum(counted[order])])
        below = total[np.searchsorted(found[order], thresholds)]
        cells[:, 2 * label + positive] = total[-1] - below
        cells[:, 2 * label + 1 - positive] = below
    reached: Floats = scoring.scores(actual, (answered, np.eye(2)[answered]), cells)[metric]
    return np.round(reached, DECIMALS + 2)


def positive_class(settings: DecisionSettings, profile: Profile) -> int:
    if len(profile.classes) > 2:
        raise ConfigError(
            "decision.cost with false_positive and false_negative is for two classes, and there are "
            f"{len(profile.classes)}: write {{ACTUAL: {{ANSWERED: …}}}}"
        )
    if settings.positive is None:
        return 1
    return _position(settings.positive, "decision.positive", profile)


def _position(name: str, where: str, profile: Profile) -> int:
    if name not in profile.classes:
        raise ConfigError(
            f"{where}: there is no class {name!r}; there are {', '.join(map(repr, profile.classes))}"
        )
    return profile.classes.index(name)


def _rows(matrix: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))
