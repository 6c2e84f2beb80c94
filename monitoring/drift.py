"""Reports whether the service's inputs and predictions have drifted from the model's training data.

It reads the population stability index that Prometheus recorded (monitoring/rules/drift.yaml) and judges it as the
alerts do: drift is an index above the threshold in at least k of the last n windows. Windows end at full hours, as the
alerts' do, so both give the same verdict. The windows are hours; where fewer than k hours have enough predictions for an
index, they are the days that end at the same full hours.

exit status:
  0  no drift
  1  drift, in a feature or in the predictions
  2  unknown: Prometheus does not answer, has no such series, or there were too few predictions; one line says which
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.contract import as_label
from common import files
from common.command import run
from common.errors import EspalierError
from monitoring.arguments import number
from monitoring.objectives import objectives
from monitoring.prometheus import Prometheus, PrometheusError, Series

HOUR = 3600

FEATURE_PSI, CLASS_PSI, PREDICTIONS = (
    "espalier:feature_psi",
    "espalier:class_psi",
    "espalier:predictions",
)
CLASSES = "(predictions)"
"""Name of the row of the predictions, which is not a feature."""
MOST_WINDOWS = 168

Verdict = Literal["drift", "none", "unknown"]
Judge = Literal["hours", "days"]
NAMES = ("namespace", "environment", "model", "model_version")
"""The labels that tell models and their versions apart; each combination is judged separately."""
Names = tuple[str, str, str, str]
"""Their values."""


@dataclass(frozen=True)
class Limits:
    """Drift is an index above `threshold` in `beyond` of the last `windows` windows."""

    threshold: float
    beyond: int
    windows: int


def alert_limits() -> Limits:
    """The limits of the alerts."""
    table = objectives().drift
    return Limits(table.alert, table.beyond, table.windows)


@dataclass(frozen=True)
class Row:
    """The index of one feature, or of the predictions: classes, or bins of a regression's target.

    Attributes:
        feature: its name; None for the predictions.
        windows: index by window, oldest first; None where none was recorded.
        days: index over the 24 h before the end of each window.
    """

    feature: str | None
    windows: tuple[float | None, ...]
    days: tuple[float | None, ...]

    @property
    def name(self) -> str:
        """The name in tables."""
        return CLASSES if self.feature is None else as_label(self.feature, CLASSES)

    @property
    def day(self) -> float | None:
        """Over the newest 24 h."""
        return self.days[-1]

    def judge(self, limits: Limits) -> Judge | None:
        """Which of the two judges; None where neither has enough figures to show drift."""
        if known(self.windows) >= limits.beyond:
            return "hours"
        return "days" if known(self.days) >= limits.beyond else None

    def judged(self, limits: Limits) -> tuple[float | None, ...]:
        """The figures that count."""
        return self.days if self.judge(limits) == "days" else self.windows

    def beyond(self, limits: Limits) -> int:
        return sum(value > limits.threshold for value in self.judged(limits) if value is not None)

    def verdict(self, limits: Limits) -> Verdict:
        if self.judge(limits) is None:
            return "unknown"
        return "drift" if self.beyond(limits) >= limits.beyond else "none"


@dataclass(frozen=True)
class Version:
    """A version of a model in an environment, with the number of predictions in the newest window and in 24 h."""

    namespace: str
    environment: str
    model: str
    model_version: str
    predictions: float | None
    predictions_day: float | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Report:
    """The result; `end` is the end of the newest window, in seconds since 1970."""

    end: float
    window: float
    limits: Limits
    versions: tuple[Version, ...]

    @property
    def verdict(self) -> Verdict:
        """Drift if anything drifts; unknown only if no row can be judged."""
        found = {row.verdict(self.limits) for version in self.versions for row in version.rows}
        if "drift" in found:
            return "drift"
        return "none" if "none" in found else "unknown"

    def rows(self, verdict: Verdict) -> list[tuple[Version, Row]]:
        return [
            (version, row)
            for version in self.versions
            for row in version.rows
            if row.verdict(self.limits) == verdict
        ]


def known(figures: Iterable[float | None]) -> int:
    return sum(value is not None for value in figures)


class CannotTellError(EspalierError):
    """No row can be judged; the message says why and what to do."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `run` handle it: rich would exit with 1, which means drift."""
        raise  # noqa: PLE0704


