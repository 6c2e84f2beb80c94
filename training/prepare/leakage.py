"""Finds visible leakage: what training would know about the test split, or about the answer, and the service would not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.columns import moment_parts
from training.data.dataset import LARGEST_SILENT_LOSS, Profile
from training.data.table import Table, row_hashes

PERFECT = 0.99
"""Share of the test rows whose class one feature tells, or R² that it reaches, from which it is suspicious."""
TRIVIAL = 0.95
"""Share of the most frequent class, from which that share says nothing about a feature."""
INTERVALS = 100
"""Into so many intervals of equal shares a number is cut."""
DENSE = 0.9
"""A counter's values are distinct whole numbers that fill at least this share of their range."""
MOST_ROWS = 200_000
"""Of each split, in which a feature is searched for the answer."""
FEWEST = 30
"""Rows below which every rule would hold by chance."""


def signs(profile: Profile, train: Table, test: Table, group: str | None = None) -> tuple[str, ...]:
    """One sentence for each sign of leakage, with what to do.

    Args:
        profile: of both splits.
        train: its rows.
        test: its rows.
        group: the column whose values are on one side only.
    """
    if profile.rows < FEWEST:
        return ()
    return (
        *_groups(profile, group),
        *_equal_rows(profile, train, test),
        *_counters(profile, train, test),
        *_answers(profile, train, test),
    )


def _groups(profile: Profile, group: str | None) -> Iterator[str]:
    if any(each.name == group for each in profile.features):
        yield (
            f"{group!r} names the groups of split.group, and the model will be asked about others: leave it out of "
            "schema.features"
        )


def _equal_rows(profile: Profile, train: Table, test: Table) -> Iterator[str]:
    names = [each.name for each in profile.features]
    asked, seen = (row_hashes(each, names)[0] for each in (test, train))
    count = int(np.isin(asked, seen).sum())
    if count > LARGEST_SILENT_LOSS * len(test):
        yield (
            f"{count:,} of {len(test):,} test rows equal a training row in all features: if such rows describe the same "
            "thing, split by it (split.by: group), or leave repeats out (schema.duplicates: drop)"
        )


def _counters(profile: Profile, train: Table, test: Table) -> Iterator[str]:
    for feature in profile.features:
        if feature.type != "number":
            continue
        values = np.concatenate([each[feature.name].dropna().to_numpy() for each in (train, test)])
        whole = len(values) >= DENSE * profile.rows and bool((values == np.round(values)).all())
        dense = whole and len(values) >= DENSE * (values.max() - values.min() + 1)
        if dense and len(np.unique(values)) == len(values):
            yield (
                f"{feature.name!r} counts the rows: each value occurs once, without gaps; it knows the order of the file, so "
                "leave it out of schema.features"
            )


def _answers(profile: Profile, train: Table, test: Table) -> Iterator[str]:
    if profile.value is None and max(profile.class_shares) > TRIVIAL:
        return
    known, places = _sample(train, profile), _sample(test, profile)
    actual = test[profile.target].iloc[places].to_numpy()
    answers = train[profile.target].iloc[known].reset_index(drop=True)
    for feature in profile.features:
        columns = [
            each[feature.name].iloc[rows].reset_index(drop=True)
            for each, rows in ((train, known), (test, places))
        ]
        if feature.type == "datetime":
            columns = [_seconds(each) for each in columns]
        seen, asked = _cut(*columns, number=feature.type != "category")
        groups = answers.groupby(seen)
        if profile.value is None:
            told = pd.Series(asked).map(groups.agg(lambda each: each.mode().iloc[0])).to_numpy()
            reached, what = float((told == actual).mean()), "tells the class of {:.1%} of the test rows"
        else:
            told = pd.Series(asked).map(groups.mean()).fillna(answers.mean()).to_numpy()
            spread = float(((actual - actual.mean()) ** 2).sum())
            reached = 1 - float(((actual - told) ** 2).sum()) / spread if spread else 0.0
            what = "alone explains {:.1%} of the variance of the test rows"
        if reached >= PERFECT:
            yield (
                f"{feature.name!r} {what.format(reached)}: is it known before the answer is? If not, leave it out of "
                "schema.features"
            )


def _cut(train: pd.Series[Any], test: pd.Series[Any], *, number: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """The interval or category of each value, as the training rows have them; "" where missing."""
    if not number:
        return train.fillna("").to_numpy(), test.fillna("").to_numpy()
    edges = np.unique(np.nanquantile(train.to_numpy(), np.arange(1, INTERVALS) / INTERVALS))
    return tuple(  # type: ignore[return-value]  # two of them
        np.where(each.isna(), -1, np.searchsorted(edges, each.to_numpy(), side="right"))
        for each in (train, test)
    )


def _seconds(column: pd.Series[Any]) -> pd.Series[float]:
    return pd.Series(moment_parts(column, ("elapsed",), "UTC")[:, 0], column.index)


def _sample(table: Table, profile: Profile) -> NDArray[np.intp]:
    """Positions of rows in which a sign is looked for: of a large table, those of a random sample."""
    if len(table) <= MOST_ROWS:
        return np.arange(len(table))
    seed = int(profile.origin.sha256[:8], 16)
    return np.sort(np.random.default_rng(seed).choice(len(table), MOST_ROWS, replace=False))
