"""Finds the delimiter and the header of a CSV file in its first rows.

It refuses files that only look like a table (a title above the header, rows without a header), because they would
train a model on the wrong columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from app.cells import PLAIN
from training.base.errors import DataError

DELIMITERS = ",;\t|"
SAMPLE = 200
"""Rows that are examined to find the delimiter and the header."""
LONGEST_CELL = 1 << 25
"""Characters. A quote that is never closed would make one cell of the rest of the file."""

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Record:
    line: int
    """The record's first line in the file, from 1."""
    last_line: int
    fields: list[str]


@dataclass(frozen=True)
class Header:
    """What the first rows say of a file.

    Attributes:
        names: of the columns.
        delimiter: between fields.
        skipped: lines above the header.
        rows_start: where the rows begin, in characters.
    """

    names: tuple[str, ...]
    delimiter: str
    skipped: int
    rows_start: int


def find(name: str, text: str, *, complete: bool) -> Header:
    """Find the header in the beginning of a file.

    Args:
        name: of the file, for messages.
        text: the beginning.
        complete: whether it is the whole file.

    Raises:
        DataError: it has no header, or no rows; names the line and the remedy.
    """
    lines = io.StringIO(text, newline="")  # keeps line ends inside quotes
    declared = re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE)  # what Excel writes
    skipped = 1 if declared else 0
    if declared:
        lines.readline()
    start = lines.tell()
    delimiter = declared[1] if declared else _delimiter(text, complete=complete)
    header = next(records(lines, delimiter, skipped), None)
    if header is None:
        raise DataError(f"{name} is empty")
    position = lines.tell()
    lines.seek(start)
    sample = _sample(lines, delimiter, skipped, complete=complete)
    if len(sample) < 2:
        if not complete:
            raise DataError(
                f"{name}, line {header.line}: the first rows have more than {len(text):,} characters: "
                "is a quote opened and never closed?"
            )
        raise DataError(f"{name} has no rows: line {header.line} is the header, and nothing follows")
    _check(name, sample, delimiter)
    names = (each.strip() or f"unnamed_{place}" for place, each in enumerate(header.fields, start=1))
    return Header(tuple(names), delimiter, skipped, position)


def records(lines: io.TextIOBase, delimiter: str, skipped: int) -> Iterator[Record]:
    """The remaining lines as records, without blank lines; `skipped` lines were read before."""
    csv.field_size_limit(LONGEST_CELL)
    # A file without line ends is one line, whatever its size.
    reader = csv.reader(iter(lambda: lines.readline(LONGEST_CELL), ""), delimiter=delimiter)
    line = skipped
    for fields in reader:
        first, line = line + 1, skipped + reader.line_num
        if fields and (len(fields) > 1 or fields[0].strip()):
            yield Record(first, line, fields)


def described(delimiter: str) -> str:
    """A delimiter in a message: a comma, or the character in quotes."""
    return f"a {_NAMES[delimiter][:-1]}" if delimiter in _NAMES else repr(delimiter)


def counted(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"


def shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


def _sample(lines: io.StringIO, delimiter: str, skipped: int, *, complete: bool) -> list[Record]:
    """The first records; the last record of a beginning may be cut, and is left out."""
    found = list(islice(records(lines, delimiter, skipped), SAMPLE))
    return found if complete or len(found) == SAMPLE else found[:-1]


def _delimiter(text: str, *, complete: bool) -> str:
    """The delimiter that gives header and rows the same number of fields, and then the most fields."""

    def fitness(delimiter: str) -> tuple[bool, bool, bool, float, int]:
        sample = _sample(io.StringIO(text, newline=""), delimiter, 0, complete=complete)
        if not sample:
            return False, False, False, 0, 0
        header, width = len(sample[0].fields), _width(sample)
        share = sum(len(each.fields) == width for each in sample) / len(sample)
        return max(header, width) > 1, header == width, width > 1, share, width

    return max(DELIMITERS, key=fitness)


def _width(sample: list[Record]) -> int:
    """The most frequent number of fields in the rows; on a tie, the header's."""
    header = len(sample[0].fields)
    counts = Counter(len(each.fields) for each in sample[1:]) or Counter([header])
    return max(counts, key=lambda width: (counts[width], width == header))


def _check(name: str, sample: list[Record], delimiter: str) -> None:
    """Refuse a first line that is not a header."""
    header, *rows = sample
    width, fields = _width(sample), [each.strip() for each in header.fields]
    here = f"{name}, line {header.line}"
    shown = shortened(delimiter.join(fields))
    if len(fields) != width:
        for other in DELIMITERS.replace(delimiter, ""):
            if len(next(csv.reader([delimiter.join(fields)], delimiter=other))) == width > 1:
                raise DataError(
                    f"{here}: the header is delimited by {_NAMES[other]} and the rows by "
                    f"{_NAMES.get(delimiter, delimiter)}: write both alike"
                )
        if len(fields) == width - 1 > 1:
            raise DataError(
                f"{here}: the header has {len(fields)} names and the rows have {width} fields: "
                "name the first column too, it seems to hold row names"
            )
        if len(fields) < width:
            raise DataError(_title(here, shown, len(fields), sample))
    empty = fields.count("")
    if empty >= 2 and empty > len(fields) / 2 and all(each.strip() for each in rows[0].fields):
        raise DataError(_title(here, shown, len(fields) - empty, sample))
    if _is_data(fields, rows):
        raise DataError(
            f"{here}: {shown!r} looks like data and not like a header: put a line with the columns' names above it"
        )
    places: dict[str, list[int]] = {}
    for place, each in enumerate(fields, start=1):
        places.setdefault(each, []).append(place)
    for each, several in places.items():
        if each and len(several) > 1:
            raise DataError(
                f"{here}: more than one column called {each!r} (columns {', '.join(map(str, several))}): "
                "name each once"
            )


def _title(here: str, shown: str, count: int, sample: list[Record]) -> str:
    width = _width(sample)
    header = next((each for each in sample[1:] if len(each.fields) == width and all(each.fields)), None)
    guess = f" (probably line {header.line})" if header else ""
    return (
        f"{here}: {shown!r} has {counted(count)} and the rows below have {width}: it looks like a title; "
        f"delete the lines above the header{guess}"
    )


def _is_data(fields: list[str], rows: list[Record]) -> bool:
    """Whether a first line holds values: numbers that are not names, or values that its columns repeat below."""
    filled = [(place, each) for place, each in enumerate(fields) if each]
    numbers = [value for _, each in filled if (value := _number(each)) is not None]
    ascending = all(low < high for low, high in pairwise(numbers))
    if len(numbers) == len(filled):
        return bool(numbers) and not (
            ascending and len(numbers) > 1
        )  # years, wavelengths and places are names
    if numbers and not ascending and (len(set(numbers)) < len(numbers) or any(each % 1 for each in numbers)):
        return True
    return (
        bool(filled)
        and len(rows) > 1
        and all(
            _number(each) is not None
            or any(place < len(row.fields) and row.fields[place].strip() == each for row in rows)
            for place, each in filled
        )
        and len(filled) > 1
    )


def _number(text: str) -> float | None:
    try:
        return PLAIN.number(text)
    except ValueError:
        return None
