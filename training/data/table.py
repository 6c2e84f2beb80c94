"""Tables whose columns are read one at a time, because all of them may be larger than memory.

A stage handles them like a frame of which it only ever asks for a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from common import files
from training.data import memory

CHUNK = 8 * memory.BLOCK
"""Rows of a column that are converted at once."""


class Table(Protocol):
    """Named columns of equally many rows: a `pandas.DataFrame`, a `ParquetTable` or `Columns`."""

    @property
    def columns(self) -> Any: ...

    def __len__(self) -> int: ...

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: str) -> pd.Series[Any]: ...


class ParquetTable:
    """A file's columns, each read when it is asked for.

    Attributes:
        columns: their names.
    """

    def __init__(self, path: Path | IO[bytes]) -> None:
        self._file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        self.columns: list[str] = self._file.schema_arrow.names

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return _as_frame(self._file.read(columns=[name]))[name]

    def chunks(self, name: str) -> Iterator[pd.Series[Any]]:
        for batch in self._file.iter_batches(CHUNK, columns=[name]):
            yield _as_frame(pa.Table.from_batches([batch]))[name]

    def frames(self) -> Iterator[pd.DataFrame]:
        """All columns in blocks of rows."""
        for batch in self._file.iter_batches(memory.BLOCK):
            yield _as_frame(pa.Table.from_batches([batch]))

    def whole(self) -> pd.DataFrame:
        return _as_frame(self._file.read())

    def sample(self, most: int, seed: int = 0) -> pd.DataFrame:
        """All rows if there are at most so many, else so many at random, in their order."""
        if len(self) <= most:
            return self.whole()
        chosen = np.zeros(len(self), dtype=bool)
        chosen[np.random.default_rng(seed).choice(len(self), most, replace=False)] = True
        return pd.concat([frame[chosen[rows]] for rows, frame in frames(self)], ignore_index=True)


@dataclass(frozen=True)
class TableRows:
    """Some rows of a table, by their positions."""

    table: Table
    rows: NDArray[Any]

    @property
    def columns(self) -> Any:
        return self.table.columns

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return self.table[name].iloc[self.rows].reset_index(drop=True)


def take(table: Any, rows: NDArray[Any]) -> Any:
    """Some rows of a table by their positions; of a file, its columns are read when they are asked for."""
    if isinstance(table, pd.DataFrame):
        return table.iloc[rows]
    return (
        TableRows(table.table, table.rows[rows]) if isinstance(table, TableRows) else TableRows(table, rows)
    )


def frames(table: Any) -> Iterator[tuple[slice, pd.DataFrame]]:
    """All columns of a frame or a `ParquetTable` in blocks of rows, with their positions."""
    start = 0
    blocks = table.frames() if isinstance(table, ParquetTable) else [table]
    for frame in blocks:
        yield slice(start, start + len(frame)), frame
        start += len(frame)


def chunks(table: Table, name: str) -> Iterator[tuple[slice, pd.Series[Any]]]:
    """A column in pieces, with their positions; the index of a piece counts the rows from 1."""
    start = 0
    pieces = table.chunks(name) if isinstance(table, ParquetTable) else _pieces(table[name])
    for piece in pieces:
        stop = start + len(piece)
        yield slice(start, stop), piece.set_axis(pd.RangeIndex(start + 1, stop + 1), axis="index")
        start = stop


def _pieces(column: pd.Series[Any]) -> Iterator[pd.Series[Any]]:
    return (column.iloc[each] for each in memory.blocks(max(1, len(column)), CHUNK))


def _as_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=False)
    return frame


@dataclass(frozen=True)
class Column:
    """The values of a column as one array.

    Attributes:
        values: float64; int64, microseconds since 1970 in UTC; or int32, indices into the words with -1 where missing.
        words: of a column of texts.
    """

    values: NDArray[Any]
    words: pd.Index[Any] | None = None

    def series(self, rows: NDArray[Any] | slice | None = None) -> pd.Series[Any]:
        values = self.values if rows is None else self.values[rows]
        if self.words is not None:
            texts = (
                self.words.array.take(values, allow_fill=True) if len(self.words) else [None] * len(values)
            )
            return pd.Series(texts, dtype="str")
        if values.dtype == np.int64:
            return pd.Series(values.view("datetime64[us]")).dt.tz_localize("UTC")
        return pd.Series(values)


class Collector:
    """Collects a column of so many rows in pieces of the same kind: numbers, moments in UTC or texts.

    Attributes:
        filled: how many rows it has.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.filled = 0
        self._values: NDArray[Any] | None = None
        self._words: pd.Index[Any] | None = None

    def add(self, piece: pd.Series[Any]) -> None:
        values = self._plain(piece)
        if self._values is None:
            self._values = memory.empty((self._rows,), values.dtype, beside=True)
        self._values[self.filled : self.filled + len(values)] = values
        self.filled += len(values)

    def column(self) -> Column:
        values = np.empty(0) if self._values is None else self._values[: self.filled]
        return Column(values, self._words)

    def _plain(self, piece: pd.Series[Any]) -> NDArray[Any]:
        if isinstance(piece.dtype, pd.DatetimeTZDtype):
            return np.asarray(piece.dt.tz_localize(None), dtype="datetime64[us]").view(np.int64)
        if piece.dtype == np.float64:
            return np.asarray(piece)
        codes, found = pd.factorize(piece.astype("str"))
        if self._words is None:
            self._words = pd.Index(found, dtype="str")
        places = self._words.get_indexer(found)
        new = found[places < 0]
        places[places < 0] = len(self._words) + np.arange(len(new))
        self._words = self._words.append(pd.Index(new, dtype="str"))
        return np.asarray(np.append(places, -1)[codes], dtype=np.int32)


