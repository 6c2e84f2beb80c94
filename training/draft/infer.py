"""Determines for `training.draft` the type of each column of a source, and how its odd cells can be read.

A column whose cells are numbers but for a few stays a number: the others become words for missing, marks for decimals
or thousands, or lines under `data.replace`, and the draft says which cells those are. The same holds for a column of dates. Only what
cannot be a feature is left out: what numbers or names the rows, free text, and what never changes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.cells import PLAIN, Cells, as_written
from app.moments import DAY_SECONDS, EXAMPLE, PARTS, maker, step, written
from training.data.columns import as_moments, as_numbers, as_text, moments, without_unit
from training.prepare.checks import LARGEST

MOST_CATEGORIES = 200
FEWEST_ROWS_EACH = 4
"""Average rows of a category in a column with more than a handful of categories."""
HANDFUL = 10
MOST_REPLACED = 200
"""Distinct cells of a column that a draft replaces one by one."""
MOST_ODD = 0.05
"""Share of cells that may become missing because they are not numbers."""
DATE_YEARS = range(1500, 2500)
"""Most dates of a column are in these; 0012-05 is rather a code."""
WIDENED = 0.25
SHOWN = 3

_FORMATS = [
    PLAIN,
    Cells(thousands=","),
    Cells(decimal=","),
    Cells(decimal=",", thousands="."),
    Cells(thousands="'"),
    Cells(thousands=" "),
    Cells(decimal=",", thousands=" "),
    Cells(decimal=",", thousands="'"),
]
_SAMPLE = 2000
"""Distinct numbers of a column that are used to choose the marks."""

_MISSING_WORDS = frozenset(
    [
        "na",
        "n/a",
        "#n/a",
        "<na>",
        "n.a.",
        "n.a",
        "nan",
        "null",
        "none",
        "nil",
        "missing",
        "unknown",
        "undefined",
        "void",
        "blank",
        "empty",
        "#div/0!",
        "#value!",
        "#ref!",
        "#name?",
        "#num!",
        "#null!",
    ]
)
_AFFIXED = re.compile(r"[$€£¥]?\s*([+\u2212-]?[\d.,' \u00a0\u202f]*\d(?:[eE][+-]?\d+)?)\s*[%$€£¥]?")
_MEASURED = re.compile(r"([+\u2212-]?[\d.,' \u00a0\u202f]*\d)\s*([^\W\d_]{1,4}[²³]?|°[CF]?)")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ].*)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?: .*)?"
    r"|\d{1,2}[-/. ]?[A-Za-z]{3,9}[-/., ]+\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{2,4}"
    r"|\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?",
    re.ASCII,
)
_OFFSET = re.compile(r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$", re.IGNORECASE)
_IDENTIFIER = re.compile(
    r"(?:.*[_\s.-])?(?:id|index|idx|key|uuid|guid|row_?names?|unnamed_\d+)", re.IGNORECASE
)


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


@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Attributes:
        values: float64, NaN where missing.
        comment: what was seen.
        replaced: `data.replace` for its odd cells.
    """

    values: pd.Series[float]
    comment: str
    replaced: dict[str, str]

    @property
    def seen(self) -> NDArray[np.floating[Any]]:
        return self.values.dropna().to_numpy(np.float64)

    @property
    def settings(self) -> dict[str, Any]:
        """As a feature."""
        missing = int(self.values.isna().sum())
        return {"type": "number", "range": list(_padded(self.seen)), **_missing(missing, len(self.values))}


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
    texts = {name: _Texts.of(frame[name]) for name in frame.columns}
    marks = known or _marks(filter(None, texts.values()), delimiter)
    dates = {name: _Dates.of(frame[name], texts[name]) for name in frame.columns if name != target}
    readings = {name: _Reading.of(each, marks) if each else None for name, each in texts.items()}
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
    name: str, column: pd.Series[Any], texts: _Texts | None, reading: _Reading | None, columns: Columns
) -> Number | None:
    """The target of a regression, or None with the reason in `columns`."""
    found: Number | str
    if texts is not None and not texts.counts:
        found = "left out, since every value is missing"
    elif texts is not None and reading is None:
        odd = [each for each in texts.counts if _parsed(each, columns.cells) is None]
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
    name: str, column: pd.Series[Any], texts: _Texts | None, reading: _Reading | None, columns: Columns
) -> None:
    """Add the result for one column to `columns`."""
    cells = columns.cells
    found: Number | tuple[dict[str, Any], str] | str
    if texts is None or (reading is not None and not texts.are_codes):
        found = _as_number(column, texts, reading, cells)
        if isinstance(found, Number) and identifies(name, found.seen):
            found = "left out, since it numbers the rows" + _shared(
                len(found.seen), len(np.unique(found.seen))
            )
    else:
        found = _category(texts, cells)
    if isinstance(found, str):
        columns.left_out[name] = found
        return
    if isinstance(found, Number):
        _note(name, found, texts, reading, columns)
        found = found.settings, found.comment
    else:
        _count_missing(name, texts, found[0]["categories"], columns)
    columns.features[name] = found


