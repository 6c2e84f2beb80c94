"""A made-up day of a cluster that runs three models, as series: what Prometheus would have scraped.

The service's own series have the names and labels of a real scrape, so that they are what it exports; their values
follow a story. Traffic has a daily rhythm. Some hours ago production answered with errors and slowly for half an hour.
Since then one feature drifts. A canary with another version takes its share of production, and staging is under a load
test, out of sync, and after an aborted rollout. All this is of the model that the scrape is of. Two more with the same
series are well: `wine` in both environments, and `rent`, a regression, which production has and staging has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import norm

from app.contract import Manifest

Values = NDArray[np.float64]
STEP = 60.0
"""Seconds between two samples of the past."""
DAY = 86_400
CANARY = "c0ffee5eed42"
OTHERS = {"wine": "51e0aa7d9b13", "rent": "9c27f3bb6e04"}
"""The version of each model that is well."""
REGRESSION = "rent"
WHERE = {"production": ("wine", REGRESSION), "staging": ("wine",)}
"""Which of them run where."""
LE_SPREAD = 0.9
"""Of the logarithm of the time to answer."""


@dataclass(frozen=True)
class Series:
    name: str
    labels: Mapping[str, str]
    values: Values
    """At the story's times; NaN where the series is not there."""


@dataclass(frozen=True)
class Pod:
    environment: str
    model: str
    name: str
    version: str
    replica_set: str
    requests: Values
    """A second."""
    errors: Values
    """Their share that is answered with a status of 500 or more."""
    seconds: Values
    """The median time to answer."""
    alive: NDArray[np.bool_]

    @property
    def namespace(self) -> str:
        return f"espalier-{self.environment}"

    @property
    def labels(self) -> dict[str, str]:
        return {
            "job": "espalier",
            "namespace": self.namespace,
            "environment": self.environment,
            "model": self.model,
            "pod": self.name,
            "instance": f"10.0.0.{sum(self.name.encode()) % 250}:8000",
            "model_version": self.version,
            "rollouts_pod_template_hash": self.replica_set,
        }


