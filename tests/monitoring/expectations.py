"""What queries may read, and what of them must have data while nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml

from monitoring.queries import FOLDER, children, parse, rule_queries, selectors

EXPORTERS = FOLDER / "exporters.yaml"
CHOICES = ("==", "!=", ">", "<", ">=", "<=", "and", "or", "unless")


def recorded_names() -> set[str]:
    """The names of the recorded series."""
    return {each.title for each in rule_queries() if each.kind == "record"}


def exported_names() -> set[str]:
    """The names of the series of the listed exporters."""
    found: set[str] = set()
    for exporter in yaml.safe_load(EXPORTERS.read_text()).values():
        for name, about in exporter["metrics"].items():
            suffixes = ("_bucket", "_count", "_sum") if about.get("type") == "histogram" else ("",)
            found.update(name + suffix for suffix in suffixes)
    return found


def operands(expression: str) -> list[str]:
    """The parts that an expression compares and combines; each must have data while nothing is wrong.

    An alert is empty while nothing is wrong: `a > 5 and b` has no result then, but `a` and `b` have. So a comparison gives
    both its sides except plain numbers, and `and`, `or` and `unless` give all their parts. Selectors keep their filters.
    """
    return list(dict.fromkeys(_operands(parse(expression))))


def _operands(node: Any) -> Iterator[str]:
    if not any(_is_choice(each) for each in _descendants(node)):
        # A number needs no data; `absent` is empty when its metric exists.
        if isinstance(node, promql_parser.Call) and node.func.name.startswith("absent"):
            yield from (each.prettify() for each in node.args)
        elif next(selectors(node), None) is not None:
            yield node.prettify()
        return
    for child in children(node):
        yield from _operands(child)


def _descendants(node: Any) -> Iterator[Any]:
    yield node
    for child in children(node):
        yield from _descendants(child)


def _is_choice(node: Any) -> bool:
    if isinstance(node, promql_parser.Call):
        return bool(node.func.name.startswith("absent"))
    return isinstance(node, promql_parser.BinaryExpr) and str(node.op) in CHOICES
