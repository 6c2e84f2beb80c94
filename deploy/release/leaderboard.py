"""The champion's metrics at a commit, read from `reports/leaderboard.json` as git has it there."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.git import Git

PATH = "reports/leaderboard.json"


class _Score(BaseModel):
    value: float
    low: float | None = None
    high: float | None = None


class _Row(BaseModel):
    algorithm: str
    cv_mean: float
    cv_std: float
    test: dict[str, _Score]


class _Board(BaseModel):
    """What of the leaderboard is needed here; the rest of it may change."""

    model_config = ConfigDict(extra="ignore")

    name: str
    version: str
    score: str
    champion: str
    rows: list[_Row]


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


def read(git: Git, commit: str) -> Metrics | None:
    """None where the commit has no leaderboard, or one of a form that is not known any more."""
    text = git.read(commit, PATH)
    if text is None:
        return None
    try:
        board = _Board.model_validate_json(text)
    except ValidationError:
        return None
    row = next((row for row in board.rows if row.algorithm == board.champion), None)
    if row is None:
        return None
    figures = {f"CV {board.score}": Figure(row.cv_mean, f"{row.cv_mean:.3f} ± {row.cv_std:.3f}")}
    for name in sorted(row.test, key=lambda name: name != board.score):
        score = row.test[name]
        bounds = "" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]"
        figures[f"test {name}"] = Figure(score.value, f"{score.value:.3f}{bounds}")
    return Metrics(board.name, board.version, board.champion, figures)
