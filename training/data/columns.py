"""Reads a column of any type as numbers or as text, and marks the cells that are neither.

A CSV cell is text, a database returns decimals, and Parquet has nullable integers and 32-bit floats. The schema
declares what a column means, whatever its type in the source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence, Set
from datetime import date, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from app.cells import PLAIN, Cells, as_written
from app.moments import EPOCH, Part, clock, maker

_MICROSECOND = timedelta(microseconds=1)


T = TypeVar("T")


class UnreadableError(ValueError):
    """A cell is not of the requested kind."""


def as_numbers(column: pd.Series[Any], cells: Cells = PLAIN) -> tuple[pd.Series[float], pd.Series[bool]]:
    """The column as float64 with NaN where missing, and a mask of the cells that are not numbers.

    A 32-bit float is read as its shortest decimal: 0.1 stays 0.1 instead of becoming 0.10000000149. True, a date or the text "1,5" is not a number.

    Args:
        column: of any type.
        cells: how its cells are written.
    """
    column = _plain(column)
    if types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype):
        if types.is_complex_dtype(column.dtype):
            return _unreadable(column, np.nan)
        values = pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index)
        return values.mask(values.isin(cells.missing_numbers)), column.isna() & False
    missing = cells.words()
    if isinstance(column.dtype, pd.StringDtype):
        values, rest = _plain_numbers(column, cells, missing)
        wrong = pd.Series(False, column.index)
        if rest.any():
            converted, wrong[rest] = _convert(column[rest], lambda value: _number(value, cells, missing))
            values[rest] = converted.astype(np.float64)
        return values, wrong
    converted, wrong = _convert(column, lambda value: _number(value, cells, missing))
    return converted.astype(np.float64), wrong


def _plain_numbers(
    column: pd.Series[Any], cells: Cells, missing: Set[str]
) -> tuple[pd.Series[float], NDArray[np.bool_]]:
    """The numbers of texts that are written in the usual way, and a mask of other texts, which are to be read one by one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    mark = re.escape(cells.decimal)
    # With fewer digits than a float can overflow by.
    plain = rf"^[+-]?(\d{{1,30}}({mark}\d{{0,30}})?|{mark}\d{{1,30}})([eE][+-]?\d{{1,2}})?$"
    texts = pc.utf8_trim_whitespace(pa.array(column, pa.large_string(), from_pandas=True))
    empty = pc.or_(pc.is_null(texts), pc.is_in(texts, pa.array(sorted(missing), pa.large_string())))
    read = pc.and_(pc.invert(empty), pc.fill_null(pc.match_substring_regex(texts, plain), False))
    written = pc.replace_substring(pc.utf8_ltrim(texts, "+"), cells.decimal, ".")
    values = pc.cast(pc.if_else(read, written, None), pa.float64()).to_numpy(zero_copy_only=False)
    rest = pc.invert(pc.or_(empty, read)).to_numpy(zero_copy_only=False)
    return pd.Series(values, column.index), rest


def as_text(
    column: pd.Series[Any], cells: Cells = PLAIN, keep: Set[str] = frozenset()
) -> tuple[pd.Series[Any], pd.Series[bool]]:
    """The column as stripped strings with None where missing, and a mask of the cells that are not text.

    Whole numbers are written without decimals (an integer column with gaps arrives as floats), booleans as
    true and false. Dates, bytes and nested values are not text.

    Args:
        column: of any type.
        cells: how its cells are written.
        keep: words that are values here although they mean missing elsewhere, such as declared categories.
    """
    missing = cells.words(keep)

    def text(value: Any) -> str | None:
        found = _text(value)
        return None if found in missing else found

    return _convert(_plain(column), text)


def as_times(column: pd.Series[Any], cells: Cells = PLAIN) -> tuple[pd.Series[Any], pd.Series[bool]]:
    """The column as moments in UTC, or as numbers such as years, NaT or NaN where missing; and a mask of other cells.

    A text is a number or a date in the form of ISO 8601; without a time zone it is UTC.

    Args:
        column: of any type.
        cells: how its cells are written.
    """
    if not types.is_datetime64_any_dtype(column.dtype):
        numbers, wrong = as_numbers(column, cells)
        if not wrong.any():
            return numbers, wrong
    return as_moments(column, cells)


def as_moments(
    column: pd.Series[Any], cells: Cells = PLAIN, timezone: str = "UTC"
) -> tuple[pd.Series[Any], pd.Series[bool]]:
    """The column as moments in UTC, NaT where missing, and a mask of the cells that are none.

    A text is read as the service reads it; dates and moments without a time zone are in the given one.

    Args:
        column: of any type.
        cells: how its cells are written.
        timezone: an IANA name.
    """
    if types.is_datetime64_any_dtype(column.dtype) and (column.dt.tz is not None or timezone == "UTC"):
        aware = column.dt.tz_localize("UTC") if column.dt.tz is None else column.dt.tz_convert("UTC")
        return aware.dt.floor("us").dt.as_unit("us"), column.isna() & False
    missing = cells.words()
    local = clock(timezone)

    def microseconds(value: Any) -> int | None:
        if isinstance(value, str) and value.strip() in missing:
            return None
        if not isinstance(value, str | date):
            raise UnreadableError
        if isinstance(value, pd.Timestamp):
            value = value.to_pydatetime(warn=False)
        try:
            moment = local.read(value.strip()) if isinstance(value, str) else local.at(value)
        except ValueError:
            raise UnreadableError from None
        return (moment - EPOCH) // _MICROSECOND

    converted, wrong = _convert(column, microseconds)
    gaps = converted.isna()
    counted = np.where(gaps, 0, converted).astype(np.int64).view("datetime64[us]")
    return pd.Series(counted, column.index).mask(gaps).dt.tz_localize("UTC"), wrong


