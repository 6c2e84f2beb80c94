"""Every metric of the service: the only module that knows their names.

The HTTP metrics have the instrumentator's names. Its middleware observes ordinary routes; the fast path observes its own
requests. The model's metrics count the predictions and the bin of each input. Prometheus compares these counts with the
reference shares across all replicas, so pods keep no state.

A counter takes a lock and a lookup, and a request touches a dozen. So observations of single rows are queued in one step
and counted together: when enough are waiting, when `/metrics` is read, and once a second.
"""

from __future__ import annotations

import os
import re
from collections import Counter as Multiset
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
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

from app.answers import Measure, PredictedRow, answers_of
from app.contract import MISSING_CATEGORY, Feature, Manifest, as_label
from app.errors import REASONS, Detail, Reason
from app.http import content_length
from app.schema import Rows
from app.tally import CONFIDENCE_BUCKETS, Tallies, Tally

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
VALUE = "model_prediction_value"
FEATURE_BIN = "model_feature_bin"
FEATURE_REFERENCE = "model_feature_reference_ratio"
CLASS_REFERENCE = "model_class_reference_ratio"
EXPLAINED = "model_explained_rows"
REJECTED = "model_rejected"
REJECTED_FIELDS = "model_rejected_fields"
MODEL_CREATED = "model_created_timestamp_seconds"
DATA_CREATED = "model_data_timestamp_seconds"

OFFLOADED = "offloaded"
"""Before the names of the process metrics."""

LOG_ROWS = "prediction_log_rows"
LOG_QUEUE = "prediction_log_queue_rows"

FEATURE_STORE_REQUESTS = "feature_store_requests"
FEATURE_STORE_DURATION = "feature_store_request_duration_seconds"
FEATURE_STORE_VALUES = "feature_store_values"

OTHER_METHOD = "other"
OTHER_HANDLER = "none"
"""Labels for methods and paths without a route; the instrumentator uses the latter word."""
_METHODS = ("GET", "POST")
"""The methods of the routes; HEAD is answered as GET."""

OTHER_FIELD = "other"
"""Label for everything that is not a feature, so that no client can create series."""

# An answer within this many seconds keeps the latency objective; `make dashboards` writes it from
# monitoring/objectives.yaml. It needs a bucket, because Prometheus counts the answers of whole buckets.
LATENCY_LIMIT = 0.1


def _with_limit(*buckets: float) -> tuple[float, ...]:
    return tuple(sorted({*buckets, LATENCY_LIMIT}))


