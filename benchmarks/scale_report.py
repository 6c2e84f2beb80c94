"""Writes the page and the plot of `benchmarks.scale`."""

from pathlib import Path


def write(result: Path) -> str:
    return result.read_text(encoding="utf-8")[-200:]
