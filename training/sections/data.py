"""The section `data`: where the rows come from, and how their cells are written."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from app.cells import Cells
from training.base.section import Settings, Text


class FeastSettings(Settings):
    repository: str = Field(min_length=1)
    """Folder of feature_store.yaml."""
    entities: str = Field(min_length=1)
    """The rows to join features to: a source, with the keys of the entities and `event_timestamp`."""
    full_names: bool = False
    """Whether a feature is called `view__feature`."""
    as_known: bool = True
    """Whether values that were written after a row's time do not count, where a view declares when that was."""

    @field_validator("entities")
    @classmethod
    def _is_another_source(cls, value: str) -> str:
        if value.startswith("feast:"):
            raise ValueError("the entities are another source than feast:")
        return value


class DataSettings(Settings):
    source: str = Field(min_length=1)
    feast: FeastSettings | None = None
    """Of a source `feast:FEATURE_SERVICE`."""
    encoding: str = "utf-8"
    """Of a CSV file; a byte order mark goes before it."""
    rename: dict[Text, Text] = {}
    units: dict[Text, str] = {}
    """By column, the unit before or after its numbers, which is removed."""
    replace: dict[Text, dict[Text, Text]] = {}
    missing: tuple[Text, ...] = ()
    """Texts that mean "no value", beside the empty cell, wherever the schema does not declare them as values."""
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", "'", " "] = ""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            b"-".decode(value)
        except UnicodeDecodeError:
            pass  # of UTF-16, half a character
        except (LookupError, ValueError):
            raise ValueError(
                f"{value!r} is not an encoding: utf-8, cp1252, latin-1 and utf-16 are some"
            ) from None
        return value

    @field_validator("units")
    @classmethod
    def _are_no_numbers(cls, value: dict[str, str]) -> dict[str, str]:
        for column, unit in value.items():
            if not unit.strip() or re.search(r"[\d.,+-]", unit):
                raise ValueError(
                    f"{column}: {unit!r} is not a unit; write what stands beside the numbers, such as '%' or kg"
                )
        return {column: unit.strip() for column, unit in value.items()}

    @field_validator("missing")
    @classmethod
    def _stripped(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.strip() for each in value)

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands cannot both be {self.decimal!r}")
        return self

    @property
    def cells(self) -> Cells:
        """How the source's cells are read."""
        return Cells(missing=self.missing, decimal=self.decimal, thousands=self.thousands)
