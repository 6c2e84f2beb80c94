"""The step in which a model's own transformer makes columns of numbers from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import get_tags

from training.base.errors import ConfigError
from training.custom import functions
from training.train.algorithms.factories import seeded


class OwnFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Gives a transformer the numbers as a table with the features' names, and takes an array of float64 back.

    Attributes:
        transformer_: the fitted one.
    """

    def __init__(self, transformer: Any, names: Sequence[str]) -> None:
        self.transformer = transformer
        self.names = names

    @property
    def takes_missing(self) -> bool:
        """Whether the transformer decides about missing numbers."""
        return bool(get_tags(self.transformer).input_tags.allow_nan)

    def fit(self, X: Any, y: Any = None) -> OwnFeatures:
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None, **_: Any) -> NDArray[np.float64]:
        self.transformer_, table = clone(self.transformer), self._table(X)
        if hasattr(self.transformer_, "fit_transform"):
            return self._checked(self.transformer_.fit_transform(table, y), table)
        return self._checked(self.transformer_.fit(table, y).transform(table), table)

    def transform(self, X: Any) -> NDArray[np.float64]:
        table = self._table(X)
        return self._checked(self.transformer_.transform(table), table)

    def _table(self, X: Any) -> pd.DataFrame:
        return pd.DataFrame(np.asarray(X, dtype=np.float64), columns=list(self.names))

    def _checked(self, found: Any, table: pd.DataFrame) -> NDArray[np.float64]:
        name = type(self.transformer).__name__
        values = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(table):
            raise ValueError(
                f"{name} must return a row of numbers for each of {len(table):,} rows, and the shape of what it returns is "
                f"{values.shape}"
            )
        # A gap may follow from a gap.
        wrong = ~np.isfinite(values).all(axis=1) & table.notna().all(axis=1).to_numpy()
        if wrong.any():
            row = table.iloc[int(wrong.argmax())]
            given = ", ".join(f"{key} {value:g}" for key, value in row.items())
            raise ValueError(
                f"{name} returns a number that is not finite, as for {given}, which the schema allows"
            )
        return values


def features_of(where: str, function: str | None, names: Sequence[str]) -> OwnFeatures | None:
    """The step with the transformer that a function returns; None without a function.

    Raises:
        ConfigError: the function returns no transformer, or there are no numbers.
    """
    if function is None:
        return None
    if not names:
        raise ConfigError(f"{where}: {function} gets the numbers among the features, and there are none")
    return OwnFeatures(seeded(functions.transformer(where, function)), tuple(names))
