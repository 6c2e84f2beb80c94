"""The step that prepares the features: gaps filled, numbers standardised, categories encoded."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from app.contract import MISSING_CATEGORY, CategoryFeature, columns_of
from training.data.dataset import Profile
from training.sections.algorithms import AlgorithmSettings
from training.train.algorithms.encoding import CrossFittedTargetEncoder

ESTIMATOR = "estimator"
"""Name of the pipeline's last step."""

FEATURES = "features"
"""Name of the step that prepares the features."""

NUMBERS, CATEGORIES = "numbers", "categories"
"""Names of the parts of that step, if there are categories."""


def preparation(
    profile: Profile, settings: AlgorithmSettings, *, fill: bool, scale: bool, features: Any = None
) -> Any:
    """The unfitted step, or "passthrough".

    Args:
        profile: says which features are numbers or make them, and which may be missing.
        settings: say what becomes of categories.
        fill: whether missing numbers become the training median; if not, the estimator gets NaN.
        scale: whether numbers are standardised.
        features: a transformer of the numbers, before they are standardised.
    """
    numbers = [each for each in profile.features if not isinstance(each, CategoryFeature)]
    categories = [each for each in profile.features if isinstance(each, CategoryFeature)]
    steps: list[Any] = []
    if fill and any(each.missing for each in numbers):
        steps.append(MedianImputer())
    if features is not None:
        steps.append(features)
    if scale:
        steps.append(StandardScaler())
    number_steps = make_pipeline(*steps) if steps else "passthrough"
    if not categories:
        return number_steps
    encoder = _encoder(profile, categories, settings)
    if settings.categories == "target" and scale:
        encoder = make_pipeline(encoder, StandardScaler())
    split = len(profile.layout.numbers)
    parts: list[Any] = [(CATEGORIES, encoder, list(range(split, split + len(categories))))]
    if numbers:
        parts.insert(0, (NUMBERS, number_steps, list(range(split))))
    return ColumnTransformer(parts)


def origins(profile: Profile, settings: AlgorithmSettings) -> list[int]:
    """The position of the feature from which each prepared column comes: numbers first, then the encoded categories."""
    found = [
        place
        for place, each in enumerate(profile.features)
        if not isinstance(each, CategoryFeature)
        for _ in columns_of(each)
    ]
    for place, each in enumerate(profile.features):
        if isinstance(each, CategoryFeature):
            widths = {
                "one_hot": len(each.categories) + each.missing,
                "native": 1,
                "target": len(profile.classes) if len(profile.classes) > 2 else 1,
            }
            found += [place] * widths[settings.categories]
    return found


def _encoder(profile: Profile, features: Sequence[CategoryFeature], settings: AlgorithmSettings) -> Any:
    known = [[*([MISSING_CATEGORY] if each.missing else []), *each.categories] for each in features]
    if settings.categories == "native":
        return OrdinalEncoder(categories=known, handle_unknown="use_encoded_value", unknown_value=-1)
    if settings.categories == "target":
        return CrossFittedTargetEncoder(known, len(profile.classes), settings.smooth)
    return OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False, dtype=np.float64)


def unscaled(fitted: Pipeline) -> tuple[Pipeline, StandardScaler | None]:
    """Take the scaling of the numbers, which is the last step of their preparation, out of a fitted pipeline.

    Returns:
        A copy of the pipeline without it, and the scaler; None where the estimator does not get scaled numbers.
    """
    rest = deepcopy(fitted)
    # A model's own pipeline may have steps between the two.
    numbers = rest[-2] if len(rest) > 1 and rest.steps[-2][0] == FEATURES else None
    if isinstance(numbers, ColumnTransformer):
        numbers = numbers.named_transformers_.get(NUMBERS)
    if not isinstance(numbers, Pipeline) or not isinstance(numbers[-1], StandardScaler):
        return rest, None
    scaler = numbers[-1]
    numbers.steps[-1] = ("unscaled", FunctionTransformer())
    return rest, scaler


class MedianImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Replaces missing numbers by the training median, in float64.

    ONNX's own imputation node knows float32 only, so SimpleImputer cannot be exported exactly.
    """

    def fit(self, X: NDArray[np.float64], y: object = None) -> MedianImputer:  # noqa: ARG002
        values = np.asarray(X, dtype=np.float64)
        self.n_features_in_ = values.shape[1]
        columns = (column[~np.isnan(column)] for column in values.T)
        # A fold may have no value of a rare feature; any number will do.
        self.medians_ = np.array([np.median(column) if column.size else 0.0 for column in columns])
        return self

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.asarray(X, dtype=np.float64)
        return np.where(np.isnan(values), self.medians_, values)
