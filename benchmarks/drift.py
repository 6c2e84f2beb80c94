"""Measures how often chance alone raises a drift alert, and how soon real drift does.

The rules' own numbers (floor, minimum of rows, threshold, windows) are applied to counts drawn by chance: from the
served model's reference shares, where nothing has drifted, and from its training rows with one feature moved by one
standard deviation. `tests/monitoring/test_drift_rules.py` shows with a real Prometheus that the rules compute this.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.contract import NumberFeature, read_bundle
from monitoring.objectives import objectives

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "drift.md"
DRIFT = objectives().drift
FLOOR, ROWS = DRIFT.floor, DRIFT.rows
ROWS_PER_BIN, ROWS_PER_BIN_OF_A_DAY = DRIFT.rows_per_bin["1h"], DRIFT.rows_per_bin["24h"]
THRESHOLD, BEYOND, WINDOWS = DRIFT.alert, DRIFT.beyond, DRIFT.windows
HOURS = 168
DAY = 24
CHUNK = 1000
"""Weeks in memory at once."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def psi(counts: Ints, reference: Floats, per_bin: int = ROWS_PER_BIN) -> Floats:
    """The index of counts (…, bins) against shares (bins,) or (…, bins); NaN where there are too few rows."""
    rows = counts.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        actual = np.maximum(counts / rows[..., None], FLOOR)
    expected = np.maximum(reference, FLOOR)
    index = ((actual - expected) * np.log(actual / expected)).sum(axis=-1)
    enough = rows >= max(ROWS, per_bin * counts.shape[-1])
    return np.where(enough, index, np.nan)


def most(hours: Bools) -> Bools:
    """The hours (…, hours) at which enough of the last hours are true for an alert."""
    padded = np.concatenate([np.zeros((*hours.shape[:-1], WINDOWS - 1), bool), hours], axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOWS, axis=-1)
    return np.asarray(windows.sum(axis=-1) >= BEYOND)


def alerts(index: Floats) -> Bools:
    """The hours (…, hours) at which the alert is raised."""
    return most(np.nan_to_num(index) > THRESHOLD)


def of_days(counts: Ints, reference: Floats, per_bin: int = ROWS_PER_BIN_OF_A_DAY) -> Floats:
    """The index of the last 24 hours, at each of the hours of counts (…, hours, bins)."""
    total = counts.cumsum(axis=-2)
    total[..., DAY:, :] -= total[..., :-DAY, :].copy()
    return psi(total, reference, per_bin)


def day_alerts(hours: Floats, days: Floats) -> Bools:
    """The hours at which the alert of the day is raised, because the hours have too few rows."""
    return alerts(days) & ~most(~np.isnan(hours))


def one_window(random: np.random.Generator, draws: int) -> list[str]:
    """The probability that one hour without drift exceeds the threshold, by bins and rows."""
    lines = ["| bins | 100 rows | 200 rows | the minimum | PSI exceeded once in 1,000 hours at the minimum |"]
    lines.append("|---|---|---|---|---|")
    for bins in (3, 10, 20, 50):
        shares = np.full(bins, 1 / bins)
        least = max(ROWS, ROWS_PER_BIN * bins)
        cells = []
        for rows in (100, 200, least):
            counts = random.multinomial(rows, shares, size=draws)
            # Without the minimum, to show its effect.
            actual = np.maximum(counts / rows, FLOOR)
            index = ((actual - shares) * np.log(actual / shares)).sum(axis=-1)
            cells.append(_share((index > THRESHOLD).mean(), draws))
        lines.append(f"| {bins} | {' | '.join(cells)} ({least} rows) | {np.quantile(index, 0.999):.3f} |")
    return lines


def weeks(random: np.random.Generator, shares: dict[str, Floats], count: int) -> list[str]:
    """Alerts in simulated weeks: quiet nights, busy days, every feature."""
    lines = ["| rows in a busy hour | weeks with an alert | hours beyond 0.2 |", "|---|---|---|"]
    hour = np.arange(HOURS) % 24
    day = np.where((hour >= 7) & (hour < 22), 1.0, 0.02)
    for busy in (250, 1000):
        rows = random.poisson(day * busy, size=(count, HOURS))
        any_alert = np.zeros(count, bool)
        beyond = 0
        for reference in shares.values():
            index = psi(random.multinomial(rows, reference), reference)
            any_alert |= alerts(index).any(axis=-1)
            beyond += int((np.nan_to_num(index) > THRESHOLD).sum())
        total = count * 15 * 7 * len(shares)
        lines.append(f"| {busy} | {any_alert.sum()} of {count} | {beyond} of {total} |")
    return lines


