"""The bundle's features as pydantic models: which requests are valid, and why the others are not.

Each feature has one annotation, from which every shape of request (one instance, many, columns, tensors) is built. Valid
input is converted from bytes to arrays directly; only refused input is parsed again to explain the refusal.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Annotated, Any, Literal, NotRequired, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, from_json
from typing_extensions import TypedDict

from app.cells import as_written
from app.contract import MISSING_CATEGORY, DatetimeFeature, Feature, Layout, Manifest
from app.errors import MAX_DETAILS, Detail, Reason, RequestError, invalid
from app.limits import RowLimits
from app.moments import EXAMPLE, clock, maker

Shape = Literal["instance", "instances", "columns"]

# A feature may also be called "instances", but no feature's value is a list or an object.
EXPLAIN = "explain"
"""The key of a request whose predictions are to be explained."""

ENTITY = "entity"
"""The key of an instance whose other features are those of an entity in the feature store."""

_SEVERAL = re.compile(rb'\s*\{\s*"(?:(instances)"\s*:\s*\[|(columns)"\s*:\s*\{)')

_NO_MOMENT = f"must be a date and time in ISO 8601, such as {EXAMPLE}"

_NO_ENTITY = "is unknown: an instance may have it if the service has a feature store, and nothing else may"

_FAULTS: dict[str, tuple[Reason, str]] = {
    "missing": ("missing_field", "is required"),
    "entity": ("unknown_field", _NO_ENTITY),
    "extra_forbidden": ("unknown_field", "is unknown: no feature or field has this name"),
    "float_type": ("wrong_type", "must be a number"),
    "finite_number": ("not_finite", "must be finite, neither NaN nor infinite"),
    "greater_than_equal": ("out_of_range", "must be at least {ge:.15g}{unit}"),
    "less_than_equal": ("out_of_range", "must be at most {le:.15g}{unit}"),
    "literal_error": ("unknown_category", "must be {expected}"),
    "string_type": ("wrong_type", _NO_MOMENT),
    "moment": ("wrong_type", _NO_MOMENT),
    "list_type": ("wrong_shape", "must be an array"),
    "dict_type": ("wrong_shape", "must be an object"),
    "too_short": ("wrong_shape", "must not be empty"),
}
"""For each type of pydantic's errors, how it is counted and what the client reads."""

Row = tuple[Sequence[float], Sequence[str], Sequence[datetime | None]]
"""One row: its numbers, NaN if missing; its categories, "" if missing; and the moments of which some numbers were made."""


@dataclass(frozen=True)
class Rows:
    """The input of the model."""

    numbers: NDArray[np.float64]
    """Of shape (rows, columns): one of each number, and one of each part of a datetime."""
    categories: NDArray[np.object_] | None
    """Of shape (rows, categorical features), None if there are none."""
    moments: NDArray[np.object_] | None = None
    """Of shape (rows, datetime features), None if there are none; not an input of the model."""

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(cls, row: Row) -> Rows:
        numbers, categories, moments = row
        return cls(
            np.array([numbers], dtype=np.float64),
            np.array([categories], dtype=object) if categories else None,
            np.array([moments], dtype=object) if moments else None,
        )


@dataclass(frozen=True)
class ToExplain:
    """Rows whose predictions the client wants explained."""

    rows: Row | Rows


