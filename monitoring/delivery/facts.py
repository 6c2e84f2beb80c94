"""The exported facts, and how they follow from a release file's content at each commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .files import Place, Release

ACTIONS = ("release", "promote", "rollback")


@dataclass(frozen=True)
class Deployment:
    """A commit by which a model began to run something else in an environment."""

    release: Release
    commit: str
    time: int
    """Seconds since 1970."""
    action: str
    """One of `ACTIONS`."""


@dataclass(frozen=True)
class Timeline:
    """The deployments of a model in an environment, oldest first."""

    deployments: tuple[Deployment, ...] = ()
    failed: int = 0
    """Changes that a rollback took back."""
    restored: tuple[Deployment, Deployment] | None = None
    """The last change that was taken back, and the rollback that did it."""

    @property
    def current(self) -> Deployment | None:
        return self.deployments[-1] if self.deployments else None

    @property
    def forward(self) -> Deployment | None:
        """The last one that was no rollback."""
        return next((each for each in reversed(self.deployments) if each.action != "rollback"), None)


@dataclass(frozen=True)
class Run:
    """The last run of a workflow on the branch that succeeded or failed."""

    workflow: str
    """The stem of its file's name."""
    success: int
    seconds: float
    completed: int


@dataclass(frozen=True)
class Facts:
    """Everything that is exported, as of one commit."""

    timelines: Mapping[Place, Timeline]
    """Of what runs; neither of models that were never released in an environment, nor of removed ones."""
    revised: Mapping[str, int]
    """Commit time of each deployed revision, where it is known."""
    scores: Mapping[tuple[str, str], Mapping[tuple[str, str], float]]
    """Of a model's champion at a revision, by split and metric."""
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Change:
    """A commit of the branch's own line, and what the release file says since; None if it is gone or says nothing."""

    commit: str
    time: int
    release: Release | None


def fold(environment: str, changes: Sequence[Change]) -> Timeline:
    """Read changes of a release file as releases and rollbacks.

    A digest that is still among the good ones is a rollback to it, and everything after it has failed. Any other digest is
    a release, even one that failed before. The same digest under another label is no deployment.
    """
    forth = "release" if environment == "staging" else "promote"
    every: list[Deployment] = []
    good: list[Deployment] = []
    failed, restored = 0, None
    for change in changes:
        release = change.release
        if release is None:
            continue
        if good and good[-1].release.digest == release.digest:
            good[-1], every[-1] = (replace(known, release=release) for known in (good[-1], every[-1]))
            continue
        places = [place for place, known in enumerate(good) if known.release.digest == release.digest]
        made = Deployment(release, change.commit, change.time, "rollback" if places else forth)
        every.append(made)
        if places:
            failed += len(good) - places[0] - 1
            restored = good[-1], made
            del good[places[0] + 1 :]
        else:
            good.append(made)
    return Timeline(tuple(every), failed, restored)
