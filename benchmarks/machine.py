"""Describes the machine of a benchmark, without which its figures mean nothing, and times commands on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent


def cpu() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    names: list[str] = []
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
    return names[0] if names else platform.machine()


def versions(packages: Iterable[str]) -> str:
    """Installed versions, as in "numpy 2.4.6, orjson 3.13.0"."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def timed(folder: Path, command: Sequence[str], **environment: str) -> tuple[float, str]:
    """Seconds and output of a command, with the project's programs; ends the benchmark if the command fails."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"error: {' '.join(command[:3])} failed:\n{done.stdout[-2000:]}{done.stderr}")
    return seconds, done.stdout
