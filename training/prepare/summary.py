"""Writes `reports/data.md`, a description of the data to read before the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from app.contract import CategoryFeature, DatetimeFeature, Feature, NumberFeature
from app.moments import clock, written
from common.markdown import code, prose, table
from training.data.columns import wall_times
from training.data.dataset import Division, Profile
from training.data.table import Table
from training.prepare.describe import short

BAR = 24
"""Characters in the longest bar."""


def render(profile: Profile, train: Table, test: Table, left_out: Sequence[str]) -> str:
    both = _Both(train, test)
    numbers = [each for each in profile.features if isinstance(each, NumberFeature)]
    categories = [each for each in profile.features if isinstance(each, CategoryFeature)]
    parts = [
        "# The data",
        _opening(profile, left_out),
        *_target(profile, train, test),
    ]
    if numbers:
        parts += ["## Numbers", _numbers(numbers, both, profile)]
    if categories:
        parts += ["## Categories", _categories(categories, both, profile)]
    if datetimes := [each for each in profile.features if isinstance(each, DatetimeFeature)]:
        parts += ["## Dates and times", _datetimes(datetimes, both, profile)]
    described = [*profile.features, *([profile.value] if profile.value else [])]
    parts += ["## Bins for drift", _bins(described)]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Both:
    """The columns of both splits, one after another."""

    train: Table
    test: Table

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return pd.concat([self.train[name], self.test[name]], ignore_index=True)


def _opening(profile: Profile, left_out: Sequence[str]) -> str:
    dropped, equal = profile.duplicates_dropped, profile.equal_rows
    lines = [
        f"- Source: {code(profile.origin.source, 600)}, {_rows(profile.origin.rows)}, "
        f"sha256 `{profile.origin.sha256[:12]}…`",
        f"- Used: {_rows(profile.rows)}: {profile.train_rows:,} to train, {profile.test_rows:,} to test",
        f"- Kept apart: {prose(apart(profile.division))}",
        f"- Equal to an earlier row in all features and the target: {_rows(equal) if equal else 'none'}"
        + (f", {'all' if dropped == equal else dropped} dropped" if dropped else ", kept" if equal else ""),
        *(
            [f"- Without {_what(profile)}, dropped: {_rows(profile.without_target)}"]
            if profile.without_target
            else []
        ),
        *(
            f"- Dropped with the class {code(name)}: {_rows(count)}"
            for name, count in profile.classes_dropped.items()
        ),
        f"- Read as missing: empty cells{''.join(f', {code(each)}' for each in profile.cells.missing)}",
        f"- Columns left out: {', '.join(map(code, left_out)) if left_out else 'none'}",
    ]
    text = "\n".join(lines)
    for title, sentences in (
        ("Rows that were lost", profile.losses()),
        ("Signs of leakage", profile.leakage),
    ):
        if sentences:
            text += f"\n\n{title}:\n\n" + "\n".join(f"- **{prose(each)}**" for each in sentences)
    return text


def apart(division: Division) -> str:
    """What keeps training and test split apart."""
    by_group = (
        f"by group, {division.train_groups:,} groups to train and {division.test_groups:,} others to test"
    )
    by_time = f"by time, training until {division.train_until}, test from {division.test_from}"
    return {
        "random": "at random",
        "time": by_time,
        "group": by_group,
        "group_time": f"{by_time}; {by_group}",
    }[division.by]


def _what(profile: Profile) -> str:
    return "a class" if profile.task == "classification" else "a value"


def _target(profile: Profile, train: Table, test: Table) -> list[str]:
    if profile.value is None:
        return [f"## Classes of {code(profile.target)}", _classes(profile, train, test)]
    parts: dict[str, Any] = {"all": _Both(train, test), "train": train, "test": test}
    rows = []
    for name, part in parts.items():
        values = part[profile.target]
        quantiles = [values.min(), *values.quantile([0.25, 0.5, 0.75]), values.max()]
        shown = [*quantiles, values.mean(), values.std()]
        rows.append([name, str(len(values)), *(f"{each:.6g}" for each in shown)])
    head = ["split", "rows", "lowest", "25 %", "median", "75 %", "highest", "mean", "std"]
    unit = f" in {prose(profile.value.unit)}" if profile.value.unit else ""
    return [f"## Values of {code(profile.target)}{unit}", table(head, rows, align="lrrrrrrrr")]


def _classes(profile: Profile, train: Table, test: Table) -> str:
    in_train, in_test = train[profile.target].value_counts(), test[profile.target].value_counts()
    counts = {name: (int(in_train[name]), int(in_test[name])) for name in profile.classes}
    most = max(sum(each) for each in counts.values())
    rows = [
        [
            code(name),
            str(sum(each)),
            *map(str, each),
            f"{sum(each) / profile.rows:.1%}",
            "█" * round(BAR * sum(each) / most),
        ]
        for name, each in counts.items()
    ]
    return table(["class", "rows", "train", "test", "share", ""], rows, align="lrrrrl")


def _numbers(features: list[NumberFeature], both: _Both, profile: Profile) -> str:
    rows = []
    for each in features:
        values = both[each.name]
        declared = f"{short(each.minimum)} to {short(each.maximum)}" if each.bounded else "-"
        # Readable: 15.93 where subtraction gave 15.930000000000064.
        seen = " to ".join(short(float(f"{value:.12g}")) for value in (values.min(), values.max()))
        rows.append(
            [
                code(each.name),
                prose(each.unit or "-"),
                declared,
                seen,
                f"{values.mean():.4g}",
                f"{values.std():.4g}",
                short(each.step),
                _missing(each, profile),
            ]
        )
    return table(
        ["feature", "unit", "declared", "seen", "mean", "std", "step", "missing"], rows, align="llrrrrrr"
    )


def _categories(features: list[CategoryFeature], both: _Both, profile: Profile) -> str:
    rows = []
    for each in features:
        counts = both[each.name].value_counts()
        values = ", ".join(f"{code(name)} {int(counts.get(name, 0))}" for name in each.categories)
        rows.append([code(each.name), values, _missing(each, profile)])
    return table(["feature", "rows by category", "missing"], rows, align="llr")


def _datetimes(features: list[DatetimeFeature], both: _Both, profile: Profile) -> str:
    rows = []
    for each in features:
        seen = both[each.name].dropna()
        times, local = wall_times(seen, each.timezone), clock(each.timezone)
        first, last = (
            written(local.at(seen.iloc[place].to_pydatetime())) for place in (times.argmin(), times.argmax())
        )
        whole = each.model_copy(update={"earliest": first, "latest": last})
        rows.append(
            [
                code(each.name),
                prose(each.timezone),
                ", ".join(each.parts),
                whole.span,
                str(len(np.unique(times))),
                _missing(each, profile),
            ]
        )
    return table(["feature", "time zone", "parts", "seen", "distinct", "missing"], rows, align="llllrr")


def _bins(features: Sequence[Feature]) -> str:
    rows = [
        [code(each.name), ", ".join(f"{code(one.label)} ({one.share:.0%})" for one in each.bins)]
        for each in features
    ]
    return "Shares of the training rows; production is compared with them.\n\n" + table(
        ["feature", "bins"], rows
    )


def _missing(feature: Feature, profile: Profile) -> str:
    count = profile.missing[feature.name]
    return f"{count} ({count / profile.rows:.1%})" if count else "-"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
