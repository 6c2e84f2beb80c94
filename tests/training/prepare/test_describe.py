from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.contract import CategoryFeature, DatetimeFeature, NumberFeature
from training.base.errors import DataError
from training.data.columns import as_moments
from training.prepare import describe
from training.sections.schema import CategorySettings, DatetimeSettings, NumberSettings

finite = st.floats(-1e9, 1e9, allow_nan=False)
numbers = st.lists(finite, min_size=1, max_size=200)


def number(values: Sequence[float | None], settings: NumberSettings | None = None) -> NumberFeature:
    column = pd.Series(np.array(values, dtype=np.float64))
    feature = describe.feature("x", settings or NumberSettings(type="number", missing=1), column, column)
    assert isinstance(feature, NumberFeature)
    return feature


@given(st.lists(finite | st.none() | st.integers(0, 5).map(float), min_size=1, max_size=200))
def test_every_value_is_in_one_bin_and_shares_sum_to_one(values: list[float | None]) -> None:
    assume(any(value is not None for value in values))
    feature = number(values)
    labels = [each.label for each in feature.bins]
    assert len(set(labels)) == len(labels) <= describe.BINS + 1
    assert sum(each.share for each in feature.bins) == pytest.approx(1)
    present = np.array([value for value in values if value is not None])
    bounds = [-np.inf, *feature.edges, np.inf]
    for position, each in enumerate(feature.bins[:-1]):
        inside = (present >= bounds[position]) & (present < bounds[position + 1])
        assert each.share == pytest.approx(inside.sum() / len(values))


@given(st.lists(finite | st.integers(0, 8).map(float), min_size=1, max_size=200), st.integers(4, 10))
def test_a_number_of_a_wide_model_has_fewer_bins(values: list[float], bins: int) -> None:
    column = pd.Series(np.array(values))
    feature = describe.feature("x", NumberSettings(type="number"), column, column, bins)
    assert min(2, len(set(values))) <= len(feature.bins) <= bins
    assert sum(each.share for each in feature.bins) == pytest.approx(1)


@pytest.mark.parametrize(("features", "bins"), [(1, 10), (100, 10), (200, 5), (751, 4), (10_000, 4)])
def test_bins_by_the_number_of_features(features: int, bins: int) -> None:
    assert describe.bins_for(features) == bins


@given(
    st.dictionaries(
        st.text(min_size=1) | st.sampled_from(["missing", "'missing'", "other", " missing"]),
        st.integers(1, 9),
        min_size=1,
    ),
    st.integers(0, 9),
)
def test_every_category_and_what_is_missing_has_a_label_of_its_own(
    rows: dict[str, int], missing: int
) -> None:
    column = pd.Series([name for name, count in rows.items() for _ in range(count)] + [None] * missing)
    feature = describe.feature("x", CategorySettings(type="category", missing=1), column, column)
    assert isinstance(feature, CategoryFeature)
    shares = {each.label: each.share for each in feature.bins}
    assert len(shares) == len(feature.bins) == len(rows) + 1
    assert shares["missing"] == missing / len(column)
    for name, each in zip(feature.categories, feature.bins, strict=False):
        assert each.share == rows[name] / len(column)


@given(numbers)
def test_values_that_differ_make_bins_that_are_not_empty(values: list[float]) -> None:
    feature = number(list(values), NumberSettings(type="number"))
    assert len(feature.bins) >= min(2, len(set(values)))
    assert all(each.share > 0 for each in feature.bins)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=100), st.integers(0, 6))
