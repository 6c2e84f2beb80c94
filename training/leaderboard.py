"""Show how the algorithms compare and which one is the champion.

Reads reports/leaderboard.json, which the stage `select` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from app.contract import Frozen, Score
from training import cli
from training.errors import DataError
from training.report import Report
from training.scores import LOWER_IS_BETTER

if TYPE_CHECKING:
    from rich.table import Table

LEADERBOARD_FILE = Path("reports/leaderboard.json")


class Row(Frozen):
    algorithm: str
    cv_mean: float
    cv_std: float
    test: dict[str, Score]
    complexity: int
    bytes: int


class Leaderboard(Frozen):
    """`reports/leaderboard.json`: best first."""

    name: str
    version: str
    """Of the champion's bundle."""
    score: str
    champion: str
    rule: str
    """Why it won."""
    rows: tuple[Row, ...]


def rank(reports: Sequence[Report], tie: float) -> tuple[list[Report], str]:
    """Order reports best first and say which rule chose the first.

    The cross-validated score decides. Models within `tie` of the best score count as equal; of those the
    one whose file holds the fewest numbers wins: the simplest is also the fastest to run and to explain.
    Measured time cannot decide, because the same inputs would then give another champion on another machine.
    """
    metric = reports[0].score
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def deficit(report: Report) -> float:
        return -sign * report.cv[metric].mean

    best = min(map(deficit, reports))
    # Scores are rounded to six decimals; the margin keeps a difference of exactly `tie` a tie.
    tied = [each for each in reports if deficit(each) - best <= tie + 1e-9]
    tied.sort(key=lambda each: (each.complexity, each.model.bytes, each.algorithm))
    rest = sorted(
        (each for each in reports if each not in tied),
        key=lambda each: (deficit(each), each.complexity, each.algorithm),
    )
    champion = tied[0]
    if len(tied) == 1:
        return [champion, *rest], f"{'lowest' if sign < 0 else 'highest'} cross-validated {metric}"
    others = ", ".join(sorted(each.algorithm for each in tied[1:]))
    rule = (
        f"simplest of {len(tied)} models whose cross-validated {metric} is within {tie:g} of the best: "
        f"{champion.complexity} numbers in the file (tied with {others})"
    )
    return [champion, *sorted(tied[1:], key=deficit), *rest], rule


def build(name: str, version: str, ranked: Sequence[Report], rule: str) -> Leaderboard:
    return Leaderboard(
        name=name,
        version=version,
        score=ranked[0].score,
        champion=ranked[0].algorithm,
        rule=rule,
        rows=tuple(
            Row(
                algorithm=each.algorithm,
                cv_mean=each.cv[each.score].mean,
                cv_std=each.cv[each.score].std,
                test=each.test,
                complexity=each.complexity,
                bytes=each.model.bytes,
            )
            for each in ranked
        ),
    )


def read() -> Leaderboard:
    try:
        return Leaderboard.model_validate_json(LEADERBOARD_FILE.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot use {LEADERBOARD_FILE}: {error}; run `make repro`") from None


def markdown(board: Leaderboard) -> str:
    head = _head(board)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_cells(position, row, board))} |" for position, row in enumerate(board.rows, 1)]
    return "\n".join(
        [
            f"# Leaderboard of {board.name}",
            "",
            *lines,
            "",
            f"Champion: **{board.champion}**, version `{board.version}`: {board.rule}.",
            "",
            "CV is the mean over the folds ± their standard deviation. Figures on the test split come with a",
            "bootstrap interval; they never select. Numbers is how many of them the model file holds.",
            "",
        ]
    )


def table(board: Leaderboard) -> Table:
    from rich import box
    from rich.table import Table

    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"Leaderboard of {board.name}",
        title_justify="left",
    )
    # Best first already says the position, and eighty columns are narrow.
    for index, column in enumerate(_head(board)[1:]):
        result.add_column(column, justify="right" if index else "left", no_wrap=True)
    for position, row in enumerate(board.rows, 1):
        cells = _cells(position, row, board)[1:]
        result.add_row(*cells, style="bold green" if position == 1 else None)
    return result


def show(board: Leaderboard) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(table(board))
    console.print(
        f"Champion: [bold green]{board.champion}[/], version [bold]{board.version}[/]\n  {escape(board.rule)}"
    )


def _head(board: Leaderboard) -> list[str]:
    return ["", "algorithm", f"CV {board.score}", "on test", "log loss", "numbers"]


def _cells(position: int, row: Row, board: Leaderboard) -> list[str]:
    return [
        str(position),
        row.algorithm,
        f"{row.cv_mean:.3f} ± {row.cv_std:.3f}",
        _interval(row.test[board.score]),
        f"{row.test['log_loss'].value:.3f}",
        f"{row.complexity:,}",
    ]


def _interval(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def main() -> None:
    cli.parser("training.leaderboard", __doc__).parse_args()
    show(read())


if __name__ == "__main__":
    cli.run(main)
