"""Shows what runs where, since when, by whom, and what production lacks, for a person or a program."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.errors import ReleaseError
from deploy.git import REMOTE, Git
from deploy.release import deployments, words
from deploy.release.commands import PRODUCTION, STAGING
from deploy.release.deployments import Deployment, Timeline
from deploy.release.overlay import Release

MAX_COMMITS = 10


@dataclass(frozen=True)
class Behind:
    """How production's revision relates to staging's."""

    same: bool
    commits: tuple[tuple[str, str], ...] | None
    """Commits that production lacks, newest first; None where this clone lacks a revision."""
    ahead: tuple[tuple[str, str], ...] = ()
    """Commits that staging lacks, because it was rolled back."""


@dataclass(frozen=True)
class Status:
    ref: str
    commit: str
    environments: dict[str, Timeline]
    behind: Behind | None
    """None unless both environments run something."""


def read(git: Git, base: str | None = None, fetch: bool = False) -> Status:
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
    timelines = {name: deployments.read(git, commit, name) for name in deployments.environments(git, commit)}
    if not timelines:
        raise ReleaseError(f"{ref} has no environments")
    for name in timelines:
        # The history skips overlays that cannot be read; the present one must be an error.
        deployments.current(git, commit, name)
    return Status(ref, commit, timelines, _behind(git, timelines))


def document(status: Status) -> dict[str, Any]:
    """The status as JSON; it does not depend on the present time."""
    behind = status.behind
    return {
        "ref": status.ref,
        "commit": status.commit,
        "environments": {
            name: {
                "current": _entry(timeline.current),
                "previous": _entry(timeline.previous),
                "abandoned": sorted(timeline.abandoned),
                "deployments": [_entry(each) for each in timeline.deployments],
            }
            for name, timeline in status.environments.items()
        },
        "production": None
        if behind is None
        else {
            "runs_what_staging_runs": behind.same,
            "lacks": None if behind.commits is None else [_listed(each) for each in behind.commits],
            "has_beyond_staging": [_listed(each) for each in behind.ahead],
        },
    }


def show(status: Status, now: datetime | None = None) -> None:
    """A table, and how production and staging differ."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Rich would give a log eighty columns, which break names.
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("environment", "model", "digest", "revision", "since", "by", "PR"):
        table.add_column(
            column, no_wrap=column != "by", justify="right" if column in ("since", "PR") else "left"
        )
    for name, timeline in status.environments.items():
        if timeline.current is None:
            table.add_row(name, "[dim]nothing released yet[/]")
            continue
        each, release = timeline.current, timeline.current.release
        table.add_row(
            f"[bold]{name}[/]",
            release.version,
            _short(release),
            release.revision[:12],
            age(each.time, now or datetime.now(UTC)),
            escape(each.author),
            f"#{each.pull_request}" if each.pull_request else "",
        )
    console.print(table)
    for name, timeline in status.environments.items():
        if timeline.current is not None and (gone := _taken_back(timeline)):
            console.print(f"{name} was taken back from {', '.join(gone)}")
        if timeline.previous is not None:
            back = timeline.previous.release
            console.print(f"{name} can go back to {_short(back)} (model {back.version})")
    if status.behind is not None:
        console.print(escape(_difference(status.behind)))
    console.print(f"[dim]as of {status.ref} {status.commit[:12]}[/]")


def age(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since).total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "just now"


def main(git: Git, base: str | None, fetch: bool, as_json: bool) -> None:
    status = read(git, base, fetch)
    if as_json:
        print(json.dumps(document(status), indent=2, ensure_ascii=False))
    else:
        show(status)


def _behind(git: Git, timelines: dict[str, Timeline]) -> Behind | None:
    staging, production = (
        timelines[name].current if name in timelines else None for name in (STAGING, PRODUCTION)
    )
    if staging is None or production is None:
        return None
    new, old = staging.release, production.release
    same = new.digest == old.digest
    if git.commit(new.revision) is None or git.commit(old.revision) is None:
        return Behind(same, None)
    return Behind(
        same,
        tuple(words.between(git, old.revision, new.revision)),
        tuple(words.between(git, new.revision, old.revision)),
    )


def _difference(behind: Behind) -> str:
    if behind.same:
        return "production runs what staging runs"
    if behind.commits is None:
        return "production runs another image than staging; a revision of theirs is not in this clone"
    lines = []
    for commits, what in ((behind.commits, "behind"), (behind.ahead, "ahead of")):
        if commits:
            count = f"{len(commits)} commit{'s' if len(commits) > 1 else ''}"
            lines.append(f"production is {count} {what} staging:")
            lines += [f"  {commit[:12]} {subject}" for commit, subject in commits[:MAX_COMMITS]]
            lines += [f"  … and {len(commits) - MAX_COMMITS} more"] if len(commits) > MAX_COMMITS else []
    return "\n".join(lines) or "production runs another image than staging, built from the same files"


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
