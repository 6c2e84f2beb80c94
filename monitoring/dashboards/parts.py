"""The dashboards' common parts: variables, links, annotations, selectors, and one function for each kind of panel.

Colours mean the same everywhere: green is fine, yellow wants a look, red wants somebody now; 2xx green, 4xx yellow
and orange, 5xx red. A series keeps its colour from panel to panel, because the palette goes by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import barchart, bargauge, common, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

OVERVIEW, SERVICE, MODEL = "espalier-overview", "espalier-service", "espalier-model"
DELIVERY, LOAD = "espalier-delivery", "espalier-load"
TAG = "espalier"

ENVIRONMENT = 'environment=~"$environment"'
NAMESPACE = 'namespace=~"$namespace"'
SELECTORS = {
    "ENVIRONMENT": ENVIRONMENT,
    "NAMESPACE": NAMESPACE,
    # What is read from git has no namespace.
    "MODEL": f'{ENVIRONMENT}, model=~"$model"',
    # A recorded series has fewer labels than what it was made of.
    "PLACE": f'{NAMESPACE}, {ENVIRONMENT}, model=~"$model"',
    "VERSION": f'{NAMESPACE}, {ENVIRONMENT}, model=~"$model", model_version=~"$model_version"',
    # Names in the cluster begin with the model's.
    "CONTAINER": f'{NAMESPACE}, pod=~"$model-server-.+", container="espalier"',
    "AUTOSCALER": f'{NAMESPACE}, horizontalpodautoscaler=~"$model-server"',
    "ROLLOUT": f'{NAMESPACE}, name=~"$model-server"',
    "APPLICATIONS": 'name=~"espalier-[^.]+([.]$model)?", dest_namespace=~"$namespace|"',
    "ALERT": 'alertstate="firing", team="espalier", environment=~"$environment|", model=~"$model|"',
    "OF_VERSION": 'version=~"$model_version"',
}
"""What the words in capitals stand for in a query, such as `up{VERSION}`: the series that the reader has chosen."""

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    "green",
    "yellow",
    "orange",
    "red",
    "blue",
    "purple",
    "#808080",
)
STATUS_COLOURS = {"^2": GREEN, "^3": BLUE, "^4": YELLOW, "^422$": ORANGE, "^5": RED}

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
Limits = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first has no value."""
NEUTRAL: Limits = ((None, BLUE),)
Queries = Mapping[str, str]
"""Expressions by the names of their series: a text, or `{{label}}`."""


Panel = TypeVar(
    "Panel", barchart.Panel, bargauge.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel
)
Tabular = TypeVar("Tabular", table.Panel, barchart.Panel)
Set = models.DynamicConfigValue


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Mapping[str, Sequence[Any]],
    *,
    span: str = "now-6h",
    one_model: bool = False,
) -> models.Dashboard:
    """A dashboard with the common parts, and rows of panels by their titles.

    With `one_model` it shows one model, and has a variable for one of its features.
    """
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(span, "now")
        .refresh("1m")
        .timezone("browser")
        .with_variable(
            builders.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(models.VariableOption(text="default", value="default", selected=True))
        )
        # Environment first: the namespaces offered are those of the chosen environments. `up` also exists for a pod
        # that does not answer.
        .with_variable(_several("environment", "Environment", 'up{job="espalier"}'))
        .with_variable(_several("namespace", "Namespace", 'up{job="espalier", ENVIRONMENT}'))
        .with_variable(
            (_variable if one_model else _several)(
                "model", "Model", 'up{job="espalier", NAMESPACE, ENVIRONMENT}'
            )
        )
        .with_variable(_several("model_version", "Model version", 'up{job="espalier", PLACE}'))
        .annotation(
            _Annotation(
                "Deployments",
                "espalier_deployed_timestamp_seconds{MODEL} * 1000",
                BLUE,
                "{{model}} deployed to {{environment}}",
                value_is_time=True,
            )
        )
        .annotation(
            _Annotation(
                "Alerts",
                "ALERTS{ALERT}",
                RED,
                "{{alertname}} {{model}}",
            )
        )
        .link(
            builders.DashboardLink("Espalier")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .icon("external link")
        )
    )
    if one_model:
        made = made.with_variable(_variable("feature", "Feature", "model_feature_reference_ratio{VERSION}"))
    for name, panels in rows.items():
        made = made.with_row(builders.Row(name))
        for panel in panels:
            made = made.with_panel(panel)
    built = made.build()
    # A link to a single panel needs an id.
    for index, panel in enumerate(built.panels or [], start=1):
        panel.id_val = index
    return built


