"""Draws the dashboards from what a Prometheus has, one picture each, about as Grafana would show them.

    python -m tests.monitoring.pictures                                              the documentation's, of a made-up day
    python -m tests.monitoring.pictures --prometheus URL --output DIR [--hours N]    of a Prometheus that runs

What is drawn comes from the generated JSON: the grid, queries, units, limits, names and colours. It is a preview, and
Grafana decides.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from matplotlib.transforms import Bbox
from PIL import Image

from common.command import run
from common.errors import EspalierError
from monitoring.prometheus import Prometheus, Sample
from monitoring.queries import DASHBOARDS, VARIABLES, substitute
from tests.app.processes import ROOT
from tests.monitoring.world import watching

IMAGES = ROOT / "docs" / "images" / "dashboards"
PRODUCTION = {"environment": "production", "namespace": "espalier-production", "model": "iris"}
STAGING = {"environment": "staging", "namespace": "espalier-staging", "model": "iris"}

POINTS = 240
"""Steps of a line."""
COLUMN, ROW, GAP, DPI = 60, 36, 4, 90
"""Pixels of the grid's columns and rows and between panels, and of an inch."""
MOST = 10
"""Series that a legend names."""
PAGE, PANEL, EDGE, TEXT, FAINT = "#111217", "#181b1f", "#2c3036", "#d8d9da", "#8e9196"
COLOURS = {
    "green": "#56a64b",
    "yellow": "#e0b400",
    "orange": "#e8741f",
    "red": "#d0303f",
    "blue": "#3871dc",
    "light-blue": "#8ab8ff",
    "purple": "#8f59c7",
}
PALETTE = (
    *("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#37bfb7", "#c0d8ff", "#ca95e5"),
    *("#96d98d", "#ffb357", "#8ab8ff"),
)
STYLE: Any = {
    "font.size": 8,
    "text.color": TEXT,
    "axes.edgecolor": EDGE,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": EDGE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.borderaxespad": 0.3,
}
HOURS = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 120, 240)
SECONDS = (
    60,
    300,
    600,
    1800,
    3600,
    7200,
    14_400,
    43_200,
    86_400,
    *(86_400 * n for n in (2, 7, 14, 28, 56, 112)),
)
"""Round steps of axes."""


@dataclass(frozen=True)
class Line:
    """A series over time, with NaN where it has a gap."""

    name: str
    times: list[float]
    values: list[float]


@dataclass(frozen=True)
class Moment:
    """When and what is looked at."""

    prometheus: Prometheus
    start: float
    end: float
    variables: Mapping[str, str]
    deployed: Sequence[float] = ()
    alerting: Sequence[tuple[float, float]] = ()

    def annotated(self, board: Mapping[str, Any]) -> Moment:
        """The same with what a dashboard's annotations say."""
        deployed: set[float] = set()
        alerting: list[tuple[float, float]] = []
        for each in board["annotations"]["list"]:
            for line in self.lines({"expr": each["expr"]}):
                if each["useValueForTime"]:
                    deployed |= {value / 1000 for value in line.values if not math.isnan(value)}
                else:
                    alerting += [(first, last) for first, last, value in _runs(line) if not math.isnan(value)]
        return replace(
            self, deployed=[at for at in deployed if self.start < at < self.end], alerting=alerting
        )

    def now(self, target: Mapping[str, Any]) -> list[Sample]:
        return self.prometheus.query(substitute(target["expr"], self.variables), self.end)

    def lines(self, target: Mapping[str, Any]) -> list[Line]:
        step = max(15.0, (self.end - self.start) / POINTS)
        expression = substitute(target["expr"], self.variables)
        result = []
        for each in self.prometheus.query_range(expression, self.start, self.end, step):
            times: list[float] = []
            values: list[float] = []
            for at, value in each.samples:
                if times and at - times[-1] > 1.5 * step:
                    times.append(times[-1] + step)
                    values.append(math.nan)
                times.append(at)
                values.append(value)
            result.append(Line(name_of(target.get("legendFormat", ""), each.labels), times, values))
        return sorted(result, key=lambda line: line.name)


