"""Sorts rows that arrive in any order, on disk where memory cannot hold them.

A database may send the same rows in another order every time. Nulls come first, then numbers, texts and times by value,
column by column.
"""

from __future__ import annotations

import math
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import DataError
from training.base.progress import progress
from training.fetch.stream import ROW_GROUP, Stream, check_names

if TYPE_CHECKING:
    import pyarrow as pa

RUN_BYTES = 1 << 27
"""About what is sorted in memory at once."""
CHUNK_ROWS = 16_384
"""Rows of Python objects that are converted at once."""

_NUMBERS = {int, float}
_WRITABLE = {str, int, float, bool}
"""Types whose values become text where they share a column, as SQLite allows."""


@dataclass
class _Chunk:
    """Rows as they came.

    Attributes:
        rows: their number.
        path: of an Arrow file with them, or the table itself while it is the only one.
        kinds: the Python types in each column. More than one: the column holds text.
        types: of Arrow, as stored.
    """

    rows: int
    size: int
    stored: pa.Table | Path
    kinds: list[set[type]]
    types: list[pa.DataType]

    def table(self) -> pa.Table:
        import pyarrow as pa

        if not isinstance(self.stored, Path):
            return self.stored
        with pa.ipc.open_file(self.stored) as file:
            found = file.read_all()
        self.stored.unlink()
        return found


