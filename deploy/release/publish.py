"""Brings a change of an overlay to origin: directly to the branch that deploys, or as a pull request.

Nobody's push is overwritten. When another push came first, the change is decided, written and described again for the
new state, because a rebase would keep a message about the old one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from common.git import GitError, PassingError
from deploy import forge
from deploy.errors import ReleaseError
from deploy.git import Git, LostRaceError, pause

TRIES = 12


@dataclass(frozen=True)
class Edit:
    """The content of a commit: one file's new text, and the message."""

    path: str
    content: str
    message: str


def push(git: Git, branch: str, decide: Callable[[str], Edit | None], tries: int = TRIES) -> str | None:
    """Commit an edit on the tip of origin's branch and push it; repeat while other pushes come first.

    Args:
        git: the clone, whose working tree and branches stay unchanged.
        branch: a branch of origin.
        decide: gives the edit for a tip of the branch, or None if there is nothing to do.
        tries: number of pushes after which to give up.

    Returns:
        The commit that is now on origin, or None if there was nothing to do.

    Raises:
        ReleaseError: all tries failed, and origin has no commit of ours.
        GitError: origin refuses, and would again.
    """
    last: GitError | None = None
    for attempt in range(tries):
        tip = git.fetch(branch)
        edit = decide(tip)
        if edit is None:
            return None
        commit = git.commit_file(tip, edit.path, edit.content, edit.message)
        try:
            git.push(commit, branch)
        except (LostRaceError, PassingError) as error:
            last = error
            why = "somebody else was first" if isinstance(error, LostRaceError) else str(error)
            print(f"try {attempt + 1} of {tries}: {why}", file=sys.stderr)
            pause(attempt)
        else:
            return commit
    raise ReleaseError(f"gave up after {tries} tries, and nothing was released; the last: {last}")


def local_branch(git: Git, tip: str, branch: str, edit: Edit) -> str:
    """Write the edit as a branch of this clone, and give its commit."""
    existing = git.commit(f"refs/heads/{branch}")
    if existing is not None and _is_fresh(git, existing, tip, edit):
        return existing
    commit = git.commit_file(tip, edit.path, edit.content, edit.message)
    git.set_branch(branch, commit)
    return commit


def pull_request(
    git: Git, base: str, tip: str, branch: str, edit: Edit, title: str, body: str
) -> tuple[str, bool]:
    """Propose the edit as the pull request of this branch, and update the one that is open.

    Returns:
        Its address, and whether it is new.
    """
    for attempt in range(TRIES):
        existing = git.remote_tip(branch)
        if existing is not None and _is_fresh(git, existing, tip, edit):
            break
        commit = git.commit_file(tip, edit.path, edit.content, edit.message)
        try:
            git.replace(commit, branch, existing)
            break
        except (LostRaceError, PassingError) as error:
            print(f"try {attempt + 1} of {TRIES}: {error}", file=sys.stderr)
            pause(attempt)
    else:
        raise ReleaseError(f"cannot push the branch {branch}: gave up after {TRIES} tries")
    return forge.current().propose(branch, base, title, body)


def _is_fresh(git: Git, commit: str, tip: str, edit: Edit) -> bool:
    """Whether a branch's commit is this edit already, on top of the overlay's present state."""
    return (
        not git.contains(tip, commit)
        and git.read(commit, edit.path) == edit.content
        and git.run("log", "-1", "--format=%B", commit).strip() == edit.message.strip()
        and git.read(f"{commit}^", edit.path) == git.read(tip, edit.path)
        and git.contains(tip, f"{commit}^")
    )
