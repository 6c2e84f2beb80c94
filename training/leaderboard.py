"""Show how the algorithms compare and which one is the champion.

Reads reports/leaderboard.json, which the stage `select` writes, and params.yaml: the results of another data set are
refused.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from training.base import cli, config
from training.base.errors import DataError
from training.base.section import Settings
from training.data.dataset import ORIGIN_FILE, Origin
from training.results.board import LEADERBOARD_FILE, Leaderboard
from training.results.leaderboard import read, show
from training.sections.data import DataSettings


class _Target(BaseModel):
    """The key of `schema` that says what is predicted; whether the rest is sound does not matter here."""

    target: str


class DeclaredSettings(Settings):
    """What `params.yaml` says the results should be of."""

    name: str
    data: DataSettings
    data_schema: _Target = Field(alias="schema")


def main() -> None:
    cli.parser("training.leaderboard", __doc__).parse_args()
    show(read_current())


def read_current() -> Leaderboard:
    """Read the results if they are of the data set that params.yaml declares.

    Raises:
        DataError: they are of another one, or of an earlier state of the data.
    """
    board = read()
    declared = config.load(DeclaredSettings)
    expected = (declared.name, declared.data.source, declared.data_schema.target)
    if not board.source:
        raise DataError(f"{LEADERBOARD_FILE} does not say which data it is of: run `make repro`")
    if (board.name, board.source, board.target) != expected:
        held, wanted = (
            f"{name!r} (source {source}, target {target})"
            for name, source, target in ((board.name, board.source, board.target), expected)
        )
        raise DataError(
            f"{LEADERBOARD_FILE} is of {held} and params.yaml declares {wanted}: run `make repro`"
        )
    if (origin := _fetched()) and origin.sha256 != board.data:
        raise DataError(f"{LEADERBOARD_FILE} is of data that have changed since: run `make repro`")
    return board


def _fetched() -> Origin | None:
    """What the newest fetch wrote, None where nothing was fetched, as in a fresh clone."""
    try:
        return Origin.model_validate_json(ORIGIN_FILE.read_bytes())
    except (OSError, ValidationError):
        return None


if __name__ == "__main__":
    cli.run(main)
