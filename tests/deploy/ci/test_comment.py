from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ci import comment
from deploy.errors import DeployError, GitHubError
from tests.deploy.ci.actions import GitHubActions
from tests.e2e.clone import BIN, ROOT

STEP = [sys.executable, "-S", "-m", "deploy.ci.comment"]


@pytest.fixture
def number(github: GitHubActions) -> int:
    github.open_fork_pull(7, "somebody", "main", "a" * 40)
    return 7


def test_one_comment_is_written_and_then_written_anew(
    github: GitHubActions, number: int, tmp_path: Path
) -> None:
    text = tmp_path / "comment.md"
    for content in ("first", "second"):
        text.write_text(content)
        done = subprocess.run(
            [*STEP, "--pull-request", str(number), "--marker", "reproduce", str(text)],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("http://github.localhost/")
    (made,) = github.state.comments
    assert made["body"] == "<!-- espalier:reproduce -->\nsecond"
    assert not any(each.startswith("DELETE") for each in github.requests)


def test_it_is_found_among_many(github: GitHubActions, number: int) -> None:
    comment.post(number, "reproduce", "mine")
    for index in range(130):
        github.state.comments.insert(0, {**github.state.comments[-1], "id": index, "body": "other"})
    comment.post(number, "reproduce", "mine, newer")
    assert len(github.state.comments) == 131
    assert github.state.comments[-1]["body"].endswith("mine, newer")


def test_the_same_text_is_not_written_again(github: GitHubActions, number: int) -> None:
    comment.post(number, "reproduce", "mine")
    comment.post(number, "reproduce", "mine")
    assert not any(each.startswith("PATCH") for each in github.requests)


def test_what_a_person_wrote_is_left_alone_whatever_it_says(github: GitHubActions, number: int) -> None:
    github.tokens = {"person": "mallory", "a-token": "github-actions[bot]"}
    os.environ["GH_TOKEN"] = "person"
    comment.post(number, "reproduce", "not the bot")
    os.environ["GH_TOKEN"] = "a-token"
    comment.post(number, "reproduce", "the bot")
    bodies = [(each["user"]["login"], each["body"].splitlines()[-1]) for each in github.state.comments]
    assert bodies == [("mallory", "not the bot"), ("github-actions[bot]", "the bot")]


def test_markers_do_not_mix(github: GitHubActions, number: int) -> None:
    comment.post(number, "one", "1")
    comment.post(number, "two", "2")
    assert len(github.state.comments) == 2
    with pytest.raises(DeployError, match="no marker"):
        comment.post(number, "a --> b", "x")


def test_text_means_nothing_to_gh(github: GitHubActions, number: int) -> None:
    """`gh api -f` reads @file and {owner}; what goes into a comment must come out as it is."""
    comment.post(number, "reproduce", "@/etc/passwd {owner} 7 true null")
    assert github.state.comments[0]["body"].endswith("@/etc/passwd {owner} 7 true null")


def test_a_long_one_is_cut_at_a_line_and_says_so(github: GitHubActions, number: int) -> None:
    comment.post(number, "reproduce", "line of text\n" * 10_000)
    body = github.state.comments[0]["body"]
    assert len(body) < 65_536
    assert body.endswith("line of text\n\n… too long for a comment: the rest is in the run's artifact.\n")


def test_github_says_no(github: GitHubActions, number: int) -> None:
    github.fail_next.append((403, "Resource not accessible by integration"))
    with pytest.raises(GitHubError, match="Resource not accessible"):
        comment.post(number, "reproduce", "x")
