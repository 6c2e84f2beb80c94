"""One process: how it starts, and how it goes away under load."""

from __future__ import annotations

import errno
import http.client
import json
import select
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
from app.main import create_app
from app.server import ListenError, Server, listen, refuse_connections
from app.settings import Settings
from tests.app.processes import PATIENCE, ROOT, Running, running, start
from tests.bundles import number_row, write_number_bundle
from tests.load.shutdown import stop_under_load
from tests.tools import free_port
from tests.wire import Wire, post

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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("keep_alive", [False, True])
def test_sigterm_under_saturation_loses_nothing(number_model: Path, workers: int, keep_alive: bool) -> None:
    """Once each; `python -m tests.load.shutdown` does it as often as one likes."""
    outcome = stop_under_load(number_model, workers=workers, keep_alive=keep_alive, drain=0.5, clients=64)
    assert outcome.lost == {}
    assert outcome.exit_status == 0
    assert outcome.answered > 64
    # Every client continued until its connection was refused.
    assert outcome.refused == 64


def test_a_connection_without_a_request_may_still_send_one_when_accepting_ends(
    number_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New or used before: both may have a request under way that the service cannot see yet."""
    monkeypatch.setattr("app.server._REQUEST_SECONDS", PATIENCE)
    request = post("/predict", BODY.encode())
    settings = Settings(model_dir=number_model, port=free_port(), drain_seconds=0)
    listener = listen(settings)
    server = Server(create_app(settings), settings)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    with Wire(settings.port, PATIENCE) as used:
        used.send(request)
        assert used.answer().status == 200
        with Wire(settings.port, PATIENCE) as new:
            server.handle_exit(signal.SIGTERM, None)
            wait_until_refused(settings.port)
            for each in (used, new):
                each.send(request)
                answer = each.answer()
                assert (answer.status, answer.json["label"], answer.closes) == (200, ROW.label, True)
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.slow
def test_a_head_in_two_parts_is_not_cut_off(number_model: Path) -> None:
    request = post("/predict", BODY.encode())
    with running(number_model) as service, Wire(service.port, PATIENCE) as client:
        client.send(request[:20])
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        wait_until_refused(service.port)
        client.send(request[20:])
        assert client.answer().status == 200
        assert service.process.wait(timeout=PATIENCE) == 0


@pytest.mark.slow
def test_idle_connections_do_not_keep_the_process_alive(number_model: Path) -> None:
    with (
        running(number_model) as service,
        Wire(service.port, PATIENCE) as new,
        Wire(service.port, PATIENCE) as used,
    ):
        used.send(post("/predict", BODY.encode()))
        assert used.answer().status == 200
        service.process.send_signal(signal.SIGTERM)
        assert (new.end(), used.end()) == (b"", b"")
        assert service.process.wait(timeout=PATIENCE) == 0


def wait_until_refused(port: int) -> None:
    """Until nothing listens; a connection that is accepted after all has no request."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_refused_connection_reaches_no_socket(stopped: bool) -> None:
    """Neither while the listening socket is open nor afterwards, and those that were there first stay."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as first,
    ):
        refuse_connections(listener)
        late = socket.socket()
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        accepted, _ = listener.accept()
        first.sendall(b"x")
        assert accepted.recv(1) == b"x"
        assert select.select([listener, late], [late], [], 0.2) == ([], [], [])
        accepted.close()
        if stopped:
            listener.close()
            # The client's kernel tries again after a second.
            assert select.select([], [late], [], PATIENCE)[1] == [late]
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        late.close()


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_drain(number_model: Path, second: signal.Signals) -> None:
    with running(number_model, drain_seconds=3600) as service:
        service.process.send_signal(signal.SIGTERM)
        while status(f"{service.url}/health/ready") == 200:
            time.sleep(0.01)
        service.process.send_signal(second)
        assert service.process.wait(timeout=PATIENCE) == 0


@pytest.mark.slow
def test_sigint_stops_at_once(number_model: Path) -> None:
    with running(number_model, drain_seconds=3600) as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=PATIENCE) == 0


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_chunked_upload_over_the_limit_is_stopped(number_model: Path) -> None:
    with running(number_model, max_body_bytes=1000) as service:
        connection = http.client.HTTPConnection(service.netloc, timeout=PATIENCE)
        chunks = (b" " * 500 for _ in range(20))
        connection.request(
            "POST", "/predict", chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        assert connection.getresponse().status == 413


@pytest.mark.slow
def test_the_first_line_says_what_is_served(number_model: Path) -> None:
    with running(number_model) as service:
        service.process.send_signal(signal.SIGTERM)
        first = json.loads(service.process.communicate(timeout=PATIENCE)[1].splitlines()[0])
    assert first["message"] == "serving"
    assert first["model"] == "iris"
    assert first["digest"].startswith("sha256:" + first["version"])


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sighup_drains_and_sigusr_is_ignored(number_model: Path, workers: int) -> None:
    with running(number_model, drain_seconds=3600, workers=workers) as service:
        for sig in (signal.SIGUSR1, signal.SIGUSR2):
            service.process.send_signal(sig)
        assert status(f"{service.url}/health/ready") == 200
        service.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while status(f"{service.url}/health/ready") == 200:
            assert time.monotonic() < deadline
        assert status(f"{service.url}/health/live") == 200
        service.process.send_signal(signal.SIGHUP)
        assert service.process.wait(timeout=PATIENCE) == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_start_is_no_error(number_model: Path, sig: signal.Signals) -> None:
    with start(number_model, port=free_port()) as process:
        try:
            wait_until_handled(process.pid, sig)
            process.send_signal(sig)
            assert process.wait(timeout=PATIENCE) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def wait_until_handled(pid: int, sig: signal.Signals) -> None:
    """Until a process has a handler of its own for a signal; Python has one for SIGINT from the beginning."""
    deadline = time.monotonic() + PATIENCE
    while True:
        (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in each]
        if int(line.split()[1], 16) & 1 << (signal.SIGHUP - 1):
            return
        assert time.monotonic() < deadline


@pytest.mark.parametrize("host", ["::", "[::]", "::1", "0.0.0.0", "localhost", "::ffff:127.0.0.1"])
def test_listens_where_it_is_told(host: str) -> None:
    port = free_port()
    reached = {"::": {"127.0.0.1", "::1"}, "[::]": {"127.0.0.1", "::1"}, "::1": {"::1"}}.get(
        host, {"127.0.0.1"}
    )
    with listen(Settings(host=host, port=port)):
        for address in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((address, port)).close()
            except ConnectionRefusedError:
                assert address not in reached
            else:
                assert address in reached


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "fe80::1%nope", "2001:db8::1"])
def test_a_host_that_is_not_here_is_one_line(host: str) -> None:
    with pytest.raises(
        ListenError, match=r"^cannot listen on .+; set ESPALIER_HOST and ESPALIER_PORT$"
    ) as caught:
        listen(Settings(host=host, port=free_port()))
    assert host in str(caught.value)


@pytest.mark.long("app", "tests/app/test_server.py")
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
    assert "ESPALIER_HOST=: " in refused(number_model, host="", port=free_port(), workers=workers)


@pytest.mark.slow
def test_help_lists_the_variables() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ESPALIER_MODEL_DIR" in done.stdout
    assert "(default: 8000)" in done.stdout
