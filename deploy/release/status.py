"""Shows what runs where, since when, by whom, and what each environment lacks, for a person or a program."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from common import models
from common.overlays import Release
from deploy.errors import ReleaseError
from deploy.git import REMOTE, Git
from deploy.release import deployments, waves, words
from deploy.release.deployments import Deployment, Timeline
from deploy.release.waves import Waves

MAX_COMMITS = 10


@dataclass(frozen=True)
class Behind:
    """How the revision of an environment relates to that of the first wave."""

    same: bool
    commits: tuple[tuple[str, str], ...] | None
    """Commits that the environment lacks, newest first; None where this clone lacks a revision."""
    ahead: tuple[tuple[str, str], ...] = ()
    """Commits that the first wave lacks, because it was rolled back."""


@dataclass(frozen=True)
class Model:
    """What the environments run of one model."""

    environments: dict[str, Timeline]
    behind: dict[str, Behind]
    """Of each environment beyond the first wave, where it and the first wave run something."""

    @property
    def gone(self) -> list[str]:
        """The environments that still run it, as far as git can tell, although its overlay was removed."""
        return [name for name, timeline in self.environments.items() if timeline.removed is not None]


@dataclass(frozen=True)
class Status:
    ref: str
    commit: str
    waves: Waves
    models: dict[str, Model]


def read(git: Git, base: str | None = None, fetch: bool = False, model: str = models.ALL) -> Status:
    """The status of origin's branch at the last fetch, or now with `fetch`; without origin, of HEAD."""
    git.require_history()
    branch = base or git.default_branch()
    if fetch:
        git.fetch(branch)
    ref = f"{REMOTE}/{branch}"
    commit = git.commit(f"refs/remotes/{ref}")
    if commit is None:
        if base is not None:
            raise ReleaseError(f"this clone has no {ref}: try --fetch")
        ref, commit = "HEAD", git.require("HEAD")
    owners = deployments.owners(git, commit)
    if not owners:
        raise ReleaseError(f"{ref} has no environments")
    listed = waves.read(git, commit)
    timelines = deployments.read_all(git, commit)
    found: dict[str, dict[str, Timeline]] = {}
    gone = {place: timeline for place, timeline in timelines.items() if timeline.removed is not None}
    places = [each.name for each in listed.environments]
    for environment in dict.fromkeys([*places, *owners, *(environment for environment, _ in gone)]):
        for name in owners.get(environment, ()):
            # The history skips files that cannot be read; the present one must be an error.
            deployments.current(git, commit, environment, name)
            found.setdefault(name, {})[environment] = timelines.get((environment, name), Timeline())
        for (there, name), timeline in gone.items():
            if there == environment:
                found.setdefault(name, {})[environment] = timeline
    here = models.find(git.top)
    # In the order of this clone's models, and then those that only origin has.
    found = {name: found[name] for name in (*here, *sorted(found)) if name in found}
    if model not in (models.ALL, *found):
        if model in here:
            raise ReleaseError(
                f"{model} has no overlay at {ref}: `python -m deploy.overlay {model}` writes it"
            )
        raise models.UnknownModelError(models.unknown(model, dict.fromkeys(found, git.top)))
    shown = [name for name in found if model in (models.ALL, name)]
    return Status(
        ref,
        commit,
        listed,
        {name: Model(found[name], _behind(git, name, found[name], listed)) for name in shown},
    )


def document(status: Status) -> dict[str, Any]:
    """The status as JSON; it does not depend on the present time."""
    return {
        "ref": status.ref,
        "commit": status.commit,
        "environments": {
            each.name: {"cluster": each.cluster.name, "region": each.cluster.region, "wave": each.wave}
            for each in status.waves.environments
        },
        "models": {name: _described(model) for name, model in status.models.items()},
    }


def _described(model: Model) -> dict[str, Any]:
    return {
        "environments": {
            name: {
                "current": _entry(timeline.current),
                "previous": _entry(timeline.previous),
                "abandoned": sorted(timeline.abandoned),
                "removed": None if timeline.removed is None else timeline.removed.isoformat(),
                "deployments": [_entry(each) for each in timeline.deployments],
                "compared": _compared(model.behind.get(name)),
            }
            for name, timeline in model.environments.items()
        },
    }


def _compared(behind: Behind | None) -> dict[str, Any] | None:
    """With what the first wave runs."""
    if behind is None:
        return None
    return {
        "same": behind.same,
        "lacks": None if behind.commits is None else [_listed(each) for each in behind.commits],
        "has_beyond": [_listed(each) for each in behind.ahead],
    }


