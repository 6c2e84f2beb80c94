from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.contract import as_label
from common.errors import EspalierError
from monitoring.prometheus import Prometheus, seconds
from monitoring.stack import __main__ as stack
from monitoring.stack import configuration, speed, traffic
from monitoring.stack.configuration import Places
from monitoring.stack.processes import Part, Processes
from tests.bundles import RESERVED_SOILS, write_mixed_bundle, write_number_bundle
from tests.e2e.clone import ROOT
from tests.tools import require

PATIENCE = 120
"""Seconds after which something that should happen is taken not to happen; machines may be slow."""
PLACES = Places(
    services=[("127.0.0.1:1", {"model": "iris", "model_version": "v1"})],
    prometheus="127.0.0.1:2",
    alertmanager="127.0.0.1:3",
    delivery="127.0.0.1:4",
    load="127.0.0.1:5",
)


@dataclass
class Stack:
    process: subprocess.Popen[str]
    folder: Path

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads((self.folder / "state.json").read_bytes())
        return found

    def printed(self) -> dict[str, str]:
        """What it prints once it runs: addresses by part, and the commands `drift` and `load`."""
        assert self.process.stdout
        lines = list(iter(self.process.stdout.readline, "Ctrl-C ends it\n"))
        return dict(re.split(r":?\s+", line.strip(), maxsplit=1) for line in lines if line.strip())

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def launch(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "monitoring.stack",
            f"--folder={folder}",
            "--port=all=0",
            "--no-grafana",
            *options,
        ],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Stack]:
    """The stack, with everything started; ended at the end if it still runs."""
    process = launch(folder, *options)
    try:
        until(lambda: (folder / "state.json").exists() or process.poll() is not None, "it does not start")
        assert process.poll() is None, process.communicate()[0]
        yield Stack(process, folder)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)


