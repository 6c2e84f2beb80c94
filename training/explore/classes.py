"""Pictures of a target with classes: their balance, and the distributions of the features in each."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from training.explore.canvas import GREY, arrange, blank, heading
from training.explore.table import (
    MOST_FEATURES,
    OVERLAID_CLASSES,
    Floats,
    Table,
    best,
    bin_edges,
    in_view,
    is_category,
    selection,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def class_balance(table: Table) -> Figure:
    from matplotlib.ticker import MaxNLocator

    counts = np.array(table.counts or table.frame[table.target].value_counts(sort=False))
    figure = blank(6, 0.34 * len(counts) + 0.6)
    axes = figure.subplots()
    bars = axes.barh(range(len(counts)), counts, color=list(table.palette().values()))
    axes.bar_label(bars, [f"{each:,}  ({each / max(counts.sum(), 1):.0%})" for each in counts], padding=4)
    axes.set_yticks(range(len(counts)), table.classes)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlabel("rows")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    heading(figure, f"Class balance: {table.rows or len(table.frame):,} training rows by {table.target}")
    return arrange(figure)


def distributions(table: Table) -> Figure:
    """One panel a feature: each class's histogram in its colour or, with many classes, as a row of shades."""
    chosen = best(table, table.features, MOST_FEATURES)
    across = min(8, int(np.ceil(np.sqrt(len(chosen)))))
    down = -(-len(chosen) // across)
    height = 2.3 if table.overlaid else max(1.9, 0.7 + 0.13 * len(table.classes))
    figure = blank(2.85 * across, height * down)
    for index, name in enumerate(chosen):
        axes = figure.add_subplot(down, across, index + 1)
        _panel(axes, table, name, is_first=index % across == 0)
    if table.overlaid:
        legend(figure, table, 1, OVERLAID_CLASSES)
        caption = "Share of each class's rows: a class adds up to 100%, however many rows it has."
    else:
        caption = "Shade: share of the class's rows in that bin, on a square-root scale; darker is more."
    title = f"Distributions by {table.target}, {table.training_rows}"
    heading(figure, title, caption, selection(table, chosen))
    return arrange(figure)


def _panel(axes: Axes, table: Table, name: str, is_first: bool) -> None:
    whole = table.frame[name]
    notes = [f"{missing:.1%} missing"] if (missing := whole.isna().mean()) else []
    shown = in_view(whole).dropna()
    if beyond := int(whole.notna().sum()) - len(shown):
        notes.append(f"{beyond:,} rows beyond")
    axes.set_title(textwrap.shorten(name, 34, placeholder="…"), loc="left")
    if shown.empty:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=GREY)
        return
    if categorical := is_category(whole):
        shown = shown.cat.remove_unused_categories()
    edges = bin_edges(shown, table.steps.get(name, 1))
    shares = class_shares(table, shown, edges)
    if table.overlaid:
        (_bars if categorical else outlines)(axes, table, shares, edges)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.locator_params(axis="y", nbins=3)
        axes.set_ylabel("share of class" if is_first else "")
    else:
        _shades(axes, shares, edges)
        names = table.classes if is_first else []
        axes.set_yticks(range(len(names)), names)
    if categorical:
        axes.set_xticks(range(len(shown.cat.categories)), shown.cat.categories, rotation=90)
    else:
        table.ticks(axes.xaxis, shown)
    axes.set_xlabel(", ".join(notes), color=GREY)


def class_shares(table: Table, values: pd.Series[Any], edges: Floats) -> Floats:
    """How the rows of each class are spread over the bins; one row a class, which adds up to 1."""
    classes = table.frame.loc[values.index, table.target].cat.codes
    numbers = values.cat.codes if is_category(values) else values
    counts = [np.histogram(numbers[classes == each], edges)[0] for each in range(len(table.classes))]
    return np.array([each / max(each.sum(), 1) for each in counts], dtype=float)


def outlines(axes: Axes, table: Table, shares: Floats, edges: Floats) -> None:
    for share, colour in reversed(list(zip(shares, table.palette().values(), strict=True))):
        if share.any():
            axes.stairs(share, edges, fill=True, facecolor=(colour, 0.15), edgecolor=colour, linewidth=1)


def _bars(axes: Axes, table: Table, shares: Floats, edges: Floats) -> None:
    """Those of one category side by side."""
    width = 0.8 / len(shares)
    for index, (share, colour) in enumerate(zip(shares, table.palette().values(), strict=True)):
        axes.bar(edges[:-1] + 0.1 + index * width, share, width, align="edge", color=colour)


def stack(axes: Axes, table: Table, shares: Floats, edges: Floats) -> None:
    below = np.zeros(len(edges) - 1)
    for share, colour in reversed(list(zip(shares, table.palette().values(), strict=True))):
        axes.stairs(below + share, edges, baseline=below, fill=True, color=colour, alpha=0.75, linewidth=0)
        below = below + share


def _shades(axes: Axes, shares: Floats, edges: Floats) -> None:
    from matplotlib.colors import PowerNorm

    rows = np.arange(-0.5, len(shares))
    shown = np.ma.masked_equal(shares, 0)
    mesh = axes.pcolormesh(edges, rows, shown, cmap="Blues", norm=PowerNorm(0.5, vmin=0))
    mesh.sticky_edges.x[:] = mesh.sticky_edges.y[:] = []
    axes.yaxis.set_inverted(True)


def legend(figure: Figure, table: Table, left: float, rows: int) -> None:
    from matplotlib.lines import Line2D

    colours, markers = table.palette(), table.markers()
    figure.legend(
        [Line2D([], [], linestyle="", marker=markers[each], color=colours[each]) for each in table.classes],
        table.classes,
        title=table.target,
        loc="upper left",
        bbox_to_anchor=(left, 1),
        ncols=-(-len(table.classes) // rows),
        alignment="left",
    )
