"""A pipeline whose estimator counts some rows more than others."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import has_fit_parameter

from training.train.algorithms.factories import SEED
from training.train.algorithms.preparation import ESTIMATOR


class WeightedPipeline(Pipeline):  # type: ignore[misc]
    """Fits the last step with weights of the rows.

    Attributes:
        class_weight: of estimators that have no such parameter themselves: `balanced`, or weights by class index.
        partitions: in how many parts of the rows the workers of a cluster fit the last step; None without a cluster.
    """

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
        partitions: int | None = None,
        transform_input: Any = None,
        memory: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self.class_weight = class_weight
        self.partitions = partitions

    def fit(
        self, X: Any, y: NDArray[Any], sample_weight: NDArray[np.float64] | None = None, **params: Any
    ) -> Self:
        weights = self.weights(y, sample_weight)
        if weights is not None:
            params[f"{ESTIMATOR}__sample_weight"] = weights
        fitted: Self = super().fit(X, y, **params)
        return fitted

    def weights(
        self, y: NDArray[Any], sample_weight: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        """How much each row counts; None if all count alike. Called before each fit."""
        # A model's own code may draw from the generators that all modules share.
        random.seed(SEED)
        np.random.seed(SEED)
        if self.class_weight is None:
            return sample_weight
        by_class: NDArray[np.float64] = compute_sample_weight(self.class_weight, y)
        return by_class if sample_weight is None else sample_weight * by_class


def takes_weights(estimator: Any) -> bool:
    """Whether an estimator can count rows more than others."""
    if isinstance(estimator, TransformedTargetRegressor):
        estimator = estimator.regressor
    return bool(has_fit_parameter(estimator, "sample_weight"))
