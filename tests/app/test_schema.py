"""What `/predict` accepts and refuses, in its three shapes."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.bundles import (
    IRIS_CLASSES,
    IRIS_FEATURES,
    SOILS,
    Row,
    mixed_row,
    number_row,
    write_number_bundle,
)

GOOD = number_row((5.1, 3.5, 1.4, 0.2)).values
# The ranges of the number bundle.
number_rows = st.builds(
    number_row,
    st.tuples(st.floats(1, 12), st.floats(1, 8), st.floats(0.1, 12), st.floats(0.1, 5)),
)
mixed_rows = st.builds(
    mixed_row,
    st.none() | st.floats(0, 50),
    st.floats(0, 100),
    st.none() | st.sampled_from(SOILS),
    st.none()
    | st.datetimes(datetime(1900, 1, 1), timezones=st.timezones()).map(lambda each: each.isoformat()),
)


def predict(client: TestClient, body: Any) -> dict[str, Any]:
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def refuse(client: TestClient, body: bytes | str | dict[str, Any] | list[Any]) -> dict[str, str]:
    """The reasons by field of a refused body."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    answer = client.post("/predict", content=content)
    assert answer.status_code == 422, answer.text
    error = answer.json()
    assert set(error) == {"error", "code", "details"}
    assert isinstance(error["error"], str)
    assert "\n" not in error["error"]
    return {each["field"]: each["reason"] for each in error["details"]} or {"": error["error"]}


def check(answer: dict[str, Any], row: Row) -> None:
    assert answer["probabilities"] == pytest.approx(row.probabilities, rel=1e-9, abs=1e-12)
    # Where two classes are equally likely, rounding decides between them.
    assert answer["probabilities"][answer["label"]] == max(answer["probabilities"].values())


@pytest.mark.slow
@given(row=number_rows)
def test_one_instance_gets_the_known_answer(numbers: TestClient, row: Row) -> None:
    answer = predict(numbers, row.values)
    check(answer, row)
    assert set(answer) == {"label", "probabilities", "model"}
    assert list(answer["probabilities"]) == list(IRIS_CLASSES)


@pytest.mark.slow
@given(rows=st.lists(mixed_rows, min_size=1, max_size=8))
def test_the_three_shapes_agree(mixed: TestClient, rows: list[Row]) -> None:
    columns = {name: [row.values[name] for row in rows] for name in rows[0].values}

    many = predict(mixed, {"instances": [row.values for row in rows]})["predictions"]
    by_column = predict(mixed, {"columns": columns})

    for index, row in enumerate(rows):
        check(many[index], row)
        one = predict(mixed, row.values)
        assert one["label"] == many[index]["label"] == by_column["labels"][index]
        for name, probability in many[index]["probabilities"].items():
            # The model may round a batch in another order than a row.
            assert probability == pytest.approx(one["probabilities"][name], rel=1e-12)
            assert probability == by_column["probabilities"][name][index]


def test_what_may_be_missing_may_be_left_out(mixed: TestClient) -> None:
    check(predict(mixed, {"age": 30}), mixed_row(None, 30.0, None))
    answer = predict(mixed, {"columns": {"age": [30, 3], "soil type": ["sand", None]}})
    assert answer["labels"] == [mixed_row(None, 30.0, "sand").label, mixed_row(None, 3.0, None).label]


