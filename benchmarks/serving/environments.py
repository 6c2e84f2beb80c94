"""Creates an environment for each peer once, and reuses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.serving.errors import BenchmarkError

PEERS = Path(__file__).with_name("peers")
MARKER = "installed.txt"


def python_of(peer: str, folder: Path) -> str:
    """The interpreter of `folder/peer`, which has what `peers/requirements-<peer>.txt` asks for.

    Raises:
        BenchmarkError: it cannot be installed.
    """
    requirements = PEERS / f"requirements-{peer}.txt"
    environment = folder / peer
    python, marker = environment / "bin" / "python", environment / MARKER
    # Written last, so that an incomplete environment, or one with other versions, is created again.
    if not marker.exists() or marker.read_bytes() != requirements.read_bytes():
        shutil.rmtree(environment, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(environment))
        _uv("pip", "install", "--python", str(python), "-r", str(requirements))
        shutil.copyfile(requirements, marker)
    return str(python)


def version_of(peer: str) -> str:
    """The version of a peer that is pinned."""
    pins = (PEERS / f"requirements-{peer}.txt").read_text(encoding="utf-8").splitlines()
    return next(pin.removeprefix(f"{peer}==") for pin in pins if pin.startswith(f"{peer}=="))


def _uv(*arguments: str) -> None:
    own = Path(__file__).parents[2] / ".uv" / "bin"
    uv = shutil.which("uv", path=f"{os.environ.get('PATH', os.defpath)}:{own}")
    if uv is None:
        raise BenchmarkError("uv is not installed")
    done = subprocess.run(
        [uv, "--quiet", *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise BenchmarkError(f"uv {arguments[0]} failed: {said[:300]}")
