"""A project to release from, and commands in the test's process: starting one costs more than most commands do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from common.command import run
from tests.deploy import project as projects
from tests.deploy import registries
from tests.deploy.project import Project
from tests.deploy.registries import Server


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with registries.serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, registry: Server, monkeypatch: pytest.MonkeyPatch) -> Project:
    projects.isolate(monkeypatch, tmp_path / "home")
    return projects.make(tmp_path / "project", registry)


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