class Columns:
    """Columns that are kept in memory or in files, and some of their rows.

    Attributes:
        index: of each row, the number in the raw data, from 1.
    """

    def __init__(
        self, columns: dict[str, Column], index: NDArray[np.int64], rows: NDArray[np.int64] | None = None
    ) -> None:
        self._columns = columns
        self._rows = rows
        self.index = index

    @property
    def columns(self) -> list[str]:
        return [*self._columns]

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return self._columns[name].series(self._rows).rename(name)

    def where(self, mask: NDArray[np.bool_]) -> Self:
        """The rows for which a mask is true."""
        rows = np.flatnonzero(mask) if self._rows is None else self._rows[mask]
        return type(self)(self._columns, self.index[mask], rows)

    def assign(self, **columns: pd.Series[Any]) -> Self:
        """With further columns, which have a value for each of these rows."""
        added = {}
        for name, values in columns.items():
            collector = Collector(len(values))
            collector.add(values)
            added[name] = self._spread(collector.column())
        return type(self)(self._columns | added, self.index, self._rows)

    def _spread(self, column: Column) -> Column:
        """A column of these rows as one of all rows that are kept."""
        if self._rows is None:
            return column
        (some, *_) = self._columns.values()
        values = memory.empty((len(some.values),), column.values.dtype, beside=True)
        values[self._rows] = column.values
        return Column(values, column.words)

    def frame(self, block: slice) -> pd.DataFrame:
        """Some of the rows with all columns."""
        rows = block if self._rows is None else self._rows[block]
        return pd.DataFrame({name: column.series(rows) for name, column in self._columns.items()})

    def whole(self) -> pd.DataFrame:
        """All rows with all columns, by their number in the raw data."""
        return self.frame(slice(None)).set_axis(pd.Index(self.index), axis="index")

    def write(self, path: Path) -> None:
        """Write the rows as Parquet."""
        with files.replacing(path) as temporary:
            writer: pq.ParquetWriter | None = None
            for block in [*memory.blocks(len(self))] or [slice(0)]:
                rows = pa.Table.from_pandas(self.frame(block), preserve_index=False)
                writer = writer or pq.ParquetWriter(temporary, rows.schema)
                writer.write_table(rows)
            if writer is not None:
                writer.close()


def where(table: Any, mask: NDArray[np.bool_]) -> Any:
    """The rows of a frame or of `Columns` for which a mask is true, counted again from 0."""
    return table.where(mask) if isinstance(table, Columns) else table[mask].reset_index(drop=True)


def row_hashes(table: Table, names: Sequence[str]) -> NDArray[np.uint64]:
    """Two numbers of 64 bits for each row, shape (2, rows); rows have the same two if they are equal in the columns."""
    hashes = RowHashes(len(table))
    for name in names:
        for rows, piece in chunks(table, name):
            hashes.add(piece, rows.start)
    return hashes.values


class RowHashes:
    """Mixes the cells of rows, column by column, into two numbers of 64 bits each.

    Both together are as good as a comparison: among 10⁹ different rows, two are taken for equal with a probability of 10⁻²⁰.

    Attributes:
        values: shape (2, rows).
    """

    _FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))

    def __init__(self, rows: int) -> None:
        self.values = memory.empty((2, rows), np.uint64)
        self.values[:] = 0

    def __len__(self) -> int:
        return int(self.values.shape[1])

    def repeats(self) -> NDArray[np.bool_]:
        """Which rows are equal to an earlier one."""
        first, second = self.values
        order = np.lexsort((second, first))
        found = np.zeros(len(order), dtype=bool)
        same = (first[order[1:]] == first[order[:-1]]) & (second[order[1:]] == second[order[:-1]])
        found[order[1:][same]] = True
        return found

    def add(self, piece: pd.Series[Any], start: int, odd: pd.Series[Any] | None = None) -> None:
        """Mix in the cells of a column for the rows from a position.

        Args:
            piece: numbers, moments or texts.
            start: position of its first row.
            odd: cells of another type, which replace those with the same index.
        """
        hashed = _hashed(piece)
        if odd is not None and len(odd):
            # Lists and other values that pandas cannot compare.
            hashed[piece.index.get_indexer(odd.index)] = _hashed(odd.map(repr).astype("str"))
        for block in memory.blocks(len(piece)):
            cells = hashed[block]
            rows = slice(start + block.start, start + block.stop)
            first, second = self.values[0, rows], self.values[1, rows]
            first *= self._FACTORS[0]
            first ^= first >> np.uint64(29)
            first += cells
            second ^= cells
            second *= self._FACTORS[1]
            second ^= second >> np.uint64(32)


def _hashed(cells: pd.Series[Any]) -> NDArray[np.uint64]:
    plain: Any = cells.array
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        plain = cells.dt.tz_localize(None).to_numpy()
    elif cells.dtype == np.float64:
        plain = cells.to_numpy() + 0.0  # -0.0 equals 0.0
    return np.asarray(pd.util.hash_array(plain), dtype=np.uint64)
