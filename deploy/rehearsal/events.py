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


def pull_request(
    number: int, branch: str, head: str, base: str, *, author: str = "engineer", owner: str = OWNER
) -> dict[str, Any]:
    """A push of the engineer to a pull request's branch, whoever opened it; `owner` has the repository of the branch."""
    return {
        "action": "synchronize",
        "number": number,
        "pull_request": {
            "number": number,
            "state": "open",
            "draft": False,
            "title": branch,
            "user": {"login": author, "type": "Bot" if author.endswith("[bot]") else "User"},
            "head": {"ref": branch, "sha": head, "repo": _repository(owner)},
            "base": {"ref": DEFAULT_BRANCH, "sha": base, "repo": _repository()},
        },
        "repository": _repository(),
        "sender": {"login": "engineer", "type": "User"},
    }


def merge_group(head: str, base: str) -> dict[str, Any]:
    branch = f"refs/heads/gh-readonly-queue/{DEFAULT_BRANCH}/pr-1-{base}"
    group = {
        "head_sha": head,
        "head_ref": branch,
        "base_sha": base,
        "base_ref": f"refs/heads/{DEFAULT_BRANCH}",
    }
    return {"action": "checks_requested", "merge_group": group, "repository": _repository()}


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


def _repository(owner: str = OWNER) -> dict[str, Any]:
    return {
        "id": 1,
        "name": NAME,
        "full_name": f"{owner}/{NAME}",
        "owner": {"login": owner, "id": 1},
        "html_url": f"https://github.com/{owner}/{NAME}",
        "default_branch": DEFAULT_BRANCH,
        "private": False,
        "visibility": "public",
        "fork": False,
    }
