"""Checks raw data against the declared schema, and returns typed rows or one error with every broken rule.

It reads one column at a time, so that a table may be larger than memory. Training data outside a declared range is always an
error: `out_of_range` only decides what the service does with requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.cells import PLAIN, Cells
from training.base.errors import DataError
from training.base.progress import counted, step
from training.data.columns import as_moments, as_numbers, as_text
from training.data.table import Collector, Column, Columns, RowHashes, Table, chunks
from training.prepare.faults import Faults, listed, shown
from training.sections.schema import DatetimeSettings, FeatureSettings, NumberSettings, SchemaSettings


@dataclass(frozen=True)
class Checked:
    """Rows that conform to the schema.

    Attributes:
        frame: the features in the schema's order, then the target; numbers as float64, moments in UTC, the rest as text. A
            `pandas.DataFrame` if the raw data is one, else `Columns`.
        classes: as declared, or as found, sorted; none of a regression.
        equal_rows: how many are equal to an earlier one in all features and the target.
        duplicates_dropped: how many of those were dropped.
        without_target: rows dropped because they have no class or value.
        classes_dropped: rows dropped with each class that the schema drops.
        left_out: columns of the raw data that the schema does not name.
    """

    frame: Any
    classes: tuple[str, ...]
    equal_rows: int
    duplicates_dropped: int
    without_target: int
    classes_dropped: dict[str, int]
    left_out: tuple[str, ...]


def check(raw: Table, schema: SchemaSettings, cells: Cells = PLAIN) -> Checked:
    """Convert and check every column that the schema names.

    Args:
        raw: the data as fetched.
        schema: the declared rules.
        cells: how its cells are written.

    Raises:
        DataError: one line per broken rule: the column, how many rows break it, and the first of them.
    """
    kept, without_target, classes_dropped = _kept(raw, schema, cells)
    hashes = RowHashes(int(kept.sum()))
    columns: dict[str, Column] = {}
    problems: list[str] = []
    unreadable = False
    for name, declared in counted(_columns(schema).items(), "check", "columns", len(raw)):
        if name not in raw:
            problems.append(
                f"{name}: there is no such column; the data has {listed(list(map(str, raw.columns)))}"
            )
            continue
        faults = Faults(name, declared, schema)
        columns[name] = _read(raw, name, schema, cells, kept, faults, hashes)
        problems += faults.lines(len(hashes))
        unreadable = faults.unreadable
    frame = Columns(columns, np.flatnonzero(kept) + 1)
    complete = len(columns) == len(schema.features) + 1
    with step("comparison of rows", len(frame)):
        repeats = hashes.repeats() if complete else np.zeros(len(frame), dtype=bool)
    if schema.duplicates == "reject":
        problems += _repeated(frame.index[repeats])
    if schema.duplicates == "drop" and repeats.any():
        frame = frame.where(~repeats)
    found: tuple[str, ...] = ()
    if schema.target in frame:
        target = frame[schema.target]
        # Cells that cannot be read are reported already.
        if not unreadable or target.notna().any():
            problems += _class_problems(target, schema) if schema.value is None else _value_problems(target)
        found = () if schema.value else tuple(sorted(target.dropna().unique()))
    if problems:
        raise DataError(
            "the data breaks the schema in params.yaml (rows count from 1, without a header):\n  "
            + "\n  ".join(problems)
        )
    return Checked(
        frame=frame.whole() if isinstance(raw, pd.DataFrame) else frame,
        classes=schema.classes or found,
        equal_rows=int(repeats.sum()),
        duplicates_dropped=int(kept.sum()) - len(frame),
        without_target=without_target,
        classes_dropped=classes_dropped,
        left_out=tuple(name for name in raw.columns if name not in frame),
    )


def _columns(schema: SchemaSettings) -> dict[str, FeatureSettings | None]:
    """How each column is declared, the target last; None for a target with classes."""
    return {**schema.features, schema.target: schema.value}


def _kept(raw: Table, schema: SchemaSettings, cells: Cells) -> tuple[NDArray[np.bool_], int, dict[str, int]]:
    """Which rows remain, the number of rows without a class, and the number of rows of each dropped class."""
    missing = np.zeros(len(raw), dtype=bool)
    if schema.target not in raw or (schema.missing_target != "drop" and not schema.drop_classes):
        return ~missing, 0, {}
    dropped = missing.copy()
    counts = dict.fromkeys(schema.drop_classes, 0)
    for rows, piece in chunks(raw, schema.target):
        values, wrong = _convert(piece, schema.value, schema, cells)
        missing[rows] = values.isna() & ~wrong
        for name in counts:
            of_class = (values == name).to_numpy()
            counts[name] += int(of_class.sum())
            dropped[rows] |= of_class
    if schema.missing_target != "drop":
        missing[:] = False
    if missing.all():
        return missing | True, 0, {}  # the check reports this
    return ~missing & ~dropped, int(missing.sum()), counts


def _read(
    raw: Table,
    name: str,
    schema: SchemaSettings,
    cells: Cells,
    kept: NDArray[np.bool_],
    faults: Faults,
    hashes: RowHashes,
) -> Column:
    """A column of the rows that remain; cells that cannot be read are missing, and faults."""
    column = Collector(len(hashes))
    for rows, whole in chunks(raw, name):
        piece = whole.loc[kept[rows]]
        values, wrong = _convert(piece, _columns(schema)[name], schema, cells)
        odd = piece[wrong]
        faults.check(values.astype(object).mask(wrong, piece) if len(odd) else values, piece)
        hashes.add(values, column.filled, odd)
        column.add(values)
    return column.column()


def _convert(
    column: pd.Series[Any], declared: FeatureSettings | None, schema: SchemaSettings, cells: Cells
) -> tuple[pd.Series[Any], pd.Series[bool]]:
    """A column as float64, as moments in UTC or as texts, and a mask of the cells that are of another type."""
    if isinstance(declared, NumberSettings):
        values, wrong = as_numbers(column, cells)
        return values.astype(np.float64), wrong
    if isinstance(declared, DatetimeSettings):
        return as_moments(column, cells, declared.timezone)
    listed = (*(schema.classes or ()), *schema.drop_classes) if declared is None else declared.categories
    values, wrong = as_text(column, cells, keep=frozenset(listed or ()))
    return values.astype("str"), wrong


def _repeated(rows: NDArray[np.int64]) -> list[str]:
    if not len(rows):
        return []
    what = "row repeats" if len(rows) == 1 else "rows repeat"
    return [
        f"{len(rows):,} {what} an earlier one in all features and the target: {listed([f'row {row}' for row in rows])}; "
        "schema.duplicates says reject, it can say drop or keep"
    ]


def _class_problems(target: pd.Series[Any], schema: SchemaSettings) -> list[str]:
    counts = target.value_counts()
    names = schema.classes or tuple(sorted(counts.index))
    problems = []
    if len(names) < 2:
        only = f"only {names[0]!r}" if names else "no class"
        problems.append(
            f"{schema.target}: {only} in {len(target):,} rows; a classifier needs at least two classes"
        )
    few = [
        f"{name!r} has {counts.get(name, 0):,}"
        for name in names
        if counts.get(name, 0) < schema.min_rows_per_class
    ]
    if few:
        rows = "different rows" if schema.duplicates == "drop" else "rows"
        problems.append(
            f"{schema.target}: too few {rows} of a class: {listed(few)}; "
            f"schema.min_rows_per_class asks for {schema.min_rows_per_class}"
        )
    return problems


def _value_problems(target: pd.Series[Any]) -> list[str]:
    known = target.dropna()
    if known.nunique() > 1:
        return []
    only = f"only the value {shown(known.iloc[0])}" if len(known) else "no value"
    return [f"{target.name}: {only} in {len(target):,} rows; a regression needs values that differ"]
