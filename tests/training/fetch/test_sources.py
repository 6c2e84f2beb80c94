from __future__ import annotations

import codecs
import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools import free_port, require
from training import storage
from training.base.errors import ConfigError, DataError
from training.fetch import sources


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "rows", "columns", "target", "classes"),
    [
        ("iris", 150, ["sepal_length", "sepal_width"], "species", {"setosa", "versicolor", "virginica"}),
        ("wine", 178, ["alcohol", "malic_acid"], "target", {"class_0", "class_1", "class_2"}),
        ("breast_cancer", 569, ["mean_radius", "mean_texture"], "target", {"malignant", "benign"}),
        ("digits", 1797, ["pixel_0_0", "pixel_0_1"], "target", set("0123456789")),
    ],
)
def test_bundled_sets(name: str, rows: int, columns: list[str], target: str, classes: set[str]) -> None:
    frame = sources.read(f"sklearn:{name}")
    assert len(frame) == rows
    assert list(frame.columns[:2]) == columns
    assert set(frame[target]) == classes
    assert all(each.isidentifier() for each in frame.columns)


def test_a_bundled_set_with_a_quantity_has_its_measurements() -> None:
    frame = sources.read("sklearn:diabetes")
    assert len(frame) == 442
    assert list(frame.columns) == ["age", "sex", "bmi", "bp", *(f"s{each}" for each in range(1, 7)), "target"]
    assert frame["age"].between(19, 79).all()
    assert (frame["target"].min(), frame["target"].max()) == (25, 346)


def test_cells_of_a_csv_stay_as_they_are_written(write: Callable[[str, str], str]) -> None:
    frame = sources.read(write("a.csv", 'code,flag,note\n007,True,"one\ntwo"\n1.0,NA,\n'))
    assert frame["code"].tolist() == ["007", "1.0"]
    assert frame["flag"].tolist() == ["True", "NA"]
    assert frame["note"][0] == "one\ntwo"
    assert frame["note"].isna().tolist() == [False, True]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str, write: Callable[[str, str], str]) -> None:
    lines = [["a", "b b", '"c,;|\td"'], ["1", "2", "3"]]
    frame = sources.read(write("a.csv", "\n".join(delimiter.join(line) for line in lines)))
    assert frame.columns.tolist() == ["a", "b b", "c,;|\td"]


def test_a_header_with_gaps_a_mark_and_windows_line_ends(write: Callable[[str, bytes], str]) -> None:
    frame = sources.read(write("a.CSV", b"\xef\xbb\xbf,x , y\r\n0,1,2\r\n\r\n3,4,5\r\n"))
    assert frame.columns.tolist() == ["unnamed_1", "x", "y"]
    assert frame["x"].tolist() == ["1", "4"]


