"""The prediction log: what is written, under which id, and that no request ever waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.contract import read_bundle
from app.main import Application
from app.settings import Settings, _shown
from tests.app.conftest import Serve
from tests.app.processes import PATIENCE, ROOT, Running, running
from tests.app.test_fastpath import bodies, parsed, plausible
from tests.app.test_metrics import parse, value
from tests.app.test_server import read, refused
from tests.app.wire import answer_on_the_wire
from tests.buckets import BUCKET, bucket
from tests.bundles import mixed_row, number_row
from tests.tools import examples, free_port

ROW = number_row((5.1, 3.5, 1.4, 0.2))
PLANTS = [mixed_row(4.9, 3.0, "clay", "2024-05-01T14:30:00+02:00"), mixed_row(None, 7.9, None)]
ID = {"x-request-id": "a-client's-own"}
NUMBERS_INFER, PLANTS_INFER = "/v2/models/iris/infer", "/v2/models/plants/infer"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def lines_in(folder: Path) -> list[dict[str, Any]]:
    """All lines, in the order in which they were written."""
    return [json.loads(line) for file in files_in(folder) for line in file.read_text().splitlines()]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def log_of(client: TestClient) -> list[dict[str, Any]]:
    """What was logged until now, after which nothing more is."""
    app = client.app
    assert isinstance(app, Application)
    log = app.state.prediction_log
    log.close(PATIENCE)
    return lines_in(Path(log._store.prefix))


def tensors(columns: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [len(data)], "datatype": "FP64", "data": data}
        for name, data in columns.items()
    ]
    return {"inputs": inputs, **more}


# ------------------------------------------------------------------------------ what is written


def test_a_line_has_the_row_the_answer_and_where_it_comes_from(
    mixed_model: Path, serve: Serve, folder: Path
) -> None:
    client = serve(mixed_model, prediction_log=str(folder))
    before = datetime.now(UTC)
    answer = client.post("/predict", json=PLANTS[0].values, headers=ID)
    assert answer.headers["x-request-id"] == ID["x-request-id"]
    (line,) = log_of(client)
    seconds = (datetime.fromisoformat(line.pop("time")) - before).total_seconds()
    assert -0.001 <= seconds < PATIENCE
    assert line == {
        "id": ID["x-request-id"],
        "row": 0,
        "model_version": read_bundle(mixed_model).manifest.version,
        "features": PLANTS[0].values,
        "label": PLANTS[0].label,
        "probabilities": pytest.approx(PLANTS[0].probabilities),
    }
    assert answer.json()["probabilities"] == line["probabilities"]


@pytest.mark.parametrize("shape", ["instances", "columns"])
def test_of_many_rows_each_has_its_number(mixed_model: Path, serve: Serve, folder: Path, shape: str) -> None:
    client = serve(mixed_model, prediction_log=str(folder))
    rows = [PLANTS[index % 2].values for index in range(150)]
    body: Any = rows if shape == "instances" else {name: [row[name] for row in rows] for name in rows[0]}
    assert client.post("/predict", json={shape: body}, headers=ID).status_code == 200
    lines = log_of(client)
    assert [line["row"] for line in lines] == list(range(150))
    assert {line["id"] for line in lines} == {ID["x-request-id"]}
    # What is missing is null, and nothing else.
    assert [line["features"] for line in lines] == rows
    assert [line["label"] for line in lines] == [PLANTS[index % 2].label for index in range(150)]


SECRET = "4fa1c6"


@given(
    fields=st.sets(
        st.sampled_from(["id", "time", "model_version", "features", "label", "probabilities"]), min_size=1
    ),
    features=st.sampled_from(["all", "none"])
    | st.sets(st.sampled_from(["age", "soil type", "Höhe (cm)", "sown"])).map(tuple),
)
@settings(max_examples=15, deadline=None)
def test_nothing_but_the_declared_fields_is_written(
    mixed_model: Path,
    serve: Serve,
    tmp_path_factory: pytest.TempPathFactory,
    fields: set[str],
    features: str | tuple[str, ...],
) -> None:
    folder = tmp_path_factory.mktemp("log")
    client = serve(
        mixed_model,
        prediction_log=str(folder),
        prediction_log_fields=tuple(fields),
        prediction_log_features=features,
    )
    told = {"x-forwarded-for": SECRET, "authorization": SECRET, "cookie": SECRET, "user-agent": SECRET}
    assert client.post(f"/predict?key={SECRET}", json=PLANTS[0].values, headers=told).status_code == 200
    body = {"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [3.0]}]}
    assert (
        client.post(PLANTS_INFER, json=body | {"parameters": {"user": SECRET}}, headers=told).status_code
        == 200
    )
    lines = log_of(client)
    names = {"all": ("Höhe (cm)", "age", "soil type", "sown"), "none": ()}.get(str(features), features)
    expected = (fields | {"row"} if "id" in fields else fields) - (set() if names else {"features"})
    for line in lines:
        assert set(line) == expected
        assert set(line.get("features", names)) == set(names)
    assert len(lines) == 2
    assert SECRET not in "".join(file.read_text() for file in files_in(folder))


def test_what_is_refused_is_not_logged(
    numbers: TestClient, number_model: Path, serve: Serve, folder: Path
) -> None:
    client = serve(number_model, prediction_log=str(folder))
    for body in ({}, {**ROW.values, "petal_width": "wide"}, [1]):
        answer = client.post("/predict", json=body, headers=ID)
        assert answer.status_code == 422
        assert "x-request-id" not in answer.headers
    assert log_of(client) == []
    # Without the log nobody asks for ids, and none are given.
    assert "x-request-id" not in numbers.post("/predict", json=ROW.values, headers=ID).headers


@pytest.mark.parametrize("given_id", ["x" * 129, "two words", "ümlaut", "", "tab\tbed"])
def test_an_id_that_cannot_go_back_is_replaced(
    number_model: Path, serve: Serve, folder: Path, given_id: str
) -> None:
    client = serve(number_model, prediction_log=str(folder))
    body = tensors({key: [1.5] for key in ROW.values}, id=given_id)
    answers = [
        client.post("/predict", json=ROW.values, headers={"x-request-id": given_id.encode()}),
        client.post(NUMBERS_INFER, json=body),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]
    assert [line["id"] for line in log_of(client)] == ids
    assert answers[1].json()["id"] == given_id


def test_the_protocols_own_id_counts_where_no_header_has_one(
    number_model: Path, serve: Serve, folder: Path
) -> None:
    client = serve(number_model, prediction_log=str(folder))
    body = tensors({key: [1.5, 2.5] for key in ROW.values}, id="own")
    assert client.post(NUMBERS_INFER, json=body).headers["x-request-id"] == "own"
    assert client.post(NUMBERS_INFER, json=body, headers=ID).headers["x-request-id"] == ID["x-request-id"]
    # A refused request's id is not the next one's.
    assert client.post(NUMBERS_INFER, json=tensors({"sepal_length": [1.0]}, id="refused")).status_code == 422
    assert client.post("/predict", json=ROW.values).headers["x-request-id"] != "refused"
    lines = log_of(client)
    assert [(line["id"], line["row"]) for line in lines[:4]] == [
        ("own", 0),
        ("own", 1),
        (ID["x-request-id"], 0),
        (ID["x-request-id"], 1),
    ]
    assert len(lines) == 5


@pytest.mark.slow
def test_a_sample_is_taken_of_requests_and_says_so(number_model: Path, serve: Serve, folder: Path) -> None:
    client = serve(number_model, prediction_log=str(folder), prediction_log_sample=0.3)
    body = {"instances": [ROW.values] * 3}
    answers = [client.post("/predict", json=body) for _ in range(200)]
    logged = [answer.headers["x-request-id"] for answer in answers if "x-request-id" in answer.headers]
    # 60 are expected; the bounds are eight standard deviations away.
    assert 10 < len(logged) < 112
    assert [line["id"] for line in log_of(client)] == [each for each in logged for _ in range(3)]


# ------------------------------------------------------------------------------ the three ways to an answer


class Logged:
    """The three ways of `test_fastpath`, each with a log."""

    def __init__(self, serve: Serve, model: Path, folder: Path) -> None:
        self.clients = [
            serve(
                model, max_body_bytes=3000, prediction_log=str(folder / way), prediction_log_rows_per_file=1
            )
            for way in ("wired", "fast", "ordinary")
        ]
        self.apps = [client.app for client in self.clients]
        self.apps[2].fast_path = {}  # type: ignore[attr-defined]

    def post(self, path: str, body: bytes, sent: dict[str, str]) -> list[tuple[int, dict[str, str], bytes]]:
        head = {"host": "testserver", "content-length": str(len(body)), **sent}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        wired = self.apps[0]
        assert isinstance(wired, Application)
        on_the_wire = asyncio.run(
            answer_on_the_wire(wired, f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        )
        others = (client.post(path, content=body, headers=sent) for client in self.clients[1:])
        return [
            parsed(on_the_wire),
            *((each.status_code, dict(each.headers), each.content) for each in others),
        ]


@pytest.fixture(scope="module")
def logged(number_model: Path, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(serve, number_model, tmp_path_factory.mktemp("ways"))


good_bodies = (
    st.builds(lambda rows: {"instances": rows}, st.lists(plausible, min_size=1, max_size=4)) | plausible
)
good_tensors = st.lists(plausible, min_size=1, max_size=3).map(
    lambda rows: tensors({name: [row[name] for row in rows] for name in rows[0]}, id="from the body")
)


@pytest.mark.slow
@settings(max_examples=examples(50))
@given(
    body=good_bodies.map(lambda each: json.dumps(each).encode())
    | good_tensors.map(lambda each: json.dumps(each).encode())
    | bodies,
    path=st.sampled_from(["/predict", NUMBERS_INFER]),
)
def test_all_ways_answer_alike(logged: Logged, body: bytes, path: str) -> None:
    wired, fast, ordinary = logged.post(path, body, ID)
    assert wired == fast == ordinary
    assert (fast[1].get("x-request-id") == ID["x-request-id"]) == (fast[0] == 200)


def test_all_ways_log_alike(logged: Logged) -> None:
    """Whatever the test above has sent, too, if it was here."""
    rows = [number_row((5.0 + number / 10, 3.5, 1.4, 0.2)).values for number in range(10)]
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    for path, body in (
        ("/predict", rows[0]),
        ("/predict", {"instances": rows}),
        ("/predict", {"columns": columns}),
        ("/predict", {"instances": [*rows, {}]}),
        (NUMBERS_INFER, tensors(columns)),
    ):
        logged.post(path, json.dumps(body).encode(), ID)
    with_id = json.dumps(tensors(columns, id="in-the-body")).encode()
    ids = [answer[1]["x-request-id"] for answer in logged.post(NUMBERS_INFER, with_id, {})]
    assert ids == ["in-the-body"] * 3
    made = [
        answer[1]["x-request-id"] for answer in logged.post("/predict", json.dumps(ROW.values).encode(), {})
    ]
    assert len(set(made)) == 3

    wired, fast, ordinary = ([{**line, "time": None} for line in log_of(client)] for client in logged.clients)
    assert len(wired) >= 1 + 3 * 10 + 10 + 1
    assert [each[-1].pop("id") for each in (wired, fast, ordinary)] == made
    assert wired == fast == ordinary


# ------------------------------------------------------------------------------ files


def test_files_are_named_by_day_and_process_and_whole(number_model: Path, serve: Serve, folder: Path) -> None:
    client = serve(number_model, prediction_log=str(folder), prediction_log_rows_per_file=100)
    day = datetime.now(UTC).date()
    for _ in range(5):
        client.post("/predict", json={"instances": [ROW.values] * 50})
    assert len(log_of(client)) == 250
    names = [file.relative_to(folder).as_posix() for file in files_in(folder)]
    pod = re.escape(re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()))
    for number, name in enumerate(names, 1):
        assert re.fullmatch(rf"date={day}/{pod}-\d{{8}}T\d{{12}}-{os.getpid()}-{number:06}\.jsonl", name), (
            name
        )
    assert all(100 <= len(file.read_text().splitlines()) < 164 for file in files_in(folder)[:-1])
    assert value(parse(client.get("/metrics").text), "prediction_log_rows_total", outcome="written") == 250


def test_a_file_is_written_when_it_is_old_enough(number_model: Path, serve: Serve, folder: Path) -> None:
    client = serve(number_model, prediction_log=str(folder), prediction_log_seconds_per_file=1)
    client.post("/predict", json=ROW.values)
    eventually(lambda: files_in(folder) != [])
    assert len(lines_in(folder)) == 1


@pytest.mark.slow
def test_a_stored_file_appears_whole(number_model: Path, folder: Path) -> None:
    """A reader that looks all the time never sees half a line."""
    with running(
        number_model,
        prediction_log=folder,
        prediction_log_rows_per_file=2000,
        prediction_log_seconds_per_file=1,
        prediction_log_queue_rows=20_000,
    ) as service:
        for _ in range(20):
            post(service, {"columns": {name: [1.5] * 1000 for name in ROW.values}})
            lines_in(folder)
        eventually(lambda: len(lines_in(folder)) == 20_000)


# ------------------------------------------------------------------------------ start and stop


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_directory_that_cannot_be_written_to_is_one_line(
    number_model: Path, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "log"
    line = refused(number_model, prediction_log=target, port=free_port(), workers=workers)
    assert (
        line
        == f"error: ESPALIER_PREDICTION_LOG={target}: the directory cannot be written to: Not a directory"
    )
    line = refused(number_model, prediction_log="/proc/log", port=free_port(), workers=workers)
    assert line.startswith("error: ESPALIER_PREDICTION_LOG=/proc/log: the directory cannot be written to: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given_value", "said"),
    [
        ("prediction_log", "gs://bucket/log", "it must be a directory or s3://BUCKET/PREFIX"),
        ("prediction_log", "s3://", "it must be a directory or s3://BUCKET/PREFIX"),
        ("prediction_log_sample", "2", "less than or equal to 1"),
        ("prediction_log_sample", "nan", "finite"),
        ("prediction_log_fields", "id,address", "=address: should be 'id'"),
        ("prediction_log_fields", "", "at least 1"),
        ("prediction_log_features", '["a', "it begins like a JSON list, but is not valid JSON"),
        (
            "prediction_log_features",
            "age,colour",
            "colour: the model has no such feature; it has Höhe (cm), age,",
        ),
        ("prediction_log_queue_rows", "0", "greater than or equal to 1"),
        ("prediction_log_seconds_per_file", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_setting_is_one_line(
    mixed_model: Path, folder: Path, name: str, given_value: str, said: str
) -> None:
    given_values: dict[str, object] = {"prediction_log": folder, name: given_value}
    line = refused(mixed_model, port=free_port(), **given_values)
    assert line.startswith(f"error: ESPALIER_{name.upper()}")
    assert said in line


@pytest.mark.slow
def test_names_with_commas_are_given_as_json(mixed_model: Path, folder: Path) -> None:
    with running(mixed_model, prediction_log=folder, prediction_log_features='["age"]') as service:
        post(service, PLANTS[0].values)
        service.process.send_signal(signal.SIGINT)
        service.process.wait(PATIENCE)
    assert [line["features"] for line in lines_in(folder)] == [{"age": 3.0}]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_sigterm_loses_no_row(number_model: Path, folder: Path, workers: int) -> None:
    with running(number_model, prediction_log=folder, workers=workers, drain_seconds=1) as service:
        ids = {post(service, ROW.values)["x-request-id"] for _ in range(20)}
        service.process.send_signal(signal.SIGTERM)
        ids.add(post(service, ROW.values)["x-request-id"])
        assert service.process.wait(PATIENCE) == 0
    assert {line["id"] for line in lines_in(folder)} == ids


@pytest.mark.slow
def test_workers_count_together(number_model: Path, folder: Path) -> None:
    with running(
        number_model, prediction_log=folder, workers=2, prediction_log_seconds_per_file=1
    ) as service:
        for _ in range(40):
            post(service, ROW.values)
        eventually(lambda: rows(service, "written") == 40)
        assert gauge(service, "prediction_log_queue_rows") == 0


@pytest.mark.slow
def test_without_a_log_nothing_of_it_is_loaded(number_model: Path) -> None:
    code = "import sys; from app.main import create_app; create_app(); print('obstore' in sys.modules)"
    environment = {**os.environ, "ESPALIER_MODEL_DIR": str(number_model)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"False\n"


def test_without_a_log_no_series_tells_of_one(numbers: TestClient) -> None:
    assert "prediction_log" not in numbers.get("/metrics").text


# ------------------------------------------------------------------------------ storage that fails


@pytest.mark.slow
def test_a_full_disk_costs_rows_and_no_answer(number_model: Path, folder: Path) -> None:
    """The limit on a file's size stands in for the disk: writing fails in the middle, and then works again."""
    with running(
        number_model, prediction_log=folder, prediction_log_rows_per_file=50, log_format="text"
    ) as service:
        unlimited = resource.prlimit(
            service.process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)
        )
        post(service, {"instances": [ROW.values] * 50})
        eventually(lambda: rows(service, "failed") == 50)
        for _ in range(10):
            assert post(service, ROW.values)["x-request-id"]
        assert files_in(folder) == [], "no half a file, not even under another name"
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
        post(service, {"instances": [ROW.values] * 50})
        eventually(lambda: rows(service, "written") == 60)
        service.process.send_signal(signal.SIGINT)
        said = service.process.communicate(timeout=PATIENCE)[1]
    assert len(re.findall("the prediction log cannot be stored: .*50 rows failed, 0 dropped", said)) == 1
    assert len(lines_in(folder)) == 60


