"""Service: is it answering, fast enough, with room to spare, and what is left of the objectives' budgets?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards.parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SERVICE,
    STATUS_COLOURS,
    YELLOW,
    dashboard,
    lines,
    number,
    phases,
)
from monitoring.objectives import BurnRate, objectives, percent, spaced
from monitoring.prometheus import seconds

LEFT = ((None, RED), (0.0, ORANGE), (0.25, YELLOW), (0.5, GREEN))
ROLLOUT = {1: ("Healthy", GREEN), 2: ("Progressing", BLUE), 3: ("Paused", YELLOW), 4: ("Failed", RED)}


def build() -> Dashboard:
    table = objectives()
    limit = table.latency.seconds
    budgets = (
        ("availability", "http_errors", table.error_budget),
        ("latency", "http_slow", table.slow_budget),
    )
    slow, fast = table.pages()
    period = f"{table.period_days} days"
    left = f"budget_left_ratio{table.period_days}d"
    return dashboard(
        SERVICE,
        "Espalier / Service",
        "Is the service answering, fast enough, with room to spare? What is left of its objectives' budgets?",
        {
            "Is it fine?": [
                number(
                    "Alerts that fire",
                    "short",
                    "count(ALERTS{ALERT}) or vector(0)",
                    "How many of this project's alerts are firing now. Each links to its section of the runbook.",
                    ((None, GREEN), (1, RED)),
                ),
                number(
                    "Pods that answer",
                    "percentunit",
                    'min(avg by (environment, model) (up{job="espalier", VERSION}))',
                    "The share of a model's pods whose metrics can be read, where it is worst. A pod that does not "
                    "answer Prometheus usually answers nobody.",
                    ((None, RED), (0.5, ORANGE), (1, GREEN)),
                    decimals=0,
                ),
                number(
                    "Server errors",
                    "percentunit",
                    "max(espalier:http_errors:ratio_rate5m{PLACE})",
                    "The share of the requests of the last 5 minutes answered with a status of 500 or more, where it "
                    f"is worst. The objective leaves {percent(table.error_budget)}.",
                    ((None, GREEN), (table.error_budget, YELLOW), (table.canary.error_share, RED)),
                    decimals=2,
                ),
                number(
                    "Time of 99 % of the answers",
                    "s",
                    "max(espalier:http_request_duration_seconds:p99_5m{VERSION})",
                    "Of the requests of the last 5 minutes, 99 % were answered within this time, where it is worst. "
                    f"The objective is {limit:g} s.",
                    ((None, GREEN), (limit / 2, YELLOW), (limit, RED)),
                ),
                number(
                    "Availability: budget left",
                    "percentunit",
                    f"min(espalier:http_errors:{left}{{PLACE}})",
                    f"What is left of the errors that the objective ({percent(table.availability)} in {period}) leaves: "
                    "100 % is untouched, "
                    "below 0 it is missed.",
                    LEFT,
                    decimals=1,
                ),
                number(
                    "Latency: budget left",
                    "percentunit",
                    f"min(espalier:http_slow:{left}{{PLACE}})",
                    f"What is left of the slow answers that the objective ({percent(table.latency.share)} within "
                    f"{limit:g} s in {period}) leaves: "
                    "100 % is untouched, below 0 it is missed.",
                    LEFT,
                    decimals=1,
                ),
            ],
            "Requests": [
                lines(
                    "How many requests, by route?",
                    "reqps",
                    {"{{handler}}": "sum by (handler) (espalier:http_requests:rate5m{VERSION})"},
                    "Requests a second over the last 5 minutes. Probes and scrapes are not counted.",
                    stacked=True,
                ),
                lines(
                    "How are they answered?",
                    "reqps",
                    {"{{status}}": "sum by (status) (espalier:http_requests:rate5m{VERSION})"},
                    "Answers a second by status. 422 is a request that the model's schema refuses, 413 one that is "
                    "too large; both are the client's. 500 and more are ours.",
                    stacked=True,
                    colours=STATUS_COLOURS,
                ),
                lines(
                    "What share fails, and whose fault is it?",
                    "percentunit",
                    {
                        "server errors, {{environment}} {{model}}": "max by (environment, model) (espalier:http_errors:ratio_rate5m{PLACE})",
                        "refused, {{environment}} {{model}}": "max by (environment, model) (espalier:rejected:ratio_rate5m{VERSION})",
                    },
                    "Errors of the server as a share of all requests, and refused requests as a share of all "
                    "requests for predictions.",
                    colours={"^server": RED, "^refused": ORANGE},
                    at_least_to=0.01,
                ),
            ],
            "Latency": [
                lines(
                    "How long does an answer take?",
                    "s",
                    {
                        f"p{quantile}, {{{{environment}}}} {{{{model}}}}": "max by (environment, model) ("
                        f"espalier:http_request_duration_seconds:p{quantile}_5m{{VERSION}})"
                        for quantile in (50, 90, 99)
                    },
                    "Of the requests of the last 5 minutes, half, 90 % and 99 % were answered within this time; the "
                    "slowest version counts. The line is the objective.",
                    limits=((None, GREEN), (limit, RED)),
                ),
                lines(
                    f"What share takes longer than {limit:g} s?",
                    "percentunit",
                    {
                        "{{environment}} {{model}}": "max by (environment, model) (espalier:http_slow:ratio_rate5m{PLACE})"
                    },
                    "Answers of the last 5 minutes that took longer than the objective. It leaves "
                    f"{percent(table.slow_budget)}, the line.",
                    limits=((None, GREEN), (table.slow_budget, RED)),
                ),
                lines(
                    "How many requests are in flight?",
                    "short",
                    {
                        "in flight": "sum(http_requests_in_flight{VERSION})",
                        "open connections": "sum(http_connections{VERSION})",
                    },
                    "Requests whose answer is not finished, and connections that are open. In flight rises before "
                    "latency does.",
                ),
            ],
            "Room to spare": [
                lines(
                    "CPU, of what was requested",
                    "percentunit",
                    {
                        "{{pod}}": (
                            "sum by (pod) (rate(container_cpu_usage_seconds_total{CONTAINER}[$__rate_interval]))"
                            " / sum by (pod) ("
                            'kube_pod_container_resource_requests{CONTAINER, resource="cpu"})'
                        )
                    },
                    "CPU used by each pod against what it asks for. The autoscaler adds pods above 70 %, the line. "
                    "Needs the cluster's exporters.",
                    width=6,
                    limits=((None, GREEN), (0.7, ORANGE)),
                ),
                lines(
                    "Memory, of its limit",
                    "percentunit",
                    {
                        "{{pod}}": (
                            "sum by (pod) (container_memory_working_set_bytes{CONTAINER}) / sum by (pod) ("
                            'kube_pod_container_resource_limits{CONTAINER, resource="memory"})'
                        )
                    },
                    "Memory in use by each pod against its limit, at which it is killed. Needs the cluster's "
                    "exporters.",
                    width=6,
                    at_least_to=1,
                    limits=((None, GREEN), (0.9, RED)),
                ),
                lines(
                    "How often were pods restarted?",
                    "short",
                    {
                        "{{pod}}": "sum by (pod) (increase(kube_pod_container_status_restarts_total{CONTAINER}[1h]))"
                    },
                    "Restarts of each pod's container in the hour before. Needs the cluster's exporters.",
                    width=6,
                    at_least_to=1,
                ),
                lines(
                    "How far can the autoscaler still go?",
                    "short",
                    {
                        name: f"sum(kube_horizontalpodautoscaler_{metric}{{AUTOSCALER}})"
                        for name, metric in {
                            "running": "status_current_replicas",
                            "wanted": "status_desired_replicas",
                            "most": "spec_max_replicas",
                            "fewest": "spec_min_replicas",
                        }.items()
                    },
                    "Pods that run and that the autoscaler wants, between the fewest and the most that it may have. "
                    "Needs the cluster's exporters.",
                    width=6,
                    steps=True,
                    colours={"^running$": GREEN, "^wanted$": BLUE, "^most$": RED, "^fewest$": GREY},
                    dashed=("^most$", "^fewest$"),
                ),
            ],
            "Feature store": [
                lines(
                    "How does the feature store answer?",
                    "reqps",
                    {
                        "{{outcome}}": "sum by (outcome) (rate(feature_store_requests_total{PLACE}[$__rate_interval]))"
                    },
                    "Questions a second by outcome. A request whose question fails or takes too long gets 503. Nothing is "
                    "shown in this row where the feature store is off.",
                    colours={"^ok": GREEN, "^timeout": ORANGE, "^failed": RED},
                ),
                lines(
                    "How long does the feature store take?",
                    "s",
                    {
                        f"p{percentile}": (
                            f"histogram_quantile(0.{percentile}, sum by (le) (rate("
                            "feature_store_request_duration_seconds_bucket{PLACE}[$__rate_interval])))"
                        )
                        for percentile in (50, 99)
                    },
                    "The time until half of the questions, and 99 of 100, are answered or given up.",
                ),
                lines(
                    "Which values does the feature store lack?",
                    "percentunit",
                    {
                        "{{feature}}": (
                            'sum by (feature) (rate(feature_store_values_total{PLACE, outcome!="found"}[$__rate_interval]))'
                            " / sum by (feature) (rate(feature_store_values_total{PLACE}[$__rate_interval]))"
                        ),
                    },
                    "The share of the values looked up that the store does not have, or that are too old: such as after a "
                    "materialization that failed. The model imputes them.",
                    most=1,
                ),
            ],
            "Rollout and objectives": [
                phases(
                    "Which phase is the rollout in?",
                    _phase(),
                    "{{namespace}} {{name}}",
                    "Healthy: one version serves everything. Progressing: a canary is being judged. Paused: it waits "
                    "for a person. Failed: it was aborted, and the stable version serves. Needs Argo Rollouts.",
                    ROLLOUT,
                ),
                lines(
                    "How fast are the budgets burnt?",
                    "none",
                    {
                        f"{name}, {window}, {{{{environment}}}} {{{{model}}}}": "max by (environment, model) ("
                        f"espalier:{metric}:ratio_rate{window}{{PLACE}}) / {budget:g}"
                        for name, metric, budget in budgets
                        for window in (fast.long, slow.long)
                    },
                    f"1 spends the budget in exactly {period}. The lines are where an alert pages: {fast.factor:g} over "
                    f"{spaced(fast.long)} ({_spent(fast)} of the budget gone), "
                    f"{slow.factor:g} over {spaced(slow.long)} ({_spent(slow)} gone).",
                    limits=((None, GREEN), (slow.factor, ORANGE), (fast.factor, RED)),
                ),
                lines(
                    "What is left of the budgets?",
                    "percentunit",
                    {
                        f"{name}, {{{{environment}}}} {{{{model}}}}": f"min by (environment, model) (espalier:{metric}:{left}{{PLACE}})"
                        for name, metric, _ in budgets
                    },
                    f"100 % is untouched; below 0 the objective of these {period} is missed.",
                    least=None,
                    most=1,
                    statistics=("lastNotNull", "min"),
                    limits=((None, RED), (0, GREEN)),
                    colours={"^availability, production": BLUE, "^latency, production": ORANGE},
                ),
            ],
        },
    )


def _spent(row: BurnRate) -> str:
    """How much of the budget is gone when an alert pages."""
    return percent(row.factor * seconds(row.long) / seconds(f"{objectives().period_days}d"))


def _phase() -> str:
    """The rollout's phase as a number; Argo Rollouts has it as a label, and names it differently in places."""
    names = ("Healthy|Completed", "Progressing", "Paused", "Degraded|Error|Timeout|Abort|InvalidSpec")
    parts = (
        f'rollout_info{{ROLLOUT, phase=~"{phase}"}} * {number}' for number, phase in enumerate(names, start=1)
    )
    return f"max by (namespace, name) ({' or '.join(parts)})"
