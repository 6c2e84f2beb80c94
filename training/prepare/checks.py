"""Checks raw data against the declared schema, and returns typed rows or one error with every broken rule.

Training data outside a declared range is always an error: `out_of_range` only decides what the service does with
requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from app.cells import PLAIN, Cells
from app.moments import EXAMPLE
from training.base.errors import DataError
from training.data.columns import as_moments, as_numbers, as_text
from training.sections.schema import DatetimeSettings, FeatureSettings, NumberSettings, SchemaSettings

if TYPE_CHECKING:
    import pandera.pandas as pa

SHOWN = 5
"""Rows or names that an error lists before it gives only the number of the others."""

LARGEST = 1e30
"""Trees compare 32-bit floats, whose largest value is 3e38."""


@dataclass(frozen=True)
class Checked:
    """Rows that conform to the schema.

    Attributes:
        frame: the features in the schema's order, then the target; numbers as float64, moments in UTC, the rest as text.
        classes: as declared, or as found, sorted; none of a regression.
        equal_rows: how many are equal to an earlier one in all features and the target.
        duplicates_dropped: how many of those were dropped.
        without_target: rows dropped because they have no class or value.
        classes_dropped: rows dropped with each class that the schema drops.
        left_out: columns of the raw data that the schema does not name.
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]
    equal_rows: int
    duplicates_dropped: int
    without_target: int
    classes_dropped: dict[str, int]
    left_out: tuple[str, ...]


def check(raw: pd.DataFrame, schema: SchemaSettings, cells: Cells = PLAIN) -> Checked:
    """Convert and check every column that the schema names.

    Args:
        raw: the data as fetched.
        schema: the declared rules.
        cells: how its cells are written.

    Raises:
        DataError: one line per broken rule: the column, how many rows break it, and the first of them.
    """
    whole = _convert(raw, schema, cells)
    frame, without_target, classes_dropped = _without_dropped(whole, schema)
    problems = _broken_rules(frame, raw, schema)
    repeats = _repeats(frame, schema)
    kept = frame if schema.duplicates == "keep" or repeats is None else frame[~repeats]
    if schema.target in frame:
        problems += _class_problems(kept, schema) if schema.value is None else _value_problems(kept, schema)
    if problems:
        raise DataError(
            "the data breaks the schema in params.yaml (rows count from 1, without a header):\n  "
            + "\n  ".join(problems)
        )
    found = () if schema.value else tuple(sorted(kept[schema.target].unique()))
    return Checked(
        frame=_typed(kept, schema),
        classes=schema.classes or found,
        equal_rows=0 if repeats is None else int(repeats.sum()),
        duplicates_dropped=len(frame) - len(kept),
        without_target=without_target,
        classes_dropped=classes_dropped,
        left_out=tuple(name for name in raw.columns if name not in frame.columns),
    )


def _convert(raw: pd.DataFrame, schema: SchemaSettings, cells: Cells) -> pd.DataFrame:
    """The named columns as numbers, moments or text; other cells stay as they are, so that the check finds them."""
    columns = {}
    for name, declared in _columns(schema).items():
        if name not in raw.columns:
            continue
        if isinstance(declared, NumberSettings):
            values, wrong = as_numbers(raw[name], cells)
        elif isinstance(declared, DatetimeSettings):
            values, wrong = as_moments(raw[name], cells, declared.timezone)
        else:
            listed = (
                (*(schema.classes or ()), *schema.drop_classes) if declared is None else declared.categories
            )
            values, wrong = as_text(raw[name], cells, keep=frozenset(listed or ()))
        columns[name] = values.astype(object).mask(wrong, raw[name]) if wrong.any() else values
    return pd.DataFrame(columns).set_axis(pd.RangeIndex(1, len(raw) + 1), axis="index")


def _columns(schema: SchemaSettings) -> dict[str, FeatureSettings | None]:
    """How each column is declared, the target last; None for a target with classes."""
    return {**schema.features, schema.target: schema.value}


def _without_dropped(frame: pd.DataFrame, schema: SchemaSettings) -> tuple[pd.DataFrame, int, dict[str, int]]:
    """The remaining rows, the number of rows without a class, and the number of rows of each dropped class."""
    if schema.target not in frame:
        return frame, 0, {}
    target = frame[schema.target]
    missing = target.isna() if schema.missing_target == "drop" else target.isna() & False
    if missing.all():
        return frame, 0, {}  # the check reports this
    dropped = {name: int((target == name).sum()) for name in schema.drop_classes}
    return frame[~missing & ~target.isin(schema.drop_classes)], int(missing.sum()), dropped


