"""Which forge a clone has, and the identities of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.git import git
from deploy import forge
from deploy.errors import DeployError, ForgeError
from deploy.forge import GitHub, GitLab, __main__, identity
from deploy.forge.gitlab import origin_of
from tests.deploy.conftest import Call
from tests.e2e.clone import ROOT

ROLE = "arn:aws:iam::111122223333:role/data"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose origin is on GitLab, outside of any CI."""
    for name in [*os.environ]:
        if name.startswith(("GIT_", "GH_", "GITHUB_", "GITLAB_", "CI_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("remote", "add", "origin", "https://gitlab.com/group/sub/project.git")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "variables", "expected"),
    [
        ("https://gitlab.com/group/project.git", {}, GitLab),
        ("git@gitlab.example.com:group/project.git", {}, GitLab),
        ("ssh://git@gitlab.example.com:2222/group/project", {}, GitLab),
        ("https://git.example.com/group/project", {"GITLAB_HOST": "git.example.com"}, GitLab),
        ("https://git.example.com/group/project", {}, GitHub),
        ("https://github.com/gitlab/gitlab", {}, GitHub),
        ("git@github.com:owner/name.git", {}, GitHub),
        ("/somewhere/gitlab/origin.git", {}, GitHub),
        ("https://gitlab.com/group/project", {"GITHUB_ACTIONS": "true"}, GitHub),
        ("https://github.com/owner/name", {"GITLAB_CI": "true"}, GitLab),
        ("https://gitlab.com/group/project", {"GH_REPO": "owner/name"}, GitHub),
    ],
)
def test_the_forge_is_that_of_the_job_or_of_the_address(
    clone: Path, monkeypatch: pytest.MonkeyPatch, address: str, variables: dict[str, str], expected: type
) -> None:
    git("remote", "set-url", "origin", address)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert type(forge.current()) is expected


def test_a_clone_without_an_origin_is_githubs(clone: Path) -> None:
    git("remote", "remove", "origin")
    assert origin_of() == ("", "")
    assert type(forge.current()) is GitHub


@pytest.mark.parametrize(
    ("address", "variable", "user"),
    [
        ("https://gitlab-ci-token:job-token@gitlab.com/group/project.git", "GITLAB_TOKEN", "oauth2"),
        ("https://github.com/owner/name", "GH_TOKEN", "x-access-token"),
    ],
)
def test_git_answers_with_the_token_and_no_file_holds_it(
    clone: Path, call: Call, address: str, variable: str, user: str
) -> None:
    git("remote", "set-url", "origin", address)
    for _ in range(2):
        done = call(__main__.main, clone, "push", **{variable: "a-secret"})
        assert done.returncode == 0, done.stderr
    host = address.split("/")[2].rpartition("@")[2]
    said = git(
        "credential",
        "fill",
        stdin=f"protocol=https\nhost={host}\n\n".encode(),
        environment={variable: "a-secret"},
    )
    assert f"username={user}\npassword=a-secret\n" in said
    text = (clone / ".git/config").read_text()
    assert "a-secret" not in text
    assert "job-token" not in text


def test_without_a_token_or_over_ssh_nothing_is_changed(clone: Path) -> None:
    before = (clone / ".git/config").read_text()
    with pytest.raises(ForgeError, match="GITLAB_TOKEN is not set"):
        identity.let_git_push("oauth2", "GITLAB_TOKEN")
    assert (clone / ".git/config").read_text() == before
    git("remote", "set-url", "origin", "git@gitlab.com:group/project.git")
    with pytest.raises(ForgeError, match="https://"):
        identity.let_git_push("HOME", "HOME")


def test_a_role_is_taken_with_the_tokens_of_gitlab_and_of_jenkins(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert identity.aws("") == ""
    with pytest.raises(DeployError, match="AWS_ID_TOKEN"):
        identity.aws(ROLE)
    with pytest.raises(DeployError, match="is not arn:aws"):
        identity.aws("data'; rm -rf /")
    monkeypatch.setenv("AWS_ID_TOKEN", "signed")
    script = f'identity=$({sys.executable} -m deploy.forge aws {ROLE}); eval "$identity"; env; cat "$AWS_WEB_IDENTITY_TOKEN_FILE"'
    done = subprocess.run(
        ["bash", "-ec", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"AWS_ROLE_ARN={ROLE}\n" in done
    assert done.endswith("signed")
    file = next(line for line in done.splitlines() if line.startswith("AWS_WEB_IDENTITY_TOKEN_FILE="))
    token = Path(file.partition("=")[2])
    assert token.stat().st_mode & 0o077 == 0
    token.unlink()
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/given")
    assert "AWS_WEB_IDENTITY_TOKEN_FILE=/given\n" in identity.aws(ROLE)