def _judge_dates(name: str, dates: _Dates, texts: _Texts | None, columns: Columns) -> None:
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
    column: pd.Series[Any], texts: _Texts | None, reading: _Reading | None, cells: Cells
) -> Number | str:
    """The numbers of a column, or why it is left out."""
    if texts is None and as_numbers(column, cells)[1].any():
        return f"left out, since it holds {column.dtype}"
    if reading and reading.unit:
        column = without_unit(as_text(column)[0], reading.unit)
    number = _number(column, reading.replaced(cells) if reading else {}, cells)
    if not isinstance(number, str) and reading is not None and (odd := reading.odd_cells()):
        return replace(number, comment=f"{number.comment}; {odd}")
    return number


def _note(
    name: str, number: Number, texts: _Texts | None, reading: _Reading | None, columns: Columns
) -> None:
    """Add to `columns` how a number is read."""
    if reading and reading.unit:
        columns.units[name] = reading.unit
    if number.replaced:
        columns.replace[name] = number.replaced
    _count_missing(name, texts, (), columns)


def _count_missing(name: str, texts: _Texts | None, values: Collection[str], columns: Columns) -> None:
    for word in columns.cells.missing if texts else ():
        if texts is not None and word in texts.counts and word not in values:
            columns.missing.setdefault(word, {})[name] = texts.counts[word]


@dataclass(frozen=True)
class _Texts:
    """The distinct cells of a column of texts, stripped.

    Attributes:
        counts: how often each occurs; empty cells are not among them.
        first: the row in which each stands first, from 1.
        rows: how many the column has.
    """

    counts: dict[str, int]
    first: dict[str, int]
    rows: int

    @classmethod
    def of(cls, column: pd.Series[Any]) -> _Texts | None:
        """None for a column of numbers, dates or other values."""
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            return None
        text, wrong = as_text(column)
        if wrong.any() or (column.dtype == object and not column.map(_is_plain).all()):
            return None
        codes, distinct = pd.factorize(text)
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
        _, places = np.unique(codes[codes >= 0], return_index=True)
        # The index is the row's number in the source, because some rows may have been removed.
        rows = column.index.to_numpy()[codes >= 0][places] + 1
        names = [str(each) for each in distinct]
        return cls(
            dict(zip(names, counts.tolist(), strict=True)),
            dict(zip(names, rows.tolist(), strict=True)),
            len(column),
        )

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def are_codes(self) -> bool:
        """Whether texts such as 007 are codes rather than numbers, because others look alike."""
        padded = sum(count for each, count in self.counts.items() if re.match(r"0\d", each))
        lengths = {len(each) for each in self.counts if each.isdecimal()}
        return padded > MOST_ODD * self.total or (padded > 0 and len(lengths) == 1)

    def shown(self, some: Iterable[str]) -> str:
        """Cells with their number and first row, the most frequent ones first."""
        ranked = sorted(some, key=lambda each: (-self.counts[each], self.first[each]))
        parts = [
            f"{_short(each)} ({times(self.counts[each])}, first in row {self.first[each]})"
            for each in ranked[:SHOWN]
        ]
        rest = f" and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else ""
        return ", ".join(parts) + rest


