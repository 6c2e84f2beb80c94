"""The gate: what a champion must reach before it becomes the bundle, and before it goes to production."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np

from app.contract import Score
from app.predictor import Predictor
from training.base.config import GateSettings, ProductionGateSettings
from training.base.errors import GateError
from training.data.dataset import Split
from training.results.report import Report

LATENCY_ROUNDS = 300
ROUNDING = 1e-9
"""A drop of exactly what is allowed is allowed, whatever the last bits of a difference say."""


def missed(report: Report, latency_ms: float, gate: GateSettings) -> dict[str, str]:
    """Hold a model against every threshold of the gate.

    Returns:
        For each rule that it misses, by the rule's key, a sentence with the figure.
    """
    found = {
        f"minimum.{metric}": f"test {metric} {report.test[metric].value:.4f} is below "
        f"select.gate.minimum.{metric} {least:g}"
        for metric, least in gate.minimum.items()
        if report.test[metric].value < least
    }
    limits = (
        ("maximum_log_loss", "test log loss", report.test["log_loss"].value, gate.maximum_log_loss),
        ("maximum_latency_ms", "median latency in ms", latency_ms, gate.maximum_latency_ms),
        ("maximum_bytes", "size in bytes", report.model.bytes, gate.maximum_bytes),
    )
    found |= {
        rule: f"{what} {value:.6g} is above select.gate.{rule} {most:g}"
        for rule, what, value, most in limits
        if most is not None and value > most
    }
    return found


def refuse(algorithm: str, sentences: Iterable[str]) -> NoReturn:
    """Raises GateError with what `missed` found."""
    raise GateError(
        f"{algorithm} won but does not pass the gate: {'; '.join(sentences)}. "
        "The bundle in model/ stays as it was; improve the model or change the gate in params.yaml"
    )


def worse(differences: Mapping[str, Score], rules: ProductionGateSettings) -> list[str]:
    """Hold the differences between a champion and the model in production against the rules.

    The points count, not the intervals: on a small test split hardly any difference is certain, and a rule
    that waited for certainty would let everything pass.

    Returns:
        A sentence for each rule that is broken, with figure and rule.
    """
    missed = [
        f"test {metric} is {-differences[metric].value:.4f} lower, and "
        f"select.gate.production.maximum_drop.{metric} allows {most:g}"
        for metric, most in rules.maximum_drop.items()
        if not -differences[metric].value <= most + ROUNDING
    ]
    rise, most = differences["log_loss"].value, rules.maximum_log_loss_rise
    if most is not None and not rise <= most + ROUNDING:
        missed.append(
            f"test log loss is {rise:.4f} higher, and "
            f"select.gate.production.maximum_log_loss_rise allows {most:g}"
        )
    return missed


def latency(predictor: Predictor, split: Split) -> float:
    """Median time in milliseconds to predict one row. Depends on the machine: never written to an output."""
    samples = []
    for index in range(LATENCY_ROUNDS):
        row = slice(index % len(split), index % len(split) + 1)
        start = time.perf_counter()
        predictor.predict(split.numbers[row], split.categories[row])
        samples.append(time.perf_counter() - start)
    return float(np.median(samples)) * 1000
