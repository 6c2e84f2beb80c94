"""Drafts the section select for a regression: thresholds between the mean, whatever the row, and a quick model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Profile, Split
from training.draft import quick, yaml_text
from training.results import scores
from training.sections.metrics import LOWER_IS_BETTER, Metric

RESAMPLES = 200


@dataclass(frozen=True)
class Baseline:
    """Scores of the mean and of the better quick model.

    Attributes:
        name: of the better one.
        target: the values that it was cross-validated on.
        predicted: its predictions.
        reached: its scores.
        mean: the scores of always answering with the mean.
    """

    name: str
    target: NDArray[np.float64]
    predicted: NDArray[np.float64]
    reached: dict[Metric, float]
    mean: dict[Metric, float]

    def deviations(self, rows: int) -> dict[Metric, float]:
        """The standard deviation of each score over samples of so many rows."""
        random = np.random.default_rng(quick.SEED)
        count = len(self.target)
        weights = random.multinomial(rows, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
        found = scores.of("regression").scores(self.target, (self.predicted,), weights)
        return {metric: float(values.std()) for metric, values in found.items()}


def measure(profile: Profile, split: Split) -> Baseline:
    rows, found = quick.predictions(profile, split)
    reached = {
        name: scores.point(scores.of("regression"), rows.target, (each,)) for name, each in found.items()
    }
    name = max(found, key=lambda each: reached[each]["r2"])
    mean = np.full(len(rows), rows.target.mean())
    return Baseline(
        name,
        rows.target,
        found[name],
        reached[name],
        scores.point(scores.of("regression"), rows.target, (mean,)),
    )


def tie(baseline: Baseline, score: Metric, rows: int) -> float:
    """Half a standard deviation of the score on so many rows; at most a quarter of the gain over the mean.

    Models of the same rows err alike, so their scores differ by less than one. At least 0.005, or half a hundredth of the
    mean's error.
    """
    gain = abs(baseline.reached[score] - baseline.mean[score])
    within = min(baseline.deviations(rows)[score] / 2, gain / 4)
    if score in LOWER_IS_BETTER:
        return float(significant(max(within, baseline.mean[score] / 200)))
    return max(0.005, round(within, 3))


def lines(
    baseline: Baseline, profile: Profile, test: NDArray[np.float64], score: Metric, limits: list[str]
) -> list[str]:
    """The section.

    Args:
        baseline: what can be reached.
        profile: of the data.
        test: the values of the test split. Where a few are far from the others, its error of the mean is another.
        score: that selects.
        limits: of latency and size.
    """
    rows = profile.test_rows
    deviations = baseline.deviations(rows)
    r2, rmse = baseline.reached["r2"], baseline.reached["rmse"]
    spread = baseline.mean["rmse"]
    learnt = r2 - 2 * deviations["r2"] > 0
    least = max(0.0, math.floor(min(r2 / 2, r2 - 2 * deviations["r2"]) * 100) / 100)
    on_test = float(test.std()) or spread
    most = min(spread, max((spread + rmse) / 2, rmse + 2 * deviations["rmse"])) * (
        on_test / spread if spread else 1
    )
    unit = f" {profile.value.unit}" if profile.value and profile.value.unit else ""
    return [
        "select:",
        "  # Scores closer than this to the best are a tie; the simpler model wins it. Drafted: what chance does to a",
        f"  # score on {profile.train_rows:,} training rows.",
        f"  tie: {yaml_text.flow(tie(baseline, score, profile.train_rows))}",
        "  gate:",
        f"    # Drafted: halfway from the mean, whatever the row, to a quick {baseline.name}, cross-validated on "
        f"{len(baseline.target):,} rows,",
        f"    # less where chance on {rows:,} test rows could cost as much. Change it to what the model is needed for.",
        *(
            []
            if learnt
            else ["    # The quick model is hardly better than the mean: there may be little to learn."]
        ),
        "    minimum:  # measured on the test split",
        f"      r2: {least:g}  # the mean 0, quick model {r2:.3g}",
        "    maximum:",
        f"      rmse: {yaml_text.flow(significant(most))}  # the mean {on_test:.4g}{unit} on test; cross-validated "
        f"{spread:.4g}{unit}, quick model {rmse:.4g}{unit}",
        *limits,
        "    production:  # how much worse than the model in production, on the same rows",
        f"      maximum_drop: {{r2: {max(0.01, math.ceil(deviations['r2'] / 2 * 100) / 100):g}}}",
        f"      maximum_rise: {{rmse: {yaml_text.flow(significant(max(spread / 100, deviations['rmse'] / 2)))}}}",
    ]


def significant(value: float, digits: int = 3) -> Any:
    """Rounded up to so many digits."""
    if value <= 0:
        return 0
    places = digits - 1 - math.floor(math.log10(value))
    # One part in a billion for the last bits of the product.
    scaled = math.ceil(value * 10.0**places * (1 - 1e-9))
    return scaled * 10**-places if places <= 0 else round(scaled / 10**places, places)
