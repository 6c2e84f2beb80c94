"""Every metric of the service: the only module that knows their names.

HTTP metrics come from the instrumentator (`http_requests_total`, `http_request_duration_seconds`, …). The
model's own count what was predicted and in which bin each input fell; Prometheus compares those counts with
the reference shares across all replicas, so that no pod keeps state.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Sequence

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_fastapi_instrumentator import Instrumentator

from app.contract import MISSING_CATEGORY, CategoryFeature, Manifest, NumberFeature
from app.errors import REASONS, Reason
from app.schema import Rows

MODEL_INFO = "model_info"
PREDICTIONS = "model_predictions"
CONFIDENCE = "model_prediction_confidence"
FEATURE_BIN = "model_feature_bin"
FEATURE_REFERENCE = "model_feature_reference_ratio"
CLASS_REFERENCE = "model_class_reference_ratio"
REJECTED = "model_rejected"

CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
# From half a millisecond, which is where one row is answered, up to what a queue of big batches takes.
_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LATENCY_BY_HANDLER = (0.005, 0.025, 0.1, 0.5, 1)
# Probes and scrapes come at their own pace and would drown the clients' latency.
_NOT_COUNTED = ["^/metrics$", "^/health/", "^/v2/health/"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

# A `_created` series beside each counter would double `/metrics` for nothing that a dashboard asks.
disable_created_metrics()  # type: ignore[no-untyped-call]


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

        bins = Counter(FEATURE_BIN, "Values seen, by feature and bin.", ["feature", "bin"], registry=registry)
        self._numbers = [_NumberBins(f, bins) for f in manifest.features if f.type == "number"]
        self._categories = [_CategoryBins(f, bins) for f in manifest.features if f.type == "category"]
        _export_reference(manifest, registry)

    def count(self, rows: Rows, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> None:
        """Count predicted rows: their classes, confidences and bins."""
        if len(rows) == 1:
            self._count_one(rows, int(labels[0]), float(probabilities.max()))
            return
        for index, number in enumerate(np.bincount(labels, minlength=len(self._classes)).tolist()):
            if number:
                self._classes[index].inc(number)
        _observe_many(self._confidence, probabilities.max(axis=1))
        for column, number_bins in zip(rows.numbers.T, self._numbers, strict=True):
            number_bins.count_many(column)
        if rows.categories is not None:
            for values, category_bins in zip(rows.categories.T, self._categories, strict=True):
                category_bins.count_many(values)

    def reject(self, reason: Reason) -> None:
        self._rejected[reason].inc()

    def _count_one(self, rows: Rows, label: int, confidence: float) -> None:
        self._classes[label].inc()
        self._confidence.observe(min(confidence, 1.0))
        for value, bins in zip(rows.numbers[0].tolist(), self._numbers, strict=True):
            bins.count(value)
        if rows.categories is not None:
            for category, category_bins in zip(rows.categories[0], self._categories, strict=True):
                category_bins.count(category)

    def render(self) -> bytes:
        """The text of `/metrics`: of this process, or of all workers when they share a directory."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)


def instrument(app: FastAPI, registry: CollectorRegistry) -> None:
    """Add the HTTP metrics. `/metrics` itself is an ordinary route, so that nothing can shadow it."""
    Instrumentator(
        should_group_status_codes=False, excluded_handlers=_NOT_COUNTED, registry=registry
    ).instrument(app, latency_highr_buckets=_LATENCY, latency_lowr_buckets=_LATENCY_BY_HANDLER)


class _NumberBins:
    def __init__(self, feature: NumberFeature, counter: Counter) -> None:
        self._edges = feature.edges
        self._children = [counter.labels(feature.name, each.label) for each in feature.bins]

    def count(self, value: float) -> None:
        # NaN is not equal to itself, and goes to the last bin, "missing".
        self._children[bisect_right(self._edges, value) if value == value else -1].inc()  # noqa: PLR0124

    def count_many(self, values: NDArray[np.float64]) -> None:
        bins = np.searchsorted(self._edges, values, side="right")
        bins[np.isnan(values)] = len(self._children) - 1
        _increment(self._children, np.bincount(bins).tolist())


class _CategoryBins:
    def __init__(self, feature: CategoryFeature, counter: Counter) -> None:
        children = [counter.labels(feature.name, each.label) for each in feature.bins]
        self._children = dict(zip(feature.categories, children, strict=False))
        if feature.missing:
            self._children[MISSING_CATEGORY] = children[-1]

    def count(self, value: str) -> None:
        self._children[value].inc()

    def count_many(self, values: NDArray[np.object_]) -> None:
        for value, number in Tally(values.tolist()).items():
            self._children[value].inc(number)


def _increment(children: Sequence[Counter], numbers: Sequence[int]) -> None:
    for child, number in zip(children, numbers, strict=False):
        if number:
            child.inc(number)


def _observe_many(histogram: Histogram, values: NDArray[np.float64]) -> None:
    """Observe many values at the cost of a few.

    The client library has no such call, and one call a row would cost more than the model does; hence its
    private parts. A test compares the outcome with single observations.
    """
    # Sums of float32 probabilities may exceed 1 by a rounding error.
    values = np.minimum(values, 1.0)
    buckets = np.searchsorted(CONFIDENCE_BUCKETS, values, side="left")
    _increment(histogram._buckets, np.bincount(buckets).tolist())
    histogram._sum.inc(float(values.sum()))


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
