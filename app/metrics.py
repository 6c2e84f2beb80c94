"""Every metric of the service: the only module that knows their names.

The HTTP metrics have the names that the instrumentator gives them; its middleware feeds them for ordinary
routes, the fast path feeds them itself. The model's own count what was predicted and in which bin each input
fell; Prometheus compares those counts with the reference shares across all replicas, so that no pod keeps
state.

A counter costs a lock and a lookup, and a request touches a dozen. Single rows are therefore noted in one
step, and counted together: when enough are waiting, when somebody reads `/metrics`, and once a second.
"""

from __future__ import annotations

import os
import re
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, Protocol, TypeVar

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info

from app.contract import MISSING_CATEGORY, CategoryFeature, Manifest, NumberFeature, as_label
from app.errors import REASONS, Detail, Reason
from app.http import content_length
from app.schema import Rows

REQUESTS = "http_requests"
REQUEST_SIZE = "http_request_size_bytes"
RESPONSE_SIZE = "http_response_size_bytes"
CONNECTIONS = "http_connections"
IN_FLIGHT = "http_requests_in_flight"
DURATION = "http_request_duration_highr_seconds"
DURATION_BY_HANDLER = "http_request_duration_seconds"
MODEL_INFO = "model_info"
PREDICTIONS = "model_predictions"
CONFIDENCE = "model_prediction_confidence"
FEATURE_BIN = "model_feature_bin"
FEATURE_REFERENCE = "model_feature_reference_ratio"
CLASS_REFERENCE = "model_class_reference_ratio"
REJECTED = "model_rejected"
REJECTED_FIELDS = "model_rejected_fields"
MODEL_CREATED = "model_created_timestamp_seconds"
DATA_CREATED = "model_data_timestamp_seconds"

LOG_ROWS = "prediction_log_rows"
LOG_QUEUE = "prediction_log_queue_rows"

OTHER_METHOD = "other"
OTHER_HANDLER = "none"
"""Stand for methods and paths of which the service has no route; the instrumentator has the latter word."""
_METHODS = ("GET", "POST")
"""Those of the routes; HEAD is answered as GET."""

OTHER_FIELD = "other"
"""Stands for everything that is not a feature, so that no client can grow the number of series."""

# An answer within this many seconds keeps the latency objective; `make dashboards` writes it from
# monitoring/objectives.yaml. It needs a bucket, because Prometheus counts the answers of whole buckets.
LATENCY_LIMIT = 0.1


def _with_limit(*buckets: float) -> tuple[float, ...]:
    return tuple(sorted({*buckets, LATENCY_LIMIT}))


CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
# From half a millisecond, which is where one row is answered, up to what a queue of big batches takes.
_LATENCY = _with_limit(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LATENCY_BY_HANDLER = _with_limit(0.005, 0.025, 0.1, 0.5, 1)
# Probes and scrapes come at their own pace and would drown the clients' latency.
_NOT_COUNTED = ["^/metrics$", "^/health/", "^/v2/health/"]
_not_counted = re.compile("|".join(_NOT_COUNTED))

CONTENT_TYPE = CONTENT_TYPE_LATEST

MOST_WAITING = 256
"""Observations that may wait. Counting them takes about 0.1 ms, during which no request is answered."""

# A `_created` series beside each counter would double `/metrics` for nothing that a dashboard asks.
disable_created_metrics()  # type: ignore[no-untyped-call]


T = TypeVar("T")


class Deferred(Generic[T]):
    """Observations that wait to be counted together; safe to use from several threads."""

    def __init__(self, count: Callable[[list[T]], None]) -> None:
        self._count = count
        self._waiting: deque[T] = deque()
        self._counting = Lock()

    def add(self, observation: T) -> None:
        self._waiting.append(observation)
        if len(self._waiting) >= MOST_WAITING:
            self.settle()

    def settle(self) -> None:
        """Count what is waiting."""
        with self._counting:
            # One by one, because other threads may append meanwhile.
            observations = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if observations:
                self._count(observations)


PredictedRow = tuple[Sequence[float], Sequence[str], int, float]
"""Numbers, NaN where missing; categories, "" where missing; the class's index; its probability."""

CountedAnswer = tuple[int, float, int, int]
"""Status; seconds; announced length of the request's body; length of the answer's body."""


class ModelMetrics:
    """The model's metrics in one registry; every series exists from the start, at zero."""

    def __init__(self, manifest: Manifest, registry: CollectorRegistry) -> None:
        self._registry = registry
        # "max": each worker sets the same values, and one of them speaks for all.
        info = Gauge(
            MODEL_INFO,
            "The model that is served; always 1.",
            ["name", "version", "digest", "algorithm", "schema_version"],
            registry=registry,
            multiprocess_mode="max",
        )
        info.labels(
            manifest.name, manifest.version, manifest.digest, manifest.algorithm, manifest.schema_version
        ).set(1)

        predictions = Counter(PREDICTIONS, "Rows predicted, by class.", ["class"], registry=registry)
        self._classes = [predictions.labels(name) for name in manifest.classes]
        self._confidence = Histogram(
            CONFIDENCE,
            "Highest class probability of each row.",
            buckets=CONFIDENCE_BUCKETS,
            registry=registry,
        )
        rejected = Counter(REJECTED, "Requests refused, by reason.", ["reason"], registry=registry)
        self._rejected = {reason: rejected.labels(reason) for reason in REASONS}
        self._rejected_fields = Counter(
            REJECTED_FIELDS,
            "Requests refused in which a field was at fault, by feature and reason.",
            ["field", "reason"],
            registry=registry,
        )
        for feature in manifest.features:
            for possible in _faults(feature, manifest.out_of_range == "reject"):
                self._rejected_fields.labels(as_label(feature.name, OTHER_FIELD), possible)
        for possible in _OTHER_FAULTS:
            self._rejected_fields.labels(OTHER_FIELD, possible)

        bins = Counter(FEATURE_BIN, "Values seen, by feature and bin.", ["feature", "bin"], registry=registry)
        self._numbers = [_NumberBins(f, bins) for f in manifest.features if f.type == "number"]
        self._categories = [_CategoryBins(f, bins) for f in manifest.features if f.type == "category"]
        _export_reference(manifest, registry)

        self._rows: Deferred[PredictedRow] = Deferred(self._count_rows)
        self.count_row = self._rows.add
        self.settle = self._rows.settle

    def count(self, rows: Rows, labels: NDArray[np.int64], confidences: NDArray[np.float64]) -> None:
        """Count predicted rows: their classes, confidences and bins."""
        _increment(self._classes, np.bincount(labels).tolist())
        # Sums of float32 probabilities may exceed 1 by a rounding error.
        _observe_many(self._confidence, CONFIDENCE_BUCKETS, np.minimum(confidences, 1.0))
        for column, number_bins in zip(rows.numbers.T, self._numbers, strict=True):
            number_bins.count(column)
        if rows.categories is not None:
            for values, category_bins in zip(rows.categories.T, self._categories, strict=True):
                category_bins.count(values)

    def reject(self, reason: Reason, details: Collection[Detail] = ()) -> None:
        """Count a refusal, and once each field that has a fault of a kind, in however many rows."""
        self._rejected[reason].inc()
        for feature, kind in {(each.feature, each.kind) for each in details}:
            field = as_label(feature, OTHER_FIELD) if feature else OTHER_FIELD
            self._rejected_fields.labels(field, kind).inc()

    def _count_rows(self, observed: list[PredictedRow]) -> None:
        numbers, categories, labels, confidences = zip(*observed, strict=True)
        rows = Rows(
            np.array(numbers, dtype=np.float64),
            np.array(categories, dtype=object) if self._categories else None,
        )
        self.count(rows, np.array(labels), np.array(confidences))


class Busy(Protocol):
    """A connection."""

    def in_flight(self) -> Iterator[str]:
        """The path of each request whose answer is not finished."""


class HttpMetrics:
    """The HTTP metrics in one registry, for all routes alike."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            REQUESTS,
            "Requests answered, by method, status and handler.",
            ["method", "status", "handler"],
            registry=registry,
        )
        self.request_size = Summary(
            REQUEST_SIZE, "Announced length of the requests' bodies.", ["handler"], registry=registry
        )
        self.response_size = Summary(
            RESPONSE_SIZE, "Length of the responses' bodies.", ["handler"], registry=registry
        )
        self.duration = Histogram(
            DURATION, "Time to answer, of all routes, in fine steps.", buckets=_LATENCY, registry=registry
        )
        self.duration_by_handler = Histogram(
            DURATION_BY_HANDLER,
            "Time to answer, by handler, in coarse steps.",
            ["method", "handler"],
            buckets=_LATENCY_BY_HANDLER,
            registry=registry,
        )
        # "livesum": what a worker that is gone had open is gone with it.
        self._open = Gauge(CONNECTIONS, "Open connections.", registry=registry, multiprocess_mode="livesum")
        self._in_flight = Gauge(
            IN_FLIGHT,
            "Requests whose answer is not finished yet, but for probes and scrapes.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._connections: Collection[Busy] = ()
        self._routes: list[RouteMetrics] = []

    def route(self, handler: str, method: str) -> RouteMetrics:
        """The metrics of one route, for an endpoint that feeds them itself."""
        made = RouteMetrics(self, handler, method)
        self._routes.append(made)
        return made

    def refuse(self, status: int) -> None:
        """Count a response to something that has no method and no path, because its head is not valid."""
        self.requests.labels("none", str(status), "none").inc()

    def watch(self, connections: Collection[Busy]) -> None:
        """Let the gauges show a server's open connections.

        They are looked at when somebody reads `/metrics` and once a second; requests do nothing for it.
        """
        self._connections = connections

    def settle(self) -> None:
        for each in self._routes:
            each.settle()
        self._open.set(len(self._connections))
        paths = [path for each in self._connections for path in each.in_flight()]
        self._in_flight.set(sum(not _not_counted.search(path) for path in paths))

    def instrument(self, app: FastAPI) -> None:
        """Let the instrumentator feed these metrics with what passes its middleware.

        `/metrics` itself is an ordinary route, so that nothing can shadow it.
        """
        Instrumentator(should_group_status_codes=False, excluded_handlers=_NOT_COUNTED).add(
            self._observe
        ).instrument(app)

    def _observe(self, info: Info) -> None:
        handler = info.modified_handler
        method = info.method if info.method in _METHODS else OTHER_METHOD
        if info.modified_status == "405":
            handler, method = OTHER_HANDLER, OTHER_METHOD
        self.requests.labels(method, info.modified_status, handler).inc()
        self.request_size.labels(handler).observe(content_length(dict(info.request.headers.raw)))
        answered = dict(info.response.raw_headers) if info.response else {}
        self.response_size.labels(handler).observe(content_length(answered))
        self.duration.observe(info.modified_duration)
        self.duration_by_handler.labels(method, handler).observe(info.modified_duration)


class RouteMetrics:
    """The series of one route, resolved once."""

    def __init__(self, http: HttpMetrics, handler: str, method: str) -> None:
        self._requests = http.requests
        self._handler, self._method = handler, method
        self._request_size = http.request_size.labels(handler)
        self._response_size = http.response_size.labels(handler)
        self._duration = http.duration
        self._duration_by_handler = http.duration_by_handler.labels(method, handler)
        self._answers: Deferred[CountedAnswer] = Deferred(self._count)
        self.count = self._answers.add
        self.settle = self._answers.settle

    def _count(self, answers: list[CountedAnswer]) -> None:
        statuses, seconds, request_sizes, response_sizes = zip(*answers, strict=True)
        for status, number in Tally(statuses).items():
            self._requests.labels(self._method, str(status), self._handler).inc(number)
        _observe_sizes(self._request_size, request_sizes)
        _observe_sizes(self._response_size, response_sizes)
        durations = np.array(seconds)
        _observe_many(self._duration, _LATENCY, durations)
        _observe_many(self._duration_by_handler, _LATENCY_BY_HANDLER, durations)


class LogMetrics:
    """The prediction log's metrics; there are none where it is off."""

    def __init__(self, registry: CollectorRegistry) -> None:
        rows = Counter(
            LOG_ROWS,
            "Sampled rows that were written, dropped because the queue was full, or could not be stored.",
            ["outcome"],
            registry=registry,
        )
        self.written, self.dropped, self.failed = map(rows.labels, ("written", "dropped", "failed"))
        self.queue = Gauge(
            LOG_QUEUE,
            "Rows that wait for the thread that writes.",
            registry=registry,
            multiprocess_mode="livesum",
        )


DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The client library's: where workers share their metrics. It must be set before the library is imported."""


def share(slot: int) -> None:
    """Count in the files of a worker's slot from now on, so that a replacement goes on where the last one ended.

    By default the files would be those of the process. Each replacement would then leave files behind, and
    `/metrics` reads them all.
    """
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def forget_gauges(slot: int, directory: Path) -> None:
    """What a worker that is gone had open is gone with it."""
    multiprocess.mark_process_dead(slot, directory)  # type: ignore[no-untyped-call]


class Exposition:
    """`/metrics`: of this process, or of all workers when they share a directory."""

    def __init__(self, registry: CollectorRegistry, sources: Sequence[_Settles]) -> None:
        # With several workers `/metrics` leaves the process out, because no single process is the service.
        ProcessCollector(registry=registry)
        self._registry = registry
        self._sources = sources

    def settle(self) -> None:
        """Count what is waiting; other workers can only read what has been counted."""
        for each in self._sources:
            each.settle()

    def render(self) -> bytes:
        self.settle()
        if DIRECTORY_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)


