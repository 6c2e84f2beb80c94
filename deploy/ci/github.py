"""GitHub's REST API through `gh api`, with GH_TOKEN and GH_REPO from the environment."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from deploy.ci import steps
from deploy.errors import GitHubError

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z")


def repository() -> str:
    """Owner and name.

    Raises:
        DeployError: GH_REPO is not set.
        GitHubError: it is no such name.
    """
    name = steps.environment("GH_REPO")
    if not _REPOSITORY.match(name):
        raise GitHubError(f"GH_REPO is {name!r}, not owner/name")
    return name


def get(path: str, **parameters: str | int) -> Any:
    return _json(path, "--method", "GET", *_fields(parameters))


def get_all(path: str, **parameters: str | int) -> list[Any]:
    """Every page of a list; `per_page` is chosen here."""
    pages = _json(path, "--method", "GET", "--paginate", "--slurp", *_fields({"per_page": 100, **parameters}))
    return [item for page in pages for item in page]


def get_bytes(path: str, limit: int) -> bytes:
    """A download.

    Raises:
        GitHubError: it is larger than `limit` bytes; no more than that is read.
    """
    process = subprocess.Popen(
        ["gh", "api", f"repos/{repository()}/{path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        content = process.stdout.read(limit + 1)
        if len(content) > limit:
            raise GitHubError(f"{path} is larger than {limit:,} bytes")
        _, errors = process.communicate()
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise _error(path, errors)
    return content


def send(method: str, path: str, **body: Any) -> Any:
    """POST, PATCH or PUT with a JSON body; strings go as they are, so that nothing in them means anything to gh."""
    return _json(path, "--method", method, "--input", "-", stdin=json.dumps(body).encode())


def _fields(parameters: dict[str, str | int]) -> list[str]:
    return [part for name, value in parameters.items() for part in ("--raw-field", f"{name}={value}")]


def _json(path: str, *arguments: str, stdin: bytes | None = None) -> Any:
    command = ["gh", "api", f"repos/{repository()}/{path}", *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    except FileNotFoundError:
        raise GitHubError("gh is not installed: https://cli.github.com, or `make setup`") from None
    if done.returncode:
        raise _error(path, done.stderr)
    try:
        return json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError:
        raise GitHubError(f"GitHub's answer to {path} is not JSON") from None


def _error(path: str, stderr: bytes) -> GitHubError:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return GitHubError(f"{path}: {lines[-1] if lines else 'gh says nothing'}")
