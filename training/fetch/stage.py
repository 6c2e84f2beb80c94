"""Fetches the declared source: `data.source` in params.yaml -> data/raw.parquet and data/raw.json.

Memory holds a part of the rows at a time. `data.rename` renames columns; `data.replace` then replaces values, by the new column names. A value replaced by ""
is missing. The same source gives the same bytes, so rows of a SQL query are sorted.

DVC watches only the folder data/source. After a change in a database, a bucket or another file, run
`dvc repro --force fetch`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from common import files
from training.base import cli, config
from training.base.errors import ConfigError, DataError
from training.base.progress import Progress, progress
from training.base.section import Settings
from training.data.columns import as_text, without_unit
from training.fetch import sources
from training.fetch.stream import ROW_GROUP, Stream, ahead, limited, row_groups, to_frame
from training.sections.data import DataSettings

if TYPE_CHECKING:
    import pyarrow as pa

WATCHED = Path("data/source")
LIMIT_ROWS = "ESPALIER_LIMIT_ROWS"
log = logging.getLogger(__name__)


class FetchSettings(Settings):
    data: DataSettings


def main() -> None:
    parser = cli.parser("training.fetch", __doc__)
    parser.add_argument(
        "--limit-rows", metavar="N", help=f"read a random sample of N rows; as {LIMIT_ROWS}=N"
    )
    limit = _limit(parser.parse_args().limit_rows or os.environ.get(LIMIT_ROWS))
    data = config.load(FetchSettings).data
    if not data.source.startswith("sklearn:") and not _watched(data.source):
        log.warning(
            "warning: DVC does not see when %s changes; `dvc repro --force fetch` reads it again%s",
            data.source.split(maxsplit=1)[0] + "…"
            if data.source.startswith(("sql:", "spark:"))
            else data.source,
            f" (it sees what is under {WATCHED}/)" if sources.is_file(data.source) else "",
        )
    write(data.source, stream(data, limit))


def fetch(data: DataSettings, rows: int | None = None) -> pd.DataFrame:
    """The declared source in memory, or a seeded sample of so many of its rows, with all changes."""
    return to_frame(stream(data, rows))


def stream(data: DataSettings, rows: int | None = None) -> Stream:
    """Open the source and apply `rename`, `units` and `replace` to its rows, or to a seeded sample of so many."""
    import pyarrow as pa

    found = sources.stream(data.source, data.encoding, data.feast)
    if rows is not None:
        found = limited(found, rows)
    names = renamed(found.schema.names, data.rename)
    changes = Changes(data.units, data.replace)
    for key, columns in (("units", data.units), ("replace", data.replace)):
        for name in columns:
            if name in data.rename and name not in names:
                raise ConfigError(
                    f"data.{key}: there is no column {name!r} after renaming; it is called {data.rename[name]!r} by then"
                )
            if name not in names:
                raise ConfigError(_unknown(key, name))
    schema = pa.schema(
        [
            pa.field(name, pa.string() if name in changes.columns else each.type)
            for name, each in zip(names, found.schema, strict=True)
        ]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in found.batches:
            yield pa.record_batch(
                [
                    _changed(changes, name, cells) if name in changes.columns else cells
                    for name, cells in zip(names, batch.columns, strict=True)
                ],
                schema=schema,
            )
            del batch
        changes.warn()

    return Stream(schema, batches(), rows=found.rows)


def renamed(names: Sequence[str], new_names: Mapping[str, str]) -> list[str]:
    """The names of columns after `data.rename`.

    Raises:
        ConfigError: a column is not there, or two would have one name.
    """
    unknown = [name for name in new_names if name not in names]
    if unknown:
        raise ConfigError(
            f"data.rename: the source has no column {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(str, names))}"
        )
    found = [new_names.get(name, name) for name in names]
    repeated = [str(name) for name, count in Counter(found).items() if count > 1]
    if repeated:
        raise ConfigError(f"data.rename: more than one column would be called {', '.join(repeated)}")
    return found


def rename(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """A frame with the columns' names after `data.rename`."""
    return frame.set_axis(renamed(list(frame.columns), names), axis="columns")


def remove_units(frame: pd.DataFrame, units: Mapping[str, str]) -> pd.DataFrame:
    """Remove the units of `data.units`. The column becomes text, which `prepare` reads like any other."""
    return _applied(frame, Changes(units, {}))


