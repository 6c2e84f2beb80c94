"""Draws the dashboards from what a Prometheus has, one picture each, about as Grafana would show them.

    python -m monitoring.preview --prometheus URL --output DIR [--at SECONDS] [--hours N]

The pictures are for the documentation, and for a change to a dashboard where no Grafana is at hand. What is drawn comes
from the generated JSON: the grid, queries, units, limits, names and colours; it is a preview, and Grafana decides.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitoring.errors import MonitoringError, run
from monitoring.prometheus import Prometheus, Sample
from monitoring.queries import DASHBOARDS, VARIABLES, substitute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 240
"""Steps of a line."""
UNIT_WIDTH, UNIT_HEIGHT = 0.66, 0.4
"""Inches of a column and of a row of the grid."""
DPI = 72
ROUND_TIMES = tuple(
    count * unit
    for unit, counts in (
        (60, (1, 5, 10, 15, 30)),
        (3600, (1, 2, 4, 6, 12)),
        (86_400, (1, 2, 7, 14, 28, 56, 112)),
    )
    for count in counts
)
HEADER = 1.6
"""Rows of the grid for the title."""

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
            lines = self.lines({"expr": each["expr"]})
            if each["useValueForTime"]:
                deployed |= {value / 1000 for line in lines for value in line.values if not math.isnan(value)}
            else:
                alerting += [(run[0], run[-1]) for line in lines for run in _runs(line)]
        return replace(
            self,
            deployed=sorted(at for at in deployed if self.start < at < self.end),
            alerting=alerting,
        )

    def now(self, expression: str) -> list[Sample]:
        return self.prometheus.query(substitute(expression, self.variables), self.end)

    def lines(self, target: Mapping[str, Any]) -> list[Line]:
        """The series of a query over the time that is looked at, with a gap where there is no value."""
        step = max(15.0, (self.end - self.start) / POINTS)
        found = self.prometheus.query_range(
            substitute(target["expr"], self.variables), self.start, self.end, step
        )
        result = []
        for each in found:
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


@dataclass(frozen=True)
class Line:
    name: str
    times: list[float]
    values: list[float]


def _runs(line: Line) -> list[list[float]]:
    """The times of a line in pieces without gaps."""
    found: list[list[float]] = [[]]
    for at, value in zip(line.times, line.values, strict=True):
        if math.isnan(value):
            found.append([])
        else:
            found[-1].append(at)
    return [each for each in found if each]


# ------------------------------------------------------------------------------------------------ words


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
            for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
                if abs(value) >= size:
                    return f"{value / size:.3g} {name}"
            return f"{value:.0f} B"
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


# ---------------------------------------------------------------------------------------------- drawing


def draw(board: Mapping[str, Any], moment: Moment, path: Path) -> None:
    """Draw a dashboard into a PNG file.

    Raises:
        PrometheusError: a query has no answer because it is wrong, or Prometheus does not answer.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in board["panels"]) + HEADER
    width, height = 24 * UNIT_WIDTH, rows * UNIT_HEIGHT
    with mpl.rc_context(
        {"font.family": "DejaVu Sans", "font.size": 8, "text.color": TEXT, "axes.edgecolor": EDGE}
    ):
        figure = plt.figure(figsize=(width, height), facecolor=PAGE, dpi=DPI)
        page = Page(figure, width, height)
        page.write(0.12, height - 0.3, board["title"], size=15, weight="bold")
        since, until = (datetime.fromtimestamp(at, UTC) for at in (moment.start, moment.end))
        form = "%d %b %H:%M" if until - since > timedelta(hours=12) else "%H:%M"
        chosen = ", ".join(
            f"{name} {value}"
            for name, value in moment.variables.items()
            if not name.startswith("_") and value != ".*" and f"${name}" in json.dumps(board)
        )
        span = f"{since:{form}} to {until:{form}} UTC"
        page.write(
            width - 0.12, height - 0.3, "   ".join(filter(None, (chosen, span))), faint=True, right=True
        )
        annotated = moment.annotated(board)
        for panel in board["panels"]:
            _panel(page, panel, annotated)
        temporary = path.with_suffix(".png.tmp")
        figure.savefig(temporary, format="png", facecolor=PAGE, dpi=DPI * 1.25)
        plt.close(figure)
        # A fraction of the size; with so few colours the difference is not visible.
        with Image.open(temporary) as picture:
            picture.convert("RGB").quantize(256).save(temporary, format="png", optimize=True)
        temporary.replace(path)


