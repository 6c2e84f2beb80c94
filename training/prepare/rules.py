"""The rules of each declared column, as pandera checks them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from training.sections.schema import DatetimeSettings, FeatureSettings, NumberSettings, SchemaSettings

if TYPE_CHECKING:
    import pandera.pandas as pa

LARGEST = 1e30
"""Trees compare 32-bit floats, whose largest value is 3e38."""


def column(name: str, schema: SchemaSettings) -> pa.DataFrameSchema:
    """The rules of a feature or of the target. That values may be missing is judged over all rows, and not here."""
    import pandera.pandas as pa

    checks = _target_checks(schema) if name == schema.target else _feature_checks(schema.features[name])
    return pa.DataFrameSchema({name: pa.Column(checks=checks, nullable=True)})


def _feature_checks(feature: FeatureSettings) -> list[pa.Check]:
    if isinstance(feature, NumberSettings):
        return _number_checks(feature)
    if isinstance(feature, DatetimeSettings):
        return [_rule("moment", _is_moment)]
    checks = [_rule("text", _is_text)]
    return checks if feature.categories is None else [*checks, _one_of("categories", feature.categories)]


def _number_checks(declared: NumberSettings) -> list[pa.Check]:
    checks = [_rule("number", _is_number), _rule("finite", lambda column: ~_huge(column))]
    if declared.range is not None:
        low, high = declared.range
        # Huge numbers and other cells have rules of their own.
        checks.append(
            _rule(
                "range",
                lambda column: _numbers(column).between(low, high) | ~_is_number(column) | _huge(column),
            )
        )
    return checks


def _target_checks(schema: SchemaSettings) -> list[pa.Check]:
    if schema.value is not None:
        return _number_checks(schema.value)
    checks = [_rule("text", _is_text)]
    return checks if schema.classes is None else [*checks, _one_of("classes", schema.classes)]


def _one_of(rule: str, values: tuple[str, ...]) -> pa.Check:
    return _rule(rule, lambda column: column.isin(values) | ~_is_text(column))


def _rule(name: str, holds: Callable[[pd.Series[Any]], pd.Series[bool]]) -> pa.Check:
    import pandera.pandas as pa

    return pa.Check(holds, error=name, ignore_na=True)


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    if column.dtype == np.float64:
        return column
    return pd.to_numeric(column.where(_is_number(column)), errors="coerce")


def _is_number(column: pd.Series[Any]) -> pd.Series[bool]:
    if column.dtype != object:
        return pd.Series(True, column.index)
    return column.map(lambda value: type(value) is float)


def _huge(column: pd.Series[Any]) -> pd.Series[bool]:
    return _numbers(column).abs() > LARGEST


def _is_text(column: pd.Series[Any]) -> pd.Series[bool]:
    if isinstance(column.dtype, pd.StringDtype):
        return column.notna()
    return column.map(lambda value: isinstance(value, str)).astype(bool)


def _is_moment(column: pd.Series[Any]) -> pd.Series[bool]:
    if column.dtype != object:
        return pd.Series(True, column.index)
    return column.map(lambda value: isinstance(value, pd.Timestamp) and value.tzinfo == UTC).astype(bool)
