"""Determines for `training.draft` the type of each column of a source, and how its odd cells can be read.

A column whose cells are numbers but for a few stays a number: the others become words for missing, marks for decimals
or thousands, or lines under `data.replace`, and the draft says which cells those are. The same holds for a column of dates. Only what
cannot be a feature is left out: what numbers or names the rows, free text, and what never changes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from app.cells import Cells
from app.moments import written
from training.data.columns import as_numbers, as_text, without_unit
from training.draft.categories import category_column
from training.draft.dates import Dates
from training.draft.marks import Reading, best_marks, parsed
from training.draft.numbers import Number, identifies, number_column
from training.draft.texts import Texts, advice_on_identifier


@dataclass(frozen=True)
class Columns:
    """What was found.

    Attributes:
        cells: how the source's cells are to be read.
        units: `data.units`, what stands beside a column's numbers.
        replace: `data.replace` for its odd cells.
        features: settings and a comment by name.
        left_out: the reasons by name.
        missing: how often each word for missing stands in which columns.
        example: what the marks in `cells` make of a cell.
        target: the target of a regression, if the frame has it and it is a number.
    """

    cells: Cells
    units: dict[str, str] = field(default_factory=dict)
    replace: dict[str, dict[str, str]] = field(default_factory=dict)
    features: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    example: str = ""
    target: Number | None = None


def judge(
    frame: pd.DataFrame, delimiter: str = "", target: str | None = None, known: Cells | None = None
) -> Columns:
    """Determine the type of each column.

    Args:
        frame: the source without a target that has classes.
        delimiter: of its file, if it is CSV; in a file with semicolons, commas are decimal marks.
        target: the column that a regression predicts; if it is not numbers, `left_out` says why.
        known: how the cells are read, if that is known.
    """
    texts = {name: Texts.of(frame[name]) for name in frame.columns}
    marks = known or best_marks(filter(None, texts.values()), delimiter)
    dates = {name: Dates.of(frame[name], texts[name]) for name in frame.columns if name != target}
    readings = {name: Reading.of(each, marks) if each else None for name, each in texts.items()}
    words = sorted(
        {
            *marks.missing,
            *(word for each in (*readings.values(), *dates.values()) if each for word in each.placeholders),
        }
    )
    columns = Columns(
        marks.model_copy(update={"missing": tuple(words)}),
        example=next((each.example for each in readings.values() if each and each.example), ""),
    )
    for name in frame.columns:
        if name != target:
            if (found := dates[name]) is not None:
                _judge_dates(str(name), found, texts[name], columns)
            else:
                _judge_column(str(name), frame[name], texts[name], readings[name], columns)
    if target is None:
        return columns
    return replace(
        columns, target=_judge_target(target, frame[target], texts[target], readings[target], columns)
    )


def beside(frame: pd.DataFrame, whole: Columns, target: str) -> Columns:
    """The columns beside the target of a regression, judged on some of the rows; all rows decide how cells are read."""
    found = judge(frame.drop(columns=target), known=whole.cells)
    if target in whole.units:
        found.units[target] = whole.units[target]
    if target in whole.replace:
        found.replace[target] = whole.replace[target]
    for word, places in whole.missing.items():
        if target in places:
            found.missing.setdefault(word, {})[target] = places[target]
    return replace(found, target=whole.target, example=found.example or whole.example)


def _judge_target(
    name: str, column: pd.Series[Any], texts: Texts | None, reading: Reading | None, columns: Columns
) -> Number | None:
    """The target of a regression, or None with the reason in `columns`."""
    found: Number | str
    if texts is not None and not texts.counts:
        found = "left out, since every value is missing"
    elif texts is not None and reading is None:
        odd = [each for each in texts.counts if parsed(each, columns.cells) is None]
        count = sum(texts.counts[each] for each in odd)
        found = f"left out, since {count:,} of {texts.total:,} cells are not numbers: {texts.shown(odd)}"
    else:
        found = _as_number(column, texts, reading, columns.cells)
    if isinstance(found, str):
        columns.left_out[name] = found
        return None
    _note(name, found, texts, reading, columns)
    return found


def _judge_column(
    name: str, column: pd.Series[Any], texts: Texts | None, reading: Reading | None, columns: Columns
) -> None:
    """Add the result for one column to `columns`."""
    cells = columns.cells
    found: Number | tuple[dict[str, Any], str] | str
    if texts is None or (reading is not None and not texts.are_codes):
        found = _as_number(column, texts, reading, cells)
        if isinstance(found, Number) and identifies(name, found.seen):
            found = "left out, since it numbers the rows" + advice_on_identifier(
                len(found.seen), len(np.unique(found.seen))
            )
    else:
        found = category_column(texts, cells)
    if isinstance(found, str):
        columns.left_out[name] = found
        return
    if isinstance(found, Number):
        _note(name, found, texts, reading, columns)
        found = found.settings, found.comment
    else:
        _count_missing(name, texts, found[0]["categories"], columns)
    columns.features[name] = found


def _judge_dates(name: str, dates: Dates, texts: Texts | None, columns: Columns) -> None:
    """Add the result for a column of dates to `columns`."""
    first, last = min(dates.seen), max(dates.seen)
    if first == last and len(dates.seen) == dates.rows:
        columns.left_out[name] = f"left out, since it is {written(first)} in every row"
        return
    if dates.others:
        columns.replace[name] = dict.fromkeys(dates.others, "")
    _count_missing(name, texts, (), columns)
    columns.features[name] = dates.settings, dates.comment(texts)


def _as_number(
    column: pd.Series[Any], texts: Texts | None, reading: Reading | None, cells: Cells
) -> Number | str:
    """The numbers of a column, or why it is left out."""
    if texts is None and as_numbers(column, cells)[1].any():
        return f"left out, since it holds {column.dtype}"
    if reading and reading.unit:
        column = without_unit(as_text(column)[0], reading.unit)
    number = number_column(column, reading.replaced(cells) if reading else {}, cells)
    if not isinstance(number, str) and reading is not None and (odd := reading.odd_cells()):
        return replace(number, comment=f"{number.comment}; {odd}")
    return number


def _note(name: str, number: Number, texts: Texts | None, reading: Reading | None, columns: Columns) -> None:
    """Add to `columns` how a number is read."""
    if reading and reading.unit:
        columns.units[name] = reading.unit
    if number.replaced:
        columns.replace[name] = number.replaced
    _count_missing(name, texts, (), columns)


def _count_missing(name: str, texts: Texts | None, values: Collection[str], columns: Columns) -> None:
    for word in columns.cells.missing if texts else ():
        if texts is not None and word in texts.counts and word not in values:
            columns.missing.setdefault(word, {})[name] = texts.counts[word]
