"""The content of `review.json`, from which the comment and the plots are made."""

from __future__ import annotations

from typing import Literal

from app.contract import Frozen, Interval
from training.production.comparison import Comparison
from training.sections.metrics import Metric


class Change(Frozen):
    """A value before and after, as text; None where there is none."""

    name: str
    before: str | None
    after: str | None


class Algorithm(Frozen):
    """The headline figures of one algorithm, from `metrics/<algorithm>.json`."""

    score: str
    """The metric that selects the champion."""
    cv: float
    cv_std: float
    test: float
    test_low: float
    test_high: float
    second: Metric
    """The metric that is shown beside it: log loss, or RMSE of a regression."""
    second_test: float


class Contestant(Frozen):
    name: str
    before: Algorithm | None
    after: Algorithm | None
    rank_before: int | None
    rank_after: int | None
    """Place on the leaderboard; None without a leaderboard, or if selection did not run."""


class Champion(Frozen):
    algorithm: str
    version: str
    rule: str


class Confusion(Frozen):
    """Of the champion on the test split: row = actual class, column = predicted."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class State(Frozen):
    """One of the two compared states."""

    commit: str
    champion: Champion | None
    confusion: Confusion | None
    interval: Interval | None = None
    """Of a regression's champion."""


Outcome = Literal["passes", "worse", "undecided", "refused", "broken"]
"""worse: than production. refused: below the thresholds. broken: the pipeline failed for another reason."""


class Review(Frozen):
    """`review.json`."""

    schema_version: Literal[1] = 1
    passed: bool
    outcome: Outcome
    reason: str
    """Why it fails; empty if it passes."""
    before: State
    after: State
    parameters: tuple[Change, ...]
    data: tuple[Change, ...]
    """Rows, digests and the resolved schema, where they differ."""
    test_split_changed: bool
    score_changed: bool
    """Another metric selects, so figures before and after cannot be compared."""
    algorithms: tuple[Contestant, ...]
    production: Comparison | None
    notes: tuple[str, ...]
    artifact_url: str | None
    plots: tuple[str, ...]
