"""Runs the application in one process: listens, serves, and stops without losing a request."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import current_thread, main_thread
from types import FrameType
from typing import cast

import uvicorn

from app.address import printable, url_of
from app.connection import Connection, Outbox
from app.contract import Bundle
from app.main import Application, Lifecycle, create_app
from app.metrics import Exposition
from app.predictionlog import PredictionLog
from app.settings import Settings
from app.signals import stop_signals

_log = logging.getLogger("app.server")

_TICKS_A_SECOND = 10  # uvicorn's
_POLL_SECONDS = 0.01
_HANDSHAKE_SECONDS = 0.1
"""What the handshake of a new connection may take at the end of the drain: a round trip."""
_ACCEPT_SECONDS = 1.0
"""What accepting the connections that wait then may take."""
_REQUEST_SECONDS = 0.5
"""What a connection without a request gets to send one."""
_FINISH_SECONDS = 10
"""What a request in flight may take after the drain; a client that stalls must not keep the process alive."""
_STORE_SECONDS = 5.0
"""What storing the rest of the prediction log may take then, or as long as the drain; storage may be away."""

_SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header: load the flags, test SYN, drop (0) or keep.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class ListenError(Exception):
    """The address cannot be listened on; the message says why in one line."""


def listen(settings: Settings) -> socket.socket:
    """A listening socket, so that a busy port is found out before anything is started.

    Of the addresses of a name it takes the first that works, IPv4 before IPv6. `::` listens on IPv4 as well.

    Raises:
        ListenError: the port is taken, or the address is not one of this machine.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET):
            try:
                return socket.create_server(
                    address,
                    family=family,
                    backlog=2048,
                    dualstack_ipv6=family == socket.AF_INET6 and socket.has_dualstack_ipv6(),
                )
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
    except OSError as error:
        # Of the resolver, whose numbers are its own.
        reason = error.strerror or str(error)
    where = printable(url_of(settings.host, settings.port).removeprefix("http://"))
    raise ListenError(f"cannot listen on {where}: {reason}; set ESPALIER_HOST and ESPALIER_PORT")


def serve(
    settings: Settings, bundle: Bundle, listener: socket.socket, supervisor: socket.socket | None = None
) -> None:
    """Serve a bundle until a signal says stop.

    Args:
        settings: of the service.
        bundle: to serve.
        listener: closed at the end.
        supervisor: for a worker, a connection to the process that started it: the worker sends a byte each second,
            and receives signal numbers as bytes; when it ends, the worker stops.
    """
    app = create_app(settings, bundle)
    log: PredictionLog | None = app.state.prediction_log
    try:
        Server(app, settings, supervisor).run(sockets=[listener])
    finally:
        if log is not None:
            log.close(max(_STORE_SECONDS, settings.drain_seconds))


