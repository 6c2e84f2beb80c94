"""Abuses a service for a while and says whether it took it: `python -m tests.load.abuse --help`.

The load test asks how fast a service is; this asks what it still owes to those who behave while others do
not, and whether anything of them stays behind: memory, open files, errors. The exit status is 0 if nothing
does, 1 if something does or nothing could be found out, 2 for options that make no sense.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path
from random import Random
from statistics import linear_regression, median, quantiles
from typing import NoReturn
from urllib.parse import urlsplit

import h11
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from tests.load import options as types
from tests.load.run import ROOT, LoadError, read_card
from tests.load.scenarios import (
    ATTACKS,
    ORDINARY,
    SCENARIOS,
    Client,
    Scenario,
    Site,
    WrongError,
    attack,
    attempt,
    learn,
)
from tests.load.traffic import Traffic
from tests.wire import request

MB = 1024 * 1024
START_SECONDS = 30
MOST_AT_ONCE = 200
"""Scenarios under way. A service that is slower than the rate is not buried, it is asked less."""
CROWD = 8
"""How often each scenario runs in the crowd."""
SETTLE_SECONDS = 20
"""What the service gets to close connections after the last client has gone; idle ones it closes after 5 s."""
FEWEST_SAMPLES = 10
"""For a verdict on memory: two in each fifth."""


# ------------------------------------------------------------------------------------------ the verdict


@dataclass
class Tally:
    """How often a scenario ran and what came of it."""

    runs: int = 0
    answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """The service's processes at one moment, summed up."""

    rss: int
    files: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """Figures at a time, in seconds from the start."""

    seconds: float
    figures: Figures


@dataclass(frozen=True)
class Memory:
    """How the memory grew, in bytes, from the second fifth of the time to the last.

    Medians, because a moment's batches say nothing; not from the first fifth, in which an allocator takes
    what it will need ever after. The slope is of the line through everything after that fifth.
    """

    early: float
    late: float
    slope_per_hour: float

    @property
    def growth(self) -> float:
        return self.late - self.early


@dataclass
class Report:
    """What was done and what was seen.

    Attributes:
        before: the figures before anybody came, None if the processes cannot be looked at.
        after: the figures after all have gone.
        peak: the most memory that its processes ever had, in bytes; None where nobody can tell.
        attack: what it was attacked with, None if it was not.
        server_errors: answers with 5xx that the service counted, but for the 503s that attackers got.
        ended: whether it, or one of its workers, is gone.
        stopped: whether somebody did not wait until the time was over.
        log_errors: what it logged as errors, None if its log is elsewhere.
    """

    tallies: dict[str, Tally]
    samples: list[Sample] = field(default_factory=list)
    before: Figures | None = None
    after: Figures | None = None
    peak: int | None = None
    attack: str | None = None
    server_errors: float = 0
    ended: bool = False
    stopped: bool = False
    log_errors: list[str] | None = None


def memory_of(samples: Sequence[Sample]) -> Memory | None:
    """None if there are too few samples to say anything."""
    if len(samples) < FEWEST_SAMPLES:
        return None
    fifth = len(samples) // 5
    settled = samples[fifth:]
    times, sizes = [each.seconds for each in settled], [float(each.figures.rss) for each in settled]
    return Memory(
        early=median(sizes[:fifth]),
        late=median(sizes[-fifth:]),
        slope_per_hour=linear_regression(times, sizes).slope * 3600,
    )


