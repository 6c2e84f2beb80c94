"""Reads the answer to a query of Spark, in a local session or through Spark Connect."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from training.base.errors import ConfigError, DataError
from training.fetch import parquet_files
from training.fetch.databases import check_reads
from training.fetch.sorting import Spool
from training.fetch.stream import Stream

SPARK_URL = "ESPALIER_SPARK_URL"
CONNECT_SECONDS = 5


def read(query: str) -> Stream:
    """Run a query and sort the rows, since Spark may send them in another order every time.

    A local session writes the rows as Parquet, so neither the driver nor Python holds all of them. Through Connect,
    the server sends them in batches of Arrow; its driver holds what this client has not taken yet.

    Raises:
        ConfigError: there is no query, or Spark or Java is missing.
        DataError: the server cannot be reached, or Spark refuses the query.
    """
    if not query:
        raise ConfigError("data.source: spark: needs a query, such as spark:SELECT * FROM flowers")
    check_reads(query, is_read_only=False)
    url = os.environ.get(SPARK_URL) or "local[*]"
    is_remote = url.startswith("sc://")
    if is_remote:
        _check_reachable(url)
    elif not url.startswith("local"):
        raise ConfigError(
            f"{SPARK_URL}: {url!r} should read sc://host:port, or local[*] for a session on this machine"
        )
    elif not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise ConfigError(
            f"a local session of Spark needs Java 17 or later: install it, or set {SPARK_URL}=sc://host:port"
        )
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigError("spark: needs pyspark: run `uv sync --inexact --group spark`") from None
    try:
        with _session(SparkSession, url, is_remote) as session:
            frame = session.sql(query)
            spool = Spool(f"spark:{query}", list(frame.columns))
            return spool.add_batches(_sent(frame) if is_remote else _written(frame)).stream()
    except PySparkException as error:
        raise DataError(f"Spark at {_shown(url)}: {_first_line(error)}") from None


def _sent(frame: Any) -> Iterator[Any]:
    """The batches in which a server sends its answer."""
    import pyarrow as pa

    client = frame.sparkSession.client
    # What toLocalIterator takes its rows from.
    for each in client.to_table_as_iterator(frame._plan.to_proto(client), frame._plan.observations):
        if isinstance(each, pa.Table):
            yield each


def _written(frame: Any) -> Iterator[Any]:
    """The batches of the Parquet files that the executors write."""
    with tempfile.TemporaryDirectory(prefix="espalier-spark-") as folder:
        frame.write.mode("overwrite").parquet(folder)
        files = parquet_files.in_folder(Path(folder))
        if files:
            yield from parquet_files.read(files).batches


@contextmanager
def _session(kind: Any, url: str, is_remote: bool) -> Iterator[Any]:
    builder = kind.builder.appName("espalier")
    if is_remote:
        session = builder.remote(url).getOrCreate()
    else:
        session = (
            builder.master(url)
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
    try:
        yield session
    finally:
        session.stop()


def _check_reachable(url: str) -> None:
    """Fail soon: the client itself would try for many minutes."""
    place = urlsplit(url)
    try:
        host, port = place.hostname or "", place.port or 15002
    except ValueError:
        raise ConfigError(f"{SPARK_URL}: {_shown(url)!r} should read sc://host:port") from None
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise DataError(
            f"cannot reach Spark at {_shown(url)}: {error.strerror or error}; check {SPARK_URL} and the network"
        ) from None


def _shown(url: str) -> str:
    """The URL without a token."""
    return url.partition("/;")[0]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
