"""Payloads of the GitHub events that the rehearsal plays, with the fields that the workflows use."""

from __future__ import annotations

from typing import Any

OWNER = "espalier-ml"
NAME = "espalier"
REPOSITORY = f"{OWNER}/{NAME}"
ADDRESS = f"https://github.com/{REPOSITORY}"
DEFAULT_BRANCH = "main"


def push(before: str, after: str) -> dict[str, Any]:
    return {
        "ref": f"refs/heads/{DEFAULT_BRANCH}",
        "before": before,
        "after": after,
        "repository": _repository(),
        "head_commit": {"id": after},
    }


def pull_request(number: int, branch: str, head: str, base: str) -> dict[str, Any]:
    return {
        "action": "synchronize",
        "number": number,
        "pull_request": {
            "number": number,
            "state": "open",
            "draft": False,
            "title": branch,
            "user": {"login": "engineer", "type": "User"},
            "head": {"ref": branch, "sha": head, "repo": _repository()},
            "base": {"ref": DEFAULT_BRANCH, "sha": base, "repo": _repository()},
        },
        "repository": _repository(),
        "sender": {"login": "engineer", "type": "User"},
    }


def ci_completed(head: str, conclusion: str = "success") -> dict[str, Any]:
    """`workflow_run` of ci after a push to the default branch."""
    return {
        "action": "completed",
        "workflow_run": {
            "id": 1,
            "name": "ci",
            "event": "push",
            "conclusion": conclusion,
            "status": "completed",
            "head_branch": DEFAULT_BRANCH,
            "head_sha": head,
            "head_repository": _repository(),
            "repository": _repository(),
            "pull_requests": [],
        },
        "repository": _repository(),
    }


def by_hand() -> dict[str, Any]:
    """`workflow_dispatch`, without its inputs."""
    return {
        "ref": f"refs/heads/{DEFAULT_BRANCH}",
        "repository": _repository(),
        "sender": {"login": "engineer"},
    }


def _repository() -> dict[str, Any]:
    return {
        "id": 1,
        "name": NAME,
        "full_name": REPOSITORY,
        "owner": {"login": OWNER, "id": 1},
        "html_url": ADDRESS,
        "default_branch": DEFAULT_BRANCH,
        "private": False,
        "visibility": "public",
        "fork": False,
    }
