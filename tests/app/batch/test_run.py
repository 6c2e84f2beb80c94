"""Each part has one result, whatever happens to a run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.batch import __main__ as command
from app.batch import run
from app.contract import read_bundle
from tests.app.batch.parts import Command, contents, write_part
from tests.app.processes import ROOT
from tests.azure import container
from tests.buckets import BUCKET, bucket
from tests.bundles import IRIS_CLASSES, IRIS_FEATURES, number_row, write_number_bundle


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Three parts with 100, 250 and no rows."""
    folder = tmp_path / "in"
    write_part(folder / "a.parquet")
    write_part(folder / "day=2/b.parquet", 250, seed=1, group=40)
    write_part(folder / "day=2/empty.parquet", 0)
    return folder


def version_of(model: Path) -> str:
    return read_bundle(model).manifest.version


def test_each_part_has_a_result(number_model: Path, parts: Path, tmp_path: Path, score: Command) -> None:
    done = score(number_model, parts, tmp_path / "out", "--keep", "id,petal_width")
    manifest = read_bundle(number_model).manifest
    folder = tmp_path / "out" / manifest.version
    assert done.status == 0
    assert done.summary | {"time": 0, "seconds": 0, "rows_per_second": 0} == {
        "time": 0,
        "level": "info",
        "message": "finished",
        **{"parts": 3, "scored": 3, "skipped": 0, "replaced": 0, "failed": 0, "rows": 350, "rejected": 0},
        **{"seconds": 0, "rows_per_second": 0},
    }
    for path, rows in (("a.parquet", 100), ("day=2/b.parquet", 250), ("day=2/empty.parquet", 0)):
        given, result = pq.read_table(parts / path), pq.read_table(folder / path)
        assert result.num_rows == rows
        names = ["id", "petal_width", "label", *(f"probability_{each}" for each in IRIS_CLASSES)]
        assert result.column_names == [*names, "error", "model", "model_version"]
        for kept in ("id", "petal_width"):
            assert result[kept] == given[kept]
        about = {key.decode(): value.decode() for key, value in result.schema.metadata.items()}
        assert about == {
            "espalier.model": manifest.name,
            "espalier.version": manifest.version,
            "espalier.digest": manifest.digest,
            "espalier.input": f"{parts}/{path}",
        }
        for row, instance in zip(result.to_pylist(), given.to_pylist(), strict=True):
            expected = number_row(tuple(instance[name] for name in IRIS_FEATURES))
            own = {name: row[f"probability_{name}"] for name in IRIS_CLASSES}
            assert (row["label"], row["model_version"]) == (expected.label, manifest.version)
            assert own == pytest.approx(expected.probabilities)


@pytest.mark.parametrize(
    ("model", "answers", "columns"),
    [
        ("number_model", "label,probability", ["label", "probability"]),
        ("value_model", "value", ["value"]),
        ("value_model", "", ["value", "interval_low", "interval_high"]),
    ],
)
def test_answers_are_chosen(
    model: str, answers: str, columns: list[str], parts: Path, tmp_path: Path, score: Command, request: Any
) -> None:
    folder = request.getfixturevalue(model)
    assert score(folder, parts, tmp_path / "out", "--answers", answers).status == 0
    result = pq.read_table(tmp_path / "out" / version_of(folder) / "a.parquet")
    assert result.column_names == [*columns, "error", "model", "model_version"]
    if "probability" in columns:
        whole = score(folder, parts, tmp_path / "whole")
        assert whole.status == 0
        rows = pq.read_table(tmp_path / "whole" / version_of(folder) / "a.parquet").to_pylist()
        assert [row[f"probability_{row['label']}"] for row in rows] == result["probability"].to_pylist()


def test_parts_that_are_done_are_skipped(
    number_model: Path, parts: Path, tmp_path: Path, score: Command
) -> None:
    out = tmp_path / "out"
    assert score(number_model, parts, out).status == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    write_part(parts / "c.parquet", 7)
    summary = score(number_model, parts, out).summary
    assert (summary["parts"], summary["skipped"], summary["scored"], summary["rows"]) == (4, 3, 1, 7)
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()}.items() <= before.items()


def test_a_changed_part_is_scored_again(
    number_model: Path, parts: Path, tmp_path: Path, score: Command
) -> None:
    out = tmp_path / "out"
    assert score(number_model, parts, out).status == 0
    write_part(parts / "a.parquet", 50, seed=5)
    summary = score(number_model, parts, out).summary
    assert (summary["skipped"], summary["scored"], summary["replaced"], summary["rows"]) == (2, 1, 1, 50)
    assert pq.read_metadata(out / version_of(number_model) / "a.parquet").num_rows == 50
    assert len(list((out / version_of(number_model) / "_done").rglob("*.json"))) == 3
    # Other options make another result, too.
    summary = score(number_model, parts, out, "--keep", "id").summary
    assert (summary["skipped"], summary["replaced"]) == (0, 3)
    # So does a result that somebody deleted.
    (out / version_of(number_model) / "a.parquet").unlink()
    assert score(number_model, parts, out, "--keep", "id").summary["scored"] == 1