class Page:
    """A figure whose positions are inches from its lower left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure = figure
        self.width = width
        self.height = height

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 9,
        weight: str = "normal",
        colour: str = TEXT,
        faint: bool = False,
        right: bool = False,
        middle: bool = False,
    ) -> None:
        self.figure.text(
            x / self.width,
            y / self.height,
            text,
            size=size,
            weight=weight,
            color=FAINT if faint else colour,
            ha="right" if right else "center" if middle else "left",
            va="center",
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        from matplotlib.patches import Rectangle

        self.figure.add_artist(
            Rectangle(
                (x / self.width, y / self.height),
                width / self.width,
                height / self.height,
                facecolor=colour,
                edgecolor=EDGE,
                linewidth=0.8,
                transform=self.figure.transFigure,
                zorder=-2,
            )
        )

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, y / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place, facecolor="none")


@dataclass(frozen=True)
class Place:
    x: float
    y: float
    width: float
    height: float


def _panel(page: Page, panel: Mapping[str, Any], moment: Moment) -> None:
    grid = panel["gridPos"]
    gap = 0.05
    place = Place(
        grid["x"] * UNIT_WIDTH + gap,
        page.height - (grid["y"] + grid["h"] + HEADER) * UNIT_HEIGHT + gap,
        grid["w"] * UNIT_WIDTH - 2 * gap,
        grid["h"] * UNIT_HEIGHT - 2 * gap,
    )
    if panel["type"] == "row":
        page.write(place.x + 0.05, place.y + place.height / 2 - 0.02, panel["title"], size=11, weight="bold")
        return
    drawers: dict[str, Callable[[Page, Place, Mapping[str, Any], Moment], None]] = {
        "stat": _number,
        "timeseries": _lines,
        "bargauge": _gauges,
        "barchart": _bars,
        "table": _table,
        "state-timeline": _phases,
    }
    if panel["type"] not in drawers:
        raise MonitoringError(f"{panel['title']}: panels of type {panel['type']} cannot be drawn")
    if panel["type"] != "stat":
        page.box(place.x, place.y, place.width, place.height, PANEL)
        page.write(place.x + 0.1, place.y + place.height - 0.15, panel["title"], size=8.5, weight="bold")
    drawers[panel["type"]](page, place, panel, moment)


def _number(page: Page, place: Place, panel: Mapping[str, Any], moment: Moment) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    samples = moment.now(panel["targets"][0]["expr"])
    value = samples[0].value if samples else math.nan
    word = _word(defaults, value)
    colour = word[1] if word else _limit_colour(defaults, value)
    text = word[0] if word else shown(value, defaults["unit"], defaults.get("decimals"), moment.end)
    if not samples or math.isnan(value):
        text, colour = defaults["noValue"], EDGE
    page.box(place.x, place.y, place.width, place.height, colour)
    if panel["options"]["graphMode"] == "area":
        for line in moment.lines(panel["targets"][0])[:1]:
            axes = page.axes(place.x, place.y + 0.02, place.width, place.height * 0.35)
            axes.axis("off")
            axes.plot(line.times, line.values, color="white", alpha=0.55, linewidth=1.1)
            axes.set_xlim(moment.start, moment.end)
    page.write(place.x + 0.1, place.y + place.height - 0.17, panel["title"], size=8.5, colour="white")
    page.write(
        place.x + place.width / 2,
        place.y + place.height * 0.5,
        text,
        size=20,
        weight="bold",
        colour="white",
        middle=True,
    )


def _lines(page: Page, place: Place, panel: Mapping[str, Any], moment: Moment) -> None:
    config = panel["fieldConfig"]
    defaults, custom = config["defaults"], config["defaults"].get("custom", {})
    unit = defaults["unit"]
    lines = [line for target in panel["targets"] for line in moment.lines(target)]
    if not lines:
        _nothing(page, place, defaults)
        return
    colours = _colours([line.name for line in lines], config["overrides"])
    per_row = 1 if len(lines) <= 4 else 2
    legend_rows = math.ceil(min(len(lines), 10) / per_row)
    legend = 0.165 * legend_rows + 0.2
    axes = page.axes(place.x + 0.62, place.y + legend + 0.24, place.width - 0.75, place.height - legend - 0.6)
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    step = "post" if custom.get("lineInterpolation") == "stepAfter" else None
    if stacked:
        times = sorted({at for line in lines for at in line.times})
        table = [dict(zip(line.times, line.values, strict=True)) for line in lines]
        heights = [[_or_zero(values.get(at)) for at in times] for values in table]
        axes.stackplot(times, heights, colors=[colours[line.name] for line in lines], alpha=0.75)
    for line in () if stacked else lines:
        dashed = _is_dashed(line.name, config["overrides"])
        axes.plot(
            line.times,
            line.values,
            color=colours[line.name],
            linewidth=1.3,
            linestyle="--" if dashed else "-",
            drawstyle="steps-post" if step else "default",
        )
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for limit in defaults["thresholds"]["steps"]:
            if limit.get("value") is not None:
                axes.axhline(
                    limit["value"], color=COLOURS.get(limit["color"], limit["color"]), ls=(0, (4, 4)), lw=0.9
                )
    _marks(axes, moment)
    _style(axes, moment, unit)
    low, high = axes.get_ylim()
    if not any(_or_zero(value) for line in lines for value in line.values) and not custom.get("axisSoftMax"):
        high = 1.0
    if defaults.get("min") is not None:
        low = defaults["min"]
    if custom.get("axisSoftMax") is not None:
        high = max(high, custom["axisSoftMax"])
    if defaults.get("max") is not None:
        high = defaults["max"]
    axes.set_ylim(low, high * (1.0 if defaults.get("max") is not None else 1.04))
    _legend(page, place, lines, colours, panel, per_row)


def _marks(axes: Axes, moment: Moment) -> None:
    """What the annotations say: a line where something was deployed, a bar below while an alert fires."""
    for at in moment.deployed:
        axes.axvline(at, color=COLOURS["blue"], linewidth=0.9, linestyle=":")
    for start, end in moment.alerting:
        axes.axvspan(start, end, ymax=0.025, color=COLOURS["red"], linewidth=0)


def _legend(
    page: Page,
    place: Place,
    lines: Sequence[Line],
    colours: Mapping[str, str],
    panel: Mapping[str, Any],
    per_row: int,
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    calculations = panel["options"]["legend"]["calcs"]
    of: dict[str, Callable[[list[float]], float]] = {
        "lastNotNull": lambda values: values[-1],
        "max": max,
        "min": min,
    }
    width = place.width / per_row
    most = 10
    count = math.ceil(min(len(lines), most) / per_row)
    words = {"lastNotNull": "last"}
    for column in range(per_row):
        heads = [words.get(each, each) for each in calculations[: 3 - per_row]]
        right = place.x + (column + 1) * width - 0.1
        for head in reversed(heads):
            page.write(right, place.y + 0.12 + count * 0.165, head, size=6.5, faint=True, right=True)
            right -= 0.74
    for index, line in enumerate(lines[:most]):
        column, row = divmod(index, count)
        x, y = place.x + 0.12 + column * width, place.y + 0.12 + (count - 1 - row) * 0.165
        page.box(x, y - 0.02, 0.13, 0.04, colours[line.name])
        values = [value for value in line.values if not math.isnan(value)]
        figures = [
            shown(of[each](values) if values else math.nan, defaults["unit"], defaults.get("decimals"))
            for each in calculations[:2]
        ]
        if per_row == 2:
            figures = figures[:1]
        room = int((width - 0.45 - 0.74 * len(figures)) / 0.065)
        name = line.name if len(line.name) <= room else line.name[: max(room - 1, 3)] + "…"
        if index == most - 1 and len(lines) > most:
            name, figures = f"and {len(lines) - most + 1} more", []
        page.write(x + 0.2, y, name, size=7)
        for position, figure in enumerate(reversed(figures)):
            page.write(x + width - 0.22 - 0.74 * position, y, figure, size=7, faint=True, right=True)


def _gauges(page: Page, place: Place, panel: Mapping[str, Any], moment: Moment) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    target = panel["targets"][0]
    samples = moment.now(target["expr"])[:10]
    if not samples:
        _nothing(page, place, defaults)
        return
    names = [name_of(target.get("legendFormat", ""), each.labels) for each in samples]
    longest = max(map(len, names)) * 0.07 + 0.2
    axes = page.axes(place.x + longest, place.y + 0.15, place.width - longest - 0.75, place.height - 0.55)
    most = max(defaults.get("max") or 0, *(each.value for each in samples))
    positions = range(len(samples))
    axes.barh(positions, [most] * len(samples), color=EDGE, height=0.55)
    axes.barh(
        positions,
        [each.value for each in samples],
        color=[_limit_colour(defaults, each.value) for each in samples],
        height=0.55,
    )
    axes.set_xlim(0, most)
    axes.set_ylim(max(len(samples), 4) - 0.4, -0.6)
    axes.axis("off")
    for position, name, each in zip(positions, names, samples, strict=True):
        axes.text(-0.015 * most, position, name, ha="right", va="center", size=7.5)
        text = shown(each.value, defaults["unit"], defaults.get("decimals"), moment.end)
        axes.text(1.015 * most, position, text, ha="left", va="center", size=7.5)


def _bars(page: Page, place: Place, panel: Mapping[str, Any], moment: Moment) -> None:
    config = panel["fieldConfig"]
    by = panel["options"]["xField"]
    names = _renamed(panel)
    heights = {
        names[index]: {each.labels.get(by, ""): each.value for each in moment.now(target["expr"])}
        for index, target in enumerate(panel["targets"])
    }
    groups = sorted({group for each in heights.values() for group in each}, key=_natural)
    if not groups:
        _nothing(page, place, config["defaults"])
        return
    colours = _colours(names, config["overrides"])
    axes = page.axes(place.x + 0.62, place.y + 0.5, place.width - 0.75, place.height - 0.9)
    thickness = 0.8 / len(names)
    for index, name in enumerate(names):
        at = [position - 0.4 + (index + 0.5) * thickness for position in range(len(groups))]
        values = [heights[name].get(group, 0.0) for group in groups]
        axes.bar(at, values, thickness * 0.94, color=colours[name])
    _style(axes, moment, config["defaults"]["unit"], time_axis=False)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(0)
    x = place.x + 0.12
    for name in names:
        page.box(x, place.y + 0.1, 0.13, 0.06, colours[name])
        page.write(x + 0.2, place.y + 0.13, name, size=7)
        x += 0.45 + 0.07 * len(name)


def _table(page: Page, place: Place, panel: Mapping[str, Any], moment: Moment) -> None:
    organize = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
    hidden, renamed = organize["excludeByName"], organize["renameByName"]
    order = organize["indexByName"]
    fields = [field for field in sorted(order, key=order.__getitem__) if field not in hidden]
    labels = [field for field in fields if not field.startswith("Value")]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    several = len(panel["targets"]) > 1
    for target in panel["targets"]:
        field = f"Value #{target['refId']}" if several else "Value"
        for each in moment.now(target["expr"]):
            key = tuple(each.labels.get(label, "") for label in labels)
            rows.setdefault(key, {})[field] = each.value
    if not rows:
        _nothing(page, place, panel["fieldConfig"]["defaults"])
        return
    overrides = _by_name(panel["fieldConfig"]["overrides"])
    room = int((place.height - 0.7) / 0.2)
    table: list[list[tuple[str, str]]] = []
    # A single column of numbers is in the query's own order, which `topk` gives it.
    ordered = list(rows.items()) if "topk" in panel["targets"][0]["expr"] else sorted(rows.items())
    for key, values in ordered[:room]:
        cells = []
        for field in fields:
            its = overrides.get(renamed.get(field, field), {})
            if field in labels:
                text = key[labels.index(field)]
                word = _mapping(its.get("mappings", []), text)
                cells.append((word[0], word[1]) if word else (text, TEXT))
            else:
                cells.append(_value_cell(values.get(field, math.nan), its, moment))
        table.append(cells)
    heads = [renamed.get(field, field) for field in fields]
    longest = [
        max(len(head) + 1, *(min(len(row[index][0]), 24) for row in table))
        for index, head in enumerate(heads)
    ]
    unit = (place.width - 0.25) / sum(each + 2 for each in longest)
    x = place.x + 0.12
    for index, head in enumerate(heads):
        width = unit * (longest[index] + 2)
        page.write(
            x, place.y + place.height - 0.42, head, size=7.5, weight="bold", colour=COLOURS["light-blue"]
        )
        fits = max(int((width - 0.06) / 0.072), 4)
        for number, row in enumerate(table):
            text, colour = row[index]
            text = text if len(text) <= fits else text[: fits - 1] + "…"
            page.write(x, place.y + place.height - 0.64 - 0.2 * number, text, size=7.5, colour=colour)
        x += width
    if len(rows) > room:
        page.write(
            place.x + place.width - 0.15,
            place.y + place.height - 0.15,
            f"and {len(rows) - room} more",
            size=7,
            faint=True,
            right=True,
        )


def _value_cell(value: float, properties: Mapping[str, Any], moment: Moment) -> tuple[str, str]:
    word = _mapping(properties.get("mappings", []), f"{value:g}")
    if word:
        return word
    text = shown(value, properties.get("unit", "short"), now=moment.end)
    colour = _limit_colour(properties, value) if "thresholds" in properties else TEXT
    return text, TEXT if math.isnan(value) else colour


def _phases(page: Page, place: Place, panel: Mapping[str, Any], moment: Moment) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    lines = moment.lines(panel["targets"][0])
    if not lines:
        _nothing(page, place, defaults)
        return
    longest = max(len(line.name) for line in lines) * 0.066 + 0.2
    axes = page.axes(place.x + longest, place.y + 0.52, place.width - longest - 0.15, place.height - 0.95)
    for row, line in enumerate(lines):
        start = 0
        for index in range(1, len(line.values) + 1):
            if index < len(line.values) and line.values[index] == line.values[start]:
                continue
            until = line.times[index] if index < len(line.times) else moment.end
            word = _word(defaults, line.values[start])
            if word:
                axes.barh(row, until - line.times[start], left=line.times[start], color=word[1], height=0.7)
                if until - line.times[start] > 0.16 * (moment.end - moment.start):
                    middle = (until + line.times[start]) / 2
                    axes.text(middle, row, word[0], ha="center", va="center", size=7.5, color="white")
            start = index
    _style(axes, moment, "short")
    axes.grid(visible=False)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    x = place.x + 0.12
    for each in defaults["mappings"][0]["options"].values():
        page.box(x, place.y + 0.1, 0.13, 0.06, COLOURS.get(each["color"], each["color"]))
        page.write(x + 0.2, place.y + 0.13, each["text"], size=7)
        x += 0.42 + 0.07 * len(each["text"])


# -------------------------------------------------------------------------------------------- what it means


def _nothing(page: Page, place: Place, defaults: Mapping[str, Any]) -> None:
    page.write(
        place.x + place.width / 2,
        place.y + place.height / 2,
        defaults.get("noValue", "no data"),
        size=11,
        faint=True,
        middle=True,
    )


def _style(axes: Axes, moment: Moment, unit: str, *, time_axis: bool = True) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=EDGE, linewidth=0.6)
    axes.set_axisbelow(True)
    highest = axes.get_ylim()[1]
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit == "short" and highest > 2))
    if unit == "s" and highest > 120:
        # Hours and days, not thousands of seconds.
        every_seconds = next((each for each in ROUND_TIMES if highest / each <= 5), ROUND_TIMES[-1])
        axes.yaxis.set_major_locator(MultipleLocator(every_seconds))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    if time_axis:
        axes.set_xlim(moment.start, moment.end)
        hours = (moment.end - moment.start) / 3600
        every = next((each for each in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 120) if hours / each <= 5), 240)
        first = math.ceil(moment.start / (every * 3600)) * every * 3600
        ticks = [first + index * every * 3600 for index in range(int(hours / every) + 1)]
        ticks = [each for each in ticks if each <= moment.end]
        form = "%H:%M" if hours <= 48 else "%d %b"
        axes.set_xticks(ticks, [f"{datetime.fromtimestamp(each, UTC):{form}}" for each in ticks])


def _colours(names: Sequence[str], overrides: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A colour for each name: the one that an override gives, else one of the palette that is not taken."""
    found: dict[str, str] = {}
    for override in overrides:
        colour = next((p["value"]["fixedColor"] for p in override["properties"] if p["id"] == "color"), None)
        for name in names if colour else ():
            if _matches(override["matcher"], name):
                found[name] = COLOURS.get(str(colour), str(colour))
    taken = dict.fromkeys(found.values())
    free = [each for each in PALETTE if each not in taken]
    repeated: dict[str, int] = {}
    for name in names:
        if name not in found:
            found[name] = free[len(repeated) % len(free)]
            repeated[name] = 1
    return found


