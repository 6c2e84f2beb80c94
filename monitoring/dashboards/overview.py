"""Overview: how is every model in every environment, one row each?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards.parts import (
    DELIVERY,
    GREEN,
    MODEL,
    ORANGE,
    OVERVIEW,
    RED,
    SERVICE,
    YELLOW,
    dashboard,
    listing,
    number,
)
from monitoring.objectives import objectives

DAY = 86_400
BUDGET = ((None, RED), (0.0, ORANGE), (0.25, YELLOW), (0.5, GREEN))
HEALTH = {1: ("fine", GREEN), 2: ("ticket", YELLOW), 3: ("page", RED)}
DRIFT = "max by (environment, model) (espalier:feature_psi:24h{VERSION} or espalier:class_psi:24h{VERSION})"
P99 = "max by (environment, model) (espalier:http_request_duration_seconds:p99_5m{VERSION})"


def build() -> Dashboard:
    table = objectives()
    left = f"budget_left_ratio{table.period_days}d"
    errors = f"min by (environment, model) (espalier:http_errors:{left}{{PLACE}})"
    slow = f"min by (environment, model) (espalier:http_slow:{left}{{PLACE}})"
    look, drifted = table.drift.look, table.drift.alert
    drift = ((None, GREEN), (look, YELLOW), (drifted, RED))
    latency = ((None, GREEN), (table.latency.seconds / 2, YELLOW), (table.latency.seconds, RED))
    age = ((None, GREEN), (table.model_age_days.look * DAY, YELLOW), (table.model_age_days.alert * DAY, RED))
    return dashboard(
        OVERVIEW,
        "Espalier / Overview",
        "How is every model in every environment? Each row leads to the other dashboards.",
        {
            "Is it fine?": [
                number(
                    "Models that run",
                    "short",
                    'count(count by (environment, model) (up{job="espalier", VERSION}))',
                    "How many models Prometheus finds pods of. A model counts in each environment that it runs in.",
                    decimals=0,
                ),
                number(
                    "Models with a page",
                    "short",
                    _alerting("page"),
                    "How many models have an alert that wakes somebody.",
                    ((None, GREEN), (1, RED)),
                    decimals=0,
                ),
                number(
                    "Models with a ticket",
                    "short",
                    _alerting("ticket"),
                    "How many models have an alert for the next working day.",
                    ((None, GREEN), (1, YELLOW)),
                    decimals=0,
                ),
                number(
                    "Models that drift",
                    "short",
                    f"count({DRIFT} > {drifted:g}) or 0 * count({DRIFT})",
                    f"How many models have a feature, or the mix of predictions, whose population stability index over 24 "
                    f"hours is above {drifted:g}.",
                    ((None, GREEN), (1, RED)),
                    decimals=0,
                ),
                number(
                    "Smallest error budget left",
                    "percentunit",
                    f'min({errors} or label_replace({slow}, "of", "latency", "", ""))',
                    "What is left of the errors and slow answers that the objectives allow, of the model that has least "
                    "left: 100 % is untouched, below 0 an objective is missed.",
                    BUDGET,
                    decimals=1,
                ),
                number(
                    "Slowest model's p99",
                    "s",
                    f"max({P99})",
                    "Of the requests of the last 5 minutes, 99 % were answered within this time, where it is worst. "
                    f"The objective is {table.latency.seconds:g} s.",
                    latency,
                ),
            ],
            "Every model": [
                listing(
                    "How is each model in each environment?",
                    {"environment": "Environment", "model": "Model", "version": "Version"},
                    {
                        "Health": ("short", _health()),
                        "Pods": (
                            "short",
                            "topk by (environment, model) (1, "
                            "count by (environment, model, version) (model_info{VERSION}))",
                        ),
                        "Answer": (
                            "percentunit",
                            'avg by (environment, model) (up{job="espalier", VERSION})',
                        ),
                        "Requests": (
                            "reqps",
                            "sum by (environment, model) (espalier:http_requests:rate5m{VERSION})",
                        ),
                        "p99": ("s", P99),
                        "Errors: budget left": ("percentunit", errors),
                        "Latency: budget left": ("percentunit", slow),
                        "Worst drift": ("none", DRIFT),
                        "Age": ("s", "max by (environment, model) (espalier:model_age_seconds{VERSION})"),
                        "Deployed": (
                            "dateTimeFromNow",
                            "max by (environment, model) (espalier_deployed_timestamp_seconds{MODEL} * 1000)",
                        ),
                    },
                    "Health is the worst alert that fires. The version is the one that most pods run, and Pods is their "
                    "number; Answer is the share of all pods that answer Prometheus; drift is the largest population "
                    "stability index over 24 hours. Click on a cell to see more of that model.",
                    width=24,
                    height=10,
                    sort=("Environment", "Model"),
                    words={"Health": HEALTH},
                    limits={
                        "Answer": ((None, RED), (0.5, ORANGE), (1, GREEN)),
                        "p99": latency,
                        "Errors: budget left": BUDGET,
                        "Latency: budget left": BUDGET,
                        "Worst drift": drift,
                        "Age": age,
                    },
                    links={
                        **dict.fromkeys(("Model", "Worst drift", "Age"), MODEL),
                        **dict.fromkeys(("Version", "Deployed"), DELIVERY),
                        **dict.fromkeys(("Health", "Answer", "Requests", "p99"), SERVICE),
                        **dict.fromkeys(("Errors: budget left", "Latency: budget left"), SERVICE),
                    },
                )
            ],
        },
    )


def _alerting(severity: str) -> str:
    """How many models have a firing alert."""
    return f'count(count by (environment, model) (ALERTS{{ALERT, severity="{severity}"}})) or vector(0)'


def _health() -> str:
    """The worst of a model's alerts as a number; one whose pods are found and that has none is fine."""
    return (
        'max by (environment, model) (3 * ALERTS{ALERT, severity="page", model!=""}'
        ' or 2 * ALERTS{ALERT, severity="ticket", model!=""}'
        ' or up{job="espalier", VERSION} * 0 + 1)'
    )
