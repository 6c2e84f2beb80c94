from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.cells import Cells
from training.base.errors import DataError
from training.data.dataset import Origin
from training.prepare import split as division
from training.prepare import stage as prepare
from training.prepare.checks import check
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings


def schema(**keys: Any) -> SchemaSettings:
    return SchemaSettings.model_validate(
        {
            "target": "kind",
            "min_rows_per_class": 2,
            "features": {
                "length": {"type": "number", "unit": "cm", "range": [0, 10]},
                "colour": {"type": "category", "categories": ["red", "blue"], "missing": 0.25},
            },
            **keys,
        }
    )


def flowers(**columns: list[Any]) -> pd.DataFrame:
    sound: dict[str, Any] = {
        "length": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "colour": ["red", "blue"] * 4,
        "kind": ["a", "a", "a", "a", "b", "b", "b", "b"],
    }
    return pd.DataFrame({**sound, **columns})


def complaints(frame: pd.DataFrame, settings: SchemaSettings) -> list[str]:
    with pytest.raises(DataError) as error:
        check(frame, settings)
    first, *lines = str(error.value).split("\n")
    assert "rows count from 1, without a header" in first
    return [line.strip() for line in lines]


def test_sound_data_comes_out_typed_and_in_order() -> None:
    frame = flowers(other=[1] * 8)[["other", "kind", "colour", "length"]]
    checked = check(frame, schema())
    assert checked.frame.columns.tolist() == ["length", "colour", "kind"]
    assert checked.frame["length"].dtype == np.float64
    assert checked.classes == ("a", "b")
    assert checked.left_out == ("other",)
    assert checked.duplicates_dropped == 0


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (
            {"length": [1, "abc", 3, "1,5", 5, 6, 7, 8]},
            "length: 2 values are not a number: row 2: 'abc', row 4: '1,5'; list it under data.missing",
        ),
        (
            {"length": [1, 2, 3, 4, 5, 6, 70, -8.5]},
            "length: 2 values are outside the range [0, 10] cm: row 7: 70.0, row 8: -8.5; correct the source",
        ),
        (
            {"length": [1, np.inf, 3, 4, 5, 6, 7, 1e31]},
            "length: 2 values are infinite or beyond 1e+30, where models cannot calculate: row 2: inf, row 8: 1e+31",
        ),
        (
            {"length": [1, None, 3, 4, 5, 6, 7, 8]},
            "length: 1 value is missing (12.50%) and 0.00% may be: row 2; `missing: 0.13` would allow it",
        ),
        (
            {"colour": [None, None, "", "red", "red", "red", "blue", " "]},
            "colour: 4 values are missing (50.00%) and 25.00% may be: row 1, row 2, row 3, row 8",
        ),
        ({"length": [None] * 8}, "length: every value is missing; leave the feature out of the schema"),
        (
            {"colour": ["red", "green", "blue", "red", "Red", "red", "blue", "red"]},
            "colour: 2 values are of no declared category ('red', 'blue'): row 2: 'green', row 5: 'Red'; declare it",
        ),
        (
            {"kind": ["a", "a", "a", None, "b", "b", "b", ""]},
            "kind: 2 values are missing: row 4, row 8; `schema.missing_target: drop` leaves rows without a class out",
        ),
        ({"length": [True, False] * 4}, "the column is true or false: declare it as `type: category`"),
        (
            {"length": list(pd.date_range("2026-01-01", periods=8))},
            "the column holds dates: declare it as `type: datetime`",
        ),
        (
            {"colour": [datetime.date(2026, 1, 1)] * 8},
            "colour: 8 values are neither text nor a number: row 1: datetime.date(2026, 1, 1), row 2",
        ),
        ({"kind": [b"a"] * 4 + [b"b"] * 4}, "kind: 8 values are neither text nor a number: row 1: b'a'"),
        ({"length": [[1]] * 8}, "length: 8 values are not a number: row 1: [1]"),
        ({"kind": ["a"] * 8}, "kind: only 'a' in 8 rows; a classifier needs at least two classes"),
        (
            {"kind": ["a"] * 7 + ["b"]},
            "kind: too few rows of a class: 'b' has 1; schema.min_rows_per_class asks for 2",
        ),
    ],
)
def test_what_breaks_a_rule_is_named_with_its_rows(columns: dict[str, list[Any]], complaint: str) -> None:
    (line,) = complaints(flowers(**columns), schema(duplicates="keep"))
    assert complaint in line


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        (
            ["2024-02-30", "2024-05-01", "", "1.5.2024", "12:30", None, "2024-05", "2024-05-01 12:30"],
            "seen: 3 values are no date and time in ISO 8601, such as 2024-05-01T12:30:00Z: row 1: '2024-02-30', "
            "row 4: '1.5.2024', row 5: '12:30'; correct the source, swap it with data.replace, or list it under data.missing",
        ),
        (
            [1714566600 + row for row in range(8)],
            "seen: 8 values are no date and time in ISO 8601, such as 2024-05-01T12:30:00Z: row 1: 1714566600, row 2: "
            "1714566601, row 3: 1714566602, row 4: 1714566603, row 5: 1714566604 and 3 more; a number does not say whether it "
            "counts seconds, milliseconds or days",
        ),
        (["1612010100000"] * 8, "seen: 8 values are no date"),
        (["2024-05-01"] * 4 + [None] * 4, "seen: 4 values are missing (50.00%) and 25.00% may be: row 5"),
        ([None] * 8, "seen: every value is missing; leave the feature out of the schema"),
    ],
)
def test_cells_that_are_no_dates_are_named_with_their_rows(cells: list[Any], complaint: str) -> None:
    features = {"seen": {"type": "datetime", "missing": 0.25}}
    (line,) = complaints(flowers(seen=cells), schema(features=features, duplicates="keep"))
    assert complaint in line


