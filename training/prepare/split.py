"""Divides the rows into training and test split: at random, by time, by group, or by both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.cells import Cells
from training.base.errors import ConfigError, DataError
from training.data.columns import as_numbers, as_text, as_times
from training.data.dataset import GROUP, TIME, WEIGHT, Division
from training.data.table import Table, where
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings

FEWEST_ROWS_PER_FOLD = 2
"""Of a regression: R² needs two values."""
_WRONG = {
    TIME: "is neither a number nor a date such as 2026-01-31",
    GROUP: "is no text",
    WEIGHT: "is no number above 0",
}
SHOWN = 5
"""Rows that an error lists before it gives only the number of the others."""
TRIES = 20
"""Random orders of the groups, of which the one with the best shares of the classes counts."""


def with_places(
    frame: Any, raw: Table, settings: SplitSettings, cells: Cells, weight: str | None = None
) -> Any:
    """The checked rows with the columns TIME, GROUP and WEIGHT, as far as the settings name them.

    Args:
        frame: checked rows; the index counts the rows of the raw data from 1.
        raw: the data as fetched.
        settings: name the columns of time and group.
        cells: how their cells are written.
        weight: names the column of weights.

    Raises:
        ConfigError: there is no such column.
        DataError: a row has no time or group, or one that cannot be read.
    """
    for key, name, convert in (
        (TIME, settings.time, as_times),
        (GROUP, settings.group, as_text),
        (WEIGHT, weight, as_numbers),
    ):
        if name is None:
            continue
        if name not in raw.columns:
            raise ConfigError(
                f"{key}: there is no column {name!r}; the data has {', '.join(map(str, raw.columns))}"
            )
        if key in frame.columns:
            raise DataError(f"a feature cannot be called {key!r}: rename it under data.rename")
        chosen = raw[name].iloc[frame.index - 1].set_axis(frame.index)
        values, wrong = convert(chosen, cells)
        faults = [(wrong, _WRONG[key]), (values.isna(), "is missing")]
        if key == WEIGHT:
            faults.append(((values <= 0) | np.isinf(values), _WRONG[key]))
        for mask, fault in faults:
            if mask.any():
                raise DataError(_fault(key, name, chosen[mask], fault))
        frame = frame.assign(**{key: values})
    return frame


def split(frame: Any, target: str, settings: SplitSettings) -> tuple[Any, Any]:
    """Split into train and test, which are tables as the given one; rows keep their order.

    - `random`: the classes' shares are kept. Every class with at least two rows is in both, however small the test share
      is. A target of numbers has no classes: the test rows are drawn from all rows.
    - `time`: the newest rows are the test split; rows of one moment are on the same side.
    - `group`: groups are drawn until the test split has its share, with the classes' shares nearly kept.
    - `group_time`: as `time`; newer rows of groups that are in the training split are in neither.

    Raises:
        DataError: a side would be empty.
    """
    choose = {"random": _random, "time": _newest, "group": _groups, "group_time": _newest}[settings.by]
    chosen = choose(frame, target, settings)
    kept = np.ones(len(frame), dtype=bool)
    if settings.by == "group_time":
        kept = ~(chosen & frame[GROUP].isin(frame[GROUP][~chosen]).to_numpy())
    train, test = where(frame, ~chosen & kept), where(frame, chosen & kept)
    if not len(train) or not len(test):
        empty = "test" if len(train) else "training"
        reason = {
            "random": "there are too few rows",
            "group_time": "the columns have too few different values, or no group is new among the newest rows",
        }.get(settings.by, "the column has too few different values")
        raise DataError(
            f"split.by {settings.by} leaves no row for the {empty} split: {reason}; change split.test_share or split.by, or "
            "use more data"
        )
    return train, test


def division(train: Table, test: Table, settings: SplitSettings, rows: int) -> Division:
    """What keeps the two apart, of so many rows."""
    found: dict[str, Any] = {"by": settings.by, "left_out": rows - len(train) - len(test)}
    if TIME in train:
        found |= {"train_until": _moment(train[TIME].max()), "test_from": _moment(test[TIME].min())}
    if GROUP in train:
        found |= {"train_groups": train[GROUP].nunique(), "test_groups": test[GROUP].nunique()}
    return Division(**found)


def _random(frame: Table, target: str, settings: SplitSettings) -> NDArray[np.bool_]:
    values = frame[target]
    generator = np.random.default_rng(settings.seed)
    chosen = np.zeros(len(frame), dtype=bool)
    if values.dtype == np.float64:
        groups = [np.arange(len(frame))]
    else:
        codes, names = pd.factorize(values, sort=True)
        groups = [np.flatnonzero(codes == each) for each in range(len(names))]
    sizes = np.array([len(each) for each in groups])
    for rows, count in zip(groups, _test_rows(sizes, settings.test_share), strict=True):
        chosen[generator.permutation(rows)[:count]] = True
    return chosen


def _newest(frame: Table, _: str, settings: SplitSettings) -> NDArray[np.bool_]:
    """The moments at the end whose rows come nearest to the share."""
    moments = frame[TIME].to_numpy()
    distinct, counts = np.unique(moments, return_counts=True)
    newer = np.cumsum(counts[::-1])[::-1]
    # The first moment cannot be the boundary: training would be empty.
    start = 1 + int(np.abs(newer[1:] - settings.test_share * len(frame)).argmin()) if len(distinct) > 1 else 0
    chosen: NDArray[np.bool_] = moments >= distinct[start]
    return chosen


def _groups(frame: Table, target: str, settings: SplitSettings) -> NDArray[np.bool_]:
    """Whole groups, in the random order whose test rows come nearest to the share of each class."""
    codes, names = pd.factorize(frame[GROUP])
    if frame[target].dtype == np.float64:
        classes = np.zeros(len(frame), dtype=np.int64)
    else:
        classes = pd.factorize(frame[target])[0]
    counts = np.zeros((len(names), classes.max() + 1))
    np.add.at(counts, (codes, classes), 1)
    wanted = counts.sum(axis=0) * settings.test_share
    generator = np.random.default_rng(settings.seed)
    best, smallest = np.zeros(len(names), dtype=bool), np.inf
    for _ in range(TRIES if len(names) > 1 else 0):
        order = generator.permutation(len(names))
        sums = np.cumsum(counts[order], axis=0)
        # At least one group on each side.
        gaps = (np.abs(sums - wanted) / counts.sum(axis=0)).sum(axis=1)[:-1]
        if gaps.min() < smallest:
            smallest = float(gaps.min())
            best = np.isin(np.arange(len(names)), order[: gaps.argmin() + 1])
    chosen: NDArray[np.bool_] = best[codes]
    return chosen


def _moment(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return value.isoformat().removesuffix("+00:00").removesuffix("T00:00:00")
    return f"{value:.15g}"


def _fault(key: str, name: str, cells: pd.Series[Any], fault: str) -> str:
    listed = ", ".join(f"row {row}: {value!r}" for row, value in cells.head(SHOWN).items())
    more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    return (
        f"{key}: {name!r} {fault} in {listed}{more}; correct the source, or change the setting that names it"
    )


def check_size(train: Table, test: Table, classes: Iterable[str], schema: SchemaSettings, folds: int) -> None:
    """Raise DataError if the rows are too few for cross-validation, or a class is in one split only."""
    if schema.task == "regression":
        if len(train) < FEWEST_ROWS_PER_FOLD * folds:
            raise DataError(
                f"{len(train)} training rows are too few for evaluate.folds ({folds}): use fewer folds or more data"
            )
        return
    rare = too_rare(train[schema.target], classes, folds)
    if rare:
        raise DataError(_rare_message(rare, schema, folds))
    absent = sorted(set(classes) - set(test[schema.target].unique()))
    if absent:
        raise DataError(
            f"{schema.target}: the test split has no row of {', '.join(map(repr, absent))}: use a larger "
            "split.test_share, another split.by, or leave the class out (schema.drop_classes)"
        )


def too_rare(labels: pd.Series[Any], classes: Iterable[str], folds: int) -> dict[str, int]:
    """The classes with fewer training rows than folds, with their number of rows."""
    counts = labels.value_counts()
    return {name: int(counts.get(name, 0)) for name in classes if counts.get(name, 0) < folds}


def _rare_message(rare: dict[str, int], schema: SchemaSettings, folds: int) -> str:
    names = ", ".join(f"{name!r} has {count}" for name, count in rare.items())
    first = next(iter(rare))
    return (
        f"{schema.target}: fewer training rows of a class than evaluate.folds ({folds}): {names}; "
        f"merge it with another class (`data.replace: {{{schema.target}: {{{first}: OTHER}}}}`), "
        f"leave its rows out (`schema.drop_classes: [{', '.join(rare)}]`), or use fewer folds"
    )


def _test_rows(sizes: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The number of test rows of each class: integers whose sum is nearest to the share of all rows."""
    exact = sizes * share
    counts = np.floor(exact).astype(np.int64)
    largest_rest_first = np.argsort(counts - exact, kind="stable")
    counts[largest_rest_first[: round(float(exact.sum())) - counts.sum()]] += 1
    bounded: NDArray[np.int64] = np.maximum(np.minimum(counts, sizes - 1), 1)
    return bounded