def number(
    title: str,
    unit: str,
    expression: str,
    description: str,
    limits: Limits = NEUTRAL,
    *,
    decimals: int | None = None,
    empty: str = "no data",
    words: Mapping[int, tuple[str, str]] | None = None,
) -> stat.Panel:
    """One number with its colour, and its past as a thin line behind it."""
    made = (
        _panel(stat.Panel(), title, description, unit, 4, 4)
        .no_value(empty)
        .thresholds(_limits(limits))
        .color_scheme(_by_limits())
        .color_mode(kinds.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(kinds.BigValueGraphMode.NONE if words else kinds.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(expression, title))
    )
    if decimals is not None:
        made = made.decimals(decimals)
    return made.mappings(_mappings(words)) if words else made


def lines(
    title: str,
    unit: str,
    queries: Queries,
    description: str,
    *,
    width: int = 8,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    at_least_to: float | None = None,
    limits: Limits | None = None,
    colours: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    steps: bool = False,
    statistics: Sequence[str] = ("lastNotNull", "max"),
) -> timeseries.Panel:
    """Quantities over time.

    Args:
        title: a question or a quantity.
        unit: Grafana's name of it.
        queries: expressions by the names of their series.
        description: says when to act.
        width: in columns of 24.
        stacked: series are parts of a whole.
        least: where the axis begins; None for the data's own minimum.
        most: where the axis ends.
        at_least_to: the axis reaches at least to here, so that a small value looks small.
        limits: lines at these values.
        colours: regular expressions of names, and the colours of what they match.
        dashed: regular expressions of names that are limits or references rather than measurements.
        steps: values hold until the next one.
        statistics: columns of the legend.
    """
    made = (
        _panel(timeseries.Panel(), title, description, unit, width)
        .line_width(1 if stacked else 2)
        .fill_opacity(35 if stacked else 8)
        .show_points(kinds.VisibilityMode.NEVER)
        # A gap stays a gap: nothing is known there.
        .span_nulls(False)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(_legend(kinds.LegendDisplayMode.TABLE, statistics))
        .tooltip(
            common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
        )
    )
    if unit == "none":
        made = made.decimals(2)
    if steps:
        made = made.line_interpolation(kinds.LineInterpolation.STEP_AFTER)
    if stacked:
        made = made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if least is not None:
        made = made.min(least)
    if most is not None:
        made = made.max(most)
    if at_least_to is not None:
        made = made.axis_soft_max(at_least_to)
    if limits is not None:
        made = made.thresholds(_limits(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        )
    for pattern, colour in (colours or {}).items():
        made = made.override_by_regexp(pattern, [_fixed(colour)])
    for pattern in dashed:
        style = {"fill": "dash", "dash": [6, 6]}
        made = made.override_by_regexp(
            pattern, [Set("custom.lineStyle", style), Set("custom.fillOpacity", 0)]
        )
    for index, (name, expression) in enumerate(queries.items()):
        made = made.with_target(_query(expression, name, index))
    return made


def gauges(
    title: str,
    unit: str,
    expression: str,
    name: str,
    description: str,
    limits: Limits,
    *,
    most: float,
) -> bargauge.Panel:
    """A bar for each series, as things are now."""
    made = (
        _panel(bargauge.Panel(), title, description, unit)
        .min(0)
        .max(most)
        .thresholds(_limits(limits))
        .color_scheme(_by_limits())
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(expression, name).instant())
    )
    return made.decimals(2) if unit == "none" else made


def compared(
    title: str,
    unit: str,
    by: str,
    queries: Queries,
    description: str,
    *,
    colours: Sequence[str],
    width: int = 8,
) -> barchart.Panel:
    """Groups of bars, one group for each value of the label `by`, one colour for each query."""
    made = (
        _panel(barchart.Panel(), title, description, unit, width)
        .min(0)
        .fill_opacity(80)
        .group_width(0.8)
        .x_field(by)
        .show_value(kinds.VisibilityMode.NEVER)
        .legend(_legend(kinds.LegendDisplayMode.LIST))
    )
    for name, colour in zip(queries, colours, strict=True):
        made = made.override_by_name(name, [_fixed(colour)])
    return _joined(made, {by: by}, queries.values(), list(queries))


def listing(
    title: str,
    labels: Mapping[str, str],
    queries: Mapping[str, tuple[str, str]],
    description: str,
    *,
    width: int = 12,
    height: int = 8,
    limits: Mapping[str, Limits] | None = None,
    words: Mapping[str, Mapping[int, tuple[str, str]]] | None = None,
    words_of: Mapping[str, Mapping[str, str]] | None = None,
    links: Mapping[str, str] | None = None,
    sort: Sequence[str] = (),
) -> table.Panel:
    """A table: a row for each set of labels, a column for each label and each query.

    Args:
        title: a question or a quantity.
        labels: names of columns by label.
        queries: unit and expression by name of the column; without a unit the column is hidden.
        description: says when to act.
        width: in columns of 24.
        height: in Grafana's rows.
        limits: colours of a column's values, by its name.
        words: texts with their colours that replace a column's values.
        words_of: colours of a label's values, by the column's name.
        links: dashboards that a column's cells lead to, which show the model and the environment of the row.
        sort: the columns that order the rows, at first.
    """
    made = (
        _panel(table.Panel(), title, description, "short", width, height)
        .cell_height(kinds.TableCellHeight.SM)
        .show_header(True)
    )
    if sort:
        made = made.sort_by([common.TableSortByFieldState().display_name(name) for name in sort])
    coloured = Set("custom.cellOptions", {"type": "color-text"})
    for name, (unit, _) in queries.items():
        properties = [Set("unit", unit or "short")]
        if limits and name in limits:
            steps = _limits(limits[name]).build()
            if unit == "none":
                properties.append(Set("decimals", 2))
            properties += [Set("thresholds", steps), Set("color", {"mode": "thresholds"}), coloured]
        if words and name in words:
            properties += [Set("mappings", _mappings(words[name])), coloured]
        made = made.override_by_name(name, properties)
    for name, colours in (words_of or {}).items():
        options = {
            text: models.ValueMappingResult(text=text, color=colour) for text, colour in colours.items()
        }
        made = made.override_by_name(name, [Set("mappings", [models.ValueMap(options=options)]), coloured])
    for name, uid in (links or {}).items():
        chosen = {"environment": "${__data.fields.Environment}", "model": "${__data.fields.Model}"}
        variables = "&".join(f"var-{key}={value}" for key, value in chosen.items())
        url = f"/d/{uid}?var-datasource=${{datasource}}&{variables}&${{__url_time_range}}"
        link = {"title": uid.removeprefix(f"{TAG}-").capitalize(), "url": url}
        made = made.override_by_name(name, [Set("links", [link])])
    return _joined(
        made,
        labels,
        (expression for _, expression in queries.values()),
        [name if unit else None for name, (unit, _) in queries.items()],
    )


def phases(
    title: str,
    expression: str,
    name: str,
    description: str,
    words: Mapping[int, tuple[str, str]],
) -> statetimeline.Panel:
    """In which of a few states each series was, over time."""
    return (
        _panel(statetimeline.Panel(), title, description, "short")
        .mappings(_mappings(words))
        .color_scheme(_by_limits())
        .merge_values(True)
        .show_value(kinds.VisibilityMode.AUTO)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(80)
        .legend(_legend(kinds.LegendDisplayMode.LIST))
        .with_target(_query(expression, name))
    )


def _panel(made: Panel, title: str, description: str, unit: str, width: int = 8, height: int = 8) -> Panel:
    """With what every kind of panel has."""
    return (
        made.title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .height(height)
        .span(width)
        .no_value("no data")
    )


def _legend(mode: kinds.LegendDisplayMode, statistics: Sequence[str] = ()) -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(mode)
        .placement(kinds.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(statistics))
    )


