"""Answers large requests at low priority: `python -m app.offloaded CONNECTION MEMORY`, started by `app.offload`.

It inherits both as descriptors. It keeps no metrics: what it counts goes back with the answer.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import thread_time

import numpy as np
from numpy.typing import NDArray

from app.answers import PredictedRow
from app.encodings import content_encoding, decompress
from app.errors import Detail, Reason, RequestError
from app.http import ResponseHeaders
from app.offload import Done, Setup, Task
from app.protocol import Protocol
from app.schema import Rows
from app.service import Prediction, RecordedOperation, Service
from app.tally import Tallies, Tally

NICENESS = 19
"""The lowest priority: a sixty-sixth of a core that the service uses completely, and whatever it leaves. With more, Linux
would give this process turns so often that they show in the 99th percentile of single rows."""
IDLE_SECONDS = 300
"""It ends if nothing has come for so long, and gives its memory back."""
_OUT_OF_MEMORY_SCORE = 500
"""If memory runs out, Linux ends this process first."""


class _Counts:
    """Collects what one request counts."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self.taken: list[Tally] = []
        self.explained = 0

    def count_row(self, row: PredictedRow) -> None:
        self.taken.append(self._tallies.of_rows([row]))

    def count(self, rows: Rows, indices: NDArray[np.int64], measures: NDArray[np.float64]) -> None:
        self.taken.append(self._tallies.of(rows, indices, measures))

    def count_explained(self, rows: int) -> None:
        self.explained += rows

    def reject(self, reason: Reason, details: Collection[Detail] = ()) -> None:
        """The service that gets the error counts it."""


class Worker:
    """The service's operations, without a server."""

    def __init__(self, setup: Setup, memory: int) -> None:
        self._memory = memory
        self._counts = _Counts(Tallies(setup.bundle.manifest))
        service = Service(
            setup.bundle, self._counts, setup.max_answer_bytes, ignore_unknown=setup.ignore_unknown
        )
        self._max_body_bytes = setup.max_body_bytes
        self._operations: dict[str, RecordedOperation] = {
            "predict": service.predict,
            "infer": Protocol(service).infer,
        }

    def run(self, task: Task) -> Done:
        counts = self._counts
        counts.taken, counts.explained = [], 0
        prediction = Prediction() if task.recorded else None
        answer: tuple[int, int, ResponseHeaders] | RequestError | str
        started = thread_time()
        try:
            body = os.pread(self._memory, task.size, 0)
            encoding = content_encoding(task.headers)
            if encoding:
                body = decompress(body, encoding, self._max_body_bytes)
            content, status, headers = self._operations[task.operation](body, task.headers, prediction)
            answer = os.pwrite(self._memory, content, 0), status, headers
        except RequestError as error:
            answer, prediction = error, None
        except Exception:
            # The service answers and logs it like its own.
            answer, prediction = traceback.format_exc(), None
        record = None if prediction is None else (prediction.id, prediction.rows, prediction.answers)
        return Done(answer, counts.taken, counts.explained, record, thread_time() - started)


def serve(connection: Connection, run: Callable[[Task], Done]) -> None:
    """Do tasks until there has been none for a while."""
    while connection.poll(IDLE_SECONDS):
        done = run(connection.recv())
        try:
            connection.send(done)
        except (pickle.PicklingError, TypeError, AttributeError):
            # Nothing of it was sent. It is a bug like any other, which costs the request and not the process.
            connection.send(Done(traceback.format_exc(), [], 0, None, done.seconds))


def main(descriptor: int, memory: int) -> None:
    connection = Connection(descriptor)
    # The service waits for the answer when it is told to stop. This process ends with the connection.
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(sig, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        worker = Worker(connection.recv(), memory)
        connection.send(None)
        # Not before, because the start should not take long.
        os.nice(NICENESS)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_SCORE), encoding="utf-8")
        gc.freeze()
        serve(connection, worker.run)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
