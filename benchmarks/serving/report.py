"""Writes the results as Markdown, with the goals and whether they are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.results import Comparison, Part, PartName, Quantity, Results, Spread

SATURATED = 0.9
"""The share of its core at which a server counts as the bottleneck."""


@dataclass(frozen=True)
class _Heading:
    title: str
    unit: str
    about: str


_HEADINGS: dict[PartName, _Heading] = {
    "one-row": _Heading(
        "One row per request",
        "requests/s",
        "Each algorithm beside a bare server: the share of what uvicorn can do at all that is left after "
        "validation, inference and metrics.",
    ),
    "peers": _Heading(
        "One row to a random forest, served in other ways",
        "requests/s",
        "The ratio says how many times as fast ours is.",
    ),
    "batch": _Heading(
        "1,000 rows per request",
        "rows/s",
        "Each way to send many rows beside a FastAPI route written by the book.",
    ),
    "mixed": _Heading(
        "Single rows beside large batches",
        "requests/s",
        "Single rows while another client sends large batches without a pause, beside single rows alone.",
    ),
    "start": _Heading(
        "Start and memory",
        "",
        "From `python -m app` to the first answers, and what the process holds after load.",
    ),
}


def markdown(results: Results, *, picture: bool) -> str:
    """The report."""
    lines = [
        "# The service",
        "",
        "The server has one core to itself and wrk another, with 16 connections. Every figure stands between "
        "two measurements, in the same round, of what is beside it, with new processes each time; a ratio is "
        "of one round, and the table shows the median of the rounds and, in brackets, the lowest and the "
        "highest. Before it is measured, every server answers every request once, and the answers are compared "
        "with the model's; under load every answer must be good.",
        "",
        _verdict(results),
        "",
        *(["![Requests and rows per second](serving.svg)", ""] if picture else []),
    ]
    shared = {part.circumstances for part in results.parts.values()}
    for name, part in results.parts.items():
        lines += _part(_HEADINGS[name], part)
        if len(shared) > 1:
            lines += [part.circumstances, ""]
    if len(shared) == 1:
        lines += [shared.pop(), ""]
    lines += ["Repeat with `python -m benchmarks.serving`; `--help` tells how to repeat a part.", ""]
    return "\n".join(lines)


def _verdict(results: Results) -> str:
    found = [each for part in results.parts.values() for each in part.goals()]
    missed = [name for name, met in found if not met]
    skipped = [name for part in results.parts.values() for name in part.skipped]
    text = f"{len(found) - len(missed)} of {len(found)} goals are met."
    if missed:
        text += f" Not met: {'; '.join(missed)}."
    if skipped:
        text += f" Not measured: {'; '.join(skipped)}."
    return text


def _part(heading: _Heading, part: Part) -> list[str]:
    lines = [f"## {heading.title}", "", heading.about, ""]
    if part.comparisons:
        lines += [*_rates(part.comparisons, heading.unit), "", *_latencies(part.comparisons), ""]
    if part.quantities:
        lines += [*_quantities(part.quantities), ""]
    for name, reason in part.skipped.items():
        lines += [f"{name} was not measured: {reason}", ""]
    return [*lines, *part.notes, *_load(part), ""]


def _rates(comparisons: Sequence[Comparison], unit: str) -> list[str]:
    header = ["what", unit, f"{comparisons[0].base} beside it", "ratio", "goal", "met"]
    rows = [
        [
            each.name,
            _rate(each.median(lambda figures: figures.per_second)),
            _rate(each.median_beside(lambda figures: figures.per_second)),
            _ratio(Spread.of(each.ratios())),
            "" if each.least is None else f"at least {each.least:g}",
            _met(each.is_fast),
        ]
        for each in comparisons
    ]
    if comparisons[0].rounds[0].figures.background_per_second is not None:
        header.append("batches, rows/s")
        for row, each in zip(rows, comparisons, strict=True):
            row.append(_rate(each.median(lambda figures: figures.background_per_second or 0)))
    return _table(header, rows)


def _latencies(comparisons: Sequence[Comparison]) -> list[str]:
    header = ["what", "p50 ms", "p99 ms", f"p99 ms of {comparisons[0].base}", "ratio of p99", "goal", "met"]
    rows = [
        [
            each.name,
            f"{each.median(lambda figures: figures.p50_ms):.2f}",
            f"{each.median(lambda figures: figures.p99_ms):.2f}",
            f"{each.median_beside(lambda figures: figures.p99_ms):.2f}",
            _ratio(Spread.of(each.p99_ratios())),
            "" if each.most_p99 is None else f"at most {each.most_p99:g}",
            _met(each.is_steady),
        ]
        for each in comparisons
    ]
    return _table(header, rows)


def _quantities(quantities: Sequence[Quantity]) -> list[str]:
    rows = []
    for each in quantities:
        spread = Spread.of(each.values)
        goal = "" if each.most is None else f"at most {each.most:g} {each.unit}"
        median = f"{spread.median:.3g} {each.unit}"
        rows.append([each.name, median, f"{spread.low:.3g}–{spread.high:.3g}", goal, _met(each.is_small)])
    return _table(["what", "median", "lowest–highest", "goal", "met"], rows)


def _load(part: Part) -> list[str]:
    """Whether the servers were the bottleneck of each measurement."""
    shares = part.busy()
    if not shares:
        return []
    idle = [f"{name} {share:.0%}" for name, share in shares.items() if share < SATURATED]
    if idle:
        return [
            f"Careful: of its core a server had at times only this much: {'; '.join(idle)}. "
            "The load was too small, or something else was running."
        ]
    return [f"Every server used its core: {min(shares.values()):.0%} of it or more."]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    # Names are aligned left, figures right.
    rule = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def _rate(value: float) -> str:
    """Three digits, because more would be noise."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _ratio(spread: Spread) -> str:
    digits = 2 if spread.median < 10 else 1 if spread.median < 100 else 0
    median, low, high = (f"{value:.{digits}f}" for value in spread)
    return f"{median} ({low}–{high})"


def _met(met: bool | None) -> str:
    return {None: "", True: "yes", False: "**no**"}[met]
