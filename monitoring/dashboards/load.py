"""Load test: locust's figures beside the server's own."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards.parts import (
    BLUE,
    GREEN,
    LOAD,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    dashboard,
    lines,
    number,
)
from monitoring.objectives import objectives, percent

CLIENT, SERVER = ORANGE, BLUE


def build() -> Dashboard:
    table = objectives()
    limit = table.latency.seconds
    return dashboard(
        LOAD,
        "Espalier / Load test",
        "What locust's users see, beside what the server says of itself: a difference lies between the two.",
        {
            "Is it fine?": [
                number(
                    "Users",
                    "short",
                    "sum(locust_users)",
                    "How many users locust plays now. Start a run with `python -m tests.load.run --metrics-port`.",
                    empty="no run",
                ),
                number(
                    "Requests sent",
                    "reqps",
                    "sum(rate(locust_requests_total[$__rate_interval]))",
                    "Requests a second that locust's users sent.",
                    decimals=1,
                    empty="no run",
                ),
                number(
                    "Answers that were wrong",
                    "percentunit",
                    "sum(rate(locust_failures_total[$__rate_interval])) / "
                    "sum(rate(locust_requests_total[$__rate_interval]))",
                    "The share of the requests without the right answer. A refusal of a request that must be refused "
                    f"is right. The budget is {percent(table.error_budget)}.",
                    ((None, GREEN), (table.error_budget, RED)),
                    decimals=2,
                    empty="no run",
                ),
                number(
                    "p95 as users see it",
                    "s",
                    _client(0.95),
                    f"95 % of the answers came within this time. The budget is {limit:g} s.",
                    ((None, GREEN), (limit / 2, YELLOW), (limit, RED)),
                    empty="no run",
                ),
                number(
                    "p95 as the server sees it",
                    "s",
                    _server(0.95),
                    "The same in the service's own measure, from a request's arrival to its answer. What is missing is "
                    "the network, the ingress, or a busy load generator.",
                    ((None, GREEN), (limit / 2, YELLOW), (limit, RED)),
                ),
                number(
                    "CPU of the busiest pod",
                    "percentunit",
                    "max(rate(process_cpu_seconds_total{VERSION}[$__rate_interval]))",
                    "100 % is one core, which is what one worker can use for single rows.",
                    ((None, GREEN), (0.7, YELLOW), (0.95, RED)),
                    decimals=0,
                ),
            ],
            "Requests": [
                lines(
                    "How many requests: sent and answered?",
                    "reqps",
                    {
                        "sent by locust": "sum(rate(locust_requests_total[$__rate_interval]))",
                        "answered by the service": "sum(rate(http_requests_total{VERSION}[$__rate_interval]))",
                    },
                    "They should be one line, unless others call as well or requests do not arrive.",
                    width=12,
                    colours={"^sent": CLIENT, "^answered": SERVER},
                ),
                lines(
                    "What share goes wrong: for users and for the server?",
                    "percentunit",
                    {
                        "wrong for locust": "sum(rate(locust_failures_total[$__rate_interval])) / "
                        "sum(rate(locust_requests_total[$__rate_interval]))",
                        "errors of the service": (
                            '(sum(rate(http_requests_total{VERSION, status=~"5.."}[$__rate_interval]))'
                            " or vector(0)) / sum(rate("
                            "http_requests_total{VERSION}[$__rate_interval]))"
                        ),
                    },
                    "Failures that only locust sees never reached the service, or were answered wrongly with a good "
                    "status.",
                    width=12,
                    colours={"^wrong": CLIENT, "^errors": RED},
                    at_least_to=0.01,
                ),
            ],
            "Time to answer": [
                lines(
                    "How long: for users and for the server?",
                    "s",
                    {
                        **{f"p{round(q * 100)}, locust": _client(q) for q in (0.5, 0.99)},
                        **{f"p{round(q * 100)}, service": _server(q) for q in (0.5, 0.99)},
                    },
                    "Half and 99 % of the answers came within this time. The gap between the two is what lies between "
                    "them. Locust measures in whole milliseconds.",
                    width=12,
                    colours={
                        "^p50, locust": YELLOW,
                        "^p99, locust": CLIENT,
                        "^p50, service": "light-blue",
                        "^p99, service": SERVER,
                    },
                    limits=((None, GREEN), (limit, RED)),
                ),
                lines(
                    "Which kind of request is slow?",
                    "s",
                    {"{{name}}": _client(0.95, "name")},
                    "The time within which users got 95 % of the answers, by kind of request.",
                    width=12,
                ),
            ],
            "The server under load": [
                lines(
                    "Users, connections and requests in flight",
                    "short",
                    {
                        "users": "sum(locust_users)",
                        "connections": "sum(http_connections{VERSION})",
                        "in flight": "sum(http_requests_in_flight{VERSION})",
                    },
                    "Each user keeps a connection. Requests in flight that approach the number of users mean that all "
                    "of them wait.",
                    colours={"^users": CLIENT, "^connections": PURPLE, "^in flight": SERVER},
                ),
                lines(
                    "CPU used by each process",
                    "percentunit",
                    {"{{pod}}": "sum by (pod) (rate(process_cpu_seconds_total{VERSION}[$__rate_interval]))"},
                    "CPU that the process uses; 100 % is one core.",
                    at_least_to=1,
                ),
                lines(
                    "Memory of each process",
                    "bytes",
                    {"{{pod}}": "sum by (pod) (process_resident_memory_bytes{VERSION})"},
                    "Memory that the process holds. It should stop growing soon after a run begins.",
                ),
            ],
        },
        span="now-1h",
    )


def _client(quantile: float, *by: str) -> str:
    labels = ", ".join(["le", *by])
    return (
        f"histogram_quantile({quantile:g}, sum by ({labels}) "
        "(rate(locust_request_duration_seconds_bucket[$__rate_interval])))"
    )


def _server(quantile: float) -> str:
    metric = "http_request_duration_highr_seconds_bucket{VERSION}"
    return f"histogram_quantile({quantile:g}, sum by (le) (rate({metric}[$__rate_interval])))"
