"""Draws the figures: one row per request on the left, many rows on the right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.results import Comparison, Results, Spread
from training.explore import style

OURS, OTHERS, BARE = "#2f6db3", "#c9893a", "#9aa0a6"


@dataclass(frozen=True)
class _Bar:
    name: str
    per_second: float
    note: str
    colour: str


def svg(results: Results) -> bytes | None:
    """The picture; None if nothing that belongs in it was measured."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = [
        ("One row per request: requests per second", _one_row(results)),
        ("1,000 rows per request: rows per second", _batch(results)),
    ]
    panels = [(title, bars) for title, bars in panels if bars]
    if not panels:
        return None
    # The salt makes the same bytes of the same figures.
    with matplotlib.rc_context({**style(), "svg.hashsalt": "espalier"}):
        most = max(len(bars) for _, bars in panels)
        figure = Figure(
            figsize=(6.2 * len(panels), 0.9 + 0.33 * most), facecolor="white", layout="constrained"
        )
        for axes, (title, bars) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _draw(axes, title, bars)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _one_row(results: Results) -> list[_Bar]:
    bars = []
    if part := results.parts.get("one-row"):
        bars = [_bar(each, OURS, "× bare") for each in part.comparisons]
        beside = [each.median_beside(lambda figures: figures.per_second) for each in part.comparisons]
        bars.append(_Bar("bare server", sum(beside) / len(beside), "", BARE))
    if part := results.parts.get("peers"):
        bars += [_bar(each, OTHERS, "× slower than ours") for each in part.comparisons]
    return sorted(bars, key=lambda bar: bar.per_second)


def _batch(results: Results) -> list[_Bar]:
    bars = []
    if part := results.parts.get("batch"):
        bars = [_bar(each, OURS, "× plain") for each in part.comparisons]
        beside = [each.median_beside(lambda figures: figures.per_second) for each in part.comparisons]
        bars.append(_Bar(part.comparisons[0].base, sum(beside) / len(beside), "", OTHERS))
    return sorted(bars, key=lambda bar: bar.per_second)


def _bar(comparison: Comparison, colour: str, unit: str) -> _Bar:
    ratio = Spread.of(comparison.ratios()).median
    text = f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}" if ratio < 20 else f"{ratio:.0f}"
    name = comparison.name.replace("`", "").replace("_", " ")
    return _Bar(name, comparison.median(lambda figures: figures.per_second), f"{text} {unit}", colour)


def _draw(axes: Any, title: str, bars: Sequence[_Bar]) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    places = range(len(bars))
    axes.barh(places, [bar.per_second for bar in bars], color=[bar.colour for bar in bars], height=0.7)
    axes.set_yticks(places, [bar.name for bar in bars])
    # From hundreds to tens of thousands: on a linear scale the small ones would be invisible.
    axes.set_xscale("log")
    axes.set_xlim(min(bar.per_second for bar in bars) / 3, max(bar.per_second for bar in bars) * 12)
    for place, bar in zip(places, bars, strict=True):
        figures = f" {float(f'{bar.per_second:.3g}'):,.0f}   {bar.note}"
        axes.text(bar.per_second, place, figures, va="center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
