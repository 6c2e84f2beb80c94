"""What a review holds: `review.json`, from which the comment and the plots are made."""

from __future__ import annotations

from typing import Literal

from app.contract import Frozen
from training.production.comparison import Comparison


class Change(Frozen):
    """A value before and after, as text; None where there is none."""

    name: str
    before: str | None
    after: str | None


class Algorithm(Frozen):
    """The headline figures of one algorithm, from `metrics/<algorithm>.json`."""

    score: str
    """What selects."""
    cv: float
    cv_std: float
    test: float
    test_low: float
    test_high: float
    log_loss: float


class Contestant(Frozen):
    name: str
    before: Algorithm | None
    after: Algorithm | None
    rank_before: int | None
    rank_after: int | None
    """On the leaderboard; None where there was none, or where selection did not run."""


class Champion(Frozen):
    algorithm: str
    version: str
    rule: str


class Confusion(Frozen):
    """Of the champion on the test split: row = actual class, column = predicted."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class State(Frozen):
    """What there is to say of one side alone."""

    commit: str
    champion: Champion | None
    confusion: Confusion | None


Outcome = Literal["passes", "worse", "undecided", "refused", "broken"]
"""worse: than production. refused: by the thresholds of the gate. broken: the pipeline failed otherwise."""


class Review(Frozen):
    """`review.json`."""

    schema_version: Literal[1] = 1
    passed: bool
    outcome: Outcome
    reason: str
    """Why it does not pass; empty when it does."""
    before: State
    after: State
    parameters: tuple[Change, ...]
    data: tuple[Change, ...]
    """Rows, digests and what the schema came to, where they differ."""
    test_split_changed: bool
    score_changed: bool
    """Selection goes by another metric, so that figures before and after do not compare."""
    algorithms: tuple[Contestant, ...]
    production: Comparison | None
    notes: tuple[str, ...]
    artifact_url: str | None
    plots: tuple[str, ...]
