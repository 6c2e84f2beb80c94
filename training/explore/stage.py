"""Draw the training rows: class balance, distributions by class, scatter matrix, correlation.

Reads  data/train.parquet, data/profile.json
Writes reports/explore/*.png

The same rows give the same bytes: the files hold no date and no version, random numbers have a seed, and a
matplotlibrc on this machine has no effect.

When there are too many features to look at, the pictures show those that separate the classes best. A picture that
fails is replaced by one that gives the reason; the pipeline continues.
"""

from __future__ import annotations

import io
import itertools
import logging
import math
import textwrap
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from common import files
from training.base import cli
from training.data import dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, less the yellow that white swallows."""
MARKERS = "o^sDvPX"
GREY = "#666666"
DPI = 110
NAME = 28
"""Characters of a feature's or a class's name."""
MOST_FEATURES = 64
"""Of one picture."""
SCATTER_FEATURES = 6
SCATTER_ROWS = 1500
OVERLAID_CLASSES = 6
"""More outlines than this in one panel look alike: each class gets a row of shades instead."""
BINS = 24
CATEGORIES = 12
DISCRETE = 20
"""A number with at most this many distinct values is drawn value by value."""


@dataclass(frozen=True)
class Table:
    """What is drawn, under the names that are shown.

    Attributes:
        frame: numbers as float, categories and the target as categoricals; NaN where missing.
        target: its column of classes; the others are features in the order of the schema.
        steps: the resolution of each number.
    """

    frame: pd.DataFrame
    target: str
    steps: Mapping[str, float]

    @property
    def features(self) -> list[str]:
        return [str(each) for each in self.frame if each != self.target]

    @property
    def classes(self) -> list[str]:
        return list(self.frame[self.target].cat.categories)

    @property
    def overlaid(self) -> bool:
        return len(self.classes) <= OVERLAID_CLASSES

    def palette(self) -> dict[str, str]:
        return dict(zip(self.classes, itertools.cycle(COLOURS)))

    def markers(self) -> dict[str, str]:
        """They shift by one each time the colours start again: no two of 49 classes look alike."""
        count = len(COLOURS)
        return {each: MARKERS[(index + index // count) % count] for index, each in enumerate(self.classes)}


def main() -> None:
    cli.parser("training.explore", __doc__).parse_args()
    profile = dataset.read_profile()
    table = tabulate(dataset.read_split(dataset.TRAIN_FILE, profile).frame, profile)
    with files.replacing(dataset.EXPLORE) as folder:
        folder.mkdir()
        for name, picture in PICTURES.items():
            (folder / name).write_bytes(_drawn(name, picture, table))


def tabulate(rows: pd.DataFrame, profile: dataset.Profile) -> Table:
    features = {
        each.name: f"{shorten(each.name)} ({each.unit})" if each.unit else shorten(each.name)
        for each in profile.features
    }
    shown = distinct([*features.values(), shorten(profile.target)])
    columns: dict[str, Any] = {}
    steps = {}
    for name, feature in zip(shown, profile.features, strict=False):
        values = rows[feature.name]
        if feature.type == "number":
            columns[name] = values.astype(float).replace([np.inf, -np.inf], np.nan).to_numpy()
            steps[name] = feature.step
        else:
            columns[name] = _categorical(values, feature.categories, 18)
    columns[shown[-1]] = _categorical(rows[profile.target], profile.classes)
    return Table(pd.DataFrame(columns), shown[-1], steps)


def draw(table: Table) -> dict[str, bytes]:
    """PNG files by name."""
    return {name: png(partial(picture, table)) for name, picture in PICTURES.items()}


def class_balance(table: Table) -> Figure:
    from matplotlib.ticker import MaxNLocator

    counts = table.frame[table.target].value_counts(sort=False)
    figure = blank(6, 0.34 * len(counts) + 0.6)
    axes = figure.subplots()
    bars = axes.barh(range(len(counts)), counts, color=list(table.palette().values()))
    axes.bar_label(bars, [f"{each:,}  ({each / max(counts.sum(), 1):.0%})" for each in counts], padding=4)
    axes.set_yticks(range(len(counts)), table.classes)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlabel("rows")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    heading(figure, f"Class balance: {len(table.frame):,} training rows by {table.target}")
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
        _legend(figure, table, 1, OVERLAID_CLASSES)
        caption = "Share of each class's rows: a class adds up to 100%, however many rows it has."
    else:
        caption = "Shade: share of the class's rows in that bin, on a square-root scale; darker is more."
    title = f"Distributions by {table.target}, {len(table.frame):,} training rows"
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
    if is_category := _is_category(whole):
        shown = shown.cat.remove_unused_categories()
    edges = bin_edges(shown, table.steps.get(name, 1))
    shares = _shares(table, shown, edges)
    if table.overlaid:
        (_bars if is_category else _outlines)(axes, table, shares, edges)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.locator_params(axis="y", nbins=3)
        axes.set_ylabel("share of class" if is_first else "")
    else:
        _shades(axes, shares, edges)
        names = table.classes if is_first else []
        axes.set_yticks(range(len(names)), names)
    if is_category:
        axes.set_xticks(range(len(shown.cat.categories)), shown.cat.categories, rotation=90)
    else:
        _number_ticks(axes.xaxis, shown)
    axes.set_xlabel(", ".join(notes), color=GREY)


def _shares(table: Table, values: pd.Series[Any], edges: Floats) -> Floats:
    """How the rows of each class are spread over the bins; one row a class, which adds up to 1."""
    classes = table.frame.loc[values.index, table.target].cat.codes
    numbers = values.cat.codes if _is_category(values) else values
    counts = [np.histogram(numbers[classes == each], edges)[0] for each in range(len(table.classes))]
    return np.array([each / max(each.sum(), 1) for each in counts], dtype=float)


def _outlines(axes: Axes, table: Table, shares: Floats, edges: Floats) -> None:
    for share, colour in reversed(list(zip(shares, table.palette().values(), strict=True))):
        if share.any():
            axes.stairs(share, edges, fill=True, facecolor=(colour, 0.15), edgecolor=colour, linewidth=1)


def _bars(axes: Axes, table: Table, shares: Floats, edges: Floats) -> None:
    """Those of one category side by side."""
    width = 0.8 / len(shares)
    for index, (share, colour) in enumerate(zip(shares, table.palette().values(), strict=True)):
        axes.bar(edges[:-1] + 0.1 + index * width, share, width, align="edge", color=colour)


def _stack(axes: Axes, table: Table, shares: Floats, edges: Floats) -> None:
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


def _number_ticks(axis: Axis, values: pd.Series[float]) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4))
    if values.abs().max() >= 10_000:
        axis.set_major_formatter(EngFormatter(sep=""))


def bin_edges(values: pd.Series[Any], step: float) -> Floats:
    """Of bins of whole steps, so that a rounded measurement does not make every other bin empty."""
    if _is_category(values):
        return np.arange(-0.5, len(values.cat.categories))
    levels = np.unique(values)
    if 1 < len(levels) <= DISCRETE:
        step = float(np.diff(levels).min())
    low, high = float(levels[0]), float(levels[-1])
    if low == high:
        step = max(abs(low) * 0.05, step)
    width = max(1, round((high - low) / BINS / step)) * step
    # Rounding may leave the last bin a hair short.
    count = math.ceil((high - low + step) / width - 1e-6)
    return np.array([low - step / 2 + width * each for each in range(count + 1)])


def in_view(values: pd.Series[Any]) -> pd.Series[Any]:
    """Missing where a few far values would squeeze all others into a corner of the picture."""
    if _is_category(values):
        return most_frequent(values)
    if values.nunique() <= DISCRETE:
        return values
    low, high = values.quantile([0.005, 0.995])
    far = values.max() - values.min() > 3 * (high - low) > 0
    return values.where(values.between(low, high)) if far else values


def most_frequent(values: pd.Series[Any]) -> pd.Series[Any]:
    """The rare categories as one, where there are many."""
    categories = list(values.cat.categories)
    if len(categories) <= CATEGORIES:
        return values
    kept = set(values.value_counts().index[: CATEGORIES - 1])
    others = f"{len(categories) - len(kept)} others"
    merged = values.astype(object).where(values.isin(kept) | values.isna(), others)
    return merged.astype(pd.CategoricalDtype([each for each in categories if each in kept] + [others]))


def scatter_matrix(table: Table) -> Figure:
    chosen = informative(table)
    order = np.random.default_rng(0).permutation(len(table.frame))
    frame = table.frame.iloc[np.sort(order[:SCATTER_ROWS])]
    # A category is drawn by its position, because points on a categorical axis cannot be spread.
    values = frame[chosen].apply(
        lambda each: each.cat.codes.where(each.notna()) if _is_category(each) else in_view(each)
    )
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
            (_outlines if table.overlaid else _stack)(axes, table, _shares(table, shown, edges), edges)
        axes.yaxis.set_visible(False)
        axes.spines.left.set_visible(False)
        axes.tick_params(labelbottom=row == count - 1)
        _ticks(axes.xaxis, table, below)
    for axes, name in zip(figure.axes[-count:], chosen, strict=True):
        axes.set_xlabel(textwrap.fill(name, 20))
        if name not in table.steps:
            axes.tick_params(axis="x", rotation=90)
    # In the empty upper right, no taller than the first panel.
    _legend(figure, table, 1.2 / count, 7)
    title = f"Scatter matrix of {len(frame):,} training rows"
    if len(frame) < len(table.frame):
        title = title.replace(" training", f" of {len(table.frame):,} training")
    heading(figure, title, _scatter_caption(table, chosen))
    return figure


def _points(axes: Axes, table: Table, across: pd.Series[float], up: pd.Series[float]) -> None:
    """Each class in its colour and with its marker, in the order of the rows: no class covers the others."""
    from matplotlib.markers import MarkerStyle

    known = across.notna() & up.notna()
    classes = table.frame.loc[known.index[known], table.target]
    styles = {name: MarkerStyle(each) for name, each in table.markers().items()}
    paths = {name: each.get_path().transformed(each.get_transform()) for name, each in styles.items()}
    colours = classes.astype(object).map(table.palette())
    drawn = axes.scatter(across[known], up[known], s=14, c=colours, alpha=0.65, linewidth=0)
    drawn.set_paths([paths[each] for each in classes])


def _ticks(axis: Axis, table: Table, name: str) -> None:
    values = table.frame[name]
    if _is_category(values):
        names = [shorten(each, 14) for each in values.cat.categories[:CATEGORIES]]
        axis.set_ticks(range(len(names)), names)
    else:
        _number_ticks(axis, values)


def _scatter_caption(table: Table, chosen: list[str]) -> str:
    varying = [each for each in table.steps if table.frame[each].nunique() > 1]
    sentences = []
    if len(chosen) < len(varying):
        sentences.append(selection(table, chosen))
    elif len(chosen) < len(table.features):
        sentences.append("Numbers that vary.")
    if any(1 < table.frame[each].nunique() <= DISCRETE or each not in table.steps for each in chosen):
        sentences.append("Few-valued features are spread a little.")
    if any(in_view(table.frame[each]).count() < table.frame[each].count() for each in chosen):
        sentences.append("Long tails are cut off.")
    return " ".join(sentences) or "On the diagonal: each class's own distribution."


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
    kinds = "correlation ratio" if set(chosen) <= set(table.steps) else "correlation ratio, Cramér's V"
    caption = f"Numbers: Pearson's r. With a category or the class: strength without a sign ({kinds})."
    heading(figure, f"Correlation of features and {table.target}", caption, selection(table, chosen))
    return arrange(figure)


def heatmap(
    axes: Axes, values: ArrayLike, names: Sequence[str], annotation: str, size: float, **style: Any
) -> AxesImage:
    """A square of shades, on each its value in the format that is given; what is missing stays empty."""
    known = np.asarray(values, dtype=float)
    image = axes.imshow(known, interpolation="nearest", **style)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(known):
        if annotation and not math.isnan(value):
            light = image.to_rgba(value)[:3] @ np.array([0.2126, 0.7152, 0.0722]) > 0.65
            text = format(value, annotation)
            colour = "#262626" if light else "white"
            axes.text(column, row, text, ha="center", va="center", size=size, color=colour, in_layout=False)
    return image


def best(table: Table, candidates: list[str], count: int) -> list[str]:
    """The columns whose values separate the classes best, in the schema's order."""
    if len(candidates) <= count:
        return candidates
    classes = table.frame[table.target]
    numbers = table.frame[[each for each in candidates if each in table.steps]]
    strength = correlation_ratios(numbers, classes).to_dict()
    strength |= {each: cramers_v(table.frame[each], classes) for each in candidates if each not in strength}
    ranked = sorted(candidates, key=lambda each: -np.nan_to_num(strength[each]))[:count]
    return [each for each in candidates if each in ranked]


