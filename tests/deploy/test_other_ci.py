"""The files of GitLab CI and Jenkins hold to the rules of the workflows; tests/e2e runs their steps."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.ci import touched
from deploy.rehearsal import jenkins
from deploy.yaml_loader import LOADER
from tests.e2e.clone import ROOT
from tests.tools import require

GITLAB = (ROOT / ".gitlab-ci.yml").read_text()
DOCUMENT: dict[str, Any] = yaml.load(GITLAB, LOADER)
KEYWORDS = {"default", "stages", "variables", "workflow"}
JOBS = {name: job for name, job in DOCUMENT.items() if name not in KEYWORDS and not name.startswith(".")}
JENKINS = (ROOT / "Jenkinsfile").read_text()
PAGE = (ROOT / "docs/ci-systems.md").read_text()
TRAINING = re.compile(
    r"deploy\.ci\.(reproduce|pipeline (bundle|scratch))|\.ci/(image|run)|make (repro|test|explore)"
)
WITH_TOKEN = {"pipeline", "release", "production"}
"""Environments of GitLab whose variables hold a token."""


def flat(node: Any) -> Iterator[str]:
    """The lines of a script; an anchor may add a list."""
    for each in node if isinstance(node, list) else [node]:
        if isinstance(each, list):
            yield from flat(each)
        else:
            yield str(each)


def scripts() -> Iterator[tuple[str, str, str]]:
    """Where, which shell, and what it runs."""
    for name, job in JOBS.items():
        before = job.get("before_script", DOCUMENT["default"]["before_script"])
        if "extends" in job:
            before = DOCUMENT[job["extends"]].get("before_script") or DOCUMENT[".images"]["before_script"]
        yield (
            f".gitlab-ci.yml: {name}",
            "bash",
            "\n".join(["set -eo pipefail", *flat(before), *flat(job["script"])]),
        )
    for step in jenkins.steps(JENKINS):
        if step.kind == "sh":
            yield f"Jenkinsfile: {step.stage}", "sh", step.text


def test_what_they_call_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for where, _, script in scripts():
        for target in re.findall(r"\bmake ([a-z-]+)", script):
            assert target in targets, f"{where}: make {target}"
        for module in re.findall(r"\bpython3? -m ([\w.]+)", script):
            assert importlib.util.find_spec(module) is not None, f"{where}: python -m {module}"
        for file in re.findall(r"(?<![\w/])\.ci/\w+", script):
            assert (ROOT / file).stat().st_mode & 0o100, f"{where}: {file}"


def test_they_call_what_the_workflows_call() -> None:
    """A command that only one system knows would be another way to production."""
    workflows = "".join(file.read_text() for file in (ROOT / ".github").rglob("*.yml"))
    known = set(re.findall(r"\bpython3? -m ([\w.]+)", workflows)) | {"deploy.forge"}
    for where, _, script in scripts():
        assert set(re.findall(r"\bpython3? -m ([\w.]+)", script)) <= known, where
    image = (ROOT / ".ci/image").read_text()
    assert set(re.findall(r"\bpython3? -m ([\w.]+)", image)) <= known


@pytest.mark.slow
def test_shellcheck_finds_nothing() -> None:
    require("shellcheck")
    for where, shell, script in scripts():
        # Variables that another job or the system sets.
        done = subprocess.run(
            ["shellcheck", "--shell", shell, "--exclude", "SC2154", "--format", "gcc", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        found = [line for line in done.stdout.splitlines() if "SC1091" not in line]
        assert not found, f"{where}: {found}"


def test_scripts_are_thin() -> None:
    for name, job in JOBS.items():
        assert len(list(flat(job["script"]))) <= 7, f"{name} belongs into deploy/ci"
    for step in jenkins.steps(JENKINS):
        assert len(step.text.strip().splitlines()) <= 8, f"{step.stage} belongs into deploy/ci"


def environment(job: dict[str, Any]) -> str | None:
    found = job.get("environment") or DOCUMENT.get(job.get("extends", ""), {}).get("environment")
    return found["name"] if found else None


def test_on_gitlab_no_training_runs_in_an_environment_with_a_token() -> None:
    for name, job in JOBS.items():
        script = "\n".join(flat(job["script"]))
        if TRAINING.search(script):
            assert environment(job) not in WITH_TOKEN, name
        if re.search(r"deploy\.(forge push|ci\.(comment|lockback|retrain|alarm)|release (?!mirror))", script):
            assert environment(job) in WITH_TOKEN, name
    assert {environment(job) for job in JOBS.values()} == {
        None,
        "mirror",
        "registry",
        "training",
        *WITH_TOKEN,
    }


def test_on_gitlab_what_writes_is_serialised_and_not_interrupted() -> None:
    for name in (
        "build",
        "stage",
        "promote",
        "rollback",
        "propose",
        "record",
        "alarm",
        "releasable",
        "mirror",
    ):
        job = JOBS[name]
        template = DOCUMENT.get(job.get("extends", ""), {})
        assert {**template, **job}["interruptible"] is False, name
    groups = {name: JOBS[name].get("resource_group") for name in ("build", "stage", "mirror", "propose")}
    assert groups == {"build": "release", "stage": "staging", "mirror": "mirror", "propose": "retrain"}
    assert DOCUMENT[".propose"]["resource_group"] == "production"
    assert DOCUMENT[".propose"]["environment"]["name"] == "production"


def test_releases_are_built_from_the_lock_alone() -> None:
    for name in ("build", "stage", "mirror", "promote", "rollback", "scratch"):
        job = JOBS[name]
        assert {**DOCUMENT.get(job.get("extends", ""), {}), **job}["cache"] == [], name


def test_they_have_the_jobs_that_a_change_can_affect() -> None:
    assert set(touched.JOBS) - {"image"} <= set(JOBS)
    for job in touched.JOBS:
        assert f"""env.TOUCHED.contains('"{job}"')""" in JENKINS, job
    assert '\\"image\\"' in "\n".join(flat(JOBS["container"]["script"]))


def test_their_variables_and_credentials_are_those_of_the_page() -> None:
    ours = re.compile(
        r"\$\{?((?:AWS|COSIGN|ESPALIER|GITLAB|MLFLOW|PROMETHEUS|REGISTRY|WANDB)_?[A-Z_]*|JOBS)\b"
    )
    text = GITLAB + JENKINS + "".join((ROOT / ".ci" / name).read_text() for name in ("image", "login"))
    for name in set(ours.findall(text)) - {"GITLAB_CI"}:
        assert f"`{name}`" in PAGE, name
    for credential in set(re.findall(r"(?:Id: |credentials\(|submitter )'(espalier-[a-z-]+)'", JENKINS)):
        assert f"`{credential}`" in PAGE, credential
    for name in JOBS:
        assert re.search(rf"`{name}`|TASK={name}\b|`TASK=(nightly|scratch)`", PAGE), name
    tasks = re.search(r"choices: \[(.*?)\]", JENKINS)
    assert tasks
    assert set(json.loads(f"[{tasks[1]}]".replace("'", '"'))) == set(DOCUMENT["variables"]["TASK"]["options"])


def test_what_is_said_to_be_executed_is_what_the_test_runs() -> None:
    """The comment at the top of the file, and the page."""
    test = (ROOT / "tests/e2e/test_gitlab.py").read_text()
    played = test[test.index("def test_a_change_goes") : test.index("def commit(")]
    ran = {name for name in JOBS if re.search(rf'"{name}"[,)]', played)}
    row = next(line for line in PAGE.splitlines() if line.startswith("| GitLab | `tests"))
    executed, rest = row.split(" | ")[1:3]
    assert set(re.findall(r"`(\w+)`", executed)) & set(JOBS) == ran - {"check", "test"}
    assert set(re.findall(r"`(\w+)`", rest)) & set(JOBS) == set(JOBS) - ran
