"""Shows what runs and how far it is: a line that moves on a terminal, and one line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
SECONDS = 60.0
"""Between two lines of a log."""
MANY = 10_000
"""Rows with which a step may take minutes: it is told when it begins."""
log = logging.getLogger(__name__)


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "rows", rows: int = 0) -> Iterator[Progress]:
    """Show the progress of what the body does.

    Args:
        what: the step, such as "fetch".
        total: how many units there are; None if that is unknown.
        unit: what is counted.
        rows: of each unit. With many, the first one may take minutes, so the log has a line at the beginning.

    Yields:
        An object whose `advance` the body calls.
    """
    if not sys.stderr.isatty():
        if rows >= MANY:
            log.info("%s: %s of %s rows", what, unit if total is None else f"{total:,} {unit}", f"{rows:,}")
        yield Progress(what, total, unit)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    text = "{task.completed:,}" + (" of {task.total:,} " if total else " ") + unit
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn(text), TimeElapsedColumn()]
    if total:
        columns.append(TimeRemainingColumn())
    with _bar(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield Progress(what, total, unit, show=lambda count: bar.update(task, completed=count))


def counted(items: Collection[Item], what: str, unit: str, rows: int) -> Iterator[Item]:
    """The items, with the progress of the loop over them; arguments as for `progress`."""
    with progress(what, len(items), unit, rows) as done:
        for each in items:
            yield each
            done.advance()


@contextmanager
def step(what: str, rows: int) -> Iterator[None]:
    """Say what the body does if that may take minutes and has no parts that could be counted.

    Args:
        what: the step, such as "svm: fit".
        rows: that it works on. With few, nothing is shown.
    """
    if rows < MANY:
        yield
        return
    text = f"{what}: {rows:,} rows"
    if not sys.stderr.isatty():
        log.info(text)
        yield
        return
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with _bar(TextColumn("{task.description}"), SpinnerColumn(), TimeElapsedColumn()) as bar:
        bar.add_task(text, total=None)
        yield


def _bar(*columns: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress as Bar

    return Bar(*columns, console=Console(stderr=True), transient=True)


class Progress:
    """How much is done.

    Attributes:
        done: units.
    """

    def __init__(
        self, what: str, total: int | None, unit: str, show: Callable[[int], None] | None = None
    ) -> None:
        self.done = 0
        self._what, self._total, self._unit = what, total, unit
        self._show = show or self._log
        self._started = self._logged = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count further units."""
        self.done += count
        self._show(self.done)

    def _log(self, done: int) -> None:
        now = time.monotonic()
        if now - self._logged < SECONDS:
            return
        self._logged = now
        took = now - self._started
        line = f"{self._what}: {done:,} {self._unit} in {_duration(took)}"
        if self._total and 0 < done <= self._total:
            left = took * (self._total - done) / done
            line = f"{self._what}: {done:,} of {self._total:,} {self._unit} in {_duration(took)}, about {_duration(left)} left"
        log.info(line)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
