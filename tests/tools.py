"""What tests need beside Python: programs, found or a reason to skip, ports, servers, examples, and DVC."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NoReturn

import pytest
from hypothesis import settings

from common.ports import free_port
from deploy.rehearsal import containers

__all__ = [
    "free_port",
    "missing",
    "require",
    "require_built",
    "require_containers",
    "require_group",
    "require_package",
]


def require(tool: str) -> str:
    """The path of a program.

    Without it the test is skipped by name; under REQUIRE_TOOLS=1, as in CI, it fails instead.
    """
    beside_python = str(Path(sys.executable).parent)
    path = shutil.which(tool) or shutil.which(tool, path=beside_python)
    return path if path is not None else missing(tool)


def require_package(name: str) -> None:
    """Skip or fail, as `require` does, without a package of Python."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing(name)


def require_group(name: str, groups: str) -> None:
    """Skip without a package that only a group of its own brings; only REQUIRE_TOOLS=all insists on it."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing(f"{name} (`uv sync --inexact {groups}`)", insists=("all",))


def require_built(tool: str, how: str) -> str:
    """The path of a program that takes too long to build for each run of CI: only REQUIRE_TOOLS=all insists on it."""
    return shutil.which(tool) or missing(f"{tool} ({how})", insists=("all",))


def require_containers() -> None:
    """Skip or fail, as `require` does, without what builds images and runs containers."""
    for tool in containers.TOOLS:
        require(tool)
    if os.geteuid() != 0:
        pytest.skip("debootstrap and containers without a daemon need root")


def missing(what: str, insists: Collection[str] = ("1", "all")) -> NoReturn:
    """Skip the test by the name of what it needs; where REQUIRE_TOOLS insists on it, fail it."""
    wanted = os.environ.get("REQUIRE_TOOLS")
    if wanted in insists:
        pytest.fail(f"{what} is not installed, and REQUIRE_TOOLS={wanted} forbids to skip", pytrace=False)
    pytest.skip(f"{what} is not installed")


def examples(count: int) -> int:
    """How many examples a costly property test gets: `make explore` tries ten times as many."""
    return count * (10 if settings.get_current_profile_name() == "explore" else 1)


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on this machine; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dvc(folder: Path, *arguments: str) -> None:
    """Run DVC in this process: its start takes ten times as long as most of its commands."""
    from dvc.cli import main

    before = Path.cwd()
    try:
        status = main(["--cd", str(folder), *arguments])
    finally:
        os.chdir(before)
    assert status == 0, f"dvc {' '.join(arguments)} ended with {status}"
