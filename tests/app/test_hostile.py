"""Whatever a client sends, it is answered or refused; never is it a failure of the service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.main import Application, create_app
from app.settings import Settings
from tests.app.wire import Line
from tests.bundles import IRIS_FEATURES

INFER = "/v2/models/iris/infer"

LITERALS = (
    *(
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"1e99999999",
        b"-0",
        b"NaN",
        b"Infinity",
        b"true",
        b"null",
        b"[]",
        b"{}",
    ),
    # Python makes no text of integers with more than 4,300 digits.
    *(b"1" * 4299, b"1" * 4300, b"1" * 4301, b"-" + b"9" * 5000, b"0." + b"1" * 5000, b"9" * 309),
    *(b"9223372036854775808", b"18446744073709551616", b"[" * 5000, b"[[[1]]]"),
    *(
        rb'"\ud800"',
        rb'"\udfff\ud800"',
        rb'"\u0000"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        rb'{"\ud800": 1}',
        rb'{"": 1}',
    ),
)

PREDICT_BODIES = (
    b"@",
    b'{"sepal_length": @, "sepal_width": 2, "petal_length": 2, "petal_width": 2}',
    b'{"sepal_length": 2, "sepal_width": 2, "petal_length": 2, "petal_width": 2, "x": @}',
    b'{"instances": @}',
    b'{"instances": [@]}',
    b'{"columns": @}',
    b'{"columns": {"sepal_length": @, "sepal_width": [2], "petal_length": [2], "petal_width": [2]}}',
    b'{"columns": {"sepal_length": [@], "sepal_width": [2], "petal_length": [2], "petal_width": [2]}}',
)

TENSOR = b'{"name": "sepal_length", "shape": [1], "datatype": "FP64", "data": [2], "parameters": {}}'
INFER_BODY = (
    b'{"id": "1", "parameters": {}, "inputs": [%b, %b], "outputs": [{"name": "label", "parameters": {}}]}'
    % (
        TENSOR,
        json.dumps(
            [{"name": name, "shape": [1], "datatype": "FP64", "data": [2]} for name in IRIS_FEATURES[1:]]
        )[1:-1].encode(),
    )
)
INFER_PLACES = (
    (b'"id": "1"', b'"id": @'),
    (b'"parameters": {}, "inputs"', b'"parameters": @, "inputs"'),
    (b'"parameters": {}, "inputs"', b'"parameters": {"binary_data_output": @, "x": @}, "inputs"'),
    (b'"sepal_length"', b"@"),
    (b'"shape": [1]', b'"shape": @'),
    (b'"shape": [1]', b'"shape": [@]'),
    (b'"shape": [1]', b'"shape": [1, @]'),
    (b'"FP64"', b"@"),
    (b'"data": [2]', b'"data": @'),
    (b'"data": [2]', b'"data": [@]'),
    (b'"shape": [1], "datatype": "FP64", "data": [2]', b'"shape": [1, 1], "datatype": "INT8", "data": [[@]]'),
    (b'"data": [2], "parameters": {}', b'"data": [2], "parameters": @'),
    (b'"data": [2], "parameters": {}', b'"parameters": {"binary_data_size": @}'),
    (
        b'"shape": [1], "datatype": "FP64", "data": [2], "parameters": {}',
        b'"shape": [@], "datatype": "INT8", "parameters": {"binary_data_size": @}',
    ),
    (b'"data": [2], "parameters": {}', b'"data": [2], "parameters": {"classification": @}'),
    (b'"outputs": [{', b'"outputs": [@, {'),
    (b'{"name": "label", "parameters": {}}', b'{"name": @}'),
    (b'"label", "parameters": {}', b'"label", "parameters": {"binary_data": @}'),
)


@pytest.mark.parametrize("literal", LITERALS, ids=lambda literal: literal[:16].decode("latin-1"))
def test_any_value_in_any_place_is_answered_or_refused(numbers: TestClient, literal: bytes) -> None:
    for body in PREDICT_BODIES:
        check(numbers, "/predict", body.replace(b"@", literal), {})
    for found, placed in INFER_PLACES:
        assert found in INFER_BODY
        body = INFER_BODY.replace(found, placed.replace(b"@", literal), 1)
        check(numbers, INFER, body, {})
        length = {"Inference-Header-Content-Length": str(len(body))}
        check(numbers, INFER, body + bytes(8), length)


def check(client: TestClient, path: str, body: bytes, headers: dict[str, str]) -> None:
    """The client raises what the service does not catch."""
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code in {200, 422}, answer.text
    assert answer.status_code == 200 or answer.json()["error"]


DIGITS = (
    *(b"0" * 20 + b"9" * 4300, b"0" * 30 + b"5", b"9" * 20, b"9" * 5000, b"\xb2", "²".encode()),
    *(b"-1", b"+5", b"1_0", b"", b"0x5", b"5,5", b"5.0", b"1e3", b"\xff"),
)


@pytest.mark.parametrize("length", DIGITS, ids=lambda length: length[:16].decode("latin-1"))
def test_a_length_is_digits_or_refused(numbers: TestClient, length: bytes) -> None:
    headers = {b"Inference-Header-Content-Length": length}
    answer = numbers.post(INFER, content=INFER_BODY, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("Inference-Header-Content-Length: is ")


@pytest.mark.slow
@given(length=st.text("0123456789", max_size=24) | st.text(max_size=5))
def test_any_length_is_answered_or_refused(numbers: TestClient, length: str) -> None:
    headers = {b"Inference-Header-Content-Length": length.encode()}
    assert numbers.post(INFER, content=INFER_BODY, headers=headers).status_code in {200, 422}


def test_a_tensor_of_a_size_beyond_all_bounds_is_refused(numbers: TestClient) -> None:
    for shape in ([10**12], [10**12, 1], [0, 0], [0, 10**12], [10**12, 0], [0], [0, 1], [1, 1, 1], [2**64]):
        body = json.dumps({"inputs": [{"name": "sepal_length", "shape": shape, "datatype": "INT8"}]})
        assert numbers.post(INFER, content=body).status_code == 422, shape


# -------------------------------------------------------------------------------------- heads, as on the wire

ODD = (
    *(
        b"\xff",
        b"\xed\xa0\x80",
        b"a\tb",
        b"[",
        b"]",
        b"[::1",
        b"",
        b"x" * 60_000,
        b";;;",
        b"*",
        b"\xc2\xb2",
        b"@",
    ),
    *(
        b":",
        b"x:99999999",
        b"a b",
        b"gzip",
        b"GZIP, br",
        b"application/json; charset=\xff",
        b"chunked, chunked",
    ),
)
HEADERS = (
    *(
        b"Accept",
        b"Accept-Encoding",
        b"Authorization",
        b"Content-Encoding",
        b"Content-Length",
        b"Content-Type",
    ),
    *(
        b"Cookie",
        b"Date",
        b"Expect",
        b"Forwarded",
        b"Host",
        b"If-Modified-Since",
        b"If-None-Match",
        b"Origin",
    ),
    *(b"Range", b"Te", b"Trailer", b"Transfer-Encoding", b"User-Agent", b"X-Forwarded-For", b"X-Request-Id"),
)
TARGETS = (
    *(
        b"/%ff",
        b"/%ed%a0%80",
        b"/%00",
        b"/%",
        b"/%zz",
        b"//",
        b"/\xff",
        b"/\xc3\xa9",
        b"*",
        b"http://[/",
        b"?",
    ),
    *(b"http://x:99999999/", b"/?" + b"a=b&" * 10_000, b"/?\xff", b"/v2/models/%ff", b"/v2/models/%00/infer"),
    *(b"/v2/models/iris%2finfer", b"/v2/models/" + b"%f0%9f%98%80" * 3000, b"/docs/%00", b"/docs/../metrics"),
    *(b"/docs/..%2f..%2fetc%2fpasswd", b"/docs/" + b"a" * 5000, b"/v2/models/iris?version=%ff"),
)


@pytest.fixture(scope="module")
def application(number_model: Path) -> Application:
    """With an id from the client in its log."""
    return create_app(Settings(model_dir=number_model, access_log=True))


@pytest.mark.parametrize("name", HEADERS, ids=bytes.decode)
def test_any_header_is_answered_or_refused(application: Application, name: bytes) -> None:
    for value in ODD:
        for head in (
            b"GET /",
            b"GET /nothing",
            b"POST /predict",
            b"POST /v2/models/iris/infer",
            b"PUT /model",
        ):
            host = b"" if name == b"Host" else b"Host: a\r\n"
            length = b"" if name == b"Content-Length" else b"Content-Length: 2\r\n"
            lines = host + length + name + b": " + value
            assert status_of(application, head + b" HTTP/1.1\r\n" + lines + b"\r\n\r\n{}") < 500, value


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:24].decode("latin-1"))
def test_any_target_is_answered_or_refused(application: Application, target: bytes) -> None:
    for method in (b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"PROPFIND"):
        head = method + b" " + target + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        assert status_of(application, head) < 500


def status_of(application: Application, request: bytes) -> int:
    """Of the response; 0 if the connection waits for more or was closed."""

    async def exchange() -> bytes:
        line = Line(application)
        line.send(request)
        response = await line.settle()
        line.connection.connection_lost(None)
        return response

    response = asyncio.run(exchange())
    return int(response[9:12]) if response else 0


# --------------------------------------------------------------------------------- the metrics have one path

ALIASES = (
    *(
        b"/%6Detrics",
        b"/%6detrics",
        b"/metric%73",
        b"/%2fmetrics",
        b"//metrics",
        b"/./metrics",
        b"/x/../metrics",
    ),
    *(
        b"/metrics/",
        b"/metrics;x",
        b"/METRICS",
        b"/metrics%00",
        b"/metrics%20",
        b"/metrics%2f",
        b"/metrics%3fx",
    ),
    *(
        b"/metrics#x",
        b"/metrics#?x",
        b"/metrics\\",
        b"/\\metrics",
        b"http://a/%6Detrics",
        b"/docs/../metrics",
    ),
)


@pytest.mark.parametrize("target", ALIASES, ids=bytes.decode)
def test_metrics_have_no_other_spelling(application: Application, target: bytes) -> None:
    """A rule of a load balancer about `/metrics` must not be passed by."""
    for method in (b"GET", b"HEAD"):
        assert status_of(application, method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n") in {400, 404}


@pytest.mark.parametrize("target", [b"/metrics", b"/metrics?", b"/metrics?a=%2f#"[:-1], b"http://a/metrics"])
def test_metrics_are_at_their_path(application: Application, target: bytes) -> None:
    assert status_of(application, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 200
