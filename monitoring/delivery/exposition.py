"""Writes the facts in Prometheus' text format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from .facts import ACTIONS, Deployment, Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, float, Mapping[str, str]]
"""Name, value and labels."""


def text(facts: Facts | None, up: bool, read_at: float | None) -> str:
    """The text that Prometheus scrapes.

    Args:
        facts: those of the last reading that worked; None before the first.
        up: whether the last reading worked.
        read_at: time of the last reading that worked, in seconds since 1970.
    """
    found: list[Sample] = [("espalier_delivery_up", float(up), {})]
    if read_at is not None:
        found.append(("espalier_delivery_read_timestamp_seconds", read_at, {}))
    lines: dict[str, list[str]] = {name: [] for name in _FAMILIES}
    for name, value, labels in (*(_samples(facts) if facts else ()), *found):
        lines[name].append(f"{name}{_labels(labels)} {_number(value)}\n")
    return "".join(
        f"# HELP {name} {about}\n# TYPE {name} {kind}\n{''.join(lines[name])}"
        for name, (kind, about) in _FAMILIES.items()
        if lines[name]
    )


def _samples(facts: Facts) -> Iterator[Sample]:
    for place, timeline in facts.timelines.items():
        at = {"environment": place.environment, "model": place.model}
        for action in ACTIONS:
            count = sum(each.action == action for each in timeline.deployments)
            yield "espalier_deployments_total", count, at | {"action": action}
        yield "espalier_failed_changes_total", timeline.failed, at
        if timeline.restored:
            broken, mended = timeline.restored
            yield "espalier_restore_seconds", mended.time - broken.time, at
        if timeline.forward and timeline.forward.release.revision in facts.revised:
            lead = timeline.forward.time - facts.revised[timeline.forward.release.revision]
            yield "espalier_lead_time_seconds", lead, at
        if timeline.current:
            yield from _running(facts, timeline.current, at)
    for run in facts.runs:
        of = {"workflow": run.workflow}
        yield "espalier_workflow_run_seconds", run.seconds, of
        yield "espalier_workflow_success", run.success, of
        yield "espalier_workflow_completed_timestamp_seconds", run.completed, of


def _running(facts: Facts, current: Deployment, at: Mapping[str, str]) -> Iterator[Sample]:
    """Samples of the deployment that runs now."""
    release = current.release
    about = {
        **at,
        "version": release.version,
        "digest": release.digest,
        "revision": release.revision,
        "action": current.action,
    }
    yield "espalier_deployment_info", 1, about
    yield "espalier_deployed_timestamp_seconds", current.time, at
    for (split, metric), value in facts.scores.get((at["model"], release.revision), {}).items():
        labels = {**at, "version": release.version, "split": split, "metric": metric}
        yield "espalier_release_metric", value, labels


_FAMILIES = {
    "espalier_deployment_info": (
        "gauge",
        "What git says that a model runs in an environment, and how it came there.",
    ),
    "espalier_deployed_timestamp_seconds": ("gauge", "When what runs was deployed."),
    "espalier_deployments_total": ("counter", "Deployments in the whole history, by what they were."),
    "espalier_failed_changes_total": ("counter", "Deployed changes that were gone back from."),
    "espalier_lead_time_seconds": (
        "gauge",
        "From the commit of the revision to its deployment, for the last one that was no rollback.",
    ),
    "espalier_restore_seconds": (
        "gauge",
        "From the deployment of the last change that failed to the rollback.",
    ),
    "espalier_release_metric": ("gauge", "Metrics of the champion at the revision that runs, from training."),
    "espalier_workflow_run_seconds": ("gauge", "How long the last completed run on the branch took."),
    "espalier_workflow_success": ("gauge", "1 if the last completed run on the branch succeeded, else 0."),
    "espalier_workflow_completed_timestamp_seconds": ("gauge", "When the last run on the branch completed."),
    "espalier_delivery_up": ("gauge", "1 if the last reading of git or GitHub worked, else 0."),
    "espalier_delivery_read_timestamp_seconds": ("gauge", "When the last reading that worked was done."),
}


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    return repr(int(value)) if value == int(value) else repr(float(value))
