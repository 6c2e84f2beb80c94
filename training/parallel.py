"""Runs the stages whose inputs changed, as `dvc repro` does, several at a time.

usage: python -m training.parallel --jobs N [--model NAME]

DVC runs one stage after another, but several of its processes may work on one repository. So each stage that may run is a
`dvc repro --single-item` of its own, which checks and records its stage alone. All of dvc.lock is written under DVC's lock.

A stage that fails lets the running ones end, and no further one starts. Ctrl-C interrupts the commands of the running
stages. DVC's processes do not get it: what is finished is recorded.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from common import models
from common.errors import EspalierError
from common.pipelines import PIPELINE_FILE
from training.base import cli

POLL = 0.2
"""Seconds between two looks for commands to interrupt."""
_HINTS = (
    "To track the changes with git",
    "git add ",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
)
"""What DVC says at the end of each process."""


class StagesError(EspalierError):
    """Stages failed, or DVC cannot read the pipelines."""


def main() -> None:
    parser = cli.parser("training.parallel", (__doc__ or "").partition("\n\nDVC")[0].partition("usage")[0])
    parser.add_argument("--jobs", type=int, required=True, metavar="N", help="stages that may run at a time")
    parser.add_argument("--model", default="", metavar="NAME", help="a model, or all (default: the first)")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs (JOBS): {arguments.jobs} is less than 1")
    selected = models.select(arguments.model, Path())
    reproduce([(folder / PIPELINE_FILE).as_posix() for folder in selected.values()], arguments.jobs)


def reproduce(pipelines: Iterable[str], jobs: int) -> None:
    """Run what changed in some pipelines.

    Args:
        pipelines: their files.
        jobs: stages that may run at a time.

    Raises:
        StagesError: stages failed; names them and what did not run.
        KeyboardInterrupt: the process was interrupted or told to end. Nothing runs any more, and what is finished is recorded.
    """
    plan = outdated(pipelines)
    if not plan:
        print("Data and pipelines are up to date.")
        return
    _Run(plan, jobs).wait()


def outdated(pipelines: Iterable[str]) -> dict[str, frozenset[str]]:
    """The stages that may have to run: those that changed, and all that follow from them.

    Returns:
        For each, the stages among them that must end before it. Stages are named as DVC names them.

    Raises:
        StagesError: DVC cannot read the pipelines.
    """
    files = list(pipelines)
    with _opened() as repo:
        direct = _direct(repo)
        wanted = [stage for file in files for stage in repo.stage.collect(file)]
        changed = set(repo.status(targets=files, with_deps=True))
    before: dict[str, set[str]] = {}
    for name in TopologicalSorter(direct).static_order():
        before[name] = {*direct[name]}.union(*(before[each] for each in direct[name]))
    # First the stages of the pipelines, in their order; then those of other files that they depend on.
    names = dict.fromkeys(stage.addressing for stage in wanted)
    names |= dict.fromkeys(sorted(each for name in names for each in before[name]))
    plan = [name for name in names if name in changed or not changed.isdisjoint(before[name])]
    return {name: frozenset(before[name].intersection(plan)) for name in plan}


def dependencies() -> dict[str, frozenset[str]]:
    """The stages of all pipelines, as DVC names them, in the order of their files, and those that each directly depends on.

    Raises:
        StagesError: DVC cannot read the pipelines.
    """
    with _opened() as repo:
        return _direct(repo)


@contextmanager
def _opened() -> Iterator[Any]:
    """The DVC repository around the working directory."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise StagesError(" ".join(str(error).split())) from None


def _direct(repo: Any) -> dict[str, frozenset[str]]:
    from dvc.repo.reproduce import get_active_graph

    graph = get_active_graph(repo.index.graph)
    return {
        stage.addressing: frozenset(each.addressing for each in graph.successors(stage)) for stage in graph
    }


@dataclass
class _Run:
    """Stages that run, wait and have ended.

    Signals and the ends of processes come through one queue, so that no signal interrupts the bookkeeping.
    """

    plan: Mapping[str, Collection[str]]
    jobs: int
    events: SimpleQueue[tuple[str, int] | None] = field(default_factory=SimpleQueue)
    """The end of a stage with its status, or None for a signal."""
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    def wait(self) -> None:
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        former = {
            each: signal.signal(each, lambda *_: self.events.put(None))
            for each in signals
            if signal.getsignal(each) != signal.SIG_IGN  # as under `nohup`
        }
        interrupted = False
        told: set[int] = set()
        try:
            self._start()
            while self.running:
                try:
                    event = self.events.get(timeout=POLL if interrupted else None)
                except Empty:
                    pass
                else:
                    if event is None:
                        interrupted = True
                        told.clear()  # a further Ctrl-C
                    else:
                        name, status = event
                        del self.running[name]
                        self.ended[name] = status
                if interrupted:
                    self._interrupt(told)
                else:
                    self._start()
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)
        if interrupted:
            raise KeyboardInterrupt
        if failed := [name for name, status in self.ended.items() if status]:
            left = [name for name in self.plan if name not in self.ended]
            rest = f"; not run: {', '.join(map(_short, left))}" if left else ""
            raise StagesError(f"failed: {', '.join(map(_short, failed))}{rest}")

    def _start(self) -> None:
        """Start what can run now, unless a stage failed."""
        for name, needed in self.plan.items():
            if len(self.running) >= self.jobs or any(self.ended.values()):
                return
            if name not in self.running and name not in self.ended and self.ended.keys() >= set(needed):
                self.running[name] = self._started(name)

    def _started(self, name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # The terminal's Ctrl-C goes to this process alone.
            process_group=0,
        )
        threading.Thread(target=self._show, args=(name, process), daemon=True).start()
        return process

    def _show(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for above
        for line in process.stdout:
            text = line.rstrip()
            if not text or text.lstrip().startswith(_HINTS):
                continue
            try:
                # In one write, so that lines of several stages do not mix.
                sys.stdout.write(f"{_short(name)} | {text}\n")
                sys.stdout.flush()
            except BrokenPipeError:
                self.events.put(
                    None
                )  # as an interrupt; what the stage still says is read, so that it does not wait
        self.events.put((name, process.wait()))

    def _interrupt(self, told: set[int]) -> None:
        """Interrupt the commands of the running stages that were not told yet; DVC may start one even now."""
        import psutil

        for process in self.running.values():
            try:
                commands = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            for each in commands:
                if each.pid not in told:
                    told.add(each.pid)
                    try:
                        each.send_signal(signal.SIGINT)
                    except psutil.NoSuchProcess:
                        continue


def _short(name: str) -> str:
    """A stage's name with the name of its further model: `wine:select` for `models/wine/dvc.yaml:select`."""
    return name.removeprefix(f"{models.FOLDER}/").replace(f"/{PIPELINE_FILE}:", ":")


if __name__ == "__main__":
    cli.run(main)