def _variable(name: str, label: str, series: str) -> builders.QueryVariable:
    """A variable for one value of a label."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({_expanded(series)}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _several(name: str, label: str, series: str) -> builders.QueryVariable:
    """A variable for any number of values of a label, at first for all."""
    return (
        _variable(name, label, series)
        .multi(True)
        .include_all(True)
        # Exporters' series carry only a namespace, so "all" must mean the service's own there.
        .all_value(None if name == "namespace" else ".*")  # type: ignore[arg-type]
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def _query(expression: str, name: str = "", index: int = 0) -> Dataquery:
    """A query over the dashboard's time."""
    return (
        Dataquery()
        .expr(_expanded(expression))
        .legend_format(name)
        .ref_id(chr(ord("A") + index))
        .datasource(SOURCE)
        .range()
        .format(PromQueryFormat.TIME_SERIES)
    )


def _expanded(expression: str) -> str:
    return re.sub(r"\b[A-Z_]+\b", lambda word: SELECTORS.get(word[0], word[0]), expression)


def _joined(
    made: Tabular, labels: Mapping[str, str], expressions: Iterable[str], names: Sequence[str | None]
) -> Tabular:
    """Join the tables of queries by their labels; name and order the columns, and hide those without a name."""
    for index, expression in enumerate(expressions):
        made = made.with_target(_query(expression, index=index).instant().format(PromQueryFormat.TABLE))
    fields = ["Value"] if len(names) == 1 else [f"Value #{chr(ord('A') + i)}" for i in range(len(names))]
    columns = dict(zip(fields, names, strict=True))
    renamed = dict(labels) | {field: name for field, name in columns.items() if name is not None}
    hidden: list[str] = [field for field, name in columns.items() if name is None]
    organize = {
        "excludeByName": dict.fromkeys(["Time", *hidden], True),
        "indexByName": {field: index for index, field in enumerate(renamed)},
        "renameByName": {field: name for field, name in renamed.items() if field != name},
    }
    return made.with_transformation(
        models.DataTransformerConfig(id_val="merge", options={})
    ).with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))


