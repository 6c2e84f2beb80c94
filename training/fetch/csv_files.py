"""Reads a CSV file as text cells, and reports errors with their line in the file.

It detects the delimiter, and the encoding if there is a byte order mark. It refuses files that only look like a table
(a title above the header, rows without a header), because they would train a model on the wrong columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import pandas as pd

from app.cells import PLAIN
from training.base.errors import DataError

DELIMITERS = ",;\t|"
SAMPLE = 200
"""Rows that are examined to find the delimiter and the header."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, with whose mark it starts
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a Parquet file",
}
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class EncodingError(DataError):
    """The file is not in the requested encoding.

    Attributes:
        suggestion: an encoding in which it can be read.
    """

    def __init__(self, message: str, suggestion: str) -> None:
        super().__init__(f"{message}; set `data.encoding: {suggestion}`, or save it as CSV in UTF-8")
        self.suggestion = suggestion


@dataclass(frozen=True)
class Table:
    """The content of a file."""

    frame: pd.DataFrame
    delimiter: str = ""


def parse(name: str, content: bytes, encoding: str = "utf-8") -> Table:
    """Read a file's content; every cell is text, and an empty one is missing.

    Raises:
        EncodingError: it is in another encoding.
        DataError: it is not a table; names the line and the remedy.
    """
    text = _decode(name, content, encoding)
    lines = io.StringIO(text, newline="")  # keeps line ends inside quotes
    declared = re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE)  # what Excel writes
    skipped = 1 if declared else 0
    if declared:
        lines.readline()
    start = lines.tell()
    delimiter = declared[1] if declared else _delimiter(text)
    header = next(_records(lines, delimiter, skipped), None)
    if header is None:
        raise DataError(f"{name} is empty")
    position = lines.tell()
    lines.seek(start)
    sample = list(islice(_records(lines, delimiter, skipped), SAMPLE))
    if len(sample) < 2:
        raise DataError(f"{name} has no rows: line {header.line} is the header, and nothing follows")
    _check_header(name, sample, delimiter)
    names = [each.strip() or f"unnamed_{place}" for place, each in enumerate(header.fields, start=1)]
    lines.seek(position)
    frame = _parse_rows(lines.read(), len(names), delimiter)
    if frame is None or _ends_in_line_break(frame):
        lines.seek(start)
        frame = _parse_slowly(name, lines, delimiter, skipped)
    return Table(frame.set_axis(names, axis="columns"), delimiter)


@dataclass(frozen=True)
class _Record:
    line: int
    """The record's first line in the file, from 1."""
    last_line: int
    fields: list[str]


def _decode(name: str, content: bytes, encoding: str) -> str:
    for magic, what in _OTHER_FORMATS.items():
        if content.startswith(magic):
            raise DataError(f"{name} is not CSV: it is {what}; save it as CSV in UTF-8")
    marked = next((each for mark, each in _MARKS.items() if content.startswith(mark)), None)
    if marked is None and encoding.lower().replace("_", "-") in ("utf-8", "utf8") and b"\0" in content:
        zeros = content[:1000:2].count(0), content[1:1000:2].count(0)
        if max(zeros) > 5 * min(zeros) and max(zeros) > len(content[:1000]) / 5:
            guess = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
            raise EncodingError(f"{name} is not UTF-8: it looks like UTF-16 without a byte order mark", guess)
    try:
        text = content.decode(marked or encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{name}, line {line}: not {(marked or encoding).upper().removesuffix('-SIG')}"
        if marked is None and b"\0" not in content and _decodes(content, "cp1252"):
            raise EncodingError(message, "cp1252") from None
        raise DataError(f"{message}; save it as CSV in UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{name}, line {line}: not CSV: it holds a NUL character; save it as CSV in UTF-8")
    return text


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _records(lines: io.StringIO, delimiter: str, skipped: int) -> Iterator[_Record]:
    """The remaining lines as records, without blank lines; `skipped` lines were read before."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(iter(lines.readline, ""), delimiter=delimiter)
    line = skipped
    for fields in reader:
        first, line = line + 1, skipped + reader.line_num
        if fields and (len(fields) > 1 or fields[0].strip()):
            yield _Record(first, line, fields)


def _delimiter(text: str) -> str:
    """The delimiter that gives header and rows the same number of fields, and then the most fields."""

    def fitness(delimiter: str) -> tuple[bool, bool, bool, float, int]:
        sample = list(islice(_records(io.StringIO(text, newline=""), delimiter, 0), SAMPLE))
        if not sample:
            return False, False, False, 0, 0
        header, width = len(sample[0].fields), _width(sample)
        share = sum(len(each.fields) == width for each in sample) / len(sample)
        return max(header, width) > 1, header == width, width > 1, share, width

    return max(DELIMITERS, key=fitness)


def _width(sample: list[_Record]) -> int:
    """The most frequent number of fields in the rows; on a tie, the header's."""
    header = len(sample[0].fields)
    counts = Counter(len(each.fields) for each in sample[1:]) or Counter([header])
    return max(counts, key=lambda width: (counts[width], width == header))


def _check_header(name: str, sample: list[_Record], delimiter: str) -> None:
    """Refuse a first line that is not a header."""
    header, *rows = sample
    width, fields = _width(sample), [each.strip() for each in header.fields]
    here = f"{name}, line {header.line}"
    shown = _short(delimiter.join(fields))
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


def _title(here: str, shown: str, count: int, sample: list[_Record]) -> str:
    width = _width(sample)
    header = next((each for each in sample[1:] if len(each.fields) == width and all(each.fields)), None)
    guess = f" (probably line {header.line})" if header else ""
    return (
        f"{here}: {shown!r} has {_fields(count)} and the rows below have {width}: it looks like a title; "
        f"delete the lines above the header{guess}"
    )


def _is_data(fields: list[str], rows: list[_Record]) -> bool:
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


def _parse_rows(text: str, width: int, delimiter: str) -> pd.DataFrame | None:
    """The rows; None if some have another number of fields."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    places = [str(position) for position in range(width)]
    try:
        table = arrow.read_csv(
            io.BytesIO(text.encode()),
            read_options=arrow.ReadOptions(column_names=places),
            parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid:
        return None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _ends_in_line_break(frame: pd.DataFrame) -> bool:
    """Whether the last cell holds the rest of the file, as it does after a quote that is never closed."""
    last = frame.iloc[-1, -1]
    return isinstance(last, str) and "\n" in last


def _parse_slowly(name: str, lines: io.StringIO, delimiter: str, skipped: int) -> pd.DataFrame:
    """Parse record by record: slower, but it knows line numbers and accepts lines of blanks.

    Raises:
        DataError: a record has more or fewer fields than the header; names its line.
    """
    header, *rows = _records(lines, delimiter, skipped)
    width, last = len(header.fields), rows[-1]
    if last.last_line > last.line and _is_unclosed(lines.getvalue(), delimiter):
        raise DataError(f"{name}, line {last.line}: a quote is opened in this row and never closed")
    for each in rows:
        if len(each.fields) != width:
            mark = f"a {_NAMES[delimiter][:-1]}" if delimiter in _NAMES else repr(delimiter)
            raise DataError(
                f"{name}, line {each.line}: {_fields(len(each.fields))} where the header has {width}: "
                f"{_short(delimiter.join(each.fields))!r}; a cell with {mark} in it has to be quoted"
            )
    cells = [[field or None for field in each.fields] for each in rows]
    return pd.DataFrame(cells, dtype="str")


def _is_unclosed(text: str, delimiter: str) -> bool:
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
