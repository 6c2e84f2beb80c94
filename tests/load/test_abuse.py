"""The verdict on made-up reports, and whole runs: against a sound service, a dying one, and ones that are bad."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import psutil
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.contract import read_bundle
from app.main import create_app
from app.settings import Settings
from tests.bundles import write_number_bundle
from tests.load import abuse
from tests.load.abuse import MB, Figures, Report, Sample, Tally, judge, memory_of
from tests.load.run import ROOT

LIMIT_SECONDS = 120
GROWTH = 5 * MB
QUIET = Figures(rss=100 * MB, files=20, threads=4)


def samples(sizes_mb: Sequence[float]) -> list[Sample]:
    return [Sample(second, replace(QUIET, rss=int(size * MB))) for second, size in enumerate(sizes_mb)]


def report(**changes: object) -> Report:
    content: dict[str, object] = {
        "tallies": {"ordinary": Tally(runs=10, answers=100)},
        "samples": samples([100] * 50),
        "before": QUIET,
        "after": QUIET,
    }
    return Report(**(content | changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ the verdict


def test_a_service_that_took_everything_has_no_faults() -> None:
    assert judge(report(), GROWTH) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ended": True}, "a process of the service ended"),
        ({"server_errors": 2}, "the service counted 2 answers with 5xx"),
        ({"tallies": {"ordinary": Tally(runs=3)}}, "nothing was answered"),
        (
            {"tallies": {"slow": Tally(9, 9, Counter({"stuck": 2})), "idle": Tally(9, 9, Counter({"x": 1}))}},
            "3 times a client did not get what it was owed",
        ),
        ({"log_errors": ["boom", "bang"]}, "the service logged 2 errors, the first: boom"),
        ({"after": replace(QUIET, files=23)}, "3 files stayed open after the last client had gone"),
        (
            {"samples": samples([100] * 30 + [106] * 20)},
            "memory grew by 6.0 MB, over the limit of 5.0 MB",
        ),
    ],
)
def test_each_fault_is_one_line(changes: dict[str, object], fault: str) -> None:
    assert judge(report(**changes), GROWTH) == [fault]


def test_all_faults_are_named_together() -> None:
    assert len(judge(report(ended=True, server_errors=1, log_errors=["boom"]), GROWTH)) == 3


def test_a_service_elsewhere_is_judged_by_its_answers_alone() -> None:
    assert judge(report(samples=[], before=None, after=None), GROWTH) == []


def test_fewer_files_than_before_are_no_leak() -> None:
    assert judge(report(after=replace(QUIET, files=18)), GROWTH) == []


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([60, 80, 95, 99] + [100] * 36, id="taken while warming up"),
        pytest.param([100, 100, 100, 140] * 10, id="taken for moments"),
        pytest.param([100 + second % 7 for second in range(40)], id="to and fro"),
        pytest.param([100] * 16 + [80] * 24, id="given back"),
        pytest.param([100] * 5 + [400] * 4, id="too short to tell"),
    ],
)
def test_memory_that_is_no_leak(sizes: list[float]) -> None:
    assert judge(report(samples=samples(sizes)), GROWTH) == []


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([100 + second * 0.2 for second in range(60)], id="steady"),
        pytest.param([100 + second * 0.2 + second % 5 for second in range(60)], id="noisy"),
        pytest.param([100] * 40 + [110] * 20, id="in one step"),
    ],
)
def test_memory_that_is_a_leak(sizes: list[float]) -> None:
    (fault,) = judge(report(samples=samples(sizes)), GROWTH)

    assert fault.startswith("memory grew by")


def test_the_slope_is_per_hour() -> None:
    memory = memory_of(samples([100 + second * 0.01 for second in range(100)]))

    assert memory is not None
    assert memory.slope_per_hour / MB == pytest.approx(36, rel=0.001)


# ------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--time", "soon", "soon is not a time such as 30s, 5m or 1h30m"),
        ("--rate", "0", "0 is not a number above 0"),
        ("--max-growth-mb", "-1", "-1 is not a number above 0"),
        ("--body-limit", "1.5", "1.5 is not a whole number from 1"),
        ("--seed", "x", "invalid int value"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    option: str, value: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        abuse.main([f"{option}={value}"])

    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: argument {option}: ")
    assert why in line


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--host", "127.0.0.1:1"], r"http://127.0.0.1:1 does not answer \(.+\): .*"),
        (
            ["--host", "https://127.0.0.1"],
            "https://127.0.0.1 is not an address such as http://127.0.0.1:8000",
        ),
        (["--model", "nowhere"], "the service does not start: no model bundle: .*"),
    ],
)
def test_nothing_to_abuse_is_one_line(
    options: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert abuse.main([*options, "--log", str(tmp_path / "log")]) == 1
    assert re.fullmatch(f"error: {why}\n", capsys.readouterr().err)


# ------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("numbers")
    write_number_bundle(directory)
    return directory


@pytest.mark.long("app", "tests/load")
def test_a_sound_service_passes(model: Path, tmp_path: Path) -> None:
    # So short a run is all warm-up, which is no leak.
    with started("--model", str(model), "--time", "8s", "--max-growth-mb", "500", log=tmp_path) as process:
        output, error = process.communicate(timeout=LIMIT_SECONDS)

    assert error == "", output
    assert process.returncode == 0
    assert "nothing stayed behind" in output


@pytest.mark.slow
def test_a_service_that_dies_ends_the_abuse(model: Path, tmp_path: Path) -> None:
    with started("--model", str(model), "--time", "1h", log=tmp_path) as process:
        victim = wait_until_abused(process)
        victim.kill()
        error = process.communicate(timeout=LIMIT_SECONDS)[1]

    assert process.returncode == 1
    assert "error: a process of the service ended\n" in error


@pytest.mark.slow
def test_a_service_that_is_wrong_from_the_start_is_one_line(model: Path, tmp_path: Path) -> None:
    with (
        pretending(Fails(application(model), after=0)) as host,
        started("--host", host, log=tmp_path) as process,
    ):
        error = process.communicate(timeout=LIMIT_SECONDS)[1]

    assert process.returncode == 1
    assert error == "error: already in quiet something is wrong: one row: 500 instead of 200\n"


@pytest.mark.long("tests/load")
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("fails", r": 500 instead of (200|422)$"),
        ("mixes answers up", r": another answer than in quiet$"),
    ],
)
def test_a_service_that_becomes_bad_is_found_out(model: Path, tmp_path: Path, kind: str, fault: str) -> None:
    bad = {"fails": Fails, "mixes answers up": MixesAnswersUp}[kind](application(model), after=300)
    with pretending(bad) as host, started("--host", host, "--time", "6s", log=tmp_path) as process:
        output, error = process.communicate(timeout=LIMIT_SECONDS)

    assert process.returncode == 1
    assert re.search(r"^error: \d+ times a client did not get what it was owed$", error, re.MULTILINE)
    assert re.search(fault, output, re.MULTILINE)


def wait_until_abused(abuser: subprocess.Popen[str]) -> psutil.Process:
    """The service of an abuser, when it has answered more than is asked in quiet."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        assert abuser.poll() is None
        time.sleep(0.1)
        for service in psutil.Process(abuser.pid).children():
            for each in service.net_connections():
                if each.status == psutil.CONN_LISTEN and answered(f"http://127.0.0.1:{each.laddr[1]}") > 500:
                    return service
    raise AssertionError("the abuse does not begin")


