"""Runs jobs of .gitlab-ci.yml through gitlab-ci-local, each in a clone of its own, as GitLab's runners would for a pipeline.

What jobs hand over goes through artifacts and dotenv reports, rules decide which jobs start, and GitLab's schema checks the file.
The jobs run on this machine: no container is made of `image`, and small programs in `programs/` take the place of some.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from common.git import git
from deploy import npm
from deploy.rehearsal.gitlab import PROJECT

ROOT = Path(__file__).parents[2]
_RESULT = re.compile(r"^ *(PASS|FAIL|WARN) +(\S+)")


@dataclass
class Pipeline:
    """The results of a pipeline."""

    succeeded: bool
    output: str
    jobs: dict[str, bool] = field(default_factory=dict)
    """Whether each job that ran succeeded."""

    def log(self, job: str) -> str:
        """What a job printed."""
        lines = (line.partition(" > ") for line in self.output.splitlines())
        return "\n".join(text for name, arrow, text in lines if arrow and name.strip() == job)


def program() -> Path:
    """gitlab-ci-local, which is installed into build/."""
    return npm.install(Path("deploy/pipelines"), ROOT) / "node_modules/.bin/gitlab-ci-local"


def merge_request(number: int, branch: str, base: str, *, fork: bool = False) -> dict[str, str]:
    """The variables of a pipeline for a merge request that leaves main at `base`."""
    return {
        "CI_PIPELINE_SOURCE": "merge_request_event",
        "CI_COMMIT_BRANCH": "",
        "CI_MERGE_REQUEST_IID": str(number),
        "CI_MERGE_REQUEST_PROJECT_ID": str(PROJECT),
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": str(PROJECT + fork),
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": branch,
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
    }


def of_main(checkout: Path, source: str = "push", **variables: str) -> dict[str, str]:
    """The variables of a pipeline of main, at the commit that is checked out."""
    author, message = git("log", "-1", "--format=%an <%ae>%x00%B", cwd=checkout).split("\0")
    return {
        "CI_PIPELINE_SOURCE": source,
        "CI_COMMIT_BRANCH": "main",
        "CI_COMMIT_AUTHOR": author,
        "CI_COMMIT_MESSAGE": message,
        **variables,
    }


def listed(checkout: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """When each job would start that the rules admit: on_success, always or manual; none if there is no pipeline."""
    # gitlab-ci-local reads no workflow:rules, so a job of its own has them.
    workflow = yaml.safe_load((checkout / ".gitlab-ci.yml").read_text(encoding="utf-8"))["workflow"]
    rules = [{key: rule[key] for key in ("if", "when") if key in rule} for rule in workflow["rules"]]
    probe = {"probe": {"script": ["true"], "rules": rules}}
    (checkout / "probe.yml").write_text(yaml.safe_dump(probe), encoding="utf-8")
    return _listed(checkout, variables) if _listed(checkout, variables, "--file", "probe.yml") else {}


def run(
    checkout: Path,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    *jobs: str,
) -> Pipeline:
    """Run the jobs that start by themselves, or those that are named.

    Args:
        checkout: a clone at the commit of the pipeline.
        variables: of the pipeline and the project.
        environment: added to the environment of every job.
        jobs: names; those that they need must be among them.
    """
    done = _call(checkout, variables, environment, *jobs)
    made = Pipeline(done.returncode == 0, done.stdout)
    for line in done.stdout.splitlines():
        if found := _RESULT.match(line):
            made.jobs[found[2]] = found[1] == "PASS"
    return made


def _listed(checkout: Path, variables: Mapping[str, str], *options: str) -> dict[str, str]:
    done = _call(checkout, variables, {}, "--list-csv", *options)
    if done.returncode:
        raise RuntimeError(done.stdout)
    lines = [line.split(";") for line in done.stdout.splitlines() if line.count(";") >= 5]
    return {line[0]: line[3] for line in lines if line[0] != "name"}


def _call(
    checkout: Path, variables: Mapping[str, str], environment: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    predefined = [name for name in variables if name.startswith(("CI_", "GITLAB_"))]
    options = ["--no-color", "--force-shell-executor", "--shell-isolation", "--no-artifacts-to-source"]
    options += ["--ignore-predefined-vars", ",".join(predefined)]
    for name, value in variables.items():
        options += ["--variable", f"{name}={value}"]
    git("remote", "set-head", "origin", "main", cwd=checkout)
    return subprocess.run(
        [str(program()), *options, *arguments],
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