def informative(table: Table) -> list[str]:
    """What the scatter matrix shows: categories only where there are not two numbers that vary."""
    varying = [each for each in table.features if table.frame[each].nunique() > 1] or table.features[:1]
    numbers = [each for each in varying if each in table.steps]
    return best(table, numbers if len(numbers) >= 2 else varying, SCATTER_FEATURES)


def selection(table: Table, chosen: list[str]) -> str:
    """Which of the features are drawn; nothing where all are."""
    if len(chosen) == len(table.features):
        return ""
    return f"The {len(chosen)} of {len(table.features):,} features that separate the classes best."


def associations(frame: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r, the correlation ratio or Cramér's V, as the types demand; NaN for a constant column."""
    numbers = frame.select_dtypes("number")
    categories = [each for each in frame if each not in numbers]
    values = numbers.corr().reindex(index=frame.columns, columns=frame.columns)
    for name in categories:
        ratios = correlation_ratios(numbers, frame[name])
        values.loc[numbers.columns, name] = values.loc[name, numbers.columns] = ratios
    for one, other in itertools.combinations_with_replacement(categories, 2):
        values.loc[one, other] = values.loc[other, one] = cramers_v(frame[one], frame[other])
    return values


def correlation_ratios(numbers: pd.DataFrame, groups: pd.Series[Any]) -> pd.Series[float]:
    """The share of each number's standard deviation that is between the groups."""
    known = numbers[groups.notna()]
    means = known.groupby(groups[groups.notna()].array, observed=True).transform("mean").where(known.notna())
    ratios = (means.std() / known.std()).clip(upper=1)
    return ratios.where((known.nunique() > 1) & (groups.nunique() > 1))


def cramers_v(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    counts = pd.crosstab(one, other).to_numpy()
    if min(counts.shape) < 2:
        return math.nan
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    return math.sqrt(chi_squared / counts.sum() / (min(counts.shape) - 1))


def _is_category(values: pd.Series[Any]) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype)


def _categorical(values: pd.Series[Any], categories: Sequence[str], longest: int = NAME) -> pd.Series[Any]:
    shown = distinct(shorten(each, longest) for each in categories)
    names = dict(zip(categories, shown, strict=True))
    return values.map(names).astype(pd.CategoricalDtype(list(names.values())))


def shorten(text: str, limit: int = NAME) -> str:
    """Cut in the middle, because names that are long often differ at their end."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head].rstrip()}…{text[len(text) - (limit - 1 - head) :].lstrip()}"


def distinct(names: Iterable[str]) -> list[str]:
    """Names that shortening made equal, with a number."""
    shown: list[str] = []
    for name in names:
        others = (f"{name} ({number})" for number in itertools.count(2))
        shown.append(next(each for each in itertools.chain([name], others) if each not in shown))
    return shown


PICTURES: Mapping[str, Callable[[Table], Figure]] = {
    "class_balance.png": class_balance,
    "distributions.png": distributions,
    "scatter_matrix.png": scatter_matrix,
    "correlation.png": correlation,
}


def _legend(figure: Figure, table: Table, left: float, rows: int) -> None:
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


def _drawn(name: str, picture: Callable[[Table], Figure], table: Table) -> bytes:
    """A picture, or one that gives the reason why there is none."""
    try:
        return png(partial(picture, table))
    except Exception as error:
        log.warning("%s could not be drawn; the pipeline goes on without it", name, exc_info=True)
        reason = f"{name} could not be drawn: {type(error).__name__}: {error}"
        return png(partial(_sign, reason))


def _sign(text: str) -> Figure:
    figure = blank(7.5, 1)
    figure.text(0, 0, textwrap.fill(text, 90, max_lines=6))
    return figure


def png(draw: Callable[[], Figure]) -> bytes:
    """A figure as PNG, whatever matplotlib's settings on this machine are."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(style()):
        figure = draw()
        # Asked for a tight box, matplotlib draws everything once more to find it.
        box = figure.get_tightbbox().padded(0.15)
        figure.savefig(buffer, bbox_inches=box, metadata={"Software": None})
    return buffer.getvalue()


def blank(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def arrange(figure: Figure) -> Figure:
    """Give each panel the room that its words need. As the figure's own engine it would also draw all of it twice."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ConstrainedLayoutEngine().execute(figure)
    return figure


def heading(figure: Figure, title: str, *captions: str) -> None:
    """Above the figure, which is cut to what was drawn when it is saved."""
    caption = "\n".join(each for each in captions if each)
    up = figure.get_figheight()
    figure.text(0, 1 + 0.12 / up, caption, fontsize=8.5, color=GREY)
    figure.text(0, 1 + (0.22 + 0.15 * len(caption.splitlines())) / up, title, fontsize=12, fontweight="bold")


def style() -> dict[Any, Any]:
    """All of matplotlib's settings, so that a matplotlibrc on this machine changes nothing."""
    import matplotlib

    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    return defaults | {
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "font.size": 8.5,
        "axes.edgecolor": "#888888",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "legend.frameon": False,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        # A dollar sign in somebody's column name is a dollar sign.
        "text.parse_math": False,
    }
