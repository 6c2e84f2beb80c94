"""Limits, media types, and the one shape of errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

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


def test_a_compressed_body_is_refused_as_such(numbers: TestClient) -> None:
    answer = numbers.post("/predict", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert error(answer) == "unsupported_encoding"


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
