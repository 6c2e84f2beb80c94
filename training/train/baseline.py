"""What an answer that ignores the features reaches: a model that is not better is worth nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Split
from training.results.figures import Answers
from training.train.folds import is_classes


def name(split: Split) -> str:
    """What is answered: the majority, the mean, or the last value where time keeps rows apart."""
    if is_classes(split.target):
        return "majority"
    return "mean" if split.times is None else "last value"


def answers(fitted: Split, asked: Split) -> Answers:
    """The same answer for every row that is asked about.

    Classes have the shares of the rows that are fitted on as probabilities.
    """
    count = len(asked)
    if is_classes(fitted.target):
        shares = np.bincount(fitted.target, weights=fitted.weights)
        shares = shares / shares.sum()
        return np.full(count, int(shares.argmax())), np.tile(shares, (count, 1))
    return (np.full(count, _value(fitted)),)


def _value(fitted: Split) -> float:
    if fitted.times is None:
        return float(np.average(fitted.target, weights=fitted.weights))
    last: NDArray[np.bool_] = fitted.times == fitted.times.max()
    return float(fitted.target[last].mean())