def test_versions_do_not_overwrite_each_other(
    number_model: Path, value_model: Path, parts: Path, tmp_path: Path, score: Command
) -> None:
    out = tmp_path / "out"
    assert score(number_model, parts, out).status == 0
    before = contents(out)
    assert score(value_model, parts, out).status == 0
    assert before.items() < contents(out).items()
    assert sorted(each.name for each in out.iterdir()) == sorted(map(version_of, (number_model, value_model)))


def test_a_damaged_part_fails_alone(number_model: Path, parts: Path, tmp_path: Path, score: Command) -> None:
    out = tmp_path / "out"
    whole = (parts / "a.parquet").read_bytes()
    (parts / "a.parquet").write_bytes(whole[:-20])
    pq.write_table(pa.table({"sepal_length": [1.0]}), parts / "narrow.parquet")
    done = score(number_model, parts, out)
    assert done.status == 1
    assert (done.summary["failed"], done.summary["scored"]) == (2, 2)
    reasons = {each["part"]: each["reason"] for each in done.lines if each["message"] == "failed"}
    assert "Parquet magic bytes not found" in reasons[f"{parts}/a.parquet"]
    assert reasons[f"{parts}/narrow.parquet"] == "it has no column sepal_width, petal_length, petal_width"
    assert "Traceback" not in done.errors
    assert set(contents(out / version_of(number_model))) & {"a.parquet", "narrow.parquet"} == set()
    (parts / "a.parquet").write_bytes(whole)
    (parts / "narrow.parquet").unlink()
    done = score(number_model, parts, out)
    assert (done.status, done.summary["skipped"], done.summary["scored"]) == (0, 2, 1)


def test_refused_rows_get_a_text(number_model: Path, tmp_path: Path, score: Command) -> None:
    table = write_part(tmp_path / "in/a.parquet", 4)
    table = table.set_column(1, "sepal_length", pa.array([5.0, 500.0, None, 5.0]))
    pq.write_table(table, tmp_path / "in/a.parquet")
    done = score(number_model, tmp_path / "in", tmp_path / "out")
    assert (done.status, done.summary["rows"], done.summary["rejected"]) == (0, 4, 2)
    assert len(done.summary["errors"]) == 2
    rows = pq.read_table(tmp_path / "out" / version_of(number_model) / "a.parquet").to_pylist()
    assert [row["label"] is None for row in rows] == [False, True, True, False]
    assert rows[1]["error"].startswith("sepal_length: must be at most ")
    assert rows[2]["error"] == "sepal_length: is required"
    done = score(number_model, tmp_path / "in", tmp_path / "strict", "--on-error", "fail")
    assert (done.status, done.summary["failed"]) == (1, 1)
    (failed,) = (each for each in done.lines if each["message"] == "failed")
    assert failed["reason"].startswith("row 1: sepal_length: must be at most ")
    assert contents(tmp_path / "strict") == {}


def test_a_part_that_changes_meanwhile_fails(
    number_model: Path, parts: Path, tmp_path: Path, score: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(*arguments: Any) -> None:
        write(*arguments)
        write_part(parts / "a.parquet", 9)

    write = run.Batch._write
    monkeypatch.setattr(run.Batch, "_write", change)
    done = score(number_model, parts / "a.parquet", tmp_path / "out")
    assert done.status == 1
    assert "it changed while it was scored" in done.errors
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("given", "output", "options", "complaint"),
    [
        ("none/*.parquet", "out", (), "--input {0}/none/*.parquet: there is no such file"),
        ("in", "in/scores", (), "--output {0}/in/scores/{1}: the next run would take the results for parts"),
        (
            "in",
            "out",
            ("--answers", "value"),
            "--answers value: the model is a classification, which has label",
        ),
        ("in", "out", ("--keep", "id,error"), "--keep error: the results have a column of this name"),
        ("ftp://host/in", "out", (), "--input ftp://host/in: it must be a folder"),
    ],
)
def test_a_run_that_cannot_start_says_why(
    given: str,
    output: str,
    options: tuple[str, ...],
    complaint: str,
    number_model: Path,
    parts: Path,
    tmp_path: Path,
    score: Command,
) -> None:
    done = score(number_model, given if "://" in given else tmp_path / given, tmp_path / output, *options)
    assert done.status == 1
    assert done.errors.startswith("error: " + complaint.format(tmp_path, version_of(number_model)))
    assert len(done.errors.splitlines()) == 1


