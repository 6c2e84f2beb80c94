from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools import free_port, require, require_group
from training.base.errors import ConfigError, DataError
from training.fetch import databases, sorting, sources
from training.fetch.stream import to_frame


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "flowers.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE flowers (size, kind TEXT, share REAL)")
        connection.executemany(
            "INSERT INTO flowers VALUES (?, ?, ?)", [(2, "b", 0.5), (1, "a 100%", None), (3, None, 0.25)]
        )
    monkeypatch.setenv(databases.SQL_URL, f"sqlite:///{path}")
    return path


def test_a_query_gives_sorted_rows(database: Path) -> None:
    frame = sources.read("sql:SELECT * FROM flowers ORDER BY size DESC")
    assert frame["size"].tolist() == [1, 2, 3]
    assert frame["kind"].tolist()[:2] == ["a 100%", "b"]
    pd.testing.assert_frame_equal(frame, sources.read("sql:SELECT * FROM flowers"))


def test_percent_and_colon_belong_to_the_query(database: Path) -> None:
    frame = sources.read(
        "sql:SELECT kind, ':x %s' AS note FROM flowers WHERE kind LIKE '%100\\%' ESCAPE '\\'"
    )
    assert frame.to_dict("list") == {"kind": ["a 100%"], "note": [":x %s"]}