def moments(column: pd.Series[Any], timezone: str = "UTC") -> list[datetime | None]:
    """A column of moments in a time zone, None where missing."""
    local = clock(timezone)
    distinct, places = _distinct(column, local.at)
    return [distinct[place] for place in places]


def wall_times(column: pd.Series[Any], timezone: str) -> NDArray[np.int64]:
    """What the clocks of a time zone show at the moments of a column without missing ones, in microseconds since 1970.

    `moments` of the same column compare as these numbers do, and take ten times the memory.
    """
    local = column.dt.as_unit("us")
    if timezone != "UTC":
        local = local.dt.tz_convert(clock(timezone).zone)
    times: NDArray[np.int64] = local.dt.tz_localize(None).to_numpy().view(np.int64)
    return times


def moment_parts(column: pd.Series[Any], parts: Sequence[Part], timezone: str) -> NDArray[np.float64]:
    """The numbers that are made of moments, of shape (rows, parts); NaN where missing."""
    local, make = clock(timezone), maker(parts)
    distinct, places = _distinct(column, lambda value: make(local.at(value)))
    gap = (math.nan,) * len(parts)
    return np.array([gap if each is None else each for each in distinct], dtype=np.float64)[places]


def _distinct(
    column: pd.Series[Any], convert: Callable[[datetime], T]
) -> tuple[list[T | None], NDArray[np.int64]]:
    """What the distinct moments become, with None for a missing one last, and the place of each row among them."""
    codes, distinct = pd.factorize(column)
    converted: list[T | None] = [convert(each.to_pydatetime()) for each in distinct]
    return [*converted, None], np.where(codes < 0, len(converted), codes)


def without_unit(texts: pd.Series[Any], unit: str) -> pd.Series[Any]:
    """Texts without the unit before or after their numbers, such as % or $; other texts are unchanged."""
    before = re.compile(rf"([+-]?)\s*{re.escape(unit)}\s*(?=[+-]?[\d.,])")
    behind = re.compile(rf"(?<=[\d.,])\s*{re.escape(unit)}\Z")
    return texts.map(
        lambda each: behind.sub("", before.sub(r"\1", each) if before.match(each) else each),
        na_action="ignore",
    )


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(object)
    narrow = str(column.dtype).lower()
    if narrow in ("float16", "float32"):
        shortest = column.to_numpy(np.dtype(narrow), na_value=np.nan).astype(str)
        return pd.Series(shortest.astype(np.float64), column.index)
    return column


def _unreadable(column: pd.Series[Any], fill: Any) -> tuple[pd.Series[Any], pd.Series[bool]]:
    return pd.Series([fill] * len(column), column.index), column.notna()


def _convert(column: pd.Series[Any], convert: Callable[[Any], Any]) -> tuple[pd.Series[Any], pd.Series[bool]]:
    """Apply `convert` to every cell that is not missing, once for each distinct text."""
    distinct: Any
    if isinstance(column.dtype, pd.StringDtype):
        codes, distinct = pd.factorize(column)
    else:
        distinct = column.astype(object).to_numpy()
        codes = np.arange(len(distinct))
    values = np.empty(len(distinct) + 1, dtype=object)  # the last one is for code -1: missing
    wrong = np.zeros(len(distinct) + 1, dtype=bool)
    for position, value in enumerate(distinct):
        if _is_missing(value):
            continue
        try:
            values[position] = convert(value)
        except UnreadableError:
            wrong[position] = True
    return pd.Series(values[codes], column.index, dtype=object), pd.Series(
        wrong[codes], column.index, dtype=bool
    )


def _is_missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _number(value: Any, cells: Cells, missing: Set[str]) -> float | None:
    if isinstance(value, str):
        stripped = value.strip()
        if stripped in missing:
            return None
        try:
            return cells.number(stripped)
        except ValueError:
            raise UnreadableError from None
    if isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_):
        try:
            number = float(value)
        except OverflowError:
            return math.inf if cast(int, value) > 0 else -math.inf
        return None if missing and as_written(number) in missing else number
    raise UnreadableError


def _text(value: Any) -> str:
    if isinstance(value, str | bool):
        return as_written(value)
    if isinstance(value, np.bool_):
        return as_written(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value.is_finite() else str(value)
    if isinstance(value, Real):
        return as_written(float(str(value)) if isinstance(value, np.floating) else float(value))
    raise UnreadableError
