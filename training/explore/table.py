"""The training rows as they are drawn: names that fit, bins, what is in view, and the features that are worth a look."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.contract import Task
from app.moments import DAY_SECONDS
from training.data import dataset
from training.data.columns import moment_parts
from training.explore.association import correlation_ratios, cramers_v
from training.explore.canvas import COLOURS, NAME, date_ticks, distinct, number_ticks, shorten

if TYPE_CHECKING:
    from matplotlib.axis import Axis

Floats = NDArray[np.float64]

MARKERS = "o^sDvPX"
MOST_FEATURES = 64
"""Of one picture."""
SCATTER_FEATURES = 6
OVERLAID_CLASSES = 6
"""More outlines than this in one panel look alike: each class gets a row of shades instead."""
BINS = 24
CATEGORIES = 12
DISCRETE = 20
"""A number with at most this many distinct values is drawn value by value."""


@dataclass(frozen=True)
class Table:
    """What is drawn, under the names that are shown.

    Attributes:
        frame: numbers as float, datetimes as days since 1970, categories and classes as categoricals; NaN where missing.
        target: its column of classes or values; the others are features in the order of the schema.
        steps: the resolution of each number.
        dates: which of the numbers are days.
        rows: how many there are, if the frame has only some of them at random.
        counts: of them, by class.
    """

    frame: pd.DataFrame
    target: str
    steps: Mapping[str, float]
    dates: frozenset[str] = frozenset()
    rows: int | None = None
    counts: Sequence[int] | None = None

    @property
    def training_rows(self) -> str:
        """How many rows are drawn, for a title."""
        some = f"{len(self.frame):,}"
        return f"{some} training rows" if self.rows is None else f"{some} of {self.rows:,} training rows"

    @property
    def task(self) -> Task:
        return "classification" if is_category(self.frame[self.target]) else "regression"

    @property
    def features(self) -> list[str]:
        return [str(each) for each in self.frame if each != self.target]

    @property
    def numbers(self) -> list[str]:
        """The features that are numbers."""
        return [each for each in self.features if each in self.steps]

    @property
    def classes(self) -> list[str]:
        return list(self.frame[self.target].cat.categories)

    @property
    def overlaid(self) -> bool:
        return len(self.classes) <= OVERLAID_CLASSES

    def ticks(self, axis: Axis, values: pd.Series[float]) -> None:
        """Of a number, whose name the values have."""
        if values.name in self.dates:
            date_ticks(axis)
        else:
            number_ticks(axis, values)

    def palette(self) -> dict[str, str]:
        return dict(zip(self.classes, itertools.cycle(COLOURS)))

    def markers(self) -> dict[str, str]:
        """They shift by one each time the colours start again: no two of 49 classes look alike."""
        count = len(COLOURS)
        return {each: MARKERS[(index + index // count) % count] for index, each in enumerate(self.classes)}


def tabulate(rows: pd.DataFrame, profile: dataset.Profile, target: pd.Series[Any] | None = None) -> Table:
    """The rows of a split as they are drawn.

    Args:
        rows: of the split, or some of them.
        profile: of the data.
        target: of all rows, if these are only some of them.
    """
    described = [*profile.features, *([profile.value] if profile.value else [])]
    titles = [
        f"{shorten(each.name)} ({each.unit})" if each.unit else shorten(each.name) for each in described
    ]
    shown = distinct([*titles, *([] if profile.value else [shorten(profile.target)])])
    columns: dict[str, Any] = {}
    steps, dates = {}, set()
    for name, feature in zip(shown, described, strict=False):
        values = rows[feature.name]
        if feature.type == "number":
            columns[name] = values.astype(float).replace([np.inf, -np.inf], np.nan).to_numpy()
            steps[name] = feature.step
        elif feature.type == "datetime":
            columns[name] = moment_parts(values, ("elapsed",), feature.timezone)[:, 0] / DAY_SECONDS
            steps[name] = feature.step / DAY_SECONDS
            dates.add(name)
        else:
            columns[name] = _categorical(values, feature.categories, 18)
    if profile.value is None:
        columns[shown[-1]] = _categorical(rows[profile.target], profile.classes)
    whole = Table(pd.DataFrame(columns), shown[-1], steps, frozenset(dates))
    if target is None:
        return whole
    counts = target.value_counts().reindex(list(profile.classes), fill_value=0)
    return replace(whole, rows=len(target), counts=tuple(counts))


def bin_edges(values: pd.Series[Any], step: float) -> Floats:
    """Of bins of whole steps, so that a rounded measurement does not make every other bin empty."""
    if is_category(values):
        return np.arange(-0.5, len(values.cat.categories))
    levels = np.unique(values)
    if 1 < len(levels) <= DISCRETE:
        step = float(np.diff(levels).min())
    low, high = float(levels[0]), float(levels[-1])
    if low == high:
        step = max(abs(low) * 0.05, step)
    width = max(1, round((high - low) / BINS / step)) * step
    # Rounding may leave the last bin a hair short.
    count = math.ceil((high - low + step) / width - 1e-6)
    return np.array([low - step / 2 + width * each for each in range(count + 1)])


def in_view(values: pd.Series[Any]) -> pd.Series[Any]:
    """Missing where a few far values would squeeze all others into a corner of the picture."""
    if is_category(values):
        return most_frequent(values)
    if values.nunique() <= DISCRETE:
        return values
    low, high = values.quantile([0.005, 0.995])
    far = values.max() - values.min() > 3 * (high - low) > 0
    return values.where(values.between(low, high)) if far else values


def most_frequent(values: pd.Series[Any]) -> pd.Series[Any]:
    """The rare categories as one, where there are many."""
    categories = list(values.cat.categories)
    if len(categories) <= CATEGORIES:
        return values
    kept = set(values.value_counts().index[: CATEGORIES - 1])
    others = f"{len(categories) - len(kept)} others"
    merged = values.astype(object).where(values.isin(kept) | values.isna(), others)
    return merged.astype(pd.CategoricalDtype([each for each in categories if each in kept] + [others]))


def best(table: Table, candidates: list[str], count: int) -> list[str]:
    """The columns that go together with the target most, in the schema's order."""
    if len(candidates) <= count:
        return candidates
    target = table.frame[table.target]
    numbers = table.frame[[each for each in candidates if each in table.steps]]
    categories = [each for each in candidates if each not in table.steps]
    if table.task == "classification":
        strength = correlation_ratios(numbers, target).to_dict()
        strength |= {each: cramers_v(table.frame[each], target) for each in categories}
    else:
        strength = numbers.corrwith(target).abs().to_dict()
        strength |= {
            each: correlation_ratios(target.to_frame(), table.frame[each]).iloc[0] for each in categories
        }
    ranked = sorted(candidates, key=lambda each: -np.nan_to_num(strength[each]))[:count]
    return [each for each in candidates if each in ranked]


def informative(table: Table) -> list[str]:
    """What the scatter matrix shows: categories only where there are not two numbers that vary."""
    varying = [each for each in table.features if table.frame[each].nunique() > 1] or table.features[:1]
    numbers = [each for each in varying if each in table.steps]
    return best(table, numbers if len(numbers) >= 2 else varying, SCATTER_FEATURES)


def selection(table: Table, chosen: list[str]) -> str:
    """Which of the features are drawn; nothing where all are."""
    if len(chosen) == len(table.features):
        return ""
    what = "separate the classes best" if table.task == "classification" else "correlate with the target most"
    return f"The {len(chosen)} of {len(table.features):,} features that {what}."


def is_category(values: pd.Series[Any]) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype)


def _categorical(values: pd.Series[Any], categories: Sequence[str], longest: int = NAME) -> pd.Series[Any]:
    shown = distinct(shorten(each, longest) for each in categories)
    names = dict(zip(categories, shown, strict=True))
    return values.map(names).astype(pd.CategoricalDtype(list(names.values())))
