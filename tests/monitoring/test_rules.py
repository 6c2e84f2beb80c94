"""The rules: promtool's own tests pass, cover everything, and notice when a rule is spoiled."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.yaml_loader import LOADER
from monitoring.generate import rule_files
from monitoring.objectives import Latency, objectives
from tests.pages import anchors
from tests.tools import require

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules"
FILES = ("service", "drift", "platform")
RUNBOOK = "https://github.com/espalier-ml/espalier/blob/main/docs/operations.md#"
PROMISED = {
    *("AvailabilityBudgetBurn", "LatencyBudgetBurn", "MetricsAbsent", "TargetDown", "NotReady", "Restarts"),
    *("MemoryNearLimit", "RejectedShare", "FeatureDrift", "ClassDrift", "ConfidenceCollapse", "ModelTooOld"),
    *(
        "OutOfSync",
        "RolloutAborted",
        "CanaryWaits",
        "ReleaseFailed",
        "RetrainingFailed",
        "DeliveryUnknown",
        "PredictionLogDropping",
        "FeatureStoreFailing",
    ),
}


# Each promtool takes seconds, and only a change of the rules or of their tests changes what it says.
PROMTOOL = pytest.mark.long(
    "monitoring/generate.py",
    "monitoring/objectives.yaml",
    "monitoring/rules",
    "tests/monitoring/test_rules.py",
)
TESTED = objectives().model_copy(update={"availability": 0.999, "latency": Latency(seconds=0.1, share=0.99)})
"""promtool's tests state when an alert fires under these objectives; another service may promise more or less."""


@cache
def _text(file: str) -> str:
    return rule_files(TESTED)[f"{file}.yaml"]


