"""Times a search of 24 candidates in one process, and on a local Dask cluster of one and of two workers.

The three take turns, and only ratios within a round count, because other work on the machine moves all of them. Two figures say
what a busy machine hides: the processor time of the workers, of which two idle cores would each do half, and as many tasks that
only wait, which need no core.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

import training  # noqa: F401 - before sklearn, because it limits the numeric libraries to one thread
from benchmarks import machine
from common import files
from training.data.dataset import TRAIN_FILE, Split, read_profile, read_split
from training.results import scores
from training.results.report import SearchOutcome
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms, engine, ledger
from training.train.search import search

RESULT = Path(__file__).parent / "results" / "dask.md"
NAME = "xgboost"
COLUMNS = 30
BLOCK = {
    "n_estimators": 60,
    "search": {
        "method": "random",
        "budget": 24,
        "space": {
            "max_depth": {"low": 2, "high": 6, "integer": True},
            "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
        },
    },
}


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        start: seconds until the cluster could be used.
        wall: seconds of the search.
        processor: seconds that the processes which fitted have used for it.
        waits: seconds of as many tasks that wait for a quarter of a second.
    """

    start: float
    wall: float
    processor: float
    waits: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dask", description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        split = _prepared(Path(folder), arguments.rows)
        rounds = []
        for number in range(1, arguments.rounds + 1):
            runs = [_run(split, workers) for workers in (0, 1, 2)]
            rounds.append(runs)
            print(
                f"round {number}: {', '.join(f'{each.wall:.1f} s' for each in runs)}",
                file=sys.stderr,
                flush=True,
            )
    files.write_text(RESULT, report(rounds, arguments.rows))
    print(f"{RESULT} has the figures")


def _prepared(folder: Path, rows: int) -> Split:
    """Training rows of a made-up table in a model's folder, which becomes the working directory."""
    random = np.random.default_rng(7)
    values = random.normal(size=(rows, COLUMNS)).round(3)
    names = [f"x{number}" for number in range(COLUMNS)]
    score = values[:, 0] * values[:, 1] + values[:, 2] + random.normal(size=rows)
    frame = pd.DataFrame(values, columns=names).assign(y=np.where(score > 0, "yes", "no"))
    source = folder / "data" / "source" / "rows.parquet"
    source.parent.mkdir(parents=True)
    frame.to_parquet(source)
    document = {
        "name": "search",
        "data": {"source": "data/source/rows.parquet"},
        "schema": {"target": "y", "features": {each: {"type": "number"} for each in names}},
        "train": {"algorithms": {NAME: {}}},
        "track": {"project": "search"},
        "card": {"intended_use": "a benchmark"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    os.chdir(folder)
    for stage in ("settings", "fetch", "prepare"):
        command = [sys.executable, "-m", f"training.{stage}"]
        machine.timed(folder, command, PYTHONPATH=str(Path(__file__).parents[1]))
    return read_split(TRAIN_FILE, read_profile())


def _run(split: Split, workers: int) -> Run:
    os.environ["ESPALIER_DASK_WORKERS"] = str(max(1, workers))
    os.environ.pop("ESPALIER_DASK", None)
    started = time.perf_counter()
    with engine.opened("dask" if workers else "local"):
        # The first task of a worker imports what estimators need, and reads the file.
        engine.mapped(_rows, [split] * max(1, 4 * workers), "start", "tasks")
        ready = time.perf_counter()
        before = _processor()
        _search(split)
        searched, after = time.perf_counter(), _processor()
        engine.mapped(time.sleep, [0.25] * (24 * 3 if workers else 0), "wait", "tasks")
        return Run(ready - started, searched - ready, after - before, time.perf_counter() - searched)


def _rows(split: Split) -> int:
    from xgboost import XGBClassifier

    return len(split) + len(XGBClassifier().get_params())


def _processor() -> float:
    """Seconds of processor time of the workers; of this process, if there is no cluster."""
    cluster = engine.cluster_in_use()
    return sum(cluster.client.run(time.process_time).values()) if cluster else time.process_time()


def _search(split: Split) -> SearchOutcome:
    profile, block = read_profile(), AlgorithmSettings.model_validate(BLOCK)
    assert block.search is not None
    with _forgotten():
        return search(
            algorithms.pipeline(NAME, block, profile),
            algorithms.create(NAME, profile.task).prefix,
            block.search,
            split,
            scores.of(profile.task),
            "f1_macro",
            NAME,
        )


@contextmanager
def _forgotten() -> Iterator[None]:
    try:
        yield
    finally:
        ledger.forget(NAME)


def report(rounds: list[list[Run]], rows: int) -> str:
    """The result as Markdown."""
    titles = ("one process (`local`)", "one worker", "two workers")
    lines = [
        "# A search on a Dask cluster",
        "",
        f"24 candidates of XGBoost (60 trees) with three folds, {rows:,} rows × {COLUMNS} columns, {len(rounds)} rounds in turns; medians.",
        f"{machine.cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{machine.versions(['dask', 'distributed', 'scikit-learn', 'xgboost-cpu'])}.",
        "",
        "| | wall, s | processor time, s | start, s |",
        "|---|---:|---:|---:|",
    ]
    for place, title in enumerate(titles):
        runs = [each[place] for each in rounds]
        medians = [
            statistics.median(getattr(each, key) for each in runs) for key in ("wall", "processor", "start")
        ]
        lines.append(f"| {title} | {' | '.join(f'{each:.1f}' for each in medians)} |")
    faster = [one.wall / two.wall for _, one, two in rounds]
    dearer = [one.wall / local.wall for local, one, _ in rounds]
    work = [two.processor / one.processor for _, one, two in rounds]
    busy = [two.processor / two.wall for _, _, two in rounds]
    waits = [one.waits / two.waits for _, one, two in rounds]
    lines += [
        "",
        f"- Two workers are {_range(faster)} times as fast as one.",
        f"- One worker takes {_range(dearer)} times as long as one process, without the start of the cluster.",
        f"- Two workers together use {_range(work)} times the processor time of one, and had {_range(busy)} of the 2 cores. "
        f"On two idle cores they would be {2 / statistics.median(work):.2f} times as fast.",
        f"- 72 tasks that only wait end {_range(waits)} times as fast with two workers.",
        "",
    ]
    return "\n".join(lines)


def _range(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
