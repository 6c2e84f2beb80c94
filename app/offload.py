"""Hands large requests to a process of low priority, so that single rows keep the processor.

A thread cannot do that: while it parses or writes JSON, Python runs no other thread, and the system gives all threads of a
process equal shares. The process (`app.offloaded`) starts with the first large request, and until it is ready a thread
answers as before. It ends when no large request has come for a while, and with this process.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple, Protocol

from app.contract import Bundle
from app.errors import RequestError
from app.http import Answer, RequestHeaders, ResponseHeaders
from app.service import Prediction, RecordedOperation
from app.tally import Tally

_START_SECONDS = 60
"""A process that is not ready after this time is killed."""
_RETRY_SECONDS = 60
"""Time until the next attempt if the process cannot be started."""

_log = logging.getLogger("app.offload")


class Setup(NamedTuple):
    """What the process needs to give the same answers."""

    bundle: Bundle
    max_body_bytes: int
    max_answer_bytes: int
    ignore_unknown: bool


class Task(NamedTuple):
    """A request, whose body is at the start of the shared memory."""

    operation: str
    size: int
    headers: dict[bytes, bytes]
    recorded: bool
    """Whether the rows and their answers are wanted too, for the prediction log."""


class Done(NamedTuple):
    """The result of a task."""

    answer: tuple[int, int, ResponseHeaders] | RequestError | str
    """The size of the body, which is at the start of the shared memory, its status and headers; or an error; or the
    traceback of a bug."""
    tallies: list[Tally]
    """What the request adds to the metrics, with the number of explained rows."""
    explained: int
    record: tuple[str | None, Any, Any] | None
    """Id, rows and answers of the prediction, if they are wanted."""
    seconds: float
    """Time of the processor."""


class Metrics(Protocol):
    """Where the work of the process is counted."""

    def add(self, tally: Tally) -> None: ...

    def count_explained(self, rows: int) -> None: ...


class Offload:
    """The process, and the thread that waits for its answers.

    Attributes:
        thread: must call the operations. One at a time, because only one request should take memory.
        seconds: of the processor that the last answer took.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._memory = _shared_memory()
        self._starting = self._died = False
        self._retry_at = 0.0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="offload")
        self.seconds = 0.0

    def is_ready(self) -> bool:
        """Whether the process takes requests. If not, it is started, unless that failed a short time ago."""
        if self._died or self._is_running():
            # Also after its death: the request that ended it should not come to this process.
            return True
        if not self._starting and time.monotonic() >= self._retry_at:
            self._starting = True
            self.thread.submit(self._start)
        return False

    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and self._is_running() else None

    def operation(self, name: str, metrics: Metrics) -> RecordedOperation:
        """An operation of the process, with what it counts added to the metrics."""

        def run(body: bytes, headers: RequestHeaders, prediction: Prediction | None = None) -> Answer:
            done, content = self._exchange(Task(name, len(body), dict(headers), prediction is not None), body)
            self.seconds = done.seconds
            for tally in done.tallies:
                metrics.add(tally)
            if done.explained:
                metrics.count_explained(done.explained)
            if isinstance(done.answer, RequestError):
                raise done.answer
            if isinstance(done.answer, str):
                raise RuntimeError(f"a large request failed:\n{done.answer}")  # noqa: TRY004  it is a bug
            if prediction is not None and done.record is not None:
                prediction.id, rows, answers = done.record
                prediction.record(rows, answers)
            _, status, answer_headers = done.answer
            return content, status, answer_headers

        return run

    def close(self) -> None:
        """End the process; whatever it computes is lost."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
        self.thread.shutdown()
        os.close(self._memory)

    # The thread.

    def _exchange(self, task: Task, body: bytes) -> tuple[Done, bytes]:
        """Let the process do a task; also returns the body of its answer, empty if it has none."""
        for _ in range(2):
            if not self._is_running():
                self._start()
            if self._connection is None:
                break
            try:
                os.pwrite(self._memory, body, 0)
                self._connection.send(task)
                done: Done = self._connection.recv()
                content = os.pread(self._memory, done.answer[0], 0) if isinstance(done.answer, tuple) else b""
            except (EOFError, OSError):
                # It ends with 0 if it has had nothing to do for long, which may be at this moment.
                self._died = self._end() != 0
                if self._died:
                    break
            else:
                return done, content
        raise RequestError(
            503,
            "overloaded",
            "the process for large requests ended: try again, or send fewer rows",
            reason="overloaded",
            headers=((b"retry-after", b"1"),),
        )

    def _start(self) -> None:
        if self._is_running():
            return
        self._end()
        try:
            ours, theirs = Pipe()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "app.offloaded", str(theirs.fileno()), str(self._memory)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), self._memory],
                    # Signals to the group are for the service, which finishes its requests.
                    process_group=0,
                )
            ours.send(self._setup)
            if not ours.poll(_START_SECONDS):
                raise TimeoutError(f"it was not ready after {_START_SECONDS} s")
            ours.recv()
            self._connection = ours
            _log.info("large requests are answered by process %d", self._process.pid)
        except (EOFError, OSError) as error:
            _log.error("the process for large requests does not start: %s", error or type(error).__name__)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._kill()
            self._end()
        finally:
            self._starting = self._died = False

    def _is_running(self) -> bool:
        return self._connection is not None and self._process is not None and self._process.poll() is None

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _end(self) -> int | None:
        """Forget the process, which is ending; returns its status."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.returncode:
            _log.error("the process for large requests ended with status %d", process.returncode)
        return process.returncode


def _shared_memory() -> int:
    """A file in memory. Bodies are copied to it and from it in one step each; a pipe would take dozens."""
    if sys.platform == "linux":
        return os.memfd_create("espalier-offload")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
