"""Shows how far a long step is: a line that moves on a terminal, and one line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 60.0
"""Between two lines of a log."""
log = logging.getLogger(__name__)


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "rows") -> Iterator[Progress]:
    """Show the progress of what the body does.

    Args:
        what: the step, such as "fetch".
        total: how many units there are; None if that is unknown.
        unit: what is counted.

    Yields:
        An object whose `advance` the body calls.
    """
    if not sys.stderr.isatty():
        yield Progress(what, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    text = "{task.completed:,}" + (" of {task.total:,} " if total else " ") + unit
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn(text), TimeElapsedColumn()]
    if total:
        columns.append(TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield Progress(what, total, unit, show=lambda count: bar.update(task, completed=count))


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
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
