"""What speaks for a promotion: Prometheus says what the wave before runs, how its canary ended, for how long, and what fires.

Each query names a model's objects as deploy/base does, and the metrics are those of kube-state-metrics and Argo Rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from deploy.errors import ReleaseError
from deploy.yaml_loader import LOADER
from monitoring.prometheus import Prometheus

SETTINGS = "deploy/promotion.yaml"


@dataclass(frozen=True)
class Evidence:
    """One requirement, whether it is met, and what was found."""

    requirement: str
    met: bool
    found: str

    def of(self, environment: str) -> Evidence:
        """The same, as one of several environments."""
        return replace(self, requirement=f"{environment}: {self.requirement}")


def minutes(root: Path) -> float:
    """For how long a release must have run in the wave before.

    Raises:
        ReleaseError: the setting is missing or no number.
    """
    file = root / SETTINGS
    try:
        value = yaml.load(file.read_text(encoding="utf-8"), LOADER)["minutes"]  # noqa: S506 - a safe one
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        value = None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ReleaseError(f"{SETTINGS} must have `minutes`, a number of at least 0")
    return float(value)


def collect(
    prometheus: Prometheus, environment: str, model: str, digest: str, wanted: float
) -> list[Evidence]:
    """Look at what a model runs in an environment.

    Args:
        prometheus: where metrics of the cluster are.
        environment: one of the wave before.
        model: the model's name.
        digest: what its overlay says that it runs.
        wanted: minutes for which it must have run.

    Raises:
        PrometheusError: it cannot be asked.
    """
    return list(_collect(prometheus, f"espalier-{environment}", environment, model, digest, wanted))


def _collect(
    prometheus: Prometheus, namespace: str, environment: str, model: str, digest: str, wanted: float
) -> Iterator[Evidence]:
    server = f'namespace="{namespace}", pod=~"{model}-server-[a-z0-9]+-[a-z0-9]+"'
    ready = f'(max by (pod) (kube_pod_status_ready{{{server}, condition="true"}}) == 1)'
    ours = (
        f'max by (pod) (kube_pod_container_info{{{server}, container="espalier", image_spec=~".+@{digest}"}})'
    )
    every = f'max by (pod) (kube_pod_container_info{{{server}, container="espalier"}})'

    running, all_ready = (
        _value(prometheus, f"count({pods} and on (pod) {ready})") or 0 for pods in (ours, every)
    )
    yield Evidence(
        f"{environment} runs this image alone",
        running > 0 and running == all_ready,
        f"{running:.0f} of {all_ready:.0f} ready pods run it",
    )
    yield _canary(prometheus, namespace, model)
    age = _value(prometheus, f"time() - min(kube_pod_created{{{server}}} * on (pod) {ours})")
    yield Evidence(
        f"it has run for {wanted:g} minutes",
        age is not None and age >= wanted * 60,
        "no pod of it is there" if age is None else f"its oldest pod is {age / 60:.0f} minutes old",
    )
    # An alert without a model concerns the whole environment, and one without an environment all of them.
    firing = prometheus.query(
        f'ALERTS{{alertstate="firing", severity="page", environment=~"{environment}|", model=~"{model}|"}}'
    )
    names = sorted({each.labels.get("alertname", "?") for each in firing})
    yield Evidence("no alert pages for it", not names, ", ".join(names) or "none fires")


def _canary(prometheus: Prometheus, namespace: str, model: str) -> Evidence:
    named = f'namespace="{namespace}", name="{model}-server"'
    phases = sorted(
        each.labels.get("phase", "?")
        for each in prometheus.query(f"max by (phase) (rollout_info{{{named}}}) == 1")
    )
    if phases:
        return Evidence("its canary succeeded", phases == ["Healthy"], f"the rollout is {', '.join(phases)}")
    plain = f'namespace="{namespace}", deployment="{model}-server", condition="Available", status="true"'
    available = _value(prometheus, f"max(kube_deployment_status_condition{{{plain}}})")
    if available is None:
        return Evidence("its canary succeeded", False, f"Prometheus knows no rollout {model}-server")
    said = "available" if available else "not available"
    return Evidence("its canary succeeded", available == 1, f"a plain Deployment has none; it is {said}")


def _value(prometheus: Prometheus, expression: str) -> float | None:
    found = prometheus.query(expression)
    return found[0].value if found else None