def moved(folder: Path) -> Iterator[tuple[NumberFeature, float, Floats, Floats]]:
    """Each feature of the served model, one standard deviation, and the shares before and after a move by it."""
    table = pd.read_parquet(folder / "train.parquet")
    for feature in read_bundle(ROOT / "model").manifest.features:
        if not isinstance(feature, NumberFeature):
            continue
        values = table[feature.name].dropna().to_numpy(dtype=np.float64)
        step = float(values.std())
        after = np.clip(values + step, feature.minimum, feature.maximum)
        bins = np.bincount(np.searchsorted(feature.edges, after, side="right"), minlength=len(feature.bins))
        yield feature, step, np.array([each.share for each in feature.bins]), bins / len(after)


def detection(random: np.random.Generator, folder: Path, draws: int) -> list[str]:
    """The delay until a shift by one standard deviation is noticed, from a random minute of an hour."""
    lines = [
        "| feature | one standard deviation | PSI of a whole hour | hours to the alert: median (slowest of all) |",
        "|---|---|---|---|",
    ]
    for feature, step, reference, after in moved(folder):
        # 12 hours; the shift comes within the first, and at hour h the window is the hour before it.
        start = random.random(draws)
        mixed = np.concatenate([1 - start[:, None], np.ones((draws, 11))], axis=1)
        new = random.binomial(250, mixed)
        counts = random.multinomial(new, after) + random.multinomial(250 - new, reference)
        index = psi(counts, reference)
        raised = alerts(index)
        hours = np.where(raised.any(axis=1), raised.argmax(axis=1) + 1 - start, np.inf)
        whole = psi(random.multinomial(250, after, size=draws), reference)
        lines.append(
            f"| {feature.name} | {step:.2f} {feature.unit or ''} | {np.median(whole):.2f} "
            f"| {np.median(hours):.1f} ({hours.max():.1f}) |"
        )
    return lines


