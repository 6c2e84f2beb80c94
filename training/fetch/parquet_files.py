"""Reads Parquet as a stream: one file, or the files of a folder or a pattern, on this machine or in an object store.

Several files are read in the order of their names and have the same columns. The folders `KEY=VALUE` of a partitioned
data set become columns of text.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from training.base.errors import DataError
from training.fetch.objects import Bucket, Found
from training.fetch.stream import BATCH_BYTES, ROW_GROUP, Stream

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_PARTITION = "__HIVE_DEFAULT_PARTITION__"
WILDCARDS = re.compile(r"[*?\[]")
COLUMN_BYTES = 1 << 20
"""Of each column that are read at once, so that memory does not depend on the size of the file's row groups."""
_FOOTER_BYTES = 1 << 16


@dataclass(frozen=True)
class File:
    """A Parquet file.

    Attributes:
        name: for messages.
        inner: its path below the folder or the pattern's fixed part.
        footer: reads its metadata.
        local: gives a path on this machine while it is used.
    """

    name: str
    inner: str
    footer: Callable[[], pa.parquet.FileMetaData]
    local: Callable[[], AbstractContextManager[Path]]


def read(files: Sequence[File]) -> Stream:
    """Read files as one table.

    Raises:
        DataError: one is not Parquet, or has other columns than the first.
    """
    footers = [_footer(each) for each in files]
    schema, parts = _unified(files, [each.schema.to_arrow_schema() for each in footers])
    rows = sum(each.num_rows for each in footers)
    return Stream(schema, _batches(files, schema, parts), rows=rows)


def in_folder(folder: Path, pattern: str = "**/*.parquet") -> list[File]:
    """The Parquet files below a folder, sorted by name."""
    names = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    return [on_disk(folder / name, name) for name in _matching(names, pattern)]


def in_bucket(bucket: Bucket, folder: str, pattern: str = "**/*.parquet") -> list[File]:
    """The Parquet files below a folder of an object store, sorted by key."""
    found = {each.key[len(folder) :].lstrip("/"): each for each in bucket.listed(folder) if each.size}
    return [stored(bucket, found[name], name) for name in _matching(sorted(found), pattern)]


def split_pattern(text: str) -> tuple[str, str]:
    """The folder in front of a pattern's first wildcard, and the pattern below it."""
    first = WILDCARDS.search(text)
    end = text.rfind("/", 0, first.start()) if first else -1
    return text[:end] if end >= 0 else "", text[end + 1 :]


def on_disk(path: Path, inner: str = "") -> File:
    @contextmanager
    def local() -> Iterator[Path]:
        yield path

    return File(str(path), inner, lambda: _metadata(path), local)


def stored(bucket: Bucket, found: Found, inner: str = "") -> File:
    """An object. Its rows are read from a copy on disk, because Parquet is read in many small pieces."""

    @contextmanager
    def local() -> Iterator[Path]:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
            with bucket.opener(found)() as file:
                shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            yield Path(copy.name)

    def footer() -> Any:
        import pyarrow as pa

        end = bucket.tail(found, _FOOTER_BYTES)
        size = int.from_bytes(end[-8:-4], "little") + 8
        if end[-4:] == b"PAR1" and len(end) < size <= found.size:
            end = bucket.tail(found, size)
        # In front of the footer nothing is looked at.
        return _metadata(pa.BufferReader(b"PAR1" + end))

    return File(bucket.url(found.key), inner, footer, local)


def _metadata(where: Any) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(where) as file:
        return file.metadata


def _footer(file: File) -> Any:
    with _readable(file):
        return file.footer()


@contextmanager
def _readable(file: File) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{file.name} is not a Parquet file that can be read: {lines[0]}") from None


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    """The names that a pattern describes, without hidden files such as _SUCCESS."""
    expression = re.compile(_expression(pattern))
    return [
        name
        for name in names
        if expression.fullmatch(name)
        and not any(each.startswith((".", "_")) and "=" not in each for each in name.split("/"))
    ]