def export_age(registry: CollectorRegistry, model_created: float | None, data_created: float | None) -> None:
    """Creation times of the bundle and its data, in seconds since 1970; no series for what is not known."""
    for name, about, created in (
        (
            MODEL_CREATED,
            "Creation time of this model: the time of the commit that brought it.",
            model_created,
        ),
        (
            DATA_CREATED,
            "Creation time of this model's data: the time of the commit that brought it.",
            data_created,
        ),
    ):
        if created is not None:
            Gauge(name, about, registry=registry, multiprocess_mode="max").set(created)


class _Settles(Protocol):
    def settle(self) -> None: ...


_OTHER_FAULTS: tuple[Reason, ...] = (
    "wrong_shape",
    "unknown_field",
    "missing_field",
    "wrong_type",
    "unsupported",
)


def _faults(feature: CategoryFeature | NumberFeature, reject: bool) -> Iterator[Reason]:
    """What can be wrong with a feature's values."""
    # A tensor without values counts as missing even where a value may be.
    yield from ("missing_field", "wrong_type", "wrong_shape", "unsupported")
    if feature.type == "category":
        yield "unknown_category"
    else:
        yield "not_finite"
        if reject and feature.bounded:
            yield "out_of_range"


class _NumberBins:
    def __init__(self, feature: NumberFeature, counter: Counter) -> None:
        self._edges = np.array(feature.edges)
        self._missing = feature.missing
        self._children = [counter.labels(feature.name, each.label) for each in feature.bins]

    def count(self, values: NDArray[np.float64]) -> None:
        bins = np.searchsorted(self._edges, values, side="right")
        if self._missing:
            bins[np.isnan(values)] = len(self._children) - 1
        _increment(self._children, np.bincount(bins).tolist())


