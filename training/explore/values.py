"""Pictures of a target that is a quantity: its distribution, and its values along each feature."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from training.explore.canvas import COLOURS, GREY, arrange, blank, heading, number_ticks
from training.explore.table import (
    CATEGORIES,
    MOST_FEATURES,
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

POINTS = 1000
"""Rows that are drawn as points."""
FEWEST_GROUPS, MOST_GROUPS = 4, 10
"""Along a number: groups of equal size, of which the quantiles are drawn."""
ROWS_EACH = 50
"""Of a group, if there are rows enough: the quantiles of fewer are noise."""
NAMES_BESIDE = 26
"""Characters of a panel's categories that have room side by side."""
FEW = 5
"""Distinct values that are all ticks of an axis."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def target(table: Table) -> Figure:
    """How the target is distributed."""
    whole = table.frame[table.target]
    shown = in_view(whole).dropna()
    edges = bin_edges(shown, table.steps[table.target])
    figure = blank(6, 2.6)
    axes = figure.subplots()
    axes.stairs(
        np.histogram(shown, edges)[0], edges, fill=True, facecolor=(COLOURS[0], 0.4), edgecolor=COLOURS[0]
    )
    low, median, high = whole.quantile([0.25, 0.5, 0.75])
    axes.axvline(median, color=COLOURS[1], linewidth=1.2)
    axes.axvspan(low, high, color=COLOURS[1], alpha=0.08, linewidth=0)
    number_ticks(axes.xaxis, shown)
    axes.set_xlabel(table.target)
    axes.set_ylabel("rows")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", integer=True, nbins=5)
    beyond = len(whole) - len(shown)
    heading(
        figure,
        f"Distribution of {table.target}: {table.training_rows}",
        f"The line is the median, {_short(median)}; half of the rows are in the band, from {_short(low)} to {_short(high)}.",
        f"{beyond:,} rows are beyond what is drawn." if beyond else "",
    )
    return arrange(figure)


def against_target(table: Table) -> Figure:
    """One panel a feature: the target's quantiles along a number, and a box for each category."""
    chosen = best(table, table.features, MOST_FEATURES)
    across = min(8, int(np.ceil(np.sqrt(len(chosen)))))
    down = -(-len(chosen) // across)
    figure = blank(2.85 * across, (2.3 + 0.05 * _longest_name(table, chosen)) * down)
    values = in_view(table.frame[table.target])
    first = None
    for index, name in enumerate(chosen):
        axes = figure.add_subplot(down, across, index + 1, sharey=first)
        first = first or axes
        _panel(axes, table, name, values)
        axes.tick_params(labelleft=index % across == 0)
    if first:
        number_ticks(first.yaxis, values)
        figure.supylabel(table.target, size=8.5)
    heading(
        figure,
        f"{table.target} by feature, {table.training_rows}",
        "Median, middle half and middle 80% of the rows: along a number in groups of equal size, otherwise for each value.",
        selection(table, chosen),
    )
    return arrange(figure)


def _panel(axes: Axes, table: Table, name: str, target: pd.Series[float]) -> None:
    whole = table.frame[name]
    notes = [f"{missing:.1%} missing"] if (missing := whole.isna().mean()) else []
    shown = in_view(whole)
    if beyond := int(whole.notna().sum() - shown.notna().sum()):
        notes.append(f"{beyond:,} rows beyond")
    axes.set_title(textwrap.shorten(name, 34, placeholder="…"), loc="left")
    axes.set_xlabel(", ".join(notes), color=GREY)
    known = shown.notna() & target.notna()
    if not known.any():
        axes.set(xticks=[])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=GREY)
    elif is_category(whole):
        names = _names(shown[known])
        _boxes(axes, shown[known], names, list(range(len(names))), target[known])
        axes.set_xticks(range(len(names)), names, rotation=90 if _are_long(names) else 0)
    elif shown[known].nunique() <= CATEGORIES:
        levels = sorted(shown[known].unique())
        _boxes(axes, shown[known], levels, levels, target[known])
        table.ticks(axes.xaxis, shown[known])
        if len(levels) <= FEW and name not in table.dates:
            axes.set_xticks(levels, [f"{each:g}" for each in levels])
    else:
        _along(axes, shown[known], target[known])
        table.ticks(axes.xaxis, shown[known])


def _names(groups: pd.Series[Any]) -> list[str]:
    return list(groups.cat.remove_unused_categories().cat.categories)


def _are_long(names: list[str]) -> bool:
    return sum(map(len, names)) + 2 * len(names) > NAMES_BESIDE


def _longest_name(table: Table, chosen: list[str]) -> int:
    """Characters of the names that stand upright below a panel."""
    upright = [
        names
        for each in chosen
        if each not in table.steps and _are_long(names := _names(in_view(table.frame[each])))
    ]
    return max((len(name) for names in upright for name in names), default=0)


def _boxes(
    axes: Axes,
    groups: pd.Series[Any],
    values: Sequence[Any],
    places: Sequence[float],
    target: pd.Series[float],
) -> None:
    stats = []
    for value in values:
        low, first, median, third, high = target[groups == value].quantile(list(QUANTILES))
        stats.append({"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high})
    width = 0.6 * (float(np.diff(places).min()) if len(places) > 1 else 1.0)
    blue = {"color": COLOURS[0]}
    axes.bxp(
        stats,
        positions=places,
        widths=width,
        manage_ticks=False,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": (COLOURS[0], 0.25), "edgecolor": COLOURS[0], "linewidth": 0.8},
        whiskerprops=blue,
        capprops=blue,
        medianprops={"color": COLOURS[1], "linewidth": 1.5},
    )
    axes.set_xlim(min(places) - width, max(places) + width)


def _along(axes: Axes, numbers: pd.Series[float], target: pd.Series[float]) -> None:
    order = np.random.default_rng(0).permutation(len(numbers))[:POINTS]
    axes.scatter(
        numbers.iloc[order], target.iloc[order], s=4, color=GREY, alpha=0.25, linewidth=0, rasterized=True
    )
    places, quantiles = quantiles_along(numbers, target)
    low, first, median, third, high = quantiles
    axes.fill_between(places, low, high, color=COLOURS[0], alpha=0.12, linewidth=0)
    axes.fill_between(places, first, third, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(places, median, color=COLOURS[1], linewidth=1.5, marker="o", markersize=2.5)


def quantiles_along(numbers: pd.Series[float], target: pd.Series[float]) -> tuple[Floats, Floats]:
    """Where the groups of a number are, and the target's quantiles in each of them."""
    count = int(np.clip(len(numbers) // ROWS_EACH, FEWEST_GROUPS, MOST_GROUPS))
    edges = np.unique(numbers.quantile(np.linspace(0, 1, count + 1)))
    groups = np.searchsorted(edges[1:-1], numbers, side="left")
    places = np.asarray(numbers.groupby(groups).median(), dtype=np.float64)
    found = target.groupby(groups).quantile(np.array(QUANTILES)).unstack()
    return places, np.asarray(found, dtype=np.float64).T


def _short(value: float) -> str:
    """Four digits, in the notation that needs fewer characters."""
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{float(f'{value:.4g}'):,.0f}"
