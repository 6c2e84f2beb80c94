"""What `python -m app.batch` answers is what `/predict` answers to the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.batch.errors import PartError
from app.batch.scoring import Options, Scorer
from app.contract import read_bundle
from tests.app.conftest import Serve
from tests.bundles import IRIS_FEATURES, SOILS

HEIGHT, AGE, SOIL, SOWN = "Höhe (cm)", "age", "soil type", "sown"
FLOATS: Any = pa.float64()


def scored(scorer: Scorer, table: Any) -> list[dict[str, Any]]:
    part = scorer.part(table.schema)
    batches = [part.score(each) for each in table.to_batches()]
    rows: list[dict[str, Any]] = pa.Table.from_batches(batches, part.schema).to_pylist()
    return rows


def agrees(row: dict[str, Any], instance: dict[str, Any], client: TestClient) -> bool:
    """Whether a result is what the service answers to an instance: values that are None are left out or null."""
    answer = client.post("/predict", json=instance)
    found = answer.json()
    if answer.status_code == 422:
        if not found["details"]:
            assert found["error"].endswith(row["error"])
        else:
            assert row["error"] in {f"{each['field']}: {each['reason']}" for each in found["details"]}
        assert all(
            row[name] is None for name in row if name.startswith(("label", "prob", "value", "interval"))
        )
        return True
    assert answer.status_code == 200
    assert row["error"] is None
    if "label" in found:
        own = {name: row[f"probability_{name}"] for name in found["probabilities"]}
        assert row["label"] == found["label"]
        assert own == pytest.approx(found["probabilities"], rel=1e-12)
    else:
        assert row["value"] == pytest.approx(found["value"], rel=1e-12)
        assert [row["interval_low"], row["interval_high"]] == pytest.approx(found["interval"], rel=1e-12)
    assert {"name": row["model"], "version": row["model_version"]} == found["model"]
    return True


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """A row as a client sends it; a column of float64 holds a missing value as NaN."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


number = st.one_of(st.none(), st.just(math.nan), st.floats(-50, 150), st.sampled_from([0.0, 100.0, 1e300]))
moment = st.one_of(
    st.none(),
    st.sampled_from(
        ["2024-05-01", "2024-05-01T14:30:00+02:00", " 2024-03-31T02:30", "yesterday", "", "2024-13-01"]
    ),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(datetime.isoformat),
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            HEIGHT: number,
            AGE: number,
            SOIL: st.one_of(st.none(), st.sampled_from([*SOILS, "", " clay ", "mud"])),
            SOWN: moment,
        }
    ),
    min_size=1,
    max_size=8,
)
TYPES = {HEIGHT: FLOATS, AGE: FLOATS, SOIL: pa.string(), SOWN: pa.string()}


def table_of(instances: Sequence[dict[str, Any]], types: dict[str, Any]) -> Any:
    return pa.table(
        {name: pa.array([each[name] for each in instances], kind) for name, kind in types.items()}
    )


@pytest.fixture(scope="module")
def harvests(harvest_model: Path, serve: Serve) -> TestClient:
    return serve(harvest_model)


@given(rows)
def test_classes_are_those_of_the_service(
    mixed_model: Path, mixed: TestClient, instances: list[dict[str, Any]]
) -> None:
    results = scored(Scorer(read_bundle(mixed_model), Options()), table_of(instances, TYPES))
    assert all(agrees(row, plain(each), mixed) for row, each in zip(results, instances, strict=True))


@given(rows)
def test_values_are_those_of_the_service(
    harvest_model: Path, harvests: TestClient, instances: list[dict[str, Any]]
) -> None:
    results = scored(Scorer(read_bundle(harvest_model), Options()), table_of(instances, TYPES))
    assert all(agrees(row, plain(each), harvests) for row, each in zip(results, instances, strict=True))


