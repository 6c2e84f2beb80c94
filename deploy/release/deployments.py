"""What an environment ran and when, and what it can go back to: a fold over the commits of its overlay.

Nothing is stored beside git. Only first parents are followed, so a deployment has the date of its merge and not of the
commit that proposed it. Only the overlay's content counts, so merge, squash and rebase give the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from common import overlays
from deploy.errors import ReleaseError
from deploy.git import Git
from deploy.release import overlay
from deploy.release.overlay import Release

_PULL_REQUEST = re.compile(r"Merge pull request #(\d+) |.*\(#(\d+)\)$")


@dataclass(frozen=True)
class Deployment:
    """A commit that changed what an environment runs."""

    release: Release
    commit: str
    time: datetime
    author: str
    """Of a merge commit, who merged; of a squashed pull request git knows only its author."""
    subject: str

    @property
    def pull_request(self) -> int | None:
        found = _PULL_REQUEST.match(self.subject)
        return int(found[1] or found[2]) if found else None


@dataclass(frozen=True)
class Timeline:
    deployments: tuple[Deployment, ...] = ()
    """All, oldest first."""
    good: tuple[Deployment, ...] = ()
    """Those that were not rolled back, oldest first; the last one runs."""
    abandoned: dict[str, Deployment] = field(default_factory=dict)
    """The digests that were rolled back, with the deployment that did it."""

    @property
    def current(self) -> Deployment | None:
        return self.deployments[-1] if self.deployments else None

    @property
    def previous(self) -> Deployment | None:
        """What a rollback restores; a second rollback goes further back."""
        return self.good[-2] if len(self.good) > 1 else None


def fold(deployments: Iterable[Deployment]) -> Timeline:
    """Read the deployments in their order as releases and rollbacks.

    A new digest is a release. A digest among the good ones is a rollback to it, which abandons all that came after it.
    An abandoned digest that is deployed again is a release, and good again.
    """
    every: list[Deployment] = []
    good: list[Deployment] = []
    abandoned: dict[str, Deployment] = {}
    for each in deployments:
        digest = each.release.digest
        if each.release.empty:
            continue
        if good and good[-1].release.digest == digest:
            # A corrected name or label of the same image keeps the date and the author.
            good[-1], every[-1] = (replace(known, release=each.release) for known in (good[-1], every[-1]))
            continue
        every.append(each)
        places = [place for place, known in enumerate(good) if known.release.digest == digest]
        if places:
            abandoned.update({known.release.digest: each for known in good[places[0] + 1 :]})
            del good[places[0] + 1 :]
        else:
            abandoned.pop(digest, None)
            good.append(each)
    return Timeline(tuple(every), tuple(good), abandoned)


def read(git: Git, tip: str, environment: str) -> Timeline:
    """The deployments of an environment up to a commit.

    Overlays that cannot be read, such as a committed conflict, deployed nothing and are skipped.
    """
    path = overlays.path(environment)
    # With --first-parent, git compares a merge with its first parent and lists it if the file differs.
    listed = git.run("log", "--first-parent", "--reverse", "--format=%H%x1f%ct%x1f%an%x1f%s", tip, "--", path)
    commits = [line.split("\x1f", 3) for line in listed.splitlines()]
    found = []
    for (commit, seconds, author, subject), text in zip(
        commits, git.read_many(path, [each[0] for each in commits]), strict=True
    ):
        try:
            release = overlay.parse(text or "", path)
        except ReleaseError:
            continue
        found.append(Deployment(release, commit, datetime.fromtimestamp(int(seconds), UTC), author, subject))
    return fold(found)


def current(git: Git, tip: str, environment: str) -> Release:
    """What the overlay of an environment says at a commit.

    Raises:
        ReleaseError: there is no such environment, or its overlay cannot be read.
    """
    path = overlays.path(environment)
    return overlay.parse(require_text(git, tip, environment), path)


def require_text(git: Git, tip: str, environment: str) -> str:
    text = git.read(tip, overlays.path(environment))
    if text is None:
        known = ", ".join(environments(git, tip)) or "there are none"
        raise ReleaseError(f"no environment {environment!r} at {tip[:12]} under {overlays.FOLDER} ({known})")
    return text


def environments(git: Git, tip: str) -> tuple[str, ...]:
    """Every environment at a commit: staging and production first."""
    listed = git.run("ls-tree", "-d", "--name-only", tip, f"{overlays.FOLDER}/").splitlines()
    names = [line.rpartition("/")[2] for line in listed]
    first = [name for name in ("staging", "production") if name in names]
    return (*first, *sorted(set(names) - set(first)))
