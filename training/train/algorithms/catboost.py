"""CatBoost's classifier as scikit-learn expects one."""

from __future__ import annotations

from typing import Any

from catboost import CatBoostClassifier


class FlatCatBoostClassifier(CatBoostClassifier):  # type: ignore[misc]
    """Answers one class a row; CatBoost itself answers a column of them where there are more than two."""

    def predict(self, data: Any, **options: Any) -> Any:
        return super().predict(data, **options).ravel()