cell = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(cell, cell.filter(len)), min_size=1))
def test_any_text_comes_through_a_csv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    pd.DataFrame(rows, columns=["x", "y"]).to_csv(path, index=False, quoting=1)
    frame = sources.read(str(path))
    assert [(x if isinstance(x, str) else "", y) for x, y in frame.to_numpy()] == rows


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n \n", "is empty"),
        ("a.csv", "a,b\n", "has no rows: line 1 is the header, and nothing follows"),
        ("a.csv", "sep=;\n\na;b\n", "has no rows: line 3 is the header"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields where the header has 2: '1,2,3'"),
        ("a.csv", "a,b\n1\n", "line 2: 1 field where the header has 2: '1'"),
        ("a.csv", 'a,b\n"1\n1",2\n\n3,4\n5\n', "line 6: 1 field where the header has 2: '5'"),
        ("a.csv", "sep=;\na;b\n1;2\n1;2;3\n", "line 4: 3 fields where the header has 2"),
        ("a.csv", 'a,b\n1,"x\n2,y\n3,z\n', "line 2: a quote is opened in this row and never closed"),
        ("a.csv", 'a,b\n"1,x\n2,y\n', "line 2: a quote is opened in this row and never closed"),
        ("a.csv", "a,b,a\n1,2,3\n", r"line 1: more than one column called 'a' \(columns 1, 3\)"),
        ("a.csv", b"a,b\n1,\x00\n", "line 2: not CSV: it holds a NUL character"),
        ("a.csv", "sep=;\na;b\n1;Größe\n".encode("cp1252"), "line 3: not UTF-8; set `data.encoding: cp1252`"),
        ("a.csv", b"a,b\n1,\x81\n", "line 2: not UTF-8; save it as CSV in UTF-8"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "set `data.encoding: utf-16-le`"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-be"), "set `data.encoding: utf-16-be`"),
        ("a.csv", codecs.BOM_UTF16_LE + b"a", "line 1: not UTF-16"),
        ("a.csv", b"PK\x03\x04", "is a ZIP archive or an Excel workbook"),
        ("a.parquet", b"a,b\n1,2\n", "is not a Parquet file"),
        ("a.parquet", b"", "is empty"),
    ],
)
def test_a_file_that_is_no_table(
    name: str, content: str | bytes, complaint: str, write: Callable[[str, str | bytes], str]
) -> None:
    with pytest.raises(DataError, match=complaint):
        sources.read(write(name, content))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            "Passengers of the ship\nname,age,class\nx,1,a\ny,2,b\n",
            "line 1: 'Passengers of the ship' has 1 field and the rows below have 3: it looks like a title; "
            "delete the lines above the header (probably line 2)",
        ),
        ("Report;;;\nname;age;class;k\nx;1;a;k\n", "'Report;;;' has 1 field and the rows below have 4"),
        ("Sales, 2020\n\nname;age;class\nx;1;a\ny;2;b\n", "above the header (probably line 3)"),
        ("a;b;c\n1,2,3\n4,5,6\n", "line 1: the header is delimited by semicolons and the rows by commas"),
        ("a\tb\n1|2\n4|5\n", "line 1: the header is delimited by tabs and the rows by bars"),
        ('"a","b"\n"1",2,3\n"2",5,6\n', "the header has 2 names and the rows have 3 fields: name the first"),
        (
            "5.1,3.5,setosa\n4.9,3.0,setosa\n",
            "line 1: '5.1,3.5,setosa' looks like data and not like a header",
        ),
        ("1.4,5.1,setosa\n1.3,4.9,setosa\n1.4,5,setosa\n", "looks like data"),
        ("vhigh,2,low,unacc\nvhigh,3,med,unacc\nlow,2,low,acc\n", "looks like data"),
        ("1,0,3,Braund,22,7.25\n2,1,1,Cumings,38,71.3\n", "looks like data"),
        ("5,0,0,1\n4,0,1,0\n", "looks like data"),
    ],
)
def test_a_first_line_that_is_no_header(
    content: str, complaint: str, write: Callable[[str, str], str]
) -> None:
    with pytest.raises(DataError) as error:
        sources.read(write("a.csv", content))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "columns", "cells"),
    [
        ("0,1,2,target\n1,5,2,a\n2,5,3,b\n", ["0", "1", "2", "target"], ["1", "5", "2", "a"]),
        ("country,2001,2002\nDE,1,2\nFR,3,4\n", ["country", "2001", "2002"], ["DE", "1", "2"]),
        ("1100.5,1102.5,kind\n0.1,0.2,a\n0.3,0.4,b\n", ["1100.5", "1102.5", "kind"], ["0.1", "0.2", "a"]),
        ("yes,x\nyes,1\nno,2\n", ["yes", "x"], ["yes", "1"]),
        ("sep=;\na;b\n1,5;x\n", ["a", "b"], ["1,5", "x"]),
        ("\ufeffsep=|\r\na|b\r\n1|x\r\n", ["a", "b"], ["1", "x"]),
        ("a;b;c\n5,3;1,2;x\n5,4;2,2;y\n", ["a", "b", "c"], ["5,3", "1,2", "x"]),
        ('"a\nb",c\n1,2\n', ["a\nb", "c"], ["1", "2"]),
        ("a,b\n1,2\n   \n3,4\n", ["a", "b"], ["1", "2"]),
        ('a,b\n1,"x\ny"\n', ["a", "b"], ["1", "x\ny"]),
        ("a,b\r1,2\r3,4\r", ["a", "b"], ["1", "2"]),
    ],
)
def test_tables_that_look_odd_and_are_sound(
    content: str, columns: list[str], cells: list[str], write: Callable[[str, str], str]
) -> None:
    frame = sources.read(write("a.csv", content))
    assert frame.columns.tolist() == columns
    assert frame.iloc[0].tolist() == cells


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-16-le"])
def test_encodings_of_a_spreadsheet(encoding: str, write: Callable[[str, bytes], str]) -> None:
    path = write("a.csv", "Größe;Art\r\n5,3;süß\r\n".encode(encoding))
    frame = sources.read(path, "utf-8" if encoding in ("utf-8-sig", "utf-16", "utf-32") else encoding)
    assert frame.to_dict("list") == {"Größe": ["5,3"], "Art": ["süß"]}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("sklearn:flowers", "there are iris, wine, breast_cancer, digits"),
        ("iris", "'iris' is no source"),
        ("data.xlsx", "no source that can be read; use sklearn:NAME"),
        ("gs://bucket/key.csv", "gs:// is not a source"),
        ("s3://bucket", "should read s3://bucket/key.csv"),
        ("s3://bucket/key.json", "no source"),
        ("sql:", "needs a query"),
    ],
)
def test_a_source_that_cannot_be_one(source: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sources.read(source)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: put the file there"):
        sources.read(str(tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*directory"):
        sources.read(str(tmp_path / "folder.csv"))


def test_parquet_keeps_types_and_an_index(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", None]}, index=pd.Index([7, 8], name="key"))
    frame.to_parquet(tmp_path / "a.parquet")
    again = sources.read(str(tmp_path / "a.parquet"))
    assert again["x"].tolist() == [1, 2]
    assert again["key"].tolist() == [7, 8]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "flowers.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE flowers (size, kind TEXT, share REAL)")
        connection.executemany(
            "INSERT INTO flowers VALUES (?, ?, ?)", [(2, "b", 0.5), (1, "a 100%", None), (3, None, 0.25)]
        )
    monkeypatch.setenv(sources.SQL_URL, f"sqlite:///{path}")
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
    monkeypatch.setenv(sources.SQL_URL, "mssql+pyodbc://user:secret@nowhere/flowers")
    with pytest.raises(ConfigError, match=f"contains {word}, and is not run"):
        sources.read(f"sql:{query}")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "ESPALIER_SQL_URL is not set"),
        ("not a url", "is not a database URL"),
        ("sqlite:///none.db", "none.db does not exist"),
        ("snowflake://u:secret@account/db", "install snowflake-sqlalchemy"),
        ("postgresql+asyncpg9://u:secret@h/db", "not installed; install psycopg"),
        ("mysql://u:secret@h/db", "install pymysql"),
        ("nosuch://u:secret@h/db", "install the SQLAlchemy dialect for nosuch"),
    ],
)
def test_a_database_that_is_not_set_up(url: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.SQL_URL, url)
    with pytest.raises((ConfigError, DataError), match=complaint) as error:
        sources.read("sql:SELECT 1")
    assert "secret" not in str(error.value)


