"""Compare the service, as users get it, with a bare server and with the alternatives that people use.

Writes serving.md, serving.json and serving.svg. A server runs on one core and wrk, which sends the load, on
another; every figure is compared with one of the same round only. All of it takes about twenty minutes, on a
machine that does nothing else. With --only, the other parts' figures stay as they are.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.serving import plot, report, wrk
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.measure import Bench
from benchmarks.serving.parts import PARTS, Setup
from benchmarks.serving.processes import ROOT, pick_cores
from benchmarks.serving.results import FILE, PartName, Results, read
from benchmarks.serving.subjects import Subject, read_subjects
from common import files

RESULTS = ROOT / "benchmarks" / "results"
QUICK_RESULTS = ROOT / "build" / "benchmarks" / "quick"
PACKAGES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "fastapi",
    "pydantic",
    "orjson",
    "onnxruntime",
    "numpy",
    "pandas",
    "scikit-learn",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for.

    Returns:
        The exit status: 0 when all of it was measured, whether or not goals were met.
    """
    options = _parser().parse_args(arguments)
    target = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    try:
        bench = _bench(options)
        # Context managers clean up after an exception, and SIGTERM raises none by default.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # Requests for readiness must not take the server's time.
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {bench.cores.server})
        with tempfile.TemporaryDirectory(prefix="espalier-models-") as folder:
            measure(bench, options.only, target, read_subjects(ROOT, Path(folder)))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: no server is left running, and finished parts are written", file=sys.stderr)
        return 130
    print((target / "serving.md").read_text(encoding="utf-8"))
    return 0


def measure(bench: Bench, names: Sequence[PartName], folder: Path, subjects: Mapping[str, Subject]) -> None:
    """Measure some parts, and write each as soon as it is done.

    Raises:
        BenchmarkError: something cannot be measured.
    """
    found = read(folder)
    for name in names:
        bench.say(f"{name}:")
        with tempfile.TemporaryDirectory(prefix="espalier-bench-") as temporary:
            part = PARTS[name](Setup(bench, subjects, Path(temporary)))
        found = found.with_part(name, part.model_copy(update={"circumstances": _circumstances(bench)}))
        _write(found, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--only",
        type=_parts,
        default=tuple(PARTS),
        metavar="PART,…",
        help=f"some of {', '.join(PARTS)} (default: all)",
    )
    add("--rounds", type=_count, help="rounds to take the median of (default: 3)")
    add("--seconds", type=_count, help="length of each measurement (default: 5)")
    add(
        "--quick",
        action="store_true",
        help="one round of one second, to see that everything works; written to build/benchmarks/quick",
    )
    add("--results", type=Path, metavar="FOLDER", help="where to write (default: benchmarks/results)")
    return parser


def _bench(options: argparse.Namespace) -> Bench:
    wrk.require_wrk()
    return Bench(
        cores=pick_cores(),
        rounds=options.rounds or (1 if options.quick else 3),
        seconds=options.seconds or (1 if options.quick else 5),
        say=lambda text: print(text, file=sys.stderr),
    )


def _circumstances(bench: Bench) -> str:
    rounds = "1 round" if bench.rounds == 1 else f"{bench.rounds} rounds"
    return (
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {rounds} of {bench.seconds} s, {machine.cpu()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, wrk {wrk.version()}, "
        f"{machine.versions(PACKAGES)}."
    )


def _write(found: Results, folder: Path) -> None:
    picture = plot.svg(found)
    files.write_text(folder / FILE, found.model_dump_json(indent=1) + "\n")
    if picture is not None:
        files.write_bytes(folder / "serving.svg", picture)
    files.write_text(folder / "serving.md", report.markdown(found, picture=picture is not None))


def _parts(text: str) -> tuple[PartName, ...]:
    names = text.split(",")
    unknown = [each for each in names if each not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in names)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
