"""What a promotion asks of staging, answered by a real Prometheus that holds the metrics of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import ReleaseError
from deploy.release import evidence
from deploy.release.evidence import Evidence
from monitoring.prometheus import Prometheus
from tests.deploy import project as projects
from tests.deploy.project import Project
from tests.deploy.prometheus import Series, serving

pytestmark = pytest.mark.slow

DIGEST, FORMER = (f"sha256:{digit * 64}" for digit in "12")
MINUTES = 30.0

Sample = tuple[str, dict[str, str], float]


def pod(model: str, number: int, digest: str = DIGEST, minutes: float = 45, ready: int = 1) -> list[Sample]:
    """The series of kube-state-metrics on one pod."""
    name = {"namespace": "espalier-staging", "pod": f"{model}-server-5d9c7b-{number}"}
    return [
        (
            "kube_pod_container_info",
            {**name, "container": "espalier", "image_spec": f"registry.example.com/espalier@{digest}"},
            1,
        ),
        ("kube_pod_status_ready", {**name, "condition": "true"}, ready),
        ("kube_pod_status_ready", {**name, "condition": "false"}, 1 - ready),
        ("kube_pod_created", name, time.time() - minutes * 60),
    ]


def rollout(model: str, phase: str) -> Sample:
    return ("rollout_info", {"namespace": "espalier-staging", "name": f"{model}-server", "phase": phase}, 1)


def alert(name: str, severity: str, **labels: str) -> Sample:
    return ("ALERTS", {"alertname": name, "alertstate": "firing", "severity": severity, **labels}, 1)


def series() -> Series:
    """Models in every state; all but `good` lack something."""
    staging = {"environment": "staging"}
    samples: list[Sample] = [
        *pod("good", 1),
        *pod("good", 2, minutes=40),
        # A pod that is not ready serves nothing.
        *pod("good", 3, FORMER, ready=0),
        rollout("good", "Healthy"),
        alert("EspalierLatency", "ticket", model="good", **staging),
        alert("EspalierNotReady", "page", model="good", environment="production"),
        # Another model, whose name begins like the first one's.
        *pod("good-server-2", 1, FORMER),
        *pod("mixed", 1),
        *pod("mixed", 2, FORMER),
        rollout("mixed", "Progressing"),
        *pod("young", 1, minutes=10),
        rollout("young", "Healthy"),
        *pod("aborted", 1, FORMER),
        rollout("aborted", "Abort"),
        *pod("pages", 1),
        rollout("pages", "Healthy"),
        alert("EspalierNotReady", "page", model="pages", **staging),
        *pod("plain", 1),
        (
            "kube_deployment_status_condition",
            {
                "namespace": "espalier-staging",
                "deployment": "plain-server",
                "condition": "Available",
                "status": "true",
            },
            1,
        ),
    ]
    now = int(time.time())
    return {(name, tuple(labels.items())): [(now - 5, value)] for name, labels, value in samples}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(series(), tmp_path_factory.mktemp("prometheus")) as server:
        yield server.address


def collected(address: str, model: str, minutes: float = MINUTES) -> dict[str, Evidence]:
    with Prometheus(address) as server:
        found = evidence.collect(server, "staging", model, DIGEST, minutes)
    names = ("image", "canary", "time", "alerts")
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("model", ["good", "plain"])
def test_all_that_is_asked_is_there(address: str, model: str) -> None:
    found = collected(address, model)
    assert all(each.met for each in found.values()), found


@pytest.mark.parametrize(
    ("model", "missing", "said"),
    [
        ("mixed", {"image", "canary"}, "1 of 2 ready pods run it"),
        ("young", {"time"}, "its oldest pod is 10 minutes old"),
        ("aborted", {"image", "canary", "time"}, "the rollout is Abort"),
        ("pages", {"alerts"}, "EspalierNotReady"),
        ("nowhere", {"image", "canary", "time"}, "Prometheus knows no rollout nowhere-server"),
    ],
)
def test_what_is_missing_is_named(address: str, model: str, missing: set[str], said: str) -> None:
    found = collected(address, model)
    assert {name for name, each in found.items() if not each.met} == missing
    assert said in {each.found for each in found.values()}


def test_the_time_is_set_in_a_file(tmp_path: Path) -> None:
    assert evidence.minutes(projects.ROOT) > 0
    (tmp_path / "deploy").mkdir()
    for text in (
        "",
        "minutes: soon\n",
        "minutes: -1\n",
        "minutes: true\n",
        "minutes: .inf\n",
        "[",
        "minutes:\n",
    ):
        (tmp_path / evidence.SETTINGS).write_text(text)
        with pytest.raises(ReleaseError, match=r"deploy/promotion\.yaml must have `minutes`"):
            evidence.minutes(tmp_path)


# The command.


@pytest.fixture
def project(project: Project) -> Project:
    """With a release in staging."""
    project.staged(1)
    project.me.commit("Ask for half an hour", {evidence.SETTINGS: "minutes: 30\n"})
    return project


def test_without_evidence_there_is_no_promotion_but_for_a_reason(project: Project, address: str) -> None:
    nobody = project.me.release("promote")
    assert nobody.status == 1
    assert "give --prometheus or PROMETHEUS_URL, or --without-evidence REASON" in nobody.err
    refused = project.me.release("promote", "--prometheus", address)
    assert refused.status == 1
    assert "is not ready for production; missing: staging runs this image alone (0 of 0" in refused.err
    gone = project.me.release("promote", "--prometheus", "http://127.0.0.1:9")
    assert gone.status == 1
    assert "there is no evidence of how staging does" in gone.err
    assert project.me.release("promote", "--without-evidence", " ").status == 2
    for way in ([], ["--prometheus", address], ["--prometheus", "http://127.0.0.1:9"]):
        done = project.me.release(
            "promote", *way, "--branch", "mine", "--without-evidence", "a fix that\ncannot wait"
        )
        assert (done.status, done.err) == (0, "")
        message = project.me.git("log", "-1", "--format=%(trailers:key=Espalier-Without-Evidence)", "mine")
        assert message == "Espalier-Without-Evidence: a fix that cannot wait"


def test_with_evidence_no_reason_is_needed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = project.runs("staging").digest
    now = int(time.time())
    samples = [*pod("iris", 1, digest), rollout("iris", "Healthy")]
    held = {(name, tuple(labels.items())): [(now - 5, value)] for name, labels, value in samples}
    with serving(held, tmp_path) as server:
        monkeypatch.setenv("PROMETHEUS_URL", server.address)
        done = project.me.release("promote", "--branch", "mine")
    assert (done.status, done.err) == (0, "")
    assert "Without-Evidence" not in project.me.git("log", "-1", "--format=%B", "mine")
