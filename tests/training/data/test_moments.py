"""A datetime in training and in the service: the same moment has the same numbers, however it is written."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.contract import Bin, DatetimeFeature, Manifest
from app.limits import RowLimits, Sizes
from app.moments import PARTS, Part
from app.schema import Schema
from tests.bundles import write_mixed_bundle
from training.data.columns import as_moments, as_times, moment_parts, moments, wall_times

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia")
# What nanoseconds can hold, so that every type of column can have it.
within = st.datetimes(datetime(1700, 1, 1), datetime(2250, 12, 31), timezones=st.just(UTC))
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
some_parts = st.lists(st.sampled_from(PARTS), min_size=1, unique=True).map(tuple)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_mixed_bundle(tmp_path_factory.mktemp("bundle"))


def feature(zone: str, parts: tuple[Part, ...] = PARTS) -> DatetimeFeature:
    ends = {"earliest": "2024-01-01T00:00:00Z", "latest": "2024-12-31T00:00:00Z"}
    bins = (Bin(label="all", share=0.5), Bin(label="missing", share=0.5))
    return DatetimeFeature(
        name="seen",
        parts=parts,
        timezone=zone,
        typical=ends["latest"],
        step=1,
        missing=True,
        bins=bins,
        **ends,
    )


def in_training(column: pd.Series[Any], zone: str, parts: tuple[Part, ...]) -> NDArray[np.float64]:
    """Through the file that `prepare` writes."""
    found, wrong = as_moments(column, timezone=zone)
    assert not wrong.any()
    file = io.BytesIO()
    pd.DataFrame({"seen": found}).to_parquet(file)
    return moment_parts(pd.read_parquet(file)["seen"], parts, zone)


def in_the_service(
    manifest: Manifest, texts: list[str | None], zone: str, parts: tuple[Part, ...]
) -> list[NDArray[np.float64]]:
    """By each shape of a request."""
    described = manifest.model_copy(update={"features": (feature(zone, parts),)})
    schema = Schema(described, RowLimits(len(parts), Sizes(1, 1, 1, {}), 2**20))
    bodies = [{"instances": [{"seen": each} for each in texts]}, {"columns": {"seen": texts}}]
    found: list[Any] = [schema.parse(json.dumps(each).encode())[1] for each in bodies]
    found += [schema.from_tensors({"seen": [each or "" for each in texts]}, 2**20)]
    ones = [schema.parse(json.dumps({"seen": each}).encode())[1] for each in texts]
    assert all(isinstance(each, tuple) for each in ones)
    return [*(each.numbers for each in found), np.array([each[0] for each in ones])]  # type: ignore[index]


@given(moment=within, offset=offsets, zone=st.sampled_from(ZONES), parts=some_parts)
def test_the_same_moment_has_the_same_numbers_in_training_and_service(
    manifest: Manifest, moment: datetime, offset: timezone, zone: str, parts: tuple[Part, ...]
) -> None:
    texts = [
        moment.isoformat(),
        moment.isoformat().replace("+00:00", "Z"),
        moment.astimezone(offset).isoformat(),
        moment.astimezone(offset).isoformat(sep=" ", timespec="microseconds") if moment.microsecond else None,
        f" {moment.isoformat()} ",
    ]
    texts = [each or moment.isoformat() for each in texts]
    columns = [
        pd.Series(texts),
        pd.Series(texts, dtype=object),
        pd.Series([moment.astimezone(offset)], dtype=object),
        *(
            pd.Series(np.array([moment.replace(tzinfo=None)], dtype=f"datetime64[{unit}]")).dt.tz_localize(
                "UTC"
            )
            for unit in ("us", "ns")
        ),
        pd.Series([pd.Timestamp(moment).tz_convert(ZoneInfo("Asia/Tokyo"))]),
    ]
    if zone == "UTC":
        columns += [
            pd.Series([moment.replace(tzinfo=None).isoformat()]),
            pd.Series(pd.to_datetime([moment.replace(tzinfo=None)])),
        ]
    found = [row.tolist() for each in columns for row in in_training(each, zone, parts)]
    asked: list[str | None] = [*texts]
    found += [row.tolist() for each in in_the_service(manifest, asked, zone, parts) for row in each]
    assert all(each == found[0] for each in found), found


@given(local=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), zone=st.sampled_from(ZONES))
def test_a_time_without_a_zone_is_that_of_the_feature(manifest: Manifest, local: datetime, zone: str) -> None:
    """Also one that the clocks skip or repeat."""
    expected = in_training(pd.Series([local.isoformat()]), zone, PARTS).tolist()
    for column in (
        pd.Series([local], dtype=object),
        pd.Series([local]).astype("datetime64[us]"),
        pd.Series([local]).astype("datetime64[ns]"),
    ):
        assert in_training(column, zone, PARTS).tolist() == expected
    for found in in_the_service(manifest, [local.isoformat()], zone, PARTS):
        assert found.tolist() == expected


def test_missing_moments_are_nan_in_every_part(manifest: Manifest) -> None:
    cells = ["2024-05-01", None, ""]
    training = in_training(pd.Series(cells), "UTC", ("year", "elapsed"))
    assert np.isnan(training).tolist() == [[False, False], [True, True], [True, True]]
    for found in in_the_service(manifest, ["2024-05-01", None, None], "UTC", ("year", "elapsed")):
        np.testing.assert_array_equal(found, training)


def test_nanoseconds_before_1970_are_cut_off_as_the_digits_of_a_text_are() -> None:
    text = "1969-12-31T23:59:59.999999999"
    column = pd.Series([np.datetime64(text, "ns")])
    assert in_training(column, "UTC", PARTS).tolist() == in_training(pd.Series([text]), "UTC", PARTS).tolist()


def test_equal_moments_stay_in_their_rows() -> None:
    column = pd.to_datetime(pd.Series(["2024-05-01", None, "1970-01-01", "2024-05-01"])).dt.tz_localize("UTC")
    assert [each and each.year for each in moments(column)] == [2024, None, 1970, 2024]
    found = moment_parts(column, ("elapsed", "year"), "UTC")
    np.testing.assert_array_equal(found[:, 0], [1714521600, np.nan, 0, 1714521600])


@given(st.lists(within, min_size=1), st.sampled_from(ZONES))
def test_wall_times_compare_as_moments_do(seen: list[datetime], zone: str) -> None:
    column = pd.Series(pd.DatetimeIndex(seen).as_unit("us"))
    clocks = [each.replace(tzinfo=None) for each in moments(column, zone) if each is not None]
    times = [(each - datetime(1970, 1, 1)) // timedelta(microseconds=1) for each in clocks]
    assert wall_times(column, zone).tolist() == times


def test_the_time_of_a_split_is_a_number_or_read_as_a_feature_is() -> None:
    years, wrong = as_times(pd.Series(["2023", "2024"]))
    assert years.tolist() == [2023, 2024]
    assert not wrong.any()
    found, wrong = as_times(pd.Series(["2024-05", "2024-05-01T02:00+02:00", "20240501", None]))
    assert wrong.tolist() == [False, False, True, False]
    assert found[0] == found[1] == pd.Timestamp("2024-05-01", tz="UTC")