def test_another_input_does_not_overwrite_results(
    number_model: Path, parts: Path, tmp_path: Path, score: Command
) -> None:
    assert score(number_model, parts, tmp_path / "out").status == 0
    before = contents(tmp_path / "out")
    write_part(tmp_path / "other/a.parquet", 5)
    done = score(number_model, tmp_path / "other", tmp_path / "out")
    assert done.status == 1
    assert "is the result of another input than" in done.errors
    assert contents(tmp_path / "out") == before
    done = score(number_model, [parts / "a.parquet", tmp_path / "other"], tmp_path / "both")
    assert "would have the same result" in done.errors


def test_kept_columns_must_be_there(number_model: Path, parts: Path, tmp_path: Path, score: Command) -> None:
    done = score(number_model, parts, tmp_path / "out", "--keep", "customer")
    assert (done.status, done.summary["failed"]) == (1, 3)
    assert "it has no column customer, which --keep names" in done.errors


def test_without_pyarrow_a_line_says_what_to_do(
    number_model: Path, parts: Path, tmp_path: Path, score: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    done = score(number_model, parts, tmp_path / "out")
    assert done.status == 1
    assert "uv sync --group batch" in done.errors


def test_the_service_does_not_load_pyarrow() -> None:
    code = "import sys; import app.main; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_progress_is_reported(
    number_model: Path, parts: Path, tmp_path: Path, score: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "REPORT_SECONDS", 0.05)
    write = run.Batch._write

    def write_slowly(*given: Any) -> None:
        time.sleep(0.2)
        write(*given)

    monkeypatch.setattr(run.Batch, "_write", write_slowly)
    done = score(number_model, parts, tmp_path / "out")
    assert "scoring" in [each["message"] for each in done.lines]


# ---------------------------------------------------------------------------------------- killed, and two at once

KILLED = """
import os, signal, sys
from app.batch import places
from app.batch.__main__ import main
left = int(sys.argv[1])
replace = os.replace
def step():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def slow(*arguments):
    step()
    replace(*arguments)
    step()
places.os.replace = slow
sys.exit(main(sys.argv[2:]))
"""


def start(model: Path, given: object, output: object, *code: str, **variables: str) -> subprocess.Popen[str]:
    arguments = ["--input", str(given), "--output", str(output), "--keep", "id", "--workers", "1"]
    return subprocess.Popen(
        [sys.executable, *(code or ("-m", "app.batch")), *arguments],
        cwd=ROOT,
        env=os.environ | {"ESPALIER_MODEL_DIR": str(model)} | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_is_continued(number_model: Path, parts: Path, tmp_path: Path, score: Command) -> None:
    """A run is killed before and after each file that it makes visible, and the next one goes on."""
    assert score(number_model, parts, tmp_path / "undisturbed", "--keep", "id").status == 0
    visible = []
    for steps in (0, 1, 2, 3):
        process = start(number_model, parts, tmp_path / "out", "-c", KILLED, str(steps))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        visible.append(len(contents(tmp_path / "out")))
    assert visible == sorted(visible)
    done = score(number_model, parts, tmp_path / "out", "--keep", "id")
    assert done.status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_stopped_run_is_not_a_success(number_model: Path, tmp_path: Path) -> None:
    for each in range(40):
        write_part(tmp_path / f"in/{each}.parquet", 50_000, seed=each)
    process = start(number_model, tmp_path / "in", tmp_path / "out")
    assert process.stderr is not None
    assert "starting" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
def test_two_runs_at_once_make_the_same_files(
    number_model: Path, parts: Path, tmp_path: Path, score: Command
) -> None:
    for each in range(10):
        write_part(parts / f"{each}.parquet", 20_000, seed=each)
    assert score(number_model, parts, tmp_path / "alone", "--keep", "id").status == 0
    both = [start(number_model, parts, tmp_path / "out") for _ in range(2)]
    assert [(each.communicate(timeout=60)[1], each.returncode)[1] for each in both] == [0, 0]
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


# ----------------------------------------------------------------------------------------------------- a bucket


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with bucket(tmp_path_factory.mktemp("bucket")) as variables:
        yield variables


def objects(prefix: str, variables: dict[str, str]) -> dict[str, bytes]:
    import obstore
    from obstore.store import from_url

    names = {"AWS_ENDPOINT": "endpoint", "AWS_ACCESS_KEY_ID": "access_key_id", "AWS_REGION": "region"}
    names |= {"AWS_SECRET_ACCESS_KEY": "secret_access_key"}
    config: Any = {names[key]: value for key, value in variables.items()}
    store = from_url(f"s3://{BUCKET}/{prefix}", config=config, client_options={"allow_http": True})
    paths = [each["path"] for chunk in obstore.list(store) for each in chunk]
    return {path: bytes(obstore.get(store, path).bytes()) for path in sorted(paths)}


def upload(folder: Path, prefix: str) -> None:
    import obstore
    from obstore.store import from_url

    store = from_url(f"s3://{BUCKET}/{prefix}", client_options={"allow_http": True})
    for path, content in contents(folder).items():
        obstore.put(store, path, content)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [run.AHEAD_BYTES, 0], ids=["row groups", "pieces"])
