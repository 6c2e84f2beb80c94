"""What every picture is drawn with: colours, headings, names that fit, and PNG files that are the same everywhere."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, less the yellow that white swallows."""
GREY = "#666666"
DPI = 110
NAME = 28
"""Characters of a feature's or a class's name."""


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


def number_ticks(axis: Axis, values: pd.Series[float]) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4))
    if values.abs().max() >= 10_000:
        axis.set_major_formatter(EngFormatter(sep=""))


def date_ticks(axis: Axis) -> None:
    """Of days since 1970."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
    axis.set_major_locator(locator)
    axis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


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
