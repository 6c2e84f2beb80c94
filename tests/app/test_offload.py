"""Large requests in a process of low priority: the same answers and counts as in a thread, and what happens if it ends."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from app.contract import Bundle, read_bundle
from app.errors import Detail, RequestError, invalid
from app.main import create_app
from app.offload import Done, Offload, Setup, Task
from app.offloaded import serve
from app.settings import Settings
from tests.app.processes import PATIENCE, Running, running
from tests.app.test_metrics import Series, parse, value
from tests.app.test_supervisor import eventually
from tests.bundles import (
    IRIS_FEATURES,
    write_harvest_bundle,
    write_mixed_bundle,
    write_number_bundle,
    write_value_bundle,
    write_wide_bundle,
)
from tests.load.traffic import Traffic

ROWS = 10_000
"""So many that no machine answers them in a millisecond, which a thread would not be asked for."""
RANGES = ((4.5, 7.5), (2.2, 4), (1, 6.5), (0.1, 2.4))
JSON = {"content-type": "application/json"}


def numbers(count: int = ROWS) -> list[list[float]]:
    generator = random.Random(3)
    return [[round(generator.uniform(*each), 1) for each in RANGES] for _ in range(count)]


def instances(rows: list[list[float]], **more: Any) -> bytes:
    return json.dumps(
        {"instances": [dict(zip(IRIS_FEATURES, row, strict=True)) for row in rows], **more}
    ).encode()


def columns(rows: list[list[float]], **more: Any) -> bytes:
    return json.dumps(
        {"columns": dict(zip(IRIS_FEATURES, zip(*rows, strict=True), strict=True)), **more}
    ).encode()


def tensors(rows: list[list[float]]) -> bytes:
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": data}
        for name, data in zip(IRIS_FEATURES, zip(*rows, strict=True), strict=True)
    ]
    return json.dumps({"id": "a request", "inputs": inputs}).encode()


def setup(bundle: Bundle) -> Setup:
    return Setup(bundle, max_body_bytes=2**20, max_answer_bytes=2**23, ignore_unknown=False)


def ready(offload: Offload) -> Offload:
    eventually(offload.is_ready)
    return offload


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    write_number_bundle(folder, explained=True)
    return folder


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    return read_bundle(model)


@pytest.fixture(scope="module")
def started(bundle: Bundle) -> Iterator[Offload]:
    offload = ready(Offload(setup(bundle)))
    yield offload
    offload.close()


def client(bundle: Bundle, offload: Offload | None = None, **settings: object) -> TestClient:
    return TestClient(create_app(Settings(max_body_bytes=2**20, **settings), bundle, offload))  # type: ignore[arg-type]


BAD = numbers()
BAD[2_000] = [1.0, 2.0, 3.0, "four"]  # type: ignore[list-item]
REQUESTS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "instances": ("/predict", instances(numbers()), {}),
    "columns": ("/predict", columns(numbers()), {}),
    "tensors": ("/v2/models/iris/infer", tensors(numbers()), {}),
    "one row in much JSON": ("/predict", instances(numbers(1)) + b" " * 20_000, {}),
    "explained": ("/predict", columns(numbers(), explain=True), {}),
    "gzip": ("/predict", gzip.compress(instances(numbers())), {"content-encoding": "gzip"}),
    "broken gzip": ("/predict", gzip.compress(instances(numbers()))[:-9], {"content-encoding": "gzip"}),
    "too large when decompressed": (
        "/predict",
        gzip.compress(os.urandom(2**13) * 200),
        {"content-encoding": "gzip"},
    ),
    "a fault": ("/predict", instances(BAD), {}),
    "unknown feature": ("/predict", columns(numbers())[:-2] + b', "colour": [1]}}', {}),
    "broken JSON": ("/predict", columns(numbers())[:-1], {}),
    "other media type": ("/predict", columns(numbers()), {"content-type": "text/csv"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_answers_and_counts_are_those_of_a_thread(bundle: Bundle, started: Offload, name: str) -> None:
    path, body, headers = REQUESTS[name]
    here, there = client(bundle), client(bundle, started)

    answers = [each.post(path, content=body, headers=JSON | headers) for each in (here, there)]

    assert answers[0].content == answers[1].content
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].headers == answers[1].headers
    assert counts(here) == counts(there)


def counts(of: TestClient) -> Series:
    """All of `/metrics` but times, and the memory of processes."""
    return {
        (name, labels): number
        for (name, labels), number in parse(of.get("/metrics").text).items()
        if not name.startswith(("process_", "offloaded_process_"))
        and ("duration" not in name or name.endswith("_count"))
    }


@pytest.mark.slow
def test_the_process_does_the_work(bundle: Bundle, started: Offload) -> None:
    pid = started.pid()
    assert pid is not None
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    there = client(bundle, started)

    for _ in range(20):
        assert there.post("/predict", content=instances(numbers()), headers=JSON).status_code == 200

    assert sum(process.cpu_times()[:2]) - before >= 0.05
    assert process.nice() == 19
    assert value(parse(there.get("/metrics").text), "offloaded_process_resident_memory_bytes") > 10_000_000


@pytest.mark.slow
def test_its_predictions_are_logged(bundle: Bundle, started: Offload, tmp_path: Path) -> None:
    there = client(bundle, started, prediction_log=str(tmp_path), prediction_log_rows_per_file=ROWS)

    answer = there.post("/v2/models/iris/infer", content=tensors(numbers()), headers=JSON)

    eventually(lambda: any(tmp_path.rglob("*.jsonl")))
    (file,) = tmp_path.rglob("*.jsonl")
    lines = [json.loads(each) for each in file.read_text().splitlines()]
    labels = answer.json()["outputs"][0]["data"]
    assert [each["label"] for each in lines] == labels
    assert [list(each["features"].values()) for each in lines] == numbers()
    assert {each["id"] for each in lines} == {answer.headers["x-request-id"]}


def write_wide(folder: Path) -> None:
    write_wide_bundle(folder, 40, ("yes", "no"), missing=True)


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_mixed_bundle, write_harvest_bundle, write_value_bundle, write_wide])
def test_every_kind_of_model_is_answered_counted_and_logged_as_in_a_thread(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    write(folder := tmp_path / "model")
    bundle = read_bundle(folder)
    offload = ready(Offload(setup(bundle)))
    traffic = Traffic(bundle.manifest, random.Random(5))
    made = [traffic.instances, traffic.columns, traffic.tensors]
    asked = [
        each
        for each in (made[number % 3]() for number in range(90))
        if len(each.body) > 4_000 and "explain" not in each.about
    ]
    before = offload.pid()
    logs = tmp_path / "here", tmp_path / "there"
    here, there = (
        client(bundle, each, prediction_log=str(log), prediction_log_rows_per_file=1)
        for each, log in zip((None, offload), logs, strict=True)
    )

    for each in asked:
        headers = {"content-type": each.content_type, "x-request-id": "same"}
        answers = [to.post(each.path, content=each.body, headers=headers) for to in (here, there)]
        assert answers[0].status_code == answers[1].status_code == 200
        assert answers[0].content == answers[1].content

    assert len(asked) > 10
    assert offload.pid() == before
    rows = sum(each.rows for each in asked)
    eventually(lambda: all(len(logged(log)) == rows for log in logs))
    assert logged(logs[0]) == logged(logs[1])
    eventually(lambda: counts(here) == counts(there))
    offload.close()


def logged(folder: Path) -> list[dict[str, Any]]:
    """Lines of a prediction log, without their times."""
    lines = [json.loads(line) for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(({**each, "time": None} for each in lines), key=json.dumps)


def test_a_result_that_cannot_be_sent_costs_its_request() -> None:
    ours, theirs = Pipe()
    results = [Done("fine", [], 0, None, 0.1), Done("bad", [], 0, ("id", lambda: None, None), 0.2)]
    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(serve, theirs, lambda _: results.pop())
        answers = []
        for _ in range(2):
            ours.send(Task("predict", 0, {}, recorded=True))
            answers.append(ours.recv())
        ours.close()
        with pytest.raises(EOFError):
            served.result(PATIENCE)

    assert "pickle" in str(answers[0].answer)
    assert answers[1] == Done("fine", [], 0, None, 0.1)


@pytest.mark.slow
def test_a_death_costs_one_request(bundle: Bundle) -> None:
    offload = ready(Offload(setup(bundle)))
    there = client(bundle, offload)
    first = offload.pid()
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(there.post, "/predict", content=columns(numbers()), headers=JSON)
        time.sleep(0.5)
        assert not waiting.done()
        os.kill(first, signal.SIGKILL)
        lost = waiting.result(PATIENCE)

    assert (lost.status_code, lost.json()["code"], lost.headers["retry-after"]) == (503, "overloaded", "1")
    assert there.post("/predict", content=columns(numbers()), headers=JSON).status_code == 200
    assert offload.pid() not in (None, first)
    offload.close()


@pytest.mark.slow
def test_it_may_end_between_requests(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")  # Nothing in its start is deprecated.
    offload = ready(Offload(setup(bundle)))
    first = offload.pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(lambda: offload.pid() is None)

    answered = client(bundle, offload).post("/predict", content=columns(numbers()), headers=JSON)

    assert answered.status_code == 200
    eventually(lambda: offload.pid() not in (None, first))
    offload.close()


@pytest.mark.slow
def test_a_process_that_does_not_start_costs_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    offload = Offload(setup(bundle))
    there = client(bundle, offload)

    for _ in range(2):
        assert there.post("/predict", content=columns(numbers()), headers=JSON).status_code == 200

    offload.close()
    (line,) = [each.message for each in caplog.records if each.name == "app.offload"]
    assert line.startswith("the process for large requests does not start: ")


def test_errors_survive_the_way() -> None:
    details = [
        Detail("x.1", "must be a number", "wrong_type", "x"),
        Detail("y", "is required", "missing_field"),
    ]
    for error in (
        invalid(details),
        RequestError(503, "overloaded", "no", reason="overloaded", headers=((b"retry-after", b"1"),)),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert vars(again) == vars(error)
        assert again.body() == error.body()


# ------------------------------------------------------------------------------ in the service


def children(service: Running) -> list[psutil.Process]:
    processes = psutil.Process(service.process.pid).children(recursive=True)
    return [each for each in processes if "app.offloaded" in each.cmdline()]


def post(service: Running, body: bytes) -> int:
    request = urllib.request.Request(f"{service.url}/predict", body, JSON)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        answer.read()
        return int(answer.status)


def until_offloaded(service: Running) -> psutil.Process:
    def taken() -> bool:
        assert post(service, columns(numbers())) == 200
        pages = httpx.get(f"{service.url}/metrics").text
        return "offloaded_process_resident_memory_bytes" in pages or bool(children(service))

    eventually(taken)
    (process,) = children(service)
    eventually(lambda: process.nice() == 19)
    return process


@pytest.mark.slow
def test_single_rows_start_no_process(number_model: Path) -> None:
    with running(number_model) as service:
        row = json.dumps(dict(zip(IRIS_FEATURES, numbers(1)[0], strict=True))).encode()
        assert [post(service, row) for _ in range(50)] == [200] * 50
        assert children(service) == []


@pytest.mark.slow
def test_it_can_be_switched_off(number_model: Path) -> None:
    with running(number_model, batch_process="false") as service:
        assert [post(service, columns(numbers())) for _ in range(20)] == [200] * 20
        assert children(service) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_each_row_is_counted_once(number_model: Path, workers: int) -> None:
    with running(number_model, workers=workers) as service:
        requests = 40
        assert [post(service, columns(numbers())) for _ in range(requests)] == [200] * requests

        def counted() -> bool:
            series = parse(httpx.get(f"{service.url}/metrics").text)
            rows = sum(number for (name, _), number in series.items() if name == "model_predictions_total")
            return rows == requests * ROWS

        eventually(counted)
        assert children(service)


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True])
def test_a_large_request_in_flight_is_finished(number_model: Path, *, to_all: bool) -> None:
    """Also if the signal goes to all processes, as systemd sends it."""
    with running(number_model) as service:
        process = until_offloaded(service)
        process.suspend()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(post, service, columns(numbers()))
            time.sleep(0.3)
            if to_all:
                process.terminate()
            service.process.terminate()
            time.sleep(0.3)
            process.resume()
            assert answer.result(PATIENCE) == 200
        assert service.process.wait(PATIENCE) == 0
        eventually(lambda: not process.is_running())


@pytest.mark.slow
def test_it_ends_with_a_service_that_is_killed(number_model: Path) -> None:
    with running(number_model) as service:
        process = until_offloaded(service)
        service.process.kill()
        eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_single_rows_are_answered_while_it_hangs(number_model: Path) -> None:
    with running(number_model) as service:
        process = until_offloaded(service)
        process.suspend()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(post, service, columns(numbers()))
            row = json.dumps(dict(zip(IRIS_FEATURES, numbers(1)[0], strict=True))).encode()
            assert [post(service, row) for _ in range(50)] == [200] * 50
            assert not answer.done()
            process.resume()
            assert answer.result(PATIENCE) == 200
