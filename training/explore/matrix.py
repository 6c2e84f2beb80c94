"""Pictures of features against each other: the scatter matrix and the correlation."""

from __future__ import annotations

import textwrap
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from training.explore.association import associations
from training.explore.canvas import COLOURS, arrange, blank, heading, heatmap, shorten
from training.explore.classes import class_shares, legend, outlines, stack
from training.explore.table import (
    DISCRETE,
    MOST_FEATURES,
    Floats,
    Table,
    best,
    bin_edges,
    in_view,
    informative,
    is_category,
    most_frequent,
    selection,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SCATTER_ROWS = 1500


def scatter_matrix(table: Table) -> Figure:
    chosen = informative(table)
    order = np.random.default_rng(0).permutation(len(table.frame))
    frame = table.frame.iloc[np.sort(order[:SCATTER_ROWS])]
    # A category is drawn by its position, because points on a categorical axis cannot be spread.
    values = frame[chosen].apply(lambda each: _places(table, each) if is_category(each) else in_view(each))
    points = values.apply(_spread)
    count = len(chosen)
    figure = blank(1.58 * count + 0.6, 1.58 * count + 0.5)
    left, bottom = 0.6 / figure.get_figwidth(), 0.5 / figure.get_figheight()
    grid = figure.add_gridspec(
        count, count, left=left, right=1, bottom=bottom, top=1, wspace=0.16, hspace=0.16
    )
    diagonal: list[Axes] = []
    for row, below in enumerate(chosen):
        first = None
        for column, beside in enumerate(chosen[:row]):
            axes = figure.add_subplot(grid[row, column], sharex=diagonal[column], sharey=first)
            first = first or axes
            _points(axes, table, points[beside], points[below])
            axes.tick_params(labelleft=not column, labelbottom=row == count - 1)
        if first:
            first.set_ylabel(textwrap.fill(below, 20))
            _ticks(first.yaxis, table, below)
        axes = figure.add_subplot(grid[row, row])
        diagonal.append(axes)
        if len(shown := values[below].dropna()):
            edges = bin_edges(shown, table.steps.get(below, 1))
            _on_diagonal(axes, table, shown, edges)
        axes.yaxis.set_visible(False)
        axes.spines.left.set_visible(False)
        axes.tick_params(labelbottom=row == count - 1)
        _ticks(axes.xaxis, table, below)
    for axes, name in zip(figure.axes[-count:], chosen, strict=True):
        axes.set_xlabel(textwrap.fill(name, 20))
        if name not in table.steps:
            axes.tick_params(axis="x", rotation=90)
    # In the empty upper right, no taller than the first panel.
    if table.task == "classification":
        legend(figure, table, 1.2 / count, 7)
    elif len(diagonal) > 1:
        _colour_bar(figure, table, diagonal[0])
    rows = table.rows or len(table.frame)
    title = f"Scatter matrix of {replace(table, frame=frame, rows=rows if rows > len(frame) else None).training_rows}"
    heading(figure, title, _scatter_caption(table, chosen))
    return figure


def _on_diagonal(axes: Axes, table: Table, values: pd.Series[Any], edges: Floats) -> None:
    if table.task == "regression":
        axes.stairs(np.histogram(values, edges)[0], edges, fill=True, color=COLOURS[0], alpha=0.4)
        return
    shares = class_shares(table, values, edges)
    (outlines if table.overlaid else stack)(axes, table, shares, edges)


def _shading(table: Table) -> dict[str, Any]:
    """Colours by the target's value, from its low to its high values in view."""
    values = in_view(table.frame[table.target])
    return {"cmap": "viridis", "vmin": float(values.min()), "vmax": float(values.max())}


def _colour_bar(figure: Figure, table: Table, first: Axes) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shading = _shading(table)
    box = first.get_position()
    axes = figure.add_axes((box.x1 + 0.35 * box.width, box.y0, 0.1 * box.width, 0.8 * box.height))
    norm = Normalize(shading["vmin"], shading["vmax"])
    bar = figure.colorbar(ScalarMappable(norm, shading["cmap"]), cax=axes)
    bar.outline.set_visible(False)
    table.ticks(axes.yaxis, table.frame[table.target])
    axes.set_title(table.target, loc="left")


def _points(axes: Axes, table: Table, across: pd.Series[float], up: pd.Series[float]) -> None:
    """Each class in its colour and with its marker, in the order of the rows: no class covers the others."""
    from matplotlib.markers import MarkerStyle

    known = across.notna() & up.notna()
    if table.task == "regression":
        values = table.frame.loc[known.index[known], table.target]
        axes.scatter(across[known], up[known], s=14, c=values, alpha=0.65, linewidth=0, **_shading(table))
        return
    classes = table.frame.loc[known.index[known], table.target]
    styles = {name: MarkerStyle(each) for name, each in table.markers().items()}
    paths = {name: each.get_path().transformed(each.get_transform()) for name, each in styles.items()}
    colours = classes.astype(object).map(table.palette())
    drawn = axes.scatter(across[known], up[known], s=14, c=colours, alpha=0.65, linewidth=0)
    drawn.set_paths([paths[each] for each in classes])


def _places(table: Table, some: pd.Series[Any]) -> pd.Series[Any]:
    """The positions of categories, of which all rows decide which are the rare ones."""
    codes = most_frequent(table.frame[some.name]).cat.codes
    return codes.where(codes >= 0)[some.index]


def _ticks(axis: Axis, table: Table, name: str) -> None:
    values = table.frame[name]
    if is_category(values):
        names = [shorten(each, 14) for each in most_frequent(values).cat.categories]
        axis.set_ticks(range(len(names)), names)
    else:
        table.ticks(axis, values)


def _scatter_caption(table: Table, chosen: list[str]) -> str:
    varying = [each for each in table.numbers if table.frame[each].nunique() > 1]
    sentences = []
    if len(chosen) < len(varying):
        sentences.append(selection(table, chosen))
    elif len(chosen) < len(table.features):
        sentences.append("Numbers that vary.")
    if any(1 < table.frame[each].nunique() <= DISCRETE or each not in table.steps for each in chosen):
        sentences.append("Few-valued features are spread a little.")
    if any(in_view(table.frame[each]).count() < table.frame[each].count() for each in chosen):
        sentences.append("Long tails are cut off.")
    of = "the distribution" if table.task == "regression" else "each class's own distribution"
    return " ".join(sentences) or f"On the diagonal: {of}."


def _spread(values: pd.Series[float]) -> pd.Series[float]:
    """Noise where many rows share few values, so that their points do not hide each other."""
    levels = np.unique(values.dropna())
    if not 1 < len(levels) <= DISCRETE:
        return values
    noise = np.random.default_rng(zlib.crc32(str(values.name).encode())).uniform(-0.28, 0.28, len(values))
    return values + noise * float(np.diff(levels).min())


def correlation(table: Table) -> Figure:
    """Association of every feature with every other and with the class, on one scale from -1 to 1."""
    chosen = best(table, table.features, MOST_FEATURES)
    values = associations(table.frame[[*chosen, table.target]])
    count = len(values)
    side = count * float(np.clip(9.5 / count, 0.15, 0.55))
    figure = blank(side + 2.5, side + 1.5)
    axes = figure.subplots()
    annotation = ".2f" if count <= 30 else ""
    size = float(np.clip(130 / count, 5.5, 8))
    image = heatmap(
        axes, values, [*chosen, table.target], annotation, size=size, cmap="RdBu_r", vmin=-1, vmax=1
    )
    figure.colorbar(image, ax=axes, shrink=0.6, use_gridspec=False).outline.set_visible(False)
    axes.tick_params(labelsize=float(np.clip(380 / count, 5.5, 9)))
    axes.set_facecolor("#eeeeee")
    axes.axhline(count - 1.5, color="white", linewidth=2)
    axes.axvline(count - 1.5, color="white", linewidth=2)
    caption = _correlation_caption(table, chosen)
    heading(figure, f"Correlation of features and {table.target}", caption, selection(table, chosen))
    return arrange(figure)


def _correlation_caption(table: Table, chosen: list[str]) -> str:
    categories = len(set(chosen) - set(table.steps)) + (table.task == "classification")
    if not categories:
        return "Pearson's r."
    kinds = "correlation ratio" if categories == 1 else "correlation ratio, Cramér's V"
    what = "a category or the class" if table.task == "classification" else "a category"
    return f"Numbers: Pearson's r. With {what}: strength without a sign ({kinds})."
