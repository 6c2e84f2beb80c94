"""Makes the rules run faster than real time, so that an alert over six hours shows within minutes.

It divides every duration of PromQL: ranges, offsets, `for`, and the groups' intervals. Three plain numbers in the rules
are durations too: the recording interval by which sums of rates are multiplied (30 or 60 s), and the 300 seconds of five
minutes. Numbers of rows, shares and days of age stay the same.
"""

from __future__ import annotations

import re
from typing import Any

from monitoring.prometheus import seconds

SCRAPE_SECONDS = 15.0
FASTEST_SCRAPE = 0.2
FASTEST_GROUP = 0.25
LOOKBACK_SECONDS = 300.0
_TIME = r"(?:\d+(?:ms|[smhdwy]))+"
_RANGE = re.compile(rf"\[({_TIME})(?::({_TIME}))?\]")
_OFFSET = re.compile(rf"\boffset ({_TIME})")
NUMBERS = re.compile(r"(?<=[*/] )(30|60|300)\b(?![.\d])")
"""Plain numbers that are seconds: intervals of groups, and five minutes."""


def scrape_seconds(speed: float) -> float:
    return max(FASTEST_SCRAPE, SCRAPE_SECONDS / speed)


def lookback_seconds(speed: float) -> float:
    """The largest age of a sample that still counts as the present one."""
    return max(3 * scrape_seconds(speed), LOOKBACK_SECONDS / speed)


def quicken(rules: dict[str, Any], speed: float) -> dict[str, Any]:
    """A file of rules in which an hour lasts an hour divided by `speed`."""
    return {"groups": [_group(group, speed) for group in rules["groups"]]}


def shown(length: float) -> str:
    """A time as Prometheus writes it, to the millisecond."""
    return f"{max(1, round(length * 1000))}ms"


def _group(group: dict[str, Any], speed: float) -> dict[str, Any]:
    made = {**group, "rules": [_rule(rule, speed) for rule in group["rules"]]}
    if "interval" in group:
        made["interval"] = shown(_interval(seconds(group["interval"]), speed))
    return made


def _rule(rule: dict[str, Any], speed: float) -> dict[str, Any]:
    made = {**rule, "expr": _expression(rule["expr"], speed)}
    for name in ("for", "keep_firing_for"):
        if name in rule:
            made[name] = shown(seconds(rule[name]) / speed)
    return made


def _expression(expression: str, speed: float) -> str:
    # A range needs two samples to have a rate.
    shortest = 2.5 * scrape_seconds(speed)

    def in_range(found: re.Match[str]) -> str:
        length = shown(max(shortest, seconds(found[1]) / speed))
        return f"[{length}:{shown(seconds(found[2]) / speed)}]" if found[2] else f"[{length}]"

    def number(found: re.Match[str]) -> str:
        value = float(found[1])
        return f"{max(shortest, value / speed) if value == 300 else _interval(value, speed):g}"

    expression = _RANGE.sub(in_range, expression)
    expression = _OFFSET.sub(lambda found: f"offset {shown(seconds(found[1]) / speed)}", expression)
    return NUMBERS.sub(number, expression)


def _interval(length: float, speed: float) -> float:
    return max(FASTEST_GROUP, length / speed)
