"""Training and test split kept apart by time, by group, or by both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cells import PLAIN
from training.base.errors import ConfigError, DataError
from training.data.dataset import GROUP, TIME
from training.prepare.split import division, split, with_places
from training.sections.split import SplitSettings

places = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=2, max_size=80)


def frame(rows: list[tuple[int, int, bool]]) -> pd.DataFrame:
    times, groups, labels = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "row": range(len(rows)),
            "kind": ["yes" if each else "no" for each in labels],
            TIME: np.array(times, dtype=np.float64),
            GROUP: [f"g{each}" for each in groups],
        }
    )


def settings(by: str, share: float = 0.25) -> SplitSettings:
    columns = {key: key for key in ("time", "group") if key in by}
    return SplitSettings.model_validate({"by": by, "test_share": share, **columns})


@given(places, st.sampled_from(["time", "group", "group_time"]), st.floats(0.05, 0.9))
def test_no_group_and_no_later_row_is_on_the_wrong_side(
    rows: list[tuple[int, int, bool]], by: str, share: float
) -> None:
    whole = frame(rows)
    try:
        train, test = split(whole, "kind", settings(by, share))
    except DataError:
        # Only where there is nothing to choose from, or all new rows are of known groups.
        key = {"time": TIME, "group": GROUP}.get(by)
        assert key is None or whole[key].nunique() == 1
        return
    _check(whole, train, test, by)


@pytest.mark.parametrize(
    ("rows", "by", "reason"),
    [
        ([(0, 0, True)], "random", "training split: there are too few rows; .* use more data"),
        ([(3, 0, True)] * 9, "time", "training split: the column has too few different values"),
        ([(0, 7, True)] * 9, "group", "test split: the column has too few different values"),
        (
            [(each, 7, True) for each in range(9)],
            "group_time",
            "test split: .* or no group is new among the newest",
        ),
    ],
)
def test_an_empty_side_is_refused_with_the_reason(
    rows: list[tuple[int, int, bool]], by: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        split(frame(rows), "kind", settings(by, 0.25))


def _check(whole: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame, by: str) -> None:
    if "time" in by:
        assert train[TIME].max() < test[TIME].min()
    if "group" in by:
        assert not set(train[GROUP]) & set(test[GROUP])
    lost = sorted({*whole["row"]} - {*train["row"], *test["row"]})
    assert not {*train["row"]} & {*test["row"]}
    if by != "group_time":
        assert not lost
    # What is in neither split would be on both sides by its group.
    assert set(whole[GROUP].iloc[lost]) <= set(train[GROUP])
    assert train["row"].is_monotonic_increasing
    assert test["row"].is_monotonic_increasing


@given(st.integers(0, 50))
def test_the_share_is_met_as_nearly_as_moments_allow(seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = frame([(int(each), 0, True) for each in random.integers(0, 9, 200)])
    _, test = split(whole, "kind", settings("time", 0.3))
    sizes = [(whole[TIME] >= each).sum() for each in sorted(whole[TIME].unique())[1:]]
    assert abs(len(test) - 60) == min(abs(each - 60) for each in sizes)


@given(st.integers(0, 30))
def test_classes_keep_about_their_shares_among_groups(seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = frame([(0, group, bool(random.random() < 0.3)) for group in range(60) for _ in range(5)])
    train, test = split(whole, "kind", settings("group"))
    assert len(test) / len(whole) == pytest.approx(0.25, abs=0.05)
    shares = [(each["kind"] == "yes").mean() for each in (train, test)]
    assert shares[0] == pytest.approx(shares[1], abs=0.1)


def test_the_same_seed_gives_the_same_groups() -> None:
    whole = frame([(0, each % 20, each % 3 == 0) for each in range(200)])
    first, again = (split(whole, "kind", settings("group"))[1] for _ in range(2))
    assert first.equals(again)


@pytest.mark.parametrize(
    "values",
    [
        [f"2026-01-{day:02}" for day in range(1, 9)],
        [f"2026-01-01T{hour:02}:00:00+02:00" for hour in range(1, 9)],
        [f"20{year:02}-03" for year in range(1, 9)],
        [str(1950 + year) for year in range(8)],
        list(pd.date_range("2026-01-01", periods=8)),
        list(pd.date_range("2026-01-01", periods=8, tz="Asia/Tokyo")),
        [each.date() for each in pd.date_range("2026-01-01", periods=8)],
        [float(each) for each in range(8)],
    ],
    ids=["dates", "hours", "months", "years", "timestamps", "zones", "objects", "numbers"],
)
def test_moments_of_many_kinds_are_in_order(values: list[Any]) -> None:
    raw = pd.DataFrame({"when": values, "x": range(8)}).iloc[::-1].reset_index(drop=True)
    rows = pd.DataFrame({"x": raw["x"].astype("float64"), "y": 1.0}).set_axis(pd.RangeIndex(1, 9))
    chosen = SplitSettings(by="time", time="when")
    placed = with_places(rows, raw, chosen, PLAIN)
    train, test = split(placed, "y", chosen)
    assert sorted(test["x"]) == [6, 7]
    assert sorted(train["x"]) == list(range(6))
    found = division(train, test, chosen, len(placed))
    assert found.by == "time"
    assert found.train_until != found.test_from


def test_moments_of_several_zones_are_compared_as_instants() -> None:
    raw = pd.DataFrame(
        {"when": ["2026-01-01T00:30:00+02:00", "2026-01-01T00:00:00+00:00", "2026-01-01 00:15"]}
    )
    rows = pd.DataFrame({"x": [0.0, 1.0, 2.0]}).set_axis(pd.RangeIndex(1, 4))
    placed = with_places(rows, raw, SplitSettings(by="time", time="when"), PLAIN)
    assert placed.sort_values(TIME)["x"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("by", "column", "error", "message"),
    [
        ({"by": "time", "time": "wen"}, [1], ConfigError, "there is no column 'wen'; the data has when"),
        (
            {"by": "time", "time": "when"},
            ["2026-01-01", "soon"],
            DataError,
            "is neither a number nor a date such as",
        ),
        ({"by": "time", "time": "when"}, ["2026-01-01", None], DataError, "'when' is missing in row 2"),
        ({"by": "group", "group": "when"}, ["a", ""], DataError, "'when' is missing in row 2"),
        ({"by": "group", "group": "when"}, ["a", b"b"], DataError, "'when' is no text in row 2: b'b'"),
    ],
)
def test_a_row_without_a_place_is_named(
    by: dict[str, str], column: list[Any], error: type[Exception], message: str
) -> None:
    raw = pd.DataFrame({"when": column})
    rows = pd.DataFrame({"x": np.zeros(len(raw))}).set_axis(pd.RangeIndex(1, len(raw) + 1))
    with pytest.raises(error, match=message):
        with_places(rows, raw, SplitSettings.model_validate(by), PLAIN)


def test_dropped_rows_keep_the_others_places() -> None:
    raw = pd.DataFrame({"when": [3, 2, 1]})
    kept = pd.DataFrame({"x": [0.0, 2.0]}, index=[1, 3])
    placed = with_places(kept, raw, SplitSettings(by="time", time="when"), PLAIN)
    assert placed[TIME].tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"by": "time"}, "by: time needs `time: COLUMN`"),
        ({"by": "group_time", "group": "a"}, "by: group_time needs `time: COLUMN`"),
        ({"group": "a"}, "group is given, and by: random does not use it"),
        ({"by": "space"}, "random"),
    ],
)
def test_settings_that_do_not_fit_are_named(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitSettings.model_validate(keys)
