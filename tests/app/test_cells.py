"""A row of the training data's source is a request: what training reads as missing or as text, the service does too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.contract import MANIFEST_FILE, Manifest
from tests.app.conftest import Serve
from tests.bundles import Row, mixed_row, write_mixed_bundle

INFER = "/v2/models/plants/infer"
SHAPES = ("instance", "instances", "columns", "tensors")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose source wrote ?, n/a, -999 and sand for values that are missing; sand is a category, too."""
    directory = tmp_path_factory.mktemp("source")
    document = write_mixed_bundle(directory).model_dump(mode="json")
    document["cells"]["missing"] = ["?", "n/a", "-999", "sand"]
    sealed = Manifest.model_validate(document).sealed()
    (directory / MANIFEST_FILE).write_text(sealed.model_dump_json(), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def client(source: Path, serve: Serve) -> TestClient:
    return serve(source)


def ask(client: TestClient, shape: str, values: dict[str, Any]) -> Any:
    """The answer to two equal rows in a shape, or to one."""
    if shape == "tensors":
        kinds = {"soil type": "BYTES"}
        inputs = [
            {"name": name, "shape": [2], "datatype": kinds.get(name, "FP64"), "data": [value, value]}
            for name, value in values.items()
        ]
        return client.post(INFER, json={"inputs": inputs})
    bodies = {
        "instance": values,
        "instances": {"instances": [values, values]},
        "columns": {"columns": {name: [value, value] for name, value in values.items()}},
    }
    return client.post("/predict", content=json.dumps(bodies[shape]))


def check(answer: Any, row: Row) -> None:
    assert answer.status_code == 200, answer.text
    content = answer.json()
    if "outputs" in content:
        probabilities = content["outputs"][1]["data"][:2]
    elif "predictions" in content:
        probabilities = list(content["predictions"][1]["probabilities"].values())
    elif "labels" in content:
        probabilities = [each[1] for each in content["probabilities"].values()]
    else:
        probabilities = list(content["probabilities"].values())
    assert probabilities == pytest.approx(list(row.probabilities.values()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("values", "row"),
    [
        ({"Höhe (cm)": 12, "soil type": "  clay\t", "age": 3}, (12.0, 3.0, "clay")),
        ({"Höhe (cm)": 12, "soil type": "\u00a0löss & loam ", "age": 3}, (12.0, 3.0, "löss & loam")),
        ({"Höhe (cm)": "?", "soil type": " n/a ", "age": 3}, (None, 3.0, None)),
        ({"Höhe (cm)": "", "soil type": " ", "age": 3}, (None, 3.0, None)),
        ({"Höhe (cm)": -999, "soil type": -999, "age": 3}, (None, 3.0, None)),
        ({"Höhe (cm)": -999.0, "soil type": "-999", "age": 3}, (None, 3.0, None)),
        # A declared category is a value, even if it is a word for missing elsewhere.
        ({"Höhe (cm)": "sand", "soil type": "sand", "age": 3}, (None, 3.0, "sand")),
    ],
)
def test_a_row_of_the_source_is_a_request(
    client: TestClient, shape: str, values: dict[str, Any], row: tuple[Any, ...]
) -> None:
    check(ask(client, shape, values), mixed_row(*row))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("age", "?", "must be a number"),
        ("age", "", "must be a number"),
        ("age", "3", "must be a number"),
        ("age", True, "must be a number"),
        ("age", -999, "must be at least 0 weeks"),
        ("Höhe (cm)", "12", "must be a number"),
        ("Höhe (cm)", "??", "must be a number"),
        ("soil type", "Clay", "must be 'clay', 'löss & loam' or 'sand'"),
        ("soil type", True, "must be 'clay', 'löss & loam' or 'sand'"),
    ],
)
def test_anything_else_is_refused_as_before(
    client: TestClient, shape: str, name: str, value: Any, reason: str
) -> None:
    values = {"Höhe (cm)": 12, "soil type": "clay", "age": 3} | {name: value}
    answer = ask(client, shape, values)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_words_of_the_source_are_no_words_of_other_models(mixed: TestClient) -> None:
    assert ask(mixed, "instance", {"soil type": "?", "age": 3}).status_code == 422


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("value", [True, "true", " true "])
def test_booleans_are_the_categories_true_and_false(
    tmp_path: Path, serve: Serve, shape: str, value: object
) -> None:
    write_mixed_bundle(tmp_path, ("false", "true", "2"), (0.5, 0.2, 0.2, 0.1))
    client = serve(tmp_path)
    same = ask(client, shape, {"soil type": "true", "age": 3}).content
    assert ask(client, shape, {"soil type": value, "age": 3}).content == same
    assert ask(client, shape, {"soil type": 2.0, "age": 3}).status_code == 200