def _typed(frame: pd.DataFrame, schema: SchemaSettings) -> pd.DataFrame:
    declared = _columns(schema)
    kinds = {
        name: "float64" if isinstance(declared[name], NumberSettings) else "str"
        for name in frame.columns
        if not isinstance(declared[name], DatetimeSettings)
    }
    return frame.astype(kinds)


def _broken_rules(frame: pd.DataFrame, raw: pd.DataFrame, schema: SchemaSettings) -> list[str]:
    import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    columns = {
        name: pa.Column(checks=_feature_checks(each), nullable=True) for name, each in schema.features.items()
    }
    columns[schema.target] = pa.Column(checks=_target_checks(schema), nullable=True)
    rows = []
    if schema.duplicates == "reject":
        rows.append(pa.Check(lambda checked: _is_first(checked, schema), error="duplicate", ignore_na=False))
    try:
        pa.DataFrameSchema(columns, checks=rows).validate(frame, lazy=True)
    except SchemaErrors as error:
        return _complaints(error.failure_cases, frame, raw, schema)
    return []


def _feature_checks(feature: FeatureSettings) -> list[pa.Check]:
    few = _rule("missing", lambda column: _few_missing(column, feature.missing), ignore_na=False)
    if isinstance(feature, NumberSettings):
        return [few, *_number_checks(feature)]
    if isinstance(feature, DatetimeSettings):
        return [few, _rule("moment", _is_moment)]
    checks = [few, _rule("text", _is_text)]
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
    missing = _rule("missing", lambda column: column.notna(), ignore_na=False)
    if schema.value is not None:
        return [missing, *_number_checks(schema.value)]
    checks = [missing, _rule("text", _is_text)]
    return checks if schema.classes is None else [*checks, _one_of("classes", schema.classes)]


def _one_of(rule: str, values: tuple[str, ...]) -> pa.Check:
    return _rule(rule, lambda column: column.isin(values) | ~_is_text(column))


def _rule(
    name: str, holds: Callable[[pd.Series[Any]], pd.Series[bool]], *, ignore_na: bool = True
) -> pa.Check:
    import pandera.pandas as pa

    return pa.Check(holds, error=name, ignore_na=ignore_na)


def _few_missing(column: pd.Series[Any], share: float) -> pd.Series[bool]:
    """Accept missing values up to a share of the rows; above it, each of them breaks the rule."""
    missing = column.isna()
    if missing.all():
        return ~missing  # a column without any value is never accepted
    return ~missing | (missing.mean() <= share)


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
    return column.map(lambda value: isinstance(value, str)).astype(bool)


def _is_moment(column: pd.Series[Any]) -> pd.Series[bool]:
    if column.dtype != object:
        return pd.Series(True, column.index)
    return column.map(lambda value: isinstance(value, pd.Timestamp) and value.tzinfo == UTC).astype(bool)


def _repeats(frame: pd.DataFrame, schema: SchemaSettings) -> pd.Series[bool] | None:
    """Which rows repeat an earlier one in all features and the target; None if a column is absent."""
    if len(frame.columns) <= len(schema.features):
        return None
    odd = {name: frame[name].map(repr) for name in frame.columns if _has_odd_cells(frame[name])}
    return frame.assign(**odd).duplicated()


def _has_odd_cells(column: pd.Series[Any]) -> bool:
    """Whether a column holds lists or other values that pandas cannot compare."""
    return (
        column.dtype == object and not column.map(lambda value: isinstance(value, str | float | None)).all()
    )


def _is_first(frame: pd.DataFrame, schema: SchemaSettings) -> pd.Series[bool]:
    repeats = _repeats(frame, schema)
    return pd.Series(True, frame.index) if repeats is None else ~repeats


def _class_problems(frame: pd.DataFrame, schema: SchemaSettings) -> list[str]:
    target = frame[schema.target]
    readable = _is_text(target)
    if target.notna().any() and not readable.any():
        return []  # reported already
    counts = target[readable].value_counts()
    names = schema.classes or tuple(sorted(counts.index))
    problems = []
    if len(names) < 2:
        only = f"only {names[0]!r}" if names else "no class"
        problems.append(
            f"{schema.target}: {only} in {len(frame)} rows; a classifier needs at least two classes"
        )
    few = [
        f"{name!r} has {counts.get(name, 0)}"
        for name in names
        if counts.get(name, 0) < schema.min_rows_per_class
    ]
    if few:
        rows = "different rows" if schema.duplicates == "drop" else "rows"
        problems.append(
            f"{schema.target}: too few {rows} of a class: {_listed(few)}; "
            f"schema.min_rows_per_class asks for {schema.min_rows_per_class}"
        )
    return problems


