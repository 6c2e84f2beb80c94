from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cells import Cells
from training.data.columns import as_numbers, as_text


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, 2]), [1.0, 2.0]),
        (pd.Series([1, None], dtype="Int64"), [1.0, np.nan]),
        (pd.Series([1.5, None], dtype="Float64"), [1.5, np.nan]),
        (pd.Series([0.1, np.nan], dtype="float32"), [0.1, np.nan]),
        (pd.Series([" 5.1", "-.5", "1e3", " ", "", None]), [5.1, -0.5, 1000.0, np.nan, np.nan, np.nan]),
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
        (pd.Series([" Adelie ", " ", None]), ["Adelie", None, None]),
        (
            pd.Series(["NA", "None", "null", "nan", "N/A", "NULL", "inf", "Infinity", "<NA>"]),
            ["NA", "None", "null", "nan", "N/A", "NULL", "inf", "Infinity", "<NA>"],
        ),
        (pd.Series(["0.0", "1.10", "01001", "on", "1e3", "0x10", "1_000"]), None),
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
def test_text_from_any_type(column: pd.Series[Any], expected: list[str | None] | None) -> None:
    values, wrong = as_text(column)
    assert not wrong.any()
    assert values.tolist() == (column.tolist() if expected is None else expected)


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
    cells = Cells(missing=("NA", "None"))
    assert as_text(column, cells, keep=frozenset({"None"}))[0].tolist() == [None, "None", "x"]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["-999", " NA", "1.5"]),
        pd.Series([-999.0, np.nan, 1.5]),
        pd.Series([-999.0, np.nan, 1.5], dtype="float32"),
        pd.Series([Decimal(-999), None, Decimal("1.5")], dtype=object),
    ],
)
def test_words_for_missing_hold_for_every_type(column: pd.Series[Any]) -> None:
    values, wrong = as_numbers(column, Cells(missing=("NA", "-999")))
    assert not wrong.any()
    np.testing.assert_array_equal(values, [np.nan, np.nan, 1.5])
    assert as_text(column, Cells(missing=("NA", "-999")))[0].tolist() == [None, None, "1.5"]


@pytest.mark.parametrize(
    ("cells", "text", "number"),
    [
        (Cells(decimal=","), "5,3", 5.3),
        (Cells(decimal=","), "-1,5E+03", -1500.0),
        (Cells(decimal=","), "5.3", None),
        (Cells(decimal=",", thousands="."), "1.234.567,5", 1234567.5),
        (Cells(decimal=",", thousands="."), "1.5", None),
        (Cells(thousands=","), "1,234", 1234.0),
        (Cells(thousands=","), "12,34", None),
        (Cells(thousands=","), "0,123", None),
        (Cells(thousands="'"), "1'234.5", 1234.5),
        (Cells(thousands=" "), "1\u202f234\u00a0567", 1234567.0),
        (Cells(), "1,234", None),
        (Cells(), "1_000", None),
        (Cells(), "٣", None),
        (Cells(), "-Infinity", -np.inf),
    ],
)
def test_marks_in_numbers(cells: Cells, text: str, number: float | None) -> None:
    values, wrong = as_numbers(pd.Series([text]), cells)
    assert wrong.tolist() == [number is None]
    if number is not None:
        assert values.tolist() == [number]


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
    assert "" not in set(first.dropna())


_DIGITS = st.text("0123456789", max_size=3)
_WRITTEN = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", " ", "+", "-", "+-", "\u00a0"]),
        _DIGITS,
        st.sampled_from(["", ".", ",", "'", "_", " ", "٣"]),
        _DIGITS,
        st.sampled_from(["", "e1", "E-30", "e+400", "e", "inf", "x", " ", "\n"]),
    ),
)


@given(
    st.lists(st.none() | _WRITTEN | st.sampled_from(["NA", "-999", "9" * 400, "0" * 40 + ".5"]), min_size=1),
    st.sampled_from(
        [
            Cells(missing=("NA", "-999")),
            Cells(decimal=","),
            Cells(thousands=","),
            Cells(decimal=",", thousands="."),
            Cells(thousands=" "),
        ]
    ),
)
def test_a_column_of_texts_is_read_as_its_cells_are_one_by_one(texts: list[str | None], cells: Cells) -> None:
    """Numbers that are written in the usual way are read together, and others one by one."""
    together = as_numbers(pd.Series(texts, dtype="str"), cells)
    alone = as_numbers(pd.Series(texts, dtype=object), cells)
    np.testing.assert_array_equal(together[0], alone[0])
    assert together[1].tolist() == alone[1].tolist()
