"""A small world to watch: the real service under traffic, a made-up cluster around it, and a real Prometheus.

The service runs here and is scraped each second, as `make monitor` would. The cluster's pods and everybody else's
exporters are a story (tests.monitoring.story): hours of it are in Prometheus' storage beforehand, and a page goes on
telling it. Rules are the project's own, evaluated each second and without waiting (`for: 0s`), because a test has no
hours; what they would have recorded in the hours before is computed by promtool.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import httpx
import yaml

from app.contract import Feature, Manifest, read_bundle
from monitoring.prometheus import Prometheus
from monitoring.queries import RULES, metric_names
from tests.app.processes import ROOT, Running, running
from tests.load.traffic import Traffic
from tests.monitoring.expectations import recorded_names
from tests.monitoring.story import Story
from tests.tools import free_port, require

LOCAL = {"namespace": "local", "environment": "local", "pod": "local-0"}
PATIENCE = 60
"""Seconds after which something that should happen is taken not to happen."""


@dataclass(frozen=True)
class World:
    """What runs: the service, its bundle, and the Prometheus that watches it."""

    service: Running
    manifest: Manifest
    prometheus: Prometheus
    story: Story

    def wait_for(self, expression: str) -> None:
        """Wait until a query has an answer."""
        deadline = time.monotonic() + PATIENCE
        while not self.prometheus.query(expression):
            assert time.monotonic() < deadline, f"no data in {PATIENCE} s: {expression}"
            time.sleep(0.2)


@contextmanager
def watching(
    model: Path, folder: Path, *, hours: float = 7, rules: bool = True, levels: int = 1, alerts: bool = False
) -> Iterator[World]:
    """Run it all; skips when Prometheus is not installed.

    Args:
        model: the bundle that the service serves.
        folder: for what is written; must be empty.
        hours: how long the story has been going on.
        rules: whether Prometheus evaluates the rules from now on.
        levels: how much of what the rules would have recorded is computed: 1 what they make of scraped series, 2 what
            they make of that, and so on.
        alerts: whether the story tells of alerts, for where no rules are evaluated.
    """
    promtool, prometheus = require("promtool"), require("prometheus")
    manifest = read_bundle(model).manifest
    now = int(time.time())
    settings = {"model_created": now - 41 * 86_400, "data_created": now - 68 * 86_400}
    log = {"prediction_log": folder / "predictions"}
    store = {
        "feature_store": "http://127.0.0.1:9",
        "feature_store_service": "flowers",
        "feature_store_keys": "id:int",
    }
    with running(model, **settings, **log, **store) as service:
        _send(service, manifest, requests=120)
        scraped = httpx.get(f"{service.url}/metrics").text
        story = Story(scraped, manifest, now, hours, alerts=alerts)
        data = folder / "data"
        _write_history(story, promtool, folder)
        for level in range(1, levels + 1):
            _backfill(prometheus, promtool, folder, story, level)
        _write_configuration(folder, service, manifest, story_port := free_port(), rules=rules)
        with (
            _telling(story, story_port),
            _traffic(service, manifest),
            _prometheus(prometheus, folder, data) as client,
        ):
            world = World(service, manifest, client, story)
            world.wait_for('up{environment="local"} == 1')
            yield world


def _write_history(story: Story, promtool: str, folder: Path) -> None:
    exposition = folder / "history.txt"
    with exposition.open("w", encoding="utf-8") as file:
        file.writelines(story.history())
    _run([promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", exposition, folder / "data"])
    exposition.unlink()


def _backfill(prometheus: str, promtool: str, folder: Path, story: Story, level: int) -> None:
    """Compute what the rules of one level would have recorded, each minute since the story began."""
    # One name for all levels: by file and group promtool shifts the moments of evaluation, as Prometheus does.
    chosen = folder / "past.yml"
    chosen.write_text(yaml.safe_dump({"groups": [{"name": "past", "rules": _records(level)}]}))
    (folder / "prometheus.yml").write_text("global: {}\n")
    with _prometheus(prometheus, folder, folder / "data") as client:
        _run(
            [
                *(promtool, "tsdb", "create-blocks-from", "rules", "--url", client.address),
                *("--start", str(int(story.times[0]) + 600), "--end", str(int(story.end))),
                *("--eval-interval", "60s", "--output-dir", folder / "data", chosen),
            ]
        )


def _records(level: int) -> list[dict[str, Any]]:
    """The recording rules that need those of the level below, and none above."""
    rules = [
        rule
        for path in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    recorded = recorded_names()
    levels: dict[str, int] = {}
    while len(levels) < len(rules):
        for rule in rules:
            needed = metric_names(rule["expr"]) & recorded
            if needed <= levels.keys():
                levels[rule["record"]] = 1 + max((levels[name] for name in needed), default=0)
    return [rule for rule in rules if levels[rule["record"]] == level]


def _write_configuration(
    folder: Path, service: Running, manifest: Manifest, story_port: int, *, rules: bool
) -> None:
    for path in RULES.glob("*.yaml") if rules else ():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in content["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule.pop("for", None)
        (folder / path.name).write_text(yaml.safe_dump(content), encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / path.name) for path in RULES.glob("*.yaml")] if rules else [],
        "scrape_configs": [
            {
                "job_name": "espalier",
                "static_configs": [
                    {
                        "targets": [service.netloc],
                        "labels": LOCAL | {"model": manifest.name, "model_version": manifest.version},
                    }
                ],
            },
            {
                "job_name": "cluster",
                "scrape_interval": "5s",
                # The series bring their own: they are of many targets.
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{story_port}"]}],
            },
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")


@contextmanager
def _prometheus(program: str, folder: Path, data: Path) -> Iterator[Prometheus]:
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={data}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with Prometheus(f"http://127.0.0.1:{port}") as client:
            client.wait(PATIENCE)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


@contextmanager
def _telling(story: Story, port: int) -> Iterator[None]:
    """The page of everybody who is not here."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = story.page(time.time()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _traffic(service: Running, manifest: Manifest) -> Iterator[None]:
    """Requests of all kinds, until the end."""
    over = Event()

    def send() -> None:
        while not over.is_set():
            try:
                _send(service, manifest, requests=20)
            except httpx.HTTPError:
                return
            over.wait(0.2)

    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _last(feature: Feature) -> float | str:
    if feature.type == "datetime":
        return feature.latest
    return feature.maximum if feature.type == "number" else feature.categories[-1]


def _send(service: Running, manifest: Manifest, requests: int) -> None:
    """Single rows, batches, tensors, what must be refused, and rows whose first numbers are at their limit."""
    traffic = Traffic(manifest, Random(7))
    drifted = {"instances": [{feature.name: _last(feature) for feature in manifest.features}] * 500}
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        client.get("/model")
        for number in range(requests):
            kinds = (traffic.instance, traffic.instances, traffic.tensors, traffic.columns, traffic.bad)
            each = kinds[number % len(kinds)]()
            client.post(each.path, content=each.body, headers={"Content-Type": each.content_type})
        for each in traffic.bad_of_each_kind():
            client.post(each.path, content=each.body, headers={"Content-Type": each.content_type})
        client.post("/predict", content=json.dumps(drifted))


def _run(command: list[Any]) -> None:
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