# From half a millisecond, which is where one row is answered, up to what a queue of big batches takes.
_LATENCY = _with_limit(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LATENCY_BY_HANDLER = _with_limit(0.005, 0.025, 0.1, 0.5, 1)
# Probes and scrapes would distort the latency of clients' requests.
_NOT_COUNTED = re.compile("^/metrics$|^/health/|^/v2/health/")

CONTENT_TYPE = CONTENT_TYPE_LATEST

MOST_WAITING = 256
"""Observations that may wait. Counting them takes about 0.1 ms, during which no request is answered."""

# A `_created` series for each counter would double `/metrics`, and no dashboard uses them.
disable_created_metrics()  # type: ignore[no-untyped-call]


T = TypeVar("T")


class Deferred(Generic[T]):
    """Observations that are counted together later; thread-safe."""

    def __init__(self, count: Callable[[list[T]], None]) -> None:
        self._count = count
        self._waiting: deque[T] = deque()
        self._counting = Lock()

    def add(self, observation: T) -> None:
        self._waiting.append(observation)
        if len(self._waiting) >= MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Count all waiting observations."""
        with self._counting:
            # One by one, because other threads may append.
            observations = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if observations:
                self._count(observations)


CountedAnswer = tuple[int, float, int, int]
"""Status; seconds; announced length of the request's body; length of the answer's body."""


class ModelMetrics:
    """The model's metrics in one registry; every series exists from the start, at zero."""

    def __init__(self, manifest: Manifest, registry: CollectorRegistry) -> None:
        # "max" merges the workers' gauges, which are equal.
        gauge = partial(Gauge, registry=registry, multiprocess_mode="max")
        counter = partial(Counter, registry=registry)
        labels = ["name", "version", "digest", "algorithm", "schema_version"]
        info = gauge(MODEL_INFO, "The model that is served; always 1.", labels)
        info.labels(*(getattr(manifest, label) for label in labels)).set(1)

        answers = answers_of(manifest)
        predictions = counter(PREDICTIONS, "Rows predicted, by class or, of a regression, by bin.", ["class"])
        self._bins = [predictions.labels(each.label) for each in answers.bins]
        self._measure = _MEASURES[answers.measure](registry)
        rejected = counter(REJECTED, "Requests refused, by reason.", ["reason"])
        self._rejected = {reason: rejected.labels(reason) for reason in REASONS}
        self._rejected_fields = counter(
            REJECTED_FIELDS,
            "Requests refused in which a field was at fault, by feature and reason.",
            ["field", "reason"],
        )
        for feature in manifest.features:
            for possible in _faults(feature, manifest.out_of_range == "reject"):
                self._rejected_fields.labels(as_label(feature.name, OTHER_FIELD), possible)
        for possible in _OTHER_FAULTS:
            self._rejected_fields.labels(OTHER_FIELD, possible)
        self._explained = (
            counter(EXPLAINED, "Rows whose prediction was explained.") if manifest.explanation else None
        )

        bins = counter(FEATURE_BIN, "Values seen, by feature and bin.", ["feature", "bin"])
        children = [[bins.labels(each.name, bin.label) for bin in each.bins] for each in manifest.features]
        self._numbers: list[list[Counter]] = []
        self._categories: list[dict[str, Counter]] = []
        for feature, of_feature in zip(manifest.features, children, strict=True):
            if feature.type != "category":
                self._numbers.append(of_feature)
                continue
            by_value = dict(zip(feature.categories, of_feature, strict=False))
            if feature.missing:
                by_value[MISSING_CATEGORY] = of_feature[-1]
            self._categories.append(by_value)

        about = "Share of the training rows in each bin of a feature."
        feature_shares = gauge(FEATURE_REFERENCE, about, ["feature", "bin"])
        for feature in manifest.features:
            for each in feature.bins:
                feature_shares.labels(feature.name, each.label).set(each.share)
        class_shares = gauge(
            CLASS_REFERENCE,
            "Share of the training rows in each class, or of a regression's cross-validated predictions in each bin.",
            ["class"],
        )
        for each in answers.bins:
            class_shares.labels(each.label).set(each.share)

        self._tallies = Tallies(manifest)
        self._rows: Deferred[PredictedRow] = Deferred(lambda rows: self.add(self._tallies.of_rows(rows)))
        self.count_row = self._rows.add
        self.flush = self._rows.flush

    def count(self, rows: Rows, indices: NDArray[np.int64], measures: NDArray[np.float64]) -> None:
        """Count predicted rows: the bins and measures of their answers, and the bins of their values."""
        self.add(self._tallies.of(rows, indices, measures))

    def add(self, tally: Tally) -> None:
        _increment(self._bins, tally.bins)
        self._measure.add(tally)
        for children, counts in zip(self._numbers, tally.numbers, strict=True):
            _increment(children, counts)
        for by_value, counted in zip(self._categories, tally.categories, strict=True):
            for value, number in counted.items():
                by_value[value].inc(number)

    def count_explained(self, rows: int) -> None:
        assert self._explained is not None  # noqa: S101  only a model with explanations explains
        self._explained.inc(rows)

    def reject(self, reason: Reason, details: Collection[Detail] = ()) -> None:
        """Count a refusal, and each kind of fault of each field once, in however many rows."""
        self._rejected[reason].inc()
        for feature, kind in {(each.feature, each.kind) for each in details}:
            field = as_label(feature, OTHER_FIELD) if feature else OTHER_FIELD
            self._rejected_fields.labels(field, kind).inc()


class Connection(Protocol):
    def in_flight(self) -> Iterator[str]:
        """The path of each unfinished request."""


class HttpMetrics:
    """The HTTP metrics of all routes in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        about = "Requests answered, by method, status and handler."
        self.requests = Counter(REQUESTS, about, ["method", "status", "handler"], registry=registry)
        summary = partial(Summary, labelnames=["handler"], registry=registry)
        self.request_size = summary(REQUEST_SIZE, "Announced length of the requests' bodies.")
        self.response_size = summary(RESPONSE_SIZE, "Length of the responses' bodies.")
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
        # "livesum" leaves out the connections of workers that have ended.
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self._open = gauge(CONNECTIONS, "Open connections.")
        self._in_flight = gauge(
            IN_FLIGHT, "Requests whose answer is not finished yet, but for probes and scrapes."
        )
        self._connections: Collection[Connection] = ()
        self._routes: list[RouteMetrics] = []

    def route(self, handler: str, method: str) -> RouteMetrics:
        """The metrics of one route, for an endpoint that observes its own requests."""
        made = RouteMetrics(self, handler, method)
        self._routes.append(made)
        return made

    def refuse(self, status: int) -> None:
        """Count the response to a request with an invalid head, which has no method and no path."""
        self.requests.labels("none", str(status), "none").inc()

    def watch(self, connections: Collection[Connection]) -> None:
        """Let the gauges show a server's open connections. `flush` reads them, so requests have no extra work."""
        self._connections = connections

    def flush(self) -> None:
        for each in self._routes:
            each.flush()
        self._open.set(len(self._connections))
        paths = [path for each in self._connections for path in each.in_flight()]
        self._in_flight.set(sum(not _NOT_COUNTED.search(path) for path in paths))

    def instrument(self, app: FastAPI, *observers: Callable[[Info], None]) -> None:
        """Let these metrics and other observers see all requests that pass the instrumentator's middleware."""
        Instrumentator(should_group_status_codes=False).add(self._observe, *observers).instrument(app)

    def _observe(self, info: Info) -> None:
        handler = info.modified_handler
        if _NOT_COUNTED.search(info.request.url.path if handler == OTHER_HANDLER else handler):
            return
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
    """The series of one route, looked up once."""

    def __init__(self, http: HttpMetrics, handler: str, method: str) -> None:
        self._requests = http.requests
        self._handler, self._method = handler, method
        self._request_size = http.request_size.labels(handler)
        self._response_size = http.response_size.labels(handler)
        self._duration = http.duration
        self._duration_by_handler = http.duration_by_handler.labels(method, handler)
        self._answers: Deferred[CountedAnswer] = Deferred(self._count)
        self.count = self._answers.add
        self.flush = self._answers.flush

    def _count(self, answers: list[CountedAnswer]) -> None:
        statuses, seconds, request_sizes, response_sizes = zip(*answers, strict=True)
        for status, number in Multiset(statuses).items():
            self._requests.labels(self._method, str(status), self._handler).inc(number)
        _add_to_summary(self._request_size, len(answers), sum(request_sizes))
        _add_to_summary(self._response_size, len(answers), sum(response_sizes))
        durations = np.array(seconds)
        _observe_many(self._duration, _LATENCY, durations)
        _observe_many(self._duration_by_handler, _LATENCY_BY_HANDLER, durations)


class LogMetrics:
    """The prediction log's metrics; they exist only if it is on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        rows = Counter(
            LOG_ROWS,
            "Sampled rows that were written, dropped because the queue was full, or could not be stored.",
            ["outcome"],
            registry=registry,
        )
        self.written, self.dropped, self.failed = map(rows.labels, ("written", "dropped", "failed"))
        about = "Rows that wait for the thread that writes."
        self.queue = Gauge(LOG_QUEUE, about, registry=registry, multiprocess_mode="livesum")


class FeatureStoreMetrics:
    """The metrics of the feature store's client; they exist only if it is on.

    Args:
        features: of the model.
        registry: of the metrics.
    """

    def __init__(self, features: Sequence[str], registry: CollectorRegistry) -> None:
        requests = Counter(
            FEATURE_STORE_REQUESTS,
            "Requests to the feature store: answered, not answered in time, or failed.",
            ["outcome"],
            registry=registry,
        )
        self._requests = {each: requests.labels(each) for each in ("ok", "timeout", "failed")}
        about = "Time until the feature store answered or was given up."
        self._duration = Histogram(FEATURE_STORE_DURATION, about, buckets=_LATENCY, registry=registry)
        self._values = Counter(
            FEATURE_STORE_VALUES,
            "Features looked up, by whether the store had a value that is not too old.",
            ["feature", "outcome"],
            registry=registry,
        )
        for feature in features:
            for outcome in ("found", "not_found", "expired"):
                self._values.labels(as_label(feature, OTHER_FIELD), outcome)

    def observe(self, outcome: str, seconds: float) -> None:
        self._requests[outcome].inc()
        self._duration.observe(seconds)

    def count_values(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Count values by feature and outcome."""
        for (feature, outcome), number in counts.items():
            self._values.labels(as_label(feature, OTHER_FIELD), outcome).inc(number)


DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The client library's variable for the directory in which workers share their metrics. The library reads it on import."""


def share(slot: int) -> None:
    """Count in the files of a worker's slot, so that a replacement continues the counts of its predecessor.

    By default each process has its own files. Each replacement would leave more of them for `/metrics` to read.
    """
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def forget_gauges(slot: int, directory: Path) -> None:
    """Remove the gauges of a worker that has ended."""
    multiprocess.mark_process_dead(slot, directory)  # type: ignore[no-untyped-call]


class Exposition:
    """`/metrics`: of this process, or of all workers if they share a directory."""

    def __init__(self, registry: CollectorRegistry, sources: Sequence[_Flushes]) -> None:
        # With several workers `/metrics` omits the process metrics, because no process represents the service.
        ProcessCollector(registry=registry)
        self._registry = registry
        self._sources = sources

    def flush(self) -> None:
        """Count all waiting observations; other workers can only read counted ones."""
        for each in self._sources:
            each.flush()

    def render(self) -> bytes:
        self.flush()
        if DIRECTORY_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)


