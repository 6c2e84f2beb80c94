"""The content of `reports/leaderboard.json`, which `select` writes and delivery reads at other revisions.

Imports nothing numeric, because a release tool waits for it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.contract import Score, Task

LEADERBOARD_FILE = Path("reports/leaderboard.json")


class _Readable(BaseModel):
    """Ignores unknown keys: another revision may write more of them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Row(_Readable):
    algorithm: str
    cv_mean: float
    cv_std: float
    test: dict[str, Score]
    complexity: int
    bytes: int


class Leaderboard(_Readable):
    """`reports/leaderboard.json`: best first."""

    name: str
    source: str = ""
    target: str = ""
    task: Task = "classification"
    data: str = ""
    """Digest of the raw data. Files of older releases lack `source`, `target` and `data`."""
    version: str
    """Version of the champion's bundle; empty if the gate refused it."""
    score: str
    champion: str
    rule: str
    """Why it won."""
    missed: tuple[str, ...] = ()
    """Rules of the gate that the champion misses."""
    losses: tuple[str, ...] = ()
    """One sentence for each group of source rows that was left out."""
    unexplained: tuple[str, ...] = ()
    """One sentence for each candidate that was left out of the choice because it cannot be explained."""
    rows: tuple[Row, ...]
    baseline: Row | None = None
    """What an answer that ignores the features reaches. Files of older releases lack it."""


def parse(content: bytes | str | None) -> Leaderboard | None:
    """The leaderboard of any revision; None if there is none, or its form is unknown."""
    try:
        return Leaderboard.model_validate_json(content or "")
    except ValidationError:
        return None
