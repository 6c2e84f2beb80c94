"""The section `schema`: the target, the features, and which rows are refused or left out."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from app.contract import Task, part_columns
from app.moments import PARTS, Part, clock, zones
from training.base.section import Settings, Text

RESERVED_FEATURES = frozenset({"instances", "columns"})
"""Top-level keys of a request to /predict, which a feature of the same name would conflict with."""


class NumberSettings(Settings):
    type: Literal["number"]
    unit: str | None = None
    description: str | None = None
    range: tuple[float, float] | None = None
    step: float | None = Field(default=None, gt=0)
    """Resolution of the values; derived from the data when absent."""
    missing: float = Field(default=0.0, ge=0, le=1)
    """The largest share of missing values that is allowed; above zero the service takes missing values too."""

    @field_validator("range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"the range must ascend, and {list(value)} does not")
        return value


class CategorySettings(Settings):
    type: Literal["category"]
    description: str | None = None
    categories: tuple[Text, ...] | None = None
    """All values; derived from the data when absent."""
    missing: float = Field(default=0.0, ge=0, le=1)

    @field_validator("categories")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(set(value)) != len(value) or "" in value or not value):
            raise ValueError("categories must be distinct and not empty")
        return value


class DatetimeSettings(Settings):
    type: Literal["datetime"]
    description: str | None = None
    parts: tuple[Part, ...] = Field(default=PARTS, min_length=1)
    """The numbers that a model gets."""
    timezone: str = "UTC"
    """In which parts are read, and texts without an offset."""
    missing: float = Field(default=0.0, ge=0, le=1)

    @field_validator("parts")
    @classmethod
    def _distinct(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if len(set(value)) != len(value):
            raise ValueError("parts must be distinct")
        return value

    @field_validator("timezone")
    @classmethod
    def _exists(cls, value: str) -> str:
        try:
            clock(value)
        except ValueError:
            folded = {each.lower(): each for each in zones()}
            guess = difflib.get_close_matches(value.lower(), folded, n=1)
            hint = f"; did you mean {folded[guess[0]]}?" if guess else "; an example is Europe/Berlin"
            raise ValueError(
                f"there is no time zone {value!r} of this name in the IANA database{hint}"
            ) from None
        return value


FeatureSettings = Annotated[NumberSettings | CategorySettings | DatetimeSettings, Field(discriminator="type")]
_OF_CLASSES = ("classes", "min_rows_per_class", "drop_classes")
_OF_VALUES = ("unit", "range", "step", "description")
"""Keys of the section schema that only one task has."""


class SchemaSettings(Settings):
    target: Text
    task: Task = "classification"
    """A regression's target is a number."""
    classes: tuple[Text, ...] | None = None
    """In display order; derived from the data, sorted, when absent."""
    min_rows_per_class: int = Field(default=20, ge=2)
    drop_classes: tuple[Text, ...] = ()
    """Classes whose rows are left out, such as those too rare to learn."""
    unit: str | None = None
    """Of a regression's target, as the next three."""
    description: str | None = None
    range: tuple[float, float] | None = None
    step: float | None = Field(default=None, gt=0)
    weight: Text | None = None
    """Column of the source that says how much a row counts, in training and in scores; it need not be a feature."""
    missing_target: Literal["reject", "drop"] = "reject"
    """What to do with rows without a class or value."""
    duplicates: Literal["drop", "reject", "keep"] = "reject"
    out_of_range: Literal["reject", "accept"] = "reject"
    features: dict[Text, FeatureSettings] = Field(min_length=1)

    @property
    def value(self) -> NumberSettings | None:
        """The target of a regression, declared as a feature is."""
        if self.task == "classification":
            return None
        return NumberSettings(
            type="number", unit=self.unit, description=self.description, range=self.range, step=self.step
        )

    @model_validator(mode="after")
    def _keys_fit_the_task(self) -> Self:
        others = _OF_CLASSES if self.task == "regression" else _OF_VALUES
        if given := [each for each in others if each in self.model_fields_set]:
            other = "classification" if self.task == "regression" else "regression"
            raise ValueError(f"{given[0]} belongs to a {other}, and the task is {self.task}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"the range must ascend, and {list(self.range)} does not")
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.target in self.features:
            raise ValueError(f"the target {self.target!r} is also listed as a feature")
        for name in self.features:
            if not name or name in RESERVED_FEATURES:
                raise ValueError(f"a feature cannot be called {name!r}: rename it under data.rename")
            each = self.features[name]
            for column in part_columns(name, each.parts) if isinstance(each, DatetimeSettings) else ():
                if column in self.features:
                    raise ValueError(
                        f"{column!r} is a feature and a part of {name!r}: rename one of them under data.rename"
                    )
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be distinct")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError("a classifier needs at least two classes")
        both = set(self.classes or ()) & set(self.drop_classes)
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: listed under classes and under drop_classes")
        return self
