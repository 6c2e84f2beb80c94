"""Finds when a bundle and its data were made: the commits that brought them into the model's `dvc.lock`.

Only first parents count: on `main` that is the time of the merge. An output that was replaced and came back is as old as
its return.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.git import GitError
from common.lock import LOCK_FILE
from deploy.git import Git
from deploy.inputs import MODEL, hash_in_lock, place

DATA = "data/raw.parquet"
"""What `fetch` writes: the data as its source has it."""


@dataclass(frozen=True)
class Ages:
    """Seconds since 1970; None where the history does not show it."""

    model: int | None
    data: int | None
    missing: tuple[str, ...] = ()
    """Those whose age is older than the history of a shallow clone."""


def read_ages(root: Path, model: str | None = None) -> Ages:
    """The ages of the bundle and the data in HEAD's `dvc.lock` of a further model, or of the first if None.

    Raises:
        GitError: there is no commit, or its `dvc.lock` cannot be read.
    """
    git, lock = Git(root), place(LOCK_FILE, model)
    named = {"the model": MODEL, "its data": DATA}
    found: dict[str, int | None] = {}
    missing = []
    for what, path in named.items():
        try:
            found[path] = _since(git, lock, path)
        except _ShallowError:
            found[path] = None
            missing.append(what)
    return Ages(found[MODEL], found[DATA], tuple(missing))


class _ShallowError(GitError):
    """The answer is older than the history of a shallow clone."""


def _since(git: Git, lock: str, path: str) -> int | None:
    """The time of the commit that brought the output's present hash into the lock; None without such an output."""
    present = _hash(git, "HEAD", lock, path)
    if present is None:
        return None
    # git finds the few commits that add or remove the hash, so that only those are parsed. --diff-merges alone would
    # print patches.
    merges = ("--first-parent", "--diff-merges=first-parent", "--no-patch")
    options = (*merges, f"-S{present}", "--format=%H %ct")
    ends = _shallow_ends(git)
    for line in git.run("log", *options, "HEAD", "--", lock).splitlines():
        commit, time = line.split()
        if commit in ends:
            raise _ShallowError(path)
        if _hash(git, commit, lock, path) == present and _hash(git, f"{commit}^1", lock, path) != present:
            return int(time)
    return None


def _hash(git: Git, revision: str, lock: str, path: str) -> str | None:
    text = git.read(revision, lock)
    return None if text is None else hash_in_lock(text, f"{revision}:{lock}", path)


def _shallow_ends(git: Git) -> set[str]:
    """The commits whose parents this clone lacks."""
    if not git.shallow:
        return set()
    return set((git.top / git.run("rev-parse", "--git-path", "shallow").strip()).read_text("utf-8").split())
