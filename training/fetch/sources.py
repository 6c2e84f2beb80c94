"""Reads the declared source into a frame: a bundled set, a CSV or Parquet file, an S3 object or a SQL query.

Cells are not interpreted here: in a CSV file every cell stays text, so 007 keeps its zeros and "True" stays a word.
`prepare` reads each column as the schema declares it. Only an empty cell is missing.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from training.base.errors import ConfigError, DataError
from training.fetch import csv_files
from training.fetch.csv_files import Table

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

SQL_URL = "ESPALIER_SQL_URL"
SKLEARN_SETS = ("iris", "wine", "breast_cancer", "digits", "diabetes")
KINDS = "sklearn:NAME, a path to a .csv or .parquet file, s3://bucket/key.csv (or .parquet), or sql:SELECT …"
CONNECT_SECONDS = 5
READ_SECONDS = 60

_PACKAGES = {
    "awsathena": "pyathena[sqlalchemy]",
    "bigquery": "sqlalchemy-bigquery",
    "clickhouse": "clickhouse-sqlalchemy",
    "databricks": "databricks-sqlalchemy",
    "duckdb": "duckdb-engine",
    "mssql": "pyodbc",
    "mysql": "pymysql (and write mysql+pymysql://…)",
    "oracle": "oracledb (and write oracle+oracledb://…)",
    "postgresql": "psycopg[binary] (and write postgresql+psycopg://…)",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
    "trino": "trino[sqlalchemy]",
}
"""The package that brings each SQLAlchemy dialect or its driver."""


def read(source: str, encoding: str = "utf-8") -> pd.DataFrame:
    """Read a source of any kind; the frame has rows and distinct column names.

    Args:
        source: as `data.source` names it.
        encoding: of a CSV file.

    Raises:
        ConfigError: the kind of source is unknown, or its access is not configured.
        DataError: it cannot be reached, or its content is not a table.
    """
    return read_table(source, encoding).frame


def read_table(source: str, encoding: str = "utf-8") -> Table:
    """Read a source as `read` does, with the delimiter of a CSV file."""
    kind, _, rest = source.partition(":")
    if kind == "sklearn":
        table = Table(_read_sklearn(rest))
    elif kind == "sql":
        table = Table(_read_sql(rest.strip()))
    elif kind == "s3":
        table = _read_s3(source, encoding)
    elif re.match(r"\w{2,}://", source):
        raise ConfigError(f"data.source: {kind}:// is not a source; use {KINDS}")
    else:
        table = _read_file(Path(source), encoding)
    repeated = [str(name) for name, count in Counter(table.frame.columns).items() if count > 1]
    if repeated:
        raise DataError(f"{source} has more than one column called {', '.join(repeated)}: name each once")
    if table.frame.empty:
        raise DataError(f"{source} has no rows")
    return table


def is_file(source: str) -> bool:
    return source.partition(":")[0] not in ("sklearn", "sql", "s3")


def _read_sklearn(name: str) -> pd.DataFrame:
    if name not in SKLEARN_SETS:
        raise ConfigError(f"data.source: sklearn:{name} is not bundled; there are {', '.join(SKLEARN_SETS)}")
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
    return frame


def _read_file(path: Path, encoding: str) -> Table:
    _known_extension(str(path))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: put the file there, or correct data.source") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return _parse(str(path), content, encoding)


def _known_extension(name: str) -> None:
    if not name.lower().endswith((".csv", ".parquet")):
        raise ConfigError(f"data.source: {name!r} is no source that can be read; use {KINDS}")


def _parse(name: str, content: bytes, encoding: str) -> Table:
    if not content.strip():
        raise DataError(f"{name} is empty")
    if name.lower().endswith(".parquet"):
        return Table(_parse_parquet(name, content))
    return csv_files.parse(name, content, encoding)


def _parse_parquet(name: str, content: bytes) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pandas' metadata would turn columns into an index.
        frame: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a Parquet file that can be read: {_first_line(error)}") from None
    return frame


def _read_s3(source: str, encoding: str) -> Table:
    """Read an object with the credentials, region and endpoint that the AWS tools would use."""
    match = re.fullmatch(r"s3://([^/]+)/(.+)", source)
    if not match:
        raise ConfigError(f"data.source: {source!r} should read s3://bucket/key.csv")
    bucket, key = match.groups()
    _known_extension(key)

    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 2},
        # A self-hosted server rarely has a host name for each bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    try:
        client = botocore.session.get_session().create_client("s3", config=config)
        content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except (NoCredentialsError, PartialCredentialsError):
        raise ConfigError(
            f"no AWS credentials to read {source}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except ClientError as error:
        raise DataError(_s3_complaint(source, bucket, key, error.response.get("Error", {}))) from None
    except (ConnectionError, HTTPClientError) as error:
        where = endpoint or "AWS"
        raise DataError(
            f"cannot reach S3 at {where} to read {source}: {_first_line(error)}; check AWS_ENDPOINT_URL and the network"
        ) from None
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"cannot read {source}: {_first_line(error)}") from None
    return _parse(source, content, encoding)


def _s3_complaint(source: str, bucket: str, key: str, error: dict[str, Any]) -> str:
    code = str(error.get("Code", "unknown"))
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r} for {source}: check the name, AWS_ENDPOINT_URL and the account"
    if code in ("NoSuchKey", "404"):
        return f"bucket {bucket!r} has no object {key!r}: check data.source"
    if code in ("AccessDenied", "403"):
        return f"S3 denies reading {source}: these credentials need s3:GetObject on it"
    return f"S3 refuses {source}: {code}: {error.get('Message', '')}".rstrip(": ")


def _read_sql(query: str) -> pd.DataFrame:
    """Run a query and sort the rows, since a database may send them in another order every time."""
    if not query:
        raise ConfigError("data.source: sql: needs a query, such as sql:SELECT * FROM flowers")
    address = os.environ.get(SQL_URL)
    if not address:
        raise ConfigError(f"{SQL_URL} is not set: export the database's URL, such as sqlite:///flowers.db")

    from sqlalchemy import exc

    url = _sql_url(address)
    _check_reads(query, url.get_backend_name())
    engine = _sql_engine(url)
    try:
        # Without parameters, % and : in the query are not placeholders.
        with engine.connect().execution_options(no_parameters=True) as connection:
            if url.get_backend_name() in _READ_ONLY:
                connection.exec_driver_sql(_READ_ONLY[url.get_backend_name()])
            result = connection.exec_driver_sql(query)
            if not result.returns_rows:
                raise ConfigError("data.source: the query returns no rows; it has to be a SELECT")
            names = list(result.keys())
            rows = [tuple(row) for row in result.fetchall()]
    except exc.DBAPIError as error:
        raise DataError(f"{_shown(url)}: {_without_secrets(error.orig or error, url)}") from None
    except exc.SQLAlchemyError as error:
        raise DataError(f"{_shown(url)}: {_without_secrets(error, url)}") from None
    finally:
        engine.dispose()
    rows.sort(key=lambda row: [(cell is not None, str(cell)) for cell in row])
    frame = pd.DataFrame({place: _sql_column(cells) for place, cells in enumerate(zip(*rows, strict=True))})
    return frame.set_axis(names, axis="columns") if rows else pd.DataFrame(columns=names)


_READ_ONLY = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "postgresql": "SET TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
"""The statement that makes each database itself refuse writes, also in functions and after WITH."""

_NO_CODE = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \$(\w*)\$.*?\$\1\$ | --[^\n]* | /\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)
"""Texts, quoted names and comments of a query."""


def _check_reads(query: str, backend: str) -> None:
    """Refuse anything but a single query, before the database sees it.

    Raises:
        ConfigError: names the offending word.
    """
    code = _NO_CODE.sub(" '' ", query)
    statements = [each for each in code.split(";") if each.replace("''", "").strip()]
    if len(statements) > 1:
        raise ConfigError("data.source: sql: holds several statements; it has to be one SELECT")
    words = [each.upper() for each in re.findall(r"\w+", code)]
    if not words or words[0] not in ("SELECT", "WITH", "VALUES", "TABLE", "FROM"):
        first = words[0] if words else "no word"
        raise ConfigError(
            f"data.source: the query begins with {first}, and is not run; it has to be a SELECT"
        )
    writing = [each for each in words if each in ("INSERT", "UPDATE", "DELETE", "MERGE", "INTO")]
    if writing and backend not in _READ_ONLY:
        raise ConfigError(
            f"data.source: the query contains {writing[0]}, and is not run; it has to be a SELECT that only reads "
            "(put a column of that name in quotes)"
        )


def _sql_column(cells: tuple[Any, ...]) -> list[Any]:
    """Keep cells of one type; turn mixed numbers and texts, which SQLite allows in a column, into text."""
    from decimal import Decimal

    plain = [float(cell) if isinstance(cell, Decimal) else cell for cell in cells]
    kinds = {type(cell) for cell in plain if cell is not None}
    if len(kinds) > 1 and kinds <= {str, int, float, bool} and kinds != {int, float}:
        return [None if cell is None else str(cell) for cell in plain]
    return plain


def _sql_url(address: str) -> URL:
    from sqlalchemy import exc, make_url

    try:
        url = make_url(address)
    except (exc.ArgumentError, ValueError):
        raise ConfigError(f"{SQL_URL} is not a database URL: dialect://user:password@host/database") from None
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).is_file():
        raise DataError(f"{SQL_URL}: the SQLite file {file} does not exist")
    return url


def _sql_engine(url: URL) -> Engine:
    from sqlalchemy import create_engine, exc

    backend = url.get_backend_name()
    waits = {"connect_timeout": CONNECT_SECONDS} if backend in ("postgresql", "mysql") else {}
    try:
        return create_engine(url, connect_args=waits)
    except (exc.NoSuchModuleError, ImportError):
        package = _PACKAGES.get(backend, f"the SQLAlchemy dialect for {backend}")
        raise ConfigError(f"{SQL_URL}: {url.drivername} is not installed; install {package}") from None
    except (exc.SQLAlchemyError, TypeError) as error:
        raise ConfigError(f"{SQL_URL}: {_without_secrets(error, url)}") from None


def _shown(url: URL) -> str:
    """The URL without credentials."""
    return f"{url.drivername}://{url.host or ''}/{url.database or ''}"


def _without_secrets(error: BaseException, url: URL) -> str:
    text = _first_line(error)
    secrets = [url.password, *url.query.values()]
    for secret in secrets:
        for each in [secret] if isinstance(secret, str) else secret or []:
            text = text.replace(each, "***")
    return text


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
