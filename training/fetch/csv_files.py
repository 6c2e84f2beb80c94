"""Reads a CSV file as a stream of text cells, and reports errors with their line in the file.

Arrow's reader is fast and does not know line numbers. When it finds something wrong, the file is read a second time,
record by record, to name the line; memory holds a part of the file in both.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from training.base.errors import DataError
from training.fetch import csv_header
from training.fetch.csv_header import Header, counted, described, shortened
from training.fetch.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

Opener = Callable[[], BinaryIO]
"""Opens the file from its start; `read(n)` returns fewer bytes only at its end."""

HEAD_BYTES = 1 << 22
"""What is examined to find encoding, delimiter and header."""
BLOCK_BYTES = 1 << 20
SLOW_ROWS = 8192
"""Rows of a batch where Arrow cannot read the file."""

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


class EncodingError(DataError):
    """The file is not in the requested encoding.

    Attributes:
        suggestion: an encoding in which it can be read.
    """

    def __init__(self, message: str, suggestion: str) -> None:
        super().__init__(f"{message}; set `data.encoding: {suggestion}`, or save it as CSV in UTF-8")
        self.suggestion = suggestion


def read(name: str, opener: Opener, encoding: str = "utf-8") -> Stream:
    """Read a file; every cell is text, and an empty one is missing.

    Args:
        name: of the file, for messages.
        opener: opens it. It is called again to find the line of an error.
        encoding: unless the file has a byte order mark.

    Raises:
        EncodingError: it is in another encoding.
        DataError: it is not a table; names the line and the remedy. The stream raises both, too.
    """
    import pyarrow as pa

    with ExitStack() as unless_opened:
        file = unless_opened.enter_context(opener())
        start = file.read(HEAD_BYTES)
        if not start.strip():
            raise DataError(f"{name} is empty")
        codec = _codec(name, start, encoding)
        complete = len(start) < HEAD_BYTES
        text = _Utf8(file, codec)
        source = _File(name, opener, codec)
        try:
            head = text.first(start, final=complete)
        except (UnicodeDecodeError, _NulError):
            source.check_text()
            raise
        header = csv_header.find(name, head, complete=complete)
        unless_opened.pop_all()
    text.waiting = head[header.rows_start :].encode() + text.waiting
    schema = pa.schema([(each, pa.string()) for each in header.names])
    return Stream(schema, _rows(source, text, header, schema), header.delimiter)


class _NulError(ValueError):
    """The text has a NUL character."""


class _Utf8(io.RawIOBase):
    """The rest of a file as UTF-8, for Arrow."""

    def __init__(self, file: BinaryIO, codec: str) -> None:
        self._file = file
        self._is_utf8 = codecs.lookup(codec.removesuffix("-sig")).name == "utf-8"
        self._decoder = codecs.getincrementaldecoder(codec)()
        self.waiting = b""
        """What comes before the rest."""

    def first(self, start: bytes, *, final: bool) -> str:
        """Decode the beginning. The bytes of a character that is cut wait."""
        text = self._decoder.decode(start, final)
        if "\0" in text:
            raise _NulError
        if self._is_utf8:
            self.waiting = self._decoder.getstate()[0]
        return text

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def read(self, size: int = -1) -> bytes:
        content, self.waiting = self.waiting, b""
        while not content:
            content = self._file.read(size)
            if not content and self._is_utf8:
                return b""
            if not self._is_utf8:
                final = not content
                content = self._decoder.decode(content, final).encode()
                if final:
                    break
        if b"\0" in content:
            raise _NulError
        return content


def _rows(source: _File, text: _Utf8, header: Header, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    delivered = 0
    last = None
    try:
        for batch in _parsed(text, header):
            if last is not None:
                yield pa.record_batch(last.columns, schema=schema)
                delivered += last.num_rows
            last = batch
        if last is not None and not _ends_in_line_break(last):
            yield pa.record_batch(last.columns, schema=schema)
            return
    except (pa.ArrowInvalid, UnicodeDecodeError, _NulError):
        # Arrow's message does not say where.
        source.check_text()
    finally:
        text.close()
    yield from _slow_rows(source, header, schema, delivered)


def _parsed(text: _Utf8, header: Header) -> Iterator[pa.RecordBatch]:
    """The rows as Arrow reads them; an error if some have another number of fields."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    places = [str(position) for position in range(len(header.names))]
    reader = arrow.open_csv(
        text,
        read_options=arrow.ReadOptions(column_names=places, block_size=BLOCK_BYTES),
        parse_options=arrow.ParseOptions(
            delimiter=header.delimiter,
            newlines_in_values=True,
            # A line of blanks is no row.
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",
        ),
        convert_options=arrow.ConvertOptions(
            column_types=dict.fromkeys(places, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )
    for batch in reader:
        if batch.num_rows:
            yield batch


def _ends_in_line_break(batch: pa.RecordBatch) -> bool:
    """Whether the last cell holds the rest of the file, as it does after a quote that is never closed."""
    last = batch.column(batch.num_columns - 1)[-1].as_py()
    return isinstance(last, str) and "\n" in last


def _slow_rows(source: _File, header: Header, schema: pa.Schema, delivered: int) -> Iterator[pa.RecordBatch]:
    """The rows record by record: slower, but it knows line numbers.

    Args:
        source: the file.
        header: of the file.
        schema: of the batches.
        delivered: rows that need not be delivered again.

    Raises:
        DataError: a record has more or fewer fields than the header; names its line.
    """
    import pyarrow as pa

    records = source.records(header)
    for _ in islice(records, delivered):
        pass
    while rows := list(islice(records, SLOW_ROWS)):
        columns = zip(*rows, strict=True)
        yield pa.record_batch([pa.array(each, pa.string()) for each in columns], schema=schema)


class _File:
    """A file that is read again to find out where it is wrong."""

    def __init__(self, name: str, opener: Opener, codec: str) -> None:
        self._name, self._opener, self._codec = name, opener, codec
        self._marked = codec in _MARKS.values()

    def check_text(self) -> None:
        """Raise if the file is not text in its encoding; the message has the line."""
        decoder = codecs.getincrementaldecoder(self._codec)()
        line = 1
        with self._opener() as file:
            for block in _blocks(file):
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(block, not block)
                except UnicodeDecodeError as error:
                    line += block.count(b"\n", 0, max(0, error.start - pending))
                    self._refuse_encoding(line)
                if "\0" in text:
                    line += text.count("\n", 0, text.index("\0"))
                    raise DataError(
                        f"{self._name}, line {line}: not CSV: it holds a NUL character; save it as CSV in UTF-8"
                    ) from None
                line += text.count("\n")

    def _refuse_encoding(self, line: int) -> None:
        message = f"{self._name}, line {line}: not {self._codec.upper().removesuffix('-SIG')}"
        if not self._marked and self._decodes("cp1252"):
            raise EncodingError(message, "cp1252") from None
        raise DataError(f"{message}; save it as CSV in UTF-8") from None

    def _decodes(self, encoding: str) -> bool:
        decoder = codecs.getincrementaldecoder(encoding)()
        with self._opener() as file:
            try:
                return all("\0" not in decoder.decode(block, not block) for block in _blocks(file))
            except UnicodeDecodeError:
                return False

    def records(self, header: Header) -> Iterator[list[str | None]]:
        """The rows' cells.

        Raises:
            DataError: a record has more or fewer fields than the header, or a quote is never closed; names its line.
        """
        width, delimiter = len(header.names), header.delimiter
        line = header.skipped
        with self._text() as lines:
            for _ in range(header.skipped):
                lines.readline()
            found = csv_header.records(lines, delimiter, header.skipped)
            next(found)
            held = None
            try:
                for each in found:
                    if held is not None:
                        yield self._cells(held, width, delimiter)
                    held, line = each, each.last_line
            except csv.Error:
                # A cell is longer than any is.
                self._refuse_quote(line + 1)
            if held is None:
                return
            if held.last_line > held.line and self._is_unclosed(delimiter):
                self._refuse_quote(held.line)
            yield self._cells(held, width, delimiter)

    def _cells(self, record: csv_header.Record, width: int, delimiter: str) -> list[str | None]:
        fields = record.fields
        if len(fields) != width:
            raise DataError(
                f"{self._name}, line {record.line}: {counted(len(fields))} where the header has {width}: "
                f"{shortened(delimiter.join(fields))!r}; a cell with {described(delimiter)} in it has to be quoted"
            )
        return [field or None for field in fields]

    def _refuse_quote(self, line: int) -> None:
        raise DataError(
            f"{self._name}, line {line}: a quote is opened in this row and never closed"
        ) from None

    def _is_unclosed(self, delimiter: str) -> bool:
        try:
            with self._text() as lines:
                cut = iter(lambda: lines.readline(csv_header.LONGEST_CELL), "")
                for _ in csv.reader(cut, delimiter=delimiter, strict=True):
                    pass
        except csv.Error as error:
            return "unexpected end of data" in str(error)
        return False

    def _text(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(_buffered(self._opener()), encoding=self._codec, newline="")


def _codec(name: str, start: bytes, encoding: str) -> str:
    """The encoding of a file, from its mark or as it is declared."""
    for magic, what in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise DataError(f"{name} is not CSV: it is {what}; save it as CSV in UTF-8")
    marked = next((each for mark, each in _MARKS.items() if start.startswith(mark)), None)
    if marked is None and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        zeros = start[:1000:2].count(0), start[1:1000:2].count(0)
        if max(zeros) > 5 * min(zeros) and max(zeros) > len(start[:1000]) / 5:
            guess = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
            raise EncodingError(f"{name} is not UTF-8: it looks like UTF-16 without a byte order mark", guess)
    return marked or encoding


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The file in blocks, the last of which is empty."""
    yield from iter(partial(file.read, BLOCK_BYTES), b"")
    yield b""


def _buffered(file: BinaryIO) -> Any:
    return file if hasattr(file, "read1") else io.BufferedReader(file)
