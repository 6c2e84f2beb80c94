"""Runs the application in one process: listens, serves, and goes away without losing a request."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from types import FrameType
from typing import cast

import uvicorn

from app.connection import Connection, Outbox
from app.contract import Bundle
from app.main import Application, Lifecycle, create_app
from app.metrics import Exposition
from app.predictionlog import PredictionLog
from app.settings import Settings

_log = logging.getLogger("app.server")


_TICKS_A_SECOND = 10  # uvicorn's
_FINISH_SECONDS = 10
"""What a request in flight may take after the drain; a client that stalls must not keep the process alive."""
_STORE_SECONDS = 5.0
"""What storing the rest of the prediction log may take then, or as long as the drain; storage may be away."""


class ListenError(Exception):
    """The address cannot be listened on; the message says why in one line."""


def listen(settings: Settings) -> socket.socket:
    """A listening socket, so that a busy port is found out before anything is started.

    Raises:
        ListenError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise ListenError(
            f"cannot listen on {where}: {error.strerror or error}; set ESPALIER_HOST and ESPALIER_PORT"
        ) from None
    listener.set_inheritable(True)
    return listener


def serve(
    settings: Settings,
    bundle: Bundle,
    listener: socket.socket,
    on_started: Callable[[], None] = lambda: None,
) -> None:
    """Serve a bundle until a signal says stop."""
    # Before uvicorn listens for signals and after it has stopped, a signal simply ends the process.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: sys.exit(0))
    app = create_app(settings, bundle)
    log: PredictionLog | None = app.state.prediction_log
    try:
        Server(app, settings, on_started).run(sockets=[listener])
    finally:
        if log is not None:
            log.close(max(_STORE_SECONDS, settings.drain_seconds))


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown.

    On SIGTERM readiness fails at once, and for `drain_seconds` requests are answered as before, new
    connections included: load balancers need that long to stop sending them. Each answer then closes its
    connection, so that keep-alive clients move on too. After that, or at once on SIGINT or a second SIGTERM,
    accepting ends, what is in flight is finished, and the process exits with 0.
    """

    def __init__(self, app: Application, settings: Settings, on_started: Callable[[], None]) -> None:
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
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._exposition: Exposition = app.state.exposition
        self._prediction_log: PredictionLog | None = app.state.prediction_log
        app.state.http.watch(cast(set[Connection], self.server_state.connections))
        self._drain_seconds = settings.drain_seconds
        self._on_started = on_started
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Start draining on the first SIGTERM, and stop on anything further.

        uvicorn's own version also notes the signal in order to raise it again at the end, which would turn
        the exit status into a failure.
        """
        if sig == signal.SIGTERM and self.started and self._deadline is None:
            self._drain()
        elif self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self._lifecycle.draining = True
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            self._exposition.settle()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.on_second()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._stop_with_parent()
        # What is there now stays; the collector need not look at it again and again.
        gc.freeze()
        self._on_started()

    def _drain(self) -> None:
        _log.info("draining for %g s", self._drain_seconds)
        self._lifecycle.draining = True
        if self._prediction_log is not None:
            self._prediction_log.hurry()
        self._deadline = time.monotonic() + self._drain_seconds
        # Every response starts with these headers; the first list is what the next tick makes the second of.
        close = (b"connection", b"close")
        self.config.encoded_headers.append(close)
        self.server_state.default_headers = [*self.server_state.default_headers, close]

    def _stop_with_parent(self) -> None:
        """A worker whose supervisor was killed must not go on holding the port."""
        parent = parent_process()
        if parent is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(parent.sentinel, self._orphaned, parent.sentinel)

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        if not self.should_exit:
            _log.error("the supervisor is gone: stopping")
            self.should_exit = True