def test_integers_are_numbers(numbers: TestClient) -> None:
    check(
        predict(numbers, {"sepal_length": 5, "sepal_width": 3, "petal_length": 1, "petal_width": 1}),
        number_row((5.0, 3.0, 1.0, 1.0)),
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("true", "must be a number"),
        ('"5.1"', "must be a number"),
        ("null", "must be a number"),
        ("[5.1]", "must be a number"),
        ("{}", "must be a number"),
        ("NaN", "must be finite"),
        ("Infinity", "must be finite"),
        ("-Infinity", "must be finite"),
        ("1e400", "must be finite"),
        ("9" * 400, "must be finite"),
        ("0.99", "must be at least 1 cm"),
        ("12.01", "must be at most 12 cm"),
        ("1" + "0" * 30, "must be at most 12 cm"),
    ],
)
def test_a_bad_number_is_named_in_every_shape(numbers: TestClient, value: str, reason: str) -> None:
    rest = '"sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2'
    bad = f'{{"sepal_length": {value}, {rest}}}'
    columns = (
        f'"sepal_length": [5, {value}], "sepal_width": [3, 3], "petal_length": [1, 1], "petal_width": [1, 1]'
    )

    assert refuse(numbers, bad)["sepal_length"].startswith(reason)
    many = f'{{"instances": [{json.dumps(GOOD)}, {bad}]}}'
    assert refuse(numbers, many)["instances.1.sepal_length"].startswith(reason)
    by_column = refuse(numbers, f'{{"columns": {{{columns}}}}}')
    assert by_column["columns.sepal_length.1"].startswith(reason)


@pytest.mark.parametrize("value", ["chalk", "Clay", 3, True, ["clay"]])
def test_an_unknown_category_is_named_with_the_known_ones(mixed: TestClient, value: object) -> None:
    reasons = refuse(mixed, {"age": 3, "soil type": value})
    assert reasons["soil type"] == "must be 'clay', 'löss & loam' or 'sand'"


def test_every_fault_of_an_instance_is_named(numbers: TestClient) -> None:
    reasons = refuse(numbers, {"sepal_length": "x", "sepal_width": 0, "petal_length": 1, "colour": 1})
    assert set(reasons) == {"sepal_length", "sepal_width", "petal_width", "colour"}
    assert reasons["petal_width"] == "is required"
    assert "unknown" in reasons["colour"]


def test_faults_in_several_rows_are_named_up_to_a_limit(numbers: TestClient) -> None:
    reasons = refuse(numbers, {"instances": [GOOD, {**GOOD, "sepal_width": 0}, 5, GOOD, {}]})
    assert {"instances.1.sepal_width", "instances.2", "instances.4.petal_width"} <= set(reasons)
    assert len(refuse(numbers, {"instances": [{}] * 1000})) == 20
    assert len(refuse(numbers, {f"unknown {index}": 1 for index in range(1000)})) == 20


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"instances": []}, "instances"),
        ({"instances": {}}, "instances"),
        ({"instances": None}, "instances"),
        ({"instances": [GOOD], "more": 1}, "more"),
        ({"more": 1, "instances": [GOOD]}, "more"),
        ({"columns": {}}, "columns.sepal_length"),
        ({"columns": []}, "columns"),
        ({"columns": {name: [] for name in IRIS_FEATURES}}, "columns"),
        ({"columns": dict.fromkeys(IRIS_FEATURES, 1.0)}, "columns.sepal_length"),
        (
            {"columns": {**{name: [1.0, 2.0] for name in IRIS_FEATURES}, "petal_width": [1]}},
            "columns.petal_width",
        ),
        ({"instances": [GOOD], "columns": {}}, "columns"),
        ([GOOD], ""),
        ([], ""),
        ({}, "sepal_length"),
    ],
)
def test_a_wrong_shape_is_explained(numbers: TestClient, body: Any, field: str) -> None:
    assert field in refuse(numbers, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe",
        b'{"\xff": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": 1}{"a": 1}',
        b'{"a": ' + b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"sepal_length": ' + b"9" * 10_000 + b"}",
        b"nul",
        b'"text"',
        b"\x00",
    ],
)
def test_what_is_not_json_is_refused(numbers: TestClient, body: bytes) -> None:
    assert refuse(numbers, body)


def test_equivalent_json_is_treated_equally(numbers: TestClient) -> None:
    plain = predict(numbers, {"instances": [GOOD]})
    escaped = json.dumps({"instances": [GOOD]}).replace("instances", "inst\\u0061nces")
    spaced = json.dumps({"instances": [GOOD]}, indent=4).replace("{", "{\r\n\t")
    for body in (escaped, spaced):
        assert numbers.post("/predict", content=body).json() == plain
    columns = json.dumps({"columns": {name: [value] for name, value in GOOD.items()}})
    assert (
        numbers.post("/predict", content=columns.replace("columns", "c\\u006flumns")).json()
        == numbers.post("/predict", content=columns).json()
    )


