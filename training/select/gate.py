"""The gate: the thresholds that a champion must reach before it becomes the bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

import numpy as np

from training.base.errors import GateError
from training.data.dataset import Split
from training.results.figures import TITLES, Answers
from training.results.report import FEWEST_ROWS_OF_A_SLICE, Report
from training.sections.metrics import LOWER_IS_BETTER
from training.sections.select import GateSettings

LATENCY_ROUNDS = 300


def missed(report: Report, latency_ms: float, gate: GateSettings) -> dict[str, str]:
    """Check a model against every threshold of the gate.

    Returns:
        For each missed threshold, by its key, a sentence with the figure.
    """
    found = {
        f"minimum.{metric}": f"test {metric} {report.test[metric].value:.4f} is below "
        f"select.gate.minimum.{metric} {least:g}"
        for metric, least in gate.minimum.items()
        if report.test[metric].value < least
    }
    found |= _worst_slices(report, gate)
    score, baseline = report.score, report.baseline
    ours, theirs = report.cv[score].mean, baseline.cv[score].mean
    if not (ours < theirs if score in LOWER_IS_BETTER else ours > theirs):
        found["baseline"] = (
            f"cross-validated {score} {ours:.4g} does not beat {theirs:.4g}, which answering with the {baseline.name} "
            "reaches: add features, choose another target, or let a rare class be answered (decision.threshold: tuned)"
        )
    limits = (
        *(
            (f"maximum.{metric}", f"test {TITLES[metric]}", report.test[metric].value, most)
            for metric, most in gate.maximum.items()
        ),
        ("maximum_latency_ms", "median latency in ms", latency_ms, gate.maximum_latency_ms),
        ("maximum_bytes", "size in bytes", report.model.bytes, gate.maximum_bytes),
    )
    found |= {
        rule: f"{what} {value:.6g} is above select.gate.{rule} {most:g}"
        for rule, what, value, most in limits
        if most is not None and value > most
    }
    return found


def _worst_slices(report: Report, gate: GateSettings) -> dict[str, str]:
    """For each bounded metric, the slice that misses its bound by the most."""
    found = {}
    for metric, bound in gate.worst_slice.items():
        sign = -1 if metric in LOWER_IS_BETTER else 1
        figures = [
            (sign * each.test[metric].value, f"{column} {value!r} ({each.rows:,} rows)")
            for column, values in report.slices.items()
            for value, each in values.items()
            if metric in each.test and each.rows >= FEWEST_ROWS_OF_A_SLICE
        ]
        worst, where = min(figures, default=(math.inf, ""))
        if worst < sign * bound:
            found[f"worst_slice.{metric}"] = (
                f"test {TITLES[metric]} of {where} is {sign * worst:.4g}, and select.gate.worst_slice.{metric} is {bound:g}"
            )
    return found


def refuse(algorithm: str, sentences: Iterable[str]) -> NoReturn:
    """Raise GateError with the sentences of `missed`."""
    raise GateError(
        f"{algorithm} won but does not pass the gate: {'; '.join(sentences)}. "
        "The bundle in model/ stays as it was; improve the model or change the gate in params.yaml"
    )


def latency(answer: Callable[[Split], Answers], split: Split) -> float:
    """Median time in milliseconds to predict one row. It depends on the machine, so no output contains it."""
    samples = []
    for index in range(LATENCY_ROUNDS):
        row = split.take(np.array([index % len(split)]))
        start = time.perf_counter()
        answer(row)
        samples.append(time.perf_counter() - start)
    return float(np.median(samples)) * 1000