def show(status: Status, now: datetime | None = None, details: bool = True) -> None:
    """A table, and with `details` how the environments differ, model by model."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Rich would give a log eighty columns, which break names.
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    clusters = {each.name: each.cluster for each in status.waves.environments}
    several = len({each.name for each in clusters.values()}) > 1
    places = ("environment", "cluster", "region") if several else ("environment",)
    for column in ("model", *places, "version", "digest", "revision", "since", "by", "PR", "behind"):
        right = column in ("since", "PR", "behind")
        table.add_column(column, no_wrap=column != "by", justify="right" if right else "left")
    for model, found in status.models.items():
        for number, (name, timeline) in enumerate(found.environments.items()):
            head = [f"[bold]{escape(model)}[/]" if number == 0 else "", name]
            if several:
                there = clusters.get(name)
                head += ["", ""] if there is None else [there.name, there.region]
            if timeline.current is None:
                table.add_row(*head, "[dim]never released[/]")
                continue
            each, release = timeline.current, timeline.current.release
            table.add_row(
                *head,
                release.version,
                _short(release),
                release.revision[:12],
                age(each.time, now or datetime.now(UTC)),
                escape(each.author),
                f"#{each.pull_request}" if each.pull_request else "",
                _lag(found.behind.get(name)),
            )
    console.print(table)
    for model, found in status.models.items():
        for name, timeline in found.environments.items():
            if timeline.current is not None and (gone := _taken_back(timeline)):
                console.print(f"{model}: {name} was taken back from {', '.join(gone)}")
            if details and timeline.previous is not None:
                back = timeline.previous.release
                console.print(f"{model}: {name} can go back to {_short(back)} (version {back.version})")
        for name, behind in found.behind.items() if details else ():
            console.print(escape(f"{model}: {_difference(name, status.waves.first, behind)}"))
        for name in found.gone:
            removed = found.environments[name].removed
            console.print(
                f"[yellow]{escape(model)} was removed from {name} on {removed:%Y-%m-%d}[/], and runs there until somebody "
                f"deletes its application: argocd app delete espalier-{name}.{model}"
            )
    console.print(f"[dim]as of {status.ref} {status.commit[:12]}[/]")


def age(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since).total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "just now"


def main(git: Git, base: str | None, fetch: bool, as_json: bool, model: str) -> None:
    status = read(git, base, fetch, model)
    if as_json:
        print(json.dumps(document(status), indent=2, ensure_ascii=False))
    else:
        show(status, details=len(status.models) == 1)


def _behind(git: Git, model: str, timelines: dict[str, Timeline], listed: Waves) -> dict[str, Behind]:
    """Git is asked only about environments that run something else than the first wave."""
    first = timelines.get(listed.first, Timeline()).current
    found = {}
    for each in listed.environments:
        current = timelines.get(each.name, Timeline()).current
        if each.wave == 0 or first is None or current is None:
            continue
        new, old = first.release, current.release
        same = new.digest == old.digest
        if git.commit(new.revision) is None or git.commit(old.revision) is None:
            found[each.name] = Behind(same, None)
            continue
        found[each.name] = Behind(
            same,
            tuple(words.between(git, model, old.revision, new.revision)),
            tuple(words.between(git, model, new.revision, old.revision)),
        )
    return found


def _lag(behind: Behind | None) -> str:
    """How far an environment is behind the first wave, for a cell of the table."""
    if behind is None or behind.same:
        return ""
    if behind.commits is None:
        return "?"
    return str(len(behind.commits)) if behind.commits or not behind.ahead else f"-{len(behind.ahead)}"


def _difference(name: str, first: str, behind: Behind) -> str:
    if behind.same:
        return f"{name} runs what {first} runs"
    if behind.commits is None:
        return f"{name} runs another image than {first}; a revision of theirs is not in this clone"
    lines = []
    for commits, what in ((behind.commits, "behind"), (behind.ahead, "ahead of")):
        if commits:
            count = f"{len(commits)} commit{'s' if len(commits) > 1 else ''}"
            lines.append(f"{name} is {count} {what} {first}:")
            lines += [f"  {commit[:12]} {subject}" for commit, subject in commits[:MAX_COMMITS]]
            lines += [f"  … and {len(commits) - MAX_COMMITS} more"] if len(commits) > MAX_COMMITS else []
    return "\n".join(lines) or f"{name} runs another image than {first}, built from the same files"


def _taken_back(timeline: Timeline) -> list[str]:
    """The digests that the running deployment rolled back."""
    current = timeline.current
    return [
        digest.removeprefix("sha256:")[:12]
        for digest, by in timeline.abandoned.items()
        if current is not None and by.commit == current.commit
    ]


def _entry(deployment: Deployment | None) -> dict[str, Any] | None:
    if deployment is None:
        return None
    release = deployment.release
    return {
        "image": release.image,
        "digest": release.digest,
        "model_version": release.version,
        "revision": release.revision,
        "since": deployment.time.isoformat(),
        "by": deployment.author,
        "commit": deployment.commit,
        "pull_request": deployment.pull_request,
        "subject": deployment.subject,
    }


def _listed(commit: tuple[str, str]) -> dict[str, str]:
    return {"commit": commit[0], "subject": commit[1]}


def _short(release: Release) -> str:
    return release.digest.removeprefix("sha256:")[:12]
