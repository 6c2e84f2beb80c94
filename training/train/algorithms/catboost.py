"""CatBoost's estimators as the pipeline calls them: with categories as numbers, and one class a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from catboost import CatBoostClassifier, CatBoostRegressor


class _Coded:
    """Takes the codes of categories as the float64 that they are among numbers; CatBoost itself refuses them.

    Attributes:
        codes_: the training rows' codes, for each column of categories.
    """

    def set_params(self: Any, **parameters: Any) -> Any:
        # CatBoost copies lists, and scikit-learn does not clone an estimator whose parameters are not the given ones.
        fixed = {key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()}
        return super().set_params(**fixed)  # type: ignore[misc]

    def fit(self: Any, X: Any, y: Any, **options: Any) -> Any:
        self.codes_ = {column: np.unique(X[:, column]) for column in self._columns()}
        return super().fit(self.coded(X), y, **options)  # type: ignore[misc]

    def predict(self: Any, X: Any, **options: Any) -> Any:
        return super().predict(self.coded(X), **options)  # type: ignore[misc]

    def coded(self: Any, X: Any) -> Any:
        """The values as CatBoost takes them."""
        if not (columns := self._columns()):
            return X
        return pd.DataFrame(X).astype(dict.fromkeys(columns, np.int64))

    def _columns(self: Any) -> list[int]:
        return list(self.get_param("cat_features") or ())


class CodedCatBoostClassifier(_Coded, CatBoostClassifier):  # type: ignore[misc]
    """Answers one class a row; CatBoost itself answers a column of them where there are more than two."""

    def predict(self, X: Any, **options: Any) -> Any:
        return super().predict(X, **options).ravel()

    def predict_proba(self, X: Any, **options: Any) -> Any:
        return super().predict_proba(self.coded(X), **options)


class CodedCatBoostRegressor(_Coded, CatBoostRegressor):  # type: ignore[misc]
    """A regressor."""