def test_dates_come_out_as_moments_in_utc() -> None:
    """In the time zone of the feature where they have none."""
    cells = [
        "2024-05-01",
        " 2024-05-01T12:30:00.25Z ",
        "2024-03-31 02:30",  # the clocks skip it
        datetime.date(2024, 1, 1),
        datetime.datetime(1969, 12, 31, 23),
        pd.Timestamp("2024-07-01T12:00", tz="America/New_York"),
        "?",
        None,
    ]
    seen = {"type": "datetime", "timezone": "Europe/Berlin", "missing": 0.25}
    settings = schema(features={"seen": seen}, duplicates="keep")
    frame = flowers(seen=cells)
    checked = check(frame, settings, Cells(missing=("?",))).frame
    assert str(checked["seen"].dtype) == "datetime64[us, UTC]"
    assert [None if each is pd.NaT else each.isoformat() for each in checked["seen"]] == [
        "2024-04-30T22:00:00+00:00",
        "2024-05-01T12:30:00.250000+00:00",
        "2024-03-31T01:30:00+00:00",
        "2023-12-31T23:00:00+00:00",
        "1969-12-31T22:00:00+00:00",
        "2024-07-01T16:00:00+00:00",
        None,
        None,
    ]


def test_equal_moments_are_equal_rows() -> None:
    seen = ["2024-05-01T12:30Z", "2024-05-01T14:30+02:00", *(f"2024-06-0{day}" for day in range(1, 7))]
    settings = schema(features={"seen": {"type": "datetime"}}, duplicates="drop")
    checked = check(flowers(seen=seen, kind=["a"] * 4 + ["b"] * 4), settings)
    assert checked.duplicates_dropped == 1
    assert len(checked.frame) == 7


def test_everything_is_said_at_once() -> None:
    frame = flowers(length=["x", 99, 3, 3, 5, 6, 7, 8], colour=["green"] * 8)
    frame.loc[3] = frame.loc[2]
    lines = complaints(frame, schema(classes=["a", "c"]))
    assert [line.split(";")[0].split(": row")[0] for line in lines] == [
        "length: 1 value is not a number",
        "length: 1 value is outside the range [0, 10] cm",
        "colour: 8 values are of no declared category ('red', 'blue')",
        "kind: 4 values are of no declared class ('a', 'c')",
        "1 row repeats an earlier one in all features and the target",
        "kind: too few rows of a class: 'c' has 0",
    ]


