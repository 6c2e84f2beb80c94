"""Reads the answer to a query of any database with a SQLAlchemy dialect, as a stream of sorted rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import ConfigError, DataError
from training.fetch.sorting import CHUNK_ROWS, Spool
from training.fetch.stream import Stream

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult, Engine

SQL_URL = "ESPALIER_SQL_URL"
KEY_FILE = "ESPALIER_SQL_KEY_FILE"
KEY_PASSPHRASE = "ESPALIER_SQL_KEY_PASSPHRASE"  # noqa: S105  the variable's name
CONNECT_SECONDS = 5
LOGIN_SECONDS = 20
"""Snowflake's login: several requests, each of which the connector repeats."""

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
    "snowflake": "snowflake-sqlalchemy (`uv sync --inexact --group snowflake`)",
    "trino": "trino[sqlalchemy]",
}
"""The package that brings each SQLAlchemy dialect or its driver."""


def read(query: str) -> Stream:
    """Run a query and sort the rows, since a database may send them in another order every time.

    Raises:
        ConfigError: there is no query, it does more than read, or the database is not configured.
        DataError: the database cannot be reached or refuses the query.
    """
    if not query:
        raise ConfigError("data.source: sql: needs a query, such as sql:SELECT * FROM flowers")
    address = os.environ.get(SQL_URL)
    if not address:
        raise ConfigError(f"{SQL_URL} is not set: export the database's URL, such as sqlite:///flowers.db")

    from sqlalchemy import exc

    url = _sql_url(address)
    check_reads(query, url.get_backend_name() in _READ_ONLY)
    engine = _sql_engine(url)
    try:
        # Without parameters, % and : in the query are not placeholders.
        with engine.connect().execution_options(no_parameters=True) as connection:
            return _answer(connection, query, url.get_backend_name())
    except exc.DBAPIError as error:
        raise DataError(f"{_shown(url)}: {_without_secrets(error.orig or error, url)}") from None
    except exc.SQLAlchemyError as error:
        raise DataError(f"{_shown(url)}: {_without_secrets(error, url)}") from None
    finally:
        engine.dispose()


def _answer(connection: Connection, query: str, backend: str) -> Stream:
    if backend in _READ_ONLY:
        connection.exec_driver_sql(_READ_ONLY[backend])
    # A cursor on the server, so that the driver does not hold all rows.
    result = connection.execution_options(stream_results=True, max_row_buffer=CHUNK_ROWS).exec_driver_sql(
        query
    )
    if not result.returns_rows:
        raise ConfigError("data.source: the query returns no rows; it has to be a SELECT")
    spool = Spool(f"sql:{query}", list(result.keys()))
    batches = _arrow(result)
    spooled = spool.add_rows(result.partitions(CHUNK_ROWS)) if batches is None else spool.add_batches(batches)
    return spooled.stream()


def _arrow(result: CursorResult[Any]) -> Iterator[Any] | None:
    """The rows as Arrow, where the driver has them so."""
    cursor: Any = result.cursor
    with suppress(AttributeError):
        snowflake: Iterator[Any] = cursor.fetch_arrow_batches()
        return snowflake
    with suppress(AttributeError):
        duckdb: Iterator[Any] = cursor.fetch_record_batch(CHUNK_ROWS)
        return duckdb
    return None


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


def check_reads(query: str, is_read_only: bool) -> None:
    """Refuse anything but a single query, before the database sees it.

    Args:
        query: in SQL.
        is_read_only: whether the database itself refuses to write.

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
    if writing and not is_read_only:
        raise ConfigError(
            f"data.source: the query contains {writing[0]}, and is not run; it has to be a SELECT that only reads "
            "(put a column of that name in quotes)"
        )


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
    waits: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS} if backend in ("postgresql", "mysql") else {}
    if backend == "snowflake":
        waits = {"login_timeout": LOGIN_SECONDS, **_key()}
    try:
        return create_engine(url, connect_args=waits)
    except (exc.NoSuchModuleError, ImportError):
        package = _PACKAGES.get(backend, f"the SQLAlchemy dialect for {backend}")
        raise ConfigError(f"{SQL_URL}: {url.drivername} is not installed; install {package}") from None
    except (exc.SQLAlchemyError, TypeError) as error:
        raise ConfigError(f"{SQL_URL}: {_without_secrets(error, url)}") from None


def _key() -> dict[str, str]:
    """Arguments of Snowflake's connector for authentication with a key pair, if one is configured."""
    file = os.environ.get(KEY_FILE)
    if not file:
        return {}
    if not Path(file).is_file():
        raise ConfigError(f"{KEY_FILE}: there is no file {file}: it has to be a private key in PEM")
    passphrase = os.environ.get(KEY_PASSPHRASE)
    return {"private_key_file": file, **({"private_key_file_pwd": passphrase} if passphrase else {})}


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
