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

VARIABLES: Mapping[str, str] = {
    "namespace": ".*",
    "environment": ".*",
    "model": ".*",
    "model_version": ".*",
    "__rate_interval": "5m",
    "__interval": "1m",
    "__range": "6h",
}
"""The values of Grafana's variables when nothing was chosen."""

Kind = Literal["panel", "annotation", "variable", "record", "alert"]


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
    return {each.name for each in selectors(parse(expression)) if each.name}


def parse(expression: str) -> Any:
    """The syntax tree of an expression.

    Raises:
        EspalierError: it is not PromQL.
    """
    try:
        return promql_parser.parse(expression)
    except ValueError as error:
        raise EspalierError(f"not PromQL: {' '.join(str(error).split())}: {expression}") from None


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for child in children(node):
        yield from selectors(child)


def children(node: Any) -> list[Any]:
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
