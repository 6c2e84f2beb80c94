"""Who is told of what: amtool reads the configuration, follows its routes, and a real Alertmanager inhibits."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.tools import free_port, require

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
PRODUCTION = ("team=espalier", "environment=production", "namespace=espalier-production", "model=iris")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    return found


def test_alertmanager_understands_the_configuration() -> None:
    checked = subprocess.run(
        [require("amtool"), "check-config", CONFIGURATION], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("receivers", "labels"),
    [
        ("pages", ("alertname=EspalierAvailabilityBudgetBurn", "severity=page", *PRODUCTION)),
        ("tickets", ("alertname=EspalierAvailabilityBudgetBurn", "severity=ticket", *PRODUCTION)),
        ("pages", ("alertname=EspalierMetricsAbsent", "severity=page", "team=espalier")),
        ("tickets", ("alertname=EspalierRetrainingFailed", "severity=ticket", "team=espalier")),
        ("tickets", ("alertname=EspalierNew", "severity=unheard-of", "team=espalier")),
        ("retrain,tickets", ("alertname=EspalierFeatureDrift", "severity=ticket", *PRODUCTION)),
        ("retrain,tickets", ("alertname=EspalierClassDrift", "severity=ticket", *PRODUCTION)),
        ("tickets", ("alertname=EspalierConfidenceCollapse", "severity=ticket", *PRODUCTION)),
        (
            "tickets",
            ("alertname=EspalierFeatureDrift", "severity=ticket", "team=espalier", "environment=staging"),
        ),
        ("nobody", ("alertname=Watchdog", "severity=none")),
        ("nobody", ("alertname=EspalierFeatureDrift", "severity=page", "team=shop")),
    ],
)
def test_alerts_reach_their_receivers(receivers: str, labels: tuple[str, ...]) -> None:
    tested = subprocess.run(
        [
            *(require("amtool"), "config", "routes", "test"),
            *(f"--config.file={CONFIGURATION}", f"--verify.receivers={receivers}"),
            *labels,
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_reaches_somebody() -> None:
    for file in sorted((ROOT / "monitoring" / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    expected = "pages" if rule["labels"]["severity"] == "page" else "tickets"
                    drift = rule["alert"] in ("EspalierFeatureDrift", "EspalierClassDrift")
                    labels = tuple(f"{name}={value}" for name, value in rule["labels"].items())
                    test_alerts_reach_their_receivers(
                        f"retrain,{expected}" if drift else expected, (f"alertname={rule['alert']}", *labels)
                    )


def test_retraining_is_asked_for_no_oftener_than_alertmanager_remembers(settings: dict[str, Any]) -> None:
    (ours,) = settings["route"]["routes"]
    drift = ours["routes"][0]
    assert drift["receiver"] == "retrain"
    assert drift["group_by"] == ["environment", "model"]
    # --data.retention is 120 h unless told.
    assert int(drift["repeat_interval"].removesuffix("h")) < 120
    (hook,) = next(each for each in settings["receivers"] if each["name"] == "retrain")["webhook_configs"]
    assert hook["send_resolved"] is False


def test_the_inhibitions_have_no_circle(settings: dict[str, Any]) -> None:
    """Alerts that silence each other could all be silent."""
    silences: dict[str, set[str]] = {}
    for rule in settings["inhibit_rules"]:
        source, target = (_names(rule[f"{side}_matchers"]) for side in ("source", "target"))
        for each in source:
            silences.setdefault(each, set()).update(target)
    for start, first in silences.items():
        seen: set[str] = set()
        ahead = set(first)
        while ahead:
            seen |= ahead
            ahead = {further for each in ahead for further in silences.get(each, ())} - seen
        assert start not in seen


def test_the_objectives_are_silenced_by_their_own_pages_alone(settings: dict[str, Any]) -> None:
    for rule in settings["inhibit_rules"]:
        assert "alertname" in rule["equal"] or not any(
            "Budget" in name for name in _names(rule["target_matchers"])
        )


BAD = {"team": "espalier", "namespace": "espalier-production", "environment": "production", "model": "iris"}


@pytest.fixture(scope="module")
def running(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Alertmanager with our routes and inhibitions, that tells nobody."""
    program = shutil.which("alertmanager") or require("prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("alertmanager")
    silent = {name: value for name, value in settings.items() if name != "global"}
    silent["receivers"] = [{"name": each["name"]} for each in settings["receivers"]]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(silent))
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}", "--cluster.listen-address="], stdout=log, stderr=log
        )
        try:
            _wait_for(f"http://{address}/-/ready", process, folder / "log")
            yield f"http://{address}/api/v2/alerts"
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.parametrize(
    ("source", "target", "silenced"),
    [
        (("EspalierAvailabilityBudgetBurn", "page"), ("EspalierAvailabilityBudgetBurn", "ticket"), True),
        (("EspalierAvailabilityBudgetBurn", "page"), ("EspalierLatencyBudgetBurn", "ticket"), False),
        (("EspalierNotReady", "page"), ("EspalierTargetDown", "page"), True),
        (("EspalierTargetDown", "page"), ("EspalierNotReady", "page"), False),
        (("EspalierTargetDown", "page"), ("EspalierMetricsAbsent", "page"), True),
        (("EspalierMetricsAbsent", "page"), ("EspalierFeatureDrift", "ticket"), True),
        (("EspalierTargetDown", "page"), ("EspalierAvailabilityBudgetBurn", "page"), False),
    ],
)
def test_what_follows_from_another_is_silenced_of_its_model_and_environment_alone(
    running: str, source: tuple[str, str], target: tuple[str, str], silenced: bool
) -> None:
    # A namespace of its own keeps the cases apart.
    here = {**BAD, "namespace": f"{source[0]}-{target[0]}-{target[1]}"}
    places = [here, here | {"environment": "staging"}, here | {"model": "wine"}]
    first = {"alertname": source[0], "severity": source[1], **here}
    second = {"alertname": target[0], "severity": target[1]}
    sent = [{"labels": each} for each in (first, *(second | place for place in places))]
    assert httpx.post(running, json=sent).status_code == 200
    names = ("alertname", "severity", "environment", "model")
    states = {
        tuple(each["labels"][name] for name in names): each["status"]["state"]
        for each in httpx.get(running, params={"filter": f'namespace="{here["namespace"]}"'}).json()
    }
    assert (states[*target, "production", "iris"] == "suppressed") == silenced
    # Where it does not silence the other, the other may silence it.
    assert not (silenced and states[*source, "production", "iris"] == "suppressed")
    assert states[*target, "staging", "iris"] != "suppressed"
    assert states[*target, "production", "wine"] != "suppressed"


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Alertmanager does not get ready:\n{log.read_text()}")


def _names(matchers: list[str]) -> list[str]:
    found = [each.split('"')[1] for each in matchers if each.startswith("alertname")]
    return [name for each in found for name in each.split("|")]