def main() -> None:
    arguments = _parser().parse_args()
    limits = Limits(arguments.threshold, *arguments.windows)
    where = {name: value for name in NAMES if (value := getattr(arguments, name))}
    report: Report | None = None
    fault: EspalierError | None = None
    try:
        with Prometheus(arguments.prometheus, _token(arguments.token_file)) as prometheus:
            report = read(prometheus, where, limits, arguments.window, arguments.at)
            if report.verdict == "unknown":
                fault = CannotTellError(_why_unknown(prometheus, report, where))
    except EspalierError as error:
        report, fault = None, error
    # This text may be published, so it must not contain Prometheus' address.
    reason = str(fault) if isinstance(fault, CannotTellError) else "Prometheus could not be asked"
    said = f"Drift could not be judged: {_plain(reason)}." if fault else ""
    if arguments.markdown:
        _write(arguments.markdown, markdown(report, said) if report else f"{said}\n")
    if arguments.json:
        found = as_json(report) if report else {"verdict": "unknown"}
        if fault:
            found["reason"] = reason
        _write(arguments.json, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    if report:
        show(report, _Console() if sys.stdout.isatty() else _Console(width=200, no_color=True))
    if fault:
        raise fault
    sys.exit(report is not None and report.verdict == "drift")


def read(
    prometheus: Prometheus,
    where: Mapping[str, str],
    limits: Limits,
    window: float = HOUR,
    at: float | None = None,
) -> Report:
    """Judge what Prometheus recorded up to `at` (None: now), in windows of `window` seconds.

    Raises:
        PrometheusError: it cannot be asked.
    """
    end = math.floor((time.time() if at is None else at) / window) * window
    start = end - (limits.windows - 1) * window
    inside = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in where.items())

    def ask(name: str, first: float = start) -> list[Series]:
        return prometheus.query_range(f"{name}{{{inside}}}", first, end, window)

    return gather(
        features=ask(f"{FEATURE_PSI}:1h"),
        features_day=ask(f"{FEATURE_PSI}:24h"),
        classes=ask(f"{CLASS_PSI}:1h"),
        classes_day=ask(f"{CLASS_PSI}:24h"),
        predictions=ask(f"{PREDICTIONS}:increase1h"),
        predictions_day=ask(f"{PREDICTIONS}:increase24h", end),
        end=end,
        window=window,
        limits=limits,
    )


def gather(
    *,
    features: Iterable[Series],
    features_day: Iterable[Series],
    classes: Iterable[Series],
    classes_day: Iterable[Series],
    predictions: Iterable[Series],
    predictions_day: Iterable[Series],
    end: float,
    window: float,
    limits: Limits,
) -> Report:
    """A report on the recorded series, with the strongest drift first."""
    times = [end - (limits.windows - 1 - index) * window for index in range(limits.windows)]
    recorded: dict[Names, dict[str | None, tuple[float | None, ...]]] = {}
    days: dict[tuple[Names, str | None], tuple[float | None, ...]] = {}
    for each in features:
        recorded.setdefault(_names(each), {})[each.labels.get("feature", "")] = _at(each, times)
    for each in classes:
        recorded.setdefault(_names(each), {})[None] = _at(each, times)
    for each in features_day:
        days[_names(each), each.labels.get("feature", "")] = _at(each, times)
    for each in classes_day:
        days[_names(each), None] = _at(each, times)
    newest = {_names(each): _at(each, [end])[0] for each in predictions}
    newest_day = {_names(each): _at(each, [end])[0] for each in predictions_day}
    none = (None,) * limits.windows
    for names, feature in days:
        recorded.setdefault(names, {}).setdefault(feature, none)
    for names in newest:
        recorded.setdefault(names, {})
    versions = []
    for names, rows in sorted(recorded.items()):
        made = (Row(feature, values, days.get((names, feature), none)) for feature, values in rows.items())
        versions.append(
            Version(
                *names,
                predictions=newest.get(names),
                predictions_day=newest_day.get(names),
                rows=tuple(sorted(made, key=lambda row: (-row.beyond(limits), -(row.judged(limits)[-1] or 0), row.name))),
            )
        )  # fmt: skip
    return Report(end, window, limits, tuple(versions))


def show(report: Report, console: Console) -> None:
    """The tables, and the verdict in one line."""
    for version in report.versions:
        console.print(f"{escape(_title(version))}", style="bold", highlight=False, soft_wrap=True)
        if not version.rows:
            console.print("too few predictions to compute an index\n", highlight=False)
            continue
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for index, name in enumerate(_header(report)):
            table.add_column(name, justify="right" if 0 < index < 3 else "left", no_wrap=True)
        for row in version.rows:
            style = {"drift": "red", "unknown": "dim"}.get(row.verdict(report.limits))
            table.add_row(*map(escape, _cells(row, report.limits)), style=style)
        console.print(table)
        console.print()
    if report.verdict != "unknown":
        console.print(escape(conclusion(report)), highlight=False, soft_wrap=True)


