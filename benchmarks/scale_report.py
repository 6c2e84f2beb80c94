"""Writes the page and the plot of `benchmarks.scale` from its results."""

from __future__ import annotations

import datetime
import io
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from training.explore.canvas import COLOURS, style

Figures = Mapping[str, float]
FIRST = 100_000
"""Rows from which the exponents are fitted: below, a stage's time is that of its imports."""


def write(results: Path) -> str:
    """Write scale.md and scale.svg beside the results; returns the page."""
    measured: dict[str, dict[str, Figures]] = json.loads(results.read_text(encoding="utf-8"))
    page = _page(measured)
    results.with_suffix(".md").write_text(page, encoding="utf-8")
    results.with_suffix(".svg").write_bytes(_picture(measured))
    return page


def series(measured: Mapping[str, Mapping[str, Figures]], features: int) -> dict[str, dict[int, Figures]]:
    """By what was measured, the figures by number of rows; for one number of columns."""
    found: dict[str, dict[int, Figures]] = {}
    for size, parts in measured.items():
        rows, _, columns = size.partition(" x ")
        if int(columns) == features:
            for what, figures in parts.items():
                found.setdefault(what, {})[int(rows)] = figures
    return {what: dict(sorted(each.items())) for what, each in found.items()}


def exponent(by_rows: Mapping[int, Figures], key: str = "cpu_seconds") -> float | None:
    """The slope of the figures over the rows, both as logarithms; None for fewer than two sizes."""
    points = [(rows, each[key]) for rows, each in by_rows.items() if rows >= FIRST]
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points, dtype=np.float64)).T
    return float(np.polyfit(x, y, 1)[0])


def _page(measured: Mapping[str, Mapping[str, Figures]]) -> str:
    parts = ["# Time and memory by size", "![Time and memory over rows](scale.svg)"]
    widths = sorted({int(size.partition(" x ")[2]) for size in measured})
    for features in widths:
        found = series(measured, features)
        sizes = sorted({rows for each in found.values() for rows in each})
        parts += [f"## {features} columns", _table(found, sizes)]
    about = (
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine.cpu()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {machine.versions(('pandas', 'pyarrow', 'scikit-learn', 'xgboost-cpu'))}. "
        "A cell has the seconds of the processor, the seconds of the clock and the megabytes of memory. Other work on the machine "
        "makes the seconds of the clock upper bounds. Memory is what only swapping could free; pages of files that are mapped do not count. The exponents are fitted to the processor's seconds "
        f"from {FIRST:,} rows on. Repeat with `python -m benchmarks.scale`."
    )
    return "\n\n".join([*parts, about]) + "\n"


def _table(found: Mapping[str, Mapping[int, Figures]], sizes: list[int]) -> str:
    lines = [
        "| | " + " | ".join(f"{rows:,} rows" for rows in sizes) + " | exponent |",
        "|---|" + "---:|" * (len(sizes) + 1),
    ]
    for what, by_rows in found.items():
        cells = [_cell(by_rows.get(rows)) for rows in sizes]
        slope = exponent(by_rows)
        lines.append(f"| {what} | " + " | ".join(cells) + f" | {'' if slope is None else f'{slope:.2f}'} |")
    return "\n".join(lines)


def _cell(figures: Figures | None) -> str:
    if figures is None:
        return ""
    return f"{_short(figures['cpu_seconds'])} s ({_short(figures['seconds'])} s), {figures['anonymous_mb']:,.0f} MB"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _picture(measured: Mapping[str, Mapping[str, Figures]]) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    found = {what: each for what, each in series(measured, 30).items() if len(each) > 1}
    with matplotlib.rc_context({**style(), "svg.fonttype": "none", "svg.hashsalt": "espalier"}):
        figure = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
        times, memory = figure.subplots(1, 2)
        ticks = sorted({rows for each in found.values() for rows in each})
        for place, (what, by_rows) in enumerate(found.items()):
            look: dict[str, Any] = {
                "color": COLOURS[place % len(COLOURS)],
                "marker": "os^DvPX*"[place % 8],
                "markersize": 4,
                "linestyle": "--" if what.startswith("script") else "-",
            }
            times.plot([*by_rows], [each["cpu_seconds"] for each in by_rows.values()], label=what, **look)
            memory.plot([*by_rows], [each["anonymous_mb"] for each in by_rows.values()], **look)
        for axes, label in ((times, "seconds of the processor"), (memory, "memory in MB")):
            axes.set(xscale="log", yscale="log", xlabel="rows, of 30 columns", ylabel=label)
            axes.grid(alpha=0.3)
            axes.set_xticks(ticks, [f"{rows:,}" if rows < 10**6 else f"{rows // 10**6} M" for rows in ticks])
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.minorticks_off()
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
