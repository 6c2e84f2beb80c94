"""Makes the input of the model of a table's columns, and finds the rows that the service would refuse.

What is valid and how a refusal reads is the business of `app.schema`. Here the same rules are applied to whole columns, and the
schema is asked for the text of each kind of fault once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.batch.errors import PartError
from app.cells import as_written
from app.contract import (
    MISSING_CATEGORY,
    CategoryFeature,
    DatetimeFeature,
    Feature,
    Layout,
    Manifest,
    NumberFeature,
)
from app.errors import RequestError
from app.moments import clock, maker
from app.schema import Rows, Schema

Kind = Literal["missing", "infinite", "low", "high", "unknown", "unreadable"]
Codes = NDArray[np.int32]

_START = datetime(1970, 1, 1)
"""Without a zone, because moments without one are in that of their feature."""
_MICROSECONDS = {"s": 10**6, "ms": 1000, "us": 1}
_GAP = -1
"""The place of a missing category, before those in the list."""
_UNKNOWN = -2

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], ...]] = {
    "number": _NUMBERS,
    "category": (*_TEXTS, *_NUMBERS, pa.types.is_boolean),
    "datetime": (*_TEXTS, pa.types.is_timestamp, pa.types.is_date),
}


class Faults:
    """The kinds of faults that were found in a part: each has a code, 0 is none, and a text that a person reads."""

    def __init__(self, manifest: Manifest, schema: Schema) -> None:
        self._schema = schema
        self._typical = {each.name: each.typical for each in manifest.features}
        self._codes: dict[tuple[str, Kind] | str, int] = {}
        self.texts: list[str | None] = [None]

    def mark(self, codes: Codes, bad: NDArray[np.bool_], feature: Feature, kind: Kind) -> None:
        """Give the rows of a mask this fault, if they have none."""
        if bad.any():
            codes[bad & (codes == 0)] = self._code((feature.name, kind), lambda: self._explain(feature, kind))

    def code(self, text: str) -> int:
        """The code of a fault that no feature has."""
        return self._code(text, lambda: text)

    def _code(self, key: tuple[str, Kind] | str, text: Callable[[], str]) -> int:
        if key not in self._codes:
            self.texts.append(text())
            self._codes[key] = len(self.texts) - 1
        return self._codes[key]

    def _explain(self, feature: Feature, kind: Kind) -> str:
        """What the service answers to a row with this fault and no other."""
        instance: dict[str, Any] = dict(self._typical)
        if kind == "missing":
            del instance[feature.name]
        else:
            instance[feature.name] = _example(feature, kind)
        try:
            self._schema.parse(json.dumps(instance).encode())
        except RequestError as error:
            reason = next(each.reason for each in error.details if each.feature == feature.name)
            return f"{feature.name}: {reason}"
        raise AssertionError(f"the service accepts {instance[feature.name]!r} as {feature.name}")


class Columns:
    """Reads the features from the record batches of a part."""

    def __init__(self, manifest: Manifest, faults: Faults) -> None:
        self._faults = faults
        self._features = manifest.features
        layout = Layout.of(manifest.features)
        self._width, self._categories = len(layout.numbers), len(layout.categories)
        self._places = {each.name: layout.places(each) for each in manifest.features}
        self._limited = manifest.out_of_range == "reject"
        self._missing_numbers = manifest.cells.missing_numbers
        self._words = {
            each.name: manifest.cells.words(
                frozenset(each.categories if isinstance(each, CategoryFeature) else ())
            )
            if each.missing
            else frozenset[str]()
            for each in manifest.features
        }

    def check(self, schema: Any) -> None:
        """Check the columns of a part.

        Raises:
            PartError: a column is missing or twice there, or has a type that its feature cannot have.
        """
        names = list(schema.names)
        missing = [each.name for each in self._features if each.name not in names and not each.missing]
        if missing:
            raise PartError(f"it has no column {', '.join(missing)}")
        for each in self._features:
            if names.count(each.name) > 1:
                raise PartError(f"it has {names.count(each.name)} columns {each.name}")
            if each.name in names:
                kind = schema.field(each.name).type
                value = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not any(is_it(value) for is_it in (*_ACCEPTED[each.type], pa.types.is_null)):
                    raise PartError(
                        f"the column {each.name} is of type {kind}, but the feature is a {each.type}"
                    )

    def rows(self, batch: Any) -> tuple[Rows, Codes]:
        """The input of the model, and for each row the code of its first fault; a row with one has any values."""
        count = batch.num_rows
        codes = np.zeros(count, dtype=np.int32)
        numbers = np.empty((count, self._width))
        categories = np.empty((count, self._categories), dtype=object) if self._categories else None
        for feature in self._features:
            index = batch.schema.get_field_index(feature.name)
            column = pa.nulls(count) if index < 0 else batch.column(index)
            places = self._places[feature.name]
            if isinstance(feature, CategoryFeature):
                assert categories is not None  # noqa: S101  for mypy
                categories[:, places.start] = self._category(feature, column, codes)
            elif isinstance(feature, DatetimeFeature):
                numbers[:, places] = self._moment(feature, column, codes)
            else:
                numbers[:, places.start] = self._number(feature, column, codes)
        return Rows(numbers, categories), codes

    def _number(self, feature: NumberFeature, column: Any, codes: Codes) -> NDArray[Any]:
        values = _as_floats(column)
        if not len(values):
            return values
        if feature.missing and self._missing_numbers:
            values = np.where(np.isin(values, self._missing_numbers), np.nan, values)
        low, high = (
            (feature.minimum, feature.maximum) if self._limited and feature.bounded else (-np.inf, np.inf)
        )
        least, most = values.min(), values.max()
        # NaN fails every comparison; infinities need separate ones.
        if low <= least and most <= high and least > -np.inf and most < np.inf:
            return values
        if not feature.missing:
            self._faults.mark(codes, np.isnan(values), feature, "missing")
        self._faults.mark(codes, np.isinf(values), feature, "infinite")
        self._faults.mark(codes, values < low, feature, "low")
        self._faults.mark(codes, values > high, feature, "high")
        return values

    def _category(self, feature: CategoryFeature, column: Any, codes: Codes) -> NDArray[np.object_]:
        uniques, places = _encoded(column)
        known = {name: place for place, name in enumerate(feature.categories)}
        meant = np.array([self._place(feature, known, each) for each in uniques], dtype=np.int64)[places]
        if not feature.missing:
            self._faults.mark(codes, meant == _GAP, feature, "missing")
        self._faults.mark(codes, meant == _UNKNOWN, feature, "unknown")
        names = np.array([*feature.categories, MISSING_CATEGORY], dtype=object)
        return names[np.where(meant < 0, len(feature.categories), meant)]

    def _place(self, feature: CategoryFeature, known: dict[str, int], value: Any) -> int:
        if _is_gap(value):
            return _GAP
        if isinstance(value, str) and value in known:
            return known[value]
        text = as_written(value if isinstance(value, str | bool | int) else float(value))
        return _GAP if text in self._words[feature.name] else known.get(text, _UNKNOWN)

    def _moment(self, feature: DatetimeFeature, column: Any, codes: Codes) -> NDArray[np.float64]:
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            uniques, places = _moments(column)
        else:
            uniques, places = _encoded(column)
        make = _maker(feature)
        gap = (math.nan,) * len(feature.parts)
        parts, missing, unreadable = [], [], []
        for value in uniques:
            made = None if value is None else make(value)
            text = value.strip() if made is None and isinstance(value, str) else None
            absent = value is None or text in self._words[feature.name]
            if text is not None and not absent:
                made = make(text)
            parts.append(made or gap)
            missing.append(absent)
            unreadable.append(made is None and not absent)
        if not feature.missing:
            self._faults.mark(codes, np.array(missing, dtype=bool)[places], feature, "missing")
        self._faults.mark(codes, np.array(unreadable, dtype=bool)[places], feature, "unreadable")
        return np.array(parts, dtype=np.float64)[places]


def _maker(feature: DatetimeFeature) -> Callable[[datetime | str], tuple[float, ...] | None]:
    """A function that makes the numbers of a moment or of a text; None if the text is no moment."""
    in_zone, parts = clock(feature.timezone), maker(feature.parts)

    def make(value: datetime | str) -> tuple[float, ...] | None:
        try:
            return parts(in_zone.read(value) if isinstance(value, str) else in_zone.at(value))
        except ValueError:
            return None

    return make


def _example(feature: Feature, kind: Kind) -> object:
    if kind == "infinite":
        return math.inf
    if isinstance(feature, NumberFeature):
        return (
            math.nextafter(feature.minimum, -math.inf)
            if kind == "low"
            else math.nextafter(feature.maximum, math.inf)
        )
    if isinstance(feature, CategoryFeature):
        return "?" * (1 + max(map(len, feature.categories)))
    return "no moment"


def _as_floats(column: Any) -> NDArray[Any]:
    """The numbers of a column, NaN where they are null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(column.type):
        # Through text, which is read to the nearest float64 as JSON is.
        column = column.cast(pa.string()).cast(pa.float64())
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _encoded(column: Any) -> tuple[Sequence[Any], NDArray[np.int64]]:
    """The distinct values of a column, at the end None, and the place of each row's value in them."""
    if pa.types.is_null(column.type):
        return [None], np.zeros(len(column), dtype=np.int64)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    uniques = [*encoded.dictionary.to_pylist(), None]
    indices = encoded.indices.cast(pa.int64())
    return uniques, pc.fill_null(indices, len(uniques) - 1).to_numpy(zero_copy_only=False)


def _moments(column: Any) -> tuple[Sequence[datetime | str | None], NDArray[np.int64]]:
    """As `_encoded`, of times and dates; a text stands for what is no moment in Python."""
    kind = column.type
    if pa.types.is_date(kind):
        counts, micros, zone = column.cast(pa.date32()).cast(pa.int32()), 86_400 * 10**6, None
    else:
        counts, micros, zone = column.cast(pa.int64()), _MICROSECONDS.get(kind.unit, 0), kind.tz
    values, places = _encoded(counts)

    def read(count: int | None) -> datetime | str | None:
        if count is None:
            return None
        try:
            # Digits beyond microseconds are cut off, as those of a text are.
            moment = _START + timedelta(microseconds=count * micros if micros else count // 1000)
        except OverflowError:
            return str(count)
        return moment if zone is None else moment.replace(tzinfo=UTC)

    return [read(each) for each in values], places


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