def _is_dashed(name: str, overrides: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        _matches(override["matcher"], name)
        and any(p["id"] == "custom.lineStyle" for p in override["properties"])
        for override in overrides
    )


def _matches(matcher: Mapping[str, Any], name: str) -> bool:
    if matcher["id"] == "byName":
        return bool(matcher["options"] == name)
    return matcher["id"] == "byRegexp" and re.search(matcher["options"], name) is not None


def _by_name(overrides: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for each in overrides:
        if each["matcher"]["id"] == "byName":
            properties = {p["id"]: p.get("value") for p in each["properties"]}
            found.setdefault(each["matcher"]["options"], {}).update(properties)
    return found


def _renamed(panel: Mapping[str, Any]) -> list[str]:
    organize = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
    several = len(panel["targets"]) > 1
    fields = [f"Value #{target['refId']}" if several else "Value" for target in panel["targets"]]
    return [organize["renameByName"].get(field, field) for field in fields]


def _limit_colour(properties: Mapping[str, Any], value: float) -> str:
    colour = EDGE
    for each in properties.get("thresholds", {}).get("steps", []):
        if each.get("value") is None or value >= each["value"]:
            colour = each["color"]
    return COLOURS.get(colour, colour)


def _word(defaults: Mapping[str, Any], value: float) -> tuple[str, str] | None:
    return _mapping(defaults.get("mappings", []), f"{value:g}")


def _mapping(mappings: Sequence[Mapping[str, Any]], text: str) -> tuple[str, str] | None:
    for each in mappings:
        if text in each["options"]:
            found = each["options"][text]
            return found["text"], COLOURS.get(found["color"], found["color"])
    return None


def _natural(text: str) -> tuple[bool, list[tuple[bool, float, str]]]:
    """An order in which 10 comes after 9, and what has no lower end first."""
    parts = re.findall(r"-?\d+(?:\.\d+)?(?!\.\d)|\D+", text)
    key = [
        (False, float(part), "") if re.fullmatch(r"-?\d+(\.\d+)?", part) else (True, 0.0, part)
        for part in parts
    ]
    return (not text.startswith(".."), key)


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value


def most_drifted(prometheus: Prometheus, at: float) -> str:
    """The feature that the model's dashboard shows in detail: the one that drifts most, else any."""
    for query in (
        "topk(1, max by (feature) (espalier:feature_psi:24h))",
        "topk(1, max by (feature) (model_feature_reference_ratio))",
    ):
        found = prometheus.query(query, at)
        if found:
            return found[0].labels["feature"]
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.preview",
        description="Draws the dashboards as pictures.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--prometheus", required=True, metavar="URL", help="whom to ask, such as http://127.0.0.1:9090")
    add("--output", required=True, type=Path, metavar="DIR", help="where NAME.png are written")
    add("--at", type=float, help="the end of what is shown, in seconds since 1970 (default: now)")
    add("--hours", type=float, default=6.0, help="how much is shown (default: %(default)g)")
    add("--dashboard", action="append", help="only this one: service, model, delivery or load; repeatable")
    add("--choose", action="append", default=[], metavar="NAME=VALUE", help="a variable's value; repeatable")
    options = parser.parse_args()
    names = options.dashboard or sorted(path.stem for path in DASHBOARDS.glob("*.json"))
    unknown = [name for name in names if not (DASHBOARDS / f"{name}.json").exists()]
    if unknown:
        raise MonitoringError(f"there is no dashboard {unknown[0]!r}")
    if options.hours <= 0:
        raise MonitoringError(f"{options.hours:g} hours are no time to look at")
    wrong = [each for each in options.choose if "=" not in each]
    if wrong:
        raise MonitoringError(f"{wrong[0]!r} is not NAME=VALUE")
    end = options.at if options.at is not None else time.time()
    options.output.mkdir(parents=True, exist_ok=True)
    with Prometheus(options.prometheus) as prometheus:
        variables = {
            **VARIABLES,
            "feature": most_drifted(prometheus, end),
            **dict(each.split("=", 1) for each in options.choose),
        }
        for name in names:
            board = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
            path = options.output / f"{name}.png"
            draw(board, Moment(prometheus, end - options.hours * 3600, end, variables), path)
            print(path)


if __name__ == "__main__":
    run(main)