def test_missing_columns_are_named_with_what_is_there() -> None:
    lines = complaints(flowers().drop(columns=["length", "kind"]), schema())
    assert lines == [
        "length: there is no such column; the data has colour",
        "kind: there is no such column; the data has colour",
    ]


def test_five_rows_are_shown_and_the_rest_counted() -> None:
    (line,) = complaints(flowers(length=[50 + row for row in range(8)]), schema())
    assert "row 5: 54 and 3 more" in line
    assert "row 6" not in line


def test_a_long_cell_is_cut() -> None:
    (line,) = complaints(flowers(length=["x" * 200, *range(1, 8)]), schema())
    assert "…" in line
    assert len(line) < 250


def test_duplicates_can_be_dropped_kept_or_rejected() -> None:
    """They are judged over features and target alone, as text and numbers: spaces and other columns do not count."""
    frame = pd.concat([flowers(), flowers(colour=["red ", "blue"] * 4)], ignore_index=True)
    frame["Id"] = range(16)
    dropped = check(frame, schema(duplicates="drop"))
    assert (len(dropped.frame), dropped.duplicates_dropped) == (8, 8)
    kept = check(frame, schema(duplicates="keep"))
    assert (len(kept.frame), kept.duplicates_dropped) == (16, 0)
    (line,) = complaints(frame, schema(duplicates="reject"))
    assert line.startswith("8 rows repeat an earlier one in all features and the target: row 9, row 10")


def test_classes_are_counted_without_the_duplicates_that_are_dropped() -> None:
    frame = flowers(length=[1, 2, 3, 4, 5, 5, 5, 5], colour=["red"] * 8)
    (line,) = complaints(frame, schema(duplicates="drop"))
    assert line.startswith("kind: too few different rows of a class: 'b' has 1")


def test_rows_without_a_class_and_of_dropped_classes_are_left_out_and_counted() -> None:
    frame = flowers(kind=["a", "a", "?", "", "b", "b", "odd", "odd"])
    checked = check(frame, schema(missing_target="drop", drop_classes=["odd"]), Cells(missing=("?",)))
    assert checked.frame["kind"].tolist() == ["a", "a", "b", "b"]
    assert (checked.without_target, checked.classes_dropped) == (2, {"odd": 2})
    assert checked.classes == ("a", "b")


def test_equal_rows_are_counted_also_where_they_are_kept() -> None:
    frame = flowers(length=[1.0] * 8, colour=["red"] * 8)
    checked = check(frame, schema(duplicates="keep"))
    assert (len(checked.frame), checked.equal_rows, checked.duplicates_dropped) == (8, 6, 0)


def test_only_configured_words_are_missing_and_declared_values_never() -> None:
    frame = flowers(
        colour=["NA", "None", "null", "red", "red", "nan", "N/A", "inf"],
        kind=["None", "None", "NA", "NA"] * 2,
        length=["1", "NA", "3", "4", "5", "6", "7", "8"],
    )
    features = {
        "length": {"type": "number", "missing": 0.2},
        "colour": {"type": "category", "categories": ["NA", "None", "null", "red", "nan", "N/A", "inf"]},
    }
    checked = check(frame, schema(features=features, classes=["NA", "None"]), Cells(missing=("NA", "None")))
    assert checked.frame["colour"].tolist() == frame["colour"].tolist()
    assert checked.frame["kind"].tolist() == frame["kind"].tolist()
    assert checked.frame["length"].isna().tolist() == [False, True] + [False] * 6
    (line,) = complaints(frame, schema(features=features, classes=["NA", "None"]))
    assert line.startswith("length: 1 value is not a number: row 2: 'NA'; list it under data.missing")


def test_a_class_is_the_text_of_the_cell_and_the_message_shows_it() -> None:
    texts = flowers(kind=["0.0", "1.10"] * 4)
    assert check(texts, schema(classes=["0.0", "1.10"])).classes == ("0.0", "1.10")
    (line,) = complaints(flowers(kind=[0.0, 1.1] * 4), schema(classes=["0.0", "1.1"], min_rows_per_class=2))[
        :1
    ]
    assert "4 values are of no declared class ('0.0', '1.1'): row 1: '0', row 3: '0'" in line


