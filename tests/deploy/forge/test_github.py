"""GitHub is played by tests/deploy/github.py; the gh program that speaks with it is real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import GitHubError
from deploy.forge import github
from deploy.rehearsal.github import Method
from tests.deploy.github import FakeGitHub
from tests.tools import require

COMMIT = "c" * 40


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGitHub]:
    require("gh")
    with FakeGitHub("espalier-ml/espalier") as server:
        for key, value in server.environment(folder=tmp_path / "gh").items():
            monkeypatch.setenv(key, value)
        yield server
    assert server.errors == []


def test_a_pull_request_is_opened_once_and_then_brought_up_to_date(server: FakeGitHub) -> None:
    first, new = github.open_pull_request("promote/abc", "main", "Promote", "body, with 'quotes' and @file")
    assert (new, first["number"], first["html_url"]) == (
        True,
        1,
        "http://github.localhost/espalier-ml/espalier/pull/1",
    )
    same, new = github.open_pull_request("promote/abc", "main", "Promote", "body, with 'quotes' and @file")
    assert (new, same["number"]) == (False, 1)
    assert not any(each.startswith("PATCH") for each in server.requests)
    changed, new = github.open_pull_request("promote/abc", "main", "Promote it", "another body")
    assert (new, changed["number"], changed["title"]) == (False, 1, "Promote it")
    assert server.state.pulls[0]["body"] == "another body"
    assert server.state.pulls[0]["head"]["ref"] == "promote/abc"


@pytest.mark.slow
def test_other_pull_requests_are_not_taken_for_ours(server: FakeGitHub) -> None:
    github.open_pull_request("promote/abc", "main", "Promote", "")
    assert github.find_pull_request("promote/abcd", "main") is None
    assert github.find_pull_request("promote/abc", "other") is None
    server.close(1)
    assert github.find_pull_request("promote/abc", "main") is None
    again, new = github.open_pull_request("promote/abc", "main", "Promote", "")
    assert (again["number"], new) == (2, True)


def test_the_latest_run_of_a_check_counts(server: FakeGitHub) -> None:
    assert github.check_runs(COMMIT, "gate") == []
    server.add_check_run(COMMIT, "gate", "failure")
    server.add_check_run(COMMIT, "other", "success")
    server.add_check_run(COMMIT, "gate", None)
    (run,) = github.check_runs(COMMIT, "gate")
    assert (run["status"], run["conclusion"]) == ("in_progress", None)


def test_an_error_is_one_line_that_says_what_github_said(
    server: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fail_next = [(503, "No server is currently available")]
    with pytest.raises(GitHubError, match=r"No server is currently available.*503") as raised:
        github.find_pull_request("a", "main")
    assert "\n" not in str(raised.value)
    server.tokens = {"right": "somebody"}
    with pytest.raises(GitHubError, match=r"Bad credentials.*GH_TOKEN"):
        github.find_pull_request("a", "main")
    monkeypatch.setenv("GH_TOKEN", "right")
    monkeypatch.setenv("GH_REPO", "espalier-ml/another")
    with pytest.raises(GitHubError, match=r"Not Found.*GH_REPO must be right"):
        github.find_pull_request("a", "main")
    monkeypatch.delenv("GH_TOKEN")
    with pytest.raises(GitHubError, match="gh auth login"):
        github.find_pull_request("a", "main")


@pytest.mark.parametrize("name", ["owner", "owner/name/../other", "owner/na me"])
def test_the_repository_must_be_one(server: FakeGitHub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GH_REPO", name)
    with pytest.raises(GitHubError) as raised:
        github.get("pulls")
    assert "GH_REPO" in str(raised.value)
    assert "\n" not in str(raised.value)
    server.errors.clear()


def test_a_download_has_a_limit(server: FakeGitHub) -> None:
    with pytest.raises(GitHubError, match="pulls is larger than 1 bytes"):
        github.get_bytes("pulls", 1)
    assert github.get_bytes("pulls", 2) == b"[]"
    server.fail_next = [(410, "Artifact has expired")]
    with pytest.raises(GitHubError, match="Artifact has expired"):
        github.get_bytes("pulls", 1000)


def test_parameters_mean_nothing_to_gh(server: FakeGitHub) -> None:
    github.get("pulls", state="open", head="{owner}:a&state=closed#", per_page=1)
    (asked,) = (each for each in server.requests if "head=" in each)
    assert "%7Bowner%7D%3Aa%26state%3Dclosed%23" in asked


def test_a_refused_pull_request_says_why(
    server: FakeGitHub, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.origin = bare
    with pytest.raises(GitHubError, match=r"Validation Failed.*head: invalid"):
        github.open_pull_request("nowhere", "main", "t", "b")
    with pytest.raises(GitHubError, match="No commits between main and main"):
        github.open_pull_request("main", "main", "t", "b")


@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
def test_the_played_buttons_merge_as_githubs_do(server: FakeGitHub, bare: Path, method: Method) -> None:
    server.origin = bare
    pull, _ = github.open_pull_request("feature", "main", "Add b", "why")
    server.merge(pull["number"], method, by="Ada Lovelace")
    shown = _git(bare, "log", "-1", "--format=%an|%cn|%s|%P", "main").split("|")
    author, committer, subject, parents = shown
    assert _git(bare, "show", "main:b") == "b"
    assert _git(bare, "show", "main:later") == "later"
    assert (author, committer, subject, len(parents.split())) == {
        "merge": ("Ada Lovelace", "GitHub", "Merge pull request #1 from espalier-ml/feature", 2),
        "squash": ("Someone", "GitHub", "Add b (#1)", 1),
        "rebase": ("Someone", "Ada Lovelace", "more b", 1),
    }[method]
    assert server.open_pulls() == []
    assert server.state.pulls[0]["merged"]


@pytest.mark.slow
def test_lists_have_pages_and_comments_a_life(server: FakeGitHub) -> None:
    github.open_pull_request("feature", "main", "t", "b")
    for number in range(5):
        _gh("repos/{owner}/{repo}/issues/1/comments", "--raw-field", f"body=comment {number}")
    listed = _gh("--paginate", "repos/{owner}/{repo}/issues/1/comments?per_page=2", "--jq", ".[].body")
    assert listed.split("\n") == [f"comment {number}" for number in range(5)]
    first = server.state.comments[0]["id"]
    _gh(
        "--method",
        "PATCH",
        f"repos/{{owner}}/{{repo}}/issues/comments/{first}",
        "--raw-field",
        "body=changed",
    )
    assert server.state.comments[0]["body"] == "changed"
    _gh("--method", "DELETE", f"repos/{{owner}}/{{repo}}/issues/comments/{first}")
    assert len(server.state.comments) == 4


def test_what_nobody_plays_is_answered_404_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("gh")
    with FakeGitHub() as server:
        for key, value in server.environment(folder=tmp_path).items():
            monkeypatch.setenv(key, value)
        done = subprocess.run(
            ["gh", "api", "repos/{owner}/{repo}/teams"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "HTTP 404" in done.stderr
    assert server.errors == ["GET http://api.github.localhost/repos/espalier-ml/espalier/teams"]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A bare repository whose branch `feature` has two commits that `main` lacks, and the other way one."""
    work, bare = tmp_path / "work", tmp_path / "origin.git"
    work.mkdir()
    _git(work, "init", "-q", "-b", "main")
    _commit(work, "a", "a", "begin")
    _git(work, "checkout", "-q", "-b", "feature")
    _commit(work, "b", "first", "add b")
    _commit(work, "b", "b", "more b")
    _git(work, "checkout", "-q", "main")
    _commit(work, "later", "later", "meanwhile")
    _git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    return bare


def _commit(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    _git(folder, "add", name)
    _git(folder, "-c", "user.name=Someone", "-c", "user.email=s@localhost", "commit", "-qm", message)


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def _gh(*arguments: str) -> str:
    return subprocess.run(
        ["gh", "api", *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
