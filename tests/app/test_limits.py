"""What a request may cost: the rows that fit, and the memory of the requests that are refused."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.conftest import Serve
from tests.app.processes import PATIENCE, Running, running
from tests.bundles import write_wide_bundle

LIMIT = 20_000
INFER = "/v2/models/wide/infer"
MEBIBYTE = 1024 * 1024

Ask = Callable[[int], tuple[str, bytes, dict[str, str]]]
"""From a number of rows to a request that takes as few bytes as possible."""


def instances(rows: int) -> tuple[str, bytes, dict[str, str]]:
    return "/predict", json.dumps({"instances": [{"f0": 1}] * rows}).encode(), {}


def reordered_instances(rows: int) -> tuple[str, bytes, dict[str, str]]:
    return "/predict", b" \r\n" + json.dumps({"\u0069nstances": [{"f0": 1}] * rows}).encode(), {}


def columns(rows: int) -> tuple[str, bytes, dict[str, str]]:
    return "/predict", json.dumps({"columns": {"f0": [1] * rows}}).encode(), {}


def escaped_columns(rows: int) -> tuple[str, bytes, dict[str, str]]:
    return "/predict", b'{"\\u0063olumns": {"f0": %b}}' % json.dumps([1] * rows).encode(), {}


def tensors(*outputs: dict[str, Any], as_binary: bool = False) -> Ask:
    """A tensor of bytes, after which these outputs are asked for."""

    def ask(rows: int) -> tuple[str, bytes, dict[str, str]]:
        size = {"binary_data_size": rows}
        tensor = {"name": "f0", "shape": [rows], "datatype": "INT8", "parameters": size}
        request: dict[str, Any] = {"inputs": [tensor], "parameters": {"binary_data_output": as_binary}}
        if outputs:
            request["outputs"] = outputs
        head = json.dumps(request).encode()
        return INFER, head + b"\1" * rows, {"Inference-Header-Content-Length": str(len(head))}

    return ask


SHAPES: dict[str, Ask] = {
    "instances": instances,
    "instances, found late": reordered_instances,
    "columns": columns,
    "columns, found late": escaped_columns,
    "tensors to JSON": tensors(),
    "tensors to binary": tensors(as_binary=True),
    "tensors to labels": tensors({"name": "label"}),
    "tensors to binary labels": tensors({"name": "label", "parameters": {"binary_data": True}}),
    "tensors to probabilities": tensors({"name": "probabilities"}),
}

BUNDLES: dict[str, dict[str, Any]] = {
    "two classes": {"features": 1, "classes": ("no", "yes")},
    "many classes": {"features": 1, "classes": tuple(f"class {index}" for index in range(100))},
    # Of two bytes in UTF-8, and of six in JSON.
    "long names": {"features": 1, "classes": ("é" * 300, "\x01" * 300)},
    "values left out": {"features": 300, "classes": ("no", "yes"), "missing": True},
}


@pytest.fixture(scope="module", params=BUNDLES)
def wide(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serve: Serve
) -> TestClient:
    directory = tmp_path_factory.mktemp("wide")
    write_wide_bundle(directory, **BUNDLES[request.param])
    return serve(directory, max_answer_bytes=LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rows_that_fit_are_answered_and_one_more_is_not(wide: TestClient, shape: str) -> None:
    def send(rows: int) -> Any:
        path, body, headers = SHAPES[shape](rows)
        return wide.post(path, content=body, headers=headers)

    refused = send(20_000)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_many_rows")
    most = int(re.search(r"send at most (\d+) rows", refused.json()["error"])[1])  # type: ignore[index]
    before = predicted(wide)
    assert send(most + 1).status_code == 413
    assert predicted(wide) == before
    answered = send(most)
    assert answered.status_code == 200, answered.text
    assert predicted(wide) == before + most
    # Beside the rows there are names of the model and its outputs.
    assert len(answered.content) <= LIMIT + 1000
    assert send(1).status_code == 200


def predicted(client: TestClient) -> float:
    found = re.findall(r"^model_predictions_total\{.*\} (.*)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def test_one_row_is_answered_however_long_its_answer_is(tmp_path: Path, serve: Serve) -> None:
    write_wide_bundle(tmp_path, 1, ("a" * 5000, "b" * 5000))
    client = serve(tmp_path, max_answer_bytes=1024)

    assert client.post("/predict", json={"f0": 1}).status_code == 200
    assert client.post("/predict", json={"instances": [{"f0": 1}]}).status_code == 200
    refused = client.post("/predict", json={"instances": [{"f0": 1}] * 2})
    assert refused.status_code == 413
    assert "send at most 1 rows" in refused.json()["error"]


def test_every_row_of_a_full_body_fits_if_it_has_all_its_values(tmp_path: Path, serve: Serve) -> None:
    """Of the memory for values: a body has a byte at least for each of them."""
    write_wide_bundle(tmp_path, 64, ("no", "yes"))
    client = serve(tmp_path)
    rows = 1000
    body = json.dumps({"columns": {f"f{index}": [1] * rows for index in range(64)}}, separators=(",", ":"))

    assert client.post("/predict", content=body).status_code == 200


# ------------------------------------------------------------------------------------------------------- memory


def filled(start: bytes, item: bytes, end: bytes) -> bytes:
    """A body of about a mebibyte, out of items with commas between them."""
    number = (MEBIBYTE - len(start) - len(end)) // (len(item) + 1)
    return start + b",".join([item] * number) + end


UNKNOWN = b",".join(b'"%x":1' % index for index in range(100_000))

HOSTILE: dict[str, tuple[str, bytes]] = {
    "an instance without its fields": ("/predict", filled(b'{"x":[', b"[]", b"]}")),
    "instances without their fields": ("/predict", filled(b'{"instances":[', b"{}", b"]}")),
    "an instance in instances": ("/predict", filled(b'{"instances":[{"x":[', b"[]", b"]}]}")),
    "columns without the others": ("/predict", filled(b'{"columns":{"f0":[', b"[]", b"]}}")),
    "a column of numbers": ("/predict", filled(b'{"columns":{"f0":[', b"1", b"]}}")),
    "unknown fields": ("/predict", b"{%b}" % UNKNOWN),
    "unknown columns": ("/predict", b'{"columns":{%b}}' % UNKNOWN),
    "a tensor of lists": (
        INFER,
        filled(b'{"inputs":[{"name":"f0","datatype":"FP64","shape":[9],"data":[', b"[]", b"]}]}"),
    ),
    "a tensor without its fields": (INFER, filled(b'{"inputs":[{"x":[', b"[]", b"]}]}")),
    "a long shape": (INFER, filled(b'{"inputs":[{"name":"f0","datatype":"FP64","shape":[', b"-1", b"]}]}")),
    "many outputs": (INFER, filled(b'{"inputs":[{}],"outputs":[', b'{"name":"label"}', b"]}")),
}


@pytest.mark.slow
def test_no_request_takes_much_memory(tmp_path: Path) -> None:
    """With many features: an error that quotes its object once for each of them would take gigabytes."""
    write_wide_bundle(tmp_path, 300, ("no", "yes"))
    with running(tmp_path) as service:
        at_rest = peak_megabytes(service)
        for name, (path, body) in HOSTILE.items():
            status, length = post(service, path, body)
            assert (name, status) in {(name, 422), (name, 413)}
            assert length < 10_000, name
        # Measured: 83 MB, which stay with the process from the largest request on.
        assert peak_megabytes(service) - at_rest < 120


def post(service: Running, path: str, body: bytes) -> tuple[int, int]:
    request = urllib.request.Request(service.url + path, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, len(answer.read())
    except urllib.error.HTTPError as refusal:
        return refusal.code, len(refusal.read())


def peak_megabytes(service: Running) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000  # type: ignore[index]
