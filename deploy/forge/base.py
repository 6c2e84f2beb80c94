"""The interface of a forge; `deploy.forge.current` gives the one that hosts the repository."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from deploy.errors import ForgeError

Json = dict[str, Any]
Conclusion = Literal["success", "failure", "other"]
ENDED: dict[str, Conclusion] = {
    # GitHub's words, then GitLab's; what is not here was cancelled, skipped or still runs.
    "success": "success",
    "failure": "failure",
    "timed_out": "failure",
    "startup_failure": "failure",
    "failed": "failure",
}
NUMBER = re.compile(r"Merge pull request #(?P<merged>\d+) |.*\([#!](?P<squashed>\d+)\)$")
"""A proposal's number in the subject of the commit that merged it. GitLab writes it where its templates say so."""

_OF_FORKS = "the result of a fork is fetched from GitHub alone: on GitLab it is in the fork's own pipeline"


@dataclass(frozen=True)
class EndedRun:
    """A run of a workflow, or a pipeline, whose jobs have ended."""

    name: str
    after_push: bool
    conclusion: Conclusion
    said: str
    """The conclusion in the forge's own word."""
    address: str
    failed: tuple[str, ...]
    """Names of the jobs that failed, sorted."""


class Forge(ABC):
    """A site that hosts the repository. Its proposals are pull requests or merge requests.

    Each method raises ForgeError if the forge refuses or cannot be reached: one line with what it said and the remedy.
    """

    pusher: tuple[str, str]
    """The user whose password a token is, and the variable that holds the token."""
    without_token: str
    """What a job lacks that may not push, for messages."""

    @abstractmethod
    def propose(self, branch: str, base: str, title: str, body: str) -> tuple[str, bool]:
        """Open the proposal to merge a branch into `base`, or update the open one; its address, and whether it is new."""

    @abstractmethod
    def comment(self, number: int, marker: str, body: str) -> str:
        """Write a comment on a proposal, or replace the one of ours whose first line is `marker`; gives its address."""

    @abstractmethod
    def check(self, commit: str, name: str) -> list[str]:
        """What the latest runs of a check say of a commit, `success` if it passed; empty before it began."""

    @abstractmethod
    def ended_run(self, number: int) -> EndedRun:
        """The result of a run."""

    @abstractmethod
    def find_issue(self, title: str, label: str) -> Json | None:
        """The open issue with this title and label that a program wrote; `number` and `address` are among its values."""

    @abstractmethod
    def open_issue(self, title: str, body: str, label: str) -> str:
        """Open an issue; gives its address."""

    @abstractmethod
    def comment_issue(self, number: int, body: str) -> None:
        """Write below an issue."""

    @abstractmethod
    def close_issue(self, number: int) -> None:
        """Close an issue."""

    # GitLab runs the pipeline of a fork in the fork, with the fork's own runners and variables, and keeps its artifacts there.

    def fork_proposal(self, owner: str, branch: str, head: str) -> int | None:  # noqa: ARG002
        """The number of the open proposal from a fork whose newest commit is `head`."""
        raise ForgeError(_OF_FORKS)

    def artifact(self, run: int, name: str, limit: int) -> bytes | None:  # noqa: ARG002
        """The archive that a run left under a name; None if it left none, an error if it is larger than `limit` bytes."""
        raise ForgeError(_OF_FORKS)
