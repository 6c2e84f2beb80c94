"""Several workers: shared metrics, workers that die, hang or cannot be replaced, and the end of all."""

from __future__ import annotations

import signal
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.contract import MODEL_FILE, read_bundle
from app.settings import Settings, SettingsError
from app.supervisor import Supervisor
from tests.app.processes import PATIENCE, Running, running
from tests.app.test_metrics import Series, parse, value
from tests.app.test_server import Load, status

pytestmark = pytest.mark.slow
CLIENTS = 8


def workers(service: Running) -> list[psutil.Process]:
    """The processes that serve: they share the supervisor's listening socket."""
    return [
        child
        for child in psutil.Process(service.process.pid).children()
        if alive(child) and "app.worker" in child.cmdline()
    ]


def scrape(service: Running) -> Series:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=PATIENCE) as answer:
        return parse(answer.read().decode())


def wait_until_all_are_ready(service: Running) -> None:
    """Until each worker has shared its first metrics, and a while for the first sign of life after that."""
    eventually(lambda: len(workers(service)) == 2)
    eventually(lambda: {"gauge_livesum_0.db", "gauge_livesum_1.db"} <= metric_files(workers(service)[0]))
    time.sleep(2)


def shared_directory(worker: psutil.Process) -> Path:
    return Path(worker.environ()["PROMETHEUS_MULTIPROC_DIR"])


def metric_files(worker: psutil.Process) -> set[str]:
    return {each.name for each in shared_directory(worker).glob("*.db")}


def eventually(condition: Callable[[], bool], within: float = PATIENCE) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


@pytest.mark.long("app", "tests/app")
def test_a_killed_worker_is_replaced_and_takes_only_its_own_requests_along(number_model: Path) -> None:
    with running(number_model, workers=2) as service:
        wait_until_all_are_ready(service)
        victim, survivor = workers(service)
        files = metric_files(victim)
        with Load(service, CLIENTS) as load:
            time.sleep(0.5)
            killed = time.monotonic()
            victim.kill()
            eventually(lambda: len(workers(service)) == 2 and not alive(victim))
            time.sleep(1.5)

        assert len(load.failed) <= CLIENTS, "more than the requests that were in flight were lost"
        assert sum(begun > killed + 0.5 for begun in load.answered) > 10
        assert victim.pid not in {each.pid for each in workers(service)}
        assert survivor.pid in {each.pid for each in workers(service)}
        # What the dead one had open is gone; the scrape's own connection is left.
        eventually(lambda: value(scrape(service), "http_connections") == 1)
        # The replacement goes on with the files of the dead one.
        eventually(lambda: metric_files(survivor) == files)


def test_a_replacement_that_cannot_start_leaves_the_others_alone(number_model: Path) -> None:
    with running(number_model, workers=2) as service:
        wait_until_all_are_ready(service)
        victim, survivor = workers(service)
        model = shared_directory(victim) / MODEL_FILE
        content = model.read_bytes()
        model.write_bytes(b"")
        victim.kill()
        assert service.process.stderr is not None
        assert any("not from one bundle" in line for line in service.process.stderr)
        assert status(f"{service.url}/health/ready") == 200
        assert survivor in workers(service)
        model.write_bytes(content)
        eventually(lambda: len(workers(service)) == 2)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=PATIENCE) == 0


@pytest.mark.long("app", "tests/app/test_supervisor.py")
def test_a_worker_that_hangs_is_replaced_and_one_that_is_stopped_can_be_ended(number_model: Path) -> None:
    with running(number_model, workers=2) as service:
        wait_until_all_are_ready(service)
        hanging, other = workers(service)
        hanging.suspend()
        eventually(lambda: not alive(hanging), within=3 * PATIENCE)
        eventually(lambda: len(workers(service)) == 2)
        assert status(f"{service.url}/health/ready") == 200
        other.suspend()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=PATIENCE) == 0


def test_a_signal_to_every_process_drains_once(number_model: Path) -> None:
    """As systemd sends it; a second signal to a worker must not end its drain."""
    with running(number_model, workers=2, drain_seconds=3600) as service:
        wait_until_all_are_ready(service)
        service.process.send_signal(signal.SIGTERM)
        for each in workers(service):
            each.terminate()
        eventually(lambda: status(f"{service.url}/health/ready") == 503)
        time.sleep(0.5)
        assert len(workers(service)) == 2
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=PATIENCE) == 0


def test_workers_need_a_place_for_what_they_share(
    number_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(
            SettingsError, match=r"^ESPALIER_WORKERS=2: .+; make /tmp writable, set TMPDIR"
        ) as caught,
        Supervisor(Settings(workers=2), read_bundle(number_model), listener),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.long("app", "tests/app")
def test_sigterm_under_load_drains_every_worker(number_model: Path) -> None:
    drain = 1.5
    with running(number_model, workers=2, drain_seconds=drain) as service, Load(service, CLIENTS) as load:
        eventually(lambda: len(load.answered) > 50)
        time.sleep(1)
        signalled = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert {status(f"{service.url}/health/ready") for _ in range(10)} == {503}
        assert service.process.wait(timeout=PATIENCE) == 0
    assert [each for each in load.failed if each[0] < signalled + drain - 0.1] == []


def test_metrics_are_those_of_all_workers_and_leave_nothing_behind(
    number_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running(number_model, workers=2) as service:
        with Load(service, CLIENTS) as load:
            eventually(lambda: len(load.answered) > 200)
        answered = len(load.answered)
        labels = {"handler": "/predict", "method": "POST", "status": "200"}
        # A request is counted after its answer has left; until a worker has told its first there is no series.
        counted = ("http_requests_total", frozenset(labels.items()))
        eventually(lambda: scrape(service).get(counted) == answered)
        series = scrape(service)
        assert value(series, "model_predictions_total", **{"class": "setosa"}) == answered
        assert value(series, "model_prediction_confidence_count") == answered
        assert value(series, "model_class_reference_ratio", **{"class": "setosa"}) == pytest.approx(1 / 3)
        assert [number for (name, _), number in series.items() if name == "model_info"] == [1]
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []


def test_workers_do_not_outlive_their_supervisor(number_model: Path) -> None:
    with running(number_model, workers=2) as service:
        eventually(lambda: len(workers(service)) == 2)
        orphans = workers(service)
        service.process.kill()
        eventually(lambda: not any(alive(each) for each in orphans))