def judge(report: Report, max_growth: float, max_memory: float = math.inf) -> list[str]:
    """Everything that is not acceptable, one line each.

    Args:
        report: what was seen.
        max_growth: of the memory, in bytes. Not asked in an attack, which may begin to hurt at any time.
        max_memory: at any moment, in bytes.
    """
    faults = []
    if report.ended:
        faults.append("a process of the service ended")
    if not any(tally.answers for tally in report.tallies.values()):
        faults.append("nothing was answered")
    wrong = sum(tally.faults.total() for tally in report.tallies.values())
    if wrong:
        faults.append(f"{wrong} times a client did not get what it was owed")
    if report.server_errors:
        faults.append(f"the service counted {report.server_errors:g} answers with 5xx")
    if report.log_errors:
        faults.append(
            f"the service logged {len(report.log_errors)} errors, the first: {report.log_errors[0]}"
        )
    memory = memory_of(report.samples)
    if memory and not report.attack and memory.growth > max_growth:
        faults.append(f"memory grew by {_mb(memory.growth)} MB, over the limit of {_mb(max_growth)} MB")
    if report.peak and report.peak > max_memory:
        faults.append(f"memory reached {_mb(report.peak)} MB, over the limit of {_mb(max_memory)} MB")
    if report.before and report.after and report.after.files > report.before.files:
        left = report.after.files - report.before.files
        faults.append(f"{left} files stayed open after the last client had gone")
    return faults


def tables_of(report: Report) -> list[Table]:
    """The scenarios, and the service, for a person."""
    scenarios = _table("scenario", "ran", "right answers", "went wrong")
    for name, tally in report.tallies.items():
        wrong = tally.faults.total()
        cells = (name, str(tally.runs), str(tally.answers), str(wrong))
        scenarios.add_row(*cells, style="red" if wrong else None)
    all_of = [sum(getattr(each, name) for each in report.tallies.values()) for name in ("runs", "answers")]
    wrong = sum(tally.faults.total() for tally in report.tallies.values())
    scenarios.add_section()
    scenarios.add_row("all", *map(str, all_of), str(wrong), style="bold")

    service = _table("service", "before", "early", "late", "after")
    early, late = _quantiles(report.samples)
    columns = [report.before, early, late, report.after]
    rows: dict[str, Callable[[Figures], str]] = {
        "memory, MB": lambda each: _mb(each.rss),
        "open files": lambda each: str(each.files),
        "threads": lambda each: str(each.threads),
    }
    for name, show in rows.items():
        service.add_row(name, *("–" if each is None else show(each) for each in columns))
    return [scenarios, service]


# ------------------------------------------------------------------------------------------ the abuse


@dataclass(frozen=True)
class Served:
    """A service to abuse.

    Attributes:
        process: its main process, None if it is not on this machine.
        log: where it writes, None if somebody else started it.
    """

    url: str
    process: psutil.Process | None
    log: Path | None = None

    def figures(self) -> Figures | None:
        """Of the process and its workers.

        Raises:
                psutil.Error: it has ended.
        """
        if self.process is None:
            return None
        family = self._family()
        return Figures(
            rss=sum(each.memory_info().rss for each in family),
            files=sum(each.num_fds() for each in family),
            threads=sum(each.num_threads() for each in family),
        )

    def peak(self) -> int | None:
        """The sum of the most memory that each process ever had, where the system knows it."""
        if self.process is None or not Path("/proc/self/status").exists():
            return None
        statuses = [Path(f"/proc/{each.pid}/status").read_text(encoding="ascii") for each in self._family()]
        return sum(
            int(size) * 1024 for each in statuses for size in re.findall(r"^VmHWM:\s+(\d+)", each, re.M)
        )

    def pids(self) -> set[int]:
        """Of the processes that run; not of one that has ended and that nobody has asked how."""
        try:
            return {each.pid for each in self._family() if each.status() != psutil.STATUS_ZOMBIE}
        except psutil.NoSuchProcess:
            return set()

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)] if self.process else []


