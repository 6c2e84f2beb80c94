"""Several workers behind one listening socket: starts them, replaces those that die or hang, and stops them.

Each worker has one end of a socket pair. It sends a byte each second while it is ready and its event loop turns. It
receives the signals to stop. Each side notices at once when the other has ended.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from app.contract import Bundle, write_bundle
from app.metrics import DIRECTORY_VARIABLE, forget_gauges
from app.process import stop_signals
from app.server import stop_seconds
from app.settings import PREFIX, Settings, SettingsError

_log = logging.getLogger("app.supervisor")

_TICK_SECONDS = 1.0
_MAX_SILENT_TICKS = 30
"""A worker whose event loop has not turned for so long is killed, so that its clients do not wait."""
_MAX_START_TICKS = 300
"""A worker that is not ready after this time is killed."""
_MAX_DELAY = 30.0
"""Seconds between attempts to replace a worker; the first delay is one second, and each further one twice as long."""
_HEALTHY_SECONDS = 60.0
"""A worker that lived longer is replaced without delay."""
_SPARE_SECONDS = 2.0
"""A worker is killed so long after a healthy one would have stopped."""


class Supervisor:
    """Keeps `settings.workers` workers running until a signal stops them.

    Workers serve a copy of the bundle, so that a replacement serves the same model even if the original has changed. The
    copy is in the temporary directory in which they also share their metrics.
    """

    def __init__(self, settings: Settings, bundle: Bundle, listener: socket.socket) -> None:
        self._settings = settings
        self._bundle = bundle
        self._listener = listener
        self._status = 0
        self._order: signal.Signals | None = None
        self._kill_at = float("inf")
        self._signals: list[int] = []
        # A signal writes a byte here, which wakes `_wait`.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)

    def __enter__(self) -> Self:
        """Make the temporary directory, or raise a SettingsError if that is impossible."""
        try:
            # A new one, because the counts of the last run must not be added.
            self._temporary = tempfile.TemporaryDirectory(
                prefix="espalier-workers-", ignore_cleanup_errors=True
            )
            directory = Path(self._temporary.name)
            write_bundle(self._bundle, directory)
        except OSError as error:
            raise SettingsError(
                f"{PREFIX}WORKERS={self._settings.workers}: workers need a temporary directory: {error}; make /tmp "
                "writable, set TMPDIR, or use one worker"
            ) from None
        self._workers = [_Worker(slot, directory) for slot in range(self._settings.workers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Usually all have ended; after an exception they stop because the connection closes.
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.wait(stop_seconds(self._settings))
        self._temporary.cleanup()

    def run(self) -> int:
        """Serve until stopped.

        Returns:
            The exit status: 0 after a stop by signal; 1 if no worker can start, or one did not stop by itself.
        """
        for sig in stop_signals():
            signal.signal(sig, lambda number, _: self._signals.append(number))
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        tick = time.monotonic()
        while self._order is None or any(worker.runs for worker in self._workers):
            self._start_workers()
            self._wait()
            while self._signals:
                self._handle_signal(self._signals.pop(0))
            for worker in self._workers:
                if worker.has_ended():
                    self._note_end(worker)
            if time.monotonic() >= tick + _TICK_SECONDS:
                tick = time.monotonic()
                self._kill_hanging()
        return self._status

    def _wait(self) -> None:
        """Wait for a signal, or a worker's byte or end, at most until the next tick."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        for worker in self._workers:
            if worker.connection is not None:
                poll.register(worker.connection, select.POLLIN)
        poll.poll(_TICK_SECONDS * 1000)
        with suppress(BlockingIOError):
            self._wake_reader.recv(64)

    def _start_workers(self) -> None:
        for worker in self._workers:
            if self._order is None and not worker.runs and time.monotonic() >= worker.start_at:
                try:
                    worker.start(self._listener)
                except OSError as error:
                    _log.error("worker %d: %s", worker.slot, error)
                    self._note_end(worker)

    def _note_end(self, worker: _Worker) -> None:
        was_ready, lived, description = worker.reset()
        if self._order is not None:
            if was_ready and description != "status 0":
                _log.error("worker %d ended while it was to stop: %s", worker.slot, description)
                self._status = 1
            return
        if was_ready and lived > _HEALTHY_SECONDS:
            worker.failures = 0
        else:
            worker.failures += 1
        if not was_ready and not any(each.ready for each in self._workers):
            _log.error(
                "worker %d cannot start: %s: stopping, because no other is ready", worker.slot, description
            )
            self._status = 1
            self._stop(signal.SIGTERM)
            return
        delay = min(2.0 ** (worker.failures - 1), _MAX_DELAY) if worker.failures else 0.0
        worker.start_at = time.monotonic() + delay
        _log.warning("worker %d ended: %s: replacing it in %g s", worker.slot, description, delay)

    def _handle_signal(self, sig: int) -> None:
        """The first SIGTERM drains, a second one or SIGINT stops, and a SIGINT after that kills."""
        if self._order == signal.SIGINT and sig == signal.SIGINT:
            self._kill_at = 0.0
        elif self._order is None and sig != signal.SIGINT:
            self._stop(signal.SIGTERM)
        else:
            self._stop(signal.SIGINT)

    def _stop(self, order: signal.Signals) -> None:
        self._order = order
        # Only the workers hold it now; connections that they have not accepted when they close it are lost.
        self._listener.close()
        for worker in self._workers:
            worker.stop(order)
        seconds = stop_seconds(self._settings) + _SPARE_SECONDS
        if order != signal.SIGTERM:
            seconds -= self._settings.drain_seconds
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)

    def _kill_hanging(self) -> None:
        """Called once a tick. It counts ticks instead of seconds, because this process may have been stopped too."""
        for worker in self._workers:
            if not worker.runs:
                continue
            worker.silent_ticks += 1
            if self._order is not None:
                hangs = time.monotonic() >= self._kill_at
            else:
                hangs = worker.silent_ticks > (_MAX_SILENT_TICKS if worker.ready else _MAX_START_TICKS)
            if hangs:
                _log.error("worker %d does not react: killing it", worker.slot)
                worker.kill()