def test_the_step_divides_every_value(whole: list[int], digits: int) -> None:
    values = np.array([float(f"{each}e-{digits}") for each in whole])
    step = describe.resolution(values)
    span = float(values.max() - values.min()) or float(np.abs(values).max()) or 1.0
    multiples = values / step
    assert np.allclose(multiples, np.round(multiples), rtol=1e-9, atol=1e-3) or step <= span * 1e-5
    assert step >= 10.0**-digits * (1 - 1e-9)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([5.1, 4.9, 4.7], 0.1),
        ([3750.0, 3800.0], 1),
        ([0.0, 0.0], 1),
        ([0.25, 0.5], 0.01),
        ([1 / 3, 2 / 3, 1.0], 1e-7),
        ([1e-9, 3e-9], 1e-9),
    ],
)
def test_natural_resolution(values: list[float], step: float) -> None:
    assert describe.resolution(np.array(values)) == step


def test_labels_can_be_read() -> None:
    assert describe.bin_labels((4.8, 5.0, 5.1)) == ("..4.8", "4.8..5", "5..5.1", "5.1..")
    assert describe.bin_labels(()) == ("all",)
    assert describe.short(-0.5) == "-0.5"
    assert describe.short(1234567.0) == "1234567"


def test_edges_are_rounded_to_what_can_be_read() -> None:
    values = np.sort(np.random.default_rng(0).normal(0, 1, 1000))
    edges = describe.bin_edges(values, 1e-6)
    assert len(edges) == 9
    assert all(edge == round(edge, 2) for edge in edges)


def test_a_value_that_is_nearly_always_the_same_still_has_two_bins() -> None:
    feature = number([0.0] * 995 + [3.0] * 5)
    assert [each.label for each in feature.bins] == ["..3", "3..", "missing"]


def test_declared_limits_and_step_are_kept() -> None:
    settings = NumberSettings(type="number", unit="cm", range=(0, 10), step=0.5, description="how long")
    feature = number([1.0, 2.5], settings)
    assert (feature.minimum, feature.maximum, feature.bounded, feature.step) == (0, 10, True, 0.5)
    assert (feature.unit, feature.description, feature.missing) == ("cm", "how long", False)
    seen = number([1.0, 2.5, 2.0])
    assert (seen.minimum, seen.maximum, seen.bounded, seen.typical) == (1, 2.5, False, 2)


def test_categories_keep_their_order_and_their_share() -> None:
    column = pd.Series(["b", "a", "b", None], dtype="str")
    declared = CategorySettings(type="category", categories=("c", "b", "a"), missing=0.5)
    feature = describe.feature("x", declared, column, column)
    assert isinstance(feature, CategoryFeature)
    assert [(each.label, each.share) for each in feature.bins] == [
        ("c", 0),
        ("b", 0.5),
        ("a", 0.25),
        ("missing", 0.25),
    ]
    assert feature.typical == "b"
    inferred = describe.feature("x", CategorySettings(type="category", missing=0.5), column, column)
    assert isinstance(inferred, CategoryFeature)
    assert inferred.categories == ("a", "b")


def test_a_datetime_has_one_bin_its_ends_and_its_resolution() -> None:
    cells = ["2024-05-01", None, "2024-03-31T12:00", "1969-12-31"]
    settings = DatetimeSettings(type="datetime", timezone="Europe/Berlin", missing=0.5, description="when")
    column, _ = as_moments(pd.Series(cells), timezone="Europe/Berlin")
    feature = describe.feature("x", settings, column, column)
    assert isinstance(feature, DatetimeFeature)
    assert (feature.earliest, feature.latest) == ("1969-12-31T00:00:00+01:00", "2024-05-01T00:00:00+02:00")
    assert (feature.typical, feature.step) == ("2024-03-31T12:00:00+02:00", 3600)
    assert [(each.label, each.share) for each in feature.bins] == [("all", 0.75), ("missing", 0.25)]
    assert feature.span == "1969-12-31T00:00:00+01:00 to 2024-05-01T00:00:00+02:00"
    days = describe.feature("x", settings, column[[0, 3]], column[[0, 3]])
    assert isinstance(days, DatetimeFeature)
    assert (days.step, days.span, days.grid()[2]) == (86400, "1969-12-31 to 2024-05-01", 19845)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="x: every value in the training split is missing"):
        number([None, None])