def stop_seconds(settings: Settings) -> float:
    """The longest time from SIGTERM to the end of a process that works."""
    store = max(_STORE_SECONDS, settings.drain_seconds)
    return settings.drain_seconds + _ACCEPT_SECONDS + _REQUEST_SECONDS + _FINISH_SECONDS + store


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown.

    On SIGTERM readiness fails at once, and for `drain_seconds` requests are answered as before, new
    connections included: load balancers need that long to stop sending them. Each answer then closes its
    connection, so that keep-alive clients move on too. After that, or at once on SIGINT or a second SIGTERM,
    accepting ends, what is in flight is finished, and the process exits with 0.

    The end loses no request: the kernel refuses new connections first, then those that wait are accepted, and
    connections without a request get `_REQUEST_SECONDS` to send one.
    """

    def __init__(self, app: Application, settings: Settings, supervisor: socket.socket | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=partial(Connection, app, Outbox()),  # type: ignore[arg-type]  # called as the class would be
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # uvicorn would read WEB_CONCURRENCY.
                workers=1,
                timeout_graceful_shutdown=_FINISH_SECONDS,
                timeout_keep_alive=settings.keep_alive_seconds,
                # A proxy's word for the client's address is not needed, and unasked for it is not trusted.
                proxy_headers=False,
            )
        )
        # A signal may come before uvicorn does this, and its handler needs the headers.
        self.config.load()
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._exposition: Exposition = app.state.exposition
        self._prediction_log: PredictionLog | None = app.state.prediction_log
        app.state.http.watch(cast(set[Connection], self.server_state.connections))
        self._drain_seconds = settings.drain_seconds
        self._supervisor = supervisor
        self._ends_service = supervisor is None
        self._deadline: float | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, for our signals, and without raising them again at the end, which would change the status."""
        # Only the main thread may listen for signals.
        handled = stop_signals() if current_thread() is main_thread() else []
        before = {sig: signal.signal(sig, self.handle_exit) for sig in handled}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Start draining on the first SIGTERM or SIGHUP, and stop on anything further.

        A worker may get the same signal twice, from its supervisor and from whoever signals a whole group.
        """
        if self.should_exit and sig == signal.SIGINT and self._supervisor is None:
            self.force_exit = True
        elif (
            sig == signal.SIGINT
            or not self.started
            or (self._deadline is not None and self._supervisor is None)
        ):
            self._close_connections_after_answers()
            self.should_exit = True
        elif self._deadline is None:
            self._drain()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            self._report_to_supervisor()
            self._exposition.settle()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.on_second()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._supervisor is not None:
            self._supervisor.setblocking(False)
            asyncio.get_running_loop().add_reader(self._supervisor, self._obey, self._supervisor)
        # What is there now stays; the collector need not look at it again and again.
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        [listener] = sockets or []
        if self._ends_service:
            refuse_connections(listener)
        # Handshakes under way complete, and what waits to be accepted is accepted by the loop.
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        await self._wait_while(partial(_is_readable, listener), _ACCEPT_SECONDS)
        for server in self.servers:
            server.close()
        await self._wait_while(self._has_idle_connections, _REQUEST_SECONDS)
        await super().shutdown(sockets)

    def _drain(self) -> None:
        _log.info("draining for %g s", self._drain_seconds)
        if self._prediction_log is not None:
            self._prediction_log.hurry()
        self._deadline = time.monotonic() + self._drain_seconds
        self._close_connections_after_answers()

    def _close_connections_after_answers(self) -> None:
        if not self._lifecycle.draining:
            self._lifecycle.draining = True
            # Every response starts with these headers; the first list is what the next tick makes the second of.
            close = (b"connection", b"close")
            self.config.encoded_headers.append(close)
            self.server_state.default_headers = [*self.server_state.default_headers, close]

    async def _wait_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait in turns of the loop, not by the clock: on a busy machine a turn is late, and brings what is awaited."""
        for _ in range(round(seconds / _POLL_SECONDS)):
            # First, because what was accepted in this turn has no protocol yet.
            await asyncio.sleep(_POLL_SECONDS)
            if self.force_exit or not condition():
                return

    def _has_idle_connections(self) -> bool:
        return any(each.is_idle() for each in self.server_state.connections if isinstance(each, Connection))

    def _report_to_supervisor(self) -> None:
        if self._supervisor is not None:
            # Full if the supervisor is stopped, broken if it is gone; `_obey` sees the latter.
            with suppress(OSError):
                self._supervisor.send(b".")

    def _obey(self, supervisor: socket.socket) -> None:
        """Follow the supervisor's orders, which are for the whole service."""
        try:
            orders = supervisor.recv(64)
        except BlockingIOError:
            return
        except OSError:
            orders = b""
        self._ends_service = True
        for order in orders:
            self.handle_exit(order, None)
        if not orders:
            asyncio.get_running_loop().remove_reader(supervisor)
            if not self.should_exit:
                _log.error("the supervisor is gone: stopping")
                self.handle_exit(signal.SIGINT, None)


def refuse_connections(listener: socket.socket) -> None:
    """Let the kernel ignore new connections, for all processes that share the socket.

    Between the last `accept` and `close` connections would still arrive, and be reset. Ignored ones are tried again
    by the client's kernel a second later, and refused when the socket is closed. Only Linux can do this; elsewhere
    the gap stays, of some microseconds.
    """
    instructions = b"".join(struct.pack("=HBBI", *each) for each in _DROP_SYN)
    buffer = ctypes.create_string_buffer(instructions)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _is_readable(listener: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
