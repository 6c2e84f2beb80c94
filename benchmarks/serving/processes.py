"""Starts servers on their own core, and ends all of them."""

from __future__ import annotations

import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.serving.errors import BenchmarkError

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
PATIENCE = 60
"""Seconds to wait for anything before it counts as failed."""
_GRACE = 5
"""Seconds that a server may take to stop when asked to."""


@dataclass(frozen=True)
class Cores:
    """The cores: one for the server alone, another for the load."""

    server: int
    client: int


@dataclass(frozen=True)
class Server:
    """How a server is started; `{port}` in the command or the environment becomes its port."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Running:
    """A server that was started."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]
    started: float
    """`time.perf_counter()` just before."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
        """Send one request on a connection of its own.

        Raises:
            BenchmarkError: there is no answer.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body or None, dict(headers))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise BenchmarkError(f"{method} {path} has no answer: {error}") from error
        finally:
            connection.close()

    def first_answer(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """Repeat a request until the response is a 200.

        Raises:
            BenchmarkError: the server has ended, or goes on answering otherwise.
        """
        deadline = time.monotonic() + PATIENCE
        said = ""
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BenchmarkError(f"the server ended with status {self.process.returncode}: {self.said()}")
            try:
                answer = self.request(method, path, body, headers)
            except BenchmarkError as error:
                said = str(error)
            else:
                if answer.status == 200:
                    return answer
                said = f"{method} {path} is answered with {answer.status}"
            # Short, because the time until the first answer is one of the figures.
            time.sleep(0.001)
        raise BenchmarkError(f"after {PATIENCE} s {said}; its log: {self.said()}")

    def said(self) -> str:
        """The last line of its log."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def cpu_seconds(self) -> float:
        """Processor time used so far by it and its children."""
        total = 0.0
        for each in self._family():
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> tuple[int, int]:
        """Resident bytes (VmRSS) and proportional bytes (PSS), of it and its children."""
        infos = [each.memory_full_info() for each in self._family()]
        return sum(info.rss for info in infos), sum(info.pss for info in infos)

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]


def pick_cores() -> Cores:
    """Two cores that this process may use.

    Raises:
        BenchmarkError: there is only one, or the system cannot pin.
    """
    if shutil.which("taskset") is None:
        raise BenchmarkError("taskset is not installed, and it keeps servers on their core: this needs Linux")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchmarkError("two cores are needed, one for the server and one for the load; there is one")
    # The first core handles most interrupts, so the load gets it.
    return Cores(server=usable[-1], client=usable[0])


@contextmanager
def running(server: Server, core: int) -> Iterator[Running]:
    """A server that was just started; it and its children are ended afterwards."""
    port = _free_port()
    command = [part.format(port=port) for part in server.command]
    own = {name: value.format(port=port) for name, value in server.environment.items()}
    with tempfile.TemporaryFile(prefix="espalier-log-") as log:
        started = time.perf_counter()
        # Access logs are discarded, so that no disk slows a peer down.
        with spawned(
            command, core, env=_environment() | own, stdout=subprocess.DEVNULL, stderr=log
        ) as process:
            yield Running(process, port, log, started)


@contextmanager
def spawned(command: Sequence[str], core: int, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process on a core and in a process group, which is ended afterwards."""
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        **options,
    )
    _tell_guard(f"+{process.pid}")
    try:
        yield process
    finally:
        _stop(process)
        _tell_guard(f"-{process.pid}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    # Its children, and the process itself if it ignored the signal.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@functools.cache
def _guard() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("guard.py"))],
        stdin=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        # Ctrl-C is for this process; the guard ends after it.
        start_new_session=True,
    )


def _tell_guard(line: str) -> None:
    stdin = _guard().stdin
    assert stdin is not None
    stdin.write(line + "\n")
    stdin.flush()


def _environment() -> dict[str, str]:
    """This process's environment without variables that change how a server runs."""
    foreign = ("ESPALIER_", "PROMETHEUS_", "UVICORN_", "PYTHON", "OMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    kept.pop("WEB_CONCURRENCY", None)
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
    return kept


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])