Drawer = Callable[[Figure, Mapping[str, Any], Moment], None]


def draw(name: str, moment: Moment, folder: Path) -> Path:
    """Draw a dashboard into NAME.png.

    Raises:
        PrometheusError: a query has no answer because it is wrong, or Prometheus does not answer.
    """
    board = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    moment = moment.annotated(board)
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in board["panels"])
    page = Image.new("RGB", (24 * COLUMN, (rows + 1) * ROW), PAGE)
    with mpl.rc_context(STYLE):
        page.paste(_rendered(24, 1, _title, board, moment), (0, 0))
        for panel in board["panels"]:
            grid = panel["gridPos"]
            drawn = _rendered(grid["w"], grid["h"], _panel, panel, moment)
            page.paste(drawn, (grid["x"] * COLUMN + GAP // 2, (grid["y"] + 1) * ROW + GAP // 2))
    path = folder / f"{name}.png"
    # A fraction of the size; with so few colours the difference is not visible.
    page.quantize(256).save(path, format="png", optimize=True)
    return path


def _rendered(
    width: int, height: int, drawer: Drawer, content: Mapping[str, Any], moment: Moment
) -> Image.Image:
    size = ((width * COLUMN - GAP) / DPI, (height * ROW - GAP) / DPI)
    figure = Figure(figsize=size, dpi=DPI, facecolor=PANEL)
    drawer(figure, content, moment)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]


def _title(figure: Figure, board: Mapping[str, Any], moment: Moment) -> None:
    figure.set_facecolor(PAGE)
    since, until = (datetime.fromtimestamp(at, UTC) for at in (moment.start, moment.end))
    chosen = ", ".join(
        moment.variables[name].replace(".*", f"all {name}s") for name in ("environment", "model")
    )
    figure.text(0.005, 0.5, board["title"], size=15, weight="bold", va="center")
    span = f"{chosen}   {since:%d %b %H:%M} to {until:%d %b %H:%M} UTC"
    figure.text(0.995, 0.5, span, size=9, color=FAINT, va="center", ha="right")


def _panel(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    drawers: dict[str, Drawer] = {
        "row": _heading,
        "stat": _number,
        "timeseries": _lines,
        "bargauge": _gauges,
        "barchart": _bars,
        "table": _table,
        "state-timeline": _phases,
    }
    if panel["type"] not in drawers:
        raise EspalierError(f"{panel['title']}: panels of type {panel['type']} cannot be drawn")
    drawers[panel["type"]](figure, panel, moment)
    if panel["type"] in ("row", "stat"):
        return
    figure.suptitle(panel["title"], x=0.01, ha="left", size=8.5, weight="bold")
    if not figure.axes:
        text = panel["fieldConfig"]["defaults"].get("noValue", "no data")
        figure.text(0.5, 0.5, text, size=11, color=FAINT, ha="center", va="center")


def _axes(figure: Figure) -> Axes:
    figure.set_layout_engine("constrained")
    return figure.subplots()


def _heading(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    figure.set_facecolor(PAGE)
    figure.text(0.005, 0.45, panel["title"], size=11, weight="bold", va="center")


def _number(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    samples = moment.now(panel["targets"][0])
    value = samples[0].value if samples else math.nan
    text, colour = _cell(value, defaults, moment.end)
    if math.isnan(value):
        text, colour = defaults["noValue"], EDGE
    figure.set_facecolor(colour)
    if panel["options"]["graphMode"] == "area":
        axes = figure.add_axes((0, 0.02, 1, 0.35))
        axes.axis("off")
        axes.margins(x=0)
        for line in moment.lines(panel["targets"][0])[:1]:
            axes.plot(line.times, line.values, color="white", alpha=0.55, linewidth=1.1)
    figure.text(0.03, 0.97, panel["title"], size=8.5, color="white", va="top")
    figure.text(0.5, 0.5, text, size=20, weight="bold", color="white", ha="center", va="center")


def _lines(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    config, defaults = panel["fieldConfig"], panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    lines = [line for target in panel["targets"] for line in moment.lines(target)]
    if not lines:
        return
    axes = _axes(figure)
    colours = _colours([line.name for line in lines], config["overrides"])
    labels = [_label(line, panel) for line in lines[:MOST]]
    if custom.get("stacking", {}).get("mode") == "normal":
        times = sorted({at for line in lines for at in line.times})
        tables = [dict(zip(line.times, line.values, strict=True)) for line in lines]
        heights = [np.nan_to_num([values.get(at, 0.0) for at in times]) for values in tables]
        drawn: Sequence[Any] = axes.stackplot(
            times, heights, colors=[colours[line.name] for line in lines], alpha=0.75
        )
    else:
        steps = "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
        drawn = [
            axes.plot(
                *(line.times, line.values),
                color=colours[line.name],
                linewidth=1.3,
                linestyle="--" if "custom.lineStyle" in _properties(line.name, config["overrides"]) else "-",
                drawstyle=steps,
            )[0]
            for line in lines
        ]
    limits = (
        defaults["thresholds"]["steps"] if custom.get("thresholdsStyle", {}).get("mode") == "dashed" else ()
    )
    for limit in limits:
        if limit.get("value") is not None:
            axes.axhline(limit["value"], color=_colour(limit["color"]), ls=(0, (4, 4)), lw=0.9)
    for at in moment.deployed:
        axes.axvline(at, color=COLOURS["blue"], linewidth=0.9, linestyle=":")
    for start, end in moment.alerting:
        axes.axvspan(start, end, ymax=0.025, color=COLOURS["red"], linewidth=0)
    low, high = axes.get_ylim()
    if not np.any(np.nan_to_num([value for line in lines for value in line.values])):
        high = 1.0
    high = max(high, custom.get("axisSoftMax") or high)
    axes.set_ylim(
        *(
            given if (given := defaults.get(key)) is not None else own
            for key, own in (("min", low), ("max", high))
        )
    )
    _value_axis(axes, defaults["unit"])
    _time_axis(axes, moment)
    figure.legend(drawn[:MOST], labels, loc="outside lower left", ncols=1 if len(labels) <= 4 else 2)


def _gauges(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    target = panel["targets"][0]
    samples = moment.now(target)[:MOST]
    if not samples:
        return
    axes = _axes(figure)
    values = [each.value for each in samples]
    cells = [_cell(each, defaults, moment.end) for each in values]
    most = max(defaults.get("max") or 0, *values)
    axes.barh(range(len(values)), [most] * len(values), color=EDGE, height=0.55)
    axes.barh(range(len(values)), values, color=[colour for _, colour in cells], height=0.55)
    for position, (text, _) in enumerate(cells):
        axes.text(1.015 * most, position, text, va="center", size=7.5)
    axes.set_yticks(
        range(len(values)), [name_of(target.get("legendFormat", ""), each.labels) for each in samples]
    )
    axes.set(xlim=(0, 1.18 * most), ylim=(max(len(values), 4) - 0.4, -0.6), xticks=[])
    axes.spines.bottom.set_visible(False)


def _bars(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    config = panel["fieldConfig"]
    by, fields = panel["options"]["xField"], _fields(panel)
    renamed = _organize(panel)["renameByName"]
    heights = {
        renamed.get(field, field): {each.labels.get(by, ""): each.value for each in moment.now(target)}
        for field, target in zip(fields, panel["targets"], strict=True)
    }
    groups = sorted({group for each in heights.values() for group in each}, key=_natural)
    if not groups:
        return
    axes = _axes(figure)
    colours = _colours(list(heights), config["overrides"])
    width = 0.8 / len(heights)
    for index, (name, values) in enumerate(heights.items()):
        at = [position - 0.4 + (index + 0.5) * width for position in range(len(groups))]
        axes.bar(
            at, [values.get(group, 0.0) for group in groups], width * 0.94, color=colours[name], label=name
        )
    slanted: Any = {"rotation": 15, "ha": "right"} if sum(map(len, groups)) > 80 else {}
    axes.set_xticks(range(len(groups)), groups, **slanted)
    axes.set_ylim(0)
    _value_axis(axes, config["defaults"]["unit"])
    figure.legend(loc="outside lower left", ncols=len(heights))


def _table(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    organize = _organize(panel)
    order = organize["indexByName"]
    columns = [each for each in sorted(order, key=order.__getitem__) if each not in organize["excludeByName"]]
    heads = [organize["renameByName"].get(column, column) for column in columns]
    labels = [column for column in columns if not column.startswith("Value")]
    found = {
        field: moment.now(target) for field, target in zip(_fields(panel), panel["targets"], strict=True)
    }
    # As Grafana merges tables: by the labels that all of them have.
    shared = [
        label for label in labels if all(label in each.labels for some in found.values() for each in some)
    ]
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for field, samples in found.items():
        for each in samples:
            joined = rows.setdefault(tuple(each.labels[label] for label in shared), {})
            joined |= {label: each.labels[label] for label in labels if label in each.labels}
            joined[field] = each.value
    if not rows:
        return
    # A single column of numbers is in the query's own order, which `topk` gives it.
    ordered = list(rows.items()) if "topk" in panel["targets"][0]["expr"] else sorted(rows.items())
    height = figure.get_figheight() - 0.35
    room = int(height / 0.2) - 1
    cells = []
    for _, values in ordered[:room]:
        cells.append(
            [
                _cell(
                    values.get(column, math.nan),
                    _properties(head, panel["fieldConfig"]["overrides"]),
                    moment.end,
                )
                for column, head in zip(columns, heads, strict=True)
            ]
        )
    axes = figure.add_axes((0.01, 0.05 / figure.get_figheight(), 0.98, height / figure.get_figheight()))
    axes.axis("off")
    longest = [max(len(head) + 1, *(len(row[at][0]) for row in cells)) + 2 for at, head in enumerate(heads)]
    share = (len(cells) + 1) * 0.2 / height
    table = axes.table(
        [[text for text, _ in row] for row in cells],
        colLabels=heads,
        colWidths=[each / sum(longest) for each in longest],
        cellLoc="left",
        colLoc="left",
        bbox=Bbox.from_bounds(0, 1 - share, 1, share),
        edges="open",
    )
    table.auto_set_font_size(False)
    for (row, column), cell in table.get_celld().items():
        cell.PAD = 0.02
        cell.get_text().set(size=7.5, color=cells[row - 1][column][1] if row else COLOURS["light-blue"])
    if len(rows) > room:
        figure.text(0.99, 0.97, f"and {len(rows) - room} more", size=7, color=FAINT, ha="right", va="top")


def _phases(figure: Figure, panel: Mapping[str, Any], moment: Moment) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    lines = moment.lines(panel["targets"][0])
    if not lines:
        return
    axes = _axes(figure)
    for row, line in enumerate(lines):
        for start, end, value in _runs(line):
            if word := _word(defaults, value):
                axes.barh(row, end - start, left=start, color=word[1], height=0.7)
                if end - start > 0.16 * (moment.end - moment.start):
                    axes.text(
                        (start + end) / 2, row, word[0], ha="center", va="center", size=7.5, color="white"
                    )
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    _time_axis(axes, moment)
    words = [(each["text"], _colour(each["color"])) for each in defaults["mappings"][0]["options"].values()]
    handles = [Patch(color=colour, label=text) for text, colour in words]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))


def _value_axis(axes: Axes, unit: str) -> None:
    highest = axes.get_ylim()[1]
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit == "short" and highest > 2))
    if unit == "s" and highest > 120:
        # Hours and days, not thousands of seconds.
        axes.yaxis.set_major_locator(
            MultipleLocator(next((n for n in SECONDS if highest / n <= 5), SECONDS[-1]))
        )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))


def _time_axis(axes: Axes, moment: Moment) -> None:
    hours = (moment.end - moment.start) / 3600
    every = 3600 * next((each for each in HOURS if hours / each <= 5), HOURS[-1])
    ticks = np.arange(math.ceil(moment.start / every) * every, moment.end, every)
    form = "%H:%M" if hours <= 48 else "%d %b"
    axes.set_xlim(moment.start, moment.end)
    axes.set_xticks(ticks, [f"{datetime.fromtimestamp(each, UTC):{form}}" for each in ticks])


def _label(line: Line, panel: Mapping[str, Any]) -> str:
    """A name with the figures that the legend shows beside it."""
    defaults = panel["fieldConfig"]["defaults"]
    words: dict[str, tuple[str, Callable[[list[float]], float]]]
    words = {"lastNotNull": ("last", lambda values: values[-1]), "max": ("max", max), "min": ("min", min)}
    values = [value for value in line.values if not math.isnan(value)]
    figures = [
        f"{word} {shown(of(values), defaults['unit'], defaults.get('decimals'))}"
        for word, of in (words[each] for each in panel["options"]["legend"]["calcs"][:2] if values)
    ]
    return "   ".join((line.name if len(line.name) <= 40 else line.name[:39] + "…", *figures))


def _runs(line: Line) -> Iterator[tuple[float, float, float]]:
    """Where a line has one value: from, until, and the value."""
    start = 0
    for at in range(1, len(line.values) + 1):
        if at == len(line.values) or line.values[at] != line.values[start]:
            yield line.times[start], line.times[min(at, len(line.times) - 1)], line.values[start]
            start = at


# What the JSON means.


def name_of(form: str, labels: Mapping[str, str]) -> str:
    """A series' name: `p99, {{environment}}` with its labels filled in."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), form).strip() or "value"


def shown(value: float, unit: str, decimals: int | None = None, now: float = 0.0) -> str:
    """A value with its unit, short enough for a cell."""
    if math.isnan(value):
        return "–"
    match unit:
        case "percentunit":
            digits = decimals if decimals is not None else 1 if abs(value) < 1 else 0
            return f"{value * 100:.{digits}f} %"
        case "s":
            return _duration(value)
        case "reqps":
            return f"{_short(value, decimals)} req/s"
        case "bytes":
            power = min(max(int(math.log2(abs(value) or 1) // 10), 0), 3)
            return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
        case "dateTimeFromNow":
            return f"{_duration(now - value / 1000)} ago"
        case _:
            return _short(value, decimals)


def _short(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    for name, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"


def _duration(seconds: float) -> str:
    for name, size in (("weeks", 604_800), ("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if abs(seconds) >= size * (2 if name in ("weeks", "days") else 1):
            return f"{seconds / size:.3g} {name}"
    return f"{seconds * 1000:.3g} ms" if seconds else "0 s"


def _cell(value: float | str, properties: Mapping[str, Any], now: float) -> tuple[str, str]:
    """What is shown of a value, and its colour."""
    if word := _word(properties, value):
        return word
    if isinstance(value, str):
        return (value if len(value) <= 24 else value[:23] + "…"), TEXT
    colour = TEXT
    for limit in () if math.isnan(value) else properties.get("thresholds", {}).get("steps", []):
        if limit.get("value") is None or value >= limit["value"]:
            colour = _colour(limit["color"])
    return shown(value, properties.get("unit", "short"), properties.get("decimals"), now), colour


def _word(properties: Mapping[str, Any], value: float | str) -> tuple[str, str] | None:
    text = value if isinstance(value, str) else f"{value:g}"
    for each in properties.get("mappings", []):
        if found := each["options"].get(text):
            return found["text"], _colour(found["color"])
    return None


def _colour(name: str) -> str:
    return COLOURS.get(name, name)


def _colours(names: Sequence[str], overrides: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A colour for each name: the one that an override gives, else one of the palette that is not taken."""
    given = {name: _properties(name, overrides).get("color") for name in names}
    found = {name: _colour(colour["fixedColor"]) for name, colour in given.items() if colour}
    free = [each for each in PALETTE if each not in found.values()]
    others = [name for name in given if name not in found]
    return found | {name: free[index % len(free)] for index, name in enumerate(others)}


def _properties(name: str, overrides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the overrides say of a series or a column."""
    return {
        each["id"]: each.get("value")
        for override in overrides
        if (override["matcher"]["id"], override["matcher"]["options"]) == ("byName", name)
        or (override["matcher"]["id"] == "byRegexp" and re.search(override["matcher"]["options"], name))
        for each in override["properties"]
    }


def _organize(panel: Mapping[str, Any]) -> Mapping[str, Any]:
    options: Mapping[str, Any] = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
    return options


def _fields(panel: Mapping[str, Any]) -> list[str]:
    """What Grafana calls the values of each query."""
    several = len(panel["targets"]) > 1
    return [f"Value #{target['refId']}" if several else "Value" for target in panel["targets"]]


def _natural(text: str) -> tuple[bool, list[tuple[bool, float, str]]]:
    """An order in which 10 comes after 9, and what has no lower end first."""
    parts = re.findall(r"-?\d+(?:\.\d+)?(?!\.\d)|\D+", text)
    number = re.compile(r"-?\d+(\.\d+)?")
    key = [(False, float(part), "") if number.fullmatch(part) else (True, 0.0, part) for part in parts]
    return not text.startswith(".."), key


def look(prometheus: Prometheus, end: float, hours: float, **chosen: str) -> Moment:
    """The hours until `end`, with the variables that a dashboard opens with, unless another is chosen.

    The feature in detail is the one that drifts most, else any.
    """
    of = f'{{model=~"{chosen.get("model", ".*")}"}}'
    found = prometheus.query(f"topk(1, max by (feature) (espalier:feature_psi:24h{of}))", end)
    found = found or prometheus.query(f"topk(1, max by (feature) (model_feature_reference_ratio{of}))", end)
    feature = {"feature": found[0].labels["feature"]} if found else {}
    return Moment(prometheus, end - hours * 3600, end, {**VARIABLES, **feature, **chosen})


def document() -> None:
    """Draw the pictures of the documentation: a day, and for the load test its hour."""
    with (
        tempfile.TemporaryDirectory() as folder,
        watching(ROOT / "model", Path(folder), hours=27, rules=False, levels=4, alerts=True) as world,
    ):
        for name, hours, chosen in (
            ("overview", 24, {}),
            ("service", 24, PRODUCTION),
            ("model", 24, PRODUCTION),
            ("delivery", 24, {}),
            ("load", 1, STAGING),
        ):
            print(draw(name, look(world.prometheus, world.story.end, hours, **chosen), IMAGES))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.monitoring.pictures",
        description="Draws the dashboards as pictures.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--prometheus", metavar="URL", help="whom to ask (default: one with the documentation's made-up day)")
    add("--output", type=Path, default=Path("build/preview"), metavar="DIR", help="(default: %(default)s)")
    add("--hours", type=float, default=6.0, help="how much is shown (default: %(default)g)")
    options = parser.parse_args()
    if options.prometheus is None:
        document()
        return
    if options.hours <= 0:
        raise EspalierError(f"{options.hours:g} hours are no time to look at")
    options.output.mkdir(parents=True, exist_ok=True)
    with Prometheus(options.prometheus) as prometheus:
        moment = look(prometheus, time.time(), options.hours)
        for path in sorted(DASHBOARDS.glob("*.json")):
            print(draw(path.stem, moment, options.output))


if __name__ == "__main__":
    run(main)
