"""The analysis of a canary: a real Prometheus answers its queries, and its conditions judge the answers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.metrics import LATENCY_LIMIT
from app.settings import Settings
from deploy.manifests import render
from tests.bundles import write_number_bundle
from tests.deploy import rendered
from tests.deploy.project import MODEL
from tests.deploy.prometheus import NOW, STEP, Prometheus, serving

METRICS = ("scraped", "error-share", "p95-seconds", "more-rejected", "class-distance")
NAMESPACE = "espalier-production"
BUCKETS = (*map(str, sorted({0.0005, 0.005, 0.05, LATENCY_LIMIT, 2.5 * LATENCY_LIMIT, 1.0})), "+Inf")


@dataclass(frozen=True)
class Version:
    """How the pods of one version behave; rates are per second and pod."""

    pods: int = 1
    minutes: int = 20
    requests: float = 4.0
    errors: float = 0.0
    burst: float = 0.0
    """Errors that all happen before the first scrape that shows any."""
    rejected: float = 0.08
    seconds: float = 0.002
    classes: tuple[tuple[str, float], ...] = (("setosa", 1.3), ("versicolor", 1.4), ("virginica", 1.3))
    up: float = 1.0
    restarted: bool = False
    namespace: str = NAMESPACE


STABLE = Version(pods=3, minutes=30)
CANARY = Version(minutes=4)
NOTHING = Version(pods=0)
QUIET = replace(
    CANARY, requests=0.02, rejected=0.0, classes=(("setosa", 0.02), ("versicolor", 0.0), ("virginica", 0.0))
)

SCENARIOS: dict[str, tuple[Version, ...]] = {
    "healthy": (CANARY, STABLE),
    "errors": (replace(CANARY, errors=0.2), STABLE),
    "burst": (replace(CANARY, burst=40.0), STABLE),
    "few-errors": (replace(CANARY, errors=0.01), STABLE),
    "slow": (replace(CANARY, seconds=2 * LATENCY_LIMIT), STABLE),
    "rejects": (replace(CANARY, rejected=1.0), STABLE),
    "all-reject": (replace(CANARY, rejected=1.2), replace(STABLE, rejected=1.2)),
    "other-mix": (
        replace(CANARY, classes=(("setosa", 3.4), ("versicolor", 0.3), ("virginica", 0.3))),
        STABLE,
    ),
    "new-class": (replace(CANARY, classes=(("setosa", 1.3), ("versicolor", 1.4), ("hybrid", 1.3))), STABLE),
    "quiet": (QUIET, STABLE),
    "quiet-stable": (CANARY, replace(STABLE, requests=0.01, rejected=0.0, classes=(("setosa", 0.0),))),
    "silent": (replace(QUIET, requests=0.0, classes=(("setosa", 0.0),)), STABLE),
    "unscraped": (NOTHING, STABLE),
    "down": (replace(CANARY, up=0.0), STABLE),
    "old-restart": (replace(CANARY, minutes=20, restarted=True), STABLE),
    # The same pod template has the same hash in another environment.
    "neighbour": (
        CANARY,
        STABLE,
        replace(CANARY, errors=3.0, up=0.0, seconds=0.9, namespace="espalier-staging"),
    ),
}
PASS, FAIL, UNKNOWN = "Successful", "Failed", "Inconclusive"
EXPECTED: dict[str, dict[str, str]] = {
    "healthy": {},
    "errors": {"error-share": FAIL},
    "burst": {"error-share": FAIL},
    "few-errors": {},
    "slow": {"p95-seconds": FAIL},
    "rejects": {"more-rejected": FAIL},
    "all-reject": {},
    "other-mix": {"class-distance": FAIL},
    "new-class": {"class-distance": FAIL},
    "quiet": dict.fromkeys(METRICS[1:], UNKNOWN),
    "quiet-stable": {"more-rejected": UNKNOWN, "class-distance": UNKNOWN},
    "silent": dict.fromkeys(METRICS[1:], UNKNOWN),
    "unscraped": {"scraped": FAIL, **dict.fromkeys(METRICS[1:], UNKNOWN)},
    "down": {"scraped": FAIL},
    "old-restart": {},
    "neighbour": {},
}
"""What production's analysis says; Successful where nothing stands."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    series: dict[Any, Any] = {}
    for name, (canary, stable, *others) in SCENARIOS.items():
        for role, version in (
            ("canary", canary),
            ("stable", stable),
            *(("canary", other) for other in others),
        ):
            for pod in range(version.pods):
                series.update(_pod(version, f"{name}-{role}", f"{name}-{role}-{version.namespace}-{pod}"))
    with serving(series, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@cache
def _template(environment: str) -> dict[str, Any]:
    documents = rendered.documents(f"{environment}.{MODEL}")
    found: dict[str, Any] = next(each for each in documents if each["kind"] == "AnalysisTemplate")
    return found


def _metric(environment: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in _template(environment)["spec"]["metrics"] if m["name"] == name)
    return found


def _given(environment: str, text: str, scenario: str) -> str:
    """Fills in the arguments as Argo Rollouts does."""
    arguments = {each["name"]: each.get("value") for each in _template(environment)["spec"]["args"]}
    arguments |= {"namespace": NAMESPACE, "canary": f"{scenario}-canary", "stable": f"{scenario}-stable"}
    for name, value in arguments.items():
        text = text.replace(f"{{{{args.{name}}}}}", str(value))
    assert "{{" not in text
    return text


def _verdict(
    environment: str, name: str, scenario: str, prometheus: Prometheus, query: str | None = None
) -> str:
    metric = _metric(environment, name)
    query = query or metric["provider"]["prometheus"]["query"]
    result = prometheus.query(_given(environment, query, scenario))
    if _holds(_given(environment, metric["failureCondition"], scenario), result):
        return FAIL
    return PASS if _holds(_given(environment, metric["successCondition"], scenario), result) else UNKNOWN


def _holds(condition: str, result: list[float]) -> bool:
    """Evaluates a condition in the part of Argo Rollouts' expression language that is used here.

    All of it means the same in Python, once its operators are spelt as Python does.
    """
    choice = re.fullmatch(r"(?P<test>[^?]+)\?(?P<yes>[^:]+):(?P<no>.+)", condition)
    if choice:
        condition = f"({choice['yes'].strip()}) if ({choice['test'].strip()}) else ({choice['no'].strip()})"
    for theirs, ours in (("&&", " and "), ("||", " or "), ("true", "True"), ("false", "False")):
        condition = condition.replace(theirs, ours)
    condition = re.sub(r"!(?!=)", " not ", condition).strip()
    names = {node.id for node in ast.walk(ast.parse(condition, mode="eval")) if isinstance(node, ast.Name)}
    assert names <= {"result", "len", "isNaN"}, condition
    outcome = eval(condition, {"__builtins__": {}, "result": result, "len": len, "isNaN": isnan})
    assert isinstance(outcome, bool), condition
    return outcome


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_canary_is_judged_by_what_it_does(scenario: str, prometheus: Prometheus) -> None:
    said = {name: _verdict("production", name, scenario, prometheus) for name in METRICS}
    assert said == {name: EXPECTED[scenario].get(name, PASS) for name in METRICS}


@pytest.mark.parametrize("scenario", ["quiet", "silent", "quiet-stable"])
def test_silence_passes_in_staging_where_nobody_may_be_calling(scenario: str, prometheus: Prometheus) -> None:
    assert {_verdict("staging", name, scenario, prometheus) for name in METRICS} == {PASS}


def test_what_is_not_scraped_passes_nowhere(prometheus: Prometheus) -> None:
    assert _verdict("staging", "scraped", "unscraped", prometheus) == FAIL


@pytest.mark.parametrize("scenario", ["errors", "slow", "rejects", "other-mix"])
def test_staging_fails_what_production_fails(scenario: str, prometheus: Prometheus) -> None:
    failed = {name for name in METRICS if _verdict("staging", name, scenario, prometheus) == FAIL}
    assert failed == set(EXPECTED[scenario])


def test_no_query_answers_more_than_one_number_or_nan(prometheus: Prometheus) -> None:
    for scenario in SCENARIOS:
        for name in METRICS:
            query = _metric("production", name)["provider"]["prometheus"]["query"]
            result = prometheus.query(_given("production", query, scenario))
            assert len(result) <= 1, (scenario, name, result)
            assert not any(map(isnan, result)), (scenario, name, result)


def test_without_the_namespace_a_neighbour_would_be_blamed(prometheus: Prometheus) -> None:
    for name in ("scraped", "error-share", "p95-seconds"):
        query = _metric("production", name)["provider"]["prometheus"]["query"]
        careless = re.sub(r'namespace="[^"]*",', "", query)
        assert _verdict("production", name, "neighbour", prometheus, careless) == FAIL, name


def test_increase_alone_would_miss_the_first_errors(prometheus: Prometheus) -> None:
    careless = """
        (
          sum(increase(http_requests_total{rollouts_pod_template_hash="{{args.canary}}", status=~"5.."}[5m]))
          or vector(0)
        )
        /
        sum(increase(http_request_duration_highr_seconds_count{
          rollouts_pod_template_hash="{{args.canary}}"
        }[5m]))
    """
    assert _verdict("production", "error-share", "burst", prometheus, careless) == PASS


def test_a_query_that_is_wrong_is_an_error(prometheus: Prometheus) -> None:
    with pytest.raises(ValueError, match="parse error"):
        prometheus.query("sum(up")


@pytest.mark.parametrize("environment", render.environments())
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("result", [[], [float("nan")], [0.0], [1.0], [float("inf")]], ids=str)
def test_no_measurement_passes_and_fails_at_once(environment: str, name: str, result: list[float]) -> None:
    metric = _metric(environment, name)
    success, failure = (
        _holds(_given(environment, metric[each], "any"), result)
        for each in ("successCondition", "failureCondition")
    )
    assert not (success and failure)
    if name != "scraped" and (not result or isnan(result[0])):
        # Nothing is never bad news, and good news only where silence is expected.
        assert (success, failure) == (environment == "staging", False)


def test_the_metrics_are_those_that_exist_here() -> None:
    assert [each["name"] for each in _template("production")["spec"]["metrics"]] == list(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_at_least_one_measurement_must_tell(name: str) -> None:
    metric = _metric("production", name)
    assert metric.get("inconclusiveLimit", 0) < metric["count"] - metric["failureLimit"]


@pytest.mark.parametrize("name", METRICS[1:])
def test_queries_ask_for_what_the_service_exports(name: str, tmp_path: Path) -> None:
    """Every metric, and every label that is not the scrape's own, is in the service's /metrics."""
    write_number_bundle(tmp_path)
    with TestClient(create_app(Settings(model_dir=tmp_path))) as client:
        client.post("/predict", content=b"{}", headers={"content-type": "application/json"})
        exposition = client.get("/metrics").text
    exported: dict[str, set[str]] = {}
    for found in re.finditer(r"^(\w+)(?:\{(.*)\})? \S+$", exposition, re.M):
        exported.setdefault(found[1], set()).update(re.findall(r'(\w+)="', found[2] or ""))
    query = _metric("production", name)["provider"]["prometheus"]["query"]
    selectors = re.findall(r"(\w+)\s*\{([^{}]*(?:\{\{[^{}]*\}\}[^{}]*)*)\}", query)
    assert selectors
    grouped = set(re.findall(r"by \((\w+)\)", query))
    for metric, inside in selectors:
        matched = set(re.findall(r"(\w+)\s*=", inside))
        assert metric in exported
        assert {"namespace", "rollouts_pod_template_hash"} <= matched
        assert matched - {"namespace", "rollouts_pod_template_hash"} <= exported[metric]
    assert grouped <= set().union(*(exported[metric] for metric, _ in selectors))


def _pod(version: Version, pod_hash: str, pod: str) -> dict[Any, Any]:
    """The series of one pod, sampled until NOW."""
    common = (("namespace", version.namespace), ("pod", pod), ("rollouts_pod_template_hash", pod_hash))
    times = list(range(NOW - version.minutes * 60, NOW + 1, STEP))
    series: dict[Any, Any] = {}

    def counter(name: str, rate: float, *labels: tuple[str, str], start: float = 0.0) -> None:
        def value(index: int) -> float:
            # A restart in the middle of the last five minutes: the counter begins again.
            elapsed = index - (len(times) - 10 if version.restarted and index >= len(times) - 10 else 0)
            return start + rate * elapsed * STEP

        series[name, tuple(sorted((*common, *labels)))] = [(at, value(i)) for i, at in enumerate(times)]

    series["up", common] = [(at, version.up) for at in times]
    counter("http_request_duration_highr_seconds_count", version.requests)
    for bound in BUCKETS:
        counter(
            "http_request_duration_highr_seconds_bucket",
            version.requests if version.seconds <= float(bound) else 0.0,
            ("le", bound),
        )
    answered = (("handler", "/predict"), ("method", "POST"))
    counter("http_requests_total", version.requests - version.errors, *answered, ("status", "200"))
    if version.errors:
        counter("http_requests_total", version.errors, *answered, ("status", "500"))
    if version.burst:
        key = "http_requests_total", tuple(sorted((*common, *answered, ("status", "503"))))
        series[key] = [(at, version.burst) for at in times if at > NOW - 120]
    for reason in ("out_of_range", "wrong_type"):
        counter("model_rejected_total", version.rejected / 2, ("reason", reason))
    for name, rate in version.classes:
        counter("model_predictions_total", rate, ("class", name))
    return series