def test_of_equal_keys_the_last_counts(numbers: TestClient) -> None:
    body = json.dumps(GOOD)[:-1] + ', "sepal_length": 6.5}'
    check(numbers.post("/predict", content=body).json(), number_row((6.5, 3.5, 1.4, 0.2)))


@pytest.mark.slow
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*IRIS_FEATURES, "instances", "columns"]) | st.text(max_size=3), inner
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_answered_or_refused(numbers: TestClient, body: Any) -> None:
    answer = numbers.post("/predict", content=json.dumps(body))
    assert answer.status_code in {200, 422}
    if answer.status_code == 422:
        assert answer.json()["error"]


@given(body=st.binary(max_size=60))
def test_any_bytes_are_refused(numbers: TestClient, body: bytes) -> None:
    assert numbers.post("/predict", content=body).status_code == 422


def test_values_out_of_range_pass_if_the_schema_says_so(tmp_path: Any, serve: Any) -> None:
    write_number_bundle(tmp_path, out_of_range="accept")
    client = serve(tmp_path)
    row = number_row((-3.0, 100.0, 1.4, 0.2))
    check(predict(client, row.values), row)


def test_values_for_which_the_model_has_no_finite_answer_are_refused(tmp_path: Any, serve: Any) -> None:
    write_number_bundle(tmp_path, out_of_range="accept")
    huge = dict.fromkeys(IRIS_FEATURES, 1.7e308)
    for body in (huge, {"instances": [GOOD, huge]}):
        answer = serve(tmp_path).post("/predict", json=body)
        assert answer.status_code == 422
        assert answer.json()["code"] == "unpredictable"


def test_probabilities_sum_to_one(numbers: TestClient) -> None:
    assert math.isclose(sum(predict(numbers, GOOD)["probabilities"].values()), 1.0, rel_tol=1e-9)


NO_MOMENT = "must be a date and time in ISO 8601, such as 2024-05-01T12:30:00Z"


@pytest.mark.parametrize(
    "value", ["2024-02-30", "tomorrow", "2024", "20240501", 1714566600, 17.5, True, [], {}]
)
def test_what_is_no_date_and_time_is_refused_in_every_shape(mixed: TestClient, value: Any) -> None:
    row = {"age": 3, "sown": value}
    assert refuse(mixed, row) == {"sown": NO_MOMENT}
    assert refuse(mixed, {"instances": [{"age": 3}, row]}) == {"instances.1.sown": NO_MOMENT}
    columns = {"age": [3, 3], "sown": ["2024-05-01", value]}
    assert refuse(mixed, {"columns": columns}) == {"columns.sown.1": NO_MOMENT}
    inputs = [
        {"name": "age", "shape": [1], "datatype": "FP64", "data": [3]},
        {"name": "sown", "shape": [1], "datatype": "BYTES", "data": [value]},
    ]
    answer = mixed.post("/v2/models/plants/infer", json={"inputs": inputs})
    assert (answer.status_code, answer.json()["details"]) == (422, [{"field": "sown.0", "reason": NO_MOMENT}])


@pytest.mark.parametrize(
    "value", [" 2024-05-01T14:30 ", "2024-05-01t12:30:00z", "2024-05-01 08:30:00.0-04:00"]
)
def test_a_moment_may_be_written_in_many_ways(mixed: TestClient, value: str) -> None:
    check(predict(mixed, {"age": 3, "sown": value}), mixed_row(None, 3, None, "2024-05-01T12:30:00+00:00"))


def test_an_empty_text_is_no_moment(mixed: TestClient) -> None:
    check(predict(mixed, {"age": 3, "sown": " "}), mixed_row(None, 3, None))