@dataclass(frozen=True)
class _Dates:
    """A column of dates, or of dates and times.

    Attributes:
        seen: the values.
        rows: of the column.
        local: whether some have no offset.
        placeholders: texts that mean that there is no value.
        others: texts that are no dates.
    """

    seen: list[datetime]
    rows: int
    local: bool
    placeholders: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, column: pd.Series[Any], texts: _Texts | None) -> _Dates | None:
        """None if the column does not hold dates."""
        if pd.api.types.is_numeric_dtype(column.dtype):
            return None
        values, wrong = as_moments(column)
        seen = [each for each in moments(values) if each is not None]
        usual = sum(each.year in DATE_YEARS for each in seen)
        if not seen or 2 * usual <= len(seen) or (texts is None and wrong.any()):
            return None
        odd = [] if texts is None else sorted(set(as_text(column[wrong])[0]))
        placeholders = tuple(each for each in odd if is_placeholder(each))
        others = tuple(each for each in odd if each not in placeholders)
        strange = sum(texts.counts[each] for each in others) if texts else 0
        if len(others) > MOST_REPLACED or strange > MOST_ODD * (len(seen) + strange):
            return None
        if texts is None:
            local = getattr(column.dtype, "tz", None) is None
        else:
            local = any(not _OFFSET.search(each) for each in texts.counts if each not in odd)
        return cls(seen, len(column), local, placeholders, others)

    @property
    def settings(self) -> dict[str, Any]:
        """As a feature, of which the parts are made that vary."""
        made = zip(*map(maker(PARTS), set(self.seen)), strict=True)
        parts = [part for part, values in zip(PARTS, made, strict=True) if len(set(values)) > 1]
        return {
            "type": "datetime",
            **({"parts": parts} if len(parts) < len(PARTS) else {}),
            **_missing(self.rows - len(self.seen), self.rows),
        }

    def comment(self, texts: _Texts | None) -> str:
        dates = step(self.seen) >= DAY_SECONDS
        low, high = (written(each)[: 10 if dates else None] for each in (min(self.seen), max(self.seen)))
        notes = [f"seen {low} to {high}"]
        if self.local and not dates:
            notes.append("times without an offset are in UTC: add `timezone: …` if they are local")
        if texts and (odd := (*self.placeholders, *self.others)):
            lost = ", which become missing; in data.replace, dates can be given" if self.others else ""
            notes.append(
                f"{len(self.seen):,} of {texts.total:,} cells are dates; the others: {texts.shown(odd)}{lost}"
            )
        return "; ".join(notes)


@dataclass(frozen=True)
class _Reading:
    """How the cells of a column of numbers are read.

    Attributes:
        texts: its cells.
        numbers: how many of them are numbers as they stand.
        placeholders: texts that mean that there is no value.
        example: what the marks make of a cell that is no number without them.
        unit: what stands beside most numbers, such as %, where there are more than a handful of them.
        readable: other texts that are a number otherwise, such as "12 %".
        others: texts that are none.
    """

    texts: _Texts
    numbers: int
    example: str
    placeholders: tuple[str, ...]
    unit: str
    readable: dict[str, float]
    others: tuple[str, ...]

    @classmethod
    def of(cls, texts: _Texts, marks: Cells) -> _Reading | None:
        """None if the column does not hold numbers."""
        unit = _unit(texts, marks)
        plain = {each for each in texts.counts if _parsed(_core(each, unit), marks) is not None}
        odd = [each for each in texts.counts if each not in plain]
        placeholders = tuple(each for each in odd if is_placeholder(each))
        readable = {
            each: number
            for each in odd
            if each not in placeholders and (number := _otherwise(each, marks)) is not None
        }
        others = tuple(each for each in odd if each not in placeholders and each not in readable)
        numbers = sum(texts.counts[each] for each in plain)
        read = numbers + sum(texts.counts[each] for each in readable)
        strange = sum(texts.counts[each] for each in others)
        if not read or len(readable) + len(others) > MOST_REPLACED or strange > MOST_ODD * (read + strange):
            return None
        # 1, 2, 3 and 4+ are categories.
        if (
            others
            and len(texts.counts) <= 2 * HANDFUL
            and texts.total >= FEWEST_ROWS_EACH * len(texts.counts)
        ):
            return None
        marked = [
            each
            for each in texts.counts
            if each in plain and _parsed(_core(each, unit), PLAIN) != _parsed(_core(each, unit), marks)
        ]
        example = (
            f"{texts.shown(marked[:1])} is read as {as_written(marks.number(_core(marked[0], unit)))}"
            if marked
            else ""
        )
        return cls(texts, numbers, example, placeholders, unit, readable, others)

    def replaced(self, cells: Cells) -> dict[str, str]:
        numbers = {each: as_written(number) for each, number in self.readable.items()}
        if cells.decimal == ",":
            numbers = {each: number.replace(".", ",") for each, number in numbers.items()}
        return {**numbers, **dict.fromkeys(self.others, "")}

    def odd_cells(self) -> str:
        odd = (*self.placeholders, *self.readable, *self.others)
        if not odd:
            return ""
        missing = ", which become missing; in data.replace, numbers can be given" if self.others else ""
        return (
            f"{self.numbers:,} of {self.texts.total:,} cells are numbers; the others: "
            f"{self.texts.shown(odd)}{missing}"
        )