def export_process(registry: CollectorRegistry, pid: Callable[[], int | None]) -> None:
    """Memory and time of the process for large requests; no series while there is none."""
    ProcessCollector(namespace=OFFLOADED, pid=lambda: pid() or "none", registry=registry)


def export_age(registry: CollectorRegistry, model_created: float | None, data_created: float | None) -> None:
    """Creation times of the model and its data, in seconds since 1970; no series if unknown."""
    for name, subject, created in (
        (MODEL_CREATED, "this model", model_created),
        (DATA_CREATED, "this model's data", data_created),
    ):
        if created is not None:
            about = f"Creation time of {subject}: the time of the commit that brought it."
            Gauge(name, about, registry=registry, multiprocess_mode="max").set(created)


class _Flushes(Protocol):
    def flush(self) -> None: ...


_OTHER_FAULTS: tuple[Reason, ...] = (
    "wrong_shape",
    "unknown_field",
    "missing_field",
    "wrong_type",
    "unsupported",
)


def _faults(feature: Feature, reject: bool) -> Iterator[Reason]:
    """The possible faults of a feature's values."""
    # A tensor without values counts as missing, even if the feature may be missing.
    yield from ("missing_field", "wrong_type", "wrong_shape", "unsupported")
    if feature.type == "category":
        yield "unknown_category"
    if feature.type == "number":
        yield "not_finite"
        if reject and feature.bounded:
            yield "out_of_range"


