"""Commands in the test's process: the start of a process costs more than most commands do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from common.command import run


class Call(Protocol):
    """Runs a module's `main` in a folder, with these arguments and further variables."""

    def __call__(
        self, main: Callable[[], None], folder: Path, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """What `python -m` would print and end with, programs that the command starts included."""

    def called(
        main: Callable[[], None], folder: Path, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        status = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", [main.__module__, *arguments])
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                run(main)
            except SystemExit as end:
                status = int(end.code or 0)
        return subprocess.CompletedProcess(sys.argv, status, *capfd.readouterr())

    return called
