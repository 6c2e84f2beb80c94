"""Loads a service for a while and says whether it kept its budget: `python -m tests.load.run --help`.

Locust runs in a process of its own, because it patches sockets and threads of the process it is in; its
figures come back in a file. The exit status is 0 within the budget, 1 beyond it or when nothing could be
measured, 2 for options that make no sense.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.contract import Manifest
from common import models
from common.command import run
from monitoring.objectives import objectives
from tests.load import options as types

ROOT = Path(__file__).parents[2]
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
CARD = "/model"
ANSWER_SECONDS = 5
LAST_ANSWERS_SECONDS = 11
"""What is in flight at the end may finish, a little longer than the users' own time limit: an answer that
comes late must count as late and not vanish."""
WORKERS_WAIT_SECONDS = 60


class LoadError(Exception):
    """The load test has no result, or a bad one; the message is one line."""


class Figures(BaseModel):
    """One line of the statistics, times in milliseconds."""

    name: str
    count: int
    failed: int
    per_second: float
    p50: float
    p95: float
    p99: float


class Fault(BaseModel):
    name: str = ""
    error: str
    count: int


class Summary(BaseModel):
    """What the locustfile measured."""

    users: int
    total: Figures
    requests: list[Figures]
    failures: list[Fault]
    exceptions: list[Fault]


class Budget(BaseModel):
    p95_ms: float
    max_error_share: float


def judge(summary: Summary, budget: Budget) -> str | None:
    """Why a measurement is not acceptable, in one line; None if it is."""
    if summary.exceptions:
        return f"the load test itself failed: {summary.exceptions[0].error}"
    # Users who only ever asked for the card have loaded nothing.
    if not any(each.count for each in summary.requests if each.name != CARD):
        reason = f": {summary.failures[0].error}" if summary.failures else ""
        return f"nothing was sent, so nothing was measured{reason}"
    broken = []
    total = summary.total
    if total.p95 > budget.p95_ms:
        broken.append(f"p95 is {total.p95:g} ms, over the budget of {budget.p95_ms:g} ms")
    share = total.failed / total.count
    if share > budget.max_error_share:
        broken.append(
            f"{_percent(share)} of the requests failed, over the budget of {_percent(budget.max_error_share)}"
        )
    return "; ".join(broken) or None


def table_of(summary: Summary) -> Table:
    """The figures for a person."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("request", no_wrap=True)
    for name in ("sent", "per s", "p50 ms", "p95 ms", "p99 ms", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in summary.requests:
        table.add_row(*_cells(each), style=None if not each.failed else "red")
    table.add_section()
    table.add_row(*_cells(summary.total.model_copy(update={"name": "all"})), style="bold")
    return table


def read_card(host: str) -> Manifest:
    """The manifest of the service at a host.

    Raises:
        LoadError: nothing answers there, or something else does.
    """
    # Without proxies, as the users' client.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(host + CARD, timeout=ANSWER_SECONDS) as response:
            return Manifest.model_validate_json(response.read())
    except urllib.error.HTTPError as error:
        raise LoadError(f"{host} answers {CARD} with {error.code}: is it this service?") from None
    except ValidationError:
        raise LoadError(f"{host}{CARD} is not the card of a bundle that this release knows") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise LoadError(
            f"{host} does not answer ({getattr(reason, 'strerror', None) or reason}): "
            "start the service with `make serve`, or name another with HOST=… (--host)"
        ) from None


def measure(arguments: argparse.Namespace, console: Console) -> Summary:
    """Run locust until the time is over or somebody interrupts it.

    Raises:
        LoadError: it ended without figures.
    """
    for path in (arguments.html, arguments.csv):
        path.parent.mkdir(parents=True, exist_ok=True)
    log = arguments.csv.with_name(arguments.csv.name + ".log")
    figures = arguments.csv.with_name(arguments.csv.name + ".json")
    figures.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(arguments, figures),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            # Ctrl-C reaches only us, and we hand it on once.
            start_new_session=True,
        )
    interrupted = _wait(process, arguments, figures, console)
    said = _warnings(log)
    if process.returncode != 0 or not figures.exists():
        if interrupted:
            raise LoadError("stopped before anything was measured")
        last = said[-1] if said else f"see {_shown(log)}"
        raise LoadError(f"locust ended with status {process.returncode}: {last}")
    if interrupted:
        console.print("stopped early: these are the figures until then")
    for line in said:
        console.print(f"[yellow]locust:[/] {escape(line)}")
    return Summary.model_validate_json(figures.read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a load test, report it, and judge it.

    Raises:
        UnknownModelError: no model has the name.
    """
    options = _parser().parse_args(arguments)
    models.select(options.model)
    folder = ROOT / "build/load" / options.model
    options.html, options.csv = options.html or folder / "report.html", options.csv or folder / "run"
    console = Console(highlight=False)
    budget = Budget(p95_ms=options.p95_ms, max_error_share=options.max_error_share)
    try:
        manifest = read_card(options.host)
        _require(options.model, manifest, options.host)
        console.print(
            f"{escape(manifest.name)} {manifest.version} at {options.host}: "
            f"{options.users} users for {options.time:g} s, about {options.users * options.rate:g} requests/s",
            soft_wrap=True,
        )
        summary = measure(options, console)
        console.print()
        console.print(table_of(summary))
        _print_failures(summary, console)
        console.print(f"\nreport: {_shown(options.html)}", soft_wrap=True)
        fault = judge(summary, budget)
    except LoadError as error:
        fault = str(error)
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    total = summary.total
    console.print(
        f"within the budget: p95 {total.p95:g} ms of {budget.p95_ms:g} ms, "
        f"{_percent(total.failed / total.count)} failed of {_percent(budget.max_error_share)}"
    )
    return 0


def _require(model: str, manifest: Manifest, host: str) -> None:
    if model and manifest.name != model:
        raise LoadError(
            f"{host} serves {manifest.name}, not {model}: start that with `make serve MODEL={model}`, or name its host "
            "with HOST=… (--host)"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.run",
        description="Load a service with users made from its own schema, and hold it to a budget.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--host",
        type=types.host,
        default="http://127.0.0.1:8000",
        help="what to load (default: %(default)s)",
    )
    add(
        "--model",
        default="",
        metavar="NAME",
        help="the model that the host must serve; its files are in build/load/NAME (default: any)",
    )
    add("--users", type=types.count, default=20, help="how many at once (default: %(default)s)")
    add("--time", type=types.seconds, default="30s", help="30s, 5m or 1h30m (default: %(default)s)")
    add(
        "--spawn-rate",
        type=types.positive,
        help="users started a second (default: all in a tenth of the time)",
    )
    add(
        "--rate",
        type=types.positive,
        default=os.environ.get("LOAD_RATE") or "5",
        help="requests a second that each user sends on average; LOAD_RATE (default: %(default)s)",
    )
    table = objectives()
    budget = parser.add_argument_group("budget")
    budget.add_argument(
        "--p95-ms",
        type=types.positive,
        default=os.environ.get("LOAD_P95_MS") or f"{1000 * table.latency.seconds:g}",
        help="95 %% of the answers must be this fast; LOAD_P95_MS (default: %(default)s)",
    )
    budget.add_argument(
        "--max-error-share",
        type=types.share,
        default=os.environ.get("LOAD_MAX_ERROR_SHARE") or f"{table.error_budget:g}",
        help="share of the answers that may be wrong or absent; LOAD_MAX_ERROR_SHARE (default: %(default)s)",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--html", type=Path, help="the report (default: build/load/)")
    files.add_argument(
        "--csv",
        type=Path,
        help="prefix of the figures as CSV and JSON, and of the log (default: build/load/run)",
    )
    watched = parser.add_argument_group("watched by Prometheus")
    watched.add_argument(
        "--metrics-port",
        type=types.port,
        help="serve the figures for Prometheus on this port, beside the service's own (default: do not)",
    )
    watched.add_argument(
        "--metrics-host", default="127.0.0.1", help="address to serve them on (default: %(default)s)"
    )
    several = parser.add_argument_group("several machines")
    several.add_argument("--master", action="store_true", help="let workers send; see docs/load-testing.md")
    several.add_argument(
        "--expect-workers", type=types.count, default=1, help="workers to wait for (default: 1)"
    )
    several.add_argument("--master-bind-host", default="*", help="address for the workers (default: all)")
    several.add_argument(
        "--master-bind-port", type=types.count, default=5557, help="port for the workers (default: 5557)"
    )
    return parser


def _command(arguments: argparse.Namespace, figures: Path) -> list[str]:
    spawn_rate = arguments.spawn_rate or arguments.users / max(1.0, arguments.time / 10)
    command: dict[str, Any] = {
        "locustfile": LOCUSTFILE,
        "host": arguments.host,
        "users": arguments.users,
        "spawn-rate": spawn_rate,
        "run-time": f"{math.ceil(arguments.time)}s",
        "stop-timeout": LAST_ANSWERS_SECONDS,
        "rate": arguments.rate,
        "summary": figures.absolute(),
        "html": arguments.html.absolute(),
        "csv": arguments.csv.absolute(),
        "loglevel": "WARNING",
        # Failures are judged here; another status is then an accident.
        "exit-code-on-error": 0,
    }
    if arguments.metrics_port:
        command |= {"metrics-port": arguments.metrics_port, "metrics-host": arguments.metrics_host}
    if arguments.master:
        command |= {
            "expect-workers": arguments.expect_workers,
            "expect-workers-max-wait": WORKERS_WAIT_SECONDS,
            "master-bind-host": arguments.master_bind_host,
            "master-bind-port": arguments.master_bind_port,
        }
    flags = ["--headless", "--only-summary", *(["--master"] if arguments.master else [])]
    return [sys.executable, "-m", "locust", *flags, *(f"--{name}={value}" for name, value in command.items())]


def _wait(
    process: subprocess.Popen[bytes], arguments: argparse.Namespace, figures: Path, console: Console
) -> bool:
    """Wait for locust and show how it goes; returns whether somebody stopped it."""
    signals = 0

    def stop(*_: int | FrameType | None) -> None:
        nonlocal signals
        signals += 1
        # The first ends the test with its report; after that there is nothing left to be gentle about.
        process.send_signal(signal.SIGINT if signals == 1 else signal.SIGKILL)

    previous = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    started = time.monotonic()
    try:
        with console.status("starting") as status:
            while True:
                try:
                    process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    status.update(_progress(figures, time.monotonic() - started, arguments.time))
                else:
                    return signals > 0
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def _progress(figures: Path, elapsed: float, wanted: float) -> str:
    text = f"{elapsed:.0f} of {wanted:g} s"
    try:
        summary = Summary.model_validate_json(figures.read_bytes())
    except OSError:
        return text
    total = summary.total
    return (
        f"{text}: {summary.users} users, {total.count} requests, p95 {total.p95:g} ms, {total.failed} failed"
    )


def _warnings(log: Path) -> list[str]:
    """What locust complained about, each thing once and without time and host."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (re.search(r"(?:/(?:WARNING|ERROR|CRITICAL)/[\w.]+: |^\S+: error: )(.+)", line) for line in lines)
    return list(dict.fromkeys(match[1] for match in found if match))


def _print_failures(summary: Summary, console: Console) -> None:
    most = sorted(summary.failures, key=lambda each: -each.count)
    if most:
        console.print("\nfailures:", style="bold")
    for each in most[:5]:
        console.print(f"{each.count:>7}  {escape(each.name)}: {escape(each.error)}", soft_wrap=True)
    if len(most) > 5:
        console.print(f"         and {len(most) - 5} more in the report")


def _cells(figures: Figures) -> list[str]:
    times = [f"{value:.0f}" for value in (figures.p50, figures.p95, figures.p99)]
    return [figures.name, str(figures.count), f"{figures.per_second:.1f}", *times, str(figures.failed)]


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _shown(path: Path) -> str:
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


if __name__ == "__main__":
    run(lambda: sys.exit(main()))
