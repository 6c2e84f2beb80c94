"""Starts the stack's processes, notices when one ends, and ends all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from common.errors import EspalierError

START_SECONDS = 60
STOP_SECONDS = 5
"""A part that takes longer to end is killed. Prometheus and the service need about a second."""
LAST_LINES = 8


@dataclass(frozen=True)
class Part:
    """A program of the stack.

    Attributes:
        address: its URL for people and other parts; empty without one.
        ready: path that answers with 200 once the part is ready; empty to not wait.
        optional: the stack goes on without it.
    """

    name: str
    command: Sequence[str]
    address: str = ""
    ready: str = ""
    environment: Mapping[str, str] | None = None
    optional: bool = False


class Processes:
    """Running parts, each in its own process group: Ctrl-C reaches only the stack, which ends them in order."""

    def __init__(self, folder: Path) -> None:
        self._logs = folder
        self._running: dict[str, tuple[Part, subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._keeper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("keeper.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop()
        finally:
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()
            self._keeper.wait()

    def start(self, part: Part) -> None:
        """Start a part and wait until it is ready.

        Raises:
            EspalierError: it ends, or is not ready in time; its last lines are on stderr.
        """
        with self.log(part.name).open("wb") as output:
            try:
                process = subprocess.Popen(
                    list(part.command),
                    env=None if part.environment is None else {**os.environ, **part.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise EspalierError(f"cannot start {part.name}: {error.strerror}") from None
        self._running[part.name] = part, process
        self._tell("+", process.pid)
        deadline = time.monotonic() + START_SECONDS
        while part.ready and not _answers(part.address + part.ready):
            self.check()
            if part.name not in self._running:
                return
            if time.monotonic() > deadline:
                self._last_words(part.name)
                raise EspalierError(
                    f"{part.name} does not get ready within {START_SECONDS} s: see {self.log(part.name)}"
                )
            time.sleep(0.1)

    def check(self) -> None:
        """Check that all parts still run.

        Raises:
            EspalierError: a necessary part has ended; its last lines are on stderr.
        """
        for name, (part, process) in list(self._running.items()):
            if process.poll() is None:
                continue
            self._forget(name)
            self._last_words(name)
            how = f"status {process.returncode}" if process.returncode >= 0 else _signal(-process.returncode)
            if not part.optional:
                raise EspalierError(f"{name} ended with {how}: its log is {self.log(name)}")
            print(f"{name} ended with {how}: the stack goes on without it", file=sys.stderr)

    def running(self) -> dict[str, tuple[Part, int]]:
        """Every running part with its process id, in the order of their start."""
        return {name: (part, process.pid) for name, (part, process) in self._running.items()}

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _stop(self) -> None:
        """End all parts at once; one that takes too long is killed."""
        for _, process in self._running.values():
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for name, (_, process) in list(self._running.items()):
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _send(process, signal.SIGKILL)
                process.wait()
            # Its children are in the same group.
            _send(process, signal.SIGKILL)
            self._forget(name)

    def _forget(self, name: str) -> None:
        _, process = self._running.pop(name)
        self._tell("-", process.pid)

    def _tell(self, what: str, pid: int) -> None:
        with contextlib.suppress(OSError):  # the keeper was killed
            if self._keeper.stdin is not None:
                self._keeper.stdin.write(f"{what}{pid}\n".encode())
                self._keeper.stdin.flush()

    def _last_words(self, name: str) -> None:
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines[-LAST_LINES:]:
            print(f"{name}: {line}", file=sys.stderr)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _send(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, how)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