async def abuse(served: Served, options: argparse.Namespace, status: Status) -> Report:
    """Run scenarios at random until the time is over or somebody interrupts it.

    Raises:
        WrongError: it was not even right in quiet.
    """
    address = urlsplit(served.url)
    scenarios = ORDINARY if options.attack else SCENARIOS
    report = Report({each.name: Tally() for each in scenarios}, attack=options.attack)
    traffic = Traffic(read_card(served.url), Random(options.seed))
    site = await learn(address.hostname or "", address.port or 80, options.body_limit, traffic)
    errors_before = await _server_errors(site, options.attack)
    report.before = await _settled(served)
    stop, pids = _stop_on_signals(), served.pids()

    status.update("everybody at once")
    await _crowd(site, scenarios, options, report)
    attackers = _attackers(site, options)
    watching = asyncio.create_task(_watch(served, pids, report, options, status, stop))
    try:
        async with asyncio.timeout(options.time):
            await _run_scenarios(site, scenarios, options, report, stop)
        report.stopped = not report.ended
    except TimeoutError:
        pass
    finally:
        watching.cancel()
        if attackers:
            attackers.kill()
            attackers.join()
    # All clients are gone now, except one that asks how it was.
    try:
        report.server_errors = await _server_errors(site, options.attack) - errors_before
        report.peak = served.peak()
        status.update("waiting until the last connection is closed")
        report.after = await _settled(served, report.before)
    except (OSError, h11.RemoteProtocolError, psutil.Error):
        report.ended = True
    return report


def _attackers(site: Site, options: argparse.Namespace) -> SpawnProcess | None:
    """The attackers, if there should be any, in a process of their own: they must not keep this one busy."""
    if not options.attack:
        return None
    made = multiprocessing.get_context("spawn").Process(
        target=_attack, args=(options.attack, site, options.seed), daemon=True
    )
    made.start()
    return made


def _attack(name: str, site: Site, seed: int) -> None:
    asyncio.run(attack(ATTACKS[name], site, Random(seed)))


async def _crowd(
    site: Site, scenarios: Sequence[Scenario], options: argparse.Namespace, report: Report
) -> None:
    """Every scenario several times at once, before the time begins.

    What the service takes for its worst moment it does not give back; if that moment came by chance and late,
    it would look like a leak.
    """
    random = Random(options.seed)
    clients = [(each, Client(site, Random(random.random()))) for each in scenarios for _ in range(CROWD)]
    await asyncio.gather(*(_run(each, client, report.tallies[each.name]) for each, client in clients))


async def _run_scenarios(
    site: Site,
    scenarios: Sequence[Scenario],
    options: argparse.Namespace,
    report: Report,
    stop: asyncio.Event,
) -> None:
    """Begin one after the other, `rate` a second on average, until told to stop; then wait for all."""
    random = Random(options.seed)
    weights = [each.weight for each in scenarios]
    under_way: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    try:
        while not stop.is_set():
            scenario = random.choices(scenarios, weights)[0]
            client = Client(site, Random(random.random()))
            task = asyncio.create_task(_run(scenario, client, report.tallies[scenario.name]))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            # What a stall has kept from beginning is not made up for: it would come as a crowd.
            due = max(time.monotonic(), due + random.expovariate(options.rate))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
            while len(under_way) >= MOST_AT_ONCE:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if under_way:
            await asyncio.wait(under_way)


async def _run(scenario: Scenario, client: Client, tally: Tally) -> None:
    fault = await attempt(scenario, client)
    tally.runs += 1
    tally.answers += client.answers
    tally.seconds += client.seconds
    if fault:
        tally.faults[fault] += 1


async def _watch(
    served: Served,
    pids: set[int],
    report: Report,
    options: argparse.Namespace,
    status: Status,
    stop: asyncio.Event,
) -> None:
    """Take samples, tell how it goes, and say stop when one of the processes is gone."""
    started = time.monotonic()
    while True:
        seconds = time.monotonic() - started
        with suppress(psutil.Error):
            if figures := served.figures():
                report.samples.append(Sample(seconds, figures))
        if served.pids() != pids:
            report.ended = True
            stop.set()
        answers = sum(each.answers for each in report.tallies.values())
        wrong = sum(each.faults.total() for each in report.tallies.values())
        status.update(f"{seconds:.0f} of {options.time:g} s: {answers} right answers, {wrong} faults")
        await asyncio.sleep(options.sample_every)


