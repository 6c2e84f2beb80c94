"""Counts the requests that are lost when the service stops under full load: `python -m tests.load.shutdown --help`.

A request is lost when its connection was accepted and ends without a whole answer, or gets no answer in time. A
connection that is refused is not lost: the client knows that nothing was processed and asks another replica.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import select
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from threading import Timer

from tests.app.processes import running
from tests.bundles import number_row, write_number_bundle
from tests.load import options as types
from tests.tools import free_port
from tests.wire import post

LOAD_SECONDS = 1.0
"""Time under load before the signal."""
ANSWER_SECONDS = 30.0
"""A request without an answer after this time is lost."""
EXIT_SECONDS = 60

_BODY = json.dumps(number_row((5.1, 3.5, 1.4, 0.2)).values).encode()
_REQUEST = post("/predict", _BODY, "Content-Type: application/json")


@dataclass
class Outcome:
    """What became of the requests of one stop."""

    answered: int = 0
    refused: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    stopped_after: float = 0.0
    exit_status: int | None = None

    @property
    def sent(self) -> int:
        return self.answered + self.lost.total()


def stop_under_load(
    model: Path, *, workers: int, keep_alive: bool, drain: float, clients: int, pause: float = 0.0
) -> Outcome:
    """Start a service, saturate it, send SIGTERM, and go on until every client is refused.

    Args:
        model: the bundle to serve.
        workers: of the service.
        keep_alive: whether clients use their connections again; otherwise each request has its own.
        drain: the service's `drain_seconds`.
        clients: connections that are open at once.
        pause: longest time between an answer and the next request of the same client.
    """
    port = free_port()
    with running(model, port=port, workers=workers, drain_seconds=drain) as service:
        crowd = _Crowd(port, clients, keep_alive=keep_alive, pause=pause)
        timer = Timer(LOAD_SECONDS, lambda: _terminate(crowd, service.process.pid))
        timer.start()
        crowd.run()
        timer.join()
        outcome = crowd.outcome
        outcome.exit_status = service.process.wait(timeout=EXIT_SECONDS)
        outcome.stopped_after = time.monotonic() - crowd.signalled
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """Measure; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.shutdown", description=__doc__)
    parser.add_argument("--times", type=types.count, default=20, help="SIGTERMs of each kind (default: 20)")
    parser.add_argument("--workers", type=types.count, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument(
        "--connections", nargs="+", choices=("new", "keep-alive"), default=["new", "keep-alive"]
    )
    parser.add_argument("--clients", type=types.count, default=64, help="connections at once (default: 64)")
    parser.add_argument("--drain", type=float, default=1.0, help="ESPALIER_DRAIN_SECONDS (default: 1)")
    parser.add_argument(
        "--pause",
        type=float,
        default=0.0,
        help="longest pause of a client between requests, seconds (default: 0)",
    )
    given = parser.parse_args(arguments)
    lost = 0
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory)
        write_number_bundle(model)
        for workers in given.workers:
            for connections in given.connections:
                measure = partial(
                    stop_under_load,
                    model,
                    workers=workers,
                    keep_alive=connections == "keep-alive",
                    drain=given.drain,
                    clients=given.clients,
                    pause=given.pause,
                )
                lost += _report(
                    f"{workers} worker(s), {connections}", [measure() for _ in range(given.times)]
                )
    return 1 if lost else 0


def _report(name: str, outcomes: list[Outcome]) -> int:
    lost = sum((each.lost for each in outcomes), Counter[str]())
    print(
        f"{name}: {lost.total()} lost of {sum(each.sent for each in outcomes)} in {len(outcomes)} SIGTERMs, "
        f"{sum(bool(each.lost) for each in outcomes)} of them with a loss; "
        f"exit statuses {sorted({str(each.exit_status) for each in outcomes})}, "
        f"gone after {max(each.stopped_after for each in outcomes):.1f} s at most"
        + (f"; {dict(lost)}" if lost else ""),
        flush=True,
    )
    return lost.total()