def test_a_number_beyond_any_range_is_missing_on_every_way(tmp_path: Path, serve: Serve) -> None:
    """Where values beyond the range pass, the word for missing must not pass as a value."""
    document = write_mixed_bundle(tmp_path).model_dump(mode="json")
    document["cells"]["missing"] = ["-999"]
    document["out_of_range"] = "accept"
    sealed = Manifest.model_validate(document).sealed()
    (tmp_path / MANIFEST_FILE).write_text(sealed.model_dump_json(), encoding="utf-8")
    client = serve(tmp_path)
    for shape in SHAPES:
        check(
            ask(client, shape, {"Höhe (cm)": -999, "soil type": "clay", "age": 3}),
            mixed_row(None, 3.0, "clay"),
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_unknown_fields_may_be_ignored(
    mixed_model: Path, mixed: TestClient, serve: Serve, shape: str
) -> None:
    values = {"Höhe (cm)": 12, "soil type": "clay", "age": 3, "ripe": 1.0, "note": 2.0}
    refused = ask(mixed, shape, values)
    assert refused.status_code == 422
    client = serve(mixed_model, unknown_fields="ignore")
    check(ask(client, shape, values), mixed_row(12.0, 3.0, "clay"))
    # What is needed is needed still.
    del values["age"]
    assert "age" in ask(client, shape, values).json()["error"]
    assert ask(client, shape, {"ripe": 1}).status_code == 422


def test_ignored_tensors_may_be_binary(mixed_model: Path, serve: Serve) -> None:
    client = serve(mixed_model, unknown_fields="ignore")
    size = {"binary_data_size": 3}
    inputs = [
        {"name": "ripe", "shape": [1], "datatype": "BYTES", "parameters": size},
        {"name": "age", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}},
    ]
    head = json.dumps({"inputs": inputs}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(INFER, content=head + b"yes\x08", headers=length)
    assert answer.json()["outputs"][0]["data"] == [mixed_row(None, 8.0, None).label]


@pytest.mark.parametrize(
    "parameters",
    [
        {"binary_data_size": 99},
        {"binary_data_size": "x"},
        {"classification": 1},
        {"shared_memory_region": "x"},
    ],
)
def test_the_name_of_an_ignored_tensor_makes_no_series(
    mixed_model: Path, serve: Serve, parameters: dict[str, object]
) -> None:
    client = serve(mixed_model, unknown_fields="ignore")
    before = client.get("/metrics").text.count("model_rejected_fields_total{")
    inputs = [
        {"name": "made up", "shape": [1], "datatype": "FP64", "parameters": parameters},
        {"name": "age", "shape": [1], "datatype": "FP64", "data": [3.0]},
    ]
    assert client.post(INFER, json={"inputs": inputs}).status_code == 422
    after = client.get("/metrics").text
    assert "made up" not in after
    assert after.count("model_rejected_fields_total{") == before


def test_ignoring_unknown_fields_does_not_change_the_shape(mixed_model: Path, serve: Serve) -> None:
    """The order of the keys, and how they are escaped, say nothing about what a body is."""
    client = serve(mixed_model, unknown_fields="ignore")
    many = '"instances": [{"age": 3}, {"age": 4}]'
    for body in (
        f'{{{many}, "age": 3}}',
        f'{{"age": 3, {many}}}',
        f'{{"age": 3, {many}}}'.replace("in", "\\u0069n"),
    ):
        answer = client.post("/predict", content=body)
        assert answer.status_code == 422, body
        assert "age: is unknown" in answer.json()["error"]
    columns = '{"age": 3, "columns": {"age": [3]}}'
    assert client.post("/predict", content=columns).status_code == 422
    nested = '{"instances": [{"age": 3, "instances": 1}]}'
    assert client.post("/predict", content=nested).status_code == 200


def test_a_bundle_from_before_is_served(mixed_model: Path, tmp_path: Path, serve: Serve) -> None:
    """The manifest says how cells were read only since then, and its digest covers all that it says."""
    document = json.loads((mixed_model / MANIFEST_FILE).read_text(encoding="utf-8"))
    document.pop("cells", None)
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "model.onnx").write_bytes((mixed_model / "model.onnx").read_bytes())
    assert ask(serve(tmp_path), "instance", {"soil type": " clay", "age": 3}).status_code == 200