def test_a_database_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.SQL_URL, f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/flowers")
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
    monkeypatch.setenv(sources.SQL_URL, postgres)
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
    monkeypatch.setenv(sources.SQL_URL, postgres.replace("rosebud", "wrong-password"))
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
        with pytest.raises(DataError, match="in a read-only transaction"):
            sources.read(f"sql:{query}")
    with pytest.raises(DataError, match="transaction read-write mode"):
        sources.read("sql:SELECT set_config('transaction_read_only', 'off', true)")
    for query, complaint in WRITING:
        with pytest.raises(ConfigError, match=complaint):
            sources.read(f"sql:{query.replace('flowers', 'kept')}")
    assert flowers() == before


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials from the environment, and nothing from this machine's own configuration."""
    for name in (
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL_S3",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", storage.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", storage.KEY)


@pytest.mark.slow
def test_an_object_in_s3(keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    require("weed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    storage.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.endpoint())
        client = botocore.session.get_session().create_client("s3")
        pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "a.parquet")
        for key, content in {
            "folder/a.csv": b"x,y\n1,a\n",
            "a.parquet": (tmp_path / "a.parquet").read_bytes(),
            "empty.csv": b"",
        }.items():
            client.put_object(Bucket=storage.BUCKET, Key=key, Body=content)
        bucket = f"s3://{storage.BUCKET}"
        assert sources.read(f"{bucket}/folder/a.csv").to_dict("list") == {"x": ["1"], "y": ["a"]}
        assert sources.read(f"{bucket}/a.parquet")["x"].tolist() == [1, 2]
        with pytest.raises(DataError, match=r"empty\.csv is empty"):
            sources.read(f"{bucket}/empty.csv")
        with pytest.raises(DataError, match=r"has no object 'none\.csv'"):
            sources.read(f"{bucket}/none.csv")
        with pytest.raises(DataError, match="no bucket 'nowhere'"):
            sources.read("s3://nowhere/a.csv")
    finally:
        storage.stop()


def test_s3_that_cannot_be_reached_says_so_soon(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    started = time.monotonic()
    with pytest.raises(DataError, match=f"cannot reach S3 at {endpoint}"):
        sources.read("s3://bucket/a.csv")
    assert time.monotonic() - started < 10


def test_s3_without_credentials(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigError, match="no AWS credentials"):
        sources.read("s3://bucket/a.csv")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="nobody"):
        sources.read("s3://bucket/a.csv")
