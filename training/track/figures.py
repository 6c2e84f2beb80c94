"""Draws a chart as a picture, for a tracker that has no such chart of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.explore import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 30
"""Classes and features that a picture names, and cells in a row that have their count written in them."""

Column = Sequence[Any]


def draw(chart: Mapping[str, Any], path: Path) -> None:
    """Draw a `training.track.plan.Chart`, given as a dictionary, into a PNG file."""
    path.write_bytes(canvas.png(lambda: _figure(chart)))


def _figure(chart: Mapping[str, Any]) -> Figure:
    table = chart["table"]
    columns = {name: [row[place] for row in table["data"]] for place, name in enumerate(table["columns"])}
    x, y = columns[chart["x"]], columns[chart["y"]]
    series = columns.get(chart["series"], [])
    figure = canvas.blank(5.6, 4.2)
    axes = figure.add_subplot()
    axes.set_title(chart["title"])
    axes.set_xlabel(chart["x_title"] or chart["x"])
    axes.set_ylabel(chart["y_title"] or chart["y"])
    match chart["kind"]:
        case "confusion":
            _confusion(axes, x, y, series)
        case "curve":
            _curves(axes, x, y, series)
        case "bar":
            _bars(axes, x, y)
        case "scatter":
            axes.scatter(_floats(x), _floats(y), s=9, alpha=0.6, linewidths=0, color=canvas.COLOURS[0])
    return canvas.arrange(figure)


def _confusion(axes: Axes, predicted: Column, actual: Column, counts: Column) -> None:
    names = list(dict.fromkeys(actual))
    places = {name: place for place, name in enumerate(names)}
    cells = np.zeros((len(names), len(names)))
    for row, column, count in zip(actual, predicted, counts, strict=True):
        cells[places[row], places[column]] = count
    shown = canvas.distinct(canvas.shorten(str(each)) for each in names)
    canvas.heatmap(axes, cells, shown, ".0f" if len(names) <= MOST else "", 8, cmap="Blues")
    if len(names) > MOST:
        axes.set_xticks([])
        axes.set_yticks([])


def _curves(axes: Axes, x: Column, y: Column, series: Column) -> None:
    names = list(dict.fromkeys(series))
    for number, name in enumerate(names):
        rows = [place for place, each in enumerate(series) if each == name]
        colour = canvas.COLOURS[number % len(canvas.COLOURS)]
        points = _floats([x[each] for each in rows]), _floats([y[each] for each in rows])
        axes.plot(*points, label=canvas.shorten(str(name)), linewidth=1.4, color=colour)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    if len(names) <= MOST:
        axes.legend()


def _bars(axes: Axes, lengths: Column, names: Column) -> None:
    shown = canvas.distinct(canvas.shorten(str(each)) for each in names[:MOST])
    axes.barh(shown, _floats(lengths[:MOST]), color=canvas.COLOURS[0])
    axes.invert_yaxis()


def _floats(values: Column) -> list[float]:
    """With NaN for a missing value."""
    return [float("nan") if each is None else float(each) for each in values]
