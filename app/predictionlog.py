"""The prediction log: what was asked and answered, as JSON lines in a directory or a bucket, if it is switched on.

It gives retraining its next data and delayed ground truth something to be joined to. Only the fields that are
declared are ever written, and of a client nothing but the id that it gave its request.

No request waits for it. Predictions go into a queue with a bound; one thread makes lines of them and stores each file
whole, under a name of its own. What does not fit, or cannot be stored after some tries, is dropped and counted.
Without the log none of this module is in the way of a request.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import getrandbits, random
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from prometheus_client import CollectorRegistry

from app.contract import Bundle, Layout, Manifest
from app.http import Answer, RequestHeaders
from app.metrics import LogMetrics
from app.protocol import InferRequest, Protocol
from app.schema import Row, Rows
from app.service import Labels, Probabilities, Service
from app.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

REQUEST_ID = b"x-request-id"
_USABLE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
"""An id goes back in a header and stands in a line, so it is short and can be printed."""

_POLL_SECONDS = 0.1
_PIECE = 64
"""Rows that are made into lines at a stretch. Requests are answered in between; a stretch takes a fraction of a
millisecond, and Python would let a thread go on for five."""
_PIECE_PAUSE = 0.0005
_RETRY_SECONDS = (1.0, 4.0)
"""Pauses between the tries to store a file."""
_TRY_SECONDS = 10
_COMPLAIN_SECONDS = 60

_log = logging.getLogger("app.predictionlog")

Operation = Callable[[bytes, RequestHeaders], Answer]


class Prediction(NamedTuple):
    """The answered rows of one request."""

    request_id: str
    time: float
    rows: Row | Rows
    labels: int | Labels
    probabilities: list[float] | Probabilities

    def __len__(self) -> int:
        return len(self.rows) if isinstance(self.rows, Rows) else 1


class _Noted(threading.local):
    """What this thread has predicted in the request that it is answering."""

    id: str | None = None
    outcome: tuple[Row | Rows, int | Labels, list[float] | Probabilities] | None = None


class WatchedService(Service):
    """A service that notes what it predicts."""

    def __init__(self, bundle: Bundle, registry: CollectorRegistry, **options: Any) -> None:
        super().__init__(bundle, registry, **options)
        self.noted = _Noted()

    def run_row(self, row: Row) -> tuple[int, list[float]]:
        label, probabilities = super().run_row(row)
        self.noted.outcome = row, label, probabilities
        return label, probabilities

    def run(self, rows: Rows) -> tuple[Labels, Probabilities]:
        labels, probabilities = super().run(rows)
        self.noted.outcome = rows, labels, probabilities
        return labels, probabilities


class WatchedProtocol(Protocol):
    """The protocol for such a service; notes the id that a request has in its body."""

    def __init__(self, service: WatchedService) -> None:
        super().__init__(service)
        self._noted = service.noted

    def read(self, head: bytes) -> InferRequest:
        request = super().read(head)
        self._noted.id = request.get("id")
        return request


class PredictionLog:
    """A queue, and the thread that stores what comes out of it.

    Args:
        settings: those with `prediction_log` in their name.
        manifest: of the model whose predictions come.
        registry: for the metrics.

    Raises:
        SettingsError: the directory cannot be written to, the URL or a feature is not understood.
    """

    def __init__(self, settings: Settings, manifest: Manifest, registry: CollectorRegistry) -> None:
        self._lines = _Lines(settings, manifest)
        self._store = open_store(settings.prediction_log)
        self._metrics = LogMetrics(registry)
        self._sample = settings.prediction_log_sample
        self._queue: deque[Prediction] = deque()
        self._queue_rows = settings.prediction_log_queue_rows
        self._waiting = 0
        self._entering = threading.Lock()
        self._rows_per_file = settings.prediction_log_rows_per_file
        self._seconds_per_file = settings.prediction_log_seconds_per_file
        self._started = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}"
        self._pod = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
        self._sequence = 0
        self._file = _File()
        self._complaints = _Complaints()
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon: storage that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    # For requests.

    def logged(self, answer: Operation, service: WatchedService) -> Operation:
        """The operation, with its predictions logged.

        An answer whose rows are in the log says under which id, in the header `x-request-id`: the one that the
        client gave the request there, or in the body's `id`, or a new one. Refused requests predict nothing.
        """
        noted, sample = service.noted, self._sample

        def operation(body: bytes, headers: RequestHeaders) -> Answer:
            # A request that was refused may have left its own.
            noted.id = noted.outcome = None
            answered = answer(body, headers)
            outcome, noted.outcome = noted.outcome, None
            if outcome is None or (sample < 1 and random() >= sample):  # noqa: S311  no secret depends on it
                return answered
            request_id = _request_id(headers, noted.id)
            if not self._offer(Prediction(request_id, time.time(), *outcome)):
                return answered
            content, status, sent = answered
            return content, status, (*sent, (REQUEST_ID, request_id.encode()))

        return operation

    def _offer(self, prediction: Prediction) -> bool:
        """Put rows into the queue, or count them as dropped where they do not fit."""
        rows = len(prediction)
        with self._entering:
            fits = self._waiting + rows <= self._queue_rows
            if fits:
                self._waiting += rows
                self._queue.append(prediction)
            else:
                self._complaints.dropped += rows
        if not fits:
            self._metrics.dropped.inc(rows)
        elif self._waiting > self._queue_rows // 2:
            self._wake.set()
        return fits

    # For the server.

    def settle(self) -> None:
        self._metrics.queue.set(self._waiting)

    def hurry(self) -> None:
        """Store what is there, and from now on within a second: the process will end."""
        self._seconds_per_file = min(1.0, self._seconds_per_file)
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Store what is there within so many seconds; what is left then is counted as failed."""
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        lost = self._waiting + self._file.rows
        if lost:
            self._metrics.failed.inc(lost)
            _log.error("the prediction log lost %d rows: they could not be stored within %g s", lost, seconds)

    # The thread.

    def _work(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()
            # Looked at before the queue, so that nothing comes behind the last look into it.
            closing = self._closing.is_set()
            self._empty_queue()
            if self._file.rows and (closing or self._file.age >= self._seconds_per_file):
                self._finish_file()
            self._complaints.report_losses(at_once=closing)

    def _empty_queue(self) -> None:
        at_a_stretch = 0
        while self._queue:
            prediction = self._queue.popleft()
            for lines in self._lines.of(prediction):
                self._file.add(lines, prediction.time)
                # Only now, so that memory holds no more than the queue may and one file.
                with self._entering:
                    self._waiting -= len(lines)
                if self._file.rows >= self._rows_per_file:
                    self._finish_file()
                at_a_stretch += len(lines)
                if at_a_stretch >= _PIECE:
                    at_a_stretch = 0
                    time.sleep(_PIECE_PAUSE)

    def _finish_file(self) -> None:
        file = self._file
        self._sequence += 1
        day = datetime.fromtimestamp(file.first, UTC).date()
        name = f"{self._pod}-{self._started}-{self._sequence:06}.jsonl"
        content = b"".join(file.lines)
        reason = self._put(f"date={day}/{name}", content)
        if reason is None:
            self._metrics.written.inc(file.rows)
        else:
            self._metrics.failed.inc(file.rows)
            self._complaints.failed += file.rows
            self._complaints.reason = reason
        self._file = _File()

    def _put(self, key: str, content: bytes) -> str | None:
        """Store a file, in several tries; returns why that is not possible, None if it was."""
        from obstore import put

        for pause in (*_RETRY_SECONDS, None):
            try:
                put(self._store, key, content, use_multipart=False)
            except Exception as error:
                # Whatever it is that storage raises: the thread goes on, and somebody is told.
                reason = _in_short(error)
            else:
                return None
            if pause is None or self._closing.wait(pause):
                break
        return reason


def check(settings: Settings, manifest: Manifest) -> None:
    """Find out whether there can be a log.

    Raises:
        SettingsError: as `PredictionLog`.
    """
    _Lines(settings, manifest)
    open_store(settings.prediction_log)


def open_store(target: str) -> ObjectStore:
    """The directory or bucket of a log.

    A directory is tried out. A bucket is not: the service must be able to start while S3 is away.

    Raises:
        SettingsError: the directory cannot be written to, or the URL is not understood.
    """
    from obstore import delete, put
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, from_url

    named = f"{PREFIX}PREDICTION_LOG={target}"
    if "://" in target:
        if not re.fullmatch(r"s3://[^/]+(/.*)?", target):
            raise SettingsError(f"{named}: it must be a directory or s3://BUCKET/PREFIX")
        try:
            return from_url(
                target,
                # Tries are counted here, not there.
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=_TRY_SECONDS)},
                client_options={
                    "timeout": timedelta(seconds=_TRY_SECONDS),
                    "connect_timeout": timedelta(seconds=3),
                    # Whether it is encrypted is up to whoever gives the endpoint.
                    "allow_http": True,
                },
            )
        except (BaseError, ValueError) as error:
            raise SettingsError(f"{named}: {_in_short(error)}") from None
    folder = Path(target).absolute()
    probe = f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store = LocalStore(folder)
        put(store, probe, b"", use_multipart=False)
        delete(store, probe)
    except (BaseError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _in_short(error)
        raise SettingsError(f"{named}: the directory cannot be written to: {reason}") from None
    return store


@dataclass
class _File:
    """Lines that will be stored together."""

    lines: list[bytes] = field(default_factory=list)
    first: float = 0.0
    """Time of the first prediction in it."""
    _begun: float = 0.0

    @property
    def rows(self) -> int:
        return len(self.lines)

    @property
    def age(self) -> float:
        return time.monotonic() - self._begun

    def add(self, lines: list[bytes], time_of_first: float) -> None:
        if not self.lines:
            self.first, self._begun = time_of_first, time.monotonic()
        self.lines += lines


@dataclass
class _Complaints:
    """What went wrong since it was last said: at most once a minute, because every request may fail."""

    dropped: int = 0
    failed: int = 0
    reason: str = ""
    _last: float = -_COMPLAIN_SECONDS

    def report_losses(self, *, at_once: bool) -> None:
        early = not at_once and time.monotonic() - self._last < _COMPLAIN_SECONDS
        if early or not (self.dropped or self.failed):
            return
        self._last = time.monotonic()
        dropped, self.dropped = self.dropped, 0
        failed, self.failed = self.failed, 0
        if failed:
            _log.error(
                "the prediction log cannot be stored: %s (%d rows failed, %d dropped)",
                self.reason,
                failed,
                dropped,
            )
        else:
            _log.error("the prediction log dropped %d rows: its queue was full", dropped)


class _Lines:
    """Makes lines of predictions, with the fields that are declared and no others."""

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        fields = set(settings.prediction_log_fields)
        self._id, self._time = "id" in fields, "time" in fields
        self._label, self._probabilities = "label" in fields, "probabilities" in fields
        self._version = manifest.version if "model_version" in fields else None
        self._classes = manifest.classes
        wanted = settings.prediction_log_features
        layout = Layout.of(manifest.features)
        known = {feature.name for feature in manifest.features}
        if "features" not in fields or wanted == "none":
            chosen: set[str] = set()
        elif wanted == "all":
            chosen = known
        else:
            chosen = set(wanted)
            if unknown := sorted(chosen - known):
                raise SettingsError(
                    f"{PREFIX}PREDICTION_LOG_FEATURES: {', '.join(unknown)}: the model has no such feature; "
                    f"it has {', '.join(sorted(known))}"
                )
        self._numbers = _Columns(layout.numbers, chosen)
        self._categories = _Columns(layout.categories, chosen)
        self._features = bool(chosen)

    def of(self, prediction: Prediction) -> Iterator[list[bytes]]:
        """The rows' lines in pieces."""
        rows, labels, probabilities = prediction.rows, prediction.labels, prediction.probabilities
        if not isinstance(rows, Rows):
            numbers, categories = rows
            yield [self._line(prediction, 0, numbers, categories, labels, probabilities)]
            return
        assert not isinstance(labels, int)  # noqa: S101  many rows have many labels
        for start in range(0, len(rows), _PIECE):
            piece = slice(start, start + _PIECE)
            values = rows.numbers[piece].tolist()
            strings = [()] * len(values) if rows.categories is None else rows.categories[piece].tolist()
            shares = probabilities[piece].tolist()  # type: ignore[union-attr]  # as above
            yield [
                self._line(prediction, start + offset, *row)
                for offset, row in enumerate(
                    zip(values, strings, labels[piece].tolist(), shares, strict=True)
                )
            ]

    def _line(
        self, prediction: Prediction, row: int, numbers: Any, categories: Any, label: Any, probabilities: Any
    ) -> bytes:
        line: dict[str, Any] = {}
        if self._id:
            line["id"] = prediction.request_id
            line["row"] = row
        if self._time:
            line["time"] = _shown(prediction.time)
        if self._version is not None:
            line["model_version"] = self._version
        if self._features:
            # JSON knows no NaN, and orjson writes null for it.
            line["features"] = self._numbers.of(numbers)
            for name, category in self._categories.of(categories).items():
                line["features"][name] = category or None
        if self._label:
            line["label"] = self._classes[label]
        if self._probabilities:
            line["probabilities"] = dict(zip(self._classes, probabilities))  # noqa: B905  checked at the start
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class _Columns:
    """Those of a tensor's columns that are written."""

    def __init__(self, names: Sequence[str], chosen: Collection[str]) -> None:
        self._names = [name for name in names if name in chosen]
        self._places = [place for place, name in enumerate(names) if name in chosen]
        self._all = len(self._names) == len(names)

    def of(self, values: Sequence[Any]) -> dict[str, Any]:
        kept = values if self._all else [values[place] for place in self._places]
        return dict(zip(self._names, kept))  # noqa: B905  as long as each other by the schema


@lru_cache(maxsize=64)
def _second(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S}"


def _shown(moment: float) -> str:
    """A time in ISO 8601, UTC, with milliseconds."""
    seconds, milliseconds = divmod(int(moment * 1000), 1000)
    return f"{_second(seconds)}.{milliseconds:03}+00:00"


def _request_id(headers: RequestHeaders, own: str | None) -> str:
    """The id of a request: from its header or its body if it can be used, else a new one."""
    given = headers.get(REQUEST_ID, b"")
    if _USABLE_ID.fullmatch(given):
        return given.decode()
    if own is not None and _USABLE_ID.fullmatch(own.encode(errors="replace")):
        return own
    return f"{getrandbits(128):032x}"


def _in_short(error: Exception) -> str:
    """The first line of what may be a page."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 300 else text[:299] + "…"
