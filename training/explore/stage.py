"""Draw the training rows: class balance, distributions by class, scatter matrix, correlation.

Reads  data/train.parquet, data/profile.json
Writes reports/explore/*.png

The same rows give the same bytes: the files name no date and no version, chance has a seed, and a
matplotlibrc on this machine is not looked at.

Of many features, the ones are drawn that tell the classes apart best, so that pictures have a size that a person can
look at. A picture that cannot be drawn is replaced by one that says why; it does not stop the pipeline.
"""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.contract import MISSING_CATEGORY, Feature
from common import files
from training.base import cli
from training.data import dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, less the yellow that white swallows."""
MARKERS = "o^sDvPX"
INK, FAINT = "#222222", "#dddddd"
DPI = 110

SECOND_LINE = 0.15
"""Inches that a second line below the heading takes."""
MOST_FEATURES = 64
"""Of one picture."""
SCATTER_FEATURES = 6
SCATTER_ROWS = 1500
OVERLAID_CLASSES = 6
"""More outlines than this in one panel cannot be told apart: each class gets a row of shades instead."""
BINS = 24
CATEGORIES = 12
DISCRETE = 20
"""A number with at most this many different values is drawn value by value."""

Floats: TypeAlias = NDArray[np.floating[Any]]
Labels: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Column:
    """One feature's training values; a category's are positions in `categories`. NaN where missing."""

    name: str
    unit: str | None
    step: float
    values: Floats
    categories: tuple[str, ...] = ()
    levels: Floats = field(init=False)
    """The different values that occur, ascending."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", np.unique(self.values[~np.isnan(self.values)]))

    @property
    def label(self) -> str:
        name = shorten(self.name, 28)
        return f"{name} ({self.unit})" if self.unit else name

    @property
    def constant(self) -> bool:
        return len(self.levels) < 2

    @property
    def long_tailed(self) -> bool:
        """Whether a few far values would squeeze all others into a corner of the picture."""
        return self.view != self.extent

    @property
    def extent(self) -> tuple[float, float]:
        return (float(self.levels[0]), float(self.levels[-1])) if len(self.levels) else (0.0, 1.0)

    @cached_property
    def view(self) -> tuple[float, float]:
        """The part of the axis that is drawn: the middle 99 % of the rows if the rest is far away, or all."""
        if self.discrete:
            return self.extent
        low, high = (float(each) for each in np.nanquantile(self.values, [0.005, 0.995]))
        first, last = self.extent
        return (low, high) if last - first > 3 * (high - low) > 0 else (first, last)

    @property
    def discrete(self) -> bool:
        return bool(self.categories) or len(self.levels) <= DISCRETE


@dataclass(frozen=True)
class Table:
    """What is drawn: columns in the order of the schema and each row's class."""

    target: str
    classes: tuple[str, ...]
    labels: Labels
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.labels)


def main() -> None:
    cli.parser("training.explore", __doc__).parse_args()
    profile = dataset.read_profile()
    table = tabulate(dataset.read_split(dataset.TRAIN_FILE, profile), profile)
    with files.replacing(dataset.EXPLORE) as folder:
        folder.mkdir()
        for name, picture in PICTURES.items():
            (folder / name).write_bytes(_drawn(name, picture, table))


def tabulate(split: dataset.Split, profile: dataset.Profile) -> Table:
    layout = profile.layout

    def column(feature: Feature) -> Column:
        if feature.type == "number":
            values = split.numbers[:, layout.numbers.index(feature.name)].copy()
            values[np.isinf(values)] = np.nan
            return Column(feature.name, feature.unit, feature.step, values)
        texts = split.categories[:, layout.categories.index(feature.name)]
        position = {each: float(index) for index, each in enumerate(feature.categories)}
        position[MISSING_CATEGORY] = np.nan
        values = np.array([position.get(each, np.nan) for each in texts], dtype=np.float64)
        return Column(feature.name, None, 1.0, values, feature.categories)

    columns = tuple(column(each) for each in profile.features)
    return Table(profile.target, profile.classes, split.labels, columns)


def draw(table: Table) -> dict[str, bytes]:
    """PNG files by name."""
    return {name: _styled(picture, table) for name, picture in PICTURES.items()}