def markdown(report: Report, said: str = "") -> str:
    """The report as Markdown, for a pull request or a run's page. `said` replaces the conclusion.

    Names come from outside, so every character with a meaning in Markdown is removed from them.
    """
    lines = [said or conclusion(report), ""]
    for version in report.versions:
        lines += [_plain(_title(version)), ""]
        if not version.rows:
            lines += ["Too few predictions to compute an index.", ""]
            continue
        lines += [_line(_header(report)), _line(["---", "--:", "--:", "---", "---", "---"])]
        lines += [_line(map(_plain, _cells(row, report.limits))) for row in version.rows]
        lines.append("")
    return "\n".join(lines)


def conclusion(report: Report) -> str:
    limits = report.limits
    rule = f"above {limits.threshold:g} in {limits.beyond} of the last {limits.windows} windows"
    rule += f", the newest until {_clock(report.end)}"
    several = len({version.model for version in report.versions}) > 1

    def name(version: Version, row: Row) -> str:
        return _plain(f"{version.model} {row.name}" if several else row.name)

    said = (
        name(version, row) + " by the day" * (row.judge(limits) == "days")
        for version, row in report.rows("drift")
    )
    found = list(dict.fromkeys(said))
    if found:
        return f"Drift: {', '.join(found)} ({rule})."
    unjudged = list(dict.fromkeys(name(*each) for each in report.rows("unknown")))
    text = f"No drift: no index is {rule}."
    return text + (f" Too few figures to judge: {', '.join(unjudged)}." if unjudged else "")


def as_json(report: Report) -> dict[str, object]:
    limits = report.limits
    return {
        "verdict": report.verdict,
        "end": datetime.fromtimestamp(report.end, UTC).isoformat(),
        "window_seconds": report.window,
        "threshold": limits.threshold,
        "beyond": limits.beyond,
        "windows": limits.windows,
        "versions": [
            {
                "namespace": version.namespace,
                "environment": version.environment,
                "model": version.model,
                "model_version": version.model_version,
                "predictions": version.predictions,
                "predictions_day": version.predictions_day,
                "rows": [
                    {
                        "name": row.feature,
                        "classes": row.feature is None,
                        "psi": list(row.windows),
                        "psi_days": list(row.days),
                        "judged_by": row.judge(limits),
                        "beyond": row.beyond(limits),
                        "verdict": row.verdict(limits),
                    }
                    for row in version.rows
                ],
            }
            for version in report.versions
        ],
    }


def _why_unknown(prometheus: Prometheus, report: Report, where: Mapping[str, str]) -> str:
    """The reason: no rules, a failing rule, no such series, or too little traffic."""
    try:
        rules = {rule.name: rule for rule in prometheus.rules()}
    except PrometheusError:
        # Other servers with this API may lack this part of it.
        rules = None
    name = f"{FEATURE_PSI}:1h"
    if rules is not None and name not in rules and not report.versions:
        return f"the rule that records {name} is not loaded: load monitoring/rules/drift.yaml"
    if rules is not None and name in rules and rules[name].error:
        return f"the rule that records {name} fails: {' '.join(rules[name].error.split())}"
    wanted = ", ".join(f"{key}={value}" for key, value in where.items())
    if not report.versions:
        there = sorted({f"{key}={value}" for key in where for value in _values(prometheus, key, report.end)})
        hint = f"there is {', '.join(there)}" if there else "is the service scraped?"
        return f"no series {PREDICTIONS}:increase1h{' with ' + wanted if wanted else ''}: {hint}"
    counts = ", ".join(
        f"{_number(version.predictions)} by {' '.join(filter(None, (version.model, version.model_version)))} in "
        f"{version.environment}"
        for version in report.versions
    )
    rows = [row for version in report.versions for row in version.rows]
    hours = max((known(row.windows) for row in rows), default=0)
    days = max((known(row.days) for row in rows), default=0)
    above = [
        f"{row.name} {row.day:.3f}"
        for row in rows
        if row.day is not None and row.day > report.limits.threshold
    ]
    day = f". Over 24 h these are above {report.limits.threshold:g}: {', '.join(above)}" if above else ""
    return (
        f"too few predictions: {hours} of the last {report.limits.windows} windows have an index, {days} have one of the "
        f"day, and {report.limits.beyond} are needed; predictions in the newest: {counts}{day}"
    )


