"""The operations page: its figures are the manifests', and what it names as evidence is there."""

from __future__ import annotations

import re
from functools import cache
from itertools import accumulate, repeat
from typing import Any

import pytest

from deploy.manifests import argocd, render
from tests.deploy import rendered
from tests.deploy.project import MODEL, ROOT

PAGE = (ROOT / "docs/operations.md").read_text()
ERROR_SECONDS = 10
"""From an error of a measurement to the next attempt, fixed in Argo Rollouts."""

Document = dict[str, Any]


@cache
def _documents(environment: str = "production") -> list[Document]:
    return rendered.documents(f"{environment}.{MODEL}")


def _one(kind: str, environment: str = "production") -> Document:
    return next(each for each in _documents(environment) if each["kind"] == kind)


def _section(title: str) -> str:
    """A section's text on one line, as a reader sees it."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found is not None
    return " ".join(found[1].split())


def _applications() -> list[Document]:
    documents = render.parse(render.render(render.ARGOCD))
    made = [each for each in documents if each["kind"] == "Application"]
    sets = [each for each in documents if each["kind"] == "ApplicationSet"]
    with render.copied() as copy:
        for each in sets:
            made += argocd.applications_of(each, copy)
    return made


def test_the_steps_are_the_rollouts() -> None:
    canary = _one("Rollout")["spec"]["strategy"]["canary"]
    weights = [step["setWeight"] for step in canary["steps"] if "setWeight" in step]
    shown = re.findall(r"\| (\d) \| (\d+) % \| 5 minutes \|", _section("A rollout"))
    assert shown == [(str(number), str(weight)) for number, weight in enumerate(weights, start=1)]
    assert [*canary["steps"][1::2]] == [canary["steps"][1]] * 3, "each weight is judged alike"


def test_the_limits_are_the_templates() -> None:
    spec = _one("AnalysisTemplate")["spec"]
    given = {each["name"]: each.get("value") for each in spec["args"]}
    text = _section("A rollout")
    for said in (
        f"at most {float(given['max-error-share']):.0%}".replace("%", " %"),
        f"95 % are answered within {given['max-p95-seconds']} s",
        f"at most {100 * float(given['max-more-rejected']):.0f} points more",
        f"at most {100 * float(given['max-class-distance']):.0f} % of the predictions",
        f"too few requests ({given['min-requests']}) or rows ({given['min-rows']})",
    ):
        assert said in text
    assert "asks Prometheus once a minute, about the last five minutes" in text
    assert given["window"] == "5m"
    for metric in spec["metrics"]:
        # The first after a minute, the last after five.
        assert (metric["initialDelay"], metric["interval"], metric["count"]) == ("1m", "1m", 5)
        assert f"`{metric['name']}`" in text
        # One more than the limit decides.
        assert metric["failureLimit"] + 1 == 2, "fails after two measurements"
        assert metric.get("inconclusiveLimit", 3) + 1 == 4
    assert "four of five measurements had no verdict" in _section("A canary waits")


@pytest.mark.parametrize("environment", render.environments())
def test_a_restart_of_prometheus_aborts_nothing(environment: str) -> None:
    limits = {
        each["consecutiveErrorLimit"] for each in _one("AnalysisTemplate", environment)["spec"]["metrics"]
    }
    (limit,) = limits
    # The first error is at second 0.
    assert limit * ERROR_SECONDS == 300
    assert f"for five minutes ({limit + 1} times in a row, every ten seconds)" in _section(
        "A canary was aborted"
    )
    assert f"aborted after {limit + 1} errors, ten seconds apart" in _section("How we know")
    comment = (render.FOLDER / "base/analysis.yaml").read_text()
    assert re.search(rf"after 10 s, so {limit} are five minutes", comment)


def test_deadlines_and_windows_are_the_rollouts() -> None:
    spec = _one("Rollout")["spec"]
    assert (spec["progressDeadlineSeconds"], spec["progressDeadlineAbort"]) == (300, True)
    assert "pods did not become ready within five minutes" in _section("A canary was aborted")
    assert spec["rollbackWindow"] == {"revisions": 2}
    assert "within the last two versions" in _section("Rolling back")


def test_a_drain_takes_as_many_pods_as_it_says() -> None:
    budgets = {
        each: _one("PodDisruptionBudget", each)["spec"]["maxUnavailable"] for each in render.environments()
    }
    assert budgets == {"staging": 1, "production": "20%"}
    assert "at most one pod of staging, and a fifth of production's" in _section("How a pod shuts down")


def test_a_commit_that_cannot_be_applied_does_not_block_its_revert() -> None:
    """Every application takes the newest commit with each attempt, and gives up when the page says so."""
    minutes = {}
    for each in _applications():
        retry = each["spec"]["syncPolicy"]["retry"]
        assert retry["refresh"] is True, each["metadata"]["name"]
        backoff = retry["backoff"]
        assert (backoff["duration"], backoff["maxDuration"]) == ("10s", "3m")
        waits = accumulate(
            repeat(backoff["factor"], retry["limit"] - 1),
            lambda wait, factor: min(180, wait * factor),
            initial=10,
        )
        minutes[each["metadata"]["name"]] = round(sum(waits) / 60)
    assert set(minutes.values()) == {20, 5}
    assert minutes["espalier-root"] == 5
    text = _section("What a person makes once")
    assert "retried for about 20 minutes (5 for Argo CD's own manifests)" in text
    assert "the next attempt, within three minutes" in text


def test_services_are_replaced_and_what_a_replacement_would_lose_is_not() -> None:
    """An object that somebody else writes into is replaced only where Argo CD keeps what that one wrote."""
    rendered = [*_documents(), *_documents("staging"), *render.parse(render.render(render.MONITORING))]
    replaced = {
        each["kind"]
        for each in rendered
        if "Replace=true"
        in each["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-options", "")
    }
    assert replaced == {"Service"}
    for each in rendered:
        if each["kind"] == "Service":
            assert each["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Replace=true"
            assert each["spec"].get("type", "ClusterIP") == "ClusterIP"
    for each in _applications():
        if each["spec"]["source"].get("path", "").endswith(f"/{MODEL}"):
            assert "RespectIgnoreDifferences=true" in each["spec"]["syncPolicy"]["syncOptions"]
            assert {"kind": "Service", "jsonPointers": ["/spec/selector/rollouts-pod-template-hash"]} in each[
                "spec"
            ]["ignoreDifferences"]


def test_what_is_named_as_evidence_is_there() -> None:
    text = _section("How we know")
    named = set(re.findall(r"`(tests/[\w/.]+)`", text)) | {
        path.removeprefix("../") for path in re.findall(r"\]\((\.\./[\w/.]+)\)", text)
    }
    assert len(named) >= 10
    assert {path for path in named if not (ROOT / path).is_file()} == set()
