"""Derives from the data what the schema does not declare: resolution, limits, categories and reference bins for drift."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.contract import MISSING_BIN, Bin, CategoryFeature, DatetimeFeature, Feature, NumberFeature, as_label
from app.moments import UNITS, clock, written
from training.base.errors import DataError
from training.data.columns import wall_times
from training.sections.schema import CategorySettings, DatetimeSettings, FeatureSettings, NumberSettings

BINS, FEWEST_BINS = 10, 4
MOST_BINS_OF_ALL = 1000
"""For all numbers together, because each bin is two Prometheus series per pod. A number keeps FEWEST_BINS."""
SMALLEST_SHARE = 0.01
"""Share of the training rows. A smaller bin shows no drift, so it is merged with its neighbour."""
MOST_DIGITS = 30
"""Decimal places. Values that differ only beyond them count as equal."""
FEW_VALUES = 10
"""A number with at most so many distinct values has a bin for each."""


def bins_for(features: int) -> int:
    """The number of bins of a number in a model with so many features."""
    return max(FEWEST_BINS, min(BINS, MOST_BINS_OF_ALL // features))


def feature(
    name: str,
    settings: FeatureSettings,
    train: pd.Series[Any],
    both: pd.Series[Any],
    bins: int = BINS,
) -> Feature:
    """Resolve one feature.

    Args:
        name: of the feature.
        settings: its declaration.
        train: its values in the training split, which give undeclared limits, the typical value and the bins.
        both: its values in both splits, which give resolution and categories.
        bins: the most bins of a number.
    """
    if train.isna().all():
        raise DataError(f"{name}: every value in the training split is missing; leave it out of the schema")
    if isinstance(settings, CategorySettings):
        return _category(name, settings, train, both)
    if isinstance(settings, DatetimeSettings):
        return _datetime(name, settings, train, both)
    return number(name, settings, train, both, bins)


def number(
    name: str, settings: NumberSettings, train: pd.Series[float], both: pd.Series[float], bins: int = BINS
) -> NumberFeature:
    """Resolve a number, which is a feature or the target of a regression; arguments as for `feature`."""
    values = np.sort(train.dropna().to_numpy(np.float64))
    low, high = settings.range or (float(values[0]), float(values[-1]))
    step = settings.step or resolution(both.dropna().to_numpy(np.float64))
    edges = bin_edges(values, step, bins)
    missing = settings.missing > 0
    return NumberFeature(
        name=name,
        unit=settings.unit,
        description=settings.description,
        minimum=low,
        maximum=high,
        bounded=settings.range is not None,
        step=step,
        # An observed value, so that it is a multiple of the step.
        typical=float(np.quantile(values, 0.5, method="lower")),
        missing=missing,
        edges=edges,
        bins=(
            *_bins(
                bin_labels(edges), np.bincount(bin_of(values, edges), minlength=len(edges) + 1), len(train)
            ),
            *_missing_bin(train, missing),
        ),
    )


def _category(
    name: str, settings: CategorySettings, train: pd.Series[Any], both: pd.Series[Any]
) -> CategoryFeature:
    categories = settings.categories or tuple(sorted(both.dropna().unique()))
    counts = train.value_counts().reindex(list(categories), fill_value=0).to_numpy()
    missing = settings.missing > 0
    return CategoryFeature(
        name=name,
        description=settings.description,
        categories=categories,
        typical=categories[int(counts.argmax())],
        missing=missing,
        bins=(
            *_bins([as_label(each, MISSING_BIN) for each in categories], counts, len(train)),
            *_missing_bin(train, missing),
        ),
    )


def _datetime(
    name: str, settings: DatetimeSettings, train: pd.Series[Any], both: pd.Series[Any]
) -> DatetimeFeature:
    seen, local = train.dropna(), clock(settings.timezone)
    # As few moments as possible become objects, because there may be millions of them.
    order = np.argsort(wall_times(seen, settings.timezone), kind="stable")
    first, typical, last = (
        written(local.at(seen.iloc[place].to_pydatetime()))
        for place in (order[0], order[(len(order) - 1) // 2], order[-1])
    )
    missing = settings.missing > 0
    return DatetimeFeature(
        name=name,
        description=settings.description,
        parts=settings.parts,
        timezone=settings.timezone,
        earliest=first,
        latest=last,
        typical=typical,
        step=_step(wall_times(both.dropna(), settings.timezone)),
        missing=missing,
        # The time goes on, so moments always drift: only missing ones are watched.
        bins=(*_bins(bin_labels(()), [len(seen)], len(train)), *_missing_bin(train, missing)),
    )


def _step(times: NDArray[np.int64]) -> float:
    """The coarsest unit, in seconds, of which all times of the day are multiples."""
    times = times % UNITS[0]
    return next(unit for unit in UNITS if not (times % unit).any()) / 10**6


def resolution(values: NDArray[np.floating[Any]]) -> float:
    """Find the power of ten, 1 at most, of which every value is a multiple: 0.1 for 5.1, 4.9, 4.7.

    Measured values can have as many digits as a float; the answer is never finer than about a millionth of
    the span.
    """
    span = float(values.max() - values.min()) or float(np.abs(values).max()) or 1.0
    finest = min(max(0, 6 - math.floor(math.log10(span))), MOST_DIGITS)
    noise = 4 * np.finfo(np.float64).eps * np.abs(values).max()
    for digits in range(finest):
        if np.abs(values - np.round(values, digits)).max() <= noise + 1e-6 * min(span, 10.0**-digits):
            return _power(digits)
    return _power(finest)


def bin_edges(values: NDArray[np.floating[Any]], step: float, bins: int = BINS) -> tuple[float, ...]:
    """Cut sorted values into at most so many bins of similar share, at readable numbers.

    Frequent values reduce the number of bins. If two values differ, there are at least two.
    """
    distinct = values[np.append(True, values[1:] != values[:-1])] if len(values) else values
    if len(distinct) <= min(FEW_VALUES, bins):
        candidates = distinct[1:]
    else:
        quantiles = np.quantile(values, np.arange(1, bins) / bins)
        candidates = np.unique(np.round(quantiles, _readable_digits(values, step)))
    edges: list[float] = []
    fewest = max(1.0, SMALLEST_SHARE * len(values))
    start = 0
    for edge, place in zip(candidates, np.searchsorted(values, candidates), strict=True):
        if place - start >= fewest and len(values) - place >= fewest:
            edges.append(float(edge))
            start = int(place)
    if not edges and len(distinct) > 1:
        edges = [float(distinct[1])]
    return tuple(edges)


def bin_of(values: NDArray[np.floating[Any]], edges: tuple[float, ...]) -> NDArray[np.int64]:
    """The bin of each value: bin i holds edges[i-1] <= x < edges[i]."""
    return np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="right").astype(np.int64)


def bin_labels(edges: tuple[float, ...], text: Callable[[float], str] | None = None) -> tuple[str, ...]:
    if not edges:
        return ("all",)
    texts = list(map(text or short, edges))
    inner = [f"{low}..{high}" for low, high in pairwise(texts)]
    return (f"..{texts[0]}", *inner, f"{texts[-1]}..")


def short(value: float) -> str:
    """The shortest text that parses to the same float: 5, 4.8, 1e-09."""
    whole = f"{value:.0f}"
    return whole if float(whole) == value and abs(value) < 1e15 else repr(value)


def _readable_digits(values: NDArray[np.floating[Any]], step: float) -> int:
    """Three digits over the span of the central 90 % of the values, but none finer than their resolution."""
    low, high = np.quantile(values, [0.05, 0.95])
    span = float(high - low) or float(values[-1] - values[0])
    return min(2 - math.floor(math.log10(span)), round(-math.log10(step)), MOST_DIGITS)


def _bins(labels: Sequence[str], counts: NDArray[Any] | Sequence[int], rows: int) -> list[Bin]:
    return [Bin(label=each, share=int(count) / rows) for each, count in zip(labels, counts, strict=True)]


def _missing_bin(train: pd.Series[Any], missing: bool) -> list[Bin]:
    return [Bin(label=MISSING_BIN, share=float(train.isna().mean()))] if missing else []


def _power(digits: int) -> float:
    """10**-digits as the float that a literal such as 0.001 gives."""
    return float(f"1e-{digits}")
