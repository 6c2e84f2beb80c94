"""What a model ran in an environment and when, and what it can go back to: a fold over the commits of its release file.

Nothing is stored beside git. Only first parents are followed, so a deployment has the date of its merge and not of the
commit that proposed it. Only the file's content counts, so merge, squash and rebase give the same answer.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from common import overlays
from common.overlays import OverlayError, Release
from deploy.errors import ReleaseError
from deploy.forge.base import NUMBER
from deploy.git import Git


@dataclass(frozen=True)
class Deployment:
    """A commit that changed what a model runs in an environment."""

    release: Release
    commit: str
    time: datetime
    author: str
    """Of a merge commit, who merged; of a squashed pull request git knows only its author."""
    subject: str

    @property
    def pull_request(self) -> int | None:
        found = NUMBER.match(self.subject)
        return int(found["merged"] or found["squashed"]) if found else None


@dataclass(frozen=True)
class Timeline:
    deployments: tuple[Deployment, ...] = ()
    """All, oldest first."""
    good: tuple[Deployment, ...] = ()
    """Those that were not rolled back, oldest first; the last one runs."""
    abandoned: dict[str, Deployment] = field(default_factory=dict)
    """The digests that were rolled back, with the deployment that did it."""
    removed: datetime | None = None
    """When the release file was deleted; None while it is there."""

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


def read(git: Git, tip: str, environment: str, model: str) -> Timeline:
    """The deployments of a model in an environment up to a commit."""
    path = overlays.path(environment, model)
    return _read(git, tip, path).get(path, Timeline())


def read_all(git: Git, tip: str) -> dict[tuple[str, str], Timeline]:
    """The deployments of each model that was ever released, by environment and model."""
    found = _read(git, tip, f":(glob){overlays.path('*', '*')}")
    return {_owner(path): timeline for path, timeline in found.items()}


def _read(git: Git, tip: str, pathspec: str) -> dict[str, Timeline]:
    """By the path of the release file.

    Files that cannot be read, such as a committed conflict, deployed nothing and are skipped.
    """
    # With --first-parent, git compares a merge with its first parent and lists it if a file differs.
    form = "--format=%x1e%H%x1f%ct%x1f%an%x1f%s"
    listed = git.run(
        "log", "--first-parent", "--reverse", "--name-only", "--no-renames", form, tip, "--", pathspec
    )
    changes = []
    for entry in listed.split("\x1e")[1:]:
        head, *names = entry.strip().splitlines()
        changes += [(head.split("\x1f", 3), name) for name in names if name]
    texts = git.read_many([(fields[0], path) for fields, path in changes])
    found: defaultdict[str, list[Deployment]] = defaultdict(list)
    removed: dict[str, datetime] = {}
    for ((commit, seconds, author, subject), path), text in zip(changes, texts, strict=True):
        time = datetime.fromtimestamp(int(seconds), UTC)
        removed.pop(path, None)
        if text is None:
            removed[path] = time
            continue
        try:
            release = overlays.parse(text, path)
        except OverlayError:
            continue
        found[path].append(Deployment(release, commit, time, author, subject))
    return {path: replace(fold(each), removed=removed.get(path)) for path, each in found.items()}


def _owner(path: str) -> tuple[str, str]:
    environment, model = path.removeprefix(f"{overlays.FOLDER}/").split("/")[:2]
    return environment, model


def current(git: Git, tip: str, environment: str, model: str) -> Release | None:
    """What a model runs in an environment at a commit; None before its first release.

    Raises:
        ReleaseError: there is no such environment, or the model has no overlay in it.
        OverlayError: its release file cannot be read.
    """
    path = overlays.path(environment, model)
    text = git.read(tip, path)
    if text is not None:
        return overlays.parse(text, path)
    require_overlay(git, tip, environment, model)
    return None


def require_overlay(git: Git, tip: str, environment: str, model: str) -> None:
    """Refuse a model or an environment that a commit does not have; the message names a similar one."""
    known = owners(git, tip)
    if environment not in known:
        there = ", ".join(known) or "there are none"
        raise ReleaseError(f"no environment {environment!r} at {tip[:12]} under {overlays.FOLDER} ({there})")
    if model in known[environment]:
        return
    close = difflib.get_close_matches(model, known[environment], n=1)
    hint = f"did you mean {close[0]}" if close else f"there are {', '.join(known[environment]) or 'none'}"
    raise ReleaseError(
        f"no model {model!r} has an overlay in {environment} at {tip[:12]}: {hint}, or let "
        f"`python -m deploy.overlay {model}` write it"
    )


def owners(git: Git, tip: str) -> dict[str, tuple[str, ...]]:
    """Every environment at a commit, with the models that have an overlay in it."""
    found: dict[str, list[str]] = {}
    for line in git.run("ls-tree", "-r", "--name-only", tip, f"{overlays.FOLDER}/").splitlines():
        environment, *rest = line.removeprefix(f"{overlays.FOLDER}/").split("/")
        if rest:
            found.setdefault(environment, [])
        if len(rest) == 2 and rest[1] == "kustomization.yaml":
            found[environment].append(rest[0])
    return {name: tuple(models) for name, models in sorted(found.items())}
