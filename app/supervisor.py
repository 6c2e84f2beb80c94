"""Several workers behind one listening socket: starts them, replaces those that die, and stops them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event

from prometheus_client import multiprocess

from app.contract import Bundle
from app.logs import configure_logging
from app.server import serve
from app.settings import Settings

_log = logging.getLogger("app.supervisor")
# Not "fork": onnxruntime's threads do not survive one.
_spawn = multiprocessing.get_context("spawn")

_SHORT_LIFE = 1.0
"""Seconds; a worker that lived shorter is replaced with this delay, so that a fault does not spin."""


@dataclass
class _Worker:
    process: SpawnProcess
    ready: Event
    started: float = field(default_factory=time.monotonic)


class Supervisor:
    """Keeps `settings.workers` workers running until a signal says stop.

    The bundle is handed over in memory: a worker that is replaced serves the very model that its siblings
    serve, whatever happened to the directory meanwhile.
    """

    def __init__(self, settings: Settings, bundle: Bundle, listener: socket.socket) -> None:
        self._settings = settings
        self._bundle = bundle
        self._listener = listener
        self._workers: list[_Worker] = []
        self._stopping = False
        self._signals: list[int] = []
        # Signals wake the wait for dead workers by a byte here.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)

    def run(self) -> int:
        """Serve until stopped.

        Returns:
            The exit status: 0 after a stop by signal, 1 when a worker cannot start.
        """
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda number, _: self._signals.append(number))
        signal.set_wakeup_fd(self._wake_writer.fileno())
        with _metrics_directory():
            self._workers = [self._start() for _ in range(self._settings.workers)]
            status = self._watch()
            for worker in self._workers:
                worker.process.join()
        return status

    def _watch(self) -> int:
        """Replace workers that die until all have been told to stop and did."""
        while self._workers:
            self._wait(None, [worker.process.sentinel for worker in self._workers])
            for worker in [each for each in self._workers if not each.process.is_alive()]:
                self._workers.remove(worker)
                if self._stopping:
                    continue
                if (worker.process.exitcode or 0) > 0 and not worker.ready.is_set():
                    _log.error("worker %s cannot start: stopping", worker.process.pid)
                    self._stop(signal.SIGTERM)
                    return 1
                self._replace(worker)
        return 0

    def _wait(self, seconds: float | None, sentinels: Sequence[int] = ()) -> None:
        """Wait for a worker's end or a signal, and pass signals on: each worker drains for itself."""
        wait([*sentinels, self._wake_reader], seconds)
        with suppress(BlockingIOError):
            self._wake_reader.recv(64)
        while self._signals:
            self._stop(self._signals.pop(0))

    def _replace(self, worker: _Worker) -> None:
        _log.warning("worker %s ended with %s: replacing it", worker.process.pid, worker.process.exitcode)
        # Its counts stay; what it had open does not.
        multiprocess.mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        if time.monotonic() - worker.started < _SHORT_LIFE:
            self._wait(_SHORT_LIFE)
        if not self._stopping:
            self._workers.append(self._start())

    def _start(self) -> _Worker:
        ready = _spawn.Event()
        process = _spawn.Process(target=_work, args=(self._settings, self._bundle, self._listener, ready))
        process.start()
        return _Worker(process, ready)

    def _stop(self, sig: int) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, sig)


@contextmanager
def _metrics_directory() -> Iterator[None]:
    """A fresh directory in which the workers share their metrics: an old one would be counted again."""
    directory = tempfile.mkdtemp(prefix="espalier-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _work(settings: Settings, bundle: Bundle, listener: socket.socket, ready: Event) -> None:
    """A worker's life."""
    configure_logging(settings.log_format)
    serve(settings, bundle, listener, on_started=ready.set)
