"""What `/metrics` says after what was predicted and refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.contract import MANIFEST_FILE, Manifest, read_bundle
from app.errors import REASONS
from app.metrics import CONFIDENCE, ModelMetrics
from app.schema import Rows
from app.tally import CONFIDENCE_BUCKETS
from tests.app.conftest import Serve
from tests.bundles import (
    RESERVED_SOILS,
    mixed_row,
    number_row,
    write_mixed_bundle,
    write_number_bundle,
)

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: TestClient) -> Series:
    return parse(client.get("/metrics").text)


def parse(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


@pytest.fixture
def fresh(mixed_model: Path, serve: Serve) -> TestClient:
    return serve(mixed_model)


def test_every_series_exists_before_the_first_request(fresh: TestClient, mixed_model: Path) -> None:
    series = scrape(fresh)
    manifest = read_bundle(mixed_model).manifest
    for feature in manifest.features:
        for each in feature.bins:
            assert value(series, "model_feature_bin_total", feature=feature.name, bin=each.label) == 0
            share = value(series, "model_feature_reference_ratio", feature=feature.name, bin=each.label)
            assert share == each.share
    for name in manifest.classes:
        assert value(series, "model_predictions_total", **{"class": name}) == 0
        assert value(series, "model_class_reference_ratio", **{"class": name}) == 0.5
    for reason in REASONS:
        assert value(series, "model_rejected_total", reason=reason) == 0
    assert value(series, "model_prediction_confidence_count") == 0


def test_the_model_is_named(fresh: TestClient, mixed_model: Path) -> None:
    (labels,) = [dict(labels) for (name, labels) in scrape(fresh) if name == "model_info"]
    manifest = read_bundle(mixed_model).manifest
    assert (labels["name"], labels["version"]) == (manifest.name, manifest.version)
    assert (labels["digest"], labels["algorithm"]) == (manifest.digest, manifest.algorithm)


@pytest.mark.parametrize("shape", ["instance", "instances", "columns"])
def test_predictions_are_counted_alike_in_every_shape(fresh: TestClient, shape: str) -> None:
    rows = [mixed_row(4.9, 3.0, "clay"), mixed_row(5.0, 8.0, None), mixed_row(None, 7.9, "sand")]
    values = [row.values for row in rows]
    columns = {name: [each[name] for each in values] for name in values[0]}
    bodies: dict[str, list[Any]] = {
        "instance": values,
        "instances": [{"instances": values}],
        "columns": [{"columns": columns}],
    }
    for body in bodies[shape]:
        assert fresh.post("/predict", json=body).status_code == 200

    series = scrape(fresh)

    def bins(feature: str, *names: str) -> list[float]:
        return [value(series, "model_feature_bin_total", feature=feature, bin=name) for name in names]

    # A value on an edge belongs to the bin above it.
    assert bins("Höhe (cm)", "low", "middle", "high", "missing") == [1, 1, 0, 1]
    assert bins("age", "young", "old") == [2, 1]
    assert bins("soil type", "clay", "löss & loam", "sand", "missing") == [1, 0, 1, 1]
    for name in ("no", "yes"):
        expected = sum(row.label == name for row in rows)
        assert value(series, "model_predictions_total", **{"class": name}) == expected
    assert value(series, "model_prediction_confidence_count") == 3
    total = sum(max(row.probabilities.values()) for row in rows)
    assert value(series, "model_prediction_confidence_sum") == pytest.approx(total)


def test_a_category_with_a_reserved_name_has_a_bin_of_its_own(tmp_path: Path, serve: Serve) -> None:
    write_mixed_bundle(tmp_path, RESERVED_SOILS, shares=(0.3, 0.2, 0.2, 0.1, 0.1, 0.1))
    client = serve(tmp_path)
    for times, soil in enumerate((*RESERVED_SOILS, None), 1):
        row = {"age": 3, "soil type": soil}
        assert client.post("/predict", json={"instances": [row] * times}).status_code == 200
    seen, reference = (
        {
            dict(labels)["bin"]: number
            for (name, labels), number in scrape(client).items()
            if name == wanted and dict(labels)["feature"] == "soil type"
        }
        for wanted in ("model_feature_bin_total", "model_feature_reference_ratio")
    )
    names = ["'missing'", "other", "''missing''", " missing", "Missing", "missing"]
    assert seen == dict(zip(names, range(1, 7), strict=True))
    assert reference == dict(zip(names, (0.3, 0.2, 0.2, 0.1, 0.1, 0.1), strict=True))


def test_many_confidences_are_observed_as_if_one_by_one(number_model: Path) -> None:
    manifest = read_bundle(number_model).manifest
    generator = np.random.default_rng(3)
    # Among them the buckets' own bounds, and a sum that rounding took beyond 1.
    tops = np.concatenate([generator.uniform(0.34, 1, 200), [0.4, 0.5, 0.9, 0.99, 1.0, 1.0000001]])
    labels = np.zeros(len(tops), dtype=np.int64)
    numbers = np.full((len(tops), 4), 3.0)

    at_once, one_by_one = CollectorRegistry(), CollectorRegistry()
    ModelMetrics(manifest, at_once).count(Rows(numbers, None), labels, tops)
    # The client library's own histogram, one value at a time.
    expected = Histogram(CONFIDENCE, "", buckets=CONFIDENCE_BUCKETS, registry=one_by_one)
    for top in tops:
        expected.observe(min(top, 1.0))

    for sample in next(f for f in at_once.collect() if f.name == CONFIDENCE).samples:
        other = one_by_one.get_sample_value(sample.name, sample.labels)
        assert sample.value == pytest.approx(other, rel=1e-12)


FIELD_FAULTS = {
    "age": {"missing_field", "wrong_type", "wrong_shape", "unsupported", "not_finite", "out_of_range"},
    "Höhe (cm)": {"missing_field", "wrong_type", "wrong_shape", "unsupported", "not_finite", "out_of_range"},
    "soil type": {"missing_field", "wrong_type", "wrong_shape", "unsupported", "unknown_category"},
    "sown": {"missing_field", "wrong_type", "wrong_shape", "unsupported"},
    "other": {"missing_field", "wrong_type", "wrong_shape", "unsupported", "unknown_field"},
}


def rejected_fields(series: Series) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["field"], dict(labels)["reason"]): number
        for (name, labels), number in series.items()
        if name == "model_rejected_fields_total"
    }


def test_faults_of_fields_exist_from_the_start(fresh: TestClient) -> None:
    assert rejected_fields(scrape(fresh)) == {
        (field, reason): 0 for field, reasons in FIELD_FAULTS.items() for reason in reasons
    }


def test_where_nothing_is_out_of_range_no_series_says_so(
    tmp_path: Path, serve: Serve, fresh: TestClient
) -> None:
    write_number_bundle(tmp_path, out_of_range="accept")
    assert "out_of_range" not in {reason for _, reason in rejected_fields(scrape(serve(tmp_path)))}


def tensor(name: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": "FP64", "data": data, **more}


@pytest.mark.parametrize(
    ("path", "body", "counted"),
    [
        ("predict", {}, {("age", "missing_field")}),
        (
            "predict",
            {"age": "x", "soil type": "chalk"},
            {("age", "wrong_type"), ("soil type", "unknown_category")},
        ),
        ("predict", {"age": 1, "colour": 2}, {("other", "unknown_field")}),
        ("predict", [], {("other", "wrong_shape")}),
        ("predict", {"instances": [{"age": 101}, {"age": 102}, {"age": 1}]}, {("age", "out_of_range")}),
        ("predict", {"instances": [3]}, {("other", "wrong_shape")}),
        ("predict", {"columns": {"age": [1, 2], "Höhe (cm)": [1]}}, {("Höhe (cm)", "wrong_shape")}),
        ("predict", {"columns": {"age": [1, "x"]}}, {("age", "wrong_type")}),
        ("infer", {"inputs": [tensor("age", [1.0, 101.0])]}, {("age", "out_of_range")}),
        ("infer", {"inputs": [tensor("age", [1.0], datatype="BYTES")]}, {("age", "wrong_type")}),
        ("infer", {"inputs": [tensor("age", [1.0], shape=[2])]}, {("age", "wrong_shape")}),
        ("infer", {"inputs": [tensor("age", [1.0]), tensor("age", [1.0])]}, {("age", "wrong_shape")}),
        ("infer", {"inputs": [tensor("colour", [1.0])]}, {("other", "unknown_field")}),
        ("infer", {"inputs": []}, {("other", "wrong_shape")}),
        (
            "infer",
            {"inputs": [tensor("age", [1.0], parameters={"shared_memory_region": "x"})]},
            {("age", "unsupported")},
        ),
    ],
)
def test_refusals_are_counted_by_field(
    fresh: TestClient, path: str, body: Any, counted: set[tuple[str, str]]
) -> None:
    url = {"predict": "/predict", "infer": "/v2/models/plants/infer"}[path]
    assert fresh.post(url, json=body).status_code == 422
    found = {key: number for key, number in rejected_fields(scrape(fresh)).items() if number}
    # Once a request, in however many rows.
    assert found == dict.fromkeys(counted, 1)


def test_a_feature_named_other_is_told_from_what_is_no_feature(tmp_path: Path, serve: Serve) -> None:
    manifest = json.loads(write_mixed_bundle(tmp_path).model_dump_json().replace('"age"', '"other"'))
    sealed = Manifest.model_validate(manifest).sealed()
    (tmp_path / MANIFEST_FILE).write_text(sealed.model_dump_json())
    client = serve(tmp_path)
    for body in ({"other": "x"}, {"other": 1, "colour": 2}, {"other": 1, "'other'": 2}):
        assert client.post("/predict", json=body).status_code == 422
    found = {key: number for key, number in rejected_fields(scrape(client)).items() if number}
    assert found == {("'other'", "wrong_type"): 1, ("other", "unknown_field"): 2}


@pytest.mark.slow
@given(
    body=st.recursive(
        st.none() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["age", "instances", "columns", "soil type", "sown"]) | st.text(),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_no_client_can_grow_the_series(mixed: TestClient, body: Any) -> None:
    mixed.post("/predict", content=json.dumps(body))
    mixed.post("/v2/models/plants/infer", content=json.dumps({"inputs": body}))
    for field, reason in rejected_fields(scrape(mixed)):
        assert reason in FIELD_FAULTS[field]


def test_methods_and_paths_of_a_client_make_no_series(fresh: TestClient) -> None:
    def names() -> set[object]:
        return {key for key in scrape(fresh) if key[0].startswith("http_")}

    paths = [
        "/",
        "/model",
        "/docs",
        "/v2",
        "/v2/models/plants",
        "/v2/models/plants/versions/1",
        "/nothing",
        "/%ff",
    ]
    paths += ["/predict", "/v2/models/plants/infer"]
    for path in paths:
        for method in ("GET", "POST", "HEAD"):
            fresh.request(method, path)
    for path in ("/model", "/nothing"):
        fresh.request("PUT", path)
    known = names()
    for path in (*paths, "/elsewhere", "//", "/metrics/"):
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "anything"):
            assert fresh.request(method, path).status_code in {404, 405}
    assert names() == known
    assert value(scrape(fresh), "http_requests_total", method="other", status="405", handler="none") > 70


def test_the_ages_are_told_if_they_are_known(number_model: Path, serve: Serve) -> None:
    assert "_timestamp_seconds" not in serve(number_model).get("/metrics").text
    series = scrape(serve(number_model, model_created=1700000000, data_created=1600000000))
    assert value(series, "model_created_timestamp_seconds") == 1700000000
    assert value(series, "model_data_timestamp_seconds") == 1600000000


def test_the_process_is_measured(fresh: TestClient) -> None:
    series = scrape(fresh)
    assert value(series, "process_resident_memory_bytes") > 10_000_000
    assert value(series, "process_open_fds") < value(series, "process_max_fds")
    assert value(series, "process_cpu_seconds_total") > 0
    assert abs(value(series, "process_start_time_seconds") - psutil.Process().create_time()) < 5


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{", "invalid_json"),
        ("[]", "wrong_shape"),
        ("{}", "missing_field"),
        ('{"age": 1, "colour": 2}', "unknown_field"),
        ('{"age": "old"}', "wrong_type"),
        ('{"age": 1e400}', "not_finite"),
        ('{"age": 101}', "out_of_range"),
        ('{"age": 1, "soil type": "chalk"}', "unknown_category"),
        (" " * 2_000_000, "too_large"),
    ],
)
def test_refusals_are_counted_by_reason(fresh: TestClient, body: str, reason: str) -> None:
    fresh.post("/predict", content=body)
    series = scrape(fresh)
    counted = {
        dict(labels)["reason"]: number
        for (name, labels), number in series.items()
        if name == "model_rejected_total" and number
    }
    assert counted == {reason: 1}
    assert value(series, "model_prediction_confidence_count") == 0


def test_requests_are_counted_by_handler_and_status_without_probes(fresh: TestClient) -> None:
    fresh.post("/predict", json={"age": 3})
    fresh.post("/predict", json={})
    fresh.get("/v2/models/plants")
    fresh.get("/health/live")
    fresh.get("/nowhere/1")
    text = fresh.get("/metrics").text
    series = parse(text)
    count = "http_requests_total"
    assert value(series, count, handler="/predict", method="POST", status="200") == 1
    assert value(series, count, handler="/predict", method="POST", status="422") == 1
    assert value(series, count, handler="/v2/models/{model_name}", method="GET", status="200") == 1
    # Paths that do not exist share one series, or clients could grow their number.
    assert value(series, count, handler="none", method="GET", status="404") == 1
    assert "/health" not in text
    assert not re.search(r"^\w+_created", text, re.MULTILINE)


def test_applications_do_not_share_counts(number_model: Path, serve: Serve) -> None:
    first, second = serve(number_model), serve(number_model)
    first.post("/predict", json=number_row((5.1, 3.5, 1.4, 0.2)).values)
    assert value(scrape(first), "model_predictions_total", **{"class": "setosa"}) == 1
    assert value(scrape(second), "model_predictions_total", **{"class": "setosa"}) == 0