def _limits(limits: Limits) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in limits])
    )


def _by_limits() -> builders.FieldColor:
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _fixed(colour: str) -> models.DynamicConfigValue:
    return Set("color", {"mode": "fixed", "fixedColor": colour})


def _mappings(words: Mapping[int, tuple[str, str]]) -> list[models.ValueMapping]:
    options = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(words.items())
    }
    return [models.ValueMap(options=options)]


class _Annotation(Builder[models.AnnotationQuery]):
    """An annotation from a query, in the form that Prometheus' data source reads."""

    def __init__(
        self, name: str, expression: str, colour: str, title: str, *, value_is_time: bool = False
    ) -> None:
        self._made = _PrometheusAnnotation(
            name=name, datasource=SOURCE, icon_color=colour, expr=_expanded(expression)
        )
        self._made.more = {"titleFormat": title, "step": "60s", "useValueForTime": value_is_time}

    def build(self) -> models.AnnotationQuery:
        return self._made


class _PrometheusAnnotation(models.AnnotationQuery):
    """The library's class lacks the fields that Prometheus' annotations have besides a query."""

    more: Mapping[str, object] = MappingProxyType({})

    def to_json(self) -> dict[str, object]:
        known: dict[str, object] = super().to_json()
        return known | dict(self.more)
