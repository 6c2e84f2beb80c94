"""How the cells of a column of texts are read as numbers: marks for decimals and thousands, units, odd cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from app.cells import PLAIN, Cells, as_written
from training.draft.texts import FEWEST_ROWS_EACH, HANDFUL, MOST_ODD, MOST_REPLACED, Texts, is_placeholder

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
_AFFIXED = re.compile(r"[$€£¥]?\s*([+\u2212-]?[\d.,' \u00a0\u202f]*\d(?:[eE][+-]?\d+)?)\s*[%$€£¥]?")
_MEASURED = re.compile(r"([+\u2212-]?[\d.,' \u00a0\u202f]*\d)\s*([^\W\d_]{1,4}[²³]?|°[CF]?)")


@dataclass(frozen=True)
class Reading:
    """How the cells of a column of numbers are read.

    Attributes:
        texts: its cells.
        numbers: how many of them are numbers as they stand.
        placeholders: texts that mean that there is no value.
        example: what the marks make of a cell that is no number without them.
        unit: what stands beside most numbers, such as %, where there are more than a handful of them.
        readable: other texts that are a number otherwise, such as "12 %".
        others: texts that are not numbers.
    """

    texts: Texts
    numbers: int
    example: str
    placeholders: tuple[str, ...]
    unit: str
    readable: dict[str, float]
    others: tuple[str, ...]

    @classmethod
    def of(cls, texts: Texts, marks: Cells) -> Reading | None:
        """None if the column does not hold numbers."""
        unit = _unit(texts, marks)
        plain = {each for each in texts.counts if parsed(_core(each, unit), marks) is not None}
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
            if each in plain and parsed(_core(each, unit), PLAIN) != parsed(_core(each, unit), marks)
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


def best_marks(columns: Iterable[Texts], delimiter: str) -> Cells:
    """The marks for decimals and thousands with which the most cells are numbers."""
    formats = _FORMATS
    if delimiter == ";":
        formats = [PLAIN, *(each for each in _FORMATS if each.decimal == ","), *_FORMATS[1:]]
    scores = dict.fromkeys(range(len(formats)), 0)
    grouped = 0
    for texts in columns:
        odd = [each for each in texts.counts if parsed(each, PLAIN) is None and not is_placeholder(each)]
        if not odd and all("." not in each for each in texts.counts):
            continue
        plain = [each for each in texts.counts if parsed(each, PLAIN) is not None][:_SAMPLE]
        cells = [*plain, *odd[: 2 * _SAMPLE]]
        counts = [
            sum(texts.counts[each] for each in cells if parsed(_core(each), format_) is not None)
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


def parsed(text: str, cells: Cells) -> float | None:
    try:
        return cells.number(text)
    except ValueError:
        return None


def _unit(texts: Texts, marks: Cells) -> str:
    """The symbol beside numbers, if these are too many to replace one by one."""
    symbols = Counter(
        symbol
        for each in texts.counts
        if (symbol := _symbol(each)) and parsed(_core(each), marks) is not None
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
    found = (parsed(number, each) for each in (marks, *_FORMATS))
    return next((each for each in found if each is not None), None)