def until(holds: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


WATCHED = pytest.mark.long("app", "common", "monitoring", "tests/monitoring")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_number_bundle(folder)
    return folder


@WATCHED
def test_from_the_first_request_to_the_alert_and_nothing_is_left(model: Path, tmp_path: Path) -> None:
    """Drifting traffic, and rules that run 600 times as fast as life: an hour is six seconds."""
    for tool in ("prometheus", "prometheus-alertmanager"):
        require(tool)
    options = ["--speed=600", "--drift=petal_length=1.5", "--rate=150", f"--bundle={model}"]
    with running(tmp_path / "monitor", *options) as stack_:
        printed = stack_.printed()
        parts = stack_.parts
        assert set(parts) >= {"service", "prometheus", "alertmanager", "traffic"}
        family = stack_.family()
        assert {each["pid"] for each in parts.values()} <= {each.pid for each in family}
        address = parts["prometheus"]["address"]
        with Prometheus(address) as prometheus:
            until(lambda: _up(prometheus) >= {"espalier", "prometheus", "alertmanager"}, "not all are up")
            rules = prometheus.rules()
            written = {
                rule.get("record") or rule["alert"]
                for file in configuration.rule_files()
                for group in yaml.safe_load(file.read_text())["groups"]
                for rule in group["rules"]
            }
            assert {rule.name for rule in rules} == written
            until(lambda: prometheus.get("alertmanagers")["activeAlertmanagers"], "no Alertmanager is found")
            (found,) = prometheus.query("model_info")
            expected = {**configuration.labels(model), "job": "espalier"}
            assert {name: found.labels[name] for name in expected} == expected

            def told() -> bool:
                alerts = httpx.get(f"{parts['alertmanager']['address']}/api/v2/alerts").json()
                return ("EspalierFeatureDrift", "petal_length") in {
                    (each["labels"]["alertname"], each["labels"].get("feature")) for each in alerts
                }

            until(told, "the alert does not reach Alertmanager")
            assert [rule for rule in prometheus.rules() if rule.error] == []

        # Windows end every six seconds here; by then the same four are still the newest, or one more is.
        said = subprocess.run(
            shlex.split(printed["drift"]), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert said.returncode == 1, said.stderr
        load = [
            *shlex.split(printed["load"]),
            "--users=2",
            "--time=5s",
            "--max-error-share=1",
            "--p95-ms=60000",
        ]
        loaded = subprocess.run(load, cwd=ROOT, capture_output=True, text=True, check=False)
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        assert re.search(r"petal_length .* DRIFT", said.stdout)

        stack_.process.send_signal(signal.SIGINT)
        output, _ = stack_.process.communicate(timeout=PATIENCE)
    assert stack_.process.returncode == 0, output
    assert not (tmp_path / "monitor/state.json").exists()
    assert output.splitlines()[-1] == "stopped"
    for part in parts.values():
        if part["address"]:
            assert part["address"] in printed.values()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert alive == []


@WATCHED
def test_of_two_models_only_the_one_that_drifts_is_told(model: Path, tmp_path: Path) -> None:
    """The other has categories named like reserved words, which do not drift by themselves."""
    require("prometheus")
    write_mixed_bundle(tmp_path / "model", RESERVED_SOILS, shares=(0.3, 0.2, 0.2, 0.1, 0.1, 0.1))
    with (
        running(
            tmp_path / "monitor",
            *("--speed=600", "--drift=petal_length=1.5", "--rate=100"),
            *(f"--bundle={model}", f"--bundle={tmp_path / 'model'}"),
        ) as stack_,
        Prometheus(stack_.parts["prometheus"]["address"]) as prometheus,
    ):
        judged = 'count_over_time(espalier:feature_psi:1h{feature="soil type"}[36s:6s]) >= 6'
        until(lambda: prometheus.query(judged), "no index is recorded")
        until(lambda: prometheus.query('ALERTS{alertname="EspalierFeatureDrift", model="iris"}'), "no alert")
        assert prometheus.query('ALERTS{alertname="EspalierFeatureDrift", model!="iris"}') == []
        assert {"service", "service-plants", "traffic", "traffic-plants"} <= stack_.parts.keys()
        answers = prometheus.query('espalier:http_answers:rate5m{environment="local"} > 0')
        assert {each.labels["model"] for each in answers} == {"iris", "plants"}
        drift = [sys.executable, "-m", "monitoring.drift", "--prometheus", prometheus.address, "--window=6s"]
        statuses = {
            name: subprocess.run(
                [*drift, f"--model={name}"], cwd=ROOT, capture_output=True, check=False
            ).returncode
            for name in ("iris", "plants")
        }
        assert statuses == {"iris": 1, "plants": 0}
        (largest,) = prometheus.query('max(max_over_time(espalier:feature_psi:1h{feature="soil type"}[36s]))')
        assert largest.value < 0.2
        seen = prometheus.query('espalier:feature_bin:increase1h{feature="soil type"} > 0')
        assert {each.labels["bin"] for each in seen} == {
            "missing",
            *(as_label(each, "missing") for each in RESERVED_SOILS),
        }


def _up(prometheus: Prometheus) -> set[str]:
    return {each.labels["job"] for each in prometheus.query("up == 1")}


@pytest.mark.slow
def test_killed_it_leaves_nothing_and_can_start_again(model: Path, tmp_path: Path) -> None:
    require("prometheus")
    folder = tmp_path / "monitor"
    with running(folder, f"--bundle={model}") as first:
        family = first.family()
        second = launch(folder, f"--bundle={model}")
        output, _ = second.communicate(timeout=PATIENCE)
        assert second.returncode == 1
        assert output.strip() == (
            f"error: a stack already runs in {folder}: end it, or give another --folder"
        )
        first.process.kill()
        first.process.communicate(timeout=PATIENCE)
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        assert alive == []
    (folder / "state.json").unlink()
    with running(folder, f"--bundle={model}") as again:
        # A part that ends takes the rest with it, and says why.
        family = again.family()
        os.kill(again.parts["service"]["pid"], signal.SIGKILL)
        output, _ = again.process.communicate(timeout=PATIENCE)
    assert again.process.returncode == 1
    assert "service: " in output, "its last words"
    assert output.splitlines()[-1] == (
        f"error: service ended with SIGKILL: its log is {folder / 'logs/service.log'}"
    )
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


# What stands in the way.


def plan_of(folder: Path, *arguments: str) -> list[Part]:
    options = stack._parser().parse_args([f"--folder={folder}", "--port=all=0", *arguments])
    return stack.plan(options, folder)


def test_without_prometheus_it_says_how_to_get_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EspalierError, match=r"apt install prometheus.*brew install.*compose\.yaml"):
        plan_of(tmp_path, f"--bundle={model}")


def test_without_a_model_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EspalierError, match=r"there is no model in .*: run `make` first"):
        plan_of(tmp_path, f"--bundle={tmp_path}")


