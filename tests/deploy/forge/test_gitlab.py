"""What delivery does on GitLab, which deploy/rehearsal/gitlab.py plays."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.ci import alarm, comment
from deploy.errors import DeployError, ForgeError, GitLabError
from deploy.forge import GitLab
from deploy.forge.gitlab import harmless
from deploy.rehearsal import gitlab as played
from deploy.release.commands import require_check
from tests.deploy.conftest import Call
from tests.deploy.project import Project

COMMIT = "c" * 40


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[played.GitLab]:
    with played.GitLab() as server:
        for key, value in server.environment().items():
            monkeypatch.setenv(key, value)
        yield server
        assert server.errors == []


@pytest.fixture
def number(server: played.GitLab) -> int:
    GitLab().propose("change", "main", "Change", "")
    return 1


def test_a_merge_request_is_opened_once_and_then_brought_up_to_date(server: played.GitLab) -> None:
    address, new = GitLab().propose("promote/abc", "main", "Promote", "body, with 'quotes' and @file")
    assert (address, new) == ("https://gitlab.localhost/espalier-ml/espalier/-/merge_requests/1", True)
    assert GitLab().propose("promote/abc", "main", "Promote", "body, with 'quotes' and @file") == (
        address,
        False,
    )
    assert not any(each.startswith("PUT") for each in server.requests)
    assert GitLab().propose("promote/abc", "main", "Promote it", "another") == (address, False)
    (made,) = server.state.merge_requests
    assert (made["title"], made["description"]) == ("Promote it", "another")
    assert GitLab().propose("promote/abcd", "main", "Another", "")[1]


def test_one_that_somebody_else_opens_in_between_is_found(
    server: played.GitLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([None])
    real = GitLab._open

    def late(self: GitLab, branch: str, base: str) -> object:
        for answer in answers:
            real(self, branch, base)
            GitLab()._send("POST", "merge_requests", source_branch=branch, target_branch=base, title="Theirs")
            return answer
        return real(self, branch, base)

    monkeypatch.setattr(GitLab, "_open", late)
    assert GitLab().propose("promote/abc", "main", "Promote", "")[1] is False
    (made,) = server.state.merge_requests
    assert made["title"] == "Promote"


def test_a_merge_request_of_a_fork_is_not_taken_for_ours(server: played.GitLab, number: int) -> None:
    server.state.merge_requests[0]["source_project_id"] = 99
    server.state.merge_requests[0]["source_branch"] = "promote/abc"
    assert GitLab()._open("promote/abc", "main") is None


def test_one_comment_is_written_and_then_written_again(server: played.GitLab, number: int) -> None:
    for text in ("first", "second", "second"):
        address = comment.post(number, "reproduce", text)
    (made,) = server.state.notes
    assert made["body"] == "<!-- espalier:reproduce -->\nsecond"
    assert address.endswith(f"/-/merge_requests/1#note_{made['id']}")
    assert sum(each.startswith("PUT") for each in server.requests) == 1


def test_it_is_found_among_many_and_what_a_person_wrote_is_left_alone(
    server: played.GitLab, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.tokens = {"person": "mallory", "a-token": "project_7_bot"}
    monkeypatch.setenv("GITLAB_TOKEN", "person")
    comment.post(number, "reproduce", "not the bot")
    monkeypatch.setenv("GITLAB_TOKEN", "a-token")
    comment.post(number, "reproduce", "mine")
    for index in range(130):
        server.state.notes.append({**server.state.notes[0], "id": index, "body": "other"})
    comment.post(number, "reproduce", "mine, newer")
    assert [each["body"].splitlines()[-1] for each in server.state.notes[:2]] == [
        "not the bot",
        "mine, newer",
    ]


@given(st.lists(st.sampled_from(["/merge", "/close x", " /assign @me", "a", "", "`", "/", "\t/label"])))
def test_no_line_is_a_command(lines: list[str]) -> None:
    text = "\n".join(lines)
    shown = harmless(text)
    assert not re.search(r"^\s*/\w", shown, re.MULTILINE)
    assert shown.replace("\\/", "/") == text
    assert harmless(shown) == shown


def test_the_latest_run_of_a_job_counts(server: played.GitLab) -> None:
    assert GitLab().check(COMMIT, "gate") == []
    server.add_status(COMMIT, "gate", "failed")
    server.add_status(COMMIT, "other")
    with pytest.raises(DeployError, match="'gate' at cccccccccccc is not green: failed"):
        require_check("gate", COMMIT)
    server.add_status(COMMIT, "gate")
    require_check("gate", COMMIT)


@pytest.mark.parametrize("status", ["running", "failed"])
def test_one_issue_for_as_long_as_it_fails(server: played.GitLab, status: str) -> None:
    def tell(status: str, **jobs: str) -> str:
        return alarm.tell(server.add_pipeline(status, name="retrain", **jobs))

    assert tell("success", train="success", drift="allowed") == "nothing to tell"
    assert tell(status, train="failed", propose="skipped").startswith("opened https://gitlab.localhost/")
    assert tell("failed").startswith("added to ")
    (issue,) = server.state.issues
    assert issue["title"] == "Workflow retrain fails"
    assert "`train` failed: https://gitlab.localhost/" in issue["description"]
    assert "no job could start (failed)" in server.state.notes[0]["body"]
    assert tell("canceled") == "nothing to tell"
    assert tell("success", train="success").startswith("closed ")
    assert issue["state"] == "closed"


def test_refusals_are_one_line_with_the_remedy(
    server: played.GitLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(match: str) -> None:
        with pytest.raises(GitLabError, match=match) as raised:
            GitLab().propose("a", "main", "t", "b")
        assert "\n" not in str(raised.value)

    server.tokens = {"right": "somebody"}
    refused("401 Unauthorized.*GITLAB_TOKEN must be")
    monkeypatch.delenv("GITLAB_TOKEN")
    refused("no token.*set GITLAB_TOKEN")
    monkeypatch.setenv("GITLAB_TOKEN", "right")
    monkeypatch.setenv("CI_PROJECT_ID", "8")
    refused("404 Project Not Found.*CI_PROJECT_ID")
    monkeypatch.setenv("CI_PROJECT_ID", str(played.PROJECT))
    with pytest.raises(GitLabError, match="title is missing"):
        GitLab().propose("a", "main", "", "b")
    with pytest.raises(GitLabError, match="can't use same project/branch"):
        GitLab().propose("main", "main", "t", "b")
    monkeypatch.setenv("CI_API_V4_URL", "http://127.0.0.1:1/api/v4")
    refused("cannot be reached")
    monkeypatch.setenv("CI_API_V4_URL", "file:///etc")
    refused("no address of its API")
    with pytest.raises(ForgeError, match="GitHub alone"):
        GitLab().artifact(1, "fork", 10)
    assert GitLab.without_token.endswith("environment pipeline)")


@pytest.mark.slow
def test_a_release_is_promoted_and_rolled_back_by_merge_requests(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/releasing.md, with merge requests in place of pull requests."""
    with played.GitLab(origin=project.origin) as gitlab:
        for key, value in gitlab.environment().items():
            monkeypatch.setenv(key, value)
        project.staged(1)
        reason = ("--without-evidence", "a test has no cluster")
        done = project.me.release("promote", "--pull-request", *reason)
        assert "opened https://gitlab.localhost/espalier-ml/espalier/-/merge_requests/1" in done.out, done.err
        again = project.me.release("promote", "--pull-request", *reason)
        assert "already open:" in again.out
        gitlab.merge(1, by="Grace Hopper")
        first = project.runs("production")
        project.staged(2)
        assert project.me.release("promote", "--pull-request", *reason).status == 0
        gitlab.merge(2, by="Grace Hopper")
        assert project.runs("production") != first
        assert project.me.release("rollback", "--pull-request").status == 0
        gitlab.merge(3)
        assert project.runs("production") == first
        subprocess.run(["git", "-C", str(project.me.root), "fetch", "-q"], check=True)
        shown = project.me.release("status").out
        assert re.search(r"production .* Reviewer +#3", shown), shown
        assert gitlab.errors == []
