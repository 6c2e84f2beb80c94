"""The service with a regression: values and intervals in every shape, on every path, and in metrics and log."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from starlette.testclient import TestClient

from app.contract import MANIFEST_FILE, MODEL_FILE, BundleError, Manifest, ModelFile, sha256
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.processes import Running, running
from tests.app.test_metrics import scrape, value
from tests.bundles import (
    HARVEST,
    PREDICTED,
    ValuedRow,
    harvest_row,
    weight_row,
    write_harvest_bundle,
    write_value_bundle,
)

ROWS = [
    harvest_row(12.0, 3.0, "clay", "2024-05-01T14:30:00Z"),
    harvest_row(None, 30.0, None),
    harvest_row(3.0, 80.0, "sand", "1969-12-31T23:30:00+00:00"),
]
INFER = "/v2/models/harvests/infer"


@pytest.fixture
def harvests(harvest_model: Path, serve: Serve) -> TestClient:
    return serve(harvest_model)


@pytest.fixture(scope="module")
def weights(value_model: Path, serve: Serve) -> TestClient:
    return serve(value_model)


def columns(rows: list[ValuedRow]) -> dict[str, list[Any]]:
    return {name: [row.values[name] for row in rows] for name in rows[0].values}


def tensors(rows: list[ValuedRow]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": "BYTES" if name in ("soil type", "sown") else "FP64",
            "data": values,
        }
        for name, values in columns(rows).items()
    ]


@pytest.mark.parametrize("row", ROWS)
def test_one_row(harvests: TestClient, row: ValuedRow) -> None:
    answer = harvests.post("/predict", json=row.values).json()
    model = harvests.get("/model").json()
    assert answer == {
        "value": row.value,
        "interval": row.interval,
        "model": {"name": "harvests", "version": model["version"]},
    }


def test_one_row_of_numbers(weights: TestClient) -> None:
    row = weight_row((5.1, 3.5, 1.4, 0.2))
    answer = weights.post("/predict", json=row.values).json()
    assert answer["value"] == pytest.approx(row.value, rel=1e-15)
    assert answer["interval"] == pytest.approx(row.interval, rel=1e-15)


@pytest.mark.parametrize("count", [1, 3])
def test_rows_and_columns(harvests: TestClient, count: int) -> None:
    rows = ROWS[:count]
    answer = harvests.post("/predict", json={"instances": [row.values for row in rows]}).json()
    assert list(answer) == ["predictions", "model"]
    assert answer["predictions"] == [{"value": row.value, "interval": row.interval} for row in rows]

    answer = harvests.post("/predict", json={"columns": columns(rows)}).json()
    assert list(answer) == ["values", "intervals", "model"]
    assert answer["values"] == [row.value for row in rows]
    assert answer["intervals"] == [row.interval for row in rows]


def test_float32_is_answered_alike_in_every_shape(tmp_path: Path, serve: Serve) -> None:
    write_value_bundle(tmp_path, single=True)
    client = serve(tmp_path)
    row = weight_row((5.1, 3.5, 1.4, 0.2))
    expected = float(np.float32(row.value))
    assert client.post("/predict", json=row.values).json()["value"] == expected
    answer = client.post("/predict", json={"instances": [row.values] * 2}).json()
    assert [each["value"] for each in answer["predictions"]] == [expected] * 2
    assert client.post("/predict", json={"columns": columns([row] * 2)}).json()["values"] == [expected] * 2


def test_the_protocol_describes_its_tensors(harvests: TestClient) -> None:
    described = harvests.get("/v2/models/harvests").json()
    assert described["outputs"] == [
        {"name": "value", "datatype": "FP64", "shape": [-1]},
        {"name": "interval", "datatype": "FP64", "shape": [-1, 2]},
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_tensors(harvests: TestClient, count: int) -> None:
    rows = ROWS[:count]
    answer = harvests.post(INFER, json={"inputs": tensors(rows)}).json()
    assert answer["outputs"] == [
        {"name": "value", "datatype": "FP64", "shape": [count], "data": [row.value for row in rows]},
        {
            "name": "interval",
            "datatype": "FP64",
            "shape": [count, 2],
            "data": [end for row in rows for end in row.interval],
        },
    ]


def test_binary_tensors(harvests: TestClient) -> None:
    asked = [{"name": "interval"}, {"name": "value", "parameters": {"binary_data": True}}]
    request = {"inputs": tensors(ROWS), "outputs": asked, "parameters": {"binary_data_output": True}}
    answer = harvests.post(INFER, json=request)
    end = int(answer.headers["inference-header-content-length"])
    described = json.loads(answer.content[:end])["outputs"]
    assert [each["name"] for each in described] == ["interval", "value"]
    assert [each["parameters"]["binary_data_size"] for each in described] == [48, 24]
    found = struct.unpack("<9d", answer.content[end:])
    assert list(found) == [end for row in ROWS for end in row.interval] + [row.value for row in ROWS]


def test_outputs_of_a_classification_are_refused(harvests: TestClient) -> None:
    request = {"inputs": tensors(ROWS), "outputs": [{"name": "label"}]}
    refused = harvests.post(INFER, json=request)
    assert refused.status_code == 422
    assert refused.json()["details"] == [
        {"field": "outputs.0.name", "reason": "should be 'value' or 'interval'"}
    ]


class TestWhatIsNotFinite:
    @pytest.fixture
    def huge(self, tmp_path: Path, serve: Serve) -> TestClient:
        write_value_bundle(tmp_path, out_of_range="accept", single=True)
        return serve(tmp_path)

    def test_it_is_refused_in_every_shape_and_not_counted(self, huge: TestClient) -> None:
        good = weight_row((5.1, 3.5, 1.4, 0.2)).values
        bad = good | {"petal_width": 1e300}
        inputs = [
            {"name": name, "shape": [2], "datatype": "FP64", "data": [good[name], bad[name]]} for name in good
        ]
        for row, path, body in (
            (0, "/predict", bad),
            (1, "/predict", {"instances": [good, bad]}),
            (2, "/predict", {"columns": {name: [good[name], good[name], bad[name]] for name in good}}),
            (1, "/v2/models/weights/infer", {"inputs": inputs}),
        ):
            refused = huge.post(path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "unpredictable")
            expected = f"row {row}: the model has no finite answer for these values"
            assert refused.json()["error"] == expected
        series = scrape(huge)
        assert value(series, "model_rejected_total", reason="unpredictable") == 4
        assert value(series, "model_prediction_value_count") == 0


@pytest.mark.parametrize("shape", ["instance", "instances", "columns", "tensors"])
def test_predictions_are_counted_in_the_bins_of_the_target(harvests: TestClient, shape: str) -> None:
    # A value on an edge belongs to the bin above it.
    edges = [harvest_row(20, 0, "clay"), harvest_row(0, 0, "clay")]
    rows = [*ROWS, *edges, harvest_row(40, 0, "sand"), harvest_row(0, 80, "clay")]
    assert [row.value for row in edges] == [-5, 0]
    if shape == "instance":
        bodies: list[Any] = [row.values for row in rows]
    else:
        inputs = {"inputs": tensors(rows)}
        bodies = [{"instances": [row.values for row in rows]}, {"columns": columns(rows)}, inputs]
        bodies = [bodies[["instances", "columns", "tensors"].index(shape)]]
    for body in bodies:
        assert harvests.post(INFER if shape == "tensors" else "/predict", json=body).status_code == 200
    series = scrape(harvests)
    values = np.array([row.value for row in rows])
    expected = np.bincount(np.searchsorted(HARVEST.edges, values, side="right"), minlength=4)
    assert expected.min() >= 1
    for each, number, share in zip(HARVEST.bins, expected, PREDICTED, strict=True):
        assert value(series, "model_predictions_total", **{"class": each.label}) == number
        assert value(series, "model_class_reference_ratio", **{"class": each.label}) == share
    assert value(series, "model_prediction_value_count") == len(rows)
    assert value(series, "model_prediction_value_sum") == pytest.approx(values.sum())
    assert not [name for name, _ in series if "confidence" in name]


def test_without_shares_of_predictions_those_of_the_values_are_the_reference(
    harvest_model: Path, tmp_path: Path, serve: Serve
) -> None:
    document = json.loads((harvest_model / MANIFEST_FILE).read_text(encoding="utf-8"))
    changed = Manifest.model_validate(document | {"predicted": []}).sealed()
    (tmp_path / MODEL_FILE).write_bytes((harvest_model / MODEL_FILE).read_bytes())
    (tmp_path / MANIFEST_FILE).write_text(changed.model_dump_json(), encoding="utf-8")
    series = scrape(serve(tmp_path))
    for each in HARVEST.bins:
        assert value(series, "model_class_reference_ratio", **{"class": each.label}) == each.share


def test_a_class_has_no_value(numbers: TestClient) -> None:
    assert not [name for name, _ in scrape(numbers) if name.startswith("model_prediction_value")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (None, ["id", "row", "time", "model_version", "features", "value", "interval"]),
        ("id,label,value", ["id", "row", "value"]),
        ("interval", ["interval"]),
    ],
)
def test_the_log_has_values_and_intervals(
    harvest_model: Path, serve: Serve, tmp_path: Path, fields: str | None, expected: list[str]
) -> None:
    options = {} if fields is None else {"prediction_log_fields": fields}
    client = serve(harvest_model, prediction_log=str(tmp_path), **options)
    assert client.post("/predict", json=ROWS[0].values).status_code == 200
    assert client.post("/predict", json={"instances": [row.values for row in ROWS[1:]]}).status_code == 200
    client.app.state.prediction_log.close(10)  # type: ignore[attr-defined]
    content = "".join(path.read_text() for path in sorted(tmp_path.glob("*/*.jsonl")))
    lines = [json.loads(line) for line in content.splitlines()]
    assert [list(line) for line in lines] == [expected] * 3
    for line, row in zip(lines, ROWS, strict=True):
        assert line.get("value", row.value) == row.value
        assert line.get("interval", row.interval) == row.interval


@pytest.mark.slow
def test_the_running_service_answers_the_same(harvest_model: Path, harvests: TestClient) -> None:
    """On the connection, through the application and with several workers."""
    bodies = [ROWS[0].values, {"instances": [row.values for row in ROWS] * 100}]
    with running(harvest_model, workers=2) as service:
        for body in bodies:
            assert ask(service, body) == harvests.post("/predict", json=body).json()


def ask(service: Running, body: object) -> Any:
    import urllib.request

    request = urllib.request.Request(
        f"{service.url}/predict", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_model_of_two_columns_is_refused(tmp_path: Path) -> None:
    manifest = write_harvest_bundle(tmp_path)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["numbers"], ["value"])],
        "two",
        [
            helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, 4]),
            helper.make_tensor_value_info("categories", TensorProto.STRING, [None, 1]),
        ],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    file = ModelFile(sha256=sha256(content), bytes=len(content), opset=17)
    changed: Manifest = manifest.model_copy(update={"model": file}).sealed()
    (tmp_path / MODEL_FILE).write_bytes(content)
    (tmp_path / MANIFEST_FILE).write_text(changed.model_dump_json(), encoding="utf-8")
    with pytest.raises(BundleError, match="output value has 4 columns; a regression has one"):
        create_app(Settings(model_dir=tmp_path))
