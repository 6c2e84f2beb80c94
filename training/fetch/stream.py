"""A source as a stream of Arrow record batches, so that memory holds a part of it at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.base.errors import DataError
from training.data.memory import BLOCK

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = BLOCK
"""Rows of a row group of data/raw.parquet, and at most of a batch."""
BATCH_BYTES = 1 << 26
"""About what a batch holds at most."""
T = TypeVar("T")


@dataclass(frozen=True)
class Stream:
    """Rows in batches, which can be read once.

    Attributes:
        schema: of every batch.
        batches: at most about `BATCH_BYTES` each.
        delimiter: of a CSV file.
        rows: how many there are, if the source says so.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    delimiter: str = ""
    rows: int | None = None

    @classmethod
    def of(cls, table: pa.Table) -> Stream:
        """The rows of a table that is in memory."""
        return cls(table.schema, iter(table.to_batches(max_chunksize=ROW_GROUP)), rows=table.num_rows)


def row_groups(stream: Stream, rows: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The stream as tables of so many rows, each column in one chunk, however the source cut its batches."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for delivered in stream.batches:
        batch = delivered
        del delivered
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            batch = batch.slice(part.num_rows)
            waiting.append(part)
            count += part.num_rows
            del part
            if count == rows:
                yield _joined(waiting, stream.schema)
                count = 0
    if waiting:
        yield _joined(waiting, stream.schema)


def _joined(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The rows of batches as one table. The list is emptied, and a column is freed once it is copied."""
    import pyarrow as pa

    columns = [[each.column(place) for each in batches] for place in range(len(schema))]
    batches.clear()
    joined = []
    for place, field in enumerate(schema):
        joined.append(pa.chunked_array(columns[place], field.type).combine_chunks())
        columns[place] = []
    return pa.table(joined, schema=schema)


def sample(tables: Iterable[pa.Table], rows: int, seed: int = 7) -> Iterator[pa.Table]:
    """A random sample without replacement in the order of the rows; all rows where there are no more.

    Each row draws a number, and those with the smallest are kept. So the sample depends on the seed and the order of
    the rows, and memory holds at most twice the sample and one table.
    """
    import pyarrow as pa

    random = np.random.default_rng(seed)
    kept: list[pa.Table] = []
    drawn: list[NDArray[np.float64]] = []
    bound, held = np.inf, 0
    for table in tables:
        numbers = random.random(table.num_rows)
        places = np.flatnonzero(numbers < bound)
        if len(places):
            kept.append(table.take(places))
            drawn.append(numbers[places])
            held += len(places)
        del table
        if held > 2 * rows:
            kept, drawn = [_smallest(kept, drawn, rows)], [_numbers(drawn, rows)]
            bound, held = drawn[0].max(), rows
    if held > rows:
        kept = [_smallest(kept, drawn, rows)]
    if kept:
        yield pa.concat_tables(kept)


def _chosen(drawn: list[NDArray[np.float64]], rows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    numbers = np.concatenate(drawn)
    return numbers, np.sort(np.argpartition(numbers, rows - 1)[:rows])


def _smallest(tables: list[pa.Table], drawn: list[NDArray[np.float64]], rows: int) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).take(_chosen(drawn, rows)[1])


def _numbers(drawn: list[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    numbers, places = _chosen(drawn, rows)
    return numbers[places]


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, of which the next one is made in a thread while the current one is used."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item
            del item


def limited(stream: Stream, rows: int) -> Stream:
    """A seeded sample of a stream."""
    found = (batch for table in sample(row_groups(stream), rows) for batch in table.to_batches(ROW_GROUP))
    return Stream(stream.schema, found, stream.delimiter, rows=None)


def to_frame(stream: Stream) -> pd.DataFrame:
    """All rows in memory."""
    import pyarrow as pa

    # pandas' metadata would turn columns into an index.
    frame: pd.DataFrame = pa.Table.from_batches(stream.batches, stream.schema).to_pandas(ignore_metadata=True)
    return frame


def check_names(source: str, names: Iterable[str]) -> None:
    """Raise if two columns have one name."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{source} has more than one column called {', '.join(repeated)}: name each once")


def with_rows(source: str, stream: Stream) -> Stream:
    """The stream, which fails at its end if it had no rows."""

    def batches() -> Iterator[pa.RecordBatch]:
        count = 0
        for batch in stream.batches:
            count += batch.num_rows
            yield batch
            del batch
        if not count:
            raise DataError(f"{source} has no rows")

    return Stream(stream.schema, batches(), stream.delimiter, stream.rows)
