"""Encodes a category by the mean of the target, which a row's own target does not enter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import OrdinalEncoder, TargetEncoder

from training.data.dataset import Split
from training.train.folds import Rows, cross_fitting

FOLDS = 5
SEED = 7


class CrossFittedTargetEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn's target encoder, cross-fitted over folds that keep rows apart as the split does.

    A training row is encoded by the means of rows in other folds; by time, of earlier rows. Those of the earliest block are
    encoded like unknown categories. Any other row is encoded by the means of all training rows.

    With more than two classes, each category has a column for each class.

    Attributes:
        categories: the known ones of each column.
        classes: how many the target has; 0 for values.
        smooth: as in scikit-learn.
        folds: of the rows that it is fitted on next: rows to compute means from, and rows to encode by them.
    """

    def __init__(
        self,
        categories: list[list[str]],
        classes: int,
        smooth: float | Literal["auto"] = "auto",
        folds: Sequence[tuple[Rows, Rows]] = (),
    ) -> None:
        self.categories = categories
        self.classes = classes
        self.smooth = smooth
        self.folds = folds

    def divide(self, split: Split) -> None:
        """Set the folds for a split."""
        self.set_params(folds=cross_fitting(split, FOLDS, SEED))

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        # Texts are compared once, and not for each class and fold.
        self.codes_ = OrdinalEncoder(
            categories=self.categories, handle_unknown="use_encoded_value", unknown_value=-1
        ).fit(np.asarray(X, dtype=object))
        self.encoders_ = self._fitted(self._coded(X), y)
        return self

    def fit_transform(self, X: Any, y: NDArray[Any]) -> NDArray[np.float64]:
        """The encoding of the training rows, which differs from what `transform` makes of them."""
        self.fit(X, y)
        codes = self._coded(X)
        first = self._fitted(codes[self.folds[0][0]], y[self.folds[0][0]])
        means = [np.full(codes.shape[1], each.target_mean_) for each in first]
        result = np.tile(np.stack(means, axis=1).ravel(), (len(codes), 1))
        for inner, outer in self.folds:
            result[outer] = _encoded(self._fitted(codes[inner], y[inner]), codes[outer])
        return result

    def transform(self, X: Any) -> NDArray[np.float64]:
        return _encoded(self.encoders_, self._coded(X))

    def _coded(self, X: Any) -> NDArray[np.float64]:
        codes: NDArray[np.float64] = self.codes_.transform(np.asarray(X, dtype=object))
        return codes

    def _fitted(self, codes: NDArray[np.float64], y: NDArray[Any]) -> list[TargetEncoder]:
        """One encoder, or one for each of more than two classes, also of those that the rows lack."""
        targets = [y == each for each in range(self.classes)] if self.classes > 2 else [y]
        known = [np.arange(len(each), dtype=np.float64) for each in self.categories]
        return [
            TargetEncoder(categories=known, target_type="continuous", smooth=self.smooth).fit(
                codes, each.astype(np.float64)
            )
            for each in targets
        ]


def _encoded(encoders: Sequence[TargetEncoder], codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns of a category are side by side."""
    return np.stack([each.transform(codes) for each in encoders], axis=2).reshape(len(codes), -1)
