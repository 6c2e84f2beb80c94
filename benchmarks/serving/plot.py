"""Draws the results: one row per request on the left, many rows on the right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.results import Comparison, Results, Spread
from training.explore.canvas import style

OURS, OTHERS, BARE = "#2f6db3", "#c9893a", "#9aa0a6"
LEGEND = {OURS: "this service", OTHERS: "other ways to serve", BARE: "uvicorn with a constant answer"}


@dataclass(frozen=True)
class _Bar:
    name: str
    per_second: float
    note: str
    colour: str


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    bars: Sequence[_Bar]


def svg(results: Results) -> bytes | None:
    """The picture; None if nothing that belongs in it was measured."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels = [
        _Panel("One row per request", "requests per second", _one_row(results)),
        _Panel("1,000 rows per request", "rows per second", _batch(results)),
    ]
    panels = [panel for panel in panels if panel.bars]
    if not panels:
        return None
    # Text stays text, and the salt makes the file reproducible.
    with matplotlib.rc_context({**style(), "svg.fonttype": "none", "svg.hashsalt": "espalier"}):
        most = max(len(panel.bars) for panel in panels)
        figure = Figure(figsize=(6 * len(panels), 1.2 + 0.28 * most), facecolor="white", layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel, most)
        handles = [Patch(color=colour, label=name) for colour, name in LEGEND.items()]
        figure.legend(
            handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _one_row(results: Results) -> list[_Bar]:
    bars = []
    if part := results.parts.get("one-row"):
        bars = [_bar(each, OURS, "{} of bare") for each in part.comparisons]
        beside = [each.median_beside(lambda figures: figures.per_second) for each in part.comparisons]
        bars.append(_Bar("bare server", sum(beside) / len(beside), "", BARE))
    if part := results.parts.get("peers"):
        bars += [_bar(each, OTHERS, "ours is {} × as fast") for each in part.comparisons]
    return sorted(bars, key=lambda bar: bar.per_second)


def _batch(results: Results) -> list[_Bar]:
    bars = []
    if part := results.parts.get("batch"):
        bars = [_bar(each, OURS, "{} × plain FastAPI") for each in part.comparisons]
        beside = [each.median_beside(lambda figures: figures.per_second) for each in part.comparisons]
        bars.append(_Bar(part.comparisons[0].base, sum(beside) / len(beside), "", OTHERS))
    return sorted(bars, key=lambda bar: bar.per_second)


def _bar(comparison: Comparison, colour: str, note: str) -> _Bar:
    ratio = Spread.of(comparison.ratios()).median
    text = f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}" if ratio < 20 else f"{ratio:.0f}"
    name = comparison.name.replace("`", "").replace("_", " ")
    return _Bar(name, comparison.median(lambda figures: figures.per_second), note.format(text), colour)


def _draw(axes: Any, panel: _Panel, most: int) -> None:
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    bars = panel.bars
    axes.set_title(panel.title, loc="left", fontweight="bold")
    axes.set_xlabel(f"{panel.unit}, logarithmic", loc="left")
    places = range(len(bars))
    axes.barh(places, [bar.per_second for bar in bars], color=[bar.colour for bar in bars], height=0.7)
    axes.set_yticks(places, [bar.name for bar in bars])
    axes.tick_params(axis="y", length=0)
    # Bars of one thickness in both panels, from the top.
    axes.set_ylim(len(bars) - most - 0.5, len(bars) - 0.5)
    # From tens to tens of thousands: on a linear scale the small ones would be invisible.
    axes.set_xscale("log")
    axes.set_xlim(min(bar.per_second for bar in bars) / 3, max(bar.per_second for bar in bars) * 20)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    for place, bar in zip(places, bars, strict=True):
        rate = f"{float(f'{bar.per_second:.3g}'):,.0f}"
        text = f"{rate} · {bar.note}" if bar.note else rate
        axes.annotate(
            text,
            (bar.per_second, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
