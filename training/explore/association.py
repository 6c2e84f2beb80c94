"""How strongly columns go together, whatever their types."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd


def associations(frame: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r, the correlation ratio or Cramér's V, as the types demand; NaN for a constant column."""
    numbers = frame.select_dtypes("number")
    categories = [each for each in frame if each not in numbers]
    values = numbers.corr().reindex(index=frame.columns, columns=frame.columns)
    for name in categories:
        ratios = correlation_ratios(numbers, frame[name])
        values.loc[numbers.columns, name] = values.loc[name, numbers.columns] = ratios
    for one, other in itertools.combinations_with_replacement(categories, 2):
        values.loc[one, other] = values.loc[other, one] = cramers_v(frame[one], frame[other])
    return values


def correlation_ratios(numbers: pd.DataFrame, groups: pd.Series[Any]) -> pd.Series[float]:
    """The share of each number's standard deviation that is between the groups."""
    known = numbers[groups.notna()]
    means = known.groupby(groups[groups.notna()].array, observed=True).transform("mean").where(known.notna())
    ratios = (means.std() / known.std()).clip(upper=1)
    return ratios.where((known.nunique() > 1) & (groups.nunique() > 1))


def cramers_v(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    counts = pd.crosstab(one, other).to_numpy()
    if min(counts.shape) < 2:
        return math.nan
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    return math.sqrt(chi_squared / counts.sum() / (min(counts.shape) - 1))
