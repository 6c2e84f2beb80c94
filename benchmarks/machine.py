"""Describes the machine of a benchmark, without which its figures mean nothing."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path


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