def answered(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=LIMIT_SECONDS) as response:
        text = response.read().decode()
    return sum(float(n) for n in re.findall(r"^http_requests_total\{.*\} (\S+)$", text, re.MULTILINE))


class Spoiled:
    """The real application, except that from some prediction on every tenth is spoiled."""

    def __init__(self, app: ASGIApp, after: int) -> None:
        self._app = app
        self._after = after
        self._predictions = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        number = next(self._predictions)
        await self.predict(scope, receive, send, spoil=number >= self._after and number % 10 == 0)

    async def predict(self, scope: Scope, receive: Receive, send: Send, *, spoil: bool) -> None:
        raise NotImplementedError


class Fails(Spoiled):
    async def predict(self, scope: Scope, receive: Receive, send: Send, *, spoil: bool) -> None:
        async def fail(message: Message) -> None:
            await send({**message, "status": 500} if "status" in message else message)

        await self._app(scope, receive, fail if spoil else send)


class MixesAnswersUp(Spoiled):
    _last: Sequence[Message] = ()

    async def predict(self, scope: Scope, receive: Receive, send: Send, *, spoil: bool) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        for message in self._last if spoil else messages:
            await send(message)
        if messages[0]["status"] == 200:
            self._last = messages


def application(model: Path) -> ASGIApp:
    return create_app(Settings(model_dir=model), read_bundle(model))


@contextmanager
def pretending(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Iterator[str]:
    """A server in this process."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http="httptools", ws="none", lifespan="off", log_config=None)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def started(*options: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.load.abuse", *options, "--log", str(log / "abuse.log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # So that it takes its service with it.
            process.terminate()
            process.communicate()