def _expression(pattern: str) -> str:
    """A pattern as a regular expression: * within a name, ** across folders."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        wildcards.get(each) or (each.replace("[!", "[^") if each.startswith("[") else re.escape(each))
        for each in parts
    )


def _partitions(inner: str) -> dict[str, str | None]:
    """The columns that a path `year=2024/month=01/part.parquet` has."""
    pairs = [each.split("=", 1) for each in PurePosixPath(inner).parent.parts if "=" in each]
    return {unquote(key): None if value == MISSING_PARTITION else unquote(value) for key, value in pairs}


def _unified(
    files: Sequence[File], schemas: Sequence[pa.Schema]
) -> tuple[pa.Schema, list[dict[str, str | None]]]:
    """The schema of all files, and each file's partition columns.

    Raises:
        DataError: a file has other columns than the first, or one of another type; names both.
    """
    import pyarrow as pa

    first = files[0]
    parts = [_partitions(each.inner) for each in files]
    for file, schema, part in zip(files, schemas, parts, strict=True):
        repeated = [each for each in schema.names if schema.names.count(each) > 1]
        if repeated:
            raise DataError(f"{file.name} has more than one column called {repeated[0]}: name each once")
        if list(part) != list(parts[0]):
            raise DataError(
                f"{file.name} is in folders of {', '.join(part) or 'no partition'}, and {first.name} in those of "
                f"{', '.join(parts[0]) or 'no partition'}: give all files the same folders"
            )
    fields = {each.name: pa.field(each.name, _plain(each.type)) for each in schemas[0]}
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        for name in fields:
            if name not in schema.names:
                raise DataError(f"{file.name} has no column {name!r}, which {first.name} has")
        for each in schema:
            if each.name not in fields:
                raise DataError(f"{file.name} has a column {each.name!r}, which {first.name} has not")
            known, other = fields[each.name], pa.field(each.name, _plain(each.type))
            try:
                schema_of_both = pa.unify_schemas(
                    [pa.schema([known]), pa.schema([other])], promote_options="permissive"
                )
            except pa.ArrowException:
                raise DataError(
                    f"{file.name}: column {each.name!r} is {other.type}, and in {first.name} {known.type}: "
                    "write both alike"
                ) from None
            fields[each.name] = schema_of_both.field(0)
    # A writer may keep the partition's column in the file, where it has a type.
    parts = [{key: value for key, value in part.items() if key not in fields} for part in parts]
    return pa.schema([*fields.values(), *(pa.field(key, pa.string()) for key in parts[0])]), parts


def _plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary of one file is not that of another, so their values are taken out."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _batches(
    files: Sequence[File], schema: pa.Schema, parts: Sequence[dict[str, str | None]]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file, part in zip(files, parts, strict=True):
        with (
            _readable(file),
            file.local() as path,
            # With a buffer before it, a row group would be read whole.
            pq.ParquetFile(path, buffer_size=COLUMN_BYTES, pre_buffer=False) as opened,
        ):
            for batch in opened.iter_batches(batch_size=_batch_rows(opened.metadata)):
                columns = [
                    _repeated(part[field.name], len(batch))
                    if field.name in part
                    else batch.column(batch.schema.get_field_index(field.name)).cast(field.type)
                    for field in schema
                ]
                yield pa.record_batch(columns, schema=schema)
                del batch, columns


def _batch_rows(metadata: Any) -> int:
    """How many rows make a batch of the usual size, by what the row groups say of theirs."""
    sizes = [metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups)]
    fitting: int = BATCH_BYTES * metadata.num_rows // max(1, sum(sizes))
    return max(1, min(ROW_GROUP, fitting))


def _repeated(value: str | None, count: int) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(count, pa.string()) if value is None else pa.repeat(pa.scalar(value, pa.string()), count)
