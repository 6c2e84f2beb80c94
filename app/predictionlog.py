"""The prediction log: requests and their answers as JSON lines in a directory or a bucket, if it is enabled.

Retraining reads it, and ground truth can be joined to it later. It contains only the declared fields, and nothing
about the client except the request's id.

No request waits for it. Predictions go into a bounded queue. One thread formats them and stores each file whole, under
a name of its own. Predictions that do not fit, or that cannot be stored after several attempts, are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import getrandbits, random
from typing import TYPE_CHECKING, Any, Literal

import orjson
from prometheus_client import CollectorRegistry

from app.answers import answers_of
from app.contract import Layout, Manifest
from app.http import Answer, RequestHeaders
from app.metrics import LogMetrics
from app.moments import written
from app.schema import Rows
from app.service import Prediction, RecordedOperation
from app.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

REQUEST_ID = b"x-request-id"
_USABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""An id is sent back in a header and written to a line, so it must be short and printable."""

_POLL_SECONDS = 0.1
_BLOCK_ROWS = 64
"""Rows that are formatted without a pause: a fraction of a millisecond. Without pauses, Python would switch to the
thread that answers requests only every five milliseconds."""
_PAUSE_SECONDS = 0.0005
_RETRY_SECONDS = (1.0, 4.0)
_ATTEMPT_SECONDS = 10
_REPORT_SECONDS = 60

_log = logging.getLogger("app.predictionlog")

Operation = Callable[[bytes, RequestHeaders], Answer]


