"""Every query of the dashboards and rules, and the metrics that a query reads.

    python -m monitoring.queries [--metrics]

prints the queries, or the names of the metrics. Grafana's variables are replaced by the meaning of "All", because
Prometheus does not know them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import promql_parser
import yaml

from common.command import run
from common.errors import EspalierError

FOLDER = Path(__file__).parent
DASHBOARDS = FOLDER / "dashboards"
RULES = FOLDER / "rules"
EXPORTERS = FOLDER / "exporters.yaml"

VARIABLES: Mapping[str, str] = {
    "namespace": ".*",
    "environment": ".*",
    "model_version": ".*",
    "__rate_interval": "5m",
    "__interval": "1m",
    "__range": "6h",
}
"""The values of Grafana's variables when nothing was chosen."""

Kind = Literal["panel", "annotation", "variable", "record", "alert"]
COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")


@dataclass(frozen=True)
class Query:
    """A query and its place.

    Attributes:
        source: name of the file.
        title: title of the panel, or name of the rule.
        expression: PromQL with the variables replaced.
    """

    source: str
    kind: Kind
    title: str
    expression: str


def panel_queries(variables: Mapping[str, str] = VARIABLES) -> list[Query]:
    """The queries of every panel, annotation and variable of the generated dashboards."""
    return [each for path in sorted(DASHBOARDS.glob("*.json")) for each in _of_dashboard(path, variables)]


def rule_queries() -> list[Query]:
    """The expressions of every recording rule and alert."""
    return [each for path in sorted(RULES.glob("*.yaml")) for each in _of_rules(path)]


def metric_names(expression: str) -> set[str]:
    """The names of the metrics that an expression reads.

    Raises:
        EspalierError: it is not PromQL.
    """
    return {each.name for each in _selectors(_parse(expression)) if each.name}


def recorded_names() -> set[str]:
    """The names of the recorded series."""
    return {each.title for each in rule_queries() if each.kind == "record"}


def exported_names() -> set[str]:
    """The names of the series of the listed exporters."""
    found: set[str] = set()
    for exporter in _yaml(EXPORTERS).values():
        for name, about in exporter["metrics"].items():
            suffixes = ("_bucket", "_count", "_sum") if about.get("type") == "histogram" else ("",)
            found.update(name + suffix for suffix in suffixes)
    return found


def operands(expression: str) -> list[str]:
    """The parts that an expression compares and combines; each must have data while nothing is wrong.

    An alert is empty while nothing is wrong: `a > 5 and b` has no result then, but `a` and `b` have. So a comparison gives
    both its sides except plain numbers, and `and`, `or` and `unless` give all their parts. Selectors keep their filters.

    Raises:
        EspalierError: it is not PromQL.
    """
    return list(dict.fromkeys(_operands(_parse(expression))))


def substitute(text: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """Replace `$name`, `${name}` and `[[name]]` by the variables' values; other variables stay."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        return variables.get(name, match[0])

    return re.sub(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]", value, text)


def _of_dashboard(path: Path, variables: Mapping[str, str]) -> Iterator[Query]:
    board = _json(path)

    def query(kind: Kind, title: str, text: str) -> Query:
        return Query(path.name, kind, title, substitute(text, variables))

    for panel in panels(board):
        for target in panel.get("targets", []):
            yield query("panel", panel["title"], target["expr"])
    for each in board["annotations"]["list"]:
        if "expr" in each:
            yield query("annotation", each["name"], each["expr"])
    for each in board["templating"]["list"]:
        if each["type"] == "query":
            inside = re.fullmatch(r"label_values\((.+), \w+\)", each["query"]["query"])
            if inside:
                yield query("variable", each["name"], inside[1])


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A dashboard's panels without the rows' titles."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or []
        else:
            yield panel


def _of_rules(path: Path) -> Iterator[Query]:
    for group in (_yaml(path) or {}).get("groups", []):
        for rule in group["rules"]:
            kind: Kind = "record" if "record" in rule else "alert"
            yield Query(path.name, kind, rule[kind], rule["expr"])


def _parse(expression: str) -> Any:
    try:
        return promql_parser.parse(expression)
    except ValueError as error:
        raise EspalierError(f"not PromQL: {' '.join(str(error).split())}: {expression}") from None


def _selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for child in _children(node):
        yield from _selectors(child)


def _children(node: Any) -> list[Any]:
    match node:
        case promql_parser.BinaryExpr():
            return [node.lhs, node.rhs]
        case promql_parser.AggregateExpr():
            return [node.expr, *([node.param] if node.param is not None else [])]
        case promql_parser.Call():
            return list(node.args)
        case promql_parser.MatrixSelector():
            return [node.vector_selector]
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            return [node.expr]
        case _:
            return []


def _operands(node: Any) -> Iterator[str]:
    if not any(_is_choice(each) for each in _descendants(node)):
        # A number needs no data; `absent` is empty when its metric exists.
        if isinstance(node, promql_parser.Call) and node.func.name.startswith("absent"):
            yield from (each.prettify() for each in node.args)
        elif next(_selectors(node), None) is not None:
            yield node.prettify()
        return
    for child in _children(node):
        yield from _operands(child)


def _descendants(node: Any) -> Iterator[Any]:
    yield node
    for child in _children(node):
        yield from _descendants(child)


def _is_choice(node: Any) -> bool:
    if isinstance(node, promql_parser.Call):
        return bool(node.func.name.startswith("absent"))
    return isinstance(node, promql_parser.BinaryExpr) and str(node.op) in (
        *COMPARISONS,
        "and",
        "or",
        "unless",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EspalierError(f"{path}: {error}") from None
    return content


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise EspalierError(f"{path}: {' '.join(str(error).split())}") from None
    return content


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.queries", description="Prints every query.", allow_abbrev=False
    )
    parser.add_argument(
        "--metrics", action="store_true", help="print the names that the queries read instead"
    )
    options = parser.parse_args()
    queries = [*panel_queries(), *rule_queries()]
    if options.metrics:
        print("\n".join(sorted({name for each in queries for name in metric_names(each.expression)})))
        return
    for each in queries:
        print(f"{each.source}: {each.title}\n    {' '.join(each.expression.split())}")


if __name__ == "__main__":
    run(main)
