"""Says of each row to which slices it belongs, by the values of the columns under evaluate.slices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from app.cells import Cells
from app.contract import MISSING_BIN
from app.moments import DAY_SECONDS, EPOCH, written
from training.base.errors import ConfigError
from training.data.columns import as_moments, as_numbers, as_text, moment_parts
from training.data.dataset import SLICE
from training.data.table import Table
from training.prepare.describe import bin_edges, bin_labels, bin_of, resolution

INTERVALS = 4
"""Of a number or date with many values."""
MOST_VALUES = 20


def with_slices(frame: Any, raw: Table, names: Iterable[str], cells: Cells) -> Any:
    """The rows with a column of labels for each named column of the raw data.

    Args:
        frame: checked rows; the index counts the rows of the raw data from 1.
        raw: the data as fetched.
        names: of the columns.
        cells: how their cells are written.

    Raises:
        ConfigError: there is no such column, or it has too many different texts.
    """
    found = {}
    for name in names:
        if name not in raw.columns:
            raise ConfigError(
                f"evaluate.slices: there is no column {name!r}; the data has {', '.join(map(str, raw.columns))}"
            )
        column = raw[name].iloc[frame.index - 1].set_axis(frame.index)
        found[SLICE + name] = _labels(name, column, cells)
    return frame.assign(**found) if found else frame


def _labels(name: str, column: pd.Series[Any], cells: Cells) -> pd.Series[Any]:
    numbers, wrong = as_numbers(column, cells)
    if not wrong.any() and numbers.nunique() > MOST_VALUES:
        values = np.sort(numbers.dropna().to_numpy())
        edges = bin_edges(values, resolution(values), INTERVALS)
        labels = np.array([*bin_labels(edges), MISSING_BIN], dtype=object)
        place = np.where(numbers.isna(), len(labels) - 1, bin_of(numbers.to_numpy(), edges))
        return pd.Series(labels[place], column.index)
    found, wrong = as_moments(column, cells)
    if not wrong.any() and found.notna().any():
        return _of_dates(found)
    texts, _ = as_text(column, cells)
    if texts.nunique() > MOST_VALUES:
        raise ConfigError(
            f"evaluate.slices: {name!r} has {texts.nunique():,} different values, and slices are at most {MOST_VALUES}: "
            "group them in the source"
        )
    return texts.fillna(MISSING_BIN)


def _of_dates(moments: pd.Series[Any]) -> pd.Series[Any]:
    days = moment_parts(moments, ("elapsed",), "UTC")[:, 0] / DAY_SECONDS
    values = np.sort(days[~np.isnan(days)])
    distinct = np.unique(values)
    if len(distinct) > MOST_VALUES:
        edges = bin_edges(values, 1.0, INTERVALS)
        labels = [*bin_labels(edges, _date), MISSING_BIN]
        place = np.where(np.isnan(days), len(labels) - 1, bin_of(days, edges))
    else:
        labels = [*map(_date, distinct), MISSING_BIN]
        place = np.searchsorted(distinct, days)  # NaN is last
    return pd.Series(np.array(labels, dtype=object)[place], moments.index)


def _date(days: float) -> str:
    return written(EPOCH + timedelta(days=days)).removesuffix("T00:00:00Z")