class PredictionLog:
    """A queue, and the thread that stores its predictions.

    Raises:
        SettingsError: the directory cannot be written to, or the URL or a feature is invalid.
    """

    def __init__(self, settings: Settings, manifest: Manifest, registry: CollectorRegistry) -> None:
        self._formatter = _Formatter(settings, manifest)
        self._store = open_store(settings.prediction_log)
        # A bucket may refuse writes that could replace an object. A directory may be on a file system without hard links.
        self._mode: Literal["create", "overwrite"] = (
            "create"
            if "://" in settings.prediction_log and os.environ.get("AWS_CONDITIONAL_PUT") != "disabled"
            else "overwrite"
        )
        self._metrics = LogMetrics(registry)
        self._sample = settings.prediction_log_sample
        self._queue: deque[Prediction] = deque()
        self._queue_rows = settings.prediction_log_queue_rows
        self._waiting = 0
        self._entering = threading.Lock()
        self._rows_per_file = settings.prediction_log_rows_per_file
        self._seconds_per_file = settings.prediction_log_seconds_per_file
        pod = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
        self._file_prefix = f"{pod}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}"
        self._files = 0
        self._lines: list[bytes] = []
        """The next file."""
        self._first_time = self._first_clock = 0.0
        """When its first row was predicted, and when it was formatted."""
        self._losses = _Losses()
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon thread: storage that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    # Called for requests.

    def logged(self, answer: RecordedOperation) -> Operation:
        """The operation, with its predictions logged.

        If the rows are in the log, the answer has their id in the header `x-request-id`: the one in the request's
        header, or in its body, or a new one. Refused requests have no predictions.
        """

        def operation(body: bytes, headers: RequestHeaders) -> Answer:
            if random() >= self._sample:  # noqa: S311  no secret depends on it
                return answer(body, headers, None)
            prediction = Prediction()
            answered = answer(body, headers, prediction)
            prediction.time = time.time()
            prediction.id = _request_id(headers.get(REQUEST_ID, b"").decode("latin-1"), prediction.id)
            if not self._enqueue(prediction):
                return answered
            content, status, sent = answered
            return content, status, (*sent, (REQUEST_ID, prediction.id.encode()))

        return operation

    def _enqueue(self, prediction: Prediction) -> bool:
        """Add rows to the queue, or count them as dropped if they do not fit."""
        rows = len(prediction)
        with self._entering:
            fits = self._waiting + rows <= self._queue_rows
            if fits:
                self._waiting += rows
                self._queue.append(prediction)
            else:
                self._losses.dropped += rows
        if not fits:
            self._metrics.dropped.inc(rows)
        elif self._waiting > self._queue_rows // 2:
            self._wake.set()
        return fits

    # Called by the server.

    def flush(self) -> None:
        """Update the metrics."""
        self._metrics.queue.set(self._waiting)

    def prepare_stop(self) -> None:
        """Store each row within a second from now on, because the process will end."""
        self._seconds_per_file = min(1.0, self._seconds_per_file)
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Store the remaining rows within so many seconds; count the others as failed."""
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        lost = self._waiting + len(self._lines)
        if lost:
            self._metrics.failed.inc(lost)
            _log.error("the prediction log lost %d rows: they could not be stored within %g s", lost, seconds)

    # The thread.

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()
            # Read before the queue is emptied, so that the last pass sees every prediction.
            closing = self._closing.is_set()
            self._empty_queue()
            age = time.monotonic() - self._first_clock
            if self._lines and (closing or age >= self._seconds_per_file):
                self._finish_file()
            self._losses.report(at_once=closing)

    def _empty_queue(self) -> None:
        since_pause = 0
        while self._queue:
            prediction = self._queue.popleft()
            for lines in self._formatter.blocks(prediction):
                if not self._lines:
                    self._first_time, self._first_clock = prediction.time, time.monotonic()
                self._lines += lines
                # After formatting, so that memory holds no more rows than the queue and one file may have.
                with self._entering:
                    self._waiting -= len(lines)
                if len(self._lines) >= self._rows_per_file:
                    self._finish_file()
                since_pause += len(lines)
                if since_pause >= _BLOCK_ROWS:
                    since_pause = 0
                    time.sleep(_PAUSE_SECONDS)

    def _finish_file(self) -> None:
        rows = len(self._lines)
        self._files += 1
        day = datetime.fromtimestamp(self._first_time, UTC).date()
        reason = self._put(f"date={day}/{self._file_prefix}-{self._files:06}.jsonl", b"".join(self._lines))
        if reason is None:
            self._metrics.written.inc(rows)
        else:
            self._metrics.failed.inc(rows)
            self._losses.failed += rows
            self._losses.reason = reason
        self._lines = []

    def _put(self, key: str, content: bytes) -> str | None:
        """Store a file, in several attempts; returns the reason if all fail."""
        from obstore import put
        from obstore.exceptions import AlreadyExistsError

        for pause in (*_RETRY_SECONDS, None):
            try:
                put(self._store, key, content, use_multipart=False, mode=self._mode)
            except AlreadyExistsError:
                # The answer to an earlier attempt was lost: only this process writes this name.
                return None
            except Exception as error:
                # Storage can raise anything; the thread must survive and report it.
                reason = _first_line(error)
            else:
                return None
            if pause is None or self._closing.wait(pause):
                break
        return reason


def check(settings: Settings, manifest: Manifest) -> None:
    """Check whether the log can be opened.

    Raises:
        SettingsError: as `PredictionLog`.
    """
    _Formatter(settings, manifest)
    open_store(settings.prediction_log)


def open_store(target: str) -> ObjectStore:
    """The directory or bucket of a log.

    A write to a directory is tried. A bucket is not contacted: the service must be able to start while S3 is away.

    Raises:
        SettingsError: the directory cannot be written to, or the URL is invalid.
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
                # `_put` retries.
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=_ATTEMPT_SECONDS)},
                client_options={
                    "timeout": timedelta(seconds=_ATTEMPT_SECONDS),
                    "connect_timeout": timedelta(seconds=3),
                    # The configured endpoint decides whether the connection is encrypted.
                    "allow_http": True,
                },
            )
        except (BaseError, ValueError) as error:
            raise SettingsError(f"{named}: {_first_line(error)}") from None
    folder = Path(target).absolute()
    probe = f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store = LocalStore(folder)
        put(store, probe, b"", use_multipart=False)
        delete(store, probe)
    except (BaseError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
        raise SettingsError(f"{named}: the directory cannot be written to: {reason}") from None
    return store


@dataclass
class _Losses:
    """Lost rows since the last report; reported at most once a minute, because every request may fail."""

    dropped: int = 0
    failed: int = 0
    reason: str = ""
    _last: float = -_REPORT_SECONDS

    def report(self, *, at_once: bool) -> None:
        early = not at_once and time.monotonic() - self._last < _REPORT_SECONDS
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


class _Formatter:
    """Formats predictions as lines with the declared fields."""

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        self._fields = set(settings.prediction_log_fields)
        self._version = manifest.version
        self._answers = answers_of(manifest)
        wanted = settings.prediction_log_features
        known = {feature.name for feature in manifest.features}
        if "features" not in self._fields or wanted == "none":
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
        layout = Layout.of(manifest.features)
        self._numbers, self._categories = (
            [(name, column) for column, name in enumerate(names) if name in chosen]
            for names in (layout.numbers, layout.categories)
        )
        moments = [each.name for each in manifest.features if each.type == "datetime"]
        self._moments = [(name, column) for column, name in enumerate(moments) if name in chosen]
        self._has_features = bool(chosen)

    def blocks(self, prediction: Prediction) -> Iterator[list[bytes]]:
        """The rows' lines, in blocks of at most `_BLOCK_ROWS`."""
        rows, answers = prediction.rows, prediction.answers
        moment = datetime.fromtimestamp(prediction.time, UTC).isoformat(timespec="milliseconds")
        if not isinstance(rows, Rows):
            yield [self._line(prediction.id, moment, 0, *rows, answers)]
            return
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            numbers = rows.numbers[block].tolist()
            categories, moments = (
                [()] * len(numbers) if each is None else each[block].tolist()
                for each in (rows.categories, rows.moments)
            )
            yield [
                self._line(prediction.id, moment, start + offset, *row)
                for offset, row in enumerate(
                    zip(numbers, categories, moments, self._answers.each(answers, block), strict=True)
                )
            ]

    def _line(
        self,
        request_id: str | None,
        moment: str,
        row: int,
        numbers: Any,
        categories: Any,
        moments: Any,
        answer: Any,
    ) -> bytes:
        fields = self._fields
        line: dict[str, Any] = {}
        if "id" in fields:
            line["id"] = request_id
            line["row"] = row
        if "time" in fields:
            line["time"] = moment
        if "model_version" in fields:
            line["model_version"] = self._version
        if self._has_features:
            # JSON has no NaN; orjson writes null for it.
            line["features"] = {name: numbers[column] for name, column in self._numbers}
            for name, column in self._categories:
                line["features"][name] = categories[column] or None
            for name, column in self._moments:
                line["features"][name] = moments[column] and written(moments[column])
        for name, content in self._answers.as_object(answer).items():
            if name in fields:
                line[name] = content
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _request_id(header: str, in_body: str | None) -> str:
    """The id in the header or the body if it is usable, else a new one."""
    for given in (header, in_body):
        if given is not None and _USABLE_ID.fullmatch(given):
            return given
    return f"{getrandbits(128):032x}"


def _first_line(error: Exception) -> str:
    """The first line of a message that may be long."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 300 else text[:299] + "…"