class Schema:
    """Converts requests to rows.

    Attributes:
        ignore_unknown: whether fields that are not features are ignored.
    """

    def __init__(self, manifest: Manifest, limits: RowLimits, *, ignore_unknown: bool = False) -> None:
        self.features: dict[str, Feature] = {f.name: f for f in manifest.features}
        reject = manifest.out_of_range == "reject"
        self._limits = limits
        self.ignore_unknown = ignore_unknown
        self._words = {
            f.name: manifest.cells.words(frozenset(f.categories if f.type == "category" else ()))
            for f in manifest.features
        }
        self._missing_numbers = manifest.cells.missing_numbers
        self._values = {
            name: _annotation(feature, reject, self._words[name]) for name, feature in self.features.items()
        }
        # FailFast limits the work that a large invalid body can cause; `_reparse` checks more rows.
        self._lists = {name: Annotated[list_of(each), FailFast()] for name, each in self._values.items()}
        # Here every key is optional, because pydantic copies a whole object into the error about each missing key.
        # Missing keys are found when the values are read.
        instance = self._fields("Instance", optional(self._values | self._containers()))
        columns = self._fields("ColumnsByFeature", optional(self._lists))
        self._read_instances = TypeAdapter(
            _many(instance, limits.instances, explained=True)
        ).validator.validate_json
        self._read_columns = TypeAdapter(_columns(columns, explained=True)).validator.validate_json
        # The adapter's own method checks its dozen options on every call.
        self._read_instance = TypeAdapter(instance).validator.validate_json

        self._needed = {name for name, feature in self.features.items() if not feature.missing}

        layout = Layout.of(manifest.features)
        self._width, self._categories = len(layout.numbers), layout.categories
        self._columns = [(f, layout.places(f)) for f in manifest.features if f.type != "category"]
        self._moments = [f.name for f in manifest.features if f.type == "datetime"]
        self._makers = {f.name: maker(f.parts) for f in manifest.features if f.type == "datetime"}
        words = manifest.cells.missing_numbers
        self._get_numbers: Callable[[dict[str, Any]], Sequence[float]]
        if self._moments:
            self._get_numbers = _numbers_getter([f for f, _ in self._columns], self._makers, words)
        else:
            self._get_numbers = _getter(layout.numbers, self.features, math.nan, words)
        self._get_categories = _getter(layout.categories, self.features, MISSING_CATEGORY)
        self._get_moments = _getter(self._moments, self.features, None)
        self._ranges = {
            f.name: (f.minimum, f.maximum) if reject and f.bounded else (-np.inf, np.inf)
            for f in manifest.features
            if f.type == "number"
        }

    @cached_property
    def instance(self) -> TypeAdapter[dict[str, Any]]:
        """An object with one key per feature."""
        return TypeAdapter(self._checked_instance())

    @cached_property
    def instances(self) -> TypeAdapter[dict[str, Any]]:
        """`{"instances": [...]}`."""
        return TypeAdapter(_many(self._checked_instance()))

    def _checked_instance(self) -> Any:
        return self._fields("Instance", self._required(self._values) | optional(self._refused_entity()))

    @cached_property
    def columns(self) -> TypeAdapter[dict[str, Any]]:
        """`{"columns": {feature: [...]}}`."""
        columns = self._fields("ColumnsByFeature", self._required(self._lists))
        return TypeAdapter(_columns(columns))

    def shapes(self, *, explained: bool, entity: Any = None) -> list[Any]:
        """The types of the shapes of a request, for the documentation.

        Args:
            explained: whether the model's predictions can be explained.
            entity: the type of an entity, if there is a feature store.
        """
        values = self._required(self._values)
        instance = each = self._fields("Instance", values)
        columns = self._fields("ColumnsByFeature", self._required(self._lists))
        one = [self._fields("InstanceToExplain", _EXPLAIN | values) if explained else instance]
        if entity is not None:
            completed = {ENTITY: entity} | optional(self._values)
            of_entity = self._fields("InstanceOfEntity", completed)
            each = Union[instance, of_entity]  # noqa: UP007  these types have no operator
            one.append(
                self._fields("InstanceOfEntityToExplain", _EXPLAIN | completed) if explained else of_entity
            )
        return [*one, _many(each, explained=explained), _columns(columns, explained=explained)]

    @cached_property
    def _tensors(self) -> TypeAdapter[dict[str, Any]]:
        return TypeAdapter(self._fields("ColumnsByFeature", self._required(self._lists)))

    def _fields(self, name: str, fields: Mapping[str, Any]) -> Any:
        """An object with these fields; others are ignored or forbidden."""
        extra: Literal["ignore", "forbid"] = "ignore" if self.ignore_unknown else "forbid"
        return object_of(name, fields, ConfigDict(extra=extra, strict=True))

    def _containers(self) -> dict[str, Any]:
        """The keys of other shapes, which an instance may not have, even if unknown fields are ignored."""
        names = ("instances", "columns", EXPLAIN) if self.ignore_unknown else ()
        refused = {
            name: Annotated[Any, AfterValidator(_refuse)] for name in names if name not in self.features
        }
        return refused | self._refused_entity()

    def _refused_entity(self) -> dict[str, Any]:
        """The key for an entity, which is not ignored either: the features that it stands for would be taken for missing."""
        if not self.ignore_unknown or ENTITY in self.features:
            return {}
        return {ENTITY: Annotated[Any, AfterValidator(_refuse_entity)]}

    def _required(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields that are required unless their features may be missing."""
        return {
            name: NotRequired[each] if self.features[name].missing else each for name, each in fields.items()
        }

    def parse(self, body: bytes) -> tuple[Shape, Row | Rows | ToExplain]:
        """Parse the body of `/predict`: a row for an instance, else rows.

        An instance with the key `explain` is not what `_read_instance` takes, so that the others pay nothing for the key.

        Raises:
            RequestError: 422 that names each invalid field; 413 for too many rows.
        """
        try:
            several = _SEVERAL.match(body)
            if several is None:
                return "instance", self._row(self._read_instance(body))
            read = (self._read_instances if several[1] else self._read_columns)(body)
            explain = read.get(EXPLAIN, False)
            if several[1]:
                return "instances", _to_explain(explain, self._from_instances(read["instances"]))
            columns = read["columns"]
            if self._needed <= columns.keys():
                return "columns", _to_explain(
                    explain, self._from_columns(columns, "columns.", self._limits.columns)
                )
        except (ValidationError, KeyError):
            pass  # Releases the error's memory before the body is parsed again.
        return self._reparse(body)

    def from_tensors(self, tensors: dict[str, list[Any] | NDArray[Any]], most: int) -> Rows:
        """At most so many rows, from one list or array per feature; NaN in an array is a missing number.

        Raises:
            RequestError: 422 that names the tensor and the row; 413 for too many rows.
        """
        checked: dict[str, Any] = {}
        rest: dict[str, list[Any]] = {}
        for name, values in tensors.items():
            if isinstance(values, np.ndarray) and self._surely_valid(name, values):
                checked[name] = values
            else:
                rest[name] = self._as_json(name, values)
        if rest or len(checked) < len(self.features):
            # Checked columns are replaced by empty lists, so that only the others are checked again.
            columns: dict[str, list[Any]] = rest | {name: [] for name in checked}
            try:
                checked = self._tensors.validate_python(columns) | checked
            except ValidationError:
                try:
                    checked = self._tensors.validate_python(self._lists_as_cells(columns)) | checked
                except ValidationError as error:
                    raise invalid(list(self._details(error))) from None
        return self._from_columns(checked, "", most)

    def _from_columns(self, columns: Mapping[str, Any], prefix: str, most: int) -> Rows:
        """Rows from valid columns, whose lengths are checked here."""
        lengths = {name: len(values) for name, values in columns.items()}
        count = max(lengths.values(), default=0)
        if count == 0:
            raise invalid([Detail(prefix.rstrip("."), "at least one row is needed", "wrong_shape")])
        uneven = [name for name, length in lengths.items() if length != count]
        if uneven:
            longest = next(name for name, length in lengths.items() if length == count)
            text = "has {} values, but {} has {}"
            raise invalid(
                [
                    Detail(prefix + name, text.format(lengths[name], longest, count), "wrong_shape", name)
                    for name in uneven
                ]
            )
        self._limits.check(count, most)
        numbers = np.full((count, self._width), np.nan)
        for feature, places in self._columns:
            name = feature.name
            if name not in columns:
                continue
            if feature.type == "datetime":
                make, gap = self._makers[name], (np.nan,) * len(feature.parts)
                numbers[:, places] = [gap if value is None else make(value) for value in columns[name]]
                continue
            column = self._as_array(name, columns[name])
            if self._missing_numbers and feature.missing:
                column = np.where(np.isin(column, self._missing_numbers), np.nan, column)
            numbers[:, places.start] = column
        moments = None
        if self._moments:
            moments = np.full((count, len(self._moments)), None, dtype=object)
            for index, name in enumerate(self._moments):
                if name in columns:
                    moments[:, index] = columns[name]
        if not self._categories:
            return Rows(numbers, None, moments)
        categories = np.full((count, len(self._categories)), MISSING_CATEGORY, dtype=object)
        for index, name in enumerate(self._categories):
            if name in columns:
                categories[:, index] = [value or MISSING_CATEGORY for value in columns[name]]
        return Rows(numbers, categories, moments)

    def _row(self, instance: dict[str, Any]) -> Row:
        return (
            self._get_numbers(instance),
            self._get_categories(instance),
            self._get_moments(instance) if self._moments else (),
        )

    def _from_instances(self, instances: list[dict[str, Any]]) -> Rows:
        count, width = len(instances), self._width
        self._limits.check(count, self._limits.instances)
        values = chain.from_iterable(map(self._get_numbers, instances))
        numbers = np.fromiter(values, np.float64, count * width).reshape(count, width)
        categories = moments = None
        if self._categories:
            categories = np.array([self._get_categories(each) for each in instances], dtype=object)
        if self._moments:
            moments = np.array([self._get_moments(each) for each in instances], dtype=object)
        return Rows(numbers, categories, moments)

    def _as_array(self, name: str, values: list[float | None] | NDArray[Any]) -> NDArray[Any]:
        if isinstance(values, list) and not self.features[name].missing:
            # Takes a third of the time of numpy's conversion of a list.
            return np.frombuffer(struct.pack(f"={len(values)}d", *values))
        return np.asarray(values, dtype=np.float64)

    def _surely_valid(self, name: str, values: NDArray[Any]) -> bool:
        """Whether an array is valid; if not, the adapter decides."""
        limits = self._ranges.get(name)
        if limits is None or values.dtype.kind not in "fiu":
            return False
        if not values.size:
            return True
        low, high = float(values.min()), float(values.max())
        # NaN fails every comparison; infinities need separate ones.
        return limits[0] <= low and high <= limits[1] and low > -np.inf and high < np.inf

    def _as_json(self, name: str, values: list[Any] | NDArray[Any]) -> list[Any]:
        """A tensor's values as in JSON, with null for missing values."""
        plain: list[Any] = values.tolist() if isinstance(values, np.ndarray) else values
        feature = self.features.get(name)
        if feature is None or not feature.missing:
            return plain
        # NaN is the only value that differs from itself.
        return [None if value != value or value == MISSING_CATEGORY else value for value in plain]  # noqa: PLR0124

    def _as_cells(self, values: Any) -> Any:
        """An instance for the adapter, from one whose values may be written as in the training data."""
        if not isinstance(values, dict):
            return values
        return {name: self._as_cell(name, value) for name, value in values.items()}

    def _lists_as_cells(self, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {
            name: [self._as_cell(name, each) for each in values] if isinstance(values, list) else values
            for name, values in columns.items()
        }

    def _as_cell(self, name: str, value: Any) -> Any:
        """A value as training reads it: text is stripped, a word for missing is null, true is "true"."""
        feature = self.features.get(name)
        if feature is None or not isinstance(value, str | bool | int | float):
            return value
        if feature.type == "number" and not isinstance(value, str):
            gap = feature.missing and not isinstance(value, bool) and value in self._missing_numbers
            return None if gap else value
        text = as_written(value)
        return None if feature.missing and text in self._words[name] else text

    def _reparse(self, body: bytes) -> tuple[Shape, Row | Rows | ToExplain]:
        """Parse a refused body completely, and accept it or explain the refusal.

        `parse` recognises a shape by its first bytes. Equivalent JSON, with an escaped key or another order of keys, must
        have the same answer.
        """
        try:
            document = from_json(body)
        except ValueError as fault:
            message = "the body is empty" if not body.strip() else f"the body is not JSON: {fault}"
            raise RequestError(422, "invalid_json", message, reason="invalid_json") from None
        if not isinstance(document, dict):
            raise invalid([Detail("", "the body must be a JSON object", "wrong_shape")])
        explain = self._take_explain(document)
        try:
            if self._means("instances", list, document):
                rows = self._from_instances(self._explained_instances(document))
                return "instances", _to_explain(explain, rows)
            if self._means("columns", dict, document):
                document["columns"] = self._lists_as_cells(_trimmed(document["columns"], self.features))
                columns = self.columns.validate_python(_trimmed(document, ("columns",)))["columns"]
                rows = self._from_columns(columns, "columns.", self._limits.columns)
                return "columns", _to_explain(explain, rows)
            instance = self._as_cells(_trimmed(document, self.features))
            return "instance", _to_explain(explain, self._row(self.instance.validate_python(instance)))
        except ValidationError as fault:
            raise invalid(list(self._details(fault))) from None

    def _take_explain(self, document: dict[str, Any]) -> bool:
        """Take the key `explain` out of a document. In an instance, it may be a feature of this name instead."""
        several = self._means("instances", list, document) or self._means("columns", dict, document)
        if EXPLAIN not in document or (EXPLAIN in self.features and not several):
            return False
        wanted = document.pop(EXPLAIN)
        if not isinstance(wanted, bool):
            raise invalid([Detail(EXPLAIN, "must be true or false", "wrong_type")])
        return wanted

    def _means(self, key: str, container: type, document: dict[str, Any]) -> bool:
        """Whether a document has the shape `{key: ...}`; a feature may have the same name."""
        return key in document and (key not in self.features or isinstance(document[key], container))

    def _explained_instances(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """The instances if all are valid, otherwise an error about several of them."""
        if isinstance(document["instances"], list):
            self._limits.check(len(document["instances"]), self._limits.instances)
            details: list[Detail] = []
            document["instances"] = [
                self._as_cells(_trimmed(each, self.features)) for each in document["instances"]
            ]
            for index, instance in enumerate(document["instances"]):
                try:
                    self.instance.validate_python(instance)
                except ValidationError as fault:
                    details += self._details(fault, ("instances", index))
                if len(details) >= MAX_DETAILS:
                    break
            if details:
                raise invalid(details)
        valid: list[dict[str, Any]] = self.instances.validate_python(_trimmed(document, ("instances",)))[
            "instances"
        ]
        return valid

    def _details(self, error: ValidationError, prefix: tuple[str | int, ...] = ()) -> Iterator[Detail]:
        # An entity where none can be explains why features are missing, so it comes first.
        for each in sorted(error.errors(include_url=False), key=lambda one: one["loc"][-1:] != (ENTITY,)):
            if each["type"] == "float_type" and type(each["input"]) is int:
                # An integer that is no float is too large for one.
                each["type"] = "finite_number"
            place = (*prefix, *each["loc"])
            feature = next((self.features[p] for p in reversed(place) if p in self.features), None)
            if each["type"] == "extra_forbidden" and place[-1] == ENTITY:
                each["type"] = "entity"
            kind, reason = _FAULTS.get(each["type"], ("wrong_type", each["msg"].removeprefix("Input ")))
            if each["type"] in _FAULTS:
                reason = reason.format(unit=_unit(feature), **each.get("ctx", {}))
            # An unknown key is not a fault of a feature, even within a feature that is called `instances`.
            name = feature.name if feature is not None and kind != "unknown_field" else None
            yield Detail(".".join(map(str, place)), reason, kind, name)


def _reader(feature: DatetimeFeature) -> Callable[[str], datetime]:
    read = clock(feature.timezone).read

    def checked(text: str) -> datetime:
        try:
            return read(text)
        except ValueError:
            raise PydanticCustomError("moment", "no moment") from None

    return checked


def _refuse(_: object) -> None:
    raise ValueError("belongs to another shape")


def _refuse_entity(_: object) -> None:
    raise PydanticCustomError("entity", "no entity")


def _annotation(feature: Feature, reject: bool, words: Set[str]) -> Any:
    """The type of one value, with its documentation."""
    about = _describe(feature)
    value: Any
    if feature.type == "category":
        value = Annotated[Literal[feature.categories], Field(description=about)]
    elif feature.type == "datetime":
        form: Any = {"format": "date-time", "x-timezone": feature.timezone}
        value = Annotated[
            str, AfterValidator(_reader(feature)), Field(description=about, json_schema_extra=form)
        ]
    else:
        limited = reject and feature.bounded
        value = Annotated[
            float,
            Field(
                strict=True,
                allow_inf_nan=False,
                description=about,
                json_schema_extra={"x-unit": feature.unit} if feature.unit else None,
                ge=feature.minimum if limited else None,
                le=feature.maximum if limited else None,
            ),
        ]
    if not feature.missing:
        return value
    texts = "|".join(map(re.escape, sorted(words)))
    absent = {"type": "string", "pattern": rf"^\s*({texts})\s*$"}

    def add_words(schema: dict[str, Any]) -> None:
        schema["anyOf"] = [*schema["anyOf"], absent]

    return Annotated[value | None, Field(description=about, json_schema_extra=add_words)]


def _describe(feature: Feature) -> str:
    """One sentence about a feature: meaning, unit and range."""
    text = feature.description or feature.name
    if feature.type == "number":
        low, high, typical = feature.minimum, feature.maximum, feature.typical
        text += f": {low:.15g} to {high:.15g}{_unit(feature)}, typically {typical:.15g}"
    if feature.type == "datetime":
        text += f": in ISO 8601, {feature.timezone} if without an offset; {feature.span} in training"
    return text + (". May be left out or null." if feature.missing else ".")


def _unit(feature: Feature | None) -> str:
    return f" {feature.unit}" if feature is not None and feature.unit else ""


def list_of(item: Any) -> Any:
    return list[item]


def object_of(name: str, fields: Mapping[str, Any], config: ConfigDict | None = None) -> Any:
    """A TypedDict whose keys may be any strings, unlike those of a class."""
    make: Any = TypedDict
    made = make(name, dict(fields))
    if config is not None:
        made.__pydantic_config__ = config
    return made


def optional(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: NotRequired[each] for name, each in fields.items()}


def _many(instance: Any, most: int | None = None, *, explained: bool = False) -> Any:
    length = Field(min_length=1, max_length=most)
    fields = {"instances": Annotated[list_of(instance), length, FailFast()]}
    return _closed("Instances", fields | (_EXPLAIN if explained else {}))


def _columns(columns: Any, *, explained: bool = False) -> Any:
    return _closed("Columns", {"columns": columns} | (_EXPLAIN if explained else {}))


_EXPLAIN: dict[str, Any] = {
    EXPLAIN: NotRequired[
        Annotated[bool, Field(description="Whether to say what each feature contributes to the predictions.")]
    ]
}


def _to_explain(explain: bool, rows: Row | Rows) -> Row | Rows | ToExplain:
    return ToExplain(rows) if explain else rows


def _closed(name: str, fields: Mapping[str, Any]) -> Any:
    """An object that has no other keys."""
    return object_of(name, fields, ConfigDict(extra="forbid", strict=True))


def _getter(
    names: Sequence[str],
    features: Mapping[str, Feature],
    gap: float | str | None,
    words: Sequence[float] = (),
) -> Callable[[dict[str, Any]], Sequence[Any]]:
    """A function from an instance to its values in order, with `gap` for missing values and missing-value words.

    It raises KeyError if a required feature has no value.
    """
    if not names:
        return lambda _: ()
    if len(names) > 1 and not any(features[name].missing for name in names):
        return itemgetter(*names)

    gaps = {name: gap for name in names if features[name].missing}
    absent = {name: frozenset((None, *words) if name in gaps else (None,)) for name in names}

    def get(instance: dict[str, Any]) -> list[Any]:
        return [gaps[name] if (value := instance.get(name)) in absent[name] else value for name in names]

    return get


def _numbers_getter(
    features: Sequence[Feature],
    makers: Mapping[str, Callable[[datetime], tuple[float, ...]]],
    words: Sequence[float],
) -> Callable[[dict[str, Any]], list[float]]:
    """As `_getter` for numbers and datetimes, which become the numbers that are made of them."""
    by_name = {each.name: each for each in features}
    get_values = _getter([*by_name], by_name, None, words)
    made = [
        (makers.get(name), (math.nan,) * (len(feature.parts) if feature.type == "datetime" else 1))
        for name, feature in by_name.items()
    ]

    def get(instance: dict[str, Any]) -> list[float]:
        numbers: list[float] = []
        for value, (make, gap) in zip(get_values(instance), made, strict=True):
            if value is None:
                numbers += gap
            elif make is None:
                numbers.append(value)
            else:
                numbers += make(value)
        return numbers

    return get


def _trimmed(document: Any, known: Sequence[str] | Mapping[str, Any]) -> Any:
    """The document with a limited number of unknown keys, to limit the number of errors."""
    if not isinstance(document, dict) or len(document) <= len(known) + MAX_DETAILS:
        return document
    unknown = [key for key in document if key not in known][:MAX_DETAILS]
    return {key: document[key] for key in (*(k for k in known if k in document), *unknown)}