@given(st.lists(st.lists(st.integers(0, 90), min_size=4, max_size=4), min_size=1, max_size=5))
@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.int64(),
        pa.uint16(),
        pa.float16(),
        pa.float32(),
        pa.decimal128(5, 1),
        pa.dictionary(pa.int8(), FLOATS),
    ],
    ids=str,
)
def test_every_type_of_number(
    number_model: Path, numbers: TestClient, kind: Any, values: list[list[int]]
) -> None:
    tenth = not (pa.types.is_integer(kind) or pa.types.is_dictionary(kind))
    instances: list[dict[str, float]] = []
    columns: dict[str, Any] = {}
    for place, name in enumerate(IRIS_FEATURES):
        column = [Decimal(each[place]) / (10 if tenth else 1) for each in values]
        if pa.types.is_decimal(kind):
            columns[name] = pa.array(column, kind)
        elif pa.types.is_dictionary(kind):
            columns[name] = pa.array(map(float, column), FLOATS).dictionary_encode()
        else:
            columns[name] = pa.array(map(float, column), FLOATS).cast(kind, safe=False)
    table = pa.table(columns)
    instances = [{name: float(value) for name, value in row.items()} for row in table.to_pylist()]
    results = scored(Scorer(read_bundle(number_model), Options()), table)
    assert all(agrees(row, each, numbers) for row, each in zip(results, instances, strict=True))


def test_numbers_that_are_not_finite_are_named(number_model: Path, numbers: TestClient) -> None:
    values = [math.inf, -math.inf, math.nan, None, 1e400, 5.1]
    table = pa.table({name: pa.array(values, FLOATS) for name in IRIS_FEATURES})
    errors = [each["error"] for each in scored(Scorer(read_bundle(number_model), Options()), table)]
    assert errors[:2] == ["sepal_length: must be finite, neither NaN nor infinite"] * 2
    assert errors[2:4] == ["sepal_length: is required"] * 2


def test_rows_without_a_finite_answer_are_named(value_model: Path, tmp_path: Path) -> None:
    from tests.bundles import write_value_bundle

    write_value_bundle(tmp_path, out_of_range="accept")
    columns: dict[str, list[float]] = {name: [1.0, 1e308, 2.0] for name in IRIS_FEATURES}
    results = scored(Scorer(read_bundle(tmp_path), Options()), pa.table(columns))
    assert [each["error"] for each in results] == [
        None,
        "the model has no finite answer for these values",
        None,
    ]
    assert [each["value"] for each in results] == [-6, None, -2]


@pytest.mark.parametrize("encoded", [False, True])
def test_texts_of_categories_may_be_encoded(mixed_model: Path, mixed: TestClient, encoded: bool) -> None:
    instances = [{AGE: 3.0, SOIL: each} for each in [*SOILS, None, "mud", "", "sand "]]
    column = pa.array([each[SOIL] for each in instances])
    table = pa.table({AGE: [3.0] * 7, SOIL: column.dictionary_encode() if encoded else column})
    results = scored(Scorer(read_bundle(mixed_model), Options()), table)
    assert all(agrees(row, plain(each), mixed) for row, each in zip(results, instances, strict=True))


@pytest.mark.parametrize(
    ("soils", "values", "expected"),
    [
        (("1", "2", "3"), pa.array([1, 2, 9, None]), ["1", "2", None, ""]),
        (("1", "2.5", "3"), pa.array([1.0, 2.5, 9.0, math.nan]), ["1", "2.5", None, ""]),
        (
            ("1", "2.5", "3"),
            pa.array([Decimal("1.00"), Decimal("2.50"), Decimal(9), None]),
            ["1", "2.5", None, ""],
        ),
        (("true", "false", "maybe"), pa.array([True, False, None]), ["true", "false", ""]),
    ],
    ids=["integers", "floats", "decimals", "booleans"],
)
def test_other_categories_are_read_as_in_training(
    tmp_path: Path, soils: tuple[str, ...], values: Any, expected: list[str | None]
) -> None:
    from tests.bundles import write_mixed_bundle

    write_mixed_bundle(tmp_path, soils)
    scorer = Scorer(read_bundle(tmp_path), Options())

    def answers(column: Any) -> list[dict[str, Any]]:
        return scored(scorer, pa.table({AGE: [3.0] * len(column), SOIL: column}))

    texts = pa.array(["unknown" if each is None else each for each in expected])
    assert answers(values) == answers(texts)
    assert [each["error"] is None for each in answers(values)] == [each is not None for each in expected]


