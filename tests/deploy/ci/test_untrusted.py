"""A fork's artifact is data: nothing in it decides where it is posted, and nothing in it is rendered."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.ci import comment, untrusted
from deploy.errors import DeployError, GitHubError
from tests.deploy.ci.actions import GitHubActions
from tests.e2e.clone import ROOT

STEP = [sys.executable, "-S", "-m", "deploy.ci.untrusted"]
COMMIT = "0123456789" * 4
RUN = 55


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return content.getvalue()


def command(
    head: str = COMMIT, owner: str = "somebody", branch: str = "main"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STEP, "--run", str(RUN), "--head", head, "--owner", owner, "--branch", branch],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_comment_is_posted_to_the_pull_request_of_the_runs_commit(github: GitHubActions) -> None:
    github.open_fork_pull(1, "other", "main", "f" * 40)
    github.open_fork_pull(2, "somebody", "main", COMMIT)
    github.open_fork_pull(3, "somebody", "else", COMMIT)
    github.add_artifact(RUN, "fork", archive({"comment.md": b"All is well.\n", "pr-number": b"1"}))
    done = command()
    assert done.returncode == 0, done.stderr
    (made,) = github.state.comments
    assert made["issue"] == 2
    assert "```text\nAll is well.\n```" in made["body"]
    assert COMMIT[:10] in made["body"]


def test_a_newer_push_or_a_closed_pull_request_gets_nothing(github: GitHubActions) -> None:
    github.open_fork_pull(2, "somebody", "main", "f" * 40)
    github.open_fork_pull(3, "somebody", "main", COMMIT)
    github.close(3)
    github.add_artifact(RUN, "fork", archive({"comment.md": b"x"}))
    assert "nothing to say" in command().stdout
    assert github.state.comments == []


def test_a_branch_with_a_strange_name_finds_only_its_own(github: GitHubActions) -> None:
    """GitHub heeds no head that it does not understand, and lists all; none of those is taken."""
    github.open_fork_pull(1, "other", "main", COMMIT)
    assert untrusted.find("", "main&head=other:main", COMMIT) is None
    assert untrusted.find("other", "ma?in#", COMMIT) is None
    assert untrusted.find("other", "main", COMMIT) == 1


def test_a_run_without_an_artifact_says_nothing(github: GitHubActions) -> None:
    github.open_fork_pull(2, "somebody", "main", COMMIT)
    github.add_artifact(RUN, "something", archive({"comment.md": b"x"}))
    github.add_artifact(RUN + 1, "fork", archive({"comment.md": b"x"}))
    assert "left no comment" in command().stdout
    assert github.state.comments == []


def test_a_large_artifact_is_not_fetched(github: GitHubActions) -> None:
    github.open_fork_pull(2, "somebody", "main", COMMIT)
    github.add_artifact(RUN, "fork", b"", size=untrusted.LARGEST_ARCHIVE + 1)
    done = command()
    assert done.returncode == 1
    assert done.stderr == "error: the artifact has 1,000,001 bytes, and 1,000,000 are allowed\n"
    assert not any("zip" in each for each in github.requests)


def test_nor_is_more_read_than_was_said(github: GitHubActions) -> None:
    github.add_artifact(RUN, "fork", b"x" * (untrusted.LARGEST_ARCHIVE + 100_000), size=10)
    with pytest.raises(GitHubError, match="larger than"):
        untrusted.fetch(RUN)


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = archive({"comment.md": b"\0" * 50_000_000})
    assert len(bomb) < untrusted.LARGEST_ARCHIVE
    with pytest.raises(DeployError, match="more than 200,000 bytes"):
        untrusted.read(bomb)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"hello",
        archive({}),
        archive({"../comment.md": b"x"}),
        archive({"comment.md": b"x"})[:-30],
    ],
    # An archive holds the time, and would name its test after it.
    ids=["nothing", "two letters", "text", "empty", "elsewhere", "cut short"],
)
def test_what_is_no_archive_of_ours(content: bytes) -> None:
    with pytest.raises(DeployError, match="no archive with a comment"):
        untrusted.read(content)


def test_an_archive_with_a_broken_member() -> None:
    good = bytearray(archive({"comment.md": b"some text that is compressed " * 20}))
    good[45:60] = b"\xff" * 15
    with pytest.raises(DeployError, match="no archive with a comment"):
        untrusted.read(bytes(good))


@pytest.mark.parametrize(
    "text",
    [
        "```\n@everyone look\n```",
        "~~~\n</code></pre><img src=x onerror=alert(1)>",
        "`````` many ``````````",
        "\u202eevil\u200b text\x1b[31m",
        "line\r\n```\r\n@owner",
        "text\r```\r@owner",
    ],
)
def test_nothing_gets_out_of_the_block(text: str) -> None:
    shown = untrusted.present(text, COMMIT)
    block = re.search(r"^(`{3,})text\n(.*)\n\1\n\Z", shown, re.DOTALL | re.MULTILINE)
    assert block is not None
    fence, inside = block[1], block[2]
    assert fence not in inside
    assert "\r" not in inside
    assert not re.search("[\u200b-\u200f\u202a-\u202e\x1b]", inside)
    assert "@" not in shown[: block.start()]


@given(st.text(alphabet=st.sampled_from("`~ab\n\r\t@<>&\u2028 "), max_size=300))
def test_no_text_ends_the_block(text: str) -> None:
    lines = untrusted.present(text, COMMIT).split("\n")
    opening = next(line for line in lines if line.endswith("`text"))
    fence = opening.removesuffix("text")
    closing = [index for index, line in enumerate(lines) if line.strip().startswith(fence)]
    assert closing == [lines.index(opening), len(lines) - 2]


def test_a_long_text_still_ends_its_block(github: GitHubActions) -> None:
    github.open_fork_pull(2, "somebody", "main", COMMIT)
    github.add_artifact(RUN, "fork", archive({"comment.md": b"line\n" * 30_000}))
    assert command().returncode == 0
    body = github.state.comments[0]["body"]
    assert len(body) <= comment.LONGEST + 100
    assert body.endswith("…\n```\n")
    with pytest.raises(DeployError, match="nothing but backticks"):
        untrusted.present("`" * 100_000, COMMIT)


def test_a_head_that_is_no_commit() -> None:
    with pytest.raises(DeployError, match="no commit"):
        untrusted.find("somebody", "main", "HEAD; rm -rf /")