class Spool:
    """Takes rows in any order and gives them back sorted.

    Args:
        source: for messages and names of columns.
        names: of the columns.
    """

    def __init__(self, source: str, names: Sequence[str]) -> None:
        check_names(source, names)
        self._source = source
        self._names = list(names)
        self._places = [str(place) for place in range(len(names))]
        self._chunks: list[_Chunk] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add_rows(self, results: Iterator[Sequence[Sequence[Any]]]) -> Spool:
        """Add rows of Python objects, in lists of at most `CHUNK_ROWS`."""
        with progress("query") as done:
            for rows in results:
                columns = [_column(cells) for cells in zip(*rows, strict=True)]
                for name, (_, kinds) in zip(self._names, columns, strict=True):
                    if len(kinds) > 1 and not kinds <= _WRITABLE:
                        raise self._no_cells(
                            name, f"of {' and '.join(sorted(each.__name__ for each in kinds))}"
                        )
                arrays = [
                    self._array(name, cells) for name, (cells, _) in zip(self._names, columns, strict=True)
                ]
                self._keep(arrays, [kinds for _, kinds in columns])
                done.advance(len(rows))
        return self

    def add_batches(self, batches: Iterator[pa.RecordBatch | pa.Table]) -> Spool:
        """Add rows in batches of Arrow, whose types may differ."""
        import pyarrow as pa

        with progress("query") as done:
            for batch in batches:
                arrays = [
                    pa.chunked_array(each) if isinstance(each, pa.Array) else each for each in batch.columns
                ]
                self._keep([_undecimal(each) for each in arrays], [set() for _ in arrays])
                done.advance(batch.num_rows)
        return self

    def stream(self) -> Stream:
        """The rows, sorted.

        Raises:
            DataError: a column holds values that are no table cells, or of several types.
        """
        import pyarrow as pa

        fields = [
            pa.field(place, self._type(index, self._names[index])) for index, place in enumerate(self._places)
        ]
        final, named = (
            pa.schema(fields),
            pa.schema([pa.field(name, each.type) for name, each in zip(self._names, fields, strict=True)]),
        )
        count = sum(each.rows for each in self._chunks)
        if not count:
            return Stream(named, iter(()), rows=0)
        runs = list(self._runs(final))
        batches = (
            runs[0].to_batches(max_chunksize=ROW_GROUP)
            if len(runs) == 1 and isinstance(runs[0], pa.Table)
            else self._merged([each for each in runs if isinstance(each, Path)])
        )
        return Stream(named, (pa.record_batch(each.columns, schema=named) for each in batches), rows=count)

    def _keep(self, columns: Sequence[Any], kinds: list[set[type]]) -> None:
        import pyarrow as pa

        table = pa.table(list(columns), names=self._places)
        if self._chunks and not isinstance(self._chunks[0].stored, Path):
            self._chunks[0].stored = self._written(self._chunks[0].stored, "chunk-0")
        stored = self._written(table, f"chunk-{len(self._chunks)}") if self._chunks else table
        self._chunks.append(
            _Chunk(table.num_rows, table.nbytes, stored, kinds, [each.type for each in table.schema])
        )

    def _written(self, table: pa.Table, name: str) -> Path:
        import pyarrow as pa

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="espalier-")
        path = Path(self._folder.name) / f"{name}.arrow"
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=CHUNK_ROWS)
        return path

    def _array(self, name: str, cells: Sequence[Any]) -> pa.Array:
        import pyarrow as pa

        try:
            return pa.array(cells)
        except (pa.ArrowException, OverflowError) as error:
            raise self._no_cells(name, str(error)) from None

    def _no_cells(self, name: str, why: str) -> DataError:
        return DataError(
            f"the source holds values that are no table cells: {why.splitlines()[0]} (column {name!r})"
        )

    def _type(self, index: int, name: str) -> pa.DataType:
        """The type of a column: numbers of both kinds are floats, other mixtures of plain values are text."""
        import pyarrow as pa

        kinds: set[type] = set().union(*(each.kinds[index] for each in self._chunks))
        if kinds == _NUMBERS:
            return pa.float64()
        if len(kinds) > 1 and kinds <= _WRITABLE:
            return pa.string()
        found = {each.types[index] for each in self._chunks if not pa.types.is_null(each.types[index])}
        if any(pa.types.is_timestamp(each) and each.tz for each in found) and len(found) > 1:
            found = {
                pa.timestamp(each.unit, "UTC") if pa.types.is_timestamp(each) else each for each in found
            }
        try:
            return (
                pa.unify_schemas(
                    [pa.schema([("x", each)]) for each in [pa.null(), *sorted(found, key=str)]],
                    promote_options="permissive",
                )
                .field(0)
                .type
            )
        except pa.ArrowException:
            raise self._no_cells(name, f"of {' and '.join(sorted(map(str, found)))}") from None

    def _runs(self, final: pa.Schema) -> Iterator[pa.Table | Path]:
        """The chunks, converted and sorted in parts that memory can hold."""
        import pyarrow as pa

        part: list[pa.Table] = []
        size = number = 0
        for place, chunk in enumerate(self._chunks):
            part.append(_converted(chunk.table(), chunk, final))
            size += chunk.size
            if size >= RUN_BYTES or place == len(self._chunks) - 1:
                table = pa.concat_tables(part).combine_chunks()
                part = []
                table = table.take(_order(table))
                if place == len(self._chunks) - 1 and not number:
                    yield table
                    return
                yield self._written(table, f"run-{number}")
                number, size = number + 1, 0
                del table

    def _merged(self, paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """The rows of sorted files, sorted: what is not above the smallest last row of all blocks comes next."""
        import pyarrow as pa

        rows = max(256, ROW_GROUP // len(paths))
        with self._folder or nullcontext():
            runs = [_Run(each, rows) for each in paths]
            while runs:
                last = min(each.key(each.block.num_rows - 1) for each in runs)
                parts = [part for each in runs if (part := each.take(last)) is not None]
                table = pa.concat_tables(parts)
                yield from table.take(_order(table)).combine_chunks().to_batches()
                runs = [each for each in runs if each.block.num_rows]


class _Run:
    """A sorted file, of which a block is in memory."""

    def __init__(self, path: Path, rows: int) -> None:
        import pyarrow as pa

        self._file = pa.ipc.open_file(pa.OSFile(str(path)))
        self._rows = rows
        self._next = 0
        self.block: pa.Table = self._read()

    def key(self, row: int) -> _Key:
        return _Key(self.block, row)

    def take(self, last: _Key) -> pa.Table | None:
        """The rows of the block up to a row, which leave it; a block that is empty is replaced."""
        count = bisect_right(range(self.block.num_rows), last, key=self.key)
        if not count:
            return None
        taken = self.block.slice(0, count)
        self.block = self.block.slice(count)
        if not self.block.num_rows:
            self.block = self._read()
        return taken

    def _read(self) -> pa.Table:
        import pyarrow as pa

        found, count = [], 0
        while self._next < self._file.num_record_batches and count < self._rows:
            found.append(self._file.get_batch(self._next))
            count += found[-1].num_rows
            self._next += 1
        return pa.Table.from_batches(found, self._file.schema)


class _Key:
    """A row, compared as Arrow compares rows: nulls first, then NaN, then values."""

    def __init__(self, table: pa.Table, row: int) -> None:
        self._table, self._row = table, row

    def __lt__(self, other: _Key) -> bool:
        for mine, theirs in zip(self._table.columns, other._table.columns, strict=True):
            if not _is_sortable(mine.type):
                continue
            left, right = _rank(mine[self._row].as_py()), _rank(theirs[other._row].as_py())
            if left != right:
                return left < right
        return False


def _rank(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    return (1,) if isinstance(value, float) and math.isnan(value) else (2, value)


def _is_sortable(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_null(kind))


def _order(table: pa.Table) -> Any:
    import pyarrow.compute as pc

    keys = [(each.name, "ascending", "at_start") for each in table.schema if _is_sortable(each.type)]
    if not keys:
        return list(range(table.num_rows))
    return pc.sort_indices(table, sort_keys=keys)


def _column(cells: Sequence[Any]) -> tuple[Sequence[Any], set[type]]:
    """Cells that Arrow takes, and their types: decimals are floats, and plain values of several types are text."""
    kinds = {type(cell) for cell in cells} - {type(None)}
    if Decimal in kinds:
        cells = [float(cell) if isinstance(cell, Decimal) else cell for cell in cells]
        kinds = (kinds - {Decimal}) | {float}
    if len(kinds) > 1 and kinds <= _WRITABLE:
        return [None if cell is None else str(cell) for cell in cells], kinds
    return cells, kinds


def _undecimal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column


def _converted(table: pa.Table, chunk: _Chunk, final: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = []
    for column, kinds, field in zip(table.columns, chunk.kinds, final, strict=True):
        if pa.types.is_string(field.type) and kinds and kinds != {str} and len(kinds) == 1:
            # As Python writes them, because chunks with several types have such text.
            texts = [None if each is None else str(each) for each in column.to_pylist()]
            columns.append(pa.chunked_array([pa.array(texts, pa.string())]))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, schema=final)
