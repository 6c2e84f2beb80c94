"""Writes the configuration of Prometheus, Alertmanager and Grafana, for this machine or for compose.yaml.

Rules and dashboards are the cluster's own. Only addresses differ, and the labels that a ServiceMonitor adds in a cluster
are written into the configuration here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common import files
from common.errors import EspalierError
from monitoring.prometheus import seconds
from monitoring.stack import speed as speeds

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring/rules"
ALERTMANAGER = ROOT / "monitoring/alertmanager/alertmanager.yml"
DASHBOARDS = ROOT / "monitoring/dashboards"


@dataclass(frozen=True)
class Places:
    """Addresses of the parts as host:port; None for a part that does not run."""

    services: Sequence[tuple[str, Mapping[str, str]]]
    """Each model's service, and the labels of its series."""
    prometheus: str
    alertmanager: str | None = None
    delivery: str | None = None
    relay: str | None = None
    load: str | None = None
    dashboards: str = str(DASHBOARDS)
    rules: str = ""
    """The folder of the rules as Prometheus sees it; empty for `rules` beside its configuration."""


def labels(bundle: Path) -> dict[str, str]:
    """The labels that a cluster adds to every series of the service.

    Raises:
        EspalierError: there is no model.
    """
    try:
        manifest = json.loads((bundle / "model.json").read_bytes())
        name, version = str(manifest["name"]), str(manifest["version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise EspalierError(f"there is no model in {bundle}: run `make` first") from None
    return {
        "namespace": "local",
        "environment": "local",
        "model": name,
        "model_version": version,
        "pod": f"{name}-local-0",
    }


def write(folder: Path, places: Places, speed: float = 1) -> None:
    """Write everything into a folder: prometheus.yml, rules/, alertmanager.yml, grafana/."""
    names = []
    for file in rule_files():
        rules = yaml.safe_load(file.read_text(encoding="utf-8"))
        quick = speeds.quicken(rules, speed) if speed != 1 else {"groups": rules["groups"]}
        _write_yaml(folder / "rules" / file.name, quick)
        names.append(file.name)
    # Prometheus would still load rules that an earlier version wrote.
    for left in (folder / "rules").glob("*.yaml"):
        if left.name not in names:
            left.unlink()
    _write_yaml(folder / "prometheus.yml", prometheus(places, speed))
    _write_yaml(folder / "alertmanager.yml", alertmanager(places, speed))
    _write_yaml(folder / "grafana/datasources/prometheus.yaml", datasources(places, speed))
    _write_yaml(folder / "grafana/dashboards/espalier.yaml", providers(places))


def rule_files() -> list[Path]:
    return sorted(RULES.glob("*.yaml"))


def prometheus(places: Places, speed: float = 1) -> dict[str, Any]:
    interval = speeds.shown(speeds.scrape_seconds(speed))
    jobs = [_job("espalier", *places.services), _job("prometheus", (places.prometheus, {}))]
    if places.delivery:
        jobs.append(_job("espalier-delivery", (places.delivery, {})))
    if places.load:
        jobs.append(_job("load", (places.load, {})))
    if places.alertmanager:
        jobs.append(_job("alertmanager", (places.alertmanager, {})))
    made: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [f"{places.rules or 'rules'}/*.yaml"],
        "scrape_configs": jobs,
    }
    if places.alertmanager:
        made["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [places.alertmanager]}]}]}
    return made


def alertmanager(places: Places, speed: float = 1) -> dict[str, Any]:
    """The cluster's routes and inhibitions, with one receiver: the relay that starts retraining, if it runs."""
    found = yaml.safe_load(ALERTMANAGER.read_text(encoding="utf-8"))
    receivers = [{"name": each["name"]} for each in found["receivers"]]
    if places.relay:
        for made, each in zip(receivers, found["receivers"], strict=True):
            if any("relay" in str(hook.get("url", "")) for hook in each.get("webhook_configs", [])):
                made["webhook_configs"] = [
                    {**hook, "url": f"http://{places.relay}/"} for hook in each["webhook_configs"]
                ]
    made = {name: found[name] for name in ("route", "inhibit_rules", "time_intervals") if name in found}
    return {**made, "route": _quick_route(made["route"], speed), "receivers": receivers}


def datasources(places: Places, speed: float = 1) -> dict[str, Any]:
    interval = speeds.shown(speeds.scrape_seconds(speed))
    made = [
        {
            "name": "Prometheus",
            "uid": "prometheus",
            "type": "prometheus",
            "access": "proxy",
            "url": f"http://{places.prometheus}",
            "isDefault": True,
            "jsonData": {"httpMethod": "POST", "timeInterval": interval},
        }
    ]
    if places.alertmanager:
        made.append(
            {
                "name": "Alertmanager",
                "uid": "alertmanager",
                "type": "alertmanager",
                "access": "proxy",
                "url": f"http://{places.alertmanager}",
                "isDefault": False,
                "jsonData": {"implementation": "prometheus"},
            }
        )
    return {"apiVersion": 1, "datasources": made}


def providers(places: Places) -> dict[str, Any]:
    provider = {
        "name": "espalier",
        "folder": "Espalier",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": places.dashboards},
    }
    return {"apiVersion": 1, "providers": [provider]}


def _job(name: str, *targets: tuple[str, Mapping[str, str]]) -> dict[str, Any]:
    static = [
        {"targets": [address], **({"labels": dict(labels)} if labels else {})} for address, labels in targets
    ]
    return {"job_name": name, "static_configs": static}


def _quick_route(route: dict[str, Any], speed: float) -> dict[str, Any]:
    made = dict(route)
    if speed != 1:
        for name in ("group_wait", "group_interval", "repeat_interval"):
            if name in route:
                made[name] = speeds.shown(max(1.0, seconds(route[name]) / speed))
    if "routes" in route:
        made["routes"] = [_quick_route(each, speed) for each in route["routes"]]
    return made


def _write_yaml(file: Path, document: object) -> None:
    # Without anchors, which a reader would have to look up.
    text = yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    files.write_text(file, text)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True
