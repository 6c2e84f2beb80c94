"""What connections do with small requests, when they write, and when they hang up."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import h11
import pytest

from app.main import Application
from tests.app.conftest import Serve
from tests.app.processes import PATIENCE, Running, running
from tests.app.wire import Line, answer_on_the_wire
from tests.bundles import number_row
from tests.wire import Answer, Wire

BODY = json.dumps(number_row((5.1, 3.5, 1.4, 0.2)).values).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
PREDICT = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
KEPT_SECONDS = 2


@pytest.fixture(scope="module")
def service(number_model: Path) -> Iterator[Running]:
    with running(number_model, keep_alive_seconds=KEPT_SECONDS) as made:
        yield made


@pytest.fixture
def client(service: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as made:
        yield made


def test_an_answer_is_one_packet(client: socket.socket) -> None:
    client.sendall(PREDICT)

    answer = client.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"}}")


def test_answers_of_one_turn_stay_in_order(client: socket.socket) -> None:
    rows = [number_row((5.0 + number / 10, 3.5, 1.4, 0.2)) for number in range(30)]
    bodies = [json.dumps(row.values).encode() for row in rows]
    client.sendall(b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))

    received = b""
    while received.count(b"HTTP/1.1 200") < len(rows) or not received.endswith(b"}}"):
        received += client.recv(65536)

    answers = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in received.split(b"HTTP/1.1 200 OK")[1:]]
    assert [answer["probabilities"] for answer in answers] == [
        pytest.approx(row.probabilities) for row in rows
    ]


@pytest.mark.slow
def test_an_idle_connection_is_closed(client: socket.socket) -> None:
    client.sendall(PREDICT)
    client.recv(65536)

    started = time.monotonic()
    assert client.recv(1) == b""
    assert time.monotonic() - started >= KEPT_SECONDS - 1


@pytest.mark.slow
def test_a_connection_in_use_is_kept(client: socket.socket) -> None:
    for _ in range(2 * KEPT_SECONDS + 2):
        client.sendall(PREDICT)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(0.75)


@pytest.mark.slow
def test_a_request_that_has_begun_is_waited_for(client: socket.socket) -> None:
    client.sendall(PREDICT)
    client.recv(65536)
    client.sendall(PREDICT[:40])

    time.sleep(KEPT_SECONDS + 2.5)
    client.sendall(PREDICT[40:])

    assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_who_has_sent_all_still_gets_the_answer(client: socket.socket) -> None:
    client.sendall(PREDICT)
    client.shutdown(socket.SHUT_WR)

    received = b""
    while chunk := client.recv(65536):
        received += chunk

    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(b"}}")


# ------------------------------------------------------------------------------ without a network


@pytest.fixture
def app(number_model: Path, serve: Serve) -> Application:
    made = serve(number_model).app
    assert isinstance(made, Application)
    return made


def talk(app: Application, *sent: bytes, between: Callable[[Line], None] = lambda _: None) -> Line:
    """Send pieces, with something happening after each, and wait until nothing is left to do."""

    async def run() -> Line:
        line = Line(app)
        for piece in sent:
            line.send(piece)
            between(line)
        await line.settle()
        return line

    return asyncio.run(run())


def counted(app: Application, status: int) -> bool:
    return (
        f'handler="/predict",method="POST",status="{status}"}} 1.0' in app.state.exposition.render().decode()
    )


def test_a_small_request_starts_no_task(app: Application) -> None:
    def no_task(line: Line) -> None:
        assert not line.state.tasks

    line = talk(app, PREDICT[:50], PREDICT[50:-5], PREDICT[-5:], between=no_task)

    assert line.transport.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(line.transport.writes) == 1
    assert line.state.total_requests == 1
    assert not line.transport.closed


def test_a_large_request_does_not_keep_a_small_one_behind_it_from_its_turn(app: Application) -> None:
    large = b" " * 100_000 + BODY
    line = talk(app, HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large + PREDICT)

    assert b"".join(line.transport.writes).count(b"HTTP/1.1 200") == 2


def test_a_bug_is_a_500_with_its_trace_in_the_log(
    app: Application, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app.state.service.schema, "parse", broken)
    with caplog.at_level(logging.ERROR):
        line = talk(app, PREDICT)

    answer = line.transport.writes[0]
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "internal"
    assert not line.transport.closed
    assert counted(app, 500)
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_before_its_body_is_counted(app: Application) -> None:
    talk(app, PREDICT[:-1], between=lambda line: line.connection.connection_lost(None))

    assert counted(app, 499)


@pytest.mark.parametrize(
    "request_bytes",
    [PREDICT.replace(b"HTTP/1.1", b"HTTP/1.0"), PREDICT.replace(b"Host: x", b"Host: x\r\nConnection: close")],
    ids=["HTTP/1.0", "close"],
)
def test_who_wants_one_answer_only_gets_it_and_is_hung_up_on(app: Application, request_bytes: bytes) -> None:
    line = talk(app, request_bytes)

    assert b"\r\nconnection: close\r\n" in line.transport.writes[0]
    assert line.transport.closed


def test_the_answers_of_a_draining_server_close_their_connections(app: Application) -> None:
    async def run() -> Line:
        line = Line(app)
        line.state.default_headers = [(b"date", b"now"), (b"connection", b"close")]
        line.send(PREDICT)
        await line.settle()
        return line

    line = asyncio.run(run())

    assert line.transport.writes[0].count(b"connection: close") == 1
    assert line.transport.closed


def test_middleware_sees_small_requests_too(app: Application) -> None:
    seen = []

    class Watch:
        def __init__(self, inner: Application) -> None:
            self.inner = inner

        async def __call__(self, scope: dict[str, object], *channels: object) -> None:
            seen.append(scope["path"])
            await self.inner(scope, *channels)  # type: ignore[arg-type]

    app.add_middleware(Watch)
    line = talk(app, PREDICT)

    assert seen == ["/predict"]
    assert b"HTTP/1.1 200" in line.transport.writes[0]


# ------------------------------------------------------------------------------ the gauges of what is open


def gauge(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
    return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_open_connections_and_requests_in_flight_are_shown(number_model: Path, workers: int) -> None:
    """Seen at once by the worker that is asked, and by the other within a second."""

    with running(number_model, workers=workers) as service, ExitStack() as stack:

        def settle_on(name: str, expected: float) -> None:
            deadline = time.monotonic() + PATIENCE
            while (seen := gauge(service.url, name)) != expected:
                assert time.monotonic() < deadline, f"{name} is {seen}"
                time.sleep(0.05)

        idle, begun, probing = (
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE))
            for _ in range(3)
        )
        for each in (idle, begun):
            each.sendall(PREDICT)
            assert each.recv(65536).startswith(b"HTTP/1.1 200")
        begun.sendall(PREDICT[:-1])
        probing.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        # The scrape's own connection is one, too; its request is none that counts.
        settle_on("http_connections", 4)
        settle_on("http_requests_in_flight", 1)
        begun.sendall(PREDICT[-1:])
        assert begun.recv(65536).startswith(b"HTTP/1.1 200")
        settle_on("http_requests_in_flight", 0)
        begun.close()
        settle_on("http_connections", 3)


def test_what_waits_in_a_pipeline_is_in_flight(number_model: Path, serve: Serve) -> None:
    app = serve(number_model).app
    assert isinstance(app, Application)
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"

    async def ask() -> tuple[list[str], list[str]]:
        line = Line(app)
        line.send(chunked + PREDICT + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        waiting = list(line.connection.in_flight())
        await line.settle()
        return waiting, list(line.connection.in_flight())

    waiting, after = asyncio.run(ask())
    assert waiting == ["/predict", "/metrics", "/predict"]
    assert after == []


# ------------------------------------------------------------------------------------------ deadlines and the budget

STALL_SECONDS = 1
LARGE = 200_000


@pytest.fixture(scope="module")
def impatient(number_model: Path) -> Iterator[Running]:
    with running(
        number_model,
        head_seconds=STALL_SECONDS,
        body_seconds=STALL_SECONDS,
        response_seconds=STALL_SECONDS,
        max_body_bytes=256 * 1024,
        max_buffered_bytes=1024 * 1024,
    ) as made:
        yield made


@pytest.fixture
def wire(impatient: Running) -> Iterator[Wire]:
    with Wire(impatient.port, PATIENCE) as made:
        yield made


@pytest.mark.slow
def test_a_connection_that_sends_nothing_is_closed(wire: Wire) -> None:
    assert wire.end() == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "part"),
    [
        pytest.param(PREDICT[:40], "head", id="head"),
        pytest.param(PREDICT[:-1], "body", id="small body"),
        pytest.param(HEAD + b"Content-Length: 100000\r\n\r\n" + b" " * 50_000, "body", id="large body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", "body", id="chunks"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", "body", id="trailers"),
    ],
)
def test_a_request_that_stalls_gets_408(impatient: Running, wire: Wire, sent: bytes, part: str) -> None:
    before = answers_of(impatient, 408)
    wire.send(PREDICT, sent)

    assert wire.answer().status == 200
    answer = wire.answer()
    assert (answer.status, answer.json["code"]) == (408, "timeout")
    assert part in answer.json["error"]
    assert answer.closes
    assert wire.end() == b""
    assert answers_of(impatient, 408) == before + 1


@pytest.mark.slow
def test_a_body_that_trickles_gets_408(wire: Wire) -> None:
    wire.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    wire.socket.settimeout(0.2)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        wire.send(b" ")
        with suppress(TimeoutError):
            assert wire.answer().status == 408
            return
    raise AssertionError("it may go on for ever")


@pytest.mark.slow
def test_a_response_that_is_not_read_ends_the_connection(impatient: Running, wire: Wire) -> None:
    wire.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)

    deadline = time.monotonic() + PATIENCE
    while gauge(impatient.url, "http_connections") > 1:
        assert time.monotonic() < deadline, "the connection stays open"
        time.sleep(0.1)


@pytest.mark.slow
def test_while_much_is_held_large_bodies_get_503_and_small_ones_an_answer(
    number_model: Path,
) -> None:
    large = b" " * (LARGE - len(BODY)) + BODY
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(large)
    with (
        running(number_model, max_body_bytes=256 * 1024, max_buffered_bytes=1024 * 1024) as service,
        ExitStack() as stack,
    ):

        def connect() -> Wire:
            return stack.enter_context(Wire(service.port, PATIENCE))

        def ask(wire: Wire) -> Answer:
            wire.send(head + large)
            return wire.answer()

        stalled: list[Wire] = []
        while (answer := ask(connect())).status == 200:
            assert len(stalled) < 20, "any number of bodies is held"
            stalled.append(connect())
            stalled[-1].send(head + large[: LARGE // 2])
        refused = answer
        assert (refused.status, refused.json["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        one = connect()
        one.send(PREDICT)
        assert one.answer().status == 200
        assert gauge(service.url, r'model_rejected_total\{reason="overloaded"\}') >= 1
        for each in stalled:
            each.socket.close()
        deadline = time.monotonic() + PATIENCE
        while ask(connect()).status != 200:
            assert time.monotonic() < deadline, "what is gone is still counted"


# ------------------------------------------------------------------------------------------ many connections

CROWD = 20
FILLER = b"x" * 60_000


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + FILLER + b"\r\n\r\n", 200, id="header"),
        pytest.param(
            PREDICT.replace(b"Host: x", b"Host: x\r\nX: " + FILLER), 200, id="header of a prediction"
        ),
        pytest.param(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % FILLER[:8000], 404, id="target"),
        pytest.param(
            b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(FILLER), FILLER),
            404,
            id="body that is not read",
        ),
        pytest.param(
            b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX: " + FILLER + b"\r\n\r\n",
            404,
            id="body that does not come",
        ),
    ],
)
def test_a_connection_that_is_kept_forgets_the_request(app: Application, sent: bytes, status: int) -> None:
    async def run() -> int:
        await answer_on_the_wire(app, sent)
        lines = [Line(app) for _ in range(CROWD)]
        tracemalloc.start()
        try:
            for line in lines:
                # A copy of its own, as from the network.
                line.send(bytes(bytearray(sent)))
                assert (await line.settle()).startswith(b"HTTP/1.1 %d " % status)
                line.transport.writes.clear()
                line.connection.on_second()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert asyncio.run(run()) < CROWD * 6000


def test_a_connection_that_forgot_a_request_answers_the_next(app: Application) -> None:
    line = talk(
        app, PREDICT, PREDICT[:50], PREDICT[50:], b"@", between=lambda line: line.connection.on_second()
    )

    answers = b"".join(line.transport.writes)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"400"]


def test_a_head_counts_in_the_budget_until_it_is_answered(app: Application) -> None:
    budget = app.state.budget
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX: " % len(BODY)

    async def run() -> None:
        line, left = Line(app), Line(app)
        for each in (line, left):
            each.send(head + FILLER)
        assert budget.held >= 2 * len(FILLER)
        left.connection.connection_lost(None)
        assert len(FILLER) <= budget.held < 2 * len(FILLER)
        # Now the body is waited for, and the head is still there.
        line.send(b"\r\n\r\n" + BODY[:-1])
        assert budget.held >= len(FILLER)
        line.send(BODY[-1:])
        assert (await line.settle()).startswith(b"HTTP/1.1 200")
        line.connection.on_second()
        assert budget.held == 0
        # Small ones are not counted, so that they are never refused.
        line.send(PREDICT[:60])
        assert budget.held == 0

    asyncio.run(run())


def test_heads_beyond_the_budget_get_503(number_model: Path, serve: Serve) -> None:
    app = serve(number_model, max_buffered_bytes=256 * 1024, max_body_bytes=100_000).app
    assert isinstance(app, Application)

    async def run() -> list[bytes]:
        lines = [Line(app) for _ in range(10)]
        for line in lines:
            line.send(HEAD + b"X: " + FILLER)
        return [await line.settle() for line in lines]

    answers = asyncio.run(run())
    assert answers[0] == b""
    assert answers[-1].startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(("most", "closed"), [(1, True), (2, False)])
def test_idle_connections_are_closed_early_when_half_of_all_are_open(
    number_model: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, most: int, closed: bool
) -> None:
    monkeypatch.setattr("app.connection._PRESSED_SECONDS", 1)
    app = serve(number_model, max_connections=most).app
    assert isinstance(app, Application)

    async def run() -> bool:
        line = Line(app)
        line.send(PREDICT)
        await line.settle()
        for _ in range(3):
            line.connection.on_second()
        return line.transport.closed

    assert asyncio.run(run()) is closed


@pytest.mark.slow
def test_connections_beyond_the_limit_are_closed(number_model: Path) -> None:
    with running(number_model, max_connections=2) as service, ExitStack() as stack:
        first, second = (stack.enter_context(Wire(service.port, PATIENCE)) for _ in range(2))
        for each in (first, second):
            each.send(PREDICT)
            assert each.answer().status == 200
        for _ in range(3):
            with Wire(service.port, PATIENCE) as third:
                assert third.end() == b""
        first.socket.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            with Wire(service.port, PATIENCE) as third, suppress(ConnectionError, h11.RemoteProtocolError):
                third.send(PREDICT)
                assert third.answer().status == 200
                break
            assert time.monotonic() < deadline, "what is gone is still counted"
        second.send(PREDICT)
        assert second.answer().status == 200


def answers_of(service: Running, status: int) -> float:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    return sum(
        float(each)
        for each in re.findall(rf'^http_requests_total\{{.*status="{status}"\}} (\S+)$', text, re.MULTILINE)
    )