def replace(frame: pd.DataFrame, values_by_column: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Replace values as `data.replace` says. The column becomes text, which `prepare` reads like any other."""
    return _applied(frame, Changes({}, values_by_column))


def _applied(frame: pd.DataFrame, changes: Changes) -> pd.DataFrame:
    changed = frame.assign(**{name: changes.apply(name, frame[name]) for name in changes.columns})
    changes.warn()
    return changed


class Changes:
    """What `data.units` and `data.replace` do to cells, and which of them never occurred.

    Attributes:
        columns: that become text.
    """

    def __init__(self, units: Mapping[str, str], values: Mapping[str, Mapping[str, str]]) -> None:
        self.columns = {**dict.fromkeys(units), **dict.fromkeys(values)}
        self._units, self._values = units, values
        self._unseen = dict(units)
        self._unseen_values = {name: dict.fromkeys(each) for name, each in values.items()}

    def apply(self, name: str, column: pd.Series[Any]) -> pd.Series[Any]:
        """The cells of a column, or of a part of it."""
        if name in self._units:
            text = _text(column, name, "units")
            numbers = without_unit(text, self._units[name])
            if (numbers != text)[text.notna()].any():
                self._unseen.pop(name, None)
            column = numbers.astype("str")
        if name in self._values:
            values, unseen = self._values[name], self._unseen_values[name]
            text = _text(column, name, "replace")
            for value in [each for each in unseen if (text == each).any()]:
                del unseen[value]
            swapped = text.map(lambda value: values.get(value, value), na_action="ignore")
            column = swapped.where(swapped != "", None).astype("str")
        return column

    def warn(self) -> None:
        for name, unit in self._unseen.items():
            log.warning("warning: data.units.%s: %r stands beside no number", name, unit)
        for name, values in self._unseen_values.items():
            for value in values:
                log.warning("warning: data.replace.%s: the value %r does not occur", name, value)


def _changed(changes: Changes, name: str, cells: pa.Array) -> pa.Array:
    import pyarrow as pa

    # Integers with gaps stay integers.
    column = cells.to_pandas(integer_object_nulls=True)
    return pa.Array.from_pandas(changes.apply(name, column), type=pa.string())


def _text(column: pd.Series[Any], name: str, key: str) -> pd.Series[Any]:
    text, wrong = as_text(column)
    if wrong.any():
        raise DataError(f"data.{key}: column {name!r} holds {column.dtype}, and only text can be changed")
    return text


def _unknown(key: str, name: str) -> str:
    return f"data.{key}: there is no column {name!r} after renaming"


def write(source: str, found: Stream) -> None:
    """Write the rows to data/raw.parquet in row groups of `ROW_GROUP`, and what they are to data/raw.json.

    Memory holds a few row groups. The bytes depend on the rows alone.

    Raises:
        DataError: as the stream does. The files stay as they were.
    """
    from training.data.dataset import ORIGIN_FILE, RAW_FILE, Origin

    names = found.schema.names
    with files.replacing(RAW_FILE) as temporary:
        with progress("fetch", found.rows) as done:
            _write_parquet(temporary, found, done)
        with temporary.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
    origin = Origin(source=source, sha256=digest, rows=done.done, columns=tuple(names))
    files.write_text(ORIGIN_FILE, origin.model_dump_json(indent=2) + "\n")
    log.info("fetched %s: %s rows, %s columns -> %s", source, f"{done.done:,}", f"{len(names):,}", RAW_FILE)


def _write_parquet(path: Path, found: Stream, done: Progress) -> None:
    import pyarrow.parquet as pq

    with ExitStack() as opened:
        writer = None
        for table in ahead(row_groups(found)):
            if writer is None:
                writer = opened.enter_context(
                    pq.ParquetWriter(path, found.schema, use_dictionary=_repeating(table))
                )
            writer.write_table(table, row_group_size=ROW_GROUP)
            done.advance(table.num_rows)
            del table


def _repeating(table: pa.Table) -> list[str]:
    """The columns with few distinct values: a dictionary of others takes most of the time and is given up at last."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def repeats(column: pa.ChunkedArray) -> bool:
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_null(kind):
            return False
        return bool(pc.count_distinct(column).as_py() <= table.num_rows // 4)

    return [name for name, column in zip(table.column_names, table.columns, strict=True) if repeats(column)]


def _limit(text: str | None) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[1-9]\d{0,11}", text):
        raise ConfigError(f"--limit-rows (or {LIMIT_ROWS}): {text!r} is not a number of rows, such as 10000")
    return int(text)


def _watched(source: str) -> bool:
    return sources.is_file(source) and Path(source).resolve().is_relative_to(WATCHED.resolve())
