"""Locust's figures for Prometheus: how many users, and how often and how fast each kind of request was answered.

They are made when somebody asks, from what locust counts anyway: measuring costs a request nothing, and a master has
the figures of all its workers. Locust keeps times in whole milliseconds up to 100 ms and in coarser steps above.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import gevent.pywsgi
from locust.env import Environment
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Of the histogram, in seconds; all are values that locust keeps exactly."""


class Figures(Collector):
    """What one run of locust has counted, as metrics."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def collect(self) -> Iterable[Metric]:
        runner, entries = self._environment.runner, list(self._environment.stats.entries.values())
        users = GaugeMetricFamily("locust_users", "Users that send requests now.")
        users.add_metric([], runner.user_count if runner else 0)
        labels = ("name", "method")
        requests = CounterMetricFamily("locust_requests", "Requests sent and ended, by kind.", labels=labels)
        failures = CounterMetricFamily(
            "locust_failures", "Requests without the right answer, by kind.", labels=labels
        )
        durations = HistogramMetricFamily(
            "locust_request_duration_seconds", "Time until the answer, by kind.", labels=labels
        )
        for entry in entries:
            values = [entry.name, entry.method or ""]
            requests.add_metric(values, entry.num_requests)
            failures.add_metric(values, entry.num_failures)
            durations.add_metric(
                values, list(_buckets(entry.response_times)), entry.total_response_time / 1000
            )
        return [users, requests, failures, durations]


def serve(environment: Environment, host: str, port: int) -> gevent.pywsgi.WSGIServer:
    """Answer `/metrics` from now on; a port of 0 is any that is free.

    Raises:
        OSError: the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(Figures(environment))
    # gevent's own server: locust has made threads of this process into something else.
    server = gevent.pywsgi.WSGIServer((host, port), make_wsgi_app(registry), log=None)
    server.start()
    return server


def _buckets(times: dict[Any, int]) -> Iterator[tuple[str, float]]:
    """Cumulative counts of a histogram, from counts by milliseconds; a request that got no answer has no time."""
    counts = [0] * (len(BOUNDS) + 1)
    for milliseconds, number in times.items():
        if milliseconds is not None:
            counts[bisect_left(BOUNDS, milliseconds / 1000)] += number
    total = 0
    for bound, number in zip([*map(str, BOUNDS), "+Inf"], counts, strict=True):
        total += number
        yield bound, total
