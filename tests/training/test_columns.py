from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.columns import MISSING_WORDS, as_numbers, as_text


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, 2]), [1.0, 2.0]),
        (pd.Series([1, None], dtype="Int64"), [1.0, np.nan]),
        (pd.Series([1.5, None], dtype="Float64"), [1.5, np.nan]),
        (pd.Series([0.1, np.nan], dtype="float32"), [0.1, np.nan]),
        (pd.Series([" 5.1", "-.5", "1e3", "NA", "", None]), [5.1, -0.5, 1000.0, np.nan, np.nan, np.nan]),
        (pd.Series(["7", "8"], dtype="category"), [7.0, 8.0]),
        (pd.Series([Decimal("1.10"), None, 2], dtype=object), [1.1, np.nan, 2.0]),
        (pd.Series([10**400, -(10**400)], dtype=object), [np.inf, -np.inf]),
        (pd.Series([None, None], dtype=object), [np.nan, np.nan]),
        (pd.Series(["inf"]), [np.inf]),
    ],
)
def test_numbers_arrive_in_any_type(column: pd.Series[Any], expected: list[float]) -> None:
    values, wrong = as_numbers(column)
    assert not wrong.any()
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, False]),
        pd.Series([True, False], dtype="boolean"),
        pd.Series(["1,5", "1_000"]),
        pd.Series(["0x1f", "five"]),
        pd.Series([datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1)], dtype=object),
        pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])),
        pd.Series(pd.to_timedelta(["1h", "2h"])),
        pd.Series([[1], {"a": 1}], dtype=object),
        pd.Series([b"1", b"2"], dtype=object),
        pd.Series([1 + 2j, 3j]),
    ],
)
def test_what_is_no_number_is_pointed_out(column: pd.Series[Any]) -> None:
    assert as_numbers(column)[1].all()


def test_one_bad_cell_does_not_spoil_the_others() -> None:
    values, wrong = as_numbers(pd.Series(["5.1", "n/k", None]))
    assert wrong.tolist() == [False, True, False]
    np.testing.assert_array_equal(values, [5.1, np.nan, np.nan])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([" Adelie ", "NA", None]), ["Adelie", None, None]),
        (pd.Series([1.0, 2.0, np.nan]), ["1", "2", None]),
        (pd.Series([1, 10]), ["1", "10"]),
        (pd.Series([0.5, 0.25]), ["0.5", "0.25"]),
        (pd.Series([0.1], dtype="float32"), ["0.1"]),
        (pd.Series([True, False]), ["true", "false"]),
        (pd.Series([True, None], dtype=object), ["true", None]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series([Decimal("100"), Decimal("0.50")], dtype=object), ["100", "0.5"]),
        (pd.Series(["007"]), ["007"]),
    ],
)
def test_text_from_any_type(column: pd.Series[Any], expected: list[str | None]) -> None:
    values, wrong = as_text(column)
    assert not wrong.any()
    assert values.tolist() == expected


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_datetime(["2026-01-01"])),
        pd.Series([b"bytes"], dtype=object),
        pd.Series([["nested"]], dtype=object),
    ],
)
def test_what_is_no_text_is_pointed_out(column: pd.Series[Any]) -> None:
    assert as_text(column)[1].all()


def test_a_word_for_missing_can_be_a_value() -> None:
    column = pd.Series(["NA", "None", "x"])
    assert as_text(column, keep=frozenset({"None"}))[0].tolist() == [None, "None", "x"]


@given(st.lists(st.floats(allow_nan=False)))
def test_a_number_survives_being_text(numbers: list[float]) -> None:
    column = pd.Series(numbers, dtype=np.float64)
    text, _ = as_text(column)
    values, wrong = as_numbers(text.astype("str"))
    assert not wrong.any()
    np.testing.assert_array_equal(values, column)


@given(st.lists(st.text() | st.none()))
def test_text_is_stripped_once_and_for_all(texts: list[str | None]) -> None:
    first, _ = as_text(pd.Series(texts, dtype=object))
    again, _ = as_text(first)
    assert first.tolist() == again.tolist()
    assert not set(first.dropna()) & MISSING_WORDS
