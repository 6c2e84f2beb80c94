"""Opens the declared source as a stream: a bundled set, files, objects, or the answer to a query.

Cells are not interpreted here: in a CSV file every cell stays text, so 007 keeps its zeros and "True" stays a word.
`prepare` reads each column as the schema declares it. Only an empty cell is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from training.base.errors import ConfigError, DataError
from training.fetch import csv_files, databases, feature_store, parquet_files, spark
from training.fetch.objects import SCHEMES, Bucket
from training.fetch.stream import Stream, check_names, limited, to_frame, with_rows
from training.sections.data import FeastSettings

SKLEARN_SETS = ("iris", "wine", "breast_cancer", "digits", "diabetes")
KINDS = (
    "sklearn:NAME, a path to a .csv or .parquet file or to a folder of Parquet files, the same in s3://bucket/…, "
    "gs://bucket/… or az://container/…, sql:SELECT …, spark:SELECT … or feast:FEATURE_SERVICE"
)


@dataclass(frozen=True)
class Table:
    """Rows in memory.

    Attributes:
        frame: the rows.
        delimiter: of a CSV file.
    """

    frame: pd.DataFrame
    delimiter: str = ""


def stream(source: str, encoding: str = "utf-8", feast: FeastSettings | None = None) -> Stream:
    """Open a source of any kind; its rows have distinct column names, and there are some.

    Args:
        source: as `data.source` names it.
        encoding: of a CSV file.
        feast: of a source `feast:`.

    Raises:
        ConfigError: the kind of source is unknown, or its access is not configured.
        DataError: it cannot be reached, or its content is not a table. The stream raises it, too.
    """
    kind, _, rest = source.partition(":")
    if kind == "sklearn":
        found = _sklearn(rest)
    elif kind == "sql":
        found = databases.read(rest.strip())
    elif kind == "spark":
        found = spark.read(rest.strip())
    elif kind == "feast":
        entities = None if feast is None else stream(feast.entities, encoding)
        found = feature_store.read(rest.strip(), feast, entities)
    elif kind in SCHEMES and rest.startswith("//"):
        found = _objects(source, encoding)
    elif re.match(r"\w{2,}://", source):
        raise ConfigError(f"data.source: {kind}:// is not a source; use {KINDS}")
    else:
        found = _files(source, encoding)
    check_names(source, found.schema.names)
    return with_rows(source, found)


def read(source: str, encoding: str = "utf-8", rows: int | None = None) -> pd.DataFrame:
    """Read a source into a frame, or a seeded sample of so many of its rows; see `stream`."""
    return read_table(source, encoding, rows).frame


def read_table(
    source: str, encoding: str = "utf-8", rows: int | None = None, feast: FeastSettings | None = None
) -> Table:
    """Read a source as `read` does, with the delimiter of a CSV file."""
    found = stream(source, encoding, feast)
    return Table(to_frame(found if rows is None else limited(found, rows)), found.delimiter)


def is_file(source: str) -> bool:
    """Whether a source is a path on this machine."""
    return source.partition(":")[0] not in ("sklearn", "sql", "spark", "feast", *SCHEMES)


def _sklearn(name: str) -> Stream:
    if name not in SKLEARN_SETS:
        raise ConfigError(f"data.source: sklearn:{name} is not bundled; there are {', '.join(SKLEARN_SETS)}")
    import pyarrow as pa
    from sklearn import datasets

    # The measurements as they are, and not their deviations from the mean.
    bunch = (
        datasets.load_diabetes(scaled=False) if name == "diabetes" else getattr(datasets, f"load_{name}")()
    )
    # "sepal length (cm)" and "od280/od315_of_diluted_wines" become names that can be typed.
    names = [re.sub(r"\W+", "_", re.sub(r" \(.*\)", "", str(each))) for each in bunch.feature_names]
    frame = pd.DataFrame(bunch.data, columns=names)
    target = "species" if name == "iris" else "target"
    if "target_names" in bunch:
        frame[target] = [str(bunch.target_names[index]) for index in bunch.target]
    else:
        frame[target] = bunch.target
    return Stream.of(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata())


def _files(source: str, encoding: str) -> Stream:
    path = Path(source)
    if path.is_dir() and not source.lower().endswith(".csv"):
        return _parquet(source, parquet_files.in_folder(path))
    if parquet_files.WILDCARDS.search(source) and not path.exists():
        _refuse_csv(source)
        folder, pattern = parquet_files.split_pattern(source)
        return _parquet(source, parquet_files.in_folder(Path(folder or "."), pattern))
    _known_extension(source)
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: put the file there, or correct data.source") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if source.lower().endswith(".csv"):
        return csv_files.read(str(path), lambda: path.open("rb"), encoding)
    if not path.stat().st_size:
        raise DataError(f"{path} is empty")
    return parquet_files.read([parquet_files.on_disk(path)])


def _objects(source: str, encoding: str) -> Stream:
    key = source.split("://", 1)[1].partition("/")[2]
    is_folder = key.endswith("/") or "." not in key.rpartition("/")[2]
    if not is_folder:
        _known_extension(key)
    bucket = Bucket(source)
    if parquet_files.WILDCARDS.search(key):
        _refuse_csv(source)
        folder, pattern = parquet_files.split_pattern(key)
        return _parquet(source, parquet_files.in_bucket(bucket, folder, pattern))
    if is_folder:
        return _parquet(source, parquet_files.in_bucket(bucket, key.rstrip("/")))
    found = bucket.find(key)
    if found is None:
        # Spark writes a folder of this name.
        parts = parquet_files.in_bucket(bucket, key) if key.lower().endswith(".parquet") else []
        if not parts:
            raise bucket.missing(key)
        return _parquet(source, parts)
    if not found.size:
        raise DataError(f"{source} is empty")
    if key.lower().endswith(".csv"):
        return csv_files.read(source, bucket.opener(found), encoding)
    return parquet_files.read([parquet_files.stored(bucket, found)])


def _parquet(source: str, files: list[parquet_files.File]) -> Stream:
    if not files:
        raise DataError(f"{source} has no Parquet file: their names end in .parquet")
    return parquet_files.read(files)


def _refuse_csv(source: str) -> None:
    if source.lower().endswith(".csv"):
        raise ConfigError(
            f"data.source: {source!r} names several CSV files; one is read, or several of Parquet"
        )


def _known_extension(name: str) -> None:
    if not name.lower().endswith((".csv", ".parquet")):
        raise ConfigError(f"data.source: {name!r} is no source that can be read; use {KINDS}")
