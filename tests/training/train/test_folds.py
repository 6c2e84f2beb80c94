"""The folds of cross-validation and search keep rows apart as the test split does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.base.errors import ConfigError
from training.data.dataset import GROUP, TIME, Split
from training.train.folds import cross_fitting, folds, held_out

rows = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 1)), min_size=6, max_size=80)


def made(cells: list[tuple[int, int, int]], by: str, *, values: bool = False) -> Split:
    times, groups, labels = zip(*cells, strict=True)
    columns: dict[str, Any] = {"x": np.zeros(len(cells))}
    if "time" in by:
        columns[TIME] = np.array(times, dtype=np.float64)
    if "group" in by:
        columns[GROUP] = [f"g{each}" for each in groups]
    target = np.array(labels, dtype=np.float64 if values else np.int64)
    return Split(
        np.zeros((len(cells), 1)), np.empty((len(cells), 0), dtype=object), target, pd.DataFrame(columns)
    )


@given(rows, st.sampled_from(["random", "time", "group", "group_time"]), st.integers(2, 6), st.booleans())
def test_no_group_and_no_later_row_is_on_the_wrong_side(
    cells: list[tuple[int, int, int]], by: str, count: int, values: bool
) -> None:
    split = made(cells, by, values=values)
    try:
        found = list(folds(split, count, 7, "evaluate.folds"))
    except ConfigError:
        # Values can be divided wherever there are enough rows, moments or groups.
        enough = {
            "random": len(split) // 2,
            "time": len({time for time, _, _ in cells}) - 1,
            "group": len({group for _, group, _ in cells}),
        }
        assert not values or by == "group_time" or enough[by] < count
        return
    assert len(found) == count
    _check(split, found, by)


def _check(split: Split, found: list[tuple[Any, Any]], by: str) -> None:
    measured = []
    for inner, outer in found:
        measured.append(outer)
        assert not set(inner) & set(outer)
        if split.times is not None:
            assert split.times[inner].max() < split.times[outer].min()
        if split.groups is not None:
            assert not set(split.groups[inner]) & set(split.groups[outer])
        assert split.target.dtype == np.float64 or set(split.target[inner]) == set(split.target)
    whole = np.concatenate(measured)
    assert len(set(whole)) == len(whole)
    if "time" not in by:
        assert sorted(whole) == list(range(len(split)))


@given(rows, st.sampled_from(["random", "time", "group", "group_time"]), st.integers(2, 6), st.booleans())
def test_statistics_of_other_rows_are_of_earlier_rows_and_other_groups(
    cells: list[tuple[int, int, int]], by: str, count: int, values: bool
) -> None:
    split = made(cells, by, values=values)
    try:
        found = cross_fitting(split, count, 7)
    except ConfigError:
        few = {"time": {each[0] for each in cells}, "group": {each[1] for each in cells}}
        assert any(kind in by and len(known) < 2 for kind, known in few.items())
        return
    whole = np.concatenate([outer for _, outer in found])
    assert len(set(whole)) == len(whole)
    for inner, outer in found:
        assert len(inner)
        assert not set(inner) & set(outer)
        if split.times is not None:
            assert split.times[inner].max() < split.times[outer].min()
        if split.groups is not None:
            assert not set(split.groups[inner]) & set(split.groups[outer])
    if "time" not in by:
        assert sorted(whole) == list(range(len(split)))


@given(rows, st.sampled_from(["time", "group", "group_time"]), st.integers(2, 6))
def test_a_calibration_holds_out_each_row_once_with_its_group_or_moment(
    cells: list[tuple[int, int, int]], by: str, count: int
) -> None:
    split = made(cells, by)
    try:
        found = held_out(split, count, 7)
    except (ConfigError, ValueError):
        return  # too few groups, or a class in one part alone
    assert sorted(np.concatenate([outer for _, outer in found])) == list(range(len(split)))
    for inner, outer in found:
        assert not set(inner) & set(outer)
        assert set(split.target[inner]) == set(split.target)
        apart = split.times if split.groups is None else split.groups
        assert apart is not None
        assert not set(apart[inner]) & set(apart[outer])


def test_by_time_the_blocks_have_about_as_many_rows() -> None:
    split = made([(each, 0, 0) for each in range(120)], "time", values=True)
    found = list(folds(split, 5, 7, "evaluate.folds"))
    assert [len(inner) for inner, _ in found] == [20, 40, 60, 80, 100]
    assert [len(outer) for _, outer in found] == [20] * 5


def test_a_moment_of_most_rows_is_one_block() -> None:
    split = made([(0, 0, 0)] * 90 + [(each, 0, 0) for each in range(1, 6)], "time", values=True)
    assert [len(inner) for inner, _ in folds(split, 5, 7, "evaluate.folds")] == [90, 91, 92, 93, 94]


@pytest.mark.parametrize(
    ("cells", "by", "message"),
    [
        ([(1, 0, 0), (2, 0, 1)] * 9, "time", "evaluate.folds is 3, but there are 2 different moments"),
        ([(0, 1, 0), (0, 2, 1)] * 9, "group", "evaluate.folds is 3, but there are 2 groups"),
        ([(0, 0, 0)] * 9 + [(0, 0, 1)] * 2, "random", "the rarest class has 2 rows"),
        ([(each, 0, int(each > 3)) for each in range(12)], "time", "fold 1 has no row of 1 of the classes"),
    ],
)
def test_too_few_are_named(cells: list[tuple[int, int, int]], by: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(folds(made(cells, by), 3, 7, "evaluate.folds"))