def test_a_range_is_checked_whatever_the_service_does() -> None:
    (line,) = complaints(flowers(length=[99, *range(1, 8)]), schema(out_of_range="accept"))
    assert "outside the range" in line


def test_categories_and_classes_may_be_numbers_booleans_or_words_for_missing() -> None:
    features = {
        "stage": {"type": "category"},
        "wild": {"type": "category"},
        "note": {"type": "category", "categories": ["NA", "None", "x"]},
    }
    frame = pd.DataFrame(
        {
            "stage": pd.Series([1, 2, 10, 1], dtype="Int64"),
            "wild": [True, False, True, True],
            "note": ["NA", "None", "x", " x "],
            "kind": [0.0, 1.0, 0.0, 1.0],
        }
    )
    checked = check(frame, schema(features=features, classes=[1, 0]))
    assert checked.frame.to_dict("list") == {
        "stage": ["1", "2", "10", "1"],
        "wild": ["true", "false", "true", "true"],
        "note": ["NA", "None", "x", "x"],
        "kind": ["0", "1", "0", "1"],
    }
    assert checked.classes == ("1", "0")


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float32", "Float64", "str", "object", "category"])
def test_a_number_may_have_any_type(dtype: str) -> None:
    frame = flowers(length=list(range(1, 9))).astype({"length": dtype})
    np.testing.assert_array_equal(check(frame, schema()).frame["length"], np.arange(1.0, 9))


def test_no_rows_and_one_row() -> None:
    assert "a classifier needs at least two classes" in complaints(flowers().head(0), schema())[-1]
    assert "only 'a' in 1 rows" in complaints(flowers().head(1), schema())[0]


anything = (
    st.none()
    | st.booleans()
    | st.integers(-5, 15)
    | st.integers()
    | st.floats()
    | st.sampled_from(["red", "blue", "a", "b", "NA", "", " 1.5", "inf"])
    | st.text(max_size=3)
    | st.dates()
    | st.datetimes()
    | st.binary(max_size=2)
    | st.lists(st.integers(), max_size=2)
)
mostly_sound = st.integers(0, 10) | st.sampled_from([1.5, 2.25, None])


@pytest.mark.long("app/cells.py", "training/prepare", "training/data", "tests/training/prepare")
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.data(),
    st.lists(mostly_sound | anything, max_size=25),
    st.sampled_from(["drop", "reject", "keep"]),
    st.sampled_from([None, [0, 10]]),
    st.sampled_from([None, ["red", "blue"]]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_frame_prepares_or_is_refused_with_a_reason(
    data: st.DataObject,
    lengths: list[Any],
    duplicates: str,
    limits: list[float] | None,
    categories: list[str] | None,
    missing: float,
) -> None:
    count = len(lengths)

    def column(cells: st.SearchStrategy[Any]) -> pd.Series[Any]:
        drawn = data.draw(st.lists(cells, min_size=count, max_size=count))
        return pd.Series(drawn, dtype=object)

    frame = pd.DataFrame({"length": pd.Series(lengths, dtype=object)})
    odd = data.draw(st.booleans())
    frame["colour"] = column(anything if odd else st.sampled_from(["red", "blue"]))
    frame["kind"] = column(anything if odd else st.sampled_from(["a", "b"]))
    frame = frame.drop(columns=data.draw(st.sampled_from([[], [], [], ["length"], ["kind"]])))
    if data.draw(st.booleans()):
        frame = frame.infer_objects()
    rules = schema(
        duplicates=duplicates,
        features={
            "length": {"type": "number", "range": limits, "missing": missing},
            "colour": {"type": "category", "categories": categories, "missing": missing},
        },
    )
    try:
        checked = check(frame, rules)
        train, test = division.split(checked.frame, "kind", SplitSettings())
        origin = Origin(source="-", sha256="0" * 64, rows=count, columns=tuple(frame.columns))
        profile = prepare.resolve(checked, rules, origin, train, test)
    except DataError:
        return
    assert profile.train_rows + profile.test_rows == len(checked.frame) <= count
    assert set(train["kind"]) == set(test["kind"]) == set(profile.classes)
    for each in profile.features:
        assert sum(part.share for part in each.bins) == pytest.approx(1)
