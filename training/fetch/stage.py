"""Fetches the declared source: `data.source` in params.yaml -> data/raw.parquet and data/raw.json.

`data.rename` renames columns; `data.replace` then replaces values, by the new column names. A value replaced by ""
is missing. The same source gives the same bytes, so rows of a SQL query are sorted.

DVC watches only the folder data/source. After a change in a database, a bucket or another file, run
`dvc repro --force fetch`.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from common import files
from training.base import cli, config
from training.base.errors import ConfigError, DataError
from training.base.section import Settings
from training.data.columns import as_text, without_unit
from training.fetch import sources
from training.sections.data import DataSettings

WATCHED = Path("data/source")
log = logging.getLogger(__name__)


class FetchSettings(Settings):
    data: DataSettings


def main() -> None:
    cli.parser("training.fetch", __doc__).parse_args()
    data = config.load(FetchSettings).data
    if not data.source.startswith("sklearn:") and not _watched(data.source):
        log.warning(
            "warning: DVC does not see when %s changes; `dvc repro --force fetch` reads it again%s",
            data.source.split(maxsplit=1)[0] + "…" if data.source.startswith("sql:") else data.source,
            f" (it sees what is under {WATCHED}/)" if sources.is_file(data.source) else "",
        )
    write(data.source, fetch(data))


def fetch(data: DataSettings) -> pd.DataFrame:
    """Read the source and apply `rename`, `units` and `replace`."""
    frame = rename(sources.read(data.source, data.encoding), data.rename)
    for key, columns in (("units", data.units), ("replace", data.replace)):
        for name in columns:
            if name in data.rename and name not in frame.columns:
                raise ConfigError(
                    f"data.{key}: there is no column {name!r} after renaming; it is called {data.rename[name]!r} by then"
                )
    return replace(remove_units(frame, data.units), data.replace)


def rename(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    unknown = [name for name in names if name not in frame.columns]
    if unknown:
        raise ConfigError(
            f"data.rename: the source has no column {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(str, frame.columns))}"
        )
    renamed = frame.rename(columns=names)
    repeated = [str(name) for name, count in Counter(renamed.columns).items() if count > 1]
    if repeated:
        raise ConfigError(f"data.rename: more than one column would be called {', '.join(repeated)}")
    return renamed


def remove_units(frame: pd.DataFrame, units: Mapping[str, str]) -> pd.DataFrame:
    """Remove the units of `data.units`. The column becomes text, which `prepare` reads like any other."""
    frame = frame.copy()
    for name, unit in units.items():
        text = _text(frame, name, "units")
        numbers = without_unit(text, unit)
        if not (numbers != text)[text.notna()].any():
            log.warning("warning: data.units.%s: %r stands beside no number", name, unit)
        frame[name] = numbers.astype("str")
    return frame


def replace(frame: pd.DataFrame, values_by_column: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Replace values as `data.replace` says. The column becomes text, which `prepare` reads like any other."""
    frame = frame.copy()
    for name, values in values_by_column.items():
        text = _text(frame, name, "replace")
        for value in values:
            if not (text == value).any():
                log.warning("warning: data.replace.%s: the value %r does not occur", name, value)
        swapped = text.map(lambda value, values=values: values.get(value, value), na_action="ignore")
        frame[name] = swapped.where(swapped != "", None).astype("str")
    return frame


def _text(frame: pd.DataFrame, name: str, key: str) -> pd.Series[Any]:
    if name not in frame.columns:
        raise ConfigError(f"data.{key}: there is no column {name!r} after renaming")
    text, wrong = as_text(frame[name])
    if wrong.any():
        raise DataError(
            f"data.{key}: column {name!r} holds {frame[name].dtype}, and only text can be changed"
        )
    return text


def write(source: str, frame: pd.DataFrame) -> None:
    from training.data.dataset import ORIGIN_FILE, RAW_FILE, Origin

    frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    with files.replacing(RAW_FILE) as temporary:
        _write_parquet(temporary, frame)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    origin = Origin(source=source, sha256=digest, rows=len(frame), columns=tuple(frame.columns))
    files.write_text(ORIGIN_FILE, origin.model_dump_json(indent=2) + "\n")
    log.info("fetched %s: %d rows, %d columns -> %s", source, len(frame), len(frame.columns), RAW_FILE)


def _write_parquet(path: Path, frame: pd.DataFrame) -> None:
    import pyarrow as pa

    try:
        frame.to_parquet(path, engine="pyarrow", index=False)
    except (pa.ArrowException, OverflowError) as error:
        # pyarrow's message ends with the column at fault.
        raise DataError(
            f"the source holds values that are no table cells: {' '.join(map(str, error.args))}"
        ) from None


def _watched(source: str) -> bool:
    return sources.is_file(source) and Path(source).resolve().is_relative_to(WATCHED.resolve())
