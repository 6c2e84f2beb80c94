"""Texts of releases: commit messages, which programs parse too, and descriptions of pull requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.markdown import prose
from common.overlays import FOLDER
from deploy.git import Git
from deploy.release import leaderboard
from deploy.release.deployments import Deployment
from deploy.release.leaderboard import Figure, Metrics
from deploy.release.overlay import Release

Action = Literal["release", "promote", "rollback"]
MAX_COMMITS = 30
"""In one list, because a pull request's text has a limit."""
MAX_SUBJECT = 200
NOTHING = "nothing"


@dataclass(frozen=True)
class Change:
    """A release that is to replace the one that an environment runs."""

    action: Action
    environment: str
    old: Release
    new: Release
    old_metrics: Metrics | None
    new_metrics: Metrics | None
    model: str
    """The name of the new model."""

    @classmethod
    def describe(
        cls, git: Git, action: Action, environment: str, old: Release, new: Release, model: str | None = None
    ) -> Change:
        """Read the metrics of both releases from git."""
        before = (
            None if old.empty or git.commit(old.revision) is None else leaderboard.read(git, old.revision)
        )
        after = None if git.commit(new.revision) is None else leaderboard.read(git, new.revision)
        name = model or (after.model if after else "model")
        return cls(action, environment, old, new, before, after, name)

    @property
    def title(self) -> str:
        what = f"{self.model} {self.new.version}"
        return {
            "release": f"Release {what} to {self.environment}",
            "promote": f"Promote {what} to {self.environment}",
            "rollback": f"Roll {self.environment} back to {what}",
        }[self.action]


def commit_message(change: Change) -> str:
    """Subject, facts, and trailers that `git interpret-trailers --parse` reads."""
    old, new = change.old, change.new
    lines = [
        change.title,
        "",
        f"Image:    {new.name}",
        f"Digest:   {NOTHING if old.empty else old.digest}",
        f"       -> {new.digest}",
        f"Revision: {NOTHING if old.empty else old.revision} -> {new.revision}",
        f"Model:    {_version(old)} -> {change.model} {new.version}{_algorithm(change.new_metrics)}",
        "",
    ]
    if change.new_metrics is None:
        lines.append(f"{leaderboard.PATH} at that revision says nothing of its metrics.")
    else:
        lines.append("Metrics of the champion at that revision:")
        width = max(map(len, change.new_metrics.figures), default=0)
        lines += [f"  {name:<{width}}  {figure.text}" for name, figure in change.new_metrics.figures.items()]
    trailers = {
        "Espalier-Environment": change.environment,
        "Espalier-Action": change.action,
        "Espalier-Image": new.image,
        "Espalier-Previous-Image": NOTHING if old.empty else old.image,
        "Espalier-Revision": new.revision,
        "Espalier-Model": f"{change.model} {new.version}",
    }
    return "\n".join([*lines, "", *(f"{key}: {value}" for key, value in trailers.items()), ""])


def promotion(git: Git, change: Change, since: Deployment | None, abandoned: Deployment | None) -> str:
    """The description of a promotion: what, its metrics, its commits, and the way back."""
    lines = []
    if since is not None:
        lines.append(
            f"Staging has been running this image since {since.time:%Y-%m-%d %H:%M} UTC ({since.commit[:12]})."
        )
    if abandoned is not None:
        lines += [
            "",
            f"> [!WARNING]\n> {change.environment} ran this image before and was taken back from it on "
            f"{abandoned.time:%Y-%m-%d} ({abandoned.commit[:12]}). Make sure that the reason is gone.",
        ]
    back = (
        "Nothing ran before it, so there is nothing to roll back to: close this if in doubt."
        if change.old.empty
        else "After the merge, run the workflow `rollback`, or `python -m deploy.release rollback --pull-request`: it "
        f"proposes to restore `{change.old.digest}` (version {change.old.version})."
    )
    return _join(
        lines, _table(change), _metrics(change), _commits(git, change), "### The way back\n\n" + back
    )


