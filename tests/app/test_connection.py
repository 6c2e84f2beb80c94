"""When the service writes, and when it hangs up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.processes import PATIENCE, Running, running
from tests.bundles import number_row

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


def test_an_idle_connection_is_closed(client: socket.socket) -> None:
    client.sendall(PREDICT)
    client.recv(65536)

    started = time.monotonic()
    assert client.recv(1) == b""
    assert time.monotonic() - started >= KEPT_SECONDS - 1


def test_a_connection_in_use_is_kept(client: socket.socket) -> None:
    for _ in range(2 * KEPT_SECONDS + 2):
        client.sendall(PREDICT)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(0.75)


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
