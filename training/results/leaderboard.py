"""Ranks the algorithms, and writes, reads and shows the leaderboard."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from app.contract import Task
from common import markdown
from training.base.errors import DataError
from training.data.dataset import DATA_REPORT_FILE, EXPLORE, Profile
from training.results.board import LEADERBOARD_FILE, Leaderboard, Row
from training.results.figures import TITLES, interval, shown, spread
from training.results.report import METRICS, Report
from training.sections.metrics import LOWER_IS_BETTER, SECOND_SCORE

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

MARKDOWN_FILE = LEADERBOARD_FILE.with_suffix(".md")
CARD_FILE = Path("MODEL_CARD.md")


def rank(reports: Sequence[Report], tie: float, tie_log_loss: float) -> tuple[list[Report], str]:
    """Order reports best first and say which rule chose the first.

    The cross-validated score decides. Models within `tie` of the best score are tied if their cross-validated log
    loss is also within `tie_log_loss` of the lowest among them: an overconfident tree does not tie with a model that
    predicts the same labels with calibrated probabilities. A regression has no log loss. Among tied models the one whose file holds the fewest
    numbers wins, because it is the fastest to run and the easiest to explain. Measured time does not count: the
    champion would depend on the machine.
    """
    metric = reports[0].score
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def log_loss(report: Report) -> float:
        return report.cv["log_loss"].mean if "log_loss" in report.cv else 0.0

    best = min(map(_deficit, reports))
    # Scores are rounded to six decimals; the margin makes a difference of exactly `tie` a tie.
    close = [each for each in reports if _deficit(each) - best <= tie + 1e-9]
    lowest = min(map(log_loss, close))
    tied = [each for each in close if log_loss(each) - lowest <= tie_log_loss + 1e-9]
    tied.sort(key=lambda each: (each.complexity, each.model.bytes, each.algorithm))
    champion, *others = tied
    rest = sorted(
        (each for each in reports if each is not champion),
        key=lambda each: (each not in tied, _deficit(each), each.complexity, each.algorithm),
    )
    unsure = [each for each in close if each not in tied]
    within = f"within {tie:g} of the best"
    if others:
        rule = (
            f"simplest of {len(tied)} models whose cross-validated {metric} is {within}: "
            f"{champion.complexity} numbers in the file (tied with {_names(others)})"
        )
    elif unsure:
        rule = f"lowest log loss of {len(close)} models whose cross-validated {metric} is {within}"
    else:
        rule = f"{'lowest' if sign < 0 else 'highest'} cross-validated {metric}"
    if unsure:
        rule += (
            f"; no tie with {_names(unsure)}, whose log loss is more than {tie_log_loss:g} above the lowest"
        )
    return [champion, *rest], rule


def by_score(reports: Sequence[Report]) -> list[Report]:
    """Order reports best first by score alone."""
    return sorted(reports, key=lambda each: (_deficit(each), each.algorithm))


def _deficit(report: Report) -> float:
    """The cross-validated score, turned so that less is better."""
    return (1 if report.score in LOWER_IS_BETTER else -1) * report.cv[report.score].mean


def _names(reports: Sequence[Report]) -> str:
    return ", ".join(sorted(each.algorithm for each in reports))


def build(
    name: str, version: str, ranked: Sequence[Report], rule: str, profile: Profile, missed: Iterable[str] = ()
) -> Leaderboard:
    baseline = ranked[0].baseline
    return Leaderboard(
        name=name,
        source=profile.origin.source,
        target=profile.target,
        task=profile.task,
        data=profile.origin.sha256,
        version=version,
        score=ranked[0].score,
        champion=ranked[0].algorithm,
        rule=rule,
        missed=tuple(missed),
        losses=profile.losses(),
        unexplained=tuple(
            f"{each.algorithm} was left out of the choice, because it cannot be explained: {each.unexplained}"
            for each in ranked
            if each.unexplained
        ),
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
        baseline=Row(
            algorithm=f"baseline: {baseline.name}",
            cv_mean=baseline.cv[ranked[0].score].mean,
            cv_std=baseline.cv[ranked[0].score].std,
            test=baseline.test,
            complexity=0,
            bytes=0,
        ),
    )


def read() -> Leaderboard:
    try:
        return Leaderboard.model_validate_json(LEADERBOARD_FILE.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot use {LEADERBOARD_FILE}: {error}; run `make repro`") from None


def discard(source: str, target: str, task: Task) -> None:
    """Remove results of another data set or task, so that a later failure cannot leave them behind."""
    try:
        board = read()
    except DataError:
        return
    if not board.source or (board.source, board.target, board.task) == (source, target, task):
        return
    log.info(
        "removing the results of %s (source %s, target %s, %s)",
        board.name,
        board.source,
        board.target,
        board.task,
    )
    for path in (CARD_FILE, LEADERBOARD_FILE, MARKDOWN_FILE, DATA_REPORT_FILE, *METRICS.glob("*.json")):
        path.unlink(missing_ok=True)
    shutil.rmtree(EXPLORE, ignore_errors=True)


def as_markdown(board: Leaderboard) -> str:
    rows = [_cells(str(position), row, board) for position, row in enumerate(board.rows, 1)]
    rows += [_cells("", board.baseline, board)] if board.baseline else []
    verdict = f", version `{board.version}`" if board.version else ""
    notes = (*board.unexplained, *board.losses)
    return "\n".join(
        [
            f"# Leaderboard of {markdown.prose(board.name)}",
            "",
            markdown.table(_head(board), rows),
            "",
            f"Champion: **{board.champion}**{verdict}: {markdown.prose(board.rule)}.",
            "",
            *([f"**{refusal(board)}**", ""] if board.missed else []),
            *([*(f"- {markdown.prose(each)}" for each in notes), ""] if notes else []),
            "CV is the mean over the folds ± their standard deviation. Figures on the test split come with a",
            "bootstrap interval; they never select. Numbers is how many of them the model file holds.",
            "",
        ]
    )


def table(board: Leaderboard) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=escape(f"Leaderboard of {board.name}"),
        title_justify="left",
    )
    # The rows are in order and a terminal is narrow, so the position is left out.
    for index, column in enumerate(_head(board)[1:]):
        result.add_column(column, justify="right" if index else "left", no_wrap=True)
    for position, row in enumerate(board.rows, 1):
        cells = _cells("", row, board)[1:]
        result.add_row(*cells, style="bold green" if position == 1 else None)
    if board.baseline:
        result.add_row(*_cells("", board.baseline, board)[1:], style="dim")
    return result


def refusal(board: Leaderboard) -> str:
    """The sentence that names the rules by which the champion was refused."""
    return f"It does not pass the gate ({', '.join(board.missed)}) and is not in model/."


def show(board: Leaderboard) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(table(board))
    version = f", version [bold]{board.version}[/]" if board.version else ""
    console.print(f"Champion: [bold green]{board.champion}[/]{version}\n  {escape(board.rule)}")
    if board.missed:
        console.print(f"[red]{escape(refusal(board))}[/]")
    for each in (*board.unexplained, *board.losses):
        console.print(f"[yellow]{escape(each)}[/]")


def _head(board: Leaderboard) -> list[str]:
    return ["", "algorithm", f"CV {board.score}", "on test", TITLES[SECOND_SCORE[board.task]], "numbers"]


def _cells(position: str, row: Row, board: Leaderboard) -> list[str]:
    return [
        position,
        row.algorithm,
        spread(row.cv_mean, row.cv_std),
        interval(row.test[board.score]),
        shown(row.test[SECOND_SCORE[board.task]].value),
        f"{row.complexity:,}",
    ]
