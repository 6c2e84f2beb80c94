"""What breaks the rules: counted over all rows, with the first cells of each rule, in one sentence that says what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from app.moments import EXAMPLE
from training.prepare import rules
from training.sections.schema import FeatureSettings, NumberSettings, SchemaSettings

SHOWN = 5
"""Rows or names that an error lists before it gives only the number of the others."""


@dataclass
class _Broken:
    """A rule that cells of a column break.

    Attributes:
        count: how many.
        rows: of the first.
        cells: what the source has there.
        values: how it was read.
    """

    count: int = 0
    rows: list[int] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, rows: list[int], cells: pd.Series[Any], values: pd.Series[Any]) -> None:
        first = rows[: SHOWN - len(self.rows)]
        self.count += len(rows)
        self.rows += first
        self.cells += [cells.at[row] for row in first]
        self.values += [values.at[row] for row in first]


class Faults:
    """The cells of one column that break its rules."""

    def __init__(self, name: str, declared: FeatureSettings | None, schema: SchemaSettings) -> None:
        self._name = name
        self._declared = declared
        self._schema = schema
        self._rules = rules.column(name, schema)
        self._missing = _Broken()
        self._broken: dict[str, _Broken] = {}
        self._source = pd.Series(dtype=object)

    def check(self, values: pd.Series[Any], cells: pd.Series[Any]) -> None:
        """Check some rows.

        Args:
            values: as they were read; what could not be read is as in the source.
            cells: of the source, with the same index, which counts the rows from 1.
        """
        from pandera.errors import SchemaErrors

        self._source = cells.iloc[:0]
        gaps = values.isna()
        if gaps.any():
            self._missing.add(values.index[gaps].tolist(), cells, values)
        try:
            self._rules.validate(values.to_frame(self._name), lazy=True)
        except SchemaErrors as error:
            for rule, group in error.failure_cases.groupby("check", sort=False):
                rows = sorted(int(row) for row in group["index"])
                self._broken.setdefault(str(rule), _Broken()).add(rows, cells, values)

    @property
    def unreadable(self) -> bool:
        """Whether a cell is not of the declared type."""
        return not {"number", "text", "moment"}.isdisjoint(self._broken)

    def lines(self, rows: int) -> list[str]:
        """One sentence for each broken rule, of so many rows."""
        found = [self._gaps(rows)] if self._too_many_gaps(rows) else []
        # In the order in which they are declared, whichever broke first.
        order = [each.error for each in self._rules.columns[self._name].checks]
        found += [self._line(rule, self._broken[rule]) for rule in order if rule in self._broken]
        return [f"{self._name}: {line}" for line in found]

    @property
    def _is_target(self) -> bool:
        return self._name == self._schema.target

    def _too_many_gaps(self, rows: int) -> bool:
        count = self._missing.count
        if self._is_target or self._declared is None:
            return count > 0
        # A column without any value is never accepted.
        return count > 0 and (count == rows or count / rows > self._declared.missing)

    def _gaps(self, rows: int) -> str:
        broken = self._missing
        places = listed([f"row {row}" for row in broken.rows], broken.count)
        if self._is_target or self._declared is None:
            what = "class" if self._declared is None else "value"
            return f"{_values(broken)} missing: {places}; `schema.missing_target: drop` leaves rows without a {what} out"
        if broken.count == rows:
            return "every value is missing; leave the feature out of the schema"
        share = broken.count / rows
        return (
            f"{_values(broken)} missing ({share:.2%}) and {self._declared.missing:.2%} may be: {places}; "
            f"`missing: {_round_up(share)}` would allow it"
        )

    def _line(self, rule: str, broken: _Broken) -> str:
        declared, count = self._declared, _values(broken)
        cells = _by_row(broken.rows, broken.cells, broken.count)
        if rule == "number":
            return f"{count} not a number: {cells}{_type_hint(self._source, is_target=self._is_target)}"
        if rule == "moment":
            return f"{count} no date and time in ISO 8601, such as {EXAMPLE}: {cells}{_moment_hint(self._source)}"
        if rule == "text":
            return f"{count} neither text nor a number: {cells}{_type_hint(self._source, is_target=False)}"
        if rule == "finite":
            return (
                f"{count} infinite or beyond {rules.LARGEST:g}, where models cannot calculate: {cells}; "
                "correct the source, or make it missing with data.replace"
            )
        if rule == "range" and isinstance(declared, NumberSettings) and declared.range:
            low, high = declared.range
            unit = f" {declared.unit}" if declared.unit else ""
            return f"{count} outside the range [{low:g}, {high:g}]{unit}: {cells}; correct the source or widen the range"
        known = self._schema.classes if declared is None else declared.categories  # type: ignore[union-attr]
        what = "class" if declared is None else "category"
        return (
            f"{count} of no declared {what} ({listed([shown(each) for each in known or ()])}): "
            f"{_by_row(broken.rows, broken.values, broken.count)}; declare it or map it with data.replace"
        )


def _values(broken: _Broken) -> str:
    return f"{broken.count} value is" if broken.count == 1 else f"{broken.count} values are"


def _by_row(rows: list[int], cells: list[Any], count: int) -> str:
    return listed([f"row {row}: {shown(cell)}" for row, cell in zip(rows, cells, strict=True)], count)


def _type_hint(column: pd.Series[Any], *, is_target: bool) -> str:
    category = "`task: classification`" if is_target else "it as `type: category`"
    if pd.api.types.is_bool_dtype(column.dtype):
        return f"; the column is true or false: declare {category}"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "; the column holds dates: declare it as `type: datetime`"
    if isinstance(column.dtype, pd.StringDtype) or column.dtype == object:
        return (
            "; list it under data.missing if it means that there is no value, swap it with data.replace, "
            f"or declare {category}"
        )
    return f"; the column holds {column.dtype}"


def _moment_hint(column: pd.Series[Any]) -> str:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return (
            "; a number does not say whether it counts seconds, milliseconds or days: convert the column in the source, or "
            "declare it as `type: number`"
        )
    return "; correct the source, swap it with data.replace, or list it under data.missing if it means that there is no value"


def listed(items: list[str], count: int | None = None) -> str:
    """The first of so many items; of these if no number is given."""
    rest = (len(items) if count is None else count) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def shown(value: Any) -> str:
    """A cell as an error shows it."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else text[:37] + "…"


def _round_up(share: float) -> float:
    return float(np.ceil(share * 100) / 100)
