"""How often does chance alone raise a drift alert, and how soon does real drift?

The rules' own numbers (floor, minimum of rows, threshold, windows) are applied to counts drawn by chance: from the
served model's reference shares, where nothing has drifted, and from its training rows with one feature moved by one
standard deviation. `tests/monitoring/test_drift_rules.py` shows with a real Prometheus that the rules compute this.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from app.contract import NumberFeature, read_bundle

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "drift.md"
FLOOR, ROWS, ROWS_PER_BIN = 0.001, 200, 10
THRESHOLD, BEYOND, WINDOWS = 0.2, 4, 6
HOURS = 168

Floats = NDArray[np.float64]


def psi(counts: NDArray[np.int64], reference: Floats) -> Floats:
    """The index of counts (…, bins) against shares (bins,) or (…, bins); NaN where there are too few rows."""
    rows = counts.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        actual = np.maximum(counts / rows[..., None], FLOOR)
    expected = np.maximum(reference, FLOOR)
    index = ((actual - expected) * np.log(actual / expected)).sum(axis=-1)
    enough = rows >= max(ROWS, ROWS_PER_BIN * counts.shape[-1])
    return np.where(enough, index, np.nan)


def alerts(index: Floats) -> NDArray[np.bool_]:
    """At which hours (…, hours) the alert is raised."""
    beyond = np.nan_to_num(index) > THRESHOLD
    padded = np.concatenate([np.zeros((*beyond.shape[:-1], WINDOWS - 1), bool), beyond], axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOWS, axis=-1)
    return np.asarray(windows.sum(axis=-1) >= BEYOND)


def check_numbers() -> None:
    """Refuse to compute with other numbers than the rules have."""
    rules = {
        rule.get("record") or rule["alert"]: rule["expr"]
        for group in yaml.safe_load((ROOT / "monitoring/rules/drift.yaml").read_text())["groups"]
        for rule in group["rules"]
    }
    index, alert = rules["espalier:feature_psi:1h"], rules["EspalierFeatureDrift"]
    assert set(re.findall(r", ([\d.]+)\)", index)) == {str(FLOOR)}, "the floor"
    assert re.findall(r">= (\d+)", index) == [str(ROWS), str(ROWS_PER_BIN)], "the minimum"
    assert re.findall(r"> ([\d.]+)\).*>= (\d)", alert) == [(str(THRESHOLD), str(BEYOND))], "the alert"


def one_window(random: np.random.Generator, draws: int) -> list[str]:
    """The chance that one hour without drift is beyond the threshold, by bins and rows."""
    lines = ["| bins | 100 rows | 200 rows | the minimum | PSI exceeded once in 1,000 hours at the minimum |"]
    lines.append("|---|---|---|---|---|")
    for bins in (3, 10, 20, 50):
        shares = np.full(bins, 1 / bins)
        least = max(ROWS, ROWS_PER_BIN * bins)
        cells = []
        for rows in (100, 200, least):
            counts = random.multinomial(rows, shares, size=draws)
            # Without the minimum, to show what it is for.
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


def detection(random: np.random.Generator, folder: Path, draws: int) -> list[str]:
    """How soon one standard deviation is noticed, from a random minute of an hour on."""
    bundle = read_bundle(ROOT / "model")
    table = pd.read_parquet(folder / "train.parquet")
    lines = [
        "| feature | one standard deviation | PSI of a whole hour | hours to the alert: median (slowest of all) |",
        "|---|---|---|---|",
    ]
    for feature in bundle.manifest.features:
        if not isinstance(feature, NumberFeature):
            continue
        values = table[feature.name].dropna().to_numpy(dtype=np.float64)
        reference = np.array([each.share for each in feature.bins])
        step = values.std()
        moved = np.clip(values + step, feature.minimum, feature.maximum)
        bins = len(feature.bins)
        after = np.bincount(np.searchsorted(feature.edges, moved, side="right"), minlength=bins) / len(moved)
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


def fresh(random: np.random.Generator, shares: dict[str, Floats], draws: int) -> list[str]:
    """What the reference's own chance costs: it is counted from few rows too."""
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
    check_numbers()
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
    ]
    RESULT.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
