"""One representation of fitted trees, whichever package grew them.

A reader in `readers` turns a fitted estimator into an `Ensemble`; `trees` writes it as ONNX nodes. A leaf's values are
added in the order of the trees and in the estimator's own precision, so that equal sums stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tree:
    """A decision tree as arrays with an entry for each node. The first node is the root.

    Attributes:
        feature: which value an inner node looks at.
        limit: the largest value that goes left.
        missing_left: whether a missing value goes left.
        left: the left child; -1 for a leaf.
        right: the right child.
        values: what a leaf adds, of shape (nodes, 1), or (nodes, classes) if it adds to every class.
        cover: how much of the training data reached each node, as the package counts it.
        sets: for inner nodes that look at a code of a category, the codes that go left; all others go right.
    """

    feature: NDArray[np.integer]
    limit: Floats
    missing_left: NDArray[np.bool_]
    left: NDArray[np.integer]
    right: NDArray[np.integer]
    values: Floats
    cover: Floats
    sets: Mapping[int, Set[int]] = field(default_factory=dict)

    @property
    def leaf(self) -> NDArray[np.bool_]:
        return self.left < 0

    def plus(self, base: float | Floats, kind: type[np.floating]) -> Tree:
        """The tree whose leaves add this much more, rounded to a type as a sum would be."""
        values = (self.values.astype(kind) + np.asarray(base, dtype=kind)).astype(np.float64)
        return replace(self, values=values)

    @classmethod
    def constant(cls, values: float | Floats) -> Tree:
        """A single leaf."""
        none = np.full(1, -1)
        return cls(
            np.zeros(1, dtype=np.int64),
            np.zeros(1),
            np.zeros(1, dtype=bool),
            none,
            none,
            np.reshape(np.asarray(values, dtype=np.float64), (1, -1)),
            np.ones(1),
        )


class Link(Enum):
    """What becomes of the sums."""

    IDENTITY = "identity"
    EXPONENTIAL = "exponential"
    MEAN = "mean"
    """A sum over the number of trees."""
    LOGISTIC = "logistic"
    """Probabilities from one sum, in favour of the second of two classes."""
    SOFTMAX = "softmax"
    """Probabilities from a sum for each class."""


@dataclass(frozen=True, eq=False)
class Ensemble(BaseEstimator):  # type: ignore[misc]
    """Trees, and what becomes of their sums.

    Attributes:
        trees: in the order in which they are added. Where there are several sums, those of a round are side by side.
        link: from sums to probabilities or the value.
        single: whether values and sums are float32.
    """

    trees: Sequence[Tree]
    link: Link
    single: bool = False

    @property
    def wide(self) -> bool:
        """Whether each leaf adds to every class."""
        return len(self.trees[0].values.T) > 1


@dataclass(frozen=True, eq=False)
class Regression(RegressorMixin, Ensemble):  # type: ignore[misc]
    """Trees of one sum."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Classification(ClassifierMixin, Ensemble):  # type: ignore[misc]
    """Trees of one or more sums.

    Attributes:
        classes: how many there are.
        cutoff: of two classes, the second is predicted if its sum is above.
        compares_probabilities: whether classes tie if their probabilities are equal after rounding, not only their sums.
    """

    classes: int
    cutoff: float = 0.0
    compares_probabilities: bool = False

    @property
    def classes_(self) -> NDArray[np.int64]:
        return np.arange(self.classes)


def in_float32(thresholds: Floats) -> Floats:
    """The largest float64 values that are not above the thresholds after a cast to float32.

    scikit-learn and CatBoost cast the values; onnxruntime compares them with these limits without a cast. Rounding keeps
    the order of values, so exactly the values up to the limit pass. It lies midway between the last float32 that passes
    and the next one, or just below: a value that is exactly midway is rounded to the even one of the two.
    """
    with np.errstate(over="ignore"):
        last = thresholds.astype(np.float32)
        last = np.where(last > thresholds, np.nextafter(last, np.float32(-np.inf)), last)
        following = np.nextafter(last, np.float32(np.inf)).astype(np.float64)
    # Above the largest float32, values are rounded as if 2**128 came next.
    midway = (last.astype(np.float64) + np.where(np.isinf(following), 2.0**128, following)) / 2
    even = last.view(np.int32) % 2 == 0
    return np.where(even, midway, np.nextafter(midway, -np.inf))