def restoration(git: Git, change: Change, restored: Deployment) -> str:
    """The description of a rollback."""
    when = f"{restored.time:%Y-%m-%d %H:%M} UTC ({restored.commit[:12]})"
    lines = [
        f"{change.environment.capitalize()} goes back to what it began to run on {when}. "
        "Image, version and revision are restored as they were; nothing is built."
    ]
    after = (
        "### Afterwards\n\nStaging is left as it is. The image that is taken back counts as abandoned: another rollback "
        f"goes further back, and `python -m deploy.release status` says from what {change.environment} was taken back."
    )
    return _join(lines, _table(change), _metrics(change), _commits(git, change), after)


def _join(lines: list[str], *parts: str) -> str:
    return "\n\n".join(filter(None, ["\n".join(lines).strip(), *parts])) + "\n"


def _table(change: Change) -> str:
    old, new = change.old, change.new
    now = ["nothing"] * 3 if old.empty else [
        f"`{old.version}`{_algorithm(change.old_metrics)}", old.revision, f"`{old.digest}`",
    ]  # fmt: skip
    then = [
        f"{prose(change.model)} `{new.version}`{_algorithm(change.new_metrics)}",
        new.revision,
        f"`{new.digest}`",
    ]
    rows = zip(("model", "revision", "digest"), now, then, strict=True)
    names = [] if old.empty or old.name == new.name else [f"| image | `{old.name}` | `{new.name}` |"]
    head = f"| {change.environment} | now | proposed |\n|---|---|---|"
    return "\n".join([head, *(f"| {name} | {a} | {b} |" for name, a, b in rows), *names])


def _metrics(change: Change) -> str:
    before = change.old_metrics.figures if change.old_metrics else {}
    after = change.new_metrics.figures if change.new_metrics else {}
    names = list(dict.fromkeys([*after, *before]))
    if not names:
        return f"### Metrics\n\n`{leaderboard.PATH}` says nothing of them at either revision."
    rows = [
        f"| {prose(name)} | {_text(before.get(name))} | {_text(after.get(name))} "
        f"| {_difference(before.get(name), after.get(name))} |"
        for name in names
    ]
    note = (
        "CV: mean over the folds ± standard deviation. Test: with bootstrap interval. The two revisions may have "
        "been measured on different data; the gate scores both models on one test split."
    )
    return "\n".join(
        [
            "### Metrics",
            "",
            "| champion | now | proposed | difference |",
            "|---|--:|--:|--:|",
            *rows,
            "",
            note,
        ]
    )


def _commits(git: Git, change: Change) -> str:
    """The commits that only one of the two images has."""
    old, new = change.old, change.new
    if old.empty:
        return "### Commits\n\nThe first release here."
    if git.commit(old.revision) is None or git.commit(new.revision) is None:
        return "### Commits\n\nA revision is not in this repository any more, so they cannot be listed."
    parts = []
    for title, commits in (
        ("added", between(git, old.revision, new.revision)),
        ("taken away", between(git, new.revision, old.revision)),
    ):
        if commits:
            listed = [
                f"- {commit[:12]} {prose(subject, MAX_SUBJECT, references=True)}"
                for commit, subject in commits[:MAX_COMMITS]
            ]
            rest = len(commits) - len(listed)
            listed += [f"- … and {rest} more"] if rest else []
            parts.append("\n".join([f"### Commits {title}: {len(commits)}", "", *listed]))
    return (
        "\n\n".join(parts)
        or "### Commits\n\nNone: both images are built from the same revision, or from the same files."
    )


def between(git: Git, older: str, newer: str) -> list[tuple[str, str]]:
    """First-parent commits of `newer` that `older` lacks, newest first, without those that only release."""
    listed = git.run(
        "log", "--first-parent", "--format=%H%x1f%s", f"{older}..{newer}", "--", ".", f":(exclude){FOLDER}"
    )
    return [
        (commit, subject) for commit, _, subject in (line.partition("\x1f") for line in listed.splitlines())
    ]


def _version(release: Release) -> str:
    return NOTHING if release.empty else release.version


def _algorithm(found: Metrics | None) -> str:
    return f" ({prose(found.algorithm)})" if found else ""


def _text(figure: Figure | None) -> str:
    return figure.text if figure else "–"


def _difference(before: Figure | None, after: Figure | None) -> str:
    return "–" if before is None or after is None else f"{after.value - before.value:+.3f}"