def _values(prometheus: Prometheus, label: str, at: float) -> set[str]:
    found = prometheus.query(f"count by ({label}) ({PREDICTIONS}:increase1h)", at)
    return {each.labels.get(label, "") for each in found}


def _names(series: Series) -> Names:
    namespace, environment, model, version = (series.labels.get(name, "") for name in NAMES)
    return namespace, environment, model, version


def _at(series: Series, times: Sequence[float]) -> tuple[float | None, ...]:
    """The values at these times; None where there is no finite value."""
    values = {round(at): value for at, value in series.samples if math.isfinite(value)}
    return tuple(values.get(round(at)) for at in times)


def _title(version: Version) -> str:
    place = version.environment or version.namespace or "no environment"
    return (
        f"In {place}, model {version.model or 'without a name'}, version {version.model_version or 'unknown'}: "
        f"{_number(version.predictions)} predictions in the newest window, {_number(version.predictions_day)} in 24 h"
    )


def _header(report: Report) -> list[str]:
    return ["feature", "PSI newest", "PSI 24 h", "judged by", f"above {report.limits.threshold:g}", "verdict"]


def _cells(row: Row, limits: Limits) -> list[str]:
    missing = limits.windows - known(row.judged(limits))
    beyond = f"{row.beyond(limits)} of {limits.windows}" + (f" ({missing} unknown)" if missing else "")
    verdict = {"drift": "DRIFT", "none": "no drift", "unknown": "too few figures"}[row.verdict(limits)]
    return [
        row.name,
        _figure(row.windows[-1]),
        _figure(row.day),
        row.judge(limits) or "neither",
        beyond,
        verdict,
    ]


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "no" if value is None else f"{value:,.0f}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """The text with words, figures and plain punctuation only, so that nothing in it is markup."""
    words = re.sub(r"[^\w .,:;%()'+=/-]", " ", text)
    # Addresses become links, and underscores make words italic.
    words = re.sub(r"(?i)https?:/*|www\.|\b_+|_+\b", " ", words)
    return " ".join(words.split()) or "(unnamed)"


def _write(path: Path, text: str) -> None:
    try:
        files.write_text(path, text)
    except OSError as error:
        raise EspalierError(f"cannot write {path}: {error.strerror}") from None


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("PROMETHEUS_TOKEN") or None
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise EspalierError(f"cannot read the token from {file}: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    limits = alert_limits()
    given = os.environ.get("PROMETHEUS_URL")
    add(
        "--prometheus",
        metavar="URL",
        default=given or None,
        required=not given,
        help="its address, such as http://127.0.0.1:9090 (default: PROMETHEUS_URL)",
    )
    add(
        "--token-file", type=Path, metavar="FILE", help="file with a bearer token (default: the variable PROMETHEUS_TOKEN)"
    )  # fmt: skip
    add("--namespace", help="only this one (default: all)")
    add("--environment", help="only this one, such as production (default: all)")
    add("--model", metavar="NAME", help="only this one (default: all, each with a table of its own)")
    add("--model-version", help="only this one (default: all with predictions)")
    add(
        "--threshold",
        type=number(lambda value: value > 0, "no threshold: give a number above 0"),
        default=limits.threshold,
        help="drift is an index above it (default: %(default)s)",
    )
    add(
        "--windows",
        type=_k_of_n,
        metavar="K/N",
        default=(limits.beyond, limits.windows),
        help=f"K of the last N windows must be above it (default: {limits.beyond}/{limits.windows})",
    )
    add(
        "--window",
        type=_duration,
        metavar="TIME",
        default=HOUR,
        help="the time between the ends of two windows (default: 1h; 1m where the stack runs 60 times as fast)",
    )
    add("--at", type=_time, metavar="TIME", help="as of then: 2026-01-31T12:00Z or seconds since 1970")
    add("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    add("--json", type=Path, metavar="FILE", help="also write every figure to this file")
    return parser


def _k_of_n(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]) <= MOST_WINDOWS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not K/N with 1 <= K <= N <= {MOST_WINDOWS}, such as 4/6"
        )
    return int(found[1]), int(found[2])


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})(ms|[smhd])", text)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 500ms, 30s, 5m, 1h or 1d")
    return int(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _time(text: str) -> float:
    try:
        if re.fullmatch(r"\d{1,12}", text):
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 2026-01-31T12:00Z") from None


if __name__ == "__main__":
    run(main, status=2)
