"""The errors of monitoring that a person can do something about."""

from __future__ import annotations

from common.errors import EspalierError


class MonitoringError(EspalierError):
    """An error of this package; the message names the fault and the remedy."""


class PrometheusError(MonitoringError):
    """Prometheus cannot be reached, or refuses a query."""


class StackError(MonitoringError):
    """The local stack does not start, or a part of it ended."""