def test_numbers_and_texts_in_one_column_become_text(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO flowers VALUES ('big', 'c', 1)")
    assert sources.read("sql:SELECT * FROM flowers")["size"].tolist() == ["1", "2", "3", "big"]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT * FROM trees", "no such table: trees"),
        ("SELECT FROM", "syntax error"),
        ("SELECT * FROM flowers WHERE size > 9", "has no rows"),
        ("SELECT size, size FROM flowers", "more than one column called size"),
    ],
)
def test_a_query_that_gives_no_table(query: str, complaint: str, database: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        sources.read(f"sql:{query}")


WRITING = (
    ("DROP TABLE flowers", "begins with DROP, and is not run; it has to be a SELECT"),
    ("/* SELECT */ DELETE FROM flowers", "begins with DELETE"),
    ("SELEC", "begins with SELEC"),
    ("-- nothing", "begins with no word"),
    ("SELECT ';' FROM flowers; DROP TABLE flowers", "several statements"),
    ("SELECT 1; COMMIT; BEGIN; DROP TABLE flowers", "several statements"),
)


@pytest.mark.parametrize(("query", "complaint"), WRITING)
def test_a_statement_that_is_no_query_is_not_run(query: str, complaint: str, database: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sources.read(f"sql:{query}")
    assert len(sources.read("sql:SELECT * FROM flowers")) == 3


def test_a_database_refuses_to_write_behind_with(database: Path) -> None:
    with pytest.raises(DataError, match="attempt to write a readonly database"):
        sources.read(
            "sql:WITH few AS (SELECT 1 AS size) DELETE FROM flowers WHERE size IN (SELECT size FROM few)"
        )
    assert len(sources.read("sql:SELECT * FROM flowers")) == 3


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM flowers;",
        "SELECT * FROM flowers; -- all; of them",
        "/* DROP; */ select * from flowers /* ; */",
        "WITH f AS (SELECT * FROM flowers) SELECT * FROM f",
        "SELECT size, 'a;b' AS \"update; it\" FROM flowers",
        "VALUES (1), (2), (3)",
    ],
)
def test_queries_of_every_form_are_run(query: str, database: Path) -> None:
    assert len(sources.read(f"sql:{query}")) == 3


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("SELECT * INTO copy FROM flowers", "INTO"),
        ("WITH gone AS (DELETE FROM flowers RETURNING *) SELECT * FROM gone", "DELETE"),
    ],
)
def test_databases_without_read_only_transactions_get_no_writing_word(
    query: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(databases.SQL_URL, "mssql+pyodbc://user:secret@nowhere/flowers")
    with pytest.raises(ConfigError, match=f"contains {word}, and is not run"):
        sources.read(f"sql:{query}")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "ESPALIER_SQL_URL is not set"),
        ("not a url", "is not a database URL"),
        ("sqlite:///none.db", "none.db does not exist"),
        ("trino://u:secret@h/db", r"install trino\[sqlalchemy\]"),
        ("postgresql+asyncpg9://u:secret@h/db", "not installed; install psycopg"),
        ("mysql://u:secret@h/db", "install pymysql"),
        ("nosuch://u:secret@h/db", "install the SQLAlchemy dialect for nosuch"),
    ],
)
def test_a_database_that_is_not_set_up(url: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(databases.SQL_URL, url)
    with pytest.raises((ConfigError, DataError), match=complaint) as error:
        sources.read("sql:SELECT 1")
    assert "secret" not in str(error.value)


def test_a_database_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(databases.SQL_URL, f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/flowers")
    with pytest.raises(DataError, match=r"postgresql\+psycopg://127.0.0.1/flowers: ") as error:
        sources.read("sql:SELECT 1")
    assert "secret" not in str(error.value)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own; its URL holds the password `rosebud`."""
    installed = os.pathsep.join(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{installed}")
        initdb, server = require("initdb"), require("postgres")
    # PostgreSQL refuses to run as root, as in a container; then nobody has to do.
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "password").write_text("rosebud")
        if user:
            for path in (Path(folder), Path(folder) / "password"):
                os.chown(path, *_ids(user))
        port = free_port()
        data = f"{folder}/data"
        create = [initdb, "--pgdata", data, "--username", "gardener", "--auth", "scram-sha-256"]
        create += ["--pwfile", f"{folder}/password", "--no-sync", "--encoding", "UTF8", "--locale", "C"]
        subprocess.run(create, check=True, capture_output=True, user=user, cwd=folder)
        run = [server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with subprocess.Popen(run, user=user, cwd=folder, stderr=subprocess.DEVNULL) as process:
            url = f"postgresql://gardener:rosebud@127.0.0.1:{port}/postgres"
            try:
                _wait_until_ready(url)
                yield url.replace("postgresql", "postgresql+psycopg")
            finally:
                process.terminate()


def _ids(user: str) -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def _wait_until_ready(url: str) -> None:
    """It listens before it lets anybody in."""
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.mark.slow
def test_postgresql(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(databases.SQL_URL, postgres)
    query = (
        "SELECT size::numeric(5, 2) AS size, kind, wild, NULL AS note "
        "FROM (VALUES (2.5, 'b%', true), (1.25, 'a', NULL)) AS flowers(size, kind, wild)"
    )
    frame = sources.read(f"sql:{query}")
    assert frame["size"].tolist() == [1.25, 2.5]
    assert frame["size"].dtype == np.float64
    assert frame["kind"].tolist() == ["a", "b%"]
    assert frame["wild"].tolist() == [None, True]
    with pytest.raises(DataError, match='relation "trees" does not exist'):
        sources.read("sql:SELECT * FROM trees")
    _assert_nothing_is_written(postgres)
    monkeypatch.setenv(databases.SQL_URL, postgres.replace("rosebud", "wrong-password"))
    with pytest.raises(DataError, match="authentication failed") as error:
        sources.read("sql:SELECT 1")
    assert "wrong-password" not in str(error.value)


def _assert_nothing_is_written(url: str) -> None:
    import psycopg

    def flowers() -> list[tuple[object, ...]]:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            return connection.execute(
                "SELECT size FROM kept UNION ALL SELECT last_value FROM counter"
            ).fetchall()

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS size")
        connection.execute("CREATE SEQUENCE counter")
    before = flowers()
    for query in (
        "WITH gone AS (DELETE FROM kept RETURNING *) SELECT * FROM gone",
        "SELECT * INTO copy FROM kept",
        "SELECT nextval('counter')",
        "WITH new AS (INSERT INTO kept VALUES (8) RETURNING size) SELECT * FROM new",
    ):
        # A cursor on the server refuses some of them before the transaction does.
        with pytest.raises(DataError, match=r"in a read-only transaction|DECLARE CURSOR|INTO"):
            sources.read(f"sql:{query}")
    with pytest.raises(DataError, match="transaction read-write mode"):
        sources.read("sql:SELECT set_config('transaction_read_only', 'off', true)")
    for query, complaint in WRITING:
        with pytest.raises(ConfigError, match=complaint):
            sources.read(f"sql:{query.replace('flowers', 'kept')}")
    assert flowers() == before


def spooled(names: list[str], *chunks: list[tuple[object, ...]]) -> pd.DataFrame:
    return to_frame(sorting.Spool("made up", names).add_rows(iter(chunks)).stream())


def test_values_that_are_no_cells_are_named() -> None:
    class Odd:
        pass

    with pytest.raises(DataError, match=r"no table cells.*odd"):
        spooled(["odd"], [(Odd(),)])
    with pytest.raises(DataError, match=r"no table cells.*of bytes and str.*odd"):
        spooled(["odd"], [("a",), (b"a",)])
    with pytest.raises(DataError, match=r"no table cells.*of bool and timestamp.*odd"):
        spooled(["odd"], [(True,)], [(datetime(2026, 1, 1),)])


cells = st.none() | st.integers(-5, 5) | st.floats(-2, 2).map(lambda each: round(each, 1))
texts = st.none() | st.text("ab", max_size=2)
tables = st.lists(st.tuples(cells, texts, cells | texts | st.booleans()), min_size=1, max_size=40)


@given(tables, st.integers(1, 9), st.sampled_from([1, 64, 1 << 20]), st.randoms(use_true_random=False))
def test_rows_are_sorted_alike_however_they_arrive(
    rows: list[tuple[object, ...]], size: int, run: int, order: Random
) -> None:
    """In one chunk or in many, in memory or on disk, in any order."""
    names = ["x", "y", "z"]
    once = spooled(names, rows)
    shuffled = order.sample(rows, len(rows))
    chunks = [shuffled[start : start + size] for start in range(0, len(rows), size)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sorting, "RUN_BYTES", run)
        pd.testing.assert_frame_equal(spooled(names, *chunks), once)
    first = [(bool(pd.notna(each)), each or 0) for each in once["x"].astype(object)]
    assert [each for _, each in first] == sorted(each for _, each in first) or not all(
        known for known, _ in first
    )
    assert sorted(map(str, once["y"].astype(object).where(once["y"].notna(), None))) == sorted(
        str(row[1]) for row in rows
    )


@pytest.mark.slow
def test_many_rows_of_a_query_pass_through_a_file(
    database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 1 << 18)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    query = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) "
        "SELECT i * 7919 % 60000 AS place, CASE i WHEN 50000 THEN 'odd' ELSE i END AS mixed FROM n"
    )
    frame = sources.read(f"sql:{query}")
    assert frame["place"].tolist() == list(range(60000))
    assert all(type(each) is str for each in frame["mixed"])
    assert "odd" in set(frame["mixed"])
    assert not list(tmp_path.glob("espalier-*"))


@pytest.mark.slow
def test_snowflake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("fakesnow", "snowflake-sqlalchemy"):
        require_group(package, "--group snowflake --group fakesnow")
    import fakesnow
    import snowflake.connector

    monkeypatch.setenv(databases.SQL_URL, "snowflake://gardener:rosebud@account/GARDEN/PUBLIC")
    with fakesnow.patch():
        connection = snowflake.connector.connect(
            user="gardener", password="rosebud", account="account", database="GARDEN", schema="PUBLIC"
        )
        connection.cursor().execute(
            "CREATE TABLE flowers AS SELECT i AS id, i / 2 AS share, 'k' || i % 3 AS kind FROM range(40000) t(i)"
        )
        frame = sources.read("sql:SELECT * FROM flowers ORDER BY id DESC")
        assert frame["id"].tolist() == list(range(40000))
        assert frame["share"].dtype == np.float64
        assert frame["kind"].tolist()[:3] == ["k0", "k1", "k2"]
        with pytest.raises(DataError, match=r"snowflake://account/GARDEN/PUBLIC: .*TREES does not exist"):
            sources.read("sql:SELECT * FROM trees")


def test_snowflakes_key_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_group("snowflake-sqlalchemy", "--group snowflake")
    import snowflake.connector

    seen: dict[str, object] = {}

    def connect(**arguments: object) -> None:
        seen.update(arguments)
        raise snowflake.connector.errors.OperationalError("it was only asked")

    monkeypatch.setattr(snowflake.connector, "connect", connect)
    monkeypatch.setenv(databases.SQL_URL, "snowflake://gardener@account/GARDEN/PUBLIC?warehouse=SMALL")
    monkeypatch.setenv(databases.KEY_FILE, str(tmp_path / "key.p8"))
    with pytest.raises(ConfigError, match=r"ESPALIER_SQL_KEY_FILE: there is no file .*key\.p8"):
        sources.read("sql:SELECT 1")
    (tmp_path / "key.p8").write_text("-")
    monkeypatch.setenv(databases.KEY_PASSPHRASE, "rosebud")
    with pytest.raises(DataError, match="it was only asked"):
        sources.read("sql:SELECT 1")
    assert seen["private_key_file"] == str(tmp_path / "key.p8")
    assert seen["private_key_file_pwd"] == "rosebud"
    assert (seen["user"], seen["warehouse"]) == ("gardener", "SMALL")
