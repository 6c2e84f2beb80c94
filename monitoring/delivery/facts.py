"""The facts, and how they follow from what an overlay said at each commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .errors import DeliveryError
from .files import OVERLAYS, Release, overlay

ACTIONS = ("release", "promote", "rollback")


@dataclass(frozen=True)
class Deployment:
    """A commit by which an environment began to run something else."""

    release: Release
    commit: str
    time: int
    """Seconds since 1970."""
    action: str
    """One of `ACTIONS`."""


@dataclass(frozen=True)
class Timeline:
    """The deployments of an environment, oldest first."""

    deployments: tuple[Deployment, ...] = ()
    failed: int = 0
    """Changes that were gone back from."""
    restored: tuple[Deployment, Deployment] | None = None
    """The last change that was gone back from, and the deployment that did it."""

    @property
    def current(self) -> Deployment | None:
        return self.deployments[-1] if self.deployments else None

    @property
    def forward(self) -> Deployment | None:
        """The last one that was no way back."""
        return next((each for each in reversed(self.deployments) if each.action != "rollback"), None)


@dataclass(frozen=True)
class Run:
    """The last run of a workflow on the branch that came to a verdict."""

    workflow: str
    """The stem of its file's name."""
    success: int
    seconds: float
    completed: int


@dataclass(frozen=True)
class Facts:
    """All that is told, as of one commit."""

    timelines: Mapping[str, Timeline]
    """By environment."""
    revised: Mapping[str, int]
    """When each revision that is needed was committed, where that is known."""
    scores: Mapping[str, Mapping[tuple[str, str], float]]
    """Of the champion at a revision, by split and metric."""
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Change:
    """A commit of the branch's own line, and what the overlay says since (None: nothing that can be read)."""

    commit: str
    time: int
    release: Release | None


class Source(Protocol):
    """Where facts come from."""

    name: str

    def refresh(self) -> None:
        """Look at the branch again; what is asked afterwards is as of the same commit."""

    def environments(self) -> Sequence[str]: ...

    def changes(self, environment: str) -> Sequence[Change]:
        """What the overlay said, oldest first: at least every commit at which it said something else."""

    def committed(self, revision: str) -> int | None: ...

    def scores(self, revision: str) -> Mapping[tuple[str, str], float]: ...

    def runs(self) -> Sequence[Run]: ...


def read(source: Source) -> Facts:
    """Everything there is to tell.

    Raises:
        DeliveryError: the source cannot be read, or an environment's overlay says nothing.
    """
    source.refresh()
    environments = source.environments()
    if not environments:
        raise DeliveryError(f"{source.name} has no environments under {OVERLAYS}")
    timelines: dict[str, Timeline] = {}
    for name in environments:
        changes = source.changes(name)
        if not changes or changes[-1].release is None:
            raise DeliveryError(f"{source.name}: {overlay(name)} does not say what runs; mend it by a commit")
        timelines[name] = fold(name, changes)
    deployed = [each for line in timelines.values() for each in (line.current, line.forward) if each]
    revisions = {each.release.revision for each in deployed}
    return Facts(
        timelines,
        {each: at for each in sorted(revisions) if (at := source.committed(each)) is not None},
        {each: source.scores(each) for each in sorted(revisions)},
        source.runs(),
    )


def fold(environment: str, changes: Sequence[Change]) -> Timeline:
    """Read changes of an overlay as steps forth and back.

    A digest that is still among the good ones is a step back to it, and all that came after it has failed. Any other
    digest is a step forth, one that failed before too. The same digest under another label is no step.
    """
    forth = "release" if environment == "staging" else "promote"
    every: list[Deployment] = []
    good: list[Deployment] = []
    failed, restored = 0, None
    for change in changes:
        release = change.release
        if release is None or release.empty:
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
