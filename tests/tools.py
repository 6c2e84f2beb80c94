"""What tests need beside Python: programs, found or a reason to skip, and ports."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

_PORTS = range(20_000, 30_000)
"""Below those that systems choose for connections: no other process gets one before the server under test binds it."""
_places = itertools.count(os.getpid() * 97)
"""Workers have neighbouring process numbers, and so ports of their own."""


def require(tool: str) -> str:
    """The path of a program.

    Without it the test is skipped by name; under REQUIRE_TOOLS=1, as in CI, it fails instead.
    """
    beside_python = str(Path(sys.executable).parent)
    path = shutil.which(tool) or shutil.which(tool, path=beside_python)
    if path is not None:
        return path
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(f"{tool} is not installed, and REQUIRE_TOOLS=1 forbids to skip", pytrace=False)
    pytest.skip(f"{tool} is not installed")


def free_port() -> int:
    """A port of loopback that is free now, and that no other worker is given."""
    for place in itertools.islice(_places, len(_PORTS)):
        port = _PORTS[place % len(_PORTS)]
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise RuntimeError(f"no port of {_PORTS} is free")