class _Worker:
    """A slot for a worker, and its current process."""

    def __init__(self, slot: int, directory: Path) -> None:
        self.slot = slot
        self.ready = False
        self.silent_ticks = 0
        """Since its last byte."""
        self.failures = 0
        """Processes in a row that did not live long."""
        self.start_at = 0.0
        self.connection: socket.socket | None = None
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self, listener: socket.socket) -> None:
        """Start a process; raises OSError if the system refuses."""
        self._started = time.monotonic()
        self.silent_ticks = 0
        self.connection, other_end = socket.socketpair()
        self.connection.setblocking(False)
        own = {f"{PREFIX}MODEL_DIR": str(self._directory), DIRECTORY_VARIABLE: str(self._directory)}
        inherited = {name: value for name, value in os.environ.items() if name.upper() not in own}
        descriptors = (listener.fileno(), other_end.fileno())
        with other_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.worker", *map(str, descriptors), str(self.slot)],
                env=inherited | own,
                pass_fds=descriptors,
                # Ctrl-C in a terminal must reach only the supervisor, which stops the workers.
                process_group=0,
            )

    def has_ended(self) -> bool:
        """Read the worker's bytes, and check whether the process has ended."""
        if self._process is None or self.connection is None:
            return False
        try:
            received = self.connection.recv(4096)
        except BlockingIOError:
            return self._process.poll() is not None
        except OSError:
            received = b""
        if received:
            self.ready = True
            self.silent_ticks = 0
            return False
        # The kernel closes a process's sockets just before it reports the end.
        self.wait(_TICK_SECONDS)
        return self._process.poll() is not None

    def reset(self) -> tuple[bool, float, str]:
        """Forget the process; returns whether it was ready, its lifetime in seconds, and its exit status."""
        status = self._process.returncode if self._process is not None else None
        was_ready, self.ready = self.ready, False
        self._process = None
        self.close()
        forget_gauges(self.slot, self._directory)
        reason = "not started" if status is None else f"status {status}"
        if status is not None and status < 0:
            reason = signal.Signals(-status).name
        return was_ready, time.monotonic() - self._started, reason

    def stop(self, order: signal.Signals) -> None:
        if self._process is None or self.connection is None:
            return
        with suppress(OSError):
            self.connection.send(bytes([order]))
        if not self.ready:
            self._process.terminate()
        # A suspended process reacts only to SIGKILL.
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def wait(self, seconds: float) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
