"""Limits, media types, and the one shape of errors."""

from __future__ import annotations

import gzip
import json
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.errors import RequestError
from app.transport import Budget
from tests.app.conftest import Serve
from tests.bundles import number_row

GOOD = json.dumps(number_row((5.1, 3.5, 1.4, 0.2)).values).encode()


def error(answer: object) -> str:
    """The code of an error, after checking its shape."""
    content = answer.json()  # type: ignore[attr-defined]
    assert set(content) == {"error", "code", "details"}
    assert isinstance(content["error"], str)
    assert "\n" not in content["error"]
    return str(content["code"])


def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(number_model: Path, serve: Serve) -> None:
    client = serve(number_model, max_body_bytes=200)
    assert client.post("/predict", content=GOOD.ljust(200)).status_code == 200
    answer = client.post("/predict", content=GOOD.ljust(201))
    assert answer.status_code == 413
    assert error(answer) == "too_large"


@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer"])
def test_a_body_that_is_streamed_is_cut_off_at_the_limit(number_model: Path, serve: Serve, path: str) -> None:
    client = serve(number_model, max_body_bytes=200)

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * 100

    answer = client.post(path, content=chunks())
    assert answer.status_code == 413
    assert error(answer) == "too_large"


def test_a_streamed_body_within_the_limit_is_answered(numbers: TestClient) -> None:
    pieces = iter([GOOD[:10], GOOD[10:]])
    assert numbers.post("/predict", content=pieces).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("", 200),
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/octet-stream", 415),
        ("json", 415),
    ],
)
def test_only_json_is_taken(numbers: TestClient, content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = numbers.post("/predict", content=GOOD, headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert error(answer) == "unsupported_media_type"


def raw_deflate(content: bytes) -> bytes:
    """As some clients send it, without the frame of the zlib format."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def members(content: bytes) -> bytes:
    """Several gzip files in a row, an empty one among them, are one file."""
    return gzip.compress(content[:7]) + gzip.compress(b"") + gzip.compress(content[7:])


COMPRESSIONS = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZip", members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("", bytes),
]


def compressed(
    client: TestClient, content: bytes, encoding: str, path: str = "/predict", **headers: str
) -> Any:
    return client.post(path, content=content, headers={"Content-Encoding": encoding, **headers})


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS)
def test_a_compressed_body_is_the_same_body(
    numbers: TestClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    plain = numbers.post("/predict", content=GOOD)
    answer = compressed(numbers, compress(GOOD), encoding)
    assert (answer.status_code, answer.content) == (200, plain.content)
    many = json.dumps({"instances": [json.loads(GOOD)] * 5000}).encode()
    assert (
        compressed(numbers, compress(many), encoding).content
        == numbers.post("/predict", content=many).content
    )


def test_a_compressed_body_may_have_binary_tensors(numbers: TestClient) -> None:
    size = {"binary_data_size": 8}
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "parameters": size} for name in names]
    head = json.dumps({"inputs": inputs}).encode()
    body = head + struct.pack("<4d", 5.1, 3.5, 1.4, 0.2)
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = compressed(numbers, gzip.compress(body), "gzip", "/v2/models/iris/infer", **length)
    assert answer.json()["outputs"][0]["data"] == ["setosa"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip;q=1", "compress", "*", "\xff"])
def test_of_another_encoding_the_refusal_names_those_that_are_known(
    numbers: TestClient, encoding: str
) -> None:
    answer = numbers.post("/predict", content=GOOD, headers={b"Content-Encoding": encoding.encode("latin-1")})
    assert answer.status_code == 415
    assert error(answer) == "unsupported_encoding"
    assert answer.headers["accept-encoding"] == "gzip, x-gzip, deflate"


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS[:5])
def test_a_broken_compressed_body_is_refused(
    numbers: TestClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    whole = compress(GOOD)
    middle = len(whole) // 2
    broken = [whole[:-1], whole[:middle], whole[:1], whole + b"more", b"\0" + whole, GOOD]
    if compress is not raw_deflate:  # It has no checksum.
        broken.append(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    for content in broken:
        answer = compressed(numbers, content, encoding)
        assert (answer.status_code, error(answer)) == (422, "invalid_encoding"), content


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS[:5])
def test_the_limit_holds_for_what_is_decompressed(
    number_model: Path, serve: Serve, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    client = serve(number_model, max_body_bytes=2000)
    assert compressed(client, compress(GOOD.ljust(2000)), encoding).status_code == 200
    for length in (2001, 100_000_000):
        answer = compressed(client, compress(b" " * length)[:2000], encoding)
        assert (answer.status_code, error(answer)) == (413, "too_large")
    nested = compress(compress(GOOD))
    assert error(compressed(client, nested, encoding)) == "invalid_json"


def test_an_unknown_path_is_404(numbers: TestClient) -> None:
    for path in ("/nothing", "/predict/", "/%0a%ff", "/v2/models/iris/versions"):
        answer = numbers.get(path)
        assert answer.status_code == 404, path
        assert error(answer) == "not_found"


def test_a_wrong_method_is_405_and_says_what_is_allowed(numbers: TestClient) -> None:
    answer = numbers.get("/predict")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert error(answer) == "method_not_allowed"


def test_what_a_client_sent_is_quoted_short_and_printable(numbers: TestClient) -> None:
    body = json.dumps({"a\nb\x1b[31m": 1, "x" * 5000: 1})
    content = numbers.post("/predict", content=body).json()
    fields = [each["field"] for each in content["details"]]
    assert all(field.isprintable() and len(field) <= 200 for field in fields)
    assert content["error"].isprintable()


def test_a_bug_is_a_500_in_the_same_shape(
    number_model: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    client = TestClient(serve(number_model).app, raise_server_exceptions=False)

    def broken(_: bytes) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(client.app.state.service.schema, "parse", broken)  # type: ignore[attr-defined]
    answer = client.post("/predict", content=GOOD)
    assert answer.status_code == 500
    assert error(answer) == "internal"


def test_the_access_log_has_one_line_a_request(
    number_model: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(number_model, access_log=True)
    with caplog.at_level(logging.INFO, logger="app.access"):
        client.post("/predict", content=GOOD)
        client.get("/nothing")
    lines = [record.fields for record in caplog.records if record.name == "app.access"]  # type: ignore[attr-defined]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("GET", "/nothing", 404),
    ]


def test_without_it_requests_are_not_logged(numbers: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        numbers.post("/predict", content=GOOD)
    assert not [record for record in caplog.records if record.name.startswith("app")]


# ------------------------------------------------------------------------------------------ the budget


def test_a_body_gets_an_eighth_of_what_is_left() -> None:
    budget = Budget(limit=8000, max_body_bytes=100)
    budget.check(1000)
    with pytest.raises(RequestError) as refused:
        budget.check(1001)
    assert (refused.value.status, refused.value.reason) == (503, "overloaded")
    budget.held = 4000
    budget.check(500)
    with pytest.raises(RequestError):
        budget.check(501)


def test_the_largest_body_is_accepted_when_nothing_is_held() -> None:
    Budget(limit=1000, max_body_bytes=400).check(400)
    Budget(limit=1, max_body_bytes=400).check(400)


def test_what_is_held_is_given_back_whatever_happens() -> None:
    budget = Budget(limit=1000, max_body_bytes=1000)
    with budget.holding() as hold:
        hold(100)
        hold(200)
        assert budget.held == 300
        assert not budget.pressed
    assert budget.held == 0
    with pytest.raises(RequestError), budget.holding() as hold:
        hold(1001)
    assert budget.held == 0
