"""One process: how it starts, and how it goes away under load."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from app.contract import MODEL_FILE
from tests.app.processes import PATIENCE, ROOT, Running, free_port, running, start
from tests.bundles import number_row, write_number_bundle

ROW = number_row((5.1, 3.5, 1.4, 0.2))
BODY = json.dumps(ROW.values)


class Load:
    """Clients that keep their connections and ask again and again until told to stop."""

    def __init__(self, service: Running, clients: int = 8) -> None:
        self.answered: list[float] = []
        """When each request that was answered right was begun."""
        self.failed: list[tuple[float, str]] = []
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._service.netloc, timeout=PATIENCE)
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                answer = json.load(connection.getresponse())
                assert answer["label"] == ROW.label, answer
                self.answered.append(begun)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failed.append((begun, repr(error)))
                connection.close()
                time.sleep(0.01)
        connection.close()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        content: bytes = answer.read()
    return content.decode()


def test_sigterm_under_load_loses_nothing(number_model: Path) -> None:
    drain = 1.5
    with running(number_model, drain_seconds=drain) as service, Load(service) as load:
        time.sleep(0.5)
        signalled = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert status(f"{service.url}/health/ready") == 503
        assert status(f"{service.url}/health/live") == 200
        assert service.process.wait(timeout=PATIENCE) == 0

    # Whatever began before the end of the drain was answered; the margin is the threads' own delay.
    assert [each for each in load.failed if each[0] < signalled + drain - 0.1] == []
    assert sum(begun < signalled for begun in load.answered) > 10
    assert sum(begun > signalled + 0.1 for begun in load.answered) > 10


def test_answers_while_draining_close_their_connections(number_model: Path) -> None:
    with running(number_model, drain_seconds=PATIENCE) as service:
        connection = http.client.HTTPConnection(service.netloc, timeout=PATIENCE)
        connection.request("GET", "/health/live")
        first = connection.getresponse()
        first.read()
        assert first.getheader("Connection") is None
        service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while status(f"{service.url}/health/ready") == 200:
            assert time.monotonic() < deadline
        connection.request("GET", "/health/live")
        assert connection.getresponse().getheader("Connection") == "close"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_drain(number_model: Path, second: signal.Signals) -> None:
    with running(number_model, drain_seconds=3600) as service:
        service.process.send_signal(signal.SIGTERM)
        while status(f"{service.url}/health/ready") == 200:
            time.sleep(0.01)
        service.process.send_signal(second)
        assert service.process.wait(timeout=PATIENCE) == 0


def test_sigint_stops_at_once(number_model: Path) -> None:
    with running(number_model, drain_seconds=3600) as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=PATIENCE) == 0


def test_a_request_in_flight_is_finished(number_model: Path) -> None:
    with running(number_model) as service:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as client:
            client.sendall((head + BODY[:10]).encode())
            time.sleep(0.2)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            client.sendall(BODY[10:].encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert service.process.wait(timeout=PATIENCE) == 0


def test_a_client_that_leaves_in_the_middle_is_no_error(number_model: Path) -> None:
    with running(number_model) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
        assert status(f"{service.url}/health/live") == 200
        deadline = time.monotonic() + PATIENCE
        while 'status="499"' not in read(f"{service.url}/metrics"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        service.process.send_signal(signal.SIGINT)
        log = service.process.communicate(timeout=PATIENCE)[1]
    assert len(log.splitlines()) == 1


def test_a_chunked_upload_over_the_limit_is_stopped(number_model: Path) -> None:
    with running(number_model, max_body_bytes=1000) as service:
        connection = http.client.HTTPConnection(service.netloc, timeout=PATIENCE)
        chunks = (b" " * 500 for _ in range(20))
        connection.request(
            "POST", "/predict", chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        assert connection.getresponse().status == 413


def test_the_first_line_says_what_is_served(number_model: Path) -> None:
    with running(number_model) as service:
        service.process.send_signal(signal.SIGTERM)
        first = json.loads(service.process.communicate(timeout=PATIENCE)[1].splitlines()[0])
    assert first["message"] == "serving"
    assert first["model"] == "iris"
    assert first["digest"].startswith("sha256:" + first["version"])


def test_the_log_can_be_text(number_model: Path) -> None:
    with running(number_model, log_format="text", access_log=True) as service:
        status(f"{service.url}/health/live")
        service.process.send_signal(signal.SIGINT)
        log = service.process.communicate(timeout=PATIENCE)[1]
    assert "serving iris, version" in log.splitlines()[0]
    assert '"path": "/health/live"' in log


def refused(model: Path, **settings: object) -> str:
    """The one line with which a start fails."""
    process = start(model, **settings)
    log = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1
    (line,) = log.splitlines()
    return line


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_start_is_one_line(number_model: Path, tmp_path: Path, workers: int) -> None:
    assert "ESPALIER_PORT=x" in refused(number_model, port="x", workers=workers)
    assert "no model bundle" in refused(tmp_path, port=free_port(), workers=workers)
    write_number_bundle(tmp_path)
    (tmp_path / MODEL_FILE).write_bytes(b"")
    assert "not from one bundle" in refused(tmp_path, port=free_port(), workers=workers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: Address already in use" in refused(
            number_model, port=port, workers=workers
        )
    assert "cannot listen on" in refused(number_model, host="192.0.2.1", workers=workers)


def test_help_lists_the_variables() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ESPALIER_MODEL_DIR" in done.stdout
    assert "(default: 8000)" in done.stdout
