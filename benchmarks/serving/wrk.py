"""Sends load with wrk and reads what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.exchange import Exchange
from benchmarks.serving.processes import Running, spawned

SCRIPT = Path(__file__).with_name("wrk.lua")
CONNECTIONS = 16
ANSWER_SECONDS = 30
"""A response that takes longer is an error. wrk's default of two seconds is too short for the slowest peer."""

_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


@dataclass(frozen=True)
class Outcome:
    """The results of wrk."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    faults: tuple[str, ...]
    """Error responses and broken connections; empty if there were none."""


def require_wrk() -> None:
    """Check that wrk can be run.

    Raises:
        BenchmarkError: it is not installed.
    """
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is not installed, and it sends the load: apt install wrk")


def version() -> str:
    """The version that wrk prints beside its usage, for which it exits with 1."""
    printed = subprocess.run(
        ["wrk", "-v"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    match = re.match(r"wrk (?:debian/)?(\S+)", printed.stdout + printed.stderr)
    return match[1] if match else "unknown"


@contextmanager
def sending(
    server: Running, exchange: Exchange, seconds: int, core: int, connections: int = CONNECTIONS
) -> Iterator[subprocess.Popen[bytes]]:
    """A running wrk, which is ended afterwards; `finish` returns its results."""
    with tempfile.TemporaryDirectory(prefix="espalier-wrk-") as folder:
        bodies = []
        for index, body in enumerate(exchange.bodies):
            path = Path(folder) / f"{index}.body"
            path.write_bytes(body)
            bodies.append(str(path))
        headers = [f"--header={name}: {value}" for name, value in exchange.headers.items()]
        command = [
            "wrk",
            "--latency",
            "--threads=1",
            f"--connections={connections}",
            f"--duration={seconds}",
            f"--timeout={ANSWER_SECONDS}",
            f"--script={SCRIPT}",
            *headers,
            f"{server.url}{exchange.path}",
            "--",
            *bodies,
        ]
        with spawned(command, core, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            yield process


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    """Wait for wrk and read its results.

    Raises:
        BenchmarkError: it failed.
    """
    printed = process.communicate()[0].decode()
    if process.returncode != 0:
        last = (printed.strip().splitlines() or ["without a word"])[-1]
        raise BenchmarkError(f"wrk ended with status {process.returncode}: {last}")
    return parse(printed)


def parse(printed: str) -> Outcome:
    """Read what `wrk --latency` prints.

    Raises:
        BenchmarkError: the figures are not in it.
    """
    rate = re.search(r"^Requests/sec:\s+([\d.]+)\s*$", printed, re.MULTILINE)
    if rate is None:
        raise BenchmarkError(f"wrk printed no figures: {' '.join(printed.split())[:200]}")
    return Outcome(
        requests_per_second=float(rate[1]),
        p50_ms=_percentile(printed, 50),
        p99_ms=_percentile(printed, 99),
        faults=tuple(_faults(printed)),
    )


def _percentile(printed: str, percent: int) -> float:
    match = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m|h)\s*$", printed, re.MULTILINE)
    if match is None:
        raise BenchmarkError(f"wrk printed no {percent}th percentile: {' '.join(printed.split())[:200]}")
    return float(match[1]) * _MILLISECONDS[match[2]]


def _faults(printed: str) -> Iterator[str]:
    if match := re.search(r"Non-2xx or 3xx responses: (\d+)", printed):
        yield f"{match[1]} answers were errors"
    if match := re.search(r"Socket errors: (.*)", printed):
        yield f"connections broke ({match[1]})"