def test_a_bucket_is_as_a_folder(
    ahead: int,
    s3: dict[str, str],
    number_model: Path,
    parts: Path,
    tmp_path: Path,
    score: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(run, "AHEAD_BYTES", ahead)
    monkeypatch.setattr(run, "READ_BYTES", 1000)
    write_part(parts / "odd name +%20.parquet", 3_000, group=1_000)
    upload(parts, f"in {ahead}")
    given, out = f"s3://{BUCKET}/in {ahead}/", f"s3://{BUCKET}/out {ahead}/"
    assert score(number_model, parts, tmp_path / "out").status == 0
    assert score(number_model, given, out).summary["scored"] == 4
    expected = contents(tmp_path / "out")
    found = objects(f"out%20{ahead}", s3)
    results = {path for path in expected if path.endswith(".parquet")}
    assert {path for path in found if path.endswith(".parquet")} == results
    assert len(found) == 8
    for path in results:
        tables = [pq.read_table(pa.BufferReader(each[path])) for each in (expected, found)]
        assert tables[0].equals(tables[1])
    assert score(number_model, given, out).summary["skipped"] == 4
    write_part(parts / "a.parquet", 11)
    upload(parts, f"in {ahead}")
    assert score(number_model, given + "*.parquet", out).summary["replaced"] >= 1


@pytest.mark.long("app", "tests/app/batch", "uv.lock")
def test_runs_in_a_bucket_are_killed_and_two_at_once(
    s3: dict[str, str], number_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    for each in range(6):
        write_part(tmp_path / f"in/{each}.parquet", 400_000, seed=each)
    upload(tmp_path / "in", "many")
    given = f"s3://{BUCKET}/many/*.parquet"
    undisturbed = start(number_model, given, f"s3://{BUCKET}/undisturbed")
    undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0
    killed = 0
    for wait in (0.2, 0.5, 0.9):
        process = start(number_model, given, f"s3://{BUCKET}/killed")
        assert process.stderr is not None
        assert "starting" in process.stderr.readline()
        time.sleep(wait)
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
    assert killed
    both = [start(number_model, given, f"s3://{BUCKET}/killed") for _ in range(2)]
    assert [(each.communicate(timeout=120)[1], each.returncode)[1] for each in both] == [0, 0]
    assert objects("killed", s3) == objects("undisturbed", s3)


def test_a_container_of_azure(
    number_model: Path, parts: Path, tmp_path: Path, score: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(number_model, parts, tmp_path / "expected").status == 0
    with container({f"in/{path}": content for path, content in contents(parts).items()}) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        done = score(number_model, "az://data/in", tmp_path / "out")
        again = score(number_model, "az://data/in", tmp_path / "out")
    assert (done.summary["scored"], again.summary["skipped"]) == (3, 3)
    for path in ("a.parquet", "day=2/b.parquet", "day=2/empty.parquet"):
        expected, found = (
            pq.read_table(tmp_path / each / version_of(number_model) / path) for each in ("expected", "out")
        )
        assert found.equals(expected)


def test_a_bucket_that_is_not_there_is_named(
    s3: dict[str, str], number_model: Path, parts: Path, score: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    done = score(number_model, parts, "s3://nowhere/out")
    assert done.status == 1
    assert len(done.errors.splitlines()) <= 8
    assert "Traceback" not in done.errors


def test_every_setting_is_the_services(
    number_model: Path, parts: Path, tmp_path: Path, score: Command
) -> None:
    """A bundle that was edited is refused, as the service refuses it."""
    shutil.copytree(number_model, tmp_path / "edited")
    path = tmp_path / "edited/model.json"
    path.write_text(path.read_text().replace("iris", "rose", 1))
    done = score(tmp_path / "edited", parts, tmp_path / "out")
    assert (done.status, "does not match its own digest" in done.errors) == (1, True)


def test_out_of_range_is_accepted_if_the_model_does(tmp_path: Path, score: Command) -> None:
    write_number_bundle(tmp_path / "model", out_of_range="accept")
    table = write_part(tmp_path / "in/a.parquet", 2)
    pq.write_table(table.set_column(1, "sepal_length", pa.array([5.0, 500.0])), tmp_path / "in/a.parquet")
    assert score(tmp_path / "model", tmp_path / "in", tmp_path / "out").summary["rejected"] == 0
