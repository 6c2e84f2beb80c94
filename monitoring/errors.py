"""The errors of monitoring that a person can do something about."""

from __future__ import annotations

from common.errors import EspalierError


class MonitoringError(EspalierError):
    """The message names the thing at fault and the remedy."""


class PrometheusError(MonitoringError):
    """Prometheus cannot be asked, or does not understand the question."""


class StackError(MonitoringError):
    """The local stack does not start, or a part of it ended."""