class Story:
    """Series over some hours that end at a time, and for ten minutes after it, in which somebody may look.

    Attributes:
        times: seconds since 1970.
        series: all of them.
    """

    def __init__(self, scraped: str, manifest: Manifest, end: float, hours: float, *, alerts: bool) -> None:
        self.end = end
        self.times = np.arange(end - hours * 3600, end + 10 * STEP, STEP)
        self._manifest = manifest
        self._random = np.random.default_rng(5)
        self._scraped = [
            (sample.name, dict(sample.labels), sample.value)
            for family in text_string_to_metric_families(scraped)
            for sample in family.samples
        ]
        self.incident = self._between(min(hours * 0.55, 9), min(hours * 0.55, 9) - 0.6)
        self.drifting = self._between(min(hours - 0.5, 9), -1)
        self.load = self._between(0.7, -1)
        self.users = np.where(
            self.load, np.clip(np.floor((self.times - (end - 0.7 * 3600)) / 300) * 8 + 8, 0, 64), 0
        )
        self.pods = self._pods()
        series = [
            *self._service(),
            *self._kubernetes(),
            *self._argo(),
            *self._delivery(),
            *self._labels(),
            *self._locust(),
            *(self._alerts() if alerts else ()),
        ]
        # An instance that Prometheus would add to what it reads from the page belongs to the past, too.
        self.series = [
            Series(each.name, {"instance": each.labels["job"]} | dict(each.labels), each.values)
            if "job" in each.labels
            else each
            for each in series
            if not np.isnan(each.values).all()
        ]

    def history(self) -> Iterable[str]:
        """OpenMetrics text of everything up to the story's end."""
        past = self.times <= self.end
        at = [f"{time:.3f}" for time in self.times[past]]
        for each in self.series:
            head = _head(each)
            for time, value in zip(at, each.values[past].tolist(), strict=True):
                if not math.isnan(value):
                    yield f"{head} {value!r} {time}\n"
        yield "# EOF\n"

    def page(self, at: float) -> str:
        """What an exporter says at a time."""
        lines = []
        for each in self.series:
            value = float(np.interp(at, self.times, each.values))
            if not math.isnan(value):
                lines.append(f"{_head(each)} {value!r}\n")
        return "".join(lines)

    # ------------------------------------------------------------------------------------- the service

    def _pods(self) -> list[Pod]:
        hour = self.times / 3600 % 24
        rhythm = 14 + 10 * np.sin((hour - 8) / 24 * 2 * np.pi)
        always = np.ones(len(self.times), dtype=bool)
        canary = self._between(2.5, -1)
        trouble = np.where(self.incident, 0.028, 0.0)
        usual = 0.0035 * (1 + 0.4 * np.sin((hour - 8) / 24 * 2 * np.pi))
        slow = usual * np.where(self.incident, 9, 1)
        loaded = 0.6 + 5 * self.users
        nothing = np.zeros(len(self.times))

        def pod(environment: str, model: str, name: str, version: str, rate: Values, **but: Any) -> Pod:
            values = {"errors": nothing, "seconds": slow, "alive": always, **but}
            replica_set = name.partition("-")[0]
            whole = f"{model}-server-{name}"
            return Pod(environment, model, whole, version, replica_set, rate, **values)

        first = self._manifest.name
        stable = [
            pod(
                *("production", first, f"7d9f6c5b8-{suffix}", self._manifest.version),
                self._noisy(rhythm * np.where(canary, 0.75, 1.0)),
                errors=trouble,
            )
            for suffix in ("k2x9p", "m4t7q", "zw8hd")
        ]
        return [
            *stable,
            pod(
                *("production", first, "64c8d7f9b-qv5nl", CANARY, self._noisy(rhythm * 0.75)),
                seconds=slow * 1.25,
                alive=canary,
            ),
            pod(
                *("staging", first, "64c8d7f9b-8r2cj", CANARY, self._noisy(loaded, 0.01)),
                seconds=0.0015 + 0.000_02 * loaded,
            ),
            *(
                pod(
                    environment,
                    model,
                    "5b7c9d8f6-x4v2n",
                    OTHERS[model],
                    self._noisy(rhythm / 4),
                    seconds=usual,
                )
                for environment, models in WHERE.items()
                for model in models
            ),
        ]

    def _service(self) -> Iterable[Series]:
        answered = sum(
            v * _usual(labels) for name, labels, v in self._scraped if name == "http_requests_total"
        )
        refused = max(1.0, sum(v for name, _, v in self._scraped if name == "model_rejected_total"))
        confident = max(1.0, self._of("model_prediction_confidence_count"))
        rank = {f.name: {b.label: i for i, b in enumerate(f.bins)} for f in self._manifest.features}
        drifts = self._manifest.features[min(2, len(self._manifest.features) - 1)].name
        for pod in self.pods:
            rows = pod.requests * 3
            refusals = pod.requests * self._noisy(np.full(len(self.times), 0.02))
            for name, labels, value in self._scraped:
                if name == "http_requests_total":
                    usual = value * _usual(labels) / answered
                    counts = self._count(pod, pod.requests * (1 - pod.errors) * usual)
                elif name.startswith(
                    (
                        "http_request_duration_",
                        "http_request_size",
                        "http_response_size",
                        "feature_store_request_duration_",
                    )
                ):
                    share = 1.0 if "handler" not in labels else value / max(value, answered)
                    counts = self._time(pod, name, labels, share)
                elif name.startswith("model_predictions"):
                    counts = self._count(pod, rows * self._class_share(labels["class"], pod))
                elif name.startswith("model_prediction_confidence") and pod.model == REGRESSION:
                    continue
                elif name.startswith("model_prediction_confidence"):
                    less = np.where(self.drifting & (pod.version == self._manifest.version), 0.97, 1.0)
                    counts = self._count(
                        pod, rows * value / confident * (less if name.endswith("_sum") else 1.0)
                    )
                elif name == "model_feature_bin_total":
                    counts = self._count(
                        pod,
                        rows
                        * self._bin_share(
                            labels,
                            rank[labels["feature"]],
                            labels["feature"] == drifts and pod.model not in OTHERS,
                        ),
                    )
                elif name.startswith(("model_rejected_total", "model_rejected_fields_total")):
                    counts = self._count(pod, refusals * value / refused)
                elif name == "prediction_log_rows_total":
                    part = {"written": 0.999, "dropped": 0.001}.get(labels["outcome"], 0.0)
                    counts = self._count(pod, rows * part)
                elif name == "feature_store_requests_total":
                    part = {"ok": 0.998, "timeout": 0.002}.get(labels["outcome"], 0.0)
                    counts = self._count(pod, pod.requests * part)
                elif name == "feature_store_values_total":
                    part = {"found": 0.97, "not_found": 0.02, "expired": 0.01}[labels["outcome"]]
                    counts = self._count(pod, self._noisy(rows * part))
                elif name == "process_cpu_seconds_total":
                    counts = self._count(pod, 0.02 + pod.requests * 0.0022)
                else:
                    counts = self._gauge(pod, name, value)
                own = {"version": pod.version} if name == "model_info" else {}
                yield self._of_pod(pod, name, labels | own, counts)
            if pod.model == REGRESSION:
                mean = 42 + 3 * self._noisy(np.sin(self.times / 7200))
                yield self._of_pod(pod, "model_prediction_value_sum", {}, self._count(pod, rows * mean))
                yield self._of_pod(pod, "model_prediction_value_count", {}, self._count(pod, rows))
            wrong = {"method": "POST", "status": "503", "handler": "/predict"}
            yield self._of_pod(pod, "http_requests_total", wrong, self._count(pod, pod.requests * pod.errors))
            yield self._of_pod(pod, "up", {}, np.ones(len(self.times)))

    def _time(self, pod: Pod, name: str, labels: Mapping[str, str], share: float) -> Values:
        rate = pod.requests * share
        if name.endswith("_bucket"):
            bound = float(labels["le"])
            below = norm.cdf(np.log(bound / pod.seconds) / LE_SPREAD) if np.isfinite(bound) else 1.0
            return self._count(pod, rate * below)
        if name.endswith("_sum"):
            return self._count(pod, rate * (pod.seconds * 1.5 if "duration" in name else 180.0))
        return self._count(pod, rate)

    def _gauge(self, pod: Pod, name: str, value: float) -> Values:
        still = np.ones(len(self.times))
        made: Callable[[], Values] | None = {
            "http_requests_in_flight": lambda: np.round(pod.requests * pod.seconds * 4),
            "http_connections": lambda: np.round(4 + pod.requests * 0.2),
            "process_resident_memory_bytes": lambda: 1.1e8 + 1e6 * np.minimum(pod.requests, 40),
            "prediction_log_queue_rows": lambda: np.round(pod.requests * 0.5),
            "model_created_timestamp_seconds": lambda: still * (self.end - 41 * DAY),
            "model_data_timestamp_seconds": lambda: still * (self.end - 68 * DAY),
        }.get(name)
        return made() if made else still * value

    def _class_share(self, name: str, pod: Pod) -> Values:
        index = self._manifest.classes.index(name)
        share = self._manifest.class_shares[index]
        tilt = 0.12 if pod.version == CANARY else 0.08
        moved = np.where(self.drifting & (pod.model not in OTHERS), tilt, 0.02) * (
            1 if index else -1 * (len(self._manifest.classes) - 1)
        )
        return self._noisy(np.clip(share + moved / len(self._manifest.classes), 0.01, 1), 0.02)

    def _bin_share(self, labels: Mapping[str, str], rank: Mapping[str, int], drifts: bool) -> Values:
        feature = next(f for f in self._manifest.features if f.name == labels["feature"])
        position = rank[labels["bin"]]
        share = self._noisy(np.full(len(self.times), max(feature.bins[position].share, 0.002)), 0.08)
        if not drifts or len(rank) < 2:
            return share
        return share * np.where(self.drifting, 0.25 + 1.5 * position / (len(rank) - 1), 1.0)

    # --------------------------------------------------------------------------------- what is around it

    def _kubernetes(self) -> Iterable[Series]:
        state, agent = {"job": "kube-state-metrics"}, {"job": "kubelet"}
        for pod in self.pods:
            where = {"namespace": pod.namespace, "pod": pod.name}
            container = where | {"container": "espalier"}
            node = container | {"node": "ip-10-0-0-17"}
            alive = np.where(pod.alive, 1.0, np.nan)
            for condition, value in (("true", 1.0), ("false", 0.0), ("unknown", 0.0)):
                yield Series("kube_pod_status_ready", state | where | {"condition": condition}, alive * value)
            restarts = np.where(self.times > self.end - 4.2 * 3600, 1.0 if pod is self.pods[1] else 0.0, 0.0)
            yield Series("kube_pod_container_status_restarts_total", state | container, alive * restarts)
            for resource, unit, request, limit in (
                ("cpu", "core", 0.5, 2.0),
                ("memory", "byte", 160 * 2**20, 320 * 2**20),
            ):
                of = state | node | {"resource": resource, "unit": unit}
                yield Series("kube_pod_container_resource_requests", of, alive * request)
                yield Series("kube_pod_container_resource_limits", of, alive * limit)
            used = self._count(pod, 0.02 + pod.requests * 0.0085)
            yield Series("container_cpu_usage_seconds_total", agent | node, used)
            memory = 1.2e8 + 1e6 * np.minimum(pod.requests, 40)
            yield Series(
                "container_memory_working_set_bytes", agent | node, alive * self._noisy(memory, 0.01)
            )
        limits = {"production": (3, 12), "staging": (2, 4)}
        for environment, model in self._places():
            least, most = limits[environment]
            alive_pods = sum(
                pod.alive.astype(float)
                for pod in self.pods
                if (pod.environment, pod.model) == (environment, model)
            )
            running = np.maximum(cast(Values, alive_pods), 1.0)
            for metric, values in {
                "status_current_replicas": running,
                "status_desired_replicas": running,
                "spec_min_replicas": np.full(len(self.times), float(least)),
                "spec_max_replicas": np.full(len(self.times), float(most)),
            }.items():
                labels = {
                    "namespace": f"espalier-{environment}",
                    "horizontalpodautoscaler": f"{model}-server",
                }
                yield Series(f"kube_horizontalpodautoscaler_{metric}", state | labels, values)

    def _argo(self) -> Iterable[Series]:
        canary = self._between(2.5, -1)
        waits = self._between(0.1, -1)
        aborted = self._between(5, 4)
        phases = {
            "production": {"Progressing": canary & ~waits, "Paused": waits, "Completed": ~canary},
            "staging": {"Abort": aborted | self._between(0.1, -1)},
        }
        phases["staging"]["Completed"] = ~phases["staging"]["Abort"]
        well = {"Completed": np.ones(len(self.times), dtype=bool)}
        for environment, model in self._places():
            for phase, then in (well if model in OTHERS else phases[environment]).items():
                labels = {
                    "job": "argo-rollouts",
                    "namespace": f"espalier-{environment}",
                    "name": f"{model}-server",
                    "phase": phase,
                    "strategy": "canary",
                    "traffic_router": "",
                }
                yield Series("rollout_info", labels, np.where(then, 1.0, np.nan))
        first = self._manifest.name
        unwell = {
            f"espalier-production.{first}": ("Synced", "Progressing"),
            f"espalier-staging.{first}": ("OutOfSync", "Degraded"),
        }
        names = [f"espalier-{environment}" for environment in WHERE]
        names += [f"espalier-{environment}.{model}" for environment, model in self._places()]
        for name in names:
            sync, health = unwell.get(name, ("Synced", "Healthy"))
            labels = {
                "job": "argocd-application-controller-metrics",
                "name": name,
                "namespace": "argocd",
                "project": "espalier",
                "dest_namespace": "-".join(name.split("-")[:2]),
                "sync_status": sync,
                "health_status": health,
            }
            yield Series("argocd_app_info", labels, np.ones(len(self.times)))

    def _delivery(self) -> Iterable[Series]:
        def series(name: str, values: Values | float, **labels: str) -> Series:
            still = np.ones(len(self.times))
            return Series(f"espalier_{name}", {"job": "espalier-delivery"} | labels, still * values)

        promoted, released = self.end - 2.5 * 3600, self.end - 7 * 3600
        first = self._manifest.name
        old = self.end - 30 * DAY
        deployed = {
            ("production", first): (CANARY, "promote", promoted, 26 * 3600.0, 14.0),
            ("staging", first): (CANARY, "release", released, 1900.0, 31.0),
            **{
                (environment, model): (OTHERS[model], forth, old, 5200.0, 3.0)
                for environment, forth in (("production", "promote"), ("staging", "release"))
                for model in WHERE[environment]
            },
        }
        for (environment, model), (version, action, at, lead, count) in deployed.items():
            where = {"environment": environment, "model": model}
            yield series(
                "deployment_info",
                np.where(self.times >= min(at, self.times[-1]), 1.0, np.nan),
                **where,
                version=version,
                digest="sha256:4be1d07c5a93" + "e2" * 26,
                revision="8c09c3c7e15d4ba2" + "f3" * 12,
                action=action,
            )
            then = self.times >= at
            yield series("deployed_timestamp_seconds", np.where(then, at, at - 9 * DAY), **where)
            yield series("lead_time_seconds", np.where(then, lead, lead * 1.7), **where)
            rollbacks = 0.0
            if model == first:
                rollbacks = 2.0
                yield series("restore_seconds", 3100.0 if environment == "production" else 1500.0, **where)
            yield series("failed_changes_total", rollbacks, **where)
            yield series("deployments_total", np.where(then, count, count - 1), **where, action=action)
            yield series("deployments_total", rollbacks, **where, action="rollback")
        for environment, model, version, better in (
            ("production", first, self._manifest.version, 0.0),
            ("staging", first, CANARY, 0.012),
            ("production", "wine", OTHERS["wine"], 0.02),
        ):
            for split in ("cv", "test"):
                for metric, value in {
                    "accuracy": 0.955,
                    "balanced_accuracy": 0.951,
                    "f1_macro": 0.953,
                    "roc_auc": 0.984,
                    "log_loss": 0.142,
                }.items():
                    labels = {
                        "environment": environment,
                        "model": model,
                        "version": version,
                        "split": split,
                        "metric": metric,
                    }
                    sign = -1 if metric.endswith("loss") else 1
                    yield series("release_metric", value + sign * better - 0.004 * (split == "cv"), **labels)
        for workflow, seconds, good in (
            ("ci", 700.0, 1.0),
            ("release", 410.0, 1.0),
            ("reproduce", 320.0, 1.0),
            ("promote", 45.0, 1.0),
            ("retrain", 540.0, 0.0),
        ):
            taken = seconds * (1 + 0.15 * np.sin(np.floor(self.times / 9000) * seconds))
            yield series("workflow_run_seconds", taken, workflow=workflow)
            yield series("workflow_success", good, workflow=workflow)
            yield series("workflow_completed_timestamp_seconds", self.end - seconds * 9, workflow=workflow)
        yield series("delivery_up", 1.0)
        yield series("delivery_read_timestamp_seconds", np.floor(self.times / 300) * 300)
        yield Series(
            "up", {"job": "espalier-delivery", "instance": "delivery:9101"}, np.ones(len(self.times))
        )

    def _labels(self) -> Iterable[Series]:
        last = np.floor(self.times / 3600) * 3600
        for environment, model, version in dict.fromkeys(
            (pod.environment, pod.model, pod.version) for pod in self.pods
        ):
            labels = {
                "job": "espalier-labels",
                "environment": environment,
                "model": model,
                "model_version": version,
            }
            yield Series("model_live_labelled_rows", labels, np.full(len(last), 812.0))
            if model == REGRESSION:
                error = 2.4 + 0.1 * np.sin(last)
                yield Series("model_live_mean_absolute_error", labels, error)
                yield Series("model_live_root_mean_squared_error", labels, 1.3 * error)
                yield Series("model_live_interval_coverage_ratio", labels, 0.904 - 0.01 * np.sin(last))
                continue
            less = np.where(self.drifting & (version == self._manifest.version), 0.035, 0.0)
            right = 0.955 - less + 0.004 * np.sin(last)
            yield Series("model_live_accuracy_ratio", labels, right)
            for index, name in enumerate(self._manifest.classes):
                yield Series("model_live_recall_ratio", labels | {"class": name}, right - 0.03 * index)
        for environment, model in self._places():
            where = {"job": "espalier-labels", "environment": environment, "model": model}
            yield Series("model_live_computed_timestamp_seconds", where, last)

    def _locust(self) -> Iterable[Series]:
        there = np.where(self._between(0.75, -1), 1.0, np.nan)
        yield Series("locust_users", {"job": "espalier-load"}, there * self.users)
        seconds = 0.0022 + 0.000_022 * (0.6 + 5 * self.users)
        for kind, share, factor in (
            ("predict: one row", 0.6, 1.0),
            ("predict: instances", 0.15, 1.6),
            ("predict: columns", 0.05, 2.6),
            ("v2: infer", 0.1, 1.1),
            ("bad: 422", 0.1, 0.9),
        ):
            labels = {"job": "espalier-load", "name": kind, "method": "POST"}
            rate = 5 * self.users * share
            yield Series("locust_requests_total", labels, there * _total(rate))
            yield Series("locust_failures_total", labels, there * _total(rate * 0.0002 * factor))
            yield Series("locust_request_duration_seconds_count", labels, there * _total(rate))
            yield Series(
                "locust_request_duration_seconds_sum", labels, there * _total(rate * seconds * factor)
            )
            for bound in (*(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0), np.inf):
                below = (
                    norm.cdf(np.log(bound / (seconds * factor)) / LE_SPREAD) if np.isfinite(bound) else 1.0
                )
                le = {"le": "+Inf" if bound == np.inf else f"{bound:g}"}
                yield Series(
                    "locust_request_duration_seconds_bucket", labels | le, there * _total(rate * below)
                )

    def _alerts(self) -> Iterable[Series]:
        drift_late = self.drifting & (self.times > self.times[self.drifting][0] + 4 * 3600)
        for name, environment, severity, then in (
            ("EspalierAvailabilityBudgetBurn", "production", "page", self.incident),
            ("EspalierFeatureDrift", "production", "ticket", drift_late),
            ("EspalierOutOfSync", "staging", "ticket", self._between(0.1, -1)),
        ):
            labels = {
                "alertname": name,
                "alertstate": "firing",
                "team": "espalier",
                "severity": severity,
                "environment": environment,
                "model": self._manifest.name,
            }
            yield Series("ALERTS", labels, np.where(then, 1.0, np.nan))

    # --------------------------------------------------------------------------------------- arithmetic

    def _places(self) -> list[tuple[str, str]]:
        """Environments and models in them."""
        return list(dict.fromkeys((pod.environment, pod.model) for pod in self.pods))

    def _of(self, wanted: str) -> float:
        return sum(value for name, _, value in self._scraped if name == wanted)

    def _of_pod(self, pod: Pod, name: str, labels: Mapping[str, str], values: Values) -> Series:
        return Series(name, pod.labels | dict(labels), np.where(pod.alive, values, np.nan))

    def _count(self, pod: Pod, rate: Values) -> Values:
        return _total(np.where(pod.alive, rate, 0.0))

    def _between(self, hours_ago: float, until_hours_ago: float) -> NDArray[np.bool_]:
        then = self.times >= self.end - hours_ago * 3600
        return then & (self.times < self.end - until_hours_ago * 3600)

    def _noisy(self, values: Values, much: float = 0.06) -> Values:
        noise = np.convolve(self._random.normal(0, 1, len(values) + 8), np.ones(9) / 3, "valid")
        return values * np.clip(1 + much * noise, 0.2, 3)


def _usual(labels: Mapping[str, str]) -> float:
    """How often a kind of request of the tests occurs in earnest: bad ones are rare."""
    return 1.0 if labels["status"].startswith("2") else 0.05


def _total(rate: Values) -> Values:
    """A counter that grows at a rate; it begins at zero."""
    return cast(Values, np.cumsum(rate * STEP) - rate[0] * STEP)


def _head(series: Series) -> str:
    inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in series.labels.items())
    return f"{series.name}{{{inside}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
