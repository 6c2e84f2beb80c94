from __future__ import annotations

from pathlib import Path

import pytest

from deploy.ci import alarm
from tests.deploy.ci.actions import GitHubActions
from tests.deploy.conftest import Call

TITLE = "Workflow release fails"


@pytest.mark.slow
def test_one_issue_for_as_long_as_it_fails(github: GitHubActions, call: Call, tmp_path: Path) -> None:
    def tell(conclusion: str, **jobs: str) -> str:
        run = github.add_ended_run("release", conclusion, "workflow_run", **jobs)
        done = call(alarm.main, tmp_path, "--run", str(run))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert tell("success", check="success", build="skipped") == "nothing to tell\n"
    assert tell("failure", check="success", stage="failure", build="timed_out").startswith("opened ")
    assert tell("startup_failure").startswith("added to ")
    (issue,) = github.issues
    assert issue["title"] == TITLE
    assert f"`build`, `stage` failed: {github.runs[1]['html_url']}" in issue["body"]
    (comment,) = github.state.comments
    assert comment["body"] == f"Again: no job could start (startup_failure): {github.runs[2]['html_url']}"
    assert tell("cancelled", build="cancelled") == "nothing to tell\n"
    assert issue["state"] == "open"
    assert tell("success", check="success").startswith("closed ")
    assert issue["state"] == "closed"
    assert tell("timed_out", build="timed_out").startswith("opened ")
    assert len(github.issues) == 2


@pytest.mark.slow
def test_other_issues_are_left_alone(github: GitHubActions) -> None:
    alarm.tell(github.add_ended_run("verify", "failure", scratch="failure"))
    github.issues.append({**github.issues[0], "number": 500, "title": TITLE, "user": {"type": "User"}})
    assert alarm.tell(github.add_ended_run("release", "success")) == "nothing to tell"
    # Its jobs are others after a push, so they do not speak for the scheduled ones.
    assert (
        alarm.tell(github.add_ended_run("verify", "success", "push", current="success")) == "nothing to tell"
    )
    assert {each["state"] for each in github.issues} == {"open"}


def test_a_run_that_github_does_not_have_is_one_line(
    github: GitHubActions, call: Call, tmp_path: Path
) -> None:
    done = call(alarm.main, tmp_path, "--run", "7")
    assert done.returncode == 1
    assert done.stderr.startswith("error: GitHub: Not Found (HTTP 404)")
