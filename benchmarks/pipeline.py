"""Measures how much time DVC adds to the work itself.

In a fresh clone: seconds of a cold `dvc repro`, of one that finds nothing to do, and of one after a single
parameter changed. Beside each cold run, one plain Python process calls the same stages one after another.
W&B writes offline records in both. Only the ratios mean anything on another machine.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks import machine

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "pipeline.md"

PLAIN = """
import sys, yaml
from importlib import import_module
def run(name, *arguments):
    sys.argv = [name, *arguments]
    import_module(f"training.{name}.stage").main()
for name in ("settings", "fetch", "prepare", "explore"):
    run(name)
for algorithm in yaml.safe_load(open("params.yaml"))["train"]["algorithms"]:
    run("train", algorithm)
run("select")
"""


@dataclass
class Timings:
    """Seconds of each round."""

    plain: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    nothing: list[float] = field(default_factory=list)
    one: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of (3)")
    parser.add_argument(
        "--algorithm", default="random_forest", help="whose parameter changes (random_forest)"
    )
    arguments = parser.parse_args()
    timings = Timings()
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        _round(timings, arguments.algorithm)
    report = _report(timings, arguments.algorithm)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(report, encoding="utf-8")
    print(report)


def _round(timings: Timings, algorithm: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, project = Path(folder) / "plain", Path(folder) / "dvc"
        for each in (plain, project):
            subprocess.run(["git", "clone", "-q", str(ROOT), str(each)], check=True)
        timings.plain.append(_seconds(plain, [sys.executable, "-c", PLAIN]))
        timings.cold.append(_seconds(project, ["dvc", "repro"]))
        timings.nothing.append(_seconds(project, ["dvc", "repro"]))
        _change(project / "params.yaml", algorithm)
        timings.one.append(_seconds(project, ["dvc", "repro"]))


def _seconds(folder: Path, command: list[str]) -> float:
    return machine.timed(folder, command, PYTHONPATH=str(folder))[0]


def _change(params: Path, algorithm: str) -> None:
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    block = document["train"]["algorithms"][algorithm]
    numbers = [key for key, value in block.items() if isinstance(value, int | float)]
    if not numbers:
        sys.exit(
            f"error: {algorithm} has no number in params.yaml that could change: choose another --algorithm"
        )
    block[numbers[0]] += 1
    params.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _report(timings: Timings, algorithm: str) -> str:
    plain, cold = (statistics.median(each) for each in (timings.plain, timings.cold))
    rows = [
        ("one plain process, all stages", timings.plain, "", ""),
        ("`dvc repro`, cold", timings.cold, f"{cold / plain:.2f} × the plain process", "at most 3 ×"),
        ("`dvc repro`, nothing to do", timings.nothing, "", "at most 1 s"),
        (
            f"`dvc repro`, one parameter of {algorithm}",
            timings.one,
            f"{statistics.median(timings.one) / cold:.2f} × cold",
            "at most 0.5 ×",
        ),
    ]
    lines = ["| run | median s | lowest to highest | ratio | aim |", "|---|---|---|---|---|"]
    lines += [
        f"| {what} | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} | {ratio} | {aim} |"
        for what, seconds, ratio, aim in rows
    ]
    about = (
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {len(timings.plain)} rounds, {machine.cpu()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{machine.versions(('dvc', 'scikit-learn'))}. "
        "Repeat with `make bench`."
    )
    return "\n".join(["# The pipeline", "", *lines, "", about, ""])


if __name__ == "__main__":
    main()