@cache
def _rules(kind: str) -> list[dict[str, Any]]:
    return [
        rule
        for file in FILES
        for group in yaml.load(_text(file), LOADER)["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


@cache
def _tests(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((RULES / "tests" / f"{file}.yaml").read_text(), LOADER)
    return found


def _cases(kind: str) -> list[dict[str, Any]]:
    return [case for file in FILES for test in _tests(file)["tests"] for case in test.get(kind, ())]


def _promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("promtool"), *arguments], check=False, capture_output=True, text=True)


def test_all_files_are_known() -> None:
    assert {file.stem for file in RULES.glob("*.yaml")} == set(FILES)
    assert {file.stem for file in (RULES / "tests").glob("*.yaml")} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_prometheus_understands_the_rules(file: str) -> None:
    checked = _promtool("check", "rules", RULES / f"{file}.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@PROMTOOL
@pytest.mark.parametrize("file", FILES)
def test_the_rules_do_what_their_tests_say(file: str, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / f"{name}.yaml").write_text(_text(name))
    (tmp_path / "tests").symlink_to(RULES / "tests")
    tested = _promtool("test", "rules", tmp_path / "tests" / f"{file}.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_promised_alerts_are_there() -> None:
    assert {rule["alert"] for rule in _rules("alert")} == {f"Espalier{name}" for name in PROMISED}


@pytest.mark.parametrize(
    "rule", _rules("alert"), ids=lambda rule: "-".join((rule["alert"], *rule["labels"].values()))
)
def test_each_alert_is_seen_silent_and_firing(rule: dict[str, Any]) -> None:
    """A firing case counts when it has the labels that the rule itself gives; promtool compares all of them."""
    cases = [case for case in _cases("alert_rule_test") if case["alertname"] == rule["alert"]]
    own = rule["labels"].items()
    assert any(not case["exp_alerts"] for case in cases), "never silent"
    assert any(own <= each["exp_labels"].items() for case in cases for each in case["exp_alerts"]), (
        "never fires"
    )


@pytest.mark.parametrize("name", sorted({rule["record"] for rule in _rules("record")}))
def test_each_recorded_series_has_a_value_in_a_test(name: str) -> None:
    cases = [c for c in _cases("promql_expr_test") if re.search(rf"{re.escape(name)}(?![\w:])", c["expr"])]
    assert any(case["exp_samples"] for case in cases)


@pytest.mark.parametrize(
    "rule", _rules("alert"), ids=lambda rule: "-".join((rule["alert"], *rule["labels"].values()))
)
def test_each_alert_says_what_a_person_needs(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["labels"]["team"] == "espalier"
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard"}
    assert rule["annotations"]["runbook_url"] == RUNBOOK + rule["alert"].lower()
    assert rule["alert"].lower() in anchors((ROOT / "docs" / "operations.md").read_text())
    assert re.match(r"/d/espalier-(service|model|delivery)(\?|$)", rule["annotations"]["dashboard"])


def test_each_runbook_has_its_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    told = set(re.findall(r"^### (Espalier\w+)$", text, re.MULTILINE))
    assert told == {rule["alert"] for rule in _rules("alert")}


TWO, QUIET, HIDDEN = "two versions, three pods", "a quiet service", "restarts, a failed scrape"
BURST, NINE, STORY = "errors of a kind", "nine failures", "twenty bad minutes"
FEW, DRIFT, SURE = "too few rows", "drift in four of six hours", "confidence falls"
STILL = "hours too quiet to judge"
MUTANTS = {
    # file, the test that must notice, what is replaced, by what
    "anybody's requests": ("service", TWO, 'http_requests_total{job="espalier"}', "http_requests_total"),
    "old counts are new": (
        "service",
        HIDDEN,
        "count_over_time(http_requests_total",
        "0 * count_over_time(http_requests_total",
    ),
    "first counts are lost": ("service", BURST, ") / 300", ") / 1e9"),
    "no guard against no traffic": (
        "service",
        QUIET,
        "(espalier:http_answers:rate5m > 0)",
        "espalier:http_answers:rate5m",
    ),
    "no guard in long windows": ("service", QUIET, "[1h]) > 0)", "[1h]))"),
    "NaN quantiles": ("service", QUIET, "[5m])\n          )) >= 0", "[5m])\n          ))"),
    "slow is what is fast": ("service", TWO, 'le="0.1"', 'le="0.25"'),
    "another objective": ("service", TWO, "/ 0.001\n", "/ 0.01\n"),
    "refusals of few requests": ("service", "a client sends", "* 300 >= 20", "* 300 >= 2"),
    "refusals at any share": ("service", "a client sends", "ratio_rate5m > 0.2", "ratio_rate5m > 0.6"),
    "no row may be lost": ("service", "the prediction log", "> 0.01", "> 0.001"),
    "floor": ("drift", "two versions", "0.001", "0.01"),
    "minimum of rows": ("drift", FEW, ">= 200", ">= 100"),
    "minimum for each bin": ("drift", FEW, ">= 10 * count", ">= 1 * count"),
    "versions mixed": (
        "drift",
        "two versions",
        "environment, model, model_version, feature, bin)",
        "environment, model, feature, bin)",
    ),
    "models mixed": ("drift", "one model of two", "environment, model, ", "environment, "),
    "budgets mixed": (
        "service",
        "one model of two",
        "(namespace, environment, model)",
        "(namespace, environment)",
    ),
    "pages of nobody": (
        "platform",
        "one model of two",
        "avg by (namespace, environment, model)",
        "avg by (namespace, environment)",
    ),
    "an application of the environment": (
        "platform",
        "one model of two",
        '"espalier-.+/.+[.](.+)"',
        '"espalier-.+/(.+)"',
    ),
    "bins without a reference": ("drift", FEW, " or espalier:feature_share:1h * 0", ""),
    "references without a bin": ("drift", FEW, " or espalier:feature_reference:ratio * 0", ""),
    "NaN shares": ("drift", FEW, ") > 0)", "))"),
    "a failed scrape": (
        "drift",
        "a restart",
        'last_over_time(model_feature_reference_ratio{job="espalier"}[5m])',
        'model_feature_reference_ratio{job="espalier"}',
    ),
    "three of six": ("drift", DRIFT, "0.2)[5h59m59s:1h]) >= 4", "0.2)[5h59m59s:1h]) >= 3"),
    "five of six": ("drift", DRIFT, "0.2)[5h59m59s:1h]) >= 4", "0.2)[5h59m59s:1h]) >= 5"),
    "seven windows": ("drift", DRIFT, "[5h59m59s:1h]", "[6h1m:1h]"),
    "three days of six": ("drift", STILL, ":24h > 0.2)[5h59m59s:1h]) >= 4", ":24h > 0.2)[5h59m59s:1h]) >= 3"),
    "five days of six": ("drift", STILL, ":24h > 0.2)[5h59m59s:1h]) >= 4", ":24h > 0.2)[5h59m59s:1h]) >= 5"),
    "days of the past": ("drift", STILL, ":24h > 0.2)[5h59m59s:1h]", ":24h > 0.2)[6h59m59s:1h]"),
    "a day of less drift": ("drift", STILL, ":24h > 0.2)", ":24h > 0.9)"),
    "a day of any drift": ("drift", STILL, ":24h > 0.2)", ":24h >= 0)"),
    "three hours judge": ("drift", STILL, ">= 0)[5h59m59s:1h]) >= 4", ">= 0)[5h59m59s:1h]) >= 3"),
    "five hours judge": ("drift", STILL, ">= 0)[5h59m59s:1h]) >= 4", ">= 0)[5h59m59s:1h]) >= 5"),
    "hours of the past": ("drift", STILL, ">= 0)[5h59m59s:1h]", ">= 0)[6h59m59s:1h]"),
    "minimum for each bin of a day": ("drift", FEW, ">= 20 * count", ">= 10 * count"),
    "less drift": ("drift", DRIFT, "> 0.2)", "> 0.9)"),
    "a new version's past": ("drift", SURE, ">= 360", ">= 1"),
    "confidence of few": ("drift", SURE, "increase1h >= 200\n        for", "increase1h >= 2\n        for"),
    "confidence": ("drift", SURE, "< 0.8 *", "< 0.5 *"),
    "age": ("drift", "a model of more", "> 180 *", "> 179 *"),
    "absent for a blink": ("platform", "one failed scrape", "for: 10m", "for: 0m"),
    "removed models are missed": (
        "platform",
        "a model that git no longer has",
        "espalier_delivery_up == 1",
        "espalier_delivery_up == 2",
    ),
    "an exporter that cannot read": (
        "platform",
        "a model that git no longer has",
        "espalier_delivery_up == 1",
        "espalier_delivery_up",
    ),
    "absence of everything": (
        "platform",
        "nothing at all",
        '\n          or\n          absent(up{job="espalier"})',
        "",
    ),
    "one of three is most": ("platform", "targets that", "< 0.5", "< 0.7"),
    "anybody's pods": ("platform", "pods that are not", ', pod=~".+-server-.+"', ""),
    "two restarts": ("platform", "restarts and memory", "> 2.5", "> 1.5"),
    "memory": ("platform", "restarts and memory", "> 0.9", "> 0.95"),
    "phases": ("platform", "Argo CD", 'phase=~"Abort|', 'phase=~"Paused|'),
    "a canary that goes on": ("platform", "what ends", 'phase="Paused"', 'phase=~"Paused|Progressing"'),
    "a short wait": ("platform", "what ends", "for: 30m", "for: 5m"),
    "any workflow": ("platform", "retraining failed", ', workflow="retrain"', ""),
    "an exporter that hangs": ("platform", "the delivery exporter hangs", "> 3600", "> 36000"),
    "an exporter that is gone": ("platform", "the delivery exporter is gone", "[1d])", "[1m])"),
}


@PROMTOOL
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_spoiled_rule_is_noticed(mutant: str, tmp_path: Path) -> None:
    file, test, old, new = MUTANTS[mutant]
    text = _text(file)
    assert old in text, "the rules no longer say this: change the mutant too"
    said = _spoiled(tmp_path, file, test, text.replace(old, new))
    assert "FAILED" in said
    assert "parse error" not in said


@PROMTOOL
@pytest.mark.parametrize(("file", "test"), sorted({mutant[:2] for mutant in MUTANTS.values()}))
def test_rules_that_are_not_spoiled_pass(file: str, test: str, tmp_path: Path) -> None:
    """Otherwise the spoiled ones would be noticed whatever they say."""
    said = _spoiled(tmp_path, file, test, _text(file))
    assert "SUCCESS" in said, said
    assert "FAILED" not in said


@PROMTOOL
def test_each_threshold_of_a_burn_rate_is_noticed(tmp_path: Path) -> None:
    """All at once, because the story that tells them apart is long."""
    text = _text("service")
    spoiled = re.sub(r"> ([\d.]+) \* (0\.0+1)", r"> \1 * 100 * \2", text)
    assert len(re.findall(r"\* 100 \* ", spoiled)) == 16
    said = _spoiled(tmp_path, "service", STORY, spoiled)
    for window in ("1h", "6h", "1d", "3d"):
        for name in ("EspalierAvailabilityBudgetBurn", "EspalierLatencyBudgetBurn"):
            assert re.search(rf'alertname="{name}".*window="{window}"', said), (name, window)


@PROMTOOL
def test_each_minimum_of_failures_is_noticed(tmp_path: Path) -> None:
    text = _text("service")
    said = _spoiled(tmp_path, "service", NINE, re.sub(r"\* 30 >= 10\n", "* 30 >= 1\n", text))
    for window in ("1h", "6h", "1d", "3d"):
        for name in ("EspalierAvailabilityBudgetBurn", "EspalierLatencyBudgetBurn"):
            assert re.search(rf'alertname="{name}".*window="{window}"', said), (name, window)


def _spoiled(folder: Path, file: str, test: str, rules: str) -> str:
    """What promtool says of one test with these rules in place of the real ones."""
    made = dict(_tests(file))
    made["tests"] = [each for each in made["tests"] if each["name"].startswith(test)]
    assert len(made["tests"]) == 1
    if test == DRIFT:
        # Its windows are hours; this is five times faster.
        made["evaluation_interval"] = "5m"
    (folder / "tests").mkdir()
    for each in FILES:
        (folder / f"{each}.yaml").write_text(rules if each == file else _text(each))
    (folder / "tests" / "test.yaml").write_text(yaml.safe_dump(made))
    tested = _promtool("test", "rules", folder / "tests" / "test.yaml")
    return tested.stdout + tested.stderr