class _Confidence:
    def __init__(self, registry: CollectorRegistry) -> None:
        about = "Highest class probability of each row."
        self._histogram = Histogram(CONFIDENCE, about, buckets=CONFIDENCE_BUCKETS, registry=registry)

    def add(self, tally: Tally) -> None:
        _add_to_histogram(self._histogram, tally.confidences, tally.sum)


class _Value:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._summary = Summary(VALUE, "Predicted value of each row.", registry=registry)

    def add(self, tally: Tally) -> None:
        _add_to_summary(self._summary, tally.rows, tally.sum)


_MEASURES: dict[Measure, type[_Confidence | _Value]] = {"confidence": _Confidence, "value": _Value}


def _increment(children: Sequence[Counter], numbers: Sequence[int]) -> None:
    for child, number in zip(children, numbers, strict=False):
        if number:
            child.inc(number)


def _observe_many(histogram: Histogram, bounds: Sequence[float], values: NDArray[np.float64]) -> None:
    """Observe many values at the cost of a few."""
    buckets = np.searchsorted(bounds, values, side="left")
    _add_to_histogram(histogram, np.bincount(buckets).tolist(), float(values.sum()))


def _add_to_histogram(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add observations by bucket, and their sum.

    The client library has no such call, and a call for each row would take longer than the model. So this and the next
    function use private attributes; a test compares the result with single observations.
    """
    _increment(histogram._buckets, counts)
    histogram._sum.inc(total)


def _add_to_summary(summary: Summary, count: int, total: float) -> None:
    summary._count.inc(count)
    summary._sum.inc(total)
