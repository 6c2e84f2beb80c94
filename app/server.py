"""Runs the application in one process: listens, serves, and stops without losing requests."""

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
from app.main import Application, create_app
from app.metrics import Exposition
from app.offload import Offload, Setup
from app.predictionlog import PredictionLog
from app.process import stop_signals
from app.settings import Settings, body_limit

_log = logging.getLogger("app.server")

_TICKS_A_SECOND = 10  # uvicorn's
_POLL_SECONDS = 0.01
_HANDSHAKE_SECONDS = 0.1
"""Time for the handshakes of new connections at the end of the drain: a round trip."""
_ACCEPT_SECONDS = 1.0
"""Time to accept the waiting connections after that."""
_REQUEST_SECONDS = 0.5
"""Time for a connection without a request to send one."""
_FINISH_SECONDS = 10
"""Time for requests in flight after the drain; a client that stalls must not keep the process alive."""
_STORE_SECONDS = 5.0
"""Time to store the rest of the prediction log, if the drain is not longer; storage may be unavailable."""

_SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header: load the flags, test SYN, drop (0) or keep.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class ListenError(Exception):
    """The service cannot listen on the address; the message says why in one line."""


def listen(settings: Settings) -> socket.socket:
    """A listening socket; it is opened first, so that a busy port is reported before anything starts.

    It uses the first address of a name that works, IPv4 before IPv6. `::` listens on IPv4 as well.

    Raises:
        ListenError: the port is in use, or the address does not belong to this machine.
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
        # The resolver has its own error numbers.
        reason = error.strerror or str(error)
    where = printable(url_of(settings.host, settings.port).removeprefix("http://"))
    raise ListenError(f"cannot listen on {where}: {reason}; set ESPALIER_HOST and ESPALIER_PORT")


def serve(
    settings: Settings, bundle: Bundle, listener: socket.socket, supervisor: socket.socket | None = None
) -> None:
    """Serve a bundle until a signal stops it.

    Args:
        settings: of the service.
        bundle: to serve.
        listener: closed at the end.
        supervisor: a worker's connection to the process that started it. The worker sends a byte each second and
            receives signal numbers as bytes. It stops when the connection closes.
    """
    offload = _offload(settings, bundle) if settings.batch_process else None
    app = create_app(settings, bundle, offload)
    log: PredictionLog | None = app.state.prediction_log
    try:
        Server(app, settings, supervisor).run(sockets=[listener])
    finally:
        if offload is not None:
            offload.close()
        if log is not None:
            log.close(_store_seconds(settings))


def _offload(settings: Settings, bundle: Bundle) -> Offload:
    limit = body_limit(settings, len(bundle.manifest.features))
    ignore_unknown = settings.unknown_fields == "ignore"
    return Offload(Setup(bundle, limit, settings.max_answer_bytes, ignore_unknown))


def _store_seconds(settings: Settings) -> float:
    return max(_STORE_SECONDS, settings.drain_seconds)


def stop_seconds(settings: Settings) -> float:
    """The longest time from SIGTERM to the end of a healthy process."""
    finish = _ACCEPT_SECONDS + _REQUEST_SECONDS + _FINISH_SECONDS
    return settings.drain_seconds + finish + _store_seconds(settings)


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown.

    On SIGTERM readiness fails at once. For `drain_seconds` the server still accepts connections and answers requests,
    because load balancers need that long to stop sending them. Each answer closes its connection, so that keep-alive
    clients move on too. After that, or at once on SIGINT or a second SIGTERM, the server stops accepting, finishes the
    requests in flight, and exits with 0.

    No request is lost: the kernel ignores new connections first, then the waiting ones are accepted, and connections
    without a request get `_REQUEST_SECONDS` to send one.
    """

    def __init__(self, app: Application, settings: Settings, supervisor: socket.socket | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=partial(Connection, app, Outbox()),  # type: ignore[arg-type]  # called like the class
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # By default uvicorn reads WEB_CONCURRENCY.
                workers=1,
                timeout_graceful_shutdown=_FINISH_SECONDS,
                timeout_keep_alive=settings.keep_alive_seconds,
                # The client's address from a proxy's header is neither needed nor trusted.
                proxy_headers=False,
            )
        )
        # uvicorn does this later, but a signal may arrive before, and its handler needs the headers.
        self.config.load()
        self._state = app.state
        self._exposition: Exposition = app.state.exposition
        self._prediction_log: PredictionLog | None = app.state.prediction_log
        app.state.http.watch(cast(set[Connection], self.server_state.connections))
        self._drain_seconds = settings.drain_seconds
        self._supervisor = supervisor
        self._ends_service = supervisor is None
        self._deadline: float | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, for our signals; raising them again at the end would change the exit status."""
        # Only the main thread may handle signals.
        handled = stop_signals() if current_thread() is main_thread() else []
        before = {sig: signal.signal(sig, self.handle_exit) for sig in handled}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Start draining on the first SIGTERM or SIGHUP, and stop on any further signal.

        A worker may receive the same signal twice, from its supervisor and from a process that signals the group.
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
            self._exposition.flush()
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
            asyncio.get_running_loop().add_reader(self._supervisor, self._handle_orders, self._supervisor)
        # Everything that is loaded now stays, so the garbage collector need not scan it.
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        [listener] = sockets or []
        if self._ends_service:
            refuse_connections(listener)
        # Handshakes complete, and the event loop accepts the waiting connections.
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        await self._wait_while(partial(_is_readable, listener), _ACCEPT_SECONDS)
        for server in self.servers:
            server.close()
        await self._wait_while(self._has_idle_connections, _REQUEST_SECONDS)
        await super().shutdown(sockets)

    def _drain(self) -> None:
        _log.info("draining for %g s", self._drain_seconds)
        if self._prediction_log is not None:
            self._prediction_log.prepare_stop()
        self._deadline = time.monotonic() + self._drain_seconds
        self._close_connections_after_answers()

    def _close_connections_after_answers(self) -> None:
        if not self._state.draining:
            self._state.draining = True
            # Every response starts with the second list, which uvicorn rebuilds from the first at each tick.
            close = (b"connection", b"close")
            self.config.encoded_headers.append(close)
            self.server_state.default_headers = [*self.server_state.default_headers, close]

    async def _wait_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for turns of the loop instead of time: on a busy machine they are late, like the awaited connections."""
        for _ in range(round(seconds / _POLL_SECONDS)):
            # Sleeps first, because connections that were accepted in this turn have no protocol yet.
            await asyncio.sleep(_POLL_SECONDS)
            if self.force_exit or not condition():
                return

    def _has_idle_connections(self) -> bool:
        return any(each.is_idle() for each in self.server_state.connections if isinstance(each, Connection))

    def _report_to_supervisor(self) -> None:
        if self._supervisor is not None:
            # The buffer is full if the supervisor is stopped. `_handle_orders` handles a closed connection.
            with suppress(OSError):
                self._supervisor.send(b".")

    def _handle_orders(self, supervisor: socket.socket) -> None:
        """Handle the supervisor's signals, which are for the whole service."""
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

    Otherwise connections that arrive between the last `accept` and `close` would be reset. The client's kernel retries
    ignored ones a second later, and is refused when the socket is closed. Only Linux can do this; elsewhere a gap of some
    microseconds remains.
    """
    instructions = b"".join(struct.pack("=HBBI", *each) for each in _DROP_SYN)
    buffer = ctypes.create_string_buffer(instructions)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _is_readable(listener: socket.socket) -> bool:
    """Whether a connection is waiting to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
