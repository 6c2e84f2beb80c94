"""k nearest neighbours whose ties do not depend on rounding.

On rounded values, many rows are equally far away. Which of them scikit-learn takes depends on the order in which it adds
up squares. Here distances are rounded to float32 before they are compared, and of equal ones the earlier training row
wins, so that the model file takes the same rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

BLOCK_CELLS = 4_000_000
"""Distances that are held at once (32 MB)."""


class _NearestNeighbors(BaseEstimator):  # type: ignore[misc]
    """Finds the neighbours by all distances to the training rows.

    Attributes:
        rows_: the training rows, float64.
        half_squares_: half the squared length of each training row.
    """

    def __init__(self, n_neighbors: int = 5) -> None:
        self.n_neighbors = n_neighbors

    def _remember(self, X: Any) -> None:
        if not isinstance(self.n_neighbors, int) or not 1 <= self.n_neighbors <= len(X):
            raise ValueError(
                f"n_neighbors must be a number from 1 to the {len(X)} training rows, and {self.n_neighbors!r} is not"
            )
        self.rows_ = np.asarray(X, dtype=np.float64)
        self.half_squares_ = np.square(self.rows_).sum(axis=1) / 2

    def _neighbors(self, X: Any) -> NDArray[np.int64]:
        """Positions of the nearest training rows, in no order."""
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, dtype=np.float64)
        block = max(1, BLOCK_CELLS // len(self.rows_))
        return np.concatenate(
            [self._nearest(values[start : start + block]) for start in range(0, len(values), block)]
        )

    def _nearest(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        # Half the squared distance without half the square of the row itself, which is the same for all neighbours.
        ranks = (self.half_squares_ - values @ self.rows_.T).astype(np.float32) + np.float32(0)
        # As integers, floats keep their order if those below zero are mirrored; the position breaks ties.
        order = ranks.view(np.int32).astype(np.int64)
        order = np.where(order < 0, -(order & 0x7FFFFFFF), order)
        keys = (order << 32) | np.arange(len(self.rows_))
        kept: NDArray[np.int64] = np.partition(keys, self.n_neighbors - 1, axis=1)[:, : self.n_neighbors]
        return kept & 0xFFFFFFFF


class NearestNeighborsClassifier(ClassifierMixin, _NearestNeighbors):  # type: ignore[misc]
    """The share of each class among the neighbours."""

    def fit(self, X: Any, y: Any) -> NearestNeighborsClassifier:
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, self.labels_ = np.unique(y, return_inverse=True)
        self._remember(X)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        labels = self.labels_[self._neighbors(X)]
        votes = np.stack([(labels == each).sum(axis=1) for each in range(len(self.classes_))], axis=1)
        return votes / self.n_neighbors

    def predict(self, X: Any) -> NDArray[Any]:
        classes: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return classes


class NearestNeighborsRegressor(RegressorMixin, _NearestNeighbors):  # type: ignore[misc]
    """The mean of the neighbours' targets."""

    def fit(self, X: Any, y: Any) -> NearestNeighborsRegressor:
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self.targets_ = np.asarray(y, dtype=np.float64)
        self._remember(X)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        means: NDArray[np.float64] = self.targets_[self._neighbors(X)].mean(axis=1)
        return means
