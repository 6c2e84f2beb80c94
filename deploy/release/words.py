"""Texts of releases: commit messages, which programs parse too, and descriptions of pull requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common import models
from common.markdown import prose
from common.overlays import FOLDER, Release
from deploy.git import Git
from deploy.release import leaderboard
from deploy.release.deployments import Deployment
from deploy.release.evidence import Evidence
from deploy.release.leaderboard import Figure, Metrics

Action = Literal["release", "promote", "rollback"]
MAX_COMMITS = 30
"""In one list, because a pull request's text has a limit."""
MAX_SUBJECT = 200
NOTHING = "nothing"
SHARED = (".dockerignore", "app", "common", "pyproject.toml", "training", "uv.lock")
"""What a further model has in common with the others: the code that trains it and that serves it."""


@dataclass(frozen=True)
class Change:
    """A release of a model that is to replace the one that an environment runs."""

    action: Action
    environment: str
    model: str
    old: Release | None
    """None if this is the first."""
    new: Release
    old_metrics: Metrics | None
    new_metrics: Metrics | None
    leaderboard: str
    """The path from which the metrics were read."""

    @classmethod
    def describe(
        cls, git: Git, action: Action, environment: str, model: str, old: Release | None, new: Release
    ) -> Change:
        """Read the metrics of both releases from git."""
        before, after = (
            None
            if each is None or git.commit(each.revision) is None
            else leaderboard.read(git, each.revision, model)
            for each in (old, new)
        )
        return cls(action, environment, model, old, new, before, after, leaderboard.path(git, model))

    @property
    def title(self) -> str:
        what = f"{self.model} {self.new.version}"
        return {
            "release": f"Release {what} to {self.environment}",
            "promote": f"Promote {what} to {self.environment}",
            "rollback": f"Roll {self.environment} back to {what}",
        }[self.action]


def commit_message(change: Change, without_evidence: str | None = None) -> str:
    """Subject, facts, and trailers that `git interpret-trailers --parse` reads."""
    old, new = change.old, change.new
    lines = [
        change.title,
        "",
        f"Image:    {new.name}",
        f"Digest:   {NOTHING if old is None else old.digest}",
        f"       -> {new.digest}",
        f"Revision: {NOTHING if old is None else old.revision} -> {new.revision}",
        f"Model:    {_version(old)} -> {change.model} {new.version}{_algorithm(change.new_metrics)}",
        "",
    ]
    if change.new_metrics is None:
        lines.append(f"{change.leaderboard} at that revision says nothing of its metrics.")
    else:
        lines.append("Metrics of the champion at that revision:")
        width = max(map(len, change.new_metrics.figures), default=0)
        lines += [f"  {name:<{width}}  {figure.text}" for name, figure in change.new_metrics.figures.items()]
    trailers = {
        "Espalier-Environment": change.environment,
        "Espalier-Action": change.action,
        "Espalier-Image": new.image,
        "Espalier-Previous-Image": NOTHING if old is None else old.image,
        "Espalier-Revision": new.revision,
        "Espalier-Model": f"{change.model} {new.version}",
    }
    if without_evidence:
        trailers["Espalier-Without-Evidence"] = without_evidence
    return "\n".join([*lines, "", *(f"{key}: {value}" for key, value in trailers.items()), ""])


def promotion(
    git: Git,
    change: Change,
    since: Sequence[tuple[str, Deployment | None]],
    abandoned: Deployment | None,
    evidence: Sequence[Evidence],
    without_evidence: str | None,
) -> str:
    """The description of a promotion: what, the evidence, its metrics, its commits, and the way back."""
    lines = [
        f"{name.capitalize()} has been running this image since {each.time:%Y-%m-%d %H:%M} UTC ({each.commit[:12]})."
        for name, each in since
        if each is not None
    ]
    if abandoned is not None:
        lines += [
            "",
            f"> [!WARNING]\n> {change.environment} ran this image before and was taken back from it on "
            f"{abandoned.time:%Y-%m-%d} ({abandoned.commit[:12]}). Make sure that the reason is gone.",
        ]
    back = (
        "Nothing ran before it, so there is nothing to roll back to: close this if in doubt."
        if change.old is None
        else "After the merge, run the workflow `rollback`, or `python -m deploy.release rollback "
        f"{change.environment} --model {change.model} --pull-request`: it proposes to restore `{change.old.digest}` (version {change.old.version})."
    )
    return _join(
        lines,
        _table(change),
        _evidence(" and ".join(name for name, _ in since), evidence, without_evidence),
        _metrics(change),
        _commits(git, change),
        "### The way back\n\n" + back,
    )