def test_each_model_has_its_own_service_labels_and_traffic(model: Path, tmp_path: Path) -> None:
    require("prometheus")
    write_mixed_bundle(tmp_path / "mixed")
    bundles = (f"--bundle={model}", f"--bundle={tmp_path / 'mixed'}")
    parts = {
        part.name: part for part in plan_of(tmp_path, *bundles, "--drift=age=2", "--drift=petal_length=1")
    }
    written = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    (scraped,) = (job["static_configs"] for job in written["scrape_configs"] if job["job_name"] == "espalier")
    assert [(f"http://{each['targets'][0]}", each["labels"]["model"]) for each in scraped] == [
        (parts["service"].address, "iris"),
        (parts["service-plants"].address, "plants"),
    ]
    drifts = {
        name: [option for option in parts[name].command if option.startswith("--drift")]
        for name in ("traffic", "traffic-plants")
    }
    assert drifts == {"traffic": ["--drift=petal_length=1.0"], "traffic-plants": ["--drift=age=2.0"]}
    with pytest.raises(
        EspalierError, match=r"^--drift size=…: no model has such a number: iris has petal_length, "
    ):
        plan_of(tmp_path, *bundles, "--drift=size=1")
    with pytest.raises(EspalierError, match=r"another model is called iris, too$"):
        plan_of(tmp_path, bundles[0], bundles[0])
    with pytest.raises(EspalierError, match=r"there is no model 'wime': did you mean wine, or create it"):
        plan_of(tmp_path, "--model=wime")


def test_services_have_ports_one_after_the_other() -> None:
    assert (
        stack._ports(
            ["service", "service-b", "service-c", "prometheus"], {"service": 18_371, "all": 0}
        ).items()
        >= {
            "service": 18_371,
            "service-b": 18_372,
            "service-c": 18_373,
        }.items()
    )


def test_a_port_in_use_is_named(model: Path, tmp_path: Path) -> None:
    require("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            EspalierError,
            match=rf"^port {port}, for prometheus, cannot be had \(.*in use\): .* --port prometheus=NUMBER",
        ):
            plan_of(tmp_path, f"--bundle={model}", f"--port=prometheus={port}")


