"""The Open Inference Protocol: by hand, and through the client that most people use."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from tests.app.conftest import Serve
from tests.app.processes import running
from tests.bundles import IRIS_CLASSES, IRIS_FEATURES, SOILS, mixed_row, number_row, write_number_bundle

ROWS = [(5.1, 3.5, 1.4, 0.2), (6.9, 3.1, 5.4, 2.1)]
INFER = "/v2/models/iris/infer"
MIXED = "/v2/models/plants/infer"


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> TestClient:
    """A model that takes any number."""
    directory = tmp_path_factory.mktemp("loose")
    write_number_bundle(directory, out_of_range="accept")
    return serve(directory)


def tensor(name: str, data: list[Any], datatype: str = "FP64", **changes: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **changes}


def iris_inputs(rows: Sequence[tuple[float, ...]] = ROWS) -> list[dict[str, Any]]:
    columns = zip(*rows, strict=True)
    return [tensor(name, list(column)) for name, column in zip(IRIS_FEATURES, columns, strict=True)]


def outputs(client: TestClient, path: str, **request: Any) -> dict[str, Any]:
    answer = client.post(path, json=request)
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.json()["outputs"]}


def refusal(client: TestClient, path: str, request: Any, **headers: str) -> str:
    content = request if isinstance(request, bytes) else json.dumps(request)
    answer = client.post(path, content=content, headers=headers)
    assert answer.status_code == 422, answer.text
    return str(answer.json()["error"])


def test_metadata_describes_server_and_model(numbers: TestClient, mixed: TestClient) -> None:
    assert "binary_tensor_data" in numbers.get("/v2").json()["extensions"]
    model = mixed.get("/v2/models/plants").json()
    assert [(each["name"], each["datatype"]) for each in model["inputs"]] == [
        ("Höhe (cm)", "FP64"),
        ("soil type", "BYTES"),
        ("age", "FP64"),
        ("sown", "BYTES"),
    ]
    assert model["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    (version,) = model["versions"]
    assert mixed.get(f"/v2/models/plants/versions/{version}").json() == model
    assert mixed.get(f"/v2/models/plants/versions/{version}/ready").json() == {
        "name": "plants",
        "ready": True,
    }


@pytest.mark.parametrize("path", ["tulips", "iris/versions/1", "tulips/ready", "iris/versions/1/ready"])
def test_other_models_and_versions_are_404(numbers: TestClient, path: str) -> None:
    assert numbers.get(f"/v2/models/{path}").status_code == 404
    assert numbers.post("/v2/models/tulips/infer", json={}).status_code == 404


def test_rows_get_the_known_answers(numbers: TestClient) -> None:
    answer = numbers.post(INFER, json={"id": "17", "inputs": iris_inputs()}).json()
    assert (answer["id"], answer["model_name"]) == ("17", "iris")
    label, probabilities = answer["outputs"]
    expected = [number_row(row) for row in ROWS]
    assert label == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [2],
        "data": [row.label for row in expected],
    }
    assert probabilities["shape"] == [2, 3]
    flat = [share for row in expected for share in row.probabilities.values()]
    assert probabilities["data"] == pytest.approx(flat)


def test_tensors_may_have_a_second_axis_of_one(numbers: TestClient) -> None:
    plain = outputs(numbers, INFER, inputs=iris_inputs())
    flat = [{**each, "shape": [2, 1]} for each in iris_inputs()]
    nested = [{**each, "data": [[value] for value in each["data"]]} for each in flat]
    assert outputs(numbers, INFER, inputs=flat) == plain
    assert outputs(numbers, INFER, inputs=nested) == plain


def test_outputs_are_selected_in_order(numbers: TestClient) -> None:
    wanted = [{"name": "probabilities"}]
    assert list(outputs(numbers, INFER, inputs=iris_inputs(), outputs=wanted)) == ["probabilities"]


FITTING: dict[str, tuple[list[Any], list[Any]]] = {
    "INT8": ([2, 2.0, 12], [2.5, 128, -129, 1e300, 10**400]),
    "UINT8": ([2, 12, 4], [-1, 256, 0.5]),
    "INT16": ([2], [32768]),
    "UINT16": ([2], [65536, -1]),
    "INT32": ([2], [2**31, 2.5]),
    "UINT32": ([2], [2**32]),
    "INT64": ([2], [2.5, 1e19]),
    "UINT64": ([2], [-1, 2e19]),
    "FP16": ([2.1, 5.3], [65520, -1e5]),
    "FP32": ([2.1, 5.3], [3.4028236e38, 1e300, 10**400]),
    "FP64": ([2.1, 5.3], []),
}


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("datatype", FITTING)
def test_values_must_be_of_their_datatype(loose: TestClient, datatype: str, rows: int) -> None:
    good, bad = FITTING[datatype]
    for number in good:
        given = {name: [number] * rows for name in IRIS_FEATURES}
        same = outputs(loose, INFER, inputs=[tensor(name, data) for name, data in given.items()])
        assert (
            outputs(loose, INFER, inputs=[tensor(name, data, datatype) for name, data in given.items()])
            == same
        )
    for number in bad:
        given["petal_length"] = [*given["petal_length"][:-1], number]
        article = "a" if datatype[0] == "U" else "an"
        assert refusal(
            loose, INFER, {"inputs": [tensor(name, data, datatype) for name, data in given.items()]}
        ) == (f"petal_length.{rows - 1}: must be {article} {datatype} value")


def test_the_greatest_number_of_a_datatype_may_be_rounded(loose: TestClient) -> None:
    for datatype, number in (
        ("FP32", 3.4028235e38),
        ("FP16", 65504),
        ("INT64", 2**63 - 1),
        ("UINT64", 2**64 - 1),
    ):
        inputs = [tensor(name, [number, 2], datatype) for name in IRIS_FEATURES]
        answer = loose.post(INFER, json={"inputs": inputs})
        # The model may have no answer to such values, but they are of their type.
        assert "must be" not in answer.text, answer.text


@pytest.mark.parametrize("gap", [None, float("nan")])
@pytest.mark.parametrize("datatype", ["INT8", "FP16", "UINT64"])
def test_gaps_are_of_every_datatype(mixed: TestClient, gap: Any, datatype: str) -> None:
    request = {"inputs": [tensor("age", [30.0]), tensor("Höhe (cm)", [gap], datatype)]}
    answer = mixed.post(MIXED, content=json.dumps(request))
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [mixed_row(None, 30.0, None).label]


@pytest.mark.parametrize("value", ["2", True, [2]])
@pytest.mark.parametrize("datatype", ["INT8", "FP32"])
def test_what_is_no_number_is_of_no_datatype(numbers: TestClient, value: Any, datatype: str) -> None:
    inputs = [tensor(name, [value], datatype) for name in IRIS_FEATURES]
    assert refusal(numbers, INFER, {"inputs": inputs}).startswith("sepal_length.0: must be a number")


def test_half_precision_comes_as_binary_too(numbers: TestClient) -> None:
    values = np.array(ROWS, dtype="<f2")
    size = {"binary_data_size": 2 * len(ROWS)}
    inputs = [
        {"name": name, "shape": [len(ROWS)], "datatype": "FP16", "parameters": size} for name in IRIS_FEATURES
    ]
    head = json.dumps({"inputs": inputs}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = numbers.post(INFER, content=head + values.T.tobytes(), headers=length).json()
    same = outputs(numbers, INFER, inputs=iris_inputs([tuple(row) for row in values.astype(float).tolist()]))
    assert {each["name"]: each for each in answer["outputs"]} == same


@pytest.mark.parametrize("binary", [True, False])
def test_an_output_may_be_asked_for_once(numbers: TestClient, binary: bool) -> None:
    again = {"name": "label", "parameters": {"binary_data": binary}}
    request = {"inputs": iris_inputs(), "outputs": [{"name": "label"}, {"name": "probabilities"}, again]}
    assert refusal(numbers, INFER, request) == "outputs.label: is requested twice"


@pytest.mark.parametrize("value", ["false", "true", 0, 1, 1.0, None, [], {}])
def test_flags_are_true_or_false(numbers: TestClient, value: Any) -> None:
    request = {"inputs": iris_inputs(), "parameters": {"binary_data_output": value}}
    assert refusal(numbers, INFER, request) == "parameters.binary_data_output: must be true or false"
    wanted = [{"name": "label", "parameters": {"binary_data": value}}]
    request = {"inputs": iris_inputs(), "outputs": wanted}
    assert refusal(numbers, INFER, request) == "outputs.label.binary_data: must be true or false"


@pytest.mark.parametrize("gap", [None, float("nan"), ""])
def test_null_nan_and_nothing_are_missing(mixed: TestClient, gap: Any) -> None:
    expected = mixed_row(None, 30.0, None)
    request = json.dumps(
        {
            "inputs": [
                tensor("Höhe (cm)", [None if gap == "" else gap]),
                tensor("soil type", [gap or None if gap != gap else gap], "BYTES"),  # noqa: PLR0124  NaN
                tensor("age", [30]),
            ]
        }
    )
    answer = mixed.post(MIXED, content=request)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [expected.label]
    left_out = outputs(mixed, MIXED, inputs=[tensor("age", [30.0])])
    assert left_out["probabilities"]["data"] == pytest.approx(list(expected.probabilities.values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "colour"}, "colour: is not a feature"),
        ({"name": "sepal_width"}, "sepal_width: is given twice"),
        ({"datatype": "BYTES"}, "sepal_length: datatype must be FP64"),
        ({"datatype": "BOOL"}, "sepal_length: datatype must be FP64"),
        ({"shape": [2, 2]}, "sepal_length: shape must be"),
        ({"shape": [3]}, "sepal_length: shape says 3 values, data has 2"),
        ({"shape": [10**30]}, "sepal_length: shape says"),
        ({"shape": []}, "inputs.0.shape"),
        ({"shape": [-2]}, "inputs.0.shape.0"),
        ({"shape": "2"}, "inputs.0.shape"),
        ({"data": None}, "inputs.0.data"),
        ({"data": [5.1, "6.9"]}, "sepal_length.1: must be a number"),
        ({"data": [5.1, True]}, "sepal_length.1: must be a number"),
        ({"data": [5.1, None]}, "sepal_length.1: must be a number"),
        ({"data": [5.1, [6.9]]}, "sepal_length.1: must be a number"),
        ({"data": [5.1, float("nan")]}, "sepal_length.1: must be finite"),
        ({"data": [5.1, float("inf")]}, "sepal_length.1: must be finite"),
        ({"data": [5.1, 12.5]}, "sepal_length.1: must be at most 12 cm"),
        (
            {"parameters": {"binary_data_size": 16}},
            "sepal_length: binary_data_size is 16, but 0 bytes follow",
        ),
        ({"parameters": {"binary_data_size": True}}, "sepal_length: binary_data_size"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared_memory_region is not supported"),
    ],
)
def test_a_bad_tensor_is_named(numbers: TestClient, change: dict[str, Any], message: str) -> None:
    first, *rest = iris_inputs()
    assert message in refusal(numbers, INFER, {"inputs": [{**first, **change}, *rest]})


def test_unknown_categories_name_tensor_and_row(mixed: TestClient) -> None:
    inputs = [tensor("age", [1.0, 2.0]), tensor("soil type", ["clay", "chalk"], "BYTES")]
    assert refusal(mixed, MIXED, {"inputs": inputs}).startswith("soil type.1: must be 'clay'")


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"{}", "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": [{}]}', "inputs.0.name"),
        (b'{"inputs": [' + b"[" * 10_000, "Invalid JSON"),
        (json.dumps({"inputs": iris_inputs()[:3]}).encode(), "petal_width: is required"),
        (json.dumps({"inputs": [tensor(name, []) for name in IRIS_FEATURES]}).encode(), "at least one row"),
        (json.dumps({"inputs": iris_inputs(), "outputs": [{"name": "x"}]}).encode(), "outputs.0.name"),
        (
            json.dumps({"inputs": [*iris_inputs(ROWS[:1])[:3], tensor("petal_width", [1, 1])]}).encode(),
            "values",
        ),
        (json.dumps({"inputs": iris_inputs(), "id": 3}).encode(), "id"),
    ],
)
def test_a_bad_request_is_explained(numbers: TestClient, request_body: bytes, message: str) -> None:
    assert message in refusal(numbers, INFER, request_body)


def test_classification_is_refused_because_ignoring_it_would_mislead(numbers: TestClient) -> None:
    wanted = [{"name": "probabilities", "parameters": {"classification": 2}}]
    assert "classification" in refusal(numbers, INFER, {"inputs": iris_inputs(), "outputs": wanted})


def binary_request(values: bytes, shape: list[int], datatype: str = "FP64") -> tuple[bytes, str]:
    first = {
        "name": "sepal_length",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": len(values)},
    }
    head = json.dumps({"inputs": [first, *iris_inputs()[1:]]}).encode()
    return head + values, str(len(head))


@pytest.mark.parametrize(
    ("values", "shape", "datatype", "message"),
    [
        (np.array([5.1]).tobytes(), [2], "FP64", "shape says 2 values, binary_data_size makes 1"),
        (np.array([5.1, np.nan]).tobytes(), [2], "FP64", "sepal_length.1: must be finite"),
        (np.array([5.1, -np.inf]).tobytes(), [2], "FP64", "sepal_length.1: must be finite"),
        (np.array([5.1, 0.5]).tobytes(), [2], "FP64", "sepal_length.1: must be at least 1 cm"),
        (np.array([5, 13], "<i4").tobytes(), [2], "INT32", "sepal_length.1: must be at most 12 cm"),
        (np.array([5, 2**64 - 1], "<u8").tobytes(), [2], "UINT64", "sepal_length.1: must be at most 12 cm"),
        (b"", [2], "FP64", "shape says 2 values"),
    ],
)
def test_bad_binary_numbers_are_named(
    numbers: TestClient, values: bytes, shape: list[int], datatype: str, message: str
) -> None:
    body, length = binary_request(values, shape, datatype)
    assert message in refusal(numbers, INFER, body, **{"Inference-Header-Content-Length": length})


@pytest.mark.parametrize("length", ["-1", "abc", "99999999", "1e3", "٣", "9" * 400])
def test_a_bad_header_length_is_explained(numbers: TestClient, length: str) -> None:
    body, _ = binary_request(np.array([5.1, 6.0]).tobytes(), [2])
    headers = {b"Inference-Header-Content-Length": length.encode()}
    answer = numbers.post(INFER, content=body, headers=headers)
    assert answer.status_code == 422
    assert "Inference-Header-Content-Length" in answer.json()["error"]


def test_bytes_beyond_the_last_tensor_are_refused(numbers: TestClient) -> None:
    body, length = binary_request(np.array([5.1, 6.0]).tobytes(), [2])
    message = refusal(numbers, INFER, body + b"x", **{"Inference-Header-Content-Length": length})
    assert "1 bytes follow" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x04\x00",
        struct.pack("<I", 4) + b"cla",
        struct.pack("<I", 2**32 - 1) + b"clay",
        struct.pack("<I", 4) + b"clay" + b"rest",
        struct.pack("<I", 2) + b"\xff\xfe",
    ],
)
def test_bad_binary_strings_are_refused(mixed: TestClient, content: bytes) -> None:
    soil = {
        "name": "soil type",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(content)},
    }
    head = json.dumps({"inputs": [tensor("age", [1.0]), soil]}).encode()
    message = refusal(mixed, MIXED, head + content, **{"Inference-Header-Content-Length": str(len(head))})
    assert message.startswith("soil type")


@pytest.mark.slow
@given(
    values=st.lists(st.floats(width=64) | st.integers(-5, 20).map(float), min_size=1, max_size=5),
)
def test_binary_and_json_numbers_are_judged_alike(numbers: TestClient, values: list[float]) -> None:
    rest = [tensor(name, [1.0] * len(values)) for name in IRIS_FEATURES[1:]]
    first = tensor("sepal_length", values)
    as_json = numbers.post(INFER, content=json.dumps({"inputs": [first, *rest]}))
    content = np.array(values, "<f8").tobytes()
    del first["data"]
    first["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": [first, *rest]}).encode()
    as_binary = numbers.post(
        INFER, content=head + content, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    assert as_binary.json() == as_json.json()


@pytest.fixture(scope="module")
def client(mixed_model: Path) -> Iterator[triton.InferenceServerClient]:
    """The stock client against the service in a process of its own."""
    with (
        running(mixed_model) as service,
        triton.InferenceServerClient(url=service.netloc) as client,
    ):
        yield client


def triton_inputs(heights: list[float], ages: list[float], soils: list[str], *, binary: bool) -> list[Any]:
    arrays = {
        "Höhe (cm)": ("FP64", np.array(heights)),
        "age": ("FP32", np.array(ages, dtype=np.float32).reshape(-1, 1)),
        "soil type": ("BYTES", np.array(soils, dtype=object)),
    }
    inputs = []
    for name, (datatype, array) in arrays.items():
        each = triton.InferInput(name, list(array.shape), datatype)
        inputs.append(each.set_data_from_numpy(array, binary_data=binary))
    return inputs


@pytest.mark.slow
def test_the_stock_client_sees_a_live_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("plants")
    assert not client.is_model_ready("tulips")
    assert client.get_server_metadata()["name"] == "espalier"
    model = client.get_model_metadata("plants")
    assert client.is_model_ready("plants", model["versions"][0])
    assert client.get_model_metadata("plants", model["versions"][0]) == model


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_the_stock_client_infers(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    heights, ages, soils = [12.0, 3.0, 30.0], [3.0, 8.0, 40.0], list(SOILS)
    wanted = None
    if binary_out is not None:
        wanted = [
            triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "label")
        ]

    answer = client.infer(
        "plants", triton_inputs(heights, ages, soils, binary=binary_in), outputs=wanted, request_id="a"
    )

    rows = [mixed_row(*row) for row in zip(heights, ages, soils, strict=True)]
    probabilities = [list(row.probabilities.values()) for row in rows]
    np.testing.assert_allclose(answer.as_numpy("probabilities"), probabilities, rtol=1e-12)
    labels = [each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("label")]
    assert labels == [row.label for row in rows]
    assert answer.get_response()["id"] == "a"


def test_the_stock_client_sends_gaps(client: triton.InferenceServerClient) -> None:
    answer = client.infer("plants", triton_inputs([float("nan")], [30.0], [""], binary=True))
    expected = list(mixed_row(None, 30.0, None).probabilities.values())
    np.testing.assert_allclose(answer.as_numpy("probabilities"), [expected])


def test_the_stock_client_shows_errors(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"age\.0: must be at most 100 weeks") as caught:
        client.infer("plants", triton_inputs([1.0], [101.0], ["clay"], binary=True))
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="tulips is not here"):
        client.infer("tulips", triton_inputs([1.0], [1.0], ["clay"], binary=True))


@pytest.mark.slow
def test_classes_keep_their_order(numbers: TestClient) -> None:
    assert tuple(numbers.get("/model").json()["classes"]) == IRIS_CLASSES
