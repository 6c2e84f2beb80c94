"""The metrics of a model's champion at a commit, read from `reports/leaderboard.json` as git has it there."""

from __future__ import annotations

from dataclasses import dataclass, field

from common import models
from deploy.git import Git
from training.results import board


@dataclass(frozen=True)
class Figure:
    value: float
    text: str
    """With what is known of its uncertainty."""


@dataclass(frozen=True)
class Metrics:
    model: str
    version: str
    algorithm: str
    figures: dict[str, Figure] = field(default_factory=dict)
    """By name, in the leaderboard's order, the score that selects first."""


def path(git: Git, model: str) -> str:
    """The leaderboard of a model, from the top of the repository."""
    return models.prefix(model, git.top) + board.LEADERBOARD_FILE.as_posix()


def read(git: Git, commit: str, model: str) -> Metrics | None:
    """None where the commit has no leaderboard of the model, or one of an unknown form."""
    found = board.parse(git.read(commit, path(git, model)))
    row = next((row for row in found.rows if row.algorithm == found.champion), None) if found else None
    if found is None or row is None:
        return None
    figures = {f"CV {found.score}": Figure(row.cv_mean, f"{row.cv_mean:.3f} ± {row.cv_std:.3f}")}
    for name in sorted(row.test, key=lambda name: name != found.score):
        score = row.test[name]
        bounds = "" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]"
        figures[f"test {name}"] = Figure(score.value, f"{score.value:.3f}{bounds}")
    return Metrics(found.name, found.version, found.champion, figures)