def _marks(columns: Iterable[_Texts], delimiter: str) -> Cells:
    """The marks for decimals and thousands with which the most cells are numbers."""
    formats = _FORMATS
    if delimiter == ";":
        formats = [PLAIN, *(each for each in _FORMATS if each.decimal == ","), *_FORMATS[1:]]
    scores = dict.fromkeys(range(len(formats)), 0)
    grouped = 0
    for texts in columns:
        odd = [each for each in texts.counts if _parsed(each, PLAIN) is None and not is_placeholder(each)]
        if not odd and all("." not in each for each in texts.counts):
            continue
        plain = [each for each in texts.counts if _parsed(each, PLAIN) is not None][:_SAMPLE]
        cells = [*plain, *odd[: 2 * _SAMPLE]]
        counts = [
            sum(texts.counts[each] for each in cells if _parsed(_core(each), format_) is not None)
            for format_ in formats
        ]
        if max(counts) * 2 >= sum(texts.counts[each] for each in cells):
            for place, count in enumerate(counts):
                scores[place] += count
            grouped += sum(1 for each in cells if re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", each))
    best = [formats[place] for place, score in scores.items() if score == max(scores.values())]
    # In a file with semicolons in which every point precedes three digits, 57.800 is not 57.8.
    points = Cells(decimal=",", thousands=".")
    return points if delimiter == ";" and grouped >= HANDFUL and points in best else best[0]


def _parsed(text: str, cells: Cells) -> float | None:
    try:
        return cells.number(text)
    except ValueError:
        return None


def _unit(texts: _Texts, marks: Cells) -> str:
    """The symbol beside numbers, if these are too many to replace one by one."""
    symbols = Counter(
        symbol
        for each in texts.counts
        if (symbol := _symbol(each)) and _parsed(_core(each), marks) is not None
    )
    symbol, count = symbols.most_common(1)[0] if symbols else ("", 0)
    return symbol if count > 2 * HANDFUL else ""


def _symbol(text: str) -> str:
    """The symbol or unit beside a number."""
    if measured := _MEASURED.fullmatch(text):
        return measured[2]
    affixed = _AFFIXED.fullmatch(text)
    return text.replace(affixed[1], "").strip() if affixed else ""


def _core(text: str, unit: str | None = None) -> str:
    """The number in a text with a symbol or unit; if one is given, only with that one."""
    found = _MEASURED.fullmatch(text) or _AFFIXED.fullmatch(text)
    return found[1].strip() if found and unit in (None, _symbol(text)) else text


def _otherwise(text: str, marks: Cells) -> float | None:
    """The number in a text with a unit or with other marks."""
    affixed = _AFFIXED.fullmatch(text)
    if affixed is None:
        return None
    number = affixed[1].strip().replace("\u2212", "-")
    found = (_parsed(number, each) for each in (marks, *_FORMATS))
    return next((each for each in found if each is not None), None)


def are_codes(column: pd.Series[Any]) -> bool:
    """Whether a column's texts look like numbers and are codes, such as 007."""
    texts = _Texts.of(column)
    return texts is not None and texts.are_codes


def is_placeholder(text: str) -> bool:
    """Whether a text is a common word for a missing value."""
    return text.lower() in _MISSING_WORDS or not any(map(str.isalnum, text))


def _number(column: pd.Series[Any], replaced: dict[str, str], cells: Cells) -> Number | str:
    """The numbers, with the replacements also of those that are too large; or why the column is left out."""
    swapped = column
    if replaced:
        text = as_text(column)[0]
        swapped = text.map(lambda each: replaced.get(each, each), na_action="ignore")
        swapped = swapped.where(swapped != "", None).astype("str")
    values = as_numbers(swapped, cells)[0]
    huge = values.abs() > LARGEST
    infinite: dict[str, str] = {}
    if huge.any():
        texts = as_text(swapped)[0][huge].unique()
        if huge.sum() > MOST_ODD * values.notna().sum() or len(texts) > MOST_REPLACED:
            return f"left out, since {int(huge.sum())} values are infinite or beyond {LARGEST:g}"
        infinite = {str(each): "" for each in texts}
        values = values.mask(huge)
    seen = values.dropna().to_numpy(np.float64)
    if not len(seen):
        return "left out, since every value is missing"
    low, high = float(seen.min()), float(seen.max())
    if low == high and len(seen) == len(values):
        return f"left out, since it is {as_written(low)} in every row"
    notes = [f"seen {_shown(low)} to {_shown(high)}"]
    if infinite:
        notes.append(f"{int(huge.sum())} are infinite or beyond {LARGEST:g}, which become missing")
    notes += _sentinels(seen)
    return Number(values, "; ".join(notes), {**replaced, **infinite})


def identifies(name: str, seen: NDArray[np.floating[Any]]) -> bool:
    """Whether numbers identify the rows, with or without gaps."""
    if len(seen) < 3 or not (seen == np.round(seen)).all():
        return False
    steps = np.diff(seen)
    distinct = len(np.unique(seen))
    if distinct < len(seen):
        return bool(_IDENTIFIER.fullmatch(name) or name.endswith(("Id", "ID"))) and distinct > max(
            2 * HANDFUL, len(seen) / 2
        )
    if np.array_equal(np.sort(seen), np.arange(len(seen)) + seen.min()):
        return True
    in_order = len(seen) >= HANDFUL and bool((steps > 0).all() or (steps < 0).all())
    return in_order or bool(_IDENTIFIER.fullmatch(name) or name.endswith(("Id", "ID")))


def _sentinels(seen: NDArray[np.floating[Any]]) -> Iterator[str]:
    """Numbers such as -999 that are far from all others and may mean a missing value."""
    distinct, counts = np.unique(seen, return_counts=True)
    if len(distinct) < 4:
        return
    for place, inner in ((0, distinct[1:]), (-1, distinct[:-1])):
        value, gap = distinct[place], abs(distinct[place] - inner[place])
        if re.fullmatch(r"-?9{2,}|-1", as_written(float(value))) and (
            counts[place] > 1 and gap > inner[-1] - inner[0]
        ):
            text = as_written(float(value))
            yield (
                f"{text} ({times(int(counts[place]))}) is far from the others: if it means that there is no value, "
                f'replace "{text}" by ""'
            )


def _category(texts: _Texts, cells: Cells) -> tuple[dict[str, Any], str] | str:
    words = words_among(texts.counts, cells)
    counts = {each: count for each, count in texts.counts.items() if each not in words}
    total = sum(counts.values())
    if not counts:
        return "left out, since every value is missing"
    if len(counts) == 1 and total == texts.rows:
        return f"left out, since it is {_short(next(iter(counts)))} in every row"
    if len(counts) > 1 and all(_DATE.fullmatch(each) for each in counts):
        return (
            f"left out, since it holds dates or times that are not in ISO 8601: write them as {EXAMPLE[:10]} or {EXAMPLE} in the "
            "source, or a time of day as a number"
        )
    length = sum(len(each.split()) * count for each, count in counts.items()) / total
    few = len(counts) <= max(2, min(HANDFUL, total // 2))
    often = len(counts) <= MOST_CATEGORIES and total >= FEWEST_ROWS_EACH * len(counts)
    if not few and not often:
        return _not_categories(texts, counts)
    if length > 5 and len(counts) > HANDFUL:
        return f"left out, since its {len(counts)} different texts of {length:.0f} words on average are free text"
    categories = ordered(counts)
    feature = {"type": "category", "categories": categories, **_missing(texts.rows - total, texts.rows)}
    doubtful = [each for each in counts if is_placeholder(each)]
    note = f"{texts.shown(doubtful)} is a value here: data.missing can list it" if doubtful else ""
    return feature, note


def words_among(texts: Iterable[str], cells: Cells) -> set[str]:
    """The words for missing, without those that are codes like the other texts: NA between DE and FR."""
    others = [each for each in texts if each not in cells.missing]
    code = re.compile(r"[A-Z]{2}")
    codes = len(others) >= 3 and all(map(code.fullmatch, others))
    return {each for each in cells.missing if not (codes and code.fullmatch(each))}


def _not_categories(texts: _Texts, counts: dict[str, int]) -> str:
    total = sum(counts.values())
    if len(counts) == total:
        return f"left out, since its {total:,} texts all differ: an identifier or free text"
    numbers = [each for each in counts if _parsed(each, PLAIN) is not None]
    if len(numbers) > len(counts) / 2:
        odd = [each for each in counts if each not in set(numbers)]
        count = sum(counts[each] for each in numbers)
        if odd:
            return (
                f"left out, since {count:,} of {total:,} cells are numbers and the others are not: "
                f"{texts.shown(odd)}"
            )
    return (
        f"left out, since its {len(counts):,} different texts in {total:,} cells are too many for categories: "
        f"group them with data.replace{_shared(total, len(counts))}"
    )


def _shared(cells: int, distinct: int) -> str:
    """What to do about an identifier that several rows have."""
    if distinct == cells:
        return ""
    return "; draft with --group if rows of one value, such as a patient, belong together"


def ordered(values: Iterable[str]) -> list[str]:
    """Sorted texts, whole numbers by value, so that 10 follows 9."""
    texts = sorted(values)
    return (
        sorted(texts, key=int) if all(re.fullmatch(r"-?\d{1,9}", each, re.ASCII) for each in texts) else texts
    )


def _missing(count: int, rows: int) -> dict[str, float]:
    """The share of missing values, rounded up."""
    return {"missing": math.ceil(count / rows * 100 - 1e-9) / 100} if count else {}


def _padded(seen: NDArray[np.floating[Any]]) -> tuple[float, float]:
    low, high = float(seen.min()), float(seen.max())
    if set(np.unique(seen)) <= {0.0, 1.0}:
        return 0, 1
    span = (high - low) or abs(high) or 1.0
    digits = min(1 - math.floor(math.log10(span)), 30)
    if (seen == np.round(seen)).all():
        digits = min(digits, 0)
    wider_low = math.floor((low - span * WIDENED) * 10.0**digits) / 10.0**digits
    wider_high = math.ceil((high + span * WIDENED) * 10.0**digits) / 10.0**digits
    if low >= 0:
        wider_low = max(wider_low, 0.0)
    elif high <= 0:
        wider_high = min(wider_high, 0.0)
    return _tidy(min(wider_low, low)), _tidy(max(wider_high, high))


def _shown(value: float) -> str:
    """Round for display: 15.93 instead of 15.930000000000064."""
    return as_written(_tidy(float(f"{value:.12g}")))


def _tidy(value: float) -> float:
    """Whole numbers without decimals."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _is_plain(value: Any) -> bool:
    """Whether a cell of an untyped column is a text, a boolean or missing."""
    return isinstance(value, str | bool | np.bool_) or value is None or value is pd.NA or value != value  # noqa: PLR0124


def times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:27] + "…")