class _CategoryBins:
    def __init__(self, feature: CategoryFeature, counter: Counter) -> None:
        children = [counter.labels(feature.name, each.label) for each in feature.bins]
        self._children = dict(zip(feature.categories, children, strict=False))
        if feature.missing:
            self._children[MISSING_CATEGORY] = children[-1]

    def count(self, values: NDArray[np.object_]) -> None:
        for value, number in Tally(values.tolist()).items():
            self._children[value].inc(number)


def _increment(children: Sequence[Counter], numbers: Sequence[int]) -> None:
    for child, number in zip(children, numbers, strict=False):
        if number:
            child.inc(number)


def _observe_many(histogram: Histogram, bounds: Sequence[float], values: NDArray[np.float64]) -> None:
    """Observe many values at the cost of a few.

    The client library has no such call, and one call a row would cost more than the model does; hence its
    private parts, here and below. A test compares the outcome with single observations.
    """
    buckets = np.searchsorted(bounds, values, side="left")
    _increment(histogram._buckets, np.bincount(buckets).tolist())
    histogram._sum.inc(float(values.sum()))


def _observe_sizes(summary: Summary, sizes: Sequence[int]) -> None:
    summary._count.inc(len(sizes))
    summary._sum.inc(sum(sizes))


def _export_reference(manifest: Manifest, registry: CollectorRegistry) -> None:
    features = Gauge(
        FEATURE_REFERENCE,
        "Share of the training rows in each bin of a feature.",
        ["feature", "bin"],
        registry=registry,
        multiprocess_mode="max",
    )
    for feature in manifest.features:
        for each in feature.bins:
            features.labels(feature.name, each.label).set(each.share)
    classes = Gauge(
        CLASS_REFERENCE,
        "Share of the training rows in each class.",
        ["class"],
        registry=registry,
        multiprocess_mode="max",
    )
    for name, share in zip(manifest.classes, manifest.class_shares, strict=True):
        classes.labels(name).set(share)