def quiet_weeks(random: np.random.Generator, shares: dict[str, Floats], count: int) -> list[str]:
    """Alerts in simulated weeks without drift, by rate of requests."""
    lines = ["| rows in an hour | weeks with an alert: of hours | of the day | looks at a day beyond 0.2 |"]
    lines.append("|---|---|---|---|")
    hour = np.arange(HOURS) % 24
    night = np.where((hour >= 7) & (hour < 22), 250.0, 5.0)
    for name, rate in (
        *((f"{rows}", np.full(HOURS, float(rows))) for rows in (10, 20, 50, 100, 200)),
        ("250, at night 5", night),
    ):
        of_hours = of_day = beyond = looks = 0
        for _ in range(count // CHUNK):
            rows = random.poisson(rate, size=(CHUNK, HOURS))
            raised = np.zeros((2, CHUNK), bool)
            for reference in shares.values():
                counts = random.multinomial(rows, reference)
                hours, days = psi(counts, reference), of_days(counts, reference)
                raised[0] |= alerts(hours).any(axis=-1)
                raised[1] |= day_alerts(hours, days).any(axis=-1)
                beyond += int((np.nan_to_num(days) > THRESHOLD).sum())
                looks += int((~np.isnan(days)).sum())
            of_hours += int(raised[0].sum())
            of_day += int(raised[1].sum())
        weeks = count // CHUNK * CHUNK
        lines.append(f"| {name} | {of_hours} of {weeks} | {of_day} of {weeks} | {beyond} of {looks} |")
    return lines


def day_minimum(random: np.random.Generator) -> list[str]:
    """Why a day asks for more rows: weeks with an alert of one feature, at rates that just bring the minimum."""
    lines = ["| bins | 10 rows a bin | 15 | 20 |", "|---|---|---|---|"]
    for bins in (10, 20, 50):
        shares = np.full(bins, 1 / bins)
        cells = []
        for per_bin in (10, 15, 20):
            rate = 1.05 * max(ROWS, per_bin * bins) / DAY
            counts = random.multinomial(random.poisson(rate, size=(CHUNK, HOURS)), shares)
            raised = day_alerts(psi(counts, shares), of_days(counts, shares, per_bin)).any(axis=-1)
            cells.append(f"{raised.sum()} of {CHUNK} ({max(ROWS, per_bin * bins)} rows)")
        lines.append(f"| {bins} | {' | '.join(cells)} |")
    return lines


def quiet_detection(random: np.random.Generator, folder: Path) -> list[str]:
    """The delay until the day's alert notices one standard deviation, after a day and a half as in training."""
    rates = (10, 20, 50, 100)
    lines = [
        f"| feature | {' | '.join(f'{rate} rows an hour' for rate in rates)} |",
        "|---|" + "---|" * len(rates),
    ]
    for feature, _, reference, after in moved(folder):
        cells = []
        for rate in rates:
            start = random.random(CHUNK)
            share = np.concatenate(
                [np.zeros((CHUNK, 36)), 1 - start[:, None], np.ones((CHUNK, 35))], axis=1
            )  # fmt: skip
            rows = random.poisson(rate, size=share.shape)
            new = random.binomial(rows, share)
            counts = random.multinomial(new, after) + random.multinomial(rows - new, reference)
            raised = day_alerts(psi(counts, reference), of_days(counts, reference))[:, 36:]
            hours = np.where(raised.any(axis=1), raised.argmax(axis=1) + 1 - start, np.inf)
            cells.append(f"{np.median(hours):.1f} ({hours.max():.1f})")
        lines.append(f"| {feature.name} | {' | '.join(cells)} |")
    return lines


def quiet_fresh(random: np.random.Generator, shares: dict[str, Floats]) -> list[str]:
    """Weeks with an alert of one feature, if the reference is a small sample too."""
    rates = (10, 20, 50, 100, 250)
    lines = [f"| rows the model learned from | {' | '.join(f'{rate} rows an hour' for rate in rates)} |"]
    lines.append("|---|" + "---|" * len(rates))
    live = max(shares.values(), key=len)
    for learned in (112, 500, 1000, 10000):
        reference = random.multinomial(learned, live, size=CHUNK)[:, None, :] / learned
        cells = []
        for rate in rates:
            counts = random.multinomial(random.poisson(rate, size=(CHUNK, HOURS)), live)
            hours, days = psi(counts, reference), of_days(counts, reference)
            raised = (alerts(hours) | day_alerts(hours, days)).any(axis=-1)
            cells.append(f"{raised.sum()} of {CHUNK}")
        lines.append(f"| {learned} | {' | '.join(cells)} |")
    return lines


def fresh(random: np.random.Generator, shares: dict[str, Floats], draws: int) -> list[str]:
    """False alarms that come from a reference of few rows."""
    lines = ["| rows the model learned from | median PSI | beyond 0.2 for good |", "|---|---|---|"]
    reference = max(shares.values(), key=len)
    for rows in (112, 500, 1000, 10000):
        learned = random.multinomial(rows, reference, size=draws) / rows
        live = np.maximum(reference, FLOOR)
        learned = np.maximum(learned, FLOOR)
        index = ((live - learned) * np.log(live / learned)).sum(axis=-1)
        lines.append(f"| {rows} | {np.median(index):.3f} | {_share((index > THRESHOLD).mean(), draws)} |")
    return lines


def _share(value: float, draws: int) -> str:
    return f"< 1 in {draws:,}" if value == 0 else f"{value:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--weeks", type=int, default=10_000)
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder of train.parquet")
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    manifest = read_bundle(ROOT / "model").manifest
    shares = {f.name: np.array([each.share for each in f.bins]) for f in manifest.features}
    shares = {name: share / share.sum() for name, share in shares.items()}
    draws = 100_000
    text = [
        "# Drift: false alarms and detection",
        "",
        f"`python -m benchmarks.drift --seed {arguments.seed}`: floor {FLOOR}, at least {ROWS} rows and {ROWS_PER_BIN} a "
        f"bin, an alert for {BEYOND} of {WINDOWS} hourly windows beyond {THRESHOLD}.",
        "",
        "## One hour in which nothing drifted, beyond 0.2 by chance",
        "",
        *one_window(random, draws),
        "",
        f"## Weeks in which nothing drifted ({len(shares)} features of {manifest.name}, nights with 2 % of the traffic)",
        "",
        *weeks(random, shares, arguments.weeks),
        "",
        "## One feature moved by one standard deviation, at 250 rows an hour",
        "",
        *detection(random, arguments.data, 10_000),
        "",
        "## Fresh rows of the very population that the model learned from",
        "",
        "The reference is a sample too. Where it is small, live rows differ from it for ever, without any drift.",
        "",
        *fresh(random, shares, draws),
        "",
        "## Where hours are too quiet: the day judges",
        "",
        f"The alert is then {BEYOND} of the last {WINDOWS} full hours at which the 24 h before them are beyond {THRESHOLD}, with at least "
        f"{ROWS} rows and {ROWS_PER_BIN_OF_A_DAY} a bin, where fewer than {BEYOND} of these hours have an index of their own.",
        "",
        "### Weeks in which nothing drifted",
        "",
        *quiet_weeks(random, shares, arguments.weeks),
        "",
        f"### Why {ROWS_PER_BIN_OF_A_DAY} rows a bin: weeks of one feature in which nothing drifted, just above the minimum",
        "",
        "One look at a day is nearly the next, so 4 of 6 keeps less chance out than it does with hours.",
        "",
        *day_minimum(random),
        "",
        "### Hours until one standard deviation raises the alert of the day: median (slowest of all)",
        "",
        *quiet_detection(random, arguments.data),
        "",
        "### Weeks with an alert of one feature, of hours or of the day, where the reference is a sample too",
        "",
        "At 250 rows an hour it is the hours that judge.",
        "",
        *quiet_fresh(random, shares),
        "",
    ]
    RESULT.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