def _value_problems(frame: pd.DataFrame, schema: SchemaSettings) -> list[str]:
    target = frame[schema.target]
    readable = target.notna() & _is_number(target)
    if target.notna().any() and not readable.any():
        return []  # reported already
    if target[readable].nunique() > 1:
        return []
    only = f"only the value {_cell(target[readable].iloc[0])}" if readable.any() else "no value"
    return [f"{schema.target}: {only} in {len(frame)} rows; a regression needs values that differ"]


def _complaints(
    failures: pd.DataFrame, frame: pd.DataFrame, raw: pd.DataFrame, schema: SchemaSettings
) -> list[str]:
    """One line for each column and rule of pandera's list of failures, in the order of the schema."""
    lines = []
    missing = set(failures.loc[failures["check"] == "column_in_dataframe", "failure_case"])
    for name in (*schema.features, schema.target):
        if name in missing:
            lines.append(
                f"{name}: there is no such column; the data has {_listed(list(map(str, raw.columns)))}"
            )
            continue
        mine = failures[(failures["column"] == name) & (failures["schema_context"] == "Column")]
        for rule, group in mine.groupby("check", sort=False):
            rows = sorted(int(row) for row in group["index"])
            lines.append(f"{name}: {_broken(str(rule), name, rows, frame, raw, schema)}")
    repeated = sorted({int(row) for row in failures.loc[failures["check"] == "duplicate", "index"]})
    if repeated:
        rows_text = "row repeats" if len(repeated) == 1 else "rows repeat"
        lines.append(
            f"{len(repeated)} {rows_text} an earlier one in all features and the target: "
            f"{_listed([f'row {row}' for row in repeated])}; schema.duplicates says reject, it can say drop or keep"
        )
    return lines


def _broken(
    rule: str, name: str, rows: list[int], frame: pd.DataFrame, raw: pd.DataFrame, schema: SchemaSettings
) -> str:
    declared = _columns(schema)[name]
    count = f"{len(rows)} value is" if len(rows) == 1 else f"{len(rows)} values are"
    cells = _listed([f"row {row}: {_cell(raw[name].iloc[row - 1])}" for row in rows])
    places = _listed([f"row {row}" for row in rows])
    if rule == "missing":
        if name == schema.target:
            what = "class" if declared is None else "value"
            return (
                f"{count} missing: {places}; `schema.missing_target: drop` leaves rows without a {what} out"
            )
        assert declared is not None  # noqa: S101 - only the target is not declared
        if len(rows) == len(frame):
            return "every value is missing; leave the feature out of the schema"
        return (
            f"{count} missing ({len(rows) / len(frame):.2%}) and {declared.missing:.2%} may be: {places}; "
            f"`missing: {_round_up(len(rows) / len(frame))}` would allow it"
        )
    if rule == "number":
        return f"{count} not a number: {cells}{_type_hint(raw[name], is_target=name == schema.target)}"
    if rule == "moment":
        return f"{count} no date and time in ISO 8601, such as {EXAMPLE}: {cells}{_moment_hint(raw[name])}"
    if rule == "text":
        return f"{count} neither text nor a number: {cells}{_type_hint(raw[name], is_target=False)}"
    if rule == "finite":
        return (
            f"{count} infinite or beyond {LARGEST:g}, where models cannot calculate: {cells}; "
            "correct the source, or make it missing with data.replace"
        )
    if rule == "range" and isinstance(declared, NumberSettings) and declared.range:
        low, high = declared.range
        unit = f" {declared.unit}" if declared.unit else ""
        return f"{count} outside the range [{low:g}, {high:g}]{unit}: {cells}; correct the source or widen the range"
    known = schema.classes if declared is None else declared.categories  # type: ignore[union-attr]
    what = "class" if declared is None else "category"
    texts = _listed([f"row {row}: {_cell(frame.at[row, name])}" for row in rows])
    return (
        f"{count} of no declared {what} ({_listed([_cell(each) for each in known or ()])}): {texts}; "
        "declare it or map it with data.replace"
    )


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


def _listed(items: list[str]) -> str:
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _cell(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else text[:37] + "…"


def _round_up(share: float) -> float:
    return float(np.ceil(share * 100) / 100)