MOMENTS = [
    datetime(2024, 5, 1, 14, 30),
    datetime(1969, 12, 31, 23, 59, 59, 999_999),
    datetime(2024, 3, 31, 2, 30),
]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_moments_in_every_unit(mixed_model: Path, mixed: TestClient, unit: str, zone: str | None) -> None:
    column = pa.array([*MOMENTS, None], pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone), safe=False)
    table = pa.table({AGE: [3.0] * 4, SOWN: column})
    texts = [
        None if each is None else each.isoformat()
        for each in column.cast(pa.timestamp("us", zone)).to_pylist()
    ]
    results = scored(Scorer(read_bundle(mixed_model), Options()), table)
    assert all(
        agrees(row, plain({AGE: 3.0, SOWN: text}), mixed) for row, text in zip(results, texts, strict=True)
    )


def test_dates_and_moments_beyond_those_of_python(mixed_model: Path, mixed: TestClient) -> None:
    scorer = Scorer(read_bundle(mixed_model), Options())
    dates = pa.array([date(2024, 5, 1), None])
    results = scored(scorer, pa.table({AGE: [3.0] * 2, SOWN: dates}))
    assert agrees(results[0], {AGE: 3.0, SOWN: "2024-05-01"}, mixed)
    far = pa.array([10**12, 0], pa.int64()).cast(pa.timestamp("s"))
    results = scored(scorer, pa.table({AGE: [3.0] * 2, SOWN: far}))
    assert agrees(results[0], {AGE: 3.0, SOWN: "33658-09-27"}, mixed)
    assert results[1]["error"] is None
    before = datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    cut = pa.array([-1], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    results = scored(scorer, pa.table({AGE: [3.0], SOWN: cut}))
    assert agrees(results[0], {AGE: 3.0, SOWN: before.isoformat()}, mixed)


def test_features_that_may_be_missing_need_no_column(mixed_model: Path, mixed: TestClient) -> None:
    (row,) = scored(Scorer(read_bundle(mixed_model), Options()), pa.table({AGE: [3], "other": ["x"]}))
    assert agrees(row, {AGE: 3.0}, mixed)
    (row,) = scored(Scorer(read_bundle(mixed_model), Options()), pa.table({AGE: pa.nulls(1)}))
    assert row["error"] == "age: is required"


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({HEIGHT: [1.0]}, "it has no column age"),
        ({AGE: ["3"]}, "the column age is of type string, but the feature is a number"),
        ({AGE: [True]}, "the column age is of type bool, but the feature is a number"),
        ({AGE: [[3.0]]}, "the column age is of type list<.*>, but the feature is a number"),
        ({AGE: [3.0], SOWN: [20240501]}, "the column sown is of type int64, but the feature is a datetime"),
        (
            {AGE: [3.0], SOIL: [date(2024, 5, 1)]},
            "the column soil type is of type date32.*, but the feature is a category",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(
    mixed_model: Path, columns: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PartError, match=complaint):
        Scorer(read_bundle(mixed_model), Options()).part(pa.table(columns).schema)


def test_a_column_that_is_there_twice_is_named(mixed_model: Path) -> None:
    table = pa.Table.from_arrays([pa.array([3.0]), pa.array([4.0])], names=[AGE, AGE])
    with pytest.raises(PartError, match="it has 2 columns age"):
        Scorer(read_bundle(mixed_model), Options()).part(table.schema)