async def _settled(served: Served, goal: Figures | None = None) -> Figures | None:
    """The figures when no more files are open than in `goal`, or else when they no longer get fewer."""
    figures = served.figures()
    deadline = time.monotonic() + SETTLE_SECONDS
    while figures and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        now = served.figures()
        if now is None or (now.files <= goal.files if goal else now.files >= figures.files):
            return now
        figures = now
    return figures


async def _server_errors(site: Site, attacked: str | None) -> float:
    """How many answers with 5xx the service has counted since it started.

    In an attack 503 is what attackers should get; an ordinary client that gets one has its own line.
    """
    async with Client(site, Random()).connect() as line:
        await line.send([request("GET", "/metrics")])
        text = (await line.answer("GET")).body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_requests_total"
        and sample.labels["status"].startswith("5")
        and not (attacked and sample.labels["status"] == "503")
    )


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    return stop


# ------------------------------------------------------------------------------------------ the service


@contextmanager
def started(model: Path, body_limit: int, log: Path) -> Iterator[Served]:
    """A service of our own, which takes its other settings from the environment.

    Raises:
        LoadError: it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "ESPALIER_MODEL_DIR": model,
        "ESPALIER_HOST": "127.0.0.1",
        "ESPALIER_PORT": port,
        "ESPALIER_MAX_BODY_BYTES": body_limit,
        "ESPALIER_DRAIN_SECONDS": 0,
        "ESPALIER_LOG_FORMAT": "json",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            cwd=ROOT,
            env=os.environ | {name: str(value) for name, value in settings.items()},
            stderr=output,
            # Ctrl-C ends the abuse, and the abuse ends the service.
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, log)
        yield Served(url, psutil.Process(process.pid), log)
    finally:
        process.terminate()
        process.wait()


def found(url: str) -> Served:
    """A service that somebody else has started; its processes are looked at if they are on this machine."""
    address = urlsplit(url)
    if address.scheme != "http" or not address.hostname:
        raise LoadError(f"{url} is not an address such as http://127.0.0.1:8000")
    process = None
    if address.hostname in {"127.0.0.1", "localhost", "::1"}:
        listening = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
            and getattr(each.laddr, "port", 0) == (address.port or 80)
            and each.pid
        }
        # Workers inherit the socket from the one that started them, which is the oldest.
        process = min(map(psutil.Process, listening), key=psutil.Process.create_time, default=None)
    return Served(url, process)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["it says nothing"]
            raise LoadError(f"the service does not start: {lines[-1].removeprefix('error: ')}")
        try:
            read_card(url)
        except LoadError:
            time.sleep(0.05)
        else:
            return


def _errors_in(log: Path) -> list[str]:
    """The messages of the lines that are errors; a line that is no JSON was not meant to be logged."""
    errors = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            errors.append(line)
            continue
        if entry["level"] in {"error", "critical"}:
            errors.append(" ".join([entry["message"].strip(), *entry.get("exception", "").split("\n")[-1:]]))
    return errors


# ------------------------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Abuse a service, report it, and judge it."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        if options.host:
            report = _abuse(found(options.host), options, console)
        else:
            with started(options.model, options.body_limit, options.log) as served:
                report = _abuse(served, options, console)
            report.log_errors = _errors_in(options.log)
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _print(report, console)
    faults = judge(report, options.max_growth_mb * MB, options.max_memory_mb * MB)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        console.print("it took everything, and nothing stayed behind")
    return 1 if faults else 0


def _abuse(served: Served, options: argparse.Namespace, console: Console) -> Report:
    manifest = read_card(served.url)
    console.print(
        f"{escape(manifest.name)} {manifest.version} at {served.url}: {options.time:g} s of abuse, "
        f"about {options.rate:g} scenarios/s, seed {options.seed}",
        soft_wrap=True,
    )
    if served.process is None:
        console.print("its processes are not on this machine: memory and open files are not watched")
    with console.status("asking everything once, in quiet") as status:
        try:
            return asyncio.run(abuse(served, options, status))
        except (WrongError, OSError, h11.RemoteProtocolError) as error:
            raise LoadError(f"already in quiet something is wrong: {error}") from None


def _print(report: Report, console: Console) -> None:
    if report.stopped:
        console.print("stopped early: these are the figures until then")
    for table in tables_of(report):
        console.print()
        console.print(table)
    if memory := memory_of(report.samples):
        console.print(
            f"\nmemory: {_mb(memory.growth, sign=True)} MB from early to late, "
            f"{_mb(memory.slope_per_hour, sign=True)} MB an hour; "
            f"answers with 5xx: {report.server_errors:g}",
            soft_wrap=True,
        )
    if report.peak:
        console.print(f"most memory at any moment: {_mb(report.peak)} MB")
    seconds = [each for tally in report.tallies.values() for each in tally.seconds]
    if len(seconds) > 1:
        shares = quantiles(seconds, n=100)
        middle, high, most = (1000 * each for each in (shares[49], shares[98], max(seconds)))
        console.print(f"single requests: p50 {middle:.1f} ms, p99 {high:.1f} ms, slowest {most:.0f} ms")
    for name, tally in report.tallies.items():
        for fault, count in tally.faults.most_common(3):
            console.print(f"[red]{count:>7}[/]  {escape(name)}: {escape(fault)}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tests.load.abuse",
        description="Abuse a service with slow, rude and broken clients beside ordinary ones, "
        "and hold it to its answers, its memory and its open files.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--time", type=types.seconds, default="1m", help="30s, 10m or 1h30m (default: %(default)s)")
    add("--host", type=types.host, help="what to abuse (default: a service of its own on this machine)")
    add(
        "--attack",
        choices=sorted(ATTACKS),
        help="attack it in this way for the whole time, beside ordinary clients only (default: no attack)",
    )
    add("--rate", type=types.positive, default="20", help="scenarios begun a second (default: %(default)s)")
    add("--seed", type=int, default=1, help="decides what is done in which order (default: %(default)s)")
    add(
        "--body-limit",
        type=types.count,
        default=MB,
        help="what the service takes at most, its ESPALIER_MAX_BODY_BYTES (default: %(default)s)",
    )
    watch = parser.add_argument_group("watching")
    watch.add_argument(
        "--max-growth-mb",
        type=types.positive,
        default="5",
        help="limit for memory, from the second fifth of the time to the last (default: %(default)s)",
    )
    watch.add_argument(
        "--max-memory-mb",
        type=types.positive,
        default="320",
        help="limit for memory at any moment, as a pod has one (default: %(default)s)",
    )
    watch.add_argument(
        "--sample-every",
        type=types.positive,
        default="1",
        metavar="SECONDS",
        help="between two looks at the processes (default: %(default)s)",
    )
    own = parser.add_argument_group("a service of its own, without --host")
    own.add_argument("--model", type=Path, default=ROOT / "model", help="what it serves (default: model/)")
    own.add_argument(
        "--log",
        type=Path,
        default=ROOT / "build/load/abuse.log",
        help="where its log goes (default: build/load/abuse.log)",
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    return table


def _quantiles(samples: Sequence[Sample]) -> tuple[Figures | None, Figures | None]:
    """Medians of the second fifth and of the last, of each figure by itself."""
    if len(samples) < FEWEST_SAMPLES:
        return None, None
    fifth = len(samples) // 5
    early, late = (
        Figures(
            **{
                name: round(median(getattr(each.figures, name) for each in part))
                for name in ("rss", "files", "threads")
            }
        )
        for part in (samples[fifth : 2 * fifth], samples[-fifth:])
    )
    return early, late


def _mb(size: float, *, sign: bool = False) -> str:
    return f"{size / MB:+.1f}" if sign else f"{size / MB:.1f}"


if __name__ == "__main__":
    sys.exit(main())