@pytest.mark.slow
def test_a_directory_that_goes_away_costs_rows_and_no_answer(number_model: Path, folder: Path) -> None:
    with running(number_model, prediction_log=folder, prediction_log_rows_per_file=1) as service:
        shutil.rmtree(folder)
        folder.write_text("in its place")
        post(service, ROW.values)
        eventually(lambda: rows(service, "failed") == 1)
        folder.unlink()
        post(service, ROW.values)
        eventually(lambda: rows(service, "written") == 1)
    assert len(lines_in(folder)) == 1


@contextmanager
def silent_server() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def keys(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
    }


def with_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, each in environment.items():
        monkeypatch.setenv(name, each)


@pytest.mark.slow
def test_storage_that_hangs_fills_no_memory_and_delays_nobody(
    number_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of rows meets a bucket that never answers: all are answered, few are kept, the rest is counted."""
    count, batch = 200, 1000
    columns = {"columns": {name: [1.5] * batch for name in ROW.values}}
    with silent_server() as endpoint:
        with_environment(monkeypatch, keys(endpoint))
        with running(
            number_model,
            prediction_log=f"s3://{BUCKET}/log",
            prediction_log_queue_rows=3 * batch,
            prediction_log_rows_per_file=batch,
        ) as service:
            for _ in range(10):
                post(service, columns)
            eventually(lambda: rows(service, "dropped") > 0)
            before = psutil.Process(service.process.pid).memory_info().rss
            for _ in range(count):
                post(service, columns)
            grown = psutil.Process(service.process.pid).memory_info().rss - before
            dropped, waiting = rows(service, "dropped"), gauge(service, "prediction_log_queue_rows")
            service.process.send_signal(signal.SIGTERM)
            # It hangs, too, while the process wants to end.
            said = service.process.communicate(timeout=PATIENCE)[1]
            assert service.process.returncode == 0
    # What one file and the queue hold; had it all been kept, it would be some 60 MB.
    assert dropped >= (count + 10 - 3 - 2) * batch
    assert 2 * batch <= waiting <= 3 * batch
    assert grown < 15_000_000
    assert re.search(r"the prediction log lost \d+ rows", said)


@pytest.mark.slow
def test_s3_that_is_away_costs_rows_and_no_answer(
    number_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_environment(monkeypatch, keys(f"http://127.0.0.1:{free_port()}"))
    with running(
        number_model, prediction_log=f"s3://{BUCKET}/log", prediction_log_rows_per_file=1
    ) as service:
        assert post(service, ROW.values)["x-request-id"]
        eventually(lambda: rows(service, "failed") == 1)
        assert post(service, ROW.values)["x-request-id"]


@pytest.mark.long("app", "tests/app/test_predictionlog.py", "uv.lock")
def test_files_in_a_bucket(number_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore
    from obstore.store import from_url

    with bucket(tmp_path / "s3") as environment:
        with_environment(monkeypatch, environment)
        target = f"s3://{BUCKET}/some/log"
        with running(number_model, prediction_log=target, prediction_log_rows_per_file=10) as service:
            ids = [post(service, ROW.values)["x-request-id"] for _ in range(25)]
            eventually(lambda: rows(service, "written") >= 10)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(PATIENCE) == 0
        store = from_url(f"s3://{BUCKET}/some", client_options={"allow_http": True})
        paths = sorted(each["path"] for each in obstore.list(store).collect())
        assert all(re.fullmatch(r"log/date=[\d-]{10}/.*-\d{6}\.jsonl", path) for path in paths)
        content = b"".join(bytes(obstore.get(store, path).bytes()) for path in paths)
        assert [json.loads(line)["id"] for line in content.splitlines()] == ids
        # A bucket that is not there is found out when it is needed, and no request suffers.
        nowhere = {
            "prediction_log": "s3://nowhere/log",
            "prediction_log_rows_per_file": 1,
            "log_format": "text",
        }
        with running(number_model, **nowhere) as service:
            post(service, ROW.values)
            eventually(lambda: rows(service, "failed") == 1)
            service.process.send_signal(signal.SIGINT)
            said = service.process.communicate(timeout=PATIENCE)[1]
        assert "the prediction log cannot be stored: " in said


# ------------------------------------------------------------------------------ what its page says


def test_the_page_about_it_knows_every_setting_and_what_a_line_has(
    number_model: Path, serve: Serve, folder: Path
) -> None:
    page = (ROOT / "docs/prediction-log.md").read_text()
    variables = re.findall(r"^\| `ESPALIER_(PREDICTION_LOG\w*)` \| `?(.*?)`? \|", page, re.MULTILINE)
    assert dict(variables) == {
        name.upper(): _shown(field.default)
        for name, field in Settings.model_fields.items()
        if name.startswith("prediction_log")
    }
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None
    client = serve(number_model, prediction_log=str(folder))
    client.post("/predict", json=ROW.values)
    (line,) = log_of(client)
    shown = json.loads(example[1])
    assert list(line) == list(shown)
    assert list(line["features"]) == list(shown["features"])
    assert [len(shown[key]) for key in ("id", "time")] == [len(line[key]) for key in ("id", "time")]


# ------------------------------------------------------------------------------ helpers


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def post(service: Running, body: object) -> dict[str, str]:
    """The headers of a good answer."""
    data, kind = json.dumps(body).encode(), {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{service.url}/predict", data, kind), timeout=PATIENCE
    ) as answer:
        assert answer.status == 200
        return {name.lower(): value for name, value in answer.getheaders()}


def rows(service: Running, outcome: str) -> float:
    return value(parse(read(f"{service.url}/metrics")), "prediction_log_rows_total", outcome=outcome)


def gauge(service: Running, name: str) -> float:
    return value(parse(read(f"{service.url}/metrics")), name)
