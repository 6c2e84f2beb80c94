"""Regressors that were fitted to a scaled target."""

from __future__ import annotations

from typing import Any

from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import StandardScaler


def unwrapped(model: Any) -> tuple[Any, float, float]:
    """The regressor inside, and what a value of it is multiplied with and added to; others are returned as they are."""
    if type(model) is not TransformedTargetRegressor or type(model.transformer_) is not StandardScaler:
        return model, 1.0, 0.0
    scaler = model.transformer_
    return model.regressor_, float(scaler.scale_[0]), float(scaler.mean_[0])