def restoration(git: Git, change: Change, restored: Deployment) -> str:
    """The description of a rollback."""
    when = f"{restored.time:%Y-%m-%d %H:%M} UTC ({restored.commit[:12]})"
    lines = [
        f"{change.environment.capitalize()} goes back to what it began to run on {when}. "
        "Image, version and revision are restored as they were; nothing is built."
    ]
    after = (
        "### Afterwards\n\nOther environments are left as they are. The image that is taken back counts as abandoned: another rollback "
        f"goes further back, and `python -m deploy.release status` says from what {change.environment} was taken back."
    )
    return _join(lines, _table(change), _metrics(change), _commits(git, change), after)


def _join(lines: list[str], *parts: str) -> str:
    return "\n\n".join(filter(None, ["\n".join(lines).strip(), *parts])) + "\n"


def _table(change: Change) -> str:
    old, new = change.old, change.new
    now = ["nothing"] * 3 if old is None else [
        f"`{old.version}`{_algorithm(change.old_metrics)}", old.revision, f"`{old.digest}`",
    ]  # fmt: skip
    then = [
        f"{prose(change.model)} `{new.version}`{_algorithm(change.new_metrics)}",
        new.revision,
        f"`{new.digest}`",
    ]
    rows = zip(("model", "revision", "digest"), now, then, strict=True)
    names = [] if old is None or old.name == new.name else [f"| image | `{old.name}` | `{new.name}` |"]
    head = f"| {change.environment} | now | proposed |\n|---|---|---|"
    return "\n".join([head, *(f"| {name} | {a} | {b} |" for name, a, b in rows), *names])


def _evidence(names: str, evidence: Sequence[Evidence], without: str | None) -> str:
    rows = [
        f"| {'✅' if each.met else '❌'} | {prose(each.requirement)} | {prose(each.found)} |"
        for each in evidence
    ]
    table = ["| | required | found |", "|---|---|---|", *rows] if rows else ["None was collected."]
    reason = ["", f"Proposed without complete evidence, because: {prose(without)}"] if without else []
    return "\n".join([f"### Evidence from {names}", "", *table, *reason])


def _metrics(change: Change) -> str:
    before = change.old_metrics.figures if change.old_metrics else {}
    after = change.new_metrics.figures if change.new_metrics else {}
    names = list(dict.fromkeys([*after, *before]))
    if not names:
        return f"### Metrics\n\n`{change.leaderboard}` says nothing of them at either revision."
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
    if old is None:
        return "### Commits\n\nThe first release here."
    if git.commit(old.revision) is None or git.commit(new.revision) is None:
        return "### Commits\n\nA revision is not in this repository any more, so they cannot be listed."
    parts = []
    for title, commits in (
        ("added", between(git, change.model, old.revision, new.revision)),
        ("taken away", between(git, change.model, new.revision, old.revision)),
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


def between(git: Git, model: str, older: str, newer: str) -> list[tuple[str, str]]:
    """First-parent commits of `newer` that `older` lacks, newest first.

    Those that only release, and those that only concern other models, are left out.
    """
    prefix = models.prefix(model, git.top)
    ours = [prefix, *SHARED] if prefix else [".", f":(exclude){models.FOLDER}"]
    listed = git.run(
        "log", "--first-parent", "--format=%H%x1f%s", f"{older}..{newer}", "--", *ours, f":(exclude){FOLDER}"
    )
    return [
        (commit, subject) for commit, _, subject in (line.partition("\x1f") for line in listed.splitlines())
    ]


def _version(release: Release | None) -> str:
    return NOTHING if release is None else release.version


def _algorithm(found: Metrics | None) -> str:
    return f" ({prose(found.algorithm)})" if found else ""


def _text(figure: Figure | None) -> str:
    return figure.text if figure else "–"


def _difference(before: Figure | None, after: Figure | None) -> str:
    return "–" if before is None or after is None else f"{after.value - before.value:+.3f}"