@pytest.mark.parametrize(
    "option",
    ["--port=grafana", "--port=mail=25", "--port=service=70000", "--speed=0", "--speed=fast", "--drift=petal",
     "--drift=petal=x", "--drift==1", "--rate=0", "--mistakes=2"],
)  # fmt: skip
def test_what_makes_no_sense(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stack._parser().parse_args([option])
    assert repr(option.partition("=")[2]) in capsys.readouterr().err


def test_a_part_that_cannot_start_takes_the_others_with_it(tmp_path: Path) -> None:
    sleeps = Part("sleeps", [sys.executable, "-c", "import time; time.sleep(1000)"])
    fails = Part("fails", [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"], "http://h", "/x")
    with Processes(tmp_path) as processes:
        processes.start(sleeps)
        pid = processes.running()["sleeps"][1]
        with pytest.raises(EspalierError, match=r"^fails ended with status 3"):
            processes.start(fails)
    assert not psutil.pid_exists(pid)
    assert (tmp_path / "fails.log").read_text() == "no disk\n"
    with pytest.raises(EspalierError, match=r"^cannot start absent"), Processes(tmp_path) as processes:
        processes.start(Part("absent", [str(tmp_path / "absent")]))


def test_what_is_optional_may_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Processes(tmp_path) as processes:
        processes.start(
            Part(
                "extra",
                [sys.executable, "-c", "print('no daemon')"],
                "http://127.0.0.1:1",
                "/x",
                optional=True,
            )
        )
        assert processes.running() == {}
    assert capsys.readouterr().err == (
        "extra: no daemon\nextra ended with status 0: the stack goes on without it\n"
    )


def test_what_a_part_has_started_ends_too(tmp_path: Path) -> None:
    script = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); time.sleep(1000)"
    with Processes(tmp_path) as processes:
        processes.start(Part("parent", [sys.executable, "-c", script]))
        until(lambda: processes.log("parent").read_text().strip(), "it starts nothing")
        grandchild = psutil.Process(int(processes.log("parent").read_text()))
    grandchild.wait(timeout=PATIENCE)


# What it writes.


@pytest.mark.slow
def test_prometheus_and_alertmanager_take_what_is_written(tmp_path: Path) -> None:
    promtool, amtool = require("promtool"), require("amtool")
    for index, quick in enumerate((1, 7, 60, 600)):
        folder = tmp_path / str(index)
        configuration.write(folder, PLACES, quick)
        for command in (
            [promtool, "check", "config", str(folder / "prometheus.yml")],
            [amtool, "check-config", str(folder / "alertmanager.yml")],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(file.name for file in (tmp_path / "0/rules").iterdir()) == [
        file.name for file in configuration.rule_files()
    ]


def test_at_its_own_speed_the_rules_are_the_clusters(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/former.yaml").write_text("groups: []\n")
    configuration.write(tmp_path, PLACES)
    written = {file.name: yaml.safe_load(file.read_text()) for file in (tmp_path / "rules").iterdir()}
    assert written == {
        file.name: {"groups": yaml.safe_load(file.read_text())["groups"]}
        for file in configuration.rule_files()
    }


@pytest.mark.parametrize(
    ("text", "length"), [("15s", 15), ("1h30m", 5400), ("359m", 21540), ("250ms", 0.25), ("30d", 2_592_000)]
)
def test_times(text: str, length: float) -> None:
    assert seconds(text) == length
    assert seconds(speed.shown(length)) == length


@pytest.mark.parametrize("text", ["", "5", "m", "1h 30m", "-5m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds(text)


def test_sixty_times_as_fast_an_hour_is_a_minute() -> None:
    rules = {
        "groups": [
            {
                "name": "g",
                "interval": "1m",
                "rules": [
                    {"record": "a:1h", "expr": "sum_over_time(rate5m[24h]) * 60 + x[5m] / 300 + y offset 1h"},
                    {"alert": "A", "expr": "count_over_time((a:1h > 0.2)[359m:1h]) >= 4", "for": "1h"},
                    {"alert": "B", "expr": "age > 180 * 86400 and errors > 14.4 * 0.001"},
                ],
            }
        ]
    }
    (group,) = speed.quicken(rules, 60)["groups"]
    assert group["interval"] == "1000ms"
    assert [rule["expr"] for rule in group["rules"]] == [
        "sum_over_time(rate5m[1440000ms]) * 1 + x[5000ms] / 5 + y offset 60000ms",
        "count_over_time((a:1h > 0.2)[359000ms:60000ms]) >= 4",
        "age > 180 * 86400 and errors > 14.4 * 0.001",
    ]
    assert group["rules"][1]["for"] == "60000ms"


def test_numbers_in_the_rules_are_known_to_be_seconds_or_not() -> None:
    """A number that is a time without looking like it would not be made faster."""
    rules = [
        rule["expr"]
        for file in configuration.rule_files()
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    numbers = {
        number
        for expression in rules
        for number in re.findall(
            r"(?<![\w.:])(\d{2,})(?![\w.:])", re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
        )
    }
    seconds = {"30", "60", "300"}
    # Predictions, samples, days and what is as old as it is at any speed.
    others = {"10", "20", "50", "100", "180", "200", "360", "3600", "86400", "900"}
    assert numbers <= seconds | others, (
        f"say in monitoring/stack/speed.py what {numbers - seconds - others} is"
    )


def test_the_relay_alone_is_told_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(
        """
route: {receiver: people, group_wait: 30s, routes: [{receiver: retrain, repeat_interval: 4h}]}
receivers:
  - {name: people, email_configs: [{to: somebody@example.org}]}
  - {name: retrain, webhook_configs: [{url: "http://espalier-relay.monitoring:9099/", send_resolved: false}]}
"""
    )
    monkeypatch.setattr(configuration, "ALERTMANAGER", file)
    off = configuration.alertmanager(PLACES, 60)
    assert off["receivers"] == [{"name": "people"}, {"name": "retrain"}]
    assert off["route"]["group_wait"] == "1000ms"
    assert off["route"]["routes"][0]["repeat_interval"] == "240000ms"
    on = configuration.alertmanager(Places([("s", {})], "p", relay="127.0.0.1:5"))
    assert on["receivers"] == [
        {"name": "people"},
        {"name": "retrain", "webhook_configs": [{"url": "http://127.0.0.1:5/", "send_resolved": False}]},
    ]
    assert on["route"]["group_wait"] == "30s"


def test_the_routes_are_the_clusters(tmp_path: Path) -> None:
    """Its own receivers stay at home: here is no pager, and no Slack."""
    configuration.write(tmp_path, PLACES)
    here = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())
    cluster = yaml.safe_load(configuration.ALERTMANAGER.read_text())
    assert here["route"] == cluster["route"]
    assert here["inhibit_rules"] == cluster["inhibit_rules"]
    assert here["receivers"] == [{"name": each["name"]} for each in cluster["receivers"]]
    told = configuration.alertmanager(Places([("s", {})], "p", relay="127.0.0.1:5"))["receivers"]
    assert [each["name"] for each in told if len(each) > 1] == ["retrain"]


def test_the_relay_runs_where_it_is_configured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("prometheus")
    monkeypatch.delenv("RELAY_REPOSITORY", raising=False)
    assert "relay" not in {part.name for part in plan_of(tmp_path, f"--bundle={model}")}
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("RELAY_REPOSITORY", "espalier-ml/espalier")
    monkeypatch.setenv("RELAY_TOKEN_FILE", str(tmp_path / "token"))
    part = next(part for part in plan_of(tmp_path, f"--bundle={model}") if part.name == "relay")
    with Processes(tmp_path / "logs") as processes:
        processes.start(part)
        assert set(processes.running()) == {"relay"}
        assert httpx.get(f"{part.address}/metrics").status_code == 200
    written = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())["receivers"]
    urls = [hook["url"] for each in written for hook in each.get("webhook_configs", [])]
    assert urls == [f"{part.address}/"]


def test_grafana_finds_prometheus_and_every_dashboard(tmp_path: Path) -> None:
    configuration.write(tmp_path, PLACES)
    sources = yaml.safe_load((tmp_path / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    assert [(each["type"], each["url"]) for each in sources] == [
        ("prometheus", "http://127.0.0.1:2"),
        ("alertmanager", "http://127.0.0.1:3"),
    ]
    assert [each["isDefault"] for each in sources] == [True, False]
    (provider,) = yaml.safe_load((tmp_path / "grafana/dashboards/espalier.yaml").read_text())["providers"]
    assert list(Path(provider["options"]["path"]).glob("*.json"))


@pytest.mark.parametrize("name", ["grafana", "grafana-server"])
def test_grafana_is_started_where_it_is_installed(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in: its real server could not be had to try it."""
    require("prometheus")
    home = tmp_path / "opt"
    (home / "bin").mkdir(parents=True)
    (home / "conf").mkdir()
    (home / "bin" / name).write_text("#!/bin/sh\n")
    (home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    part = next(part for part in plan_of(tmp_path, f"--bundle={model}") if part.name == "grafana")
    assert list(part.command)[1:] == [*(["server"] if name == "grafana" else []), f"--homepath={home}"]
    assert part.environment is not None
    assert part.environment["GF_PATHS_PROVISIONING"] == str(tmp_path / "grafana")
    assert part.address.endswith(part.environment["GF_SERVER_HTTP_PORT"])


# Traffic.


@pytest.mark.parametrize("write", [write_number_bundle, write_mixed_bundle])
def test_its_rows_fall_into_the_bins_as_the_training_rows_did(
    write: Callable[[Path], Any], tmp_path: Path
) -> None:
    manifest = write(tmp_path)
    draw, chance, count = traffic.source(manifest, {}), random.Random(7), 4000
    rows = [draw(chance) for _ in range(count)]
    for feature in manifest.features:
        if feature.type == "category":
            seen = Counter(row[feature.name] for row in rows)
            places: list[Any] = [*feature.categories, *([None] if feature.missing else [])]
        else:
            # A datetime has one bin.
            edges = feature.edges if feature.type == "number" else ()
            seen = Counter(_bin(row[feature.name], edges) for row in rows)
            places = [*range(len(edges) + 1), *([None] if feature.missing else [])]
        for place, each in zip(places, feature.bins, strict=True):
            assert seen[place] / count == pytest.approx(each.share, abs=0.04)


def _bin(value: Any, edges: Any) -> int | None:
    return None if value is None else sum(value >= edge for edge in edges)


@given(st.floats(-100, 100), st.integers(0, 1000))
def test_drift_shifts_within_what_the_service_takes(
    tmp_path_factory: pytest.TempPathFactory, by: float, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "drifting"
    folder.mkdir(exist_ok=True)
    manifest = write_number_bundle(folder)
    feature = next(each for each in manifest.features if each.name == "petal_length")
    assert feature.type == "number"
    plain = traffic.source(manifest, {})(random.Random(seed))
    drifted = traffic.source(manifest, {"petal_length": by})(random.Random(seed))
    before, after = plain.pop("petal_length"), drifted.pop("petal_length")
    assert drifted == plain
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert feature.minimum <= after <= feature.maximum
    assert after == pytest.approx(min(max(before + by, feature.minimum), feature.maximum))


def test_a_drift_of_what_is_no_number_is_refused(tmp_path: Path) -> None:
    manifest = write_mixed_bundle(tmp_path)
    with pytest.raises(EspalierError, match=r"--drift soil type=…: the model's numbers are Höhe \(cm\), age"):
        traffic.source(manifest, {"soil type": 1.0})


def test_traffic_says_when_nobody_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "monitoring.stack.traffic", "--host=http://127.0.0.1:1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: http://127.0.0.1:1 is not our service, or has ended: ")


def test_options_have_the_documented_defaults() -> None:
    options = stack._parser().parse_args([])
    assert (options.command, options.folder, options.speed) == ("run", Path("build/monitor"), 1)
    assert isinstance(options, argparse.Namespace)
    assert not options.traffic
