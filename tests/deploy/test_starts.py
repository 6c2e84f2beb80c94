"""Which jobs an event starts: act evaluates the conditions of the real workflow files, and runs the jobs that decide.

The steps of all other jobs are replaced by `true`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from common import overlays
from deploy.rehearsal import events, runner
from deploy.rehearsal.clone import commit_working_tree
from tests.tools import require

pytestmark = pytest.mark.slow
DECIDING = {"touched", "gate", "reproduced"}
RELEASE = overlays.path("production", "iris")
OVERLAY = "deploy/overlays/production/iris/kustomization.yaml"
CODE = "training/base/changed.py"
DEPENDABOT = "dependabot[bot]"
EVERY = {"touched", "check", "test", "manifests", "dashboards", "gate"}
Step = dict[str, Any]
Payload = Callable[[str, str], dict[str, Any]]


def _without_effect(steps: list[Step]) -> list[Step]:
    return [{"run": "true"}]


def _releasable(steps: list[Step]) -> list[Step]:
    """Ends as if a model were to be released."""
    return [{"id": "releasable", "run": 'printf \'release=true\\nmodels=["iris"]\\n\' >> "$GITHUB_OUTPUT"'}]


def _attesting(steps: list[Step]) -> list[Step]:
    """Those that depend on whether there are attestations; an action only says that it would run."""
    kept = [step for step in steps if "env.ATTEST" in step.get("if", "")]
    return [step if "run" in step else {"if": step["if"], "run": "echo ATTESTS"} for step in kept]


STEPS = {("release", "check"): _releasable, ("release", "build"): _attesting}


@dataclass(frozen=True)
class Repository:
    """An origin whose branches are BRANCHES, each with a change of one file, and a clone of it."""

    folder: Path
    clone: Path

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.clone, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def start(
        self,
        workflow: str,
        event: str,
        payload: Payload,
        branch: str,
        tmp_path: Path,
        variables: dict[str, str] | None = None,
        inputs: dict[str, str] | None = None,
    ) -> runner.Run:
        checkout = tmp_path / "checkout"
        shutil.copytree(self.clone, checkout)
        subprocess.run(["git", "checkout", "-q", branch], cwd=checkout, check=True)
        run = runner.run(
            checkout,
            workflow,
            event,
            payload(self.git("rev-parse", branch), self.git("rev-parse", "main")),
            variables=variables or {},
            secrets={},
            environment={
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"url.{self.folder / 'origin.git'}.insteadOf",
                "GIT_CONFIG_VALUE_0": events.ADDRESS,
                "GIT_CONFIG_GLOBAL": os.devnull,
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
            },
            folder=tmp_path / "run",
            inputs=inputs,
        )
        assert run.succeeded, "\n".join(run.failed or run.output)
        return run


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    for tool in ("act", "git"):
        require(tool)
    folder = tmp_path_factory.mktemp("starts")
    made = Repository(folder, folder / "clone")
    made.clone.mkdir()
    commit_working_tree(made.clone)
    # act copies the clone for each job.
    needed = {".github", "common", "deploy", "dvc.yaml"}
    made.git(
        "rm", "-rqf", *(each.name for each in made.clone.iterdir() if each.name not in {".git", *needed})
    )
    for workflow in (made.clone / runner.WORKFLOWS).glob("*.yml"):
        document = yaml.safe_load(workflow.read_text())
        for name, job in document["jobs"].items():
            if name not in DECIDING:
                job["steps"] = STEPS.get((workflow.stem, name), _without_effect)(job["steps"])
        # YAML 1.1 reads the key `on` as true.
        document["on"] = document.pop(True)
        workflow.write_text(yaml.safe_dump(document, sort_keys=False))
    made.git("commit", "-qam", "Leave the steps out")
    for branch, file in (("code", CODE), ("release", RELEASE), ("overlay", OVERLAY)):
        made.git("checkout", "-q", "-b", branch, "main")
        (made.clone / file).parent.mkdir(parents=True, exist_ok=True)
        with (made.clone / file).open("a") as opened:
            opened.write("# changed\n")
        made.git("add", "-A")
        made.git("commit", "-qm", f"Change {file}")
    made.git("checkout", "-q", "main")
    made.git("remote", "add", "origin", events.ADDRESS)
    subprocess.run(["git", "clone", "-q", "--bare", str(made.clone), str(folder / "origin.git")], check=True)
    return made


def pull(branch: str, author: str = "engineer", owner: str = events.OWNER) -> Payload:
    return lambda head, base: events.pull_request(1, branch, head, base, author=author, owner=owner)


def started(run: runner.Run) -> set[str]:
    return {name.partition(" (")[0] for name in run.jobs}


CI = [
    pytest.param("pull_request", pull("code"), "code", EVERY | {"image"}, id="own"),
    pytest.param("pull_request", pull("code", owner="stranger"), "code", EVERY | {"image-untrusted"}, id="fork"),
    pytest.param("pull_request", pull("code", DEPENDABOT), "code", EVERY | {"image-untrusted"}, id="dependabot"),
    pytest.param("merge_group", events.merge_group, "code", EVERY | {"image-untrusted"}, id="queue"),
    pytest.param("push", lambda head, base: events.push(base, head), "release", EVERY | {"image"}, id="main"),
    pytest.param("pull_request", pull("release"), "release", {"touched", "check", "manifests", "gate"}, id="promotion"),
    pytest.param("merge_group", events.merge_group, "release", {"touched", "check", "manifests", "gate"}, id="promotion-in-queue"),
    pytest.param("pull_request", pull("overlay"), "overlay", EVERY, id="overlay"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "payload", "branch", "jobs"), CI)
def test_ci(
    repository: Repository, tmp_path: Path, event: str, payload: Payload, branch: str, jobs: set[str]
) -> None:
    assert started(repository.start("ci", event, payload, branch, tmp_path)) == jobs


REPRODUCE = [
    pytest.param("pull_request", pull("code"), "code", {"reproduce", "record"}, id="own"),
    pytest.param("pull_request", pull("code", owner="stranger"), "code", {"fork"}, id="fork"),
    # The payload's sender is a person, who pushed to Dependabot's branch, or started its run again.
    pytest.param("pull_request", pull("code", DEPENDABOT), "code", {"fork"}, id="dependabot"),
    pytest.param("pull_request", pull("code", DEPENDABOT, "stranger"), "code", {"fork"}, id="dependabot-of-fork"),
    pytest.param("merge_group", events.merge_group, "code", {"queue"}, id="queue"),
    pytest.param("pull_request", pull("release"), "release", set(), id="promotion"),
    pytest.param("pull_request", pull("release", DEPENDABOT), "release", set(), id="nothing-of-the-pipeline"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "payload", "branch", "jobs"), REPRODUCE)
def test_reproduce(
    repository: Repository, tmp_path: Path, event: str, payload: Payload, branch: str, jobs: set[str]
) -> None:
    run = repository.start("reproduce", event, payload, branch, tmp_path)
    assert started(run) == jobs | {"touched", "reproduced"}
    file = repository.clone / runner.WORKFLOWS / "reproduce.yml"
    permissions = {name: job["permissions"] for name, job in yaml.safe_load(file.read_text())["jobs"].items()}
    for name in jobs & {"fork", "queue"}:
        assert permissions[name] == {"contents": "read"}


@pytest.mark.parametrize(
    ("visibility", "variable", "attests"),
    [("public", "", True), ("internal", "", True), ("private", "", False), ("private", "true", True)],
)
def test_a_private_repository_is_released_without_attestations(
    repository: Repository, tmp_path: Path, visibility: str, variable: str, attests: bool
) -> None:
    def payload(head: str, base: str) -> dict[str, Any]:
        made = events.by_hand()
        made["repository"]["visibility"] = visibility
        return made

    variables = {"REGISTRY": "ghcr.io/espalier-ml/espalier", "ATTESTATIONS": variable}
    inputs = {"commit": repository.git("rev-parse", "main")}
    run = repository.start("release", "workflow_dispatch", payload, "main", tmp_path, variables, inputs)
    assert started(run) == {"check", "build", "stage"}
    assert sum("ATTESTS" in line for line in run.output) == (2 if attests else 0)
    assert run.says("No attestations for iris") is not attests
