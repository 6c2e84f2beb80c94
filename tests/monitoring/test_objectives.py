"""One table of objectives: whatever states one of its numbers follows a change, or the check names the place."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.metrics import LATENCY_LIMIT
from common.errors import EspalierError
from monitoring import generate
from monitoring.objectives import objectives
from tests.app.conftest import Serve
from tests.deploy.project import ROOT

COPIED = (".github", "app", "common", "deploy", "docs", "monitoring", "tests/load")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "images", "schemas")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    # Without it, a package of this name that another distribution installs would hide the folder.
    shutil.copy(ROOT / "tests/__init__.py", tmp_path / "tests")
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def run(copy: Path) -> Run:
    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)

    return run


def replace(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


def test_the_committed_files_follow_from_the_table() -> None:
    generated = generate.generate(objectives())
    assert [path for path, text in generated.items() if path.read_text() != text] == []
    assert {path.parent for path in generated} > {
        ROOT / "monitoring" / name for name in ("rules", "dashboards")
    }


@pytest.mark.long("app/metrics.py", "deploy/base", "monitoring", "tests/monitoring", "tests/load")
def test_every_place_follows_the_latency_limit(copy: Path, run: Run) -> None:
    assert (run("monitoring.generate", "--check").stderr, run("monitoring.generate").stdout) == ("", "")
    replace(copy / "monitoring/objectives.yaml", ("seconds: 0.1,", "seconds: 0.15,"))

    said = run("monitoring.generate", "--check").stderr
    places = {
        *("app/metrics.py", "deploy/base/analysis.yaml", ".github/workflows/load.yml"),
        *("docs/load-testing.md", "docs/operations.md"),
        *("monitoring/rules/service.yaml", "monitoring/cluster/rules.yaml"),
        *(f"monitoring/dashboards/{name}.json" for name in ("load", "model", "overview", "service")),
    }
    assert said.startswith("error: ")
    assert set(re.findall(r"[\w./-]+\.(?:py|ya?ml|md|json)\b", said)) == places
    written = run("monitoring.generate").stdout
    assert set(re.findall(r"wrote (.+)", written)) == places
    assert run("monitoring.generate", "--check").returncode == 0

    rules = (copy / "monitoring/rules/service.yaml").read_text()
    assert 'le="0.15"' in rules
    assert "take longer than 0.15 s" in rules
    for name in places:
        assert not re.search(r'"0\.1"|\b0\.1 s\b|LATENCY_LIMIT = 0\.1\b', (copy / name).read_text()), name
    assert re.search(r"this fast;.*\(default:\s+150\)", run("tests.load.run", "--help").stdout, re.S)
    assert arguments(copy)["max-p95-seconds"] == "0.15"
    assert all(0.15 in drawn(copy, name) for name in ("load", "model", "service"))
    command = [sys.executable, "-c", EXPORT]
    exported = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout
    assert 'http_request_duration_highr_seconds_bucket{le="0.15"}' in exported


EXPORT = """
from prometheus_client import CollectorRegistry, generate_latest
from app.metrics import HttpMetrics
registry = CollectorRegistry()
HttpMetrics(registry)
print(generate_latest(registry).decode())
"""


@pytest.mark.slow
def test_the_other_numbers_are_carried_too(copy: Path, run: Run) -> None:
    replace(
        copy / "monitoring/objectives.yaml",
        ("period_days: 30", "period_days: 28"),
        ("availability: 0.999", "availability: 0.9995"),
        ("share: 0.99}", "share: 0.95}"),
        ("for: 2m, long: 1h, short: 5m, factor: 14.4", "for: 3m, long: 2h, short: 10m, factor: 8"),
        ("error_share: 0.01", "error_share: 0.02"),
        ("rejected_share: 0.2", "rejected_share: 0.3"),
        ("alert: 0.2", "alert: 0.25"),
        ("alert: 180", "alert: 200"),
    )
    assert run("monitoring.generate").returncode == 0

    rules = {
        (rule.get("record") or rule["alert"], rule.get("labels", {}).get("window")): rule
        for name in ("service", "drift")
        for group in yaml.safe_load((copy / f"monitoring/rules/{name}.yaml").read_text())["groups"]
        for rule in group["rules"]
    }
    assert "[28d]" in rules["espalier:http_slow:budget_left_ratio28d", None]["expr"]
    assert "[10m]" in rules["espalier:http_slow:ratio_rate10m", None]["expr"]
    for alert, budget in (("Availability", "0.0005"), ("Latency", "0.05")):
        burn = rules[f"Espalier{alert}BudgetBurn", "2h"]
        assert burn["for"] == "3m"
        assert f"ratio_rate10m > 8 * {budget}" in burn["expr"]
    assert "> 0.3\n" in rules["EspalierRejectedShare", None]["expr"]
    assert "psi:1h > 0.25)" in rules["EspalierFeatureDrift", "1h"]["expr"]
    assert "> 200 * 86400" in rules["EspalierModelTooOld", None]["expr"]
    assert arguments(copy)["max-error-share"] == "0.02"
    assert {0.3, 0.25, 200 * 86400, 0.02} <= drawn(copy, "model")
    assert {8, 6, 0.0005, 0.05, 0.02} <= drawn(copy, "service")
    assert 0.0005 in drawn(copy, "load")
    page = (copy / "docs/operations.md").read_text()
    assert "over 28 days: **99.95 %** of the answers are no errors (5xx), and **95 %**" in page
    assert "| 8 × | 4 days | 2 h | 10 min | page |" in page
    assert "More than 30 % of the requests for predictions are refused" in page
    assert "was above 0.25 in 4 of the last 6 hours" in page


@pytest.mark.slow
def test_a_change_by_hand_is_named(copy: Path, run: Run) -> None:
    replace(
        copy / "monitoring/rules/platform.yaml",
        (
            "for: 30m\n        labels: {severity: ticket, team: espalier}\n        annotations:\n          summary: What",
            "for: 20m\n        labels: {severity: ticket, team: espalier}\n        annotations:\n          summary: What",
        ),
    )
    changed = copy / "monitoring/dashboards/model.json"
    changed.write_text(changed.read_text().replace('"title"', '"titel"', 1))
    (copy / "monitoring/dashboards/old.json").write_text("{}")
    found = run("monitoring.generate", "--check")
    assert found.returncode == 1
    assert found.stderr == (
        "error: monitoring/cluster/rules.yaml, monitoring/dashboards/model.json, monitoring/dashboards/old.json: "
        "not what monitoring/ says; run `make dashboards`\n"
    )
    assert run("monitoring.generate").stdout.splitlines() == [
        "wrote monitoring/cluster/rules.yaml",
        "wrote monitoring/dashboards/model.json",
        "removed monitoring/dashboards/old.json",
    ]
    assert run("monitoring.generate", "--check").returncode == 0


@pytest.mark.slow
def test_a_place_that_has_gone_is_named(copy: Path, run: Run) -> None:
    replace(copy / "deploy/base/analysis.yaml", ("- name: max-p95-seconds", "- name: p95"))
    done = run("monitoring.generate")
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: deploy/base/analysis\.yaml: 0 places match .*max-p95-seconds.*\n", done.stderr
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seconds: 0.1,", "seconds: 0,", r"latency\.seconds: .*greater than 0"),
        ("availability: 0.999", "availability: 99.9", r"availability: .*less than 1"),
        ("long: 1h", "long: an hour", r"burn_rates\.0\.long: .*match pattern"),
        ("period_days: 30", "period: 30", "period_days: Field required"),
        ("latency: {", "latency: [", "while parsing"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    shutil.copy(ROOT / "monitoring/objectives.yaml", file)
    replace(file, (old, new))
    with pytest.raises(EspalierError, match=rf"^objectives\.yaml: {message}[^\n]*$"):
        objectives(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- 30\n", "the whole file: .*valid dictionary"), (b"\xff", "'utf-8' codec can't decode")],
)
def test_a_file_that_is_no_table_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    file.write_bytes(content)
    with pytest.raises(EspalierError, match=rf"^objectives\.yaml: {message}[^\n]*$"):
        objectives(file)


def test_the_service_counts_a_bucket_at_the_limit(number_model: Path, serve: Serve) -> None:
    with serve(number_model) as client:
        text = client.get("/metrics").text
    assert objectives().latency.seconds == LATENCY_LIMIT
    for name in ("http_request_duration_highr_seconds", "http_request_duration_seconds"):
        bounds = re.findall(rf'^{name}_bucket{{.*le="(.+?)"', text, re.M)
        assert not bounds or str(float(LATENCY_LIMIT)) in bounds
    assert "http_request_duration_highr_seconds_bucket" in text


def arguments(root: Path) -> dict[str, Any]:
    """Of the canary's analysis."""
    template = yaml.safe_load((root / "deploy/base/analysis.yaml").read_text())
    return {each["name"]: each.get("value") for each in template["spec"]["args"]}


def drawn(root: Path, dashboard: str) -> set[float]:
    """Every limit that a dashboard draws."""
    text = (root / f"monitoring/dashboards/{dashboard}.json").read_text()
    found: set[float] = set()

    def visit(each: Any) -> None:
        if isinstance(each, dict):
            found.update(
                step["value"] or 0 for step in each.get("steps", ()) if isinstance(each.get("steps"), list)
            )
            for value in each.values():
                visit(value)
        elif isinstance(each, list):
            for value in each:
                visit(value)

    visit(json.loads(text))
    return found