def _terminate(crowd: _Crowd, pid: int) -> None:
    crowd.signalled = time.monotonic()
    os.kill(pid, signal.SIGTERM)


class _Crowd:
    """Clients on one thread, each with one request under way at any time."""

    def __init__(self, port: int, clients: int, *, keep_alive: bool, pause: float) -> None:
        self.outcome = Outcome()
        self.signalled = 0.0
        self._address = ("127.0.0.1", port)
        self._keep_alive = keep_alive
        self._pause = pause
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._active = clients
        self._due: list[tuple[float, int, _Client]] = []

    def run(self) -> None:
        for _ in range(self._active):
            self._connect(_Client())
        while self._active:
            for descriptor, _ in self._poll.poll(0.01):
                self._advance(self._clients[descriptor])
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._ask(heappop(self._due)[2])
            for client in [each for each in self._clients.values() if each.begun < now - ANSWER_SECONDS]:
                self._lose(client, "no answer")

    def _connect(self, client: _Client) -> None:
        client.socket = socket.socket()
        client.socket.setblocking(False)
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.socket.connect_ex(self._address)
        client.connected = False
        self._watch(client, select.EPOLLOUT)

    def _advance(self, client: _Client) -> None:
        if not client.connected:
            error = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._fail_to_connect(client, error)
                return
            client.connected = True
            self._poll.unregister(client.socket.fileno())
            del self._clients[client.socket.fileno()]
            self._later(client)
            return
        try:
            received = client.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(client, type(error).__name__)
            return
        client.received += received
        if not received:
            self._lose(client, "closed within the answer" if client.received else "closed without an answer")
        elif client.is_answered():
            self._finish(client)

    def _later(self, client: _Client) -> None:
        if self._pause:
            at = time.monotonic() + random.uniform(0, self._pause)
            heappush(self._due, (at, id(client), client))
        else:
            self._ask(client)

    def _ask(self, client: _Client) -> None:
        """Send a request, on a new connection if the service has closed this one while it was idle."""
        client.received = b""
        if client.used and client.has_ended():
            self._leave(client)
            self._connect(client)
            return
        client.used = True
        self._watch(client, select.EPOLLIN)
        try:
            client.socket.sendall(_REQUEST)
        except OSError as error:
            self._lose(client, type(error).__name__)

    def _finish(self, client: _Client) -> None:
        if not client.received.startswith(b"HTTP/1.1 200 "):
            self._lose(client, client.received.partition(b"\r\n")[0].decode("latin-1"))
            return
        self.outcome.answered += 1
        self._poll.unregister(client.socket.fileno())
        del self._clients[client.socket.fileno()]
        if self._keep_alive and b"\r\nconnection: close\r\n" not in client.received:
            self._later(client)
        else:
            self._leave(client)
            self._connect(client)

    def _fail_to_connect(self, client: _Client, error: int) -> None:
        self._forget(client)
        if error == errno.ECONNREFUSED and self.signalled:
            self.outcome.refused += 1
        else:
            self.outcome.lost[f"connect: error {error}"] += 1
        self._active -= 1

    def _lose(self, client: _Client, reason: str) -> None:
        self.outcome.lost[reason] += 1
        self._forget(client)
        self._connect(client)

    def _watch(self, client: _Client, events: int) -> None:
        client.begun = time.monotonic()
        self._clients[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), events)

    def _forget(self, client: _Client) -> None:
        self._poll.unregister(client.socket.fileno())
        del self._clients[client.socket.fileno()]
        self._leave(client)

    def _leave(self, client: _Client) -> None:
        client.used = False
        client.socket.close()


class _Client:
    def __init__(self) -> None:
        self.socket = socket.socket()
        self.connected = False
        self.used = False
        self.begun = 0.0
        self.received = b""

    def is_answered(self) -> bool:
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return False
        _, _, length = head.partition(b"content-length: ")
        return len(body) >= int(length.partition(b"\r\n")[0])

    def has_ended(self) -> bool:
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


if __name__ == "__main__":
    sys.exit(main())