def class_balance(table: Table) -> Figure:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    counts = np.bincount(table.labels, minlength=len(table.classes))
    names = [shorten(each, 32) for each in table.classes]
    left = text_width(names, 9) + 0.35
    width, height = 4.6, 0.34 * len(names) + 0.1
    figure = new_figure(left + width + 1.0, height + 1.0)
    heading(figure, f"Class balance: {len(table):,} training rows by {shorten(table.target, 32)}")
    axes = place(figure, left, 0.55, width, height)
    places = np.arange(len(names))
    axes.barh(places, counts, color=[colour(index) for index in range(len(names))], height=0.72)
    for position, count in zip(places, counts, strict=True):
        axes.annotate(
            f"{count:,}  ({count / max(len(table), 1):.0%})",
            (count, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(places, names, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(counts.max(initial=1), 1) * 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("rows")
    return figure


def distributions(table: Table) -> Figure:
    """One panel a feature, numbers as outlines of histograms and categories as bars, each class in its colour.

    With many classes each is a row of shades instead.
    """
    overlaid = len(table.classes) <= OVERLAID_CLASSES
    names = [shorten(each, 18) for each in table.classes]
    columns = telling(table, MOST_FEATURES)
    count = len(columns)
    across = min(8, int(np.ceil(np.sqrt(count))))
    rows = [columns[start : start + across] for start in range(0, count, across)]
    width, height = (2.35, 1.45) if overlaid else (1.85, max(1.0, 0.125 * len(names)))
    gap = 0.5 if overlaid else 0.28
    left, right = (0.8 if overlaid else text_width(names, 6.5) + 0.25), 0.25
    total = max(left + across * (width + gap) - gap + right, 5.6)
    above, below = 0.3, [_room_below(row) for row in rows]
    chosen = selection(table, columns)
    second = SECOND_LINE if chosen else 0
    top = 0.62 + second + (0.12 + 0.2 * legend_rows(table, total) if overlaid else 0)
    figure = new_figure(total, top + sum(height + above + each for each in below) + 0.1)
    heading(figure, f"Distributions by {shorten(table.target, 32)}, {len(table):,} training rows")
    subheading(
        figure,
        "Share of each class's rows: a class adds up to 100%, however many rows it has."
        if overlaid
        else "Shade: share of the class's rows in that bin, on a square-root scale; darker is more.",
        chosen,
    )
    if overlaid:
        class_legend(figure, table, 0.72 + second)
    y = figure.get_size_inches()[1] - top
    for row, room in zip(rows, below, strict=True):
        y -= above + height
        for position, column in enumerate(row):
            axes = place(figure, left + position * (width + gap), y, width, height)
            _panel_title(axes, column, int(width / 0.085))
            if not len(column.levels):
                axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color="#777777")
                axes.set_xticks([])
                axes.set_yticks([])
            elif overlaid:
                panel_overlaid(axes, table, column, first=position == 0)
            else:
                panel_shaded(axes, table, column, names if position == 0 else None)
        y -= room
    return figure


def _room_below(row: Sequence[Column]) -> float:
    """Inches for what stands under a row of panels: category names upright, ticks, a unit or a note."""
    room = 0.3
    for column in row:
        if column.categories:
            room = max(room, text_width(shown_categories(column)[0], 7.5) + 0.15)
        elif column.unit or column.long_tailed:
            room = max(room, 0.48)
    return room


def _panel_title(axes: Axes, column: Column, fits: int) -> None:
    missing = float(np.isnan(column.values).mean()) if len(column.values) else 0.0
    axes.set_title(shorten(column.name, fits - 11 if missing else fits), loc="left", pad=4)
    if missing:
        axes.set_title(f"{missing:.1%} missing", loc="right", pad=4, fontsize=7, color="#777777")


def panel_overlaid(axes: Axes, table: Table, column: Column, *, first: bool) -> None:
    classes = len(table.classes)
    if column.categories:
        shown, shares = category_shares(table, column)
        width = 0.8 / classes
        for index in range(classes):
            offset = (index - (classes - 1) / 2) * width
            axes.bar(np.arange(len(shown)) + offset, shares[index], width=width, color=colour(index))
        axes.set_xticks(np.arange(len(shown)), shown, rotation=90)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.6, len(shown) - 0.4)
    else:
        edges, shares, note = number_shares(table, column)
        for index in range(classes):
            axes.stairs(shares[index], edges, color=colour(index), fill=True, alpha=0.14)
        for index in range(classes):
            axes.stairs(shares[index], edges, color=colour(index), linewidth=1.3)
        axes.set_xlim(edges[0], edges[-1])
        few_ticks(axes, column)
        axes.set_xlabel(unit_and_note(column, note), labelpad=1.5)
    axes.set_ylim(0, max(float(shares.max(initial=0)), 1e-9) * 1.08)
    percent_ticks(axes)
    if first:
        axes.set_ylabel("share of class")


def panel_shaded(axes: Axes, table: Table, column: Column, names: Sequence[str] | None) -> None:
    if column.categories:
        shown, shares = category_shares(table, column)
        edges, note = np.arange(len(shown) + 1) - 0.5, ""
        axes.set_xticks(np.arange(len(shown)), shown, rotation=90)
        axes.tick_params(axis="x", length=0)
    else:
        edges, shares, note = number_shares(table, column)
    classes = len(table.classes)
    axes.pcolormesh(edges, np.arange(classes + 1) - 0.5, np.sqrt(shares), cmap="Blues", vmin=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(classes - 0.5, -0.5)
    if names is None:
        axes.set_yticks([])
    else:
        axes.set_yticks(np.arange(classes), names, fontsize=6.5)
        axes.tick_params(axis="y", length=0, pad=2)
    if not column.categories:
        few_ticks(axes, column)
        axes.set_xlabel(unit_and_note(column, note), labelpad=1.5)


def scatter_matrix(table: Table) -> Figure:
    chosen = informative(table, SCATTER_FEATURES)
    shuffled = np.random.default_rng(0).permutation(len(table))
    rows = np.sort(shuffled[:SCATTER_ROWS])
    count = len(chosen)
    size, gap, left, bottom, top = (1.75 if count < SCATTER_FEATURES else 1.5), 0.12, 0.85, 0.72, 0.75
    ticks = [shown_categories(each)[0] for each in chosen if each.categories]
    room = min(max([text_width(each, 7.5) for each in ticks], default=0.0), 0.9)
    left, bottom = left + room, bottom + room
    side = count * (size + gap) - gap
    # The upper right half is empty and the legend goes there, no taller than the first row of panels.
    legend_columns = -(-len(table.classes) // max(1, int(size / 0.2) - 1))
    legend = legend_columns * (0.5 + text_width([shorten(each, 24) for each in table.classes], 9))
    width = max(left + side + 0.25, left + size + gap + 0.3 + legend, 6.4)
    height = bottom + side + top
    figure = new_figure(width, height)
    sample = f"{len(rows):,} of {len(table):,}" if len(rows) < len(table) else f"{len(rows):,}"
    heading(figure, f"Scatter matrix of {sample} training rows")
    subheading(figure, scatter_caption(table, chosen))
    for row in range(count):
        for position in range(row + 1):
            y_column, x_column = chosen[row], chosen[position]
            x = left + position * (size + gap)
            y = height - top - (row + 1) * (size + gap) + gap
            axes = place(figure, x, y, size, size)
            if row == position:
                scatter_diagonal(axes, table, x_column)
            else:
                scatter_panel(axes, table, x_column, y_column, rows)
                limits(axes.set_ylim, y_column)
                few_ticks(axes, y_column, vertical=True, labels=position == 0)
            limits(axes.set_xlim, x_column)
            few_ticks(axes, x_column, labels=row == count - 1)
            if row == count - 1:
                axes.set_xlabel(wrap(x_column.label, int(size / 0.085)))
            if position == 0 < row:
                axes.set_ylabel(wrap(y_column.label, int(size / 0.085)))
                axes.yaxis.set_label_coords(-(0.42 + room) / size, 0.5)
    scatter_legend(figure, table, left + size + gap + 0.3, top + 0.02, legend_columns)
    return figure


def scatter_caption(table: Table, chosen: Sequence[Column]) -> str:
    sentences = []
    if len(chosen) < sum(not each.categories and not each.constant for each in table.columns):
        sentences.append(selection(table, chosen))
    elif len(chosen) < len(table.columns):
        sentences.append("Numbers that vary.")
    if any(each.discrete and not each.constant for each in chosen):
        sentences.append("Few-valued features are spread a little.")
    if any(each.long_tailed for each in chosen):
        sentences.append("Long tails are cut off.")
    return " ".join(sentences) or "On the diagonal: each class's own distribution."


def scatter_diagonal(axes: Axes, table: Table, column: Column) -> None:
    if column.categories:
        shares = class_shares(table, column.values, np.arange(len(column.categories) + 1) - 0.5)
        edges = np.arange(len(column.categories) + 1) - 0.5
    else:
        edges, shares, _ = number_shares(table, column)
    if len(table.classes) <= OVERLAID_CLASSES:
        for index in range(len(table.classes)):
            axes.stairs(shares[index], edges, color=colour(index), fill=True, alpha=0.14)
        for index in range(len(table.classes)):
            axes.stairs(shares[index], edges, color=colour(index), linewidth=1.1)
        axes.set_ylim(0, max(float(shares.max(initial=0)), 1e-9) * 1.08)
    else:
        # Bottom to top as in the legend's top to bottom would cross: keep the legend's order.
        axes.pcolormesh(edges, np.arange(len(shares) + 1), np.sqrt(shares), cmap="Greys", vmin=0)
        axes.set_ylim(len(shares), 0)
    axes.set_yticks([])


def scatter_panel(axes: Axes, table: Table, x: Column, y: Column, rows: Labels) -> None:
    x_values, y_values = spread(x, 1)[rows], spread(y, 2)[rows]
    size = 3.4 if len(rows) <= 300 else 2.6
    for index in range(len(table.classes)):
        mine = table.labels[rows] == index
        axes.plot(
            x_values[mine],
            y_values[mine],
            linestyle="none",
            marker=marker(index),
            markersize=size,
            markerfacecolor=colour(index),
            markeredgewidth=0,
            alpha=0.65,
        )


def correlation(table: Table) -> Figure:
    """Association of every feature with every other and with the class, on one scale from -1 to 1."""
    features = telling(table, MOST_FEATURES)
    columns = [*features, _target(table)]
    values = associations(columns)
    count = len(columns)
    cell = float(np.clip(9.5 / count, 0.15, 0.55))
    points = float(np.clip(cell * 40, 5.5, 9))
    names = [shorten(each.name, 26) for each in columns]
    label = text_width(names, points) + 0.2
    side = cell * count
    mixed = any(each.categories for each in features)
    caption = "Numbers: Pearson's r. With a category or the class: strength without a sign " + (
        "(correlation ratio, Cramér's V)." if mixed else "(correlation ratio)."
    )
    captions = [caption, selection(table, features)]
    width = max(label + side + 0.95, 0.3 + 0.9 * text_width(captions, 8.5))
    figure = new_figure(width, side + label + 0.8 + (SECOND_LINE if captions[1] else 0))
    heading(figure, f"Correlation of features and {shorten(table.target, 32)}")
    subheading(figure, *captions)
    axes = place(figure, label, label, side, side)
    axes.set_facecolor("#eeeeee")
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks(np.arange(count), names, rotation=90, fontsize=points)
    axes.set_yticks(np.arange(count), names, fontsize=points)
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    axes.axhline(count - 1.5, color="white", linewidth=2)
    axes.axvline(count - 1.5, color="white", linewidth=2)
    if cell >= 0.27:
        for (row, position), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:.2f}".replace("0.", ".").replace("-.00", ".00")
            axes.text(
                position,
                row,
                text,
                ha="center",
                va="center",
                fontsize=min(8.0, cell * 20),
                color="white" if abs(value) > 0.55 else INK,
            )
    bar = place(figure, label + side + 0.18, label, 0.14, min(side, 2.5))
    figure.colorbar(image, cax=bar, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.tick_params(labelsize=7)
    return figure


# ---------------------------------------------------------------------------------------------- figures


def number_shares(table: Table, column: Column) -> tuple[Floats, Floats, str]:
    """Bin edges, each class's shares in them, and a note when a long tail was left out."""
    low, high = column.view
    note = ""
    if column.long_tailed:
        outside = int(((column.values < low) | (column.values > high)).sum())
        note = f"{outside:,} rows beyond"
    edges = bin_edges(column, low, high)
    return edges, class_shares(table, column.values, edges), note


def bin_edges(column: Column, low: float, high: float) -> Floats:
    """Whole steps wide, so that a rounded measurement does not make every other bin empty."""
    if low == high:
        half = max(abs(low) * 0.05, column.step, 1e-9)
        return np.array([low - half, low - half / 5, low + half / 5, low + half])
    step = column.step
    if len(column.levels) <= DISCRETE:
        step = float(np.diff(column.levels).min())
        if (high - low) / step > 4 * DISCRETE:
            return np.linspace(low, high, BINS + 1)
        return np.linspace(low - step / 2, high + step / 2, round((high - low) / step) + 2)
    width = max(1, round((high - low) / BINS / step)) * step
    count = int(np.ceil((high - low + step) / width))
    return low - step / 2 + width * np.arange(count + 1)


def class_shares(table: Table, values: Floats, edges: Floats) -> Floats:
    shares = np.zeros((len(table.classes), len(edges) - 1))
    for index in range(len(table.classes)):
        mine = values[(table.labels == index) & ~np.isnan(values)]
        if len(mine):
            shares[index] = np.histogram(mine, edges)[0] / len(mine)
    return shares


def shown_categories(column: Column) -> tuple[list[str], list[int | None]]:
    """Names under the bars and the position each stands for; None for the sum of what is not shown."""
    positions: list[int | None] = list(range(len(column.categories)))
    if len(positions) > CATEGORIES:
        counts = np.bincount(
            column.values[~np.isnan(column.values)].astype(np.int64), minlength=len(column.categories)
        )
        often = np.argsort(-counts, kind="stable")[: CATEGORIES - 1]
        positions = [*sorted(int(each) for each in often), None]
    rest = len(column.categories) - CATEGORIES + 1
    return [
        f"{rest} others" if each is None else shorten(column.categories[each], 16) for each in positions
    ], positions


def category_shares(table: Table, column: Column) -> tuple[list[str], Floats]:
    names, positions = shown_categories(column)
    shares = class_shares(table, column.values, np.arange(len(column.categories) + 1) - 0.5)
    known = [each for each in positions if each is not None]
    parts = [shares[:, known]]
    if None in positions:
        parts.append(1 - shares[:, known].sum(axis=1, keepdims=True))
    return names, np.clip(np.hstack(parts), 0, 1)


def informative(table: Table, count: int) -> list[Column]:
    """The columns whose values tell the classes apart best, in the schema's order; numbers before categories."""
    candidates = [each for each in table.columns if not each.constant] or list(table.columns[:1])
    numbers = [each for each in candidates if not each.categories]
    # A scatter of categories says little, so they only fill up when there is nothing else to plot.
    if len(numbers) >= 2:
        candidates = numbers
    return _best(table, candidates, count)


def telling(table: Table, count: int) -> list[Column]:
    """The columns of any type whose values tell the classes apart best, in the schema's order."""
    return list(table.columns) if len(table.columns) <= count else _best(table, table.columns, count)


def selection(table: Table, chosen: Sequence[Column]) -> str:
    """Which of the features are drawn; nothing where all are."""
    if len(chosen) == len(table.columns):
        return ""
    return f"The {len(chosen)} of {len(table.columns):,} features that tell the classes apart best."


def _best(table: Table, candidates: Sequence[Column], count: int) -> list[Column]:
    target = _target(table)
    ranked = sorted(candidates, key=lambda each: -float(np.nan_to_num(association(each, target))))
    chosen = {each.name for each in ranked[:count]}
    return [each for each in table.columns if each.name in chosen]


def _target(table: Table) -> Column:
    return Column(table.target, None, 1.0, table.labels.astype(np.float64), table.classes)


def associations(columns: Sequence[Column]) -> Floats:
    count = len(columns)
    values = np.full((count, count), np.nan)
    for row in range(count):
        for position in range(row + 1):
            values[row, position] = values[position, row] = association(columns[row], columns[position])
    return values


def association(a: Column, b: Column) -> float:
    """Pearson's r, the correlation ratio or Cramér's V, as the types demand; NaN when one of them is constant."""
    both = ~(np.isnan(a.values) | np.isnan(b.values))
    x, y = a.values[both], b.values[both]
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return float("nan")
    if a.categories and b.categories:
        return _cramer(x.astype(np.int64), y.astype(np.int64))
    if a.categories or b.categories:
        codes, numbers = (x, y) if a.categories else (y, x)
        return _correlation_ratio(codes.astype(np.int64), numbers)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else float("nan")


def _correlation_ratio(codes: Labels, numbers: Floats) -> float:
    centred = numbers - numbers.mean()
    counts = np.bincount(codes)
    sums = np.bincount(codes, weights=centred)
    total = float(centred @ centred)
    if total <= 0:
        return float("nan")
    between = float((sums[counts > 0] ** 2 / counts[counts > 0]).sum())
    return float(np.sqrt(min(between / total, 1.0)))


def _cramer(x: Labels, y: Labels) -> float:
    width = int(y.max()) + 1
    counts = np.bincount(x * width + y, minlength=(int(x.max()) + 1) * width).reshape(-1, width).astype(float)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    return float(np.sqrt(min(chi2 / (counts.sum() * (min(counts.shape) - 1)), 1.0)))


def spread(column: Column, seed: int) -> Floats:
    """Values with a little noise where many rows share few values, so that they do not hide each other."""
    if not column.discrete or column.constant:
        return column.values
    step = 1.0 if column.categories else float(np.diff(column.levels).min())
    return column.values + np.random.default_rng(seed).uniform(-0.28, 0.28, len(column.values)) * step


# ---------------------------------------------------------------------------------------------- drawing


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style() -> dict[Any, Any]:
    """All of matplotlib's settings, so that a matplotlibrc on this machine changes nothing."""
    import matplotlib

    defaults: dict[Any, Any] = {
        key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"
    }
    return {
        **defaults,
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": "#888888",
        "axes.labelcolor": INK,
        "axes.labelsize": 8.5,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "xtick.color": "#888888",
        "ytick.color": "#888888",
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        # A dollar sign in somebody's column name is a dollar sign.
        "text.parse_math": False,
    }


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches: exact, and much faster than a layout engine with 64 panels."""
    across, up = figure.get_size_inches()
    axes: Axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    return axes


def heading(figure: Figure, text: str) -> None:
    _from_top(figure, 0.15, 0.14, text, fontsize=12, fontweight="bold")


def subheading(figure: Figure, *lines: str) -> None:
    text = "\n".join(each for each in lines if each)
    _from_top(figure, 0.15, 0.42, text, fontsize=8.5, color="#666666")


def _from_top(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    across, up = figure.get_size_inches()
    figure.text(x / across, 1 - y / up, text, va="top", **style)


def colour(index: int) -> str:
    return PALETTE[int(index) % len(PALETTE)]


def marker(index: int) -> str:
    """Shifts by one each time the colours start again: no two of 49 classes look alike."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def _handles(table: Table, *, lines: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [shorten(each, 24) for each in table.classes]
    if lines:
        return [
            Line2D(
                [], [], linestyle="none", marker=marker(index), markersize=6, color=colour(index), label=name
            )
            for index, name in enumerate(names)
        ]
    return [Patch(color=colour(index), label=name) for index, name in enumerate(names)]


def class_legend(figure: Figure, table: Table, y: float) -> None:
    across, up = figure.get_size_inches()
    figure.legend(
        handles=_handles(table, lines=False),
        ncols=_legend_columns(table, across),
        loc="upper left",
        bbox_to_anchor=(0.1 / across, 1 - (y - 0.08) / up),
        frameon=False,
        fontsize=9,
        handlelength=1.2,
        handleheight=0.8,
        columnspacing=1.4,
        labelspacing=0.3,
    )


def _legend_columns(table: Table, width: float) -> int:
    entry = text_width([shorten(each, 24) for each in table.classes], 9) + 0.5
    return max(1, min(len(table.classes), int((width - 0.3) / entry)))


def legend_rows(table: Table, width: float) -> int:
    return -(-len(table.classes) // _legend_columns(table, width))


def scatter_legend(figure: Figure, table: Table, x: float, y: float, columns: int) -> None:
    across, up = figure.get_size_inches()
    figure.legend(
        handles=_handles(table, lines=True),
        title=shorten(table.target, 24),
        loc="upper left",
        bbox_to_anchor=(x / across, 1 - y / up),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        alignment="left",
        ncols=columns,
        columnspacing=1.2,
        borderpad=0,
        handletextpad=0.3,
    )


def limits(setter: Any, column: Column) -> None:
    if column.categories:
        setter(-0.6, len(column.categories) - 0.4)
        return
    low, high = column.view
    margin = (high - low) * 0.06 or max(abs(low) * 0.05, 1e-9)
    if column.discrete and not column.constant:
        margin = max(margin, 0.6 * float(np.diff(column.levels).min()))
    setter(low - margin, high + margin)


def few_ticks(axes: Axes, column: Column, *, vertical: bool = False, labels: bool = True) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = axes.yaxis if vertical else axes.xaxis
    if column.categories:
        shown, positions = shown_categories(column)
        kept = [(place, name) for place, name in zip(positions, shown, strict=True) if place is not None]
        axis.set_ticks([each[0] for each in kept], [each[1] for each in kept] if labels else [""] * len(kept))
        axis.set_tick_params(length=0, labelrotation=0 if vertical else 90)
        return
    if column.constant:
        axis.set_ticks([float(each) for each in column.levels])
    else:
        whole = column.discrete and bool(np.all(column.levels == np.round(column.levels)))
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    if not labels:
        axes.tick_params(axis="y" if vertical else "x", labelleft=False, labelbottom=False)


def percent_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g}%"))


def compact(value: float) -> str:
    """A number as short as a tick wants it: 1500000 is 1.5M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor and abs(value) >= 1e4:
            return f"{value / factor:.4g}{suffix}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}") if abs(value) > 1e-12 else "0"


def unit_and_note(column: Column, note: str) -> str:
    return ", ".join(each for each in (column.unit, note) if each)


def text_width(texts: Iterable[str], points: float) -> float:
    """Inches that the longest of some texts takes, near enough, without drawing it."""
    return max((len(each) for each in texts), default=0) * points * 0.6 / 72


def shorten(text: str, limit: int) -> str:
    """Cut in the middle, because names that are long often differ at their end."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head].rstrip()}…{text[len(text) - (limit - 1 - head) :].lstrip()}"


def wrap(text: str, limit: int) -> str:
    """At most two lines, broken at a space or an underscore."""
    if len(text) <= limit:
        return text
    breaks = [index for index, each in enumerate(text) if each in " _" and index < limit]
    at = breaks[-1] if breaks else limit - 1
    head = text[: at + 1].rstrip() if text[at] == "_" or not breaks else text[:at]
    return f"{head}\n{shorten(text[at + 1 :], limit)}"


PICTURES: Mapping[str, Callable[[Table], Figure]] = {
    "class_balance.png": class_balance,
    "distributions.png": distributions,
    "scatter_matrix.png": scatter_matrix,
    "correlation.png": correlation,
}


def _drawn(name: str, picture: Callable[[Table], Figure], table: Table) -> bytes:
    """A picture, or one that says why there is none."""
    try:
        return _styled(picture, table)
    except Exception as error:
        log.warning("%s could not be drawn; the pipeline goes on without it", name, exc_info=True)
        reason = f"{name} could not be drawn: {type(error).__name__}: {error}"
        return _styled(lambda _: _sign(reason), table)


def _styled(picture: Callable[[Table], Figure], table: Table) -> bytes:
    import matplotlib

    with matplotlib.rc_context(style()):
        return png(picture(table))


def _sign(text: str) -> Figure:
    lines = textwrap.wrap(text, 90, max_lines=6)
    figure = new_figure(7.5, 0.5 + 0.2 * len(lines))
    _from_top(figure, 0.15, 0.2, "\n".join(lines))
    return figure
