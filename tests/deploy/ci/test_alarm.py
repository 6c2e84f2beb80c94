from __future__ import annotations

import pytest

from deploy.ci import alarm
from tests.deploy.ci.actions import GitHubActions

TITLE = "dvc.lock does not hold on main"


@pytest.mark.slow
def test_one_issue_for_as_long_as_it_fails(github: GitHubActions) -> None:
    assert alarm.tell(TITLE, {"scratch": "success"}, "https://run/1") == "nothing to tell"
    assert alarm.tell(TITLE, {"scratch": "failure"}, "https://run/2").startswith("opened ")
    assert alarm.tell(TITLE, {"scratch": "failure"}, "https://run/3").startswith("added to ")
    (issue,) = github.issues
    assert issue["title"] == TITLE
    assert "`scratch` failed: https://run/2" in issue["body"]
    assert [each["body"] for each in github.state.comments] == ["Again: `scratch` failed: https://run/3"]
    assert alarm.tell(TITLE, {"scratch": "cancelled"}, "https://run/4") == "nothing to tell"
    assert issue["state"] == "open"
    assert alarm.tell(TITLE, {"scratch": "success"}, "https://run/5").startswith("closed ")
    assert issue["state"] == "closed"
    assert alarm.tell(TITLE, {"scratch": "failure"}, "https://run/6").startswith("opened ")
    assert len(github.issues) == 2


def test_other_issues_are_left_alone(github: GitHubActions) -> None:
    alarm.tell("something else", {"scratch": "failure"}, "https://run/1")
    github.issues.append({**github.issues[0], "number": 500, "title": TITLE, "user": {"type": "User"}})
    assert alarm.tell(TITLE, {"scratch": "success"}, "https://run/2") == "nothing to tell"
    assert {each["state"] for each in github.issues} == {"open"}
