"""HTTP as it is on the wire: pieces, pipelines, half requests, rude clients, and bytes that are no HTTP.

Predictions have a short cut past the framework; a client must not be able to tell. What is expected here is
what a careful HTTP/1.1 server does (RFC 9110, RFC 9112), however a request is routed inside. After every test
the service still answers, and nothing so far was a server error.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from prometheus_client import CollectorRegistry

from app.contract import Bundle, read_bundle
from app.errors import RequestError
from app.metrics import ModelMetrics
from app.protocol import Protocol
from app.service import Service
from tests.app.processes import PATIENCE, Running, running
from tests.bundles import IRIS_FEATURES
from tests.wire import Answer, Wire, chunked, pieces_of, post, request

LIMIT = 512 * 1024
"""The service's limit for bodies; small, so that tests over it are quick."""

GET_PATHS = ("/", "/model", "/health/live", "/health/ready", "/v2", "/v2/models/iris")
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: YQ==",
)

GARBAGE = b"\x00\x01garbage\r\n\r\n"

Values = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A POST and its right answer."""

    path: str
    body: bytes
    status: int
    answer: bytes

    @property
    def whole(self) -> bytes:
        return post(self.path, self.body)

    def fits(self, answer: Answer) -> bool:
        return (answer.status, answer.body) == (self.status, self.answer)


class Known:
    """Makes calls, and knows the answers because the service in this process gives the same."""

    def __init__(self, bundle: Bundle) -> None:
        self._service = Service(bundle, ModelMetrics(bundle.manifest, CollectorRegistry()))
        self._protocol = Protocol(self._service)
        self._infer_path = f"/v2/models/{bundle.manifest.name}/infer"
        self.infer_path_of_version = (
            f"/v2/models/{bundle.manifest.name}/versions/{bundle.manifest.version}/infer"
        )

    def predict(self, content: object) -> Call:
        body = json.dumps(content).encode()
        try:
            return Call("/predict", body, 200, self._service.predict(body)[0])
        except RequestError as error:
            return Call("/predict", body, error.status, error.body())

    def infer(self, rows: Sequence[Values], path: str | None = None) -> Call:
        inputs = [
            {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[name] for row in rows]}
            for name in IRIS_FEATURES
        ]
        body = json.dumps({"inputs": inputs}).encode()
        path = path or self._infer_path
        try:
            return Call(path, body, 200, self._protocol.infer(body, {})[0])
        except RequestError as error:
            return Call(path, body, error.status, error.body())


def row_of(random: Random) -> Values:
    ranges = zip(IRIS_FEATURES, ((1, 12), (1, 8), (0.1, 12), (0.1, 5)), strict=True)
    return {name: round(random.uniform(*limits), 3) for name, limits in ranges}


def bad_row_of(random: Random) -> Values:
    """One that names itself in its refusal, so that refusals are different as well."""
    return row_of(random) | {f"unknown_{random.randrange(10**9)}": 1}


@pytest.fixture(scope="module")
def known(number_model: Path) -> Known:
    return Known(read_bundle(number_model))


@pytest.fixture(scope="module")
def service(number_model: Path) -> Iterator[Running]:
    """One process for all tests; what it logged must not be errors."""
    with running(number_model, max_body_bytes=LIMIT) as service:
        yield service
        assert errors_after_the_end(service) == []


@pytest.fixture
def wire(service: Running) -> Iterator[Wire]:
    with connected(service) as wire:
        yield wire


@pytest.fixture(params=["predict", "infer", "infer of a version"])
def call(request: pytest.FixtureRequest, known: Known) -> Call:
    """One row over each route that predicts."""
    row = row_of(Random(1))
    if request.param == "predict":
        return known.predict(row)
    return known.infer([row], known.infer_path_of_version if "version" in request.param else None)


@pytest.fixture
def prediction(known: Known) -> Call:
    """One row over one route, where routes do not matter."""
    return known.predict(row_of(Random(1)))


@pytest.fixture(autouse=True)
def unharmed(service: Running, known: Known) -> Iterator[None]:
    """Whatever a test does, the service goes on and has had no error of its own."""
    yield
    call = known.predict(row_of(Random(0)))
    with connected(service) as wire:
        wire.send(call.whole)
        assert call.fits(wire.answer())
        wire.send(request("GET", "/metrics"))
        metrics = wire.answer("GET").body.decode()
    assert re.findall(r'^http_requests_total\{.*status="5.*', metrics, re.MULTILINE) == []


def errors_after_the_end(service: Running) -> list[str]:
    service.process.send_signal(signal.SIGINT)
    log = service.process.communicate(timeout=PATIENCE)[1]
    return [line for line in log.splitlines() if json.loads(line)["level"] == "error"]


def connected(service: Running) -> Wire:
    return Wire(service.port, PATIENCE)


def assert_in_step(wire: Wire, last: Answer, call: Call) -> None:
    """The connection is closed as the last answer announced, or the next request gets its right answer."""
    if last.closes:
        assert wire.end() == b""
    else:
        wire.send(call.whole)
        assert call.fits(wire.answer())


# ------------------------------------------------------------------------------------------ bodies in pieces


def test_a_request_may_come_byte_by_byte(wire: Wire, call: Call) -> None:
    wire.send(*pieces_of(call.whole, 1), pause=0.0002)

    assert call.fits(wire.answer())


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("extension", ["", ";name=value", ';name="a \\" b"'])
def test_a_chunked_body_is_the_same_body(wire: Wire, call: Call, size: int, extension: str) -> None:
    body = chunked(pieces_of(call.body, size), extension=extension)
    for _ in range(2):  # The second shows that the first was read to its end.
        wire.send(post(call.path, body, "Transfer-Encoding: chunked"))
        assert call.fits(wire.answer())


def test_chunks_may_be_cut_anywhere(wire: Wire, call: Call) -> None:
    body = chunked(pieces_of(call.body, 10))
    wire.send(*pieces_of(post(call.path, body, "Transfer-Encoding: chunked"), 3), pause=0.0002)

    assert call.fits(wire.answer())


def test_chunk_sizes_may_have_leading_zeros_and_capitals(wire: Wire, call: Call) -> None:
    body = b"000%X\r\n%b\r\n000\r\n\r\n" % (len(call.body), call.body)
    wire.send(post(call.path, body, "Transfer-Encoding: CHUNKED"))

    assert call.fits(wire.answer())


TRAILERS = ("Content-Type: text/csv", "Content-Encoding: gzip", "Inference-Header-Content-Length: 5")


@pytest.mark.parametrize(
    "pause",
    [
        pytest.param(0, id="in one piece"),
        pytest.param(0.05, id="later"),
    ],
)
def test_trailers_are_no_headers(wire: Wire, call: Call, pause: float) -> None:
    whole = post(call.path, chunked([call.body], trailers=TRAILERS), "Transfer-Encoding: chunked")
    cut = whole.index(b"0\r\nContent-Type") if pause else 0
    wire.send(whole[:cut], whole[cut:], pause=pause)

    assert call.fits(wire.answer())


def test_trailers_are_no_headers_in_a_pipeline(wire: Wire, call: Call) -> None:
    whole = post(call.path, chunked([call.body], trailers=TRAILERS), "Transfer-Encoding: chunked")
    wire.send(request("GET", "/health/live") + whole)

    assert wire.answer("GET").status == 200
    assert call.fits(wire.answer())


def test_no_body_at_all_is_a_bad_request_and_not_waited_for(wire: Wire, call: Call) -> None:
    for headers in ((), ("Content-Length: 0",)):
        wire.send(post(call.path, b"", *headers))
        assert wire.answer().status == 422


# ------------------------------------------------------------------------------------------ pipelines


def mixed_calls(known: Known, random: Random, count: int) -> list[Call]:
    makers = [
        lambda: known.predict(row_of(random)),
        lambda: known.infer([row_of(random)]),
        lambda: known.predict(bad_row_of(random)),
        lambda: known.predict({"instances": [row_of(random) for _ in range(3)]}),
    ]
    return [random.choices(makers, (6, 2, 1, 1))[0]() for _ in range(count)]


@pytest.mark.parametrize("size", [10**6, 1000, 64])
def test_answers_to_a_pipeline_come_in_order(wire: Wire, known: Known, size: int) -> None:
    calls = mixed_calls(known, Random(2), 50)
    probe = request("GET", "/health/live")
    wire.send(*pieces_of(b"".join(call.whole + probe for call in calls), size))

    for call in calls:
        assert call.fits(wire.answer())
        assert wire.answer("GET").json == {"status": "live"}


def test_a_large_batch_in_a_pipeline_keeps_its_place(wire: Wire, known: Known) -> None:
    """What takes long is answered in a thread, other requests at once; nobody may overtake."""
    random = Random(3)
    large = [known.predict({"instances": [row_of(random) for _ in range(600)]}) for _ in range(3)]
    calls = [call for each in large for call in (each, *mixed_calls(known, random, 3))]
    wire.send(b"".join(call.whole for call in calls))

    for call in calls:
        assert call.fits(wire.answer())


def test_a_pipeline_ends_where_the_client_says(wire: Wire, call: Call) -> None:
    wire.send(call.whole + post(call.path, call.body, "Connection: close") + call.whole)

    assert call.fits(wire.answer())
    last = wire.answer()
    assert call.fits(last)
    assert last.closes
    assert wire.end() == b""


def test_what_comes_before_garbage_is_answered_first(wire: Wire, prediction: Call) -> None:
    wire.send(prediction.whole * 3 + GARBAGE)

    for _ in range(3):
        assert prediction.fits(wire.answer())
    assert wire.answer().status == 400
    assert wire.end() == b""


@pytest.mark.parametrize("kind", ["a batch", "another route"])
def test_what_takes_longer_than_the_garbage_behind_it_is_answered_first(
    wire: Wire, known: Known, kind: str
) -> None:
    batch = known.predict({"instances": [row_of(Random(8))] * 5000})
    wire.send((batch.whole if kind == "a batch" else request("GET", "/model")) + GARBAGE)

    assert wire.answer().status == 200
    assert wire.answer().status == 400
    assert wire.end() == b""


def test_the_end_of_a_large_body_may_come_with_the_beginning_of_a_request(
    service: Running, known: Known, prediction: Call
) -> None:
    for rows in (2000, 3000, 4000, 5000):  # How much is read at once is up to the machine.
        batch = known.predict({"instances": [row_of(Random(8))] * rows})
        with connected(service) as wire:
            wire.send(batch.whole + prediction.whole[:20], prediction.whole[20:], pause=0.1)
            assert batch.fits(wire.answer())
            assert prediction.fits(wire.answer())


def test_the_end_of_a_refused_body_may_come_with_the_beginning_of_a_request(
    wire: Wire, prediction: Call
) -> None:
    wire.send(post("/predict", b" " * (5 * LIMIT)) + prediction.whole[:20], prediction.whole[20:], pause=0.1)

    answer = wire.answer()
    assert answer.status == 413
    if not answer.closes:
        assert prediction.fits(wire.answer())


# ------------------------------------------------------------------------------------------ Expect


def test_the_body_is_asked_for_where_the_client_waits_for_it(wire: Wire, call: Call) -> None:
    head = post(call.path, call.body, "Expect: 100-continue").removesuffix(call.body)
    for _ in range(2):
        wire.send(head)
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(call.body)
        assert call.fits(wire.answer())


def test_a_client_need_not_wait_after_all(wire: Wire, call: Call) -> None:
    wire.send(post(call.path, call.body, "Expect: 100-Continue"))

    assert call.fits(answer := wire.answer())
    assert answer.interim in {(), (100,)}


def test_a_body_over_the_limit_is_refused_before_it_is_sent(wire: Wire, call: Call) -> None:
    """The final status comes in place of the 100.

    Then the client may close, or still send what it announced (RFC 9112, 9.3): unless the service says that
    it closes, it must take the body for a body and not for the next request.
    """
    too_long = b" " * (LIMIT + 1)
    wire.send(post(call.path, too_long, "Expect: 100-continue").removesuffix(too_long))

    answer = wire.answer()
    assert answer.status == 413
    assert answer.interim == ()
    if not answer.closes:
        wire.send(too_long)
    assert_in_step(wire, answer, call)


def test_other_refusals_come_before_the_body_as_well(wire: Wire, call: Call) -> None:
    wire.send(
        post(call.path, b"", "Expect: 100-continue", "Content-Type: text/csv", f"Content-Length: {LIMIT}")
    )

    answer = wire.answer()
    assert answer.status == 415
    assert answer.interim == ()


# ------------------------------------------------------------------------------------------ methods and paths


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"])
def test_only_post_predicts(wire: Wire, call: Call, method: str) -> None:
    wire.send(request(method, call.path))

    answer = wire.answer(method)
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]
    # If HEAD had sent a body, it would be taken for the next answer.
    assert_in_step(wire, answer, call)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", GET_PATHS)
def test_other_routes_are_only_read(wire: Wire, path: str, method: str) -> None:
    wire.send(request(method, path, "Content-Length: 0"))

    answer = wire.answer(method)
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", [*GET_PATHS, "/metrics", "/v2/health/live"])
def test_head_is_get_without_the_body(wire: Wire, prediction: Call, path: str) -> None:
    wire.send(request("GET", path))
    full = wire.answer("GET")
    wire.send(request("HEAD", path))
    head = wire.answer("HEAD")

    assert head.status == full.status == 200
    assert head.body == b""
    varying = {"date", "content-length"} if path == "/metrics" else {"date"}
    assert {n: v for n, v in head.headers.items() if n not in varying} == {
        n: v for n, v in full.headers.items() if n not in varying
    }
    assert_in_step(wire, head, prediction)


@pytest.mark.parametrize("path", GET_PATHS)
def test_allow_names_head_beside_get(wire: Wire, path: str) -> None:
    wire.send(request("DELETE", path))

    assert set(wire.answer("DELETE").headers["allow"].split(", ")) >= {"GET", "HEAD"}


def test_head_of_nothing_is_404(wire: Wire, prediction: Call) -> None:
    wire.send(request("HEAD", "/nothing"))

    answer = wire.answer("HEAD")
    assert answer.status == 404
    assert_in_step(wire, answer, prediction)


@pytest.mark.parametrize(
    ("path", "method"),
    [("/predict", "POST"), ("/v2/models/iris/infer", "POST"), *((p, "GET") for p in GET_PATHS)],
)
def test_options_says_what_is_possible(wire: Wire, prediction: Call, path: str, method: str) -> None:
    wire.send(request("OPTIONS", path))

    answer = wire.answer("OPTIONS")
    assert answer.status in {200, 204, 405}
    assert method in answer.headers["allow"]
    assert_in_step(wire, answer, prediction)


def test_options_of_the_server_itself_is_answered(wire: Wire, prediction: Call) -> None:
    wire.send(request("OPTIONS", "*"))

    answer = wire.answer("OPTIONS")
    assert answer.status < 500
    assert_in_step(wire, answer, prediction)


@pytest.mark.parametrize("suffix", ["/", "/x", "//", ";a=b", "%2F", "%00"])
def test_a_path_is_taken_exactly(wire: Wire, call: Call, suffix: str) -> None:
    wire.send(post(call.path + suffix, call.body))

    answer = wire.answer()
    assert answer.status == 404
    assert answer.json["code"] == "not_found"
    assert_in_step(wire, answer, call)


@pytest.mark.parametrize("query", ["?", "?x=1", "?x=1&y=%00%ff", "?" + "x" * 8000])
def test_a_query_changes_nothing(wire: Wire, call: Call, query: str) -> None:
    wire.send(post(call.path + query, call.body))

    assert call.fits(wire.answer())


def test_a_path_may_be_percent_encoded(wire: Wire, call: Call) -> None:
    encoded = "/" + "".join(f"%{ord(each):02x}" if each.isalpha() else each for each in call.path[1:])
    wire.send(post(encoded, call.body))

    assert call.fits(wire.answer())


@pytest.mark.parametrize("origin", ["http://service", "http://other:81", "HTTPS://service"])
def test_the_target_may_be_a_whole_address(wire: Wire, call: Call, origin: str) -> None:
    wire.send(post(origin + call.path, call.body))

    assert call.fits(wire.answer())


@pytest.mark.parametrize("path", ["/v2/models/other/infer", "/v2/models/iris/versions/0/infer"])
def test_another_model_is_404_and_leaves_the_connection_usable(wire: Wire, call: Call, path: str) -> None:
    wire.send(post(path, call.body))

    answer = wire.answer()
    assert answer.status == 404
    assert_in_step(wire, answer, call)


# ------------------------------------------------------------------------------------------ bodies and types


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: application/json; charset=utf-8",
        "CONTENT-TYPE: APPLICATION/JSON",
        "content-type:application/json",
        "Content-Type: \t application/json \t ",
        "Content-Type: application/json;charset=UTF-8 ; x=y",
        "Content-Type:",
        "X-Other: 1",
        "Content-Encoding: identity",
    ],
)
def test_json_is_taken_however_it_is_announced(wire: Wire, call: Call, header: str) -> None:
    wire.send(post(call.path, call.body, header))

    assert call.fits(wire.answer())


@pytest.mark.parametrize("header", ["Content-Type: text/csv", "Content-Encoding: br"])
def test_after_a_refused_type_the_connection_goes_on(wire: Wire, call: Call, header: str) -> None:
    for _ in range(2):
        wire.send(post(call.path, call.body, header))
        answer = wire.answer()
        assert answer.status == 415
        assert not answer.closes
    assert_in_step(wire, answer, call)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut short"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param('{"sepal_length": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"sepal_length": 1}'.encode("utf-32-le"), id="UTF-32"),
        pytest.param(b'{"h\xf6he": 1}', id="Latin-1"),
        pytest.param(b'{"\\ud800": 1}', id="half a surrogate pair"),
        pytest.param(bytes(10_000), id="zeros"),
        pytest.param(b"[" * 10_000, id="deep arrays"),
        pytest.param(b'{"a":' * 10_000, id="deep objects"),
        pytest.param(b"1" * 10_000, id="a long number"),
        pytest.param(b"null", id="null"),
        pytest.param(b"sepal_length=1&sepal_width=2", id="a form"),
    ],
)
def test_after_a_bad_body_the_connection_goes_on(wire: Wire, call: Call, body: bytes) -> None:
    wire.send(post(call.path, body))

    answer = wire.answer()
    assert answer.status == 422
    assert answer.json.keys() == {"error", "code", "details"}
    assert not answer.closes
    assert_in_step(wire, answer, call)


def test_a_body_where_none_is_expected_is_skipped(wire: Wire, prediction: Call) -> None:
    wire.send(request("GET", "/health/live", body=b"GET /nothing HTTP/1.1\r\n\r\n"))

    answer = wire.answer("GET")
    assert answer.status == 200
    assert_in_step(wire, answer, prediction)


@pytest.mark.parametrize("framing", ["announced", "chunked"])
def test_after_a_body_over_the_limit_the_connection_is_in_step(wire: Wire, call: Call, framing: str) -> None:
    """The client sends everything first, as simple ones do, and only then reads."""
    too_long = b" " * (5 * LIMIT)
    if framing == "announced":
        wire.send(post(call.path, too_long))
    else:
        wire.send(post(call.path, chunked(pieces_of(too_long, 5000)), "Transfer-Encoding: chunked"))

    answer = wire.answer()
    assert answer.status == 413
    assert_in_step(wire, answer, call)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_wants_to_close_gets_its_413(wire: Wire, prediction: Call, version: str) -> None:
    """Many do, Python's urllib among them."""
    wire.send(post(prediction.path, b" " * (10 * LIMIT), "Connection: close", version=version))

    assert wire.answer().status == 413
    assert wire.end() == b""


# ------------------------------------------------------------------------------------------ connections


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",), ("Connection: close",)])
def test_http_1_0_is_answered(wire: Wire, call: Call, headers: tuple[str, ...]) -> None:
    wire.send(post(call.path, call.body, *headers, version="1.0"))

    answer = wire.answer()
    assert call.fits(answer)
    if answer.closes or "keep-alive" not in "".join(headers):
        assert wire.end() == b""


def test_a_client_may_ask_to_close(wire: Wire, call: Call) -> None:
    wire.send(post(call.path, call.body, "Connection: close"))

    answer = wire.answer()
    assert call.fits(answer)
    assert answer.closes
    assert wire.end() == b""


@pytest.mark.parametrize("headers", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("framing", ["announced", "chunked"])
def test_an_upgrade_that_is_offered_is_declined_by_answering(
    wire: Wire, prediction: Call, headers: tuple[str, ...], framing: str
) -> None:
    """Java's HttpClient offers HTTP/2 with every first request, its body included."""
    whole = (
        post(prediction.path, prediction.body, *headers)
        if framing == "announced"
        else post(prediction.path, chunked([prediction.body]), *headers, "Transfer-Encoding: chunked")
    )
    head, end, body = whole.partition(b"\r\n\r\n")
    wire.send(head + end, body, pause=0.05)
    assert prediction.fits(wire.answer())
    wire.send(whole + prediction.whole)
    assert prediction.fits(wire.answer())
    assert prediction.fits(wire.answer())


def test_an_offer_is_declined_however_its_bytes_come(service: Running, prediction: Call) -> None:
    whole = post(prediction.path, prediction.body, *H2C)
    for cut in range(whole.index(b"Connection"), whole.index(b"HTTP2-Settings:")):
        with connected(service) as wire:
            wire.send(whole[:cut], whole[cut:] + prediction.whole, pause=0.002)
            assert prediction.fits(wire.answer()), f"cut before {whole[cut:]!r}"
            assert prediction.fits(wire.answer())


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(0, id="together"),
        pytest.param(-10, id="after the end of a body"),
    ],
)
def test_an_offer_in_a_pipeline_is_declined(wire: Wire, prediction: Call, cut: int) -> None:
    pipeline = prediction.whole + post(prediction.path, prediction.body, *H2C) + prediction.whole
    cut = len(prediction.whole) + cut if cut else 0
    wire.send(pipeline[:cut], pipeline[cut:], pause=0.05)

    for _ in range(3):
        assert prediction.fits(wire.answer())


def test_an_offer_in_capitals_is_declined(wire: Wire, prediction: Call) -> None:
    wire.send(
        post(prediction.path, prediction.body, "CONNECTION: UPGRADE", "UPGRADE: H2C") + prediction.whole
    )

    assert prediction.fits(wire.answer())
    assert prediction.fits(wire.answer())


def test_a_body_may_speak_of_upgrades(wire: Wire, known: Known, prediction: Call) -> None:
    """It is not the head, however its pieces look."""
    call = known.predict({"Upgrade": "\r\nUpgrade: h2c\r\n\r\n"})
    body = json.dumps({"a": "b"}).encode() + b"\r\nUpgrade: h2c\r\n\r\n"
    odd = post(prediction.path, body)
    wire.send(call.whole + odd + prediction.whole)
    assert call.fits(wire.answer())
    refused = wire.answer()
    assert prediction.fits(wire.answer())
    # The same with the body by itself, and the refusal says where the body goes wrong.
    wire.send(odd.removesuffix(body), body[:10], body[10:], prediction.whole, pause=0.02)
    assert wire.answer().body == refused.body
    assert prediction.fits(wire.answer())


def test_no_request_can_hide_in_the_body_of_an_upgrade(wire: Wire, prediction: Call) -> None:
    hidden = request("DELETE", "/model")
    wire.send(post(prediction.path, b"", *H2C, f"Content-Length: {len(hidden)}"), hidden, pause=0.05)

    answer = wire.answer()
    assert answer.status == 422
    assert_in_step(wire, answer, prediction)


@pytest.mark.parametrize("headers", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_an_upgrade_without_a_body_is_declined_by_answering(
    wire: Wire, prediction: Call, headers: tuple[str, ...]
) -> None:
    wire.send(request("GET", "/health/live", *headers))

    answer = wire.answer("GET")
    assert answer.status == 200
    assert_in_step(wire, answer, prediction)


def test_an_answer_still_comes_after_the_client_has_closed_its_half(wire: Wire, call: Call) -> None:
    wire.stop_sending(call.whole)

    assert call.fits(wire.answer())
    assert wire.end() == b""


def test_answers_to_a_pipeline_still_come_after_the_client_has_closed_its_half(
    wire: Wire, known: Known
) -> None:
    calls = mixed_calls(known, Random(5), 20)
    wire.stop_sending(b"".join(call.whole for call in calls))

    for call in calls:
        assert call.fits(wire.answer())
    assert wire.end() == b""


def test_answers_still_come_after_half_a_request_and_the_end(wire: Wire, known: Known) -> None:
    """What is whole is answered; the rest is nobody's loss."""
    calls = mixed_calls(known, Random(5), 5)
    wire.stop_sending(b"".join(call.whole for call in calls) + calls[0].whole[:50])

    for call in calls:
        assert call.fits(wire.answer())
    assert wire.end() == b""


@pytest.mark.parametrize("then", ["stop sending", "close", "reset"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_request_that_stays_incomplete_is_dropped(
    service: Running, call: Call, share: float, then: str
) -> None:
    for _ in range(10):
        with connected(service) as wire:
            wire.send(call.whole[: int(len(call.whole) * share)])
            if then == "stop sending":
                wire.stop_sending()
                assert not re.match(rb"HTTP/1.1 [25]", wire.end())
            elif then == "reset":
                wire.reset()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("rows", [1, 100, 1000])
def test_a_client_may_leave_without_its_answer(
    service: Running, known: Known, rows: int, reset: bool
) -> None:
    random = Random(6)
    names = IRIS_FEATURES
    call = known.predict({"columns": {name: [row_of(random)[name] for _ in range(rows)] for name in names}})
    for to_read in (0, 10, 300):
        for _ in range(5):
            with connected(service) as wire:
                wire.send(call.whole)
                if to_read:
                    wire.socket.recv(to_read)
                if reset:
                    wire.reset()


@pytest.mark.slow
def test_a_client_that_leaves_a_pipeline_is_no_error(number_model: Path) -> None:
    with running(number_model) as service:
        with connected(service) as wire:
            # The answers fill all buffers, so that the service waits in the middle of them.
            wire.send(request("GET", "/") * 2000, pause=0.5)
            wire.reset()
        time.sleep(0.2)
        assert errors_after_the_end(service) == []


def test_a_client_that_does_not_read_delays_nobody(service: Running, wire: Wire, prediction: Call) -> None:
    wire.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        wire.send(request("GET", "/") * 1_000_000)  # More than all buffers in between can take.

    with connected(service) as other:
        other.send(prediction.whole)
        assert prediction.fits(other.answer())


def test_connections_that_are_gone_leave_no_open_files(service: Running, prediction: Call) -> None:
    process = psutil.Process(service.process.pid)
    settle = time.monotonic() + PATIENCE
    before = process.num_fds()
    wires = [connected(service) for _ in range(60)]
    for index, wire in enumerate(wires):
        wire.send(prediction.whole[: index * 5])
        if index % 3 == 0:
            wire.reset()
        wire.socket.close()
    while process.num_fds() > before:
        assert time.monotonic() < settle, "connections stay open"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------ no HTTP, or too much

ROW = b'{"sepal_length": 5}'
MALFORMED = {
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "zeros": bytes(64),
    "words": b"hello there\r\n\r\n",
    "an unknown method": request("BREW", "/predict"),
    "an unknown version": request("GET", "/health/live", version="1.2"),
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT service:80 HTTP/1.1\r\nHost: service\r\n\r\n",
    "a target that is no path": request("GET", "predict"),
    "a target beyond ASCII": request("POST", "/pr\xe9dict"),
    "a space in the target": request("GET", "/a b"),
    "bare line feeds": post("/predict", ROW).replace(b"\r\n", b"\n"),
    "no colon": request("GET", "/", "Header"),
    "a space before the colon": post("/predict", ROW, f"Content-Length : {len(ROW)}"),
    "a folded header": request("GET", "/", "X: a", " b"),
    "a zero in a header": request("GET", "/", "X: a\x00b"),
    "a negative length": post("/predict", ROW, "Content-Length: -1"),
    "a signed length": post("/predict", ROW, f"Content-Length: +{len(ROW)}"),
    "a length in hex": post("/predict", ROW, "Content-Length: 0x13"),
    "a list of lengths": post("/predict", ROW, f"Content-Length: {len(ROW)}, {len(ROW)}"),
    "a length beyond counting": post("/predict", ROW, f"Content-Length: {10**30}"),
    "two lengths": post("/predict", ROW, "Content-Length: 3", f"Content-Length: {len(ROW)}"),
    "the same length twice": post("/predict", ROW, *[f"Content-Length: {len(ROW)}"] * 2),
    "a length and chunks": post(
        "/predict", chunked([ROW]), f"Content-Length: {len(ROW)}", "Transfer-Encoding: chunked"
    ),
    "chunks and a length": post(
        "/predict", chunked([ROW]), "Transfer-Encoding: chunked", f"Content-Length: {len(ROW)}"
    ),
    "an unknown coding": post("/predict", ROW, "Transfer-Encoding: xchunked"),
    "a coding without chunks": post("/predict", ROW, "Transfer-Encoding: gzip"),
    "chunked twice": post("/predict", chunked([ROW]), "Transfer-Encoding: chunked, chunked"),
    "the same coding twice": post("/predict", chunked([ROW]), *["Transfer-Encoding: chunked"] * 2),
    "two codings": post("/predict", chunked([ROW]), "Transfer-Encoding: gzip, chunked"),
    "chunks in HTTP/1.0": post("/predict", chunked([ROW]), "Transfer-Encoding: chunked", version="1.0"),
    "a space before the coding's colon": post("/predict", chunked([ROW]), "Transfer-Encoding : chunked"),
    "a chunk without a size": post("/predict", b"zz\r\n{}\r\n", "Transfer-Encoding: chunked"),
    "a chunk of negative size": post("/predict", b"-2\r\n{}\r\n", "Transfer-Encoding: chunked"),
    "a chunk beyond counting": post("/predict", b"f" * 20 + b"\r\n{}\r\n", "Transfer-Encoding: chunked"),
    "a chunk longer than its size": post("/predict", b"1\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_request_is_refused_once_and_for_all(wire: Wire, content: bytes) -> None:
    """The connection ends: nobody can know where the next request would begin.

    That also is what keeps one client's bytes from becoming another's request behind a proxy that reads
    lengths in its own way.
    """
    wire.send(content + request("GET", "/health/live"))

    answer = wire.answer()
    assert answer.status in {400, 501, 505}
    assert answer.closes
    assert wire.end() == b""


def for_hosts(call: Call, *hosts: str, version: bytes = b"1.1") -> bytes:
    lines = "".join(f"Host: {each}\r\n" for each in hosts).encode()
    return call.whole.replace(b"Host: service\r\n", lines).replace(b"HTTP/1.1", b"HTTP/" + version)


@pytest.mark.parametrize(
    "hosts",
    [(), ("a", "b"), ("a", "a"), ("a b",), ("a/b",), ("user@a",), ("a:b",), ("[::1",), ("::1",), ("a,b c",)],
    ids=str,
)
def test_a_request_says_once_which_host_it_is_for(
    wire: Wire, prediction: Call, hosts: tuple[str, ...]
) -> None:
    wire.send(for_hosts(prediction, *hosts))

    answer = wire.answer()
    assert answer.status == 400
    assert answer.json["code"] == "malformed_request"
    assert "Host" in answer.json["error"]
    assert wire.end() == b""


@pytest.mark.parametrize(
    "host", ["10.0.0.1:8000", "[::1]", "[fe80::1%25eth0]:80", "a_b.example", "xn--a.example.", "A%20b", ""]
)
def test_every_valid_host_is_served(wire: Wire, prediction: Call, host: str) -> None:
    """Probes name an address and a port, load balancers all sorts of names."""
    wire.send(for_hosts(prediction, host))

    assert prediction.fits(wire.answer())


def test_http_1_0_needs_no_host(wire: Wire, prediction: Call) -> None:
    wire.send(for_hosts(prediction, version=b"1.0"))

    assert prediction.fits(wire.answer())


def test_an_address_without_a_path_is_the_root(wire: Wire) -> None:
    wire.send(request("GET", "http://service"))

    assert wire.answer("GET").status == 200


@pytest.mark.parametrize("name", ["a", "a{}"], ids=["one name", "distinct names"])
@pytest.mark.parametrize("count", [101, 10_000])
def test_too_many_headers_are_refused(wire: Wire, prediction: Call, count: int, name: str) -> None:
    wire.send(post(prediction.path, prediction.body, *[f"{name.format(each)}: b" for each in range(count)]))

    answer = wire.answer()
    assert answer.status == 431
    assert answer.json["code"] == "head_too_large"
    assert wire.end() == b""


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"1;" + b"x" * 100_000, id="a chunk extension"),
        pytest.param(b"1;" + b"x" * 80 + b"\r\n{\r\n", id="an extension for each byte"),
        pytest.param(b"0\r\nX: " + b"x" * 100_000, id="a trailer"),
        pytest.param(b"0\r\n" + b"a: b\r\n" * 10_000, id="trailers"),
    ],
)
def test_framing_without_end_is_refused(wire: Wire, prediction: Call, endless: bytes) -> None:
    wire.send(post(prediction.path, b"", "Transfer-Encoding: chunked"))
    times = max(1, 200_000 // len(endless))
    wire.send(endless * times)

    answer = wire.answer()
    assert answer.status == 431
    assert wire.end() == b""


def test_a_bad_chunk_is_refused_after_the_batch_ahead_of_it(wire: Wire, known: Known) -> None:
    batch = known.predict({"instances": [row_of(Random(8))] * 5000})
    wire.send(batch.whole + post("/predict", b"5\r\n{}\r\nzz\r\n", "Transfer-Encoding: chunked"))

    assert batch.fits(wire.answer())
    assert wire.answer().status == 400
    assert wire.end() == b""


def test_what_is_complete_is_answered_before_half_a_body_and_the_end(
    wire: Wire, known: Known, prediction: Call
) -> None:
    batch = known.predict({"instances": [row_of(Random(8))] * 5000})
    wire.stop_sending(batch.whole + prediction.whole + prediction.whole[:-5])

    assert batch.fits(wire.answer())
    assert prediction.fits(wire.answer())
    assert wire.end() == b""


def test_a_slow_answer_comes_before_half_a_body_and_the_end(wire: Wire, prediction: Call) -> None:
    """All in one read, so the half request is queued when the client stops sending."""
    wire.stop_sending(request("GET", "/v2") + request("GET", "/v2") + prediction.whole[:-5])

    assert wire.answer("GET").status == 200
    assert wire.answer("GET").status == 200
    assert wire.end() == b""


@pytest.mark.slow
def test_any_number_of_offers_is_declined(wire: Wire) -> None:
    wire.send(request("GET", "/health/live", *H2C) * 2000)

    for _ in range(2000):
        assert wire.answer("GET").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("reads", [False, True])
def test_a_pipeline_is_not_held_in_memory(number_model: Path, reads: bool) -> None:
    with running(number_model) as service, connected(service) as wire:
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        wire.socket.settimeout(0.02)
        content = request("GET", "/") * 100_000
        stop = time.monotonic() + 2
        while content and time.monotonic() < stop:
            with suppress(TimeoutError):
                content = content[wire.socket.send(content) :]
            if reads:
                with suppress(TimeoutError):
                    wire.socket.recv(2**20)
        assert process.memory_info().rss < before + 20 * 1024 * 1024


@pytest.mark.parametrize(("size", "status"), [(8192, 404), (8193, 414), (40_000, 414)])
@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_target_has_at_most_8_kib(wire: Wire, size: int, status: int, pause: float) -> None:
    target = "/" + "x" * (size - 1)
    whole = request("GET", target)
    wire.send(whole[:1000], whole[1000 : size // 2], whole[size // 2 :], pause=pause) if pause else wire.send(
        whole
    )

    answer = wire.answer("GET")
    assert answer.status == status
    assert answer.json["code"] == {404: "not_found", 414: "target_too_long"}[status]


@pytest.mark.parametrize(("size", "status"), [(1024, 200), (1025, 400)])
def test_a_host_has_at_most_1_kib(wire: Wire, size: int, status: int) -> None:
    wire.send(b"GET /v2 HTTP/1.1\r\nHost: " + b"x" * size + b"\r\n\r\n")

    assert wire.answer("GET").status == status


def test_a_target_without_end_is_refused(wire: Wire) -> None:
    wire.send(request("GET", "/health/live?" + "x" * 200_000))

    assert wire.answer().status in {400, 414, 431}


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("X: " + "x" * 4_000_000, id="a long one"),
        pytest.param("\r\n".join(["a: b"] * 500_000), id="many"),
    ],
)
def test_headers_without_end_are_refused(wire: Wire, prediction: Call, header: str) -> None:
    try:
        wire.send(post(prediction.path, prediction.body, header))
        assert wire.answer().status in {400, 431}
    except ConnectionError:
        pass  # Nor need the rest be waited for.


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"", id="headers"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
            id="trailers",
        ),
    ],
)
def test_what_is_held_in_memory_has_a_limit(number_model: Path, part: bytes) -> None:
    with running(number_model) as service, connected(service) as wire:  # Fresh, with nothing to spare.
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        try:
            wire.send(b"POST /predict HTTP/1.1\r\nHost: service\r\n" + part)
            wire.send(*[b"a: b\r\n" * 100_000] * 40)
        except ConnectionError:
            pass
        assert process.memory_info().rss < before + 100 * 1024 * 1024


@pytest.mark.parametrize("noise", range(20))
def test_noise_is_refused_or_waited_out(wire: Wire, noise: int) -> None:
    random = Random(noise)
    valid = bytearray(post("/predict", ROW))
    for _ in range(random.randint(1, 10)):
        valid[random.randrange(len(valid))] = random.randrange(256)
    wire.stop_sending(bytes(valid))

    assert re.fullmatch(rb"(HTTP/1.1 (4\d\d) .*)?", wire.end(), re.DOTALL)


# ------------------------------------------------------------------------------------------ side by side


@pytest.mark.long("app", "tests/app/test_http.py")
def test_connections_side_by_side_never_see_each_others_answers(service: Running, known: Known) -> None:
    """Sixteen clients with rows of their own, alone, in batches small and large, and some of them bad."""

    def calls_of(random: Random) -> list[Call]:
        def rows(count: int) -> list[Values]:
            return [row_of(random) for _ in range(count)]

        def columns(count: int) -> Values:
            return {"columns": {name: [row_of(random)[name] for _ in range(count)] for name in IRIS_FEATURES}}

        return [
            *(known.predict(row_of(random)) for _ in range(40)),
            *(known.infer(rows(random.choice((1, 1, 3)))) for _ in range(16)),
            *(known.predict({"instances": rows(random.randint(2, 30))}) for _ in range(12)),
            *(known.predict(columns(random.randint(2, 100))) for _ in range(4)),
            *(known.predict(bad_row_of(random)) for _ in range(6)),
            known.predict({"instances": [*rows(5), bad_row_of(random)]}),
            # These take so long that a thread may answer.
            known.predict({"instances": rows(500)}),
            known.predict(columns(1000)),
            known.infer(rows(1000)),
        ]

    def wrong_answers(calls: list[Call], random: Random) -> int:
        wrong = asked = 0
        with connected(service) as wire:
            while asked < 400:
                burst = random.choices(calls, k=random.choice((1, 1, 1, 2, 8)))
                wire.send(b"".join(call.whole for call in burst))
                wrong += sum(not call.fits(wire.answer()) for call in burst)
                asked += len(burst)
        return wrong

    clients = [(calls_of(random), random) for random in map(Random, range(16))]
    right = [call.answer for calls, _ in clients for call in calls]
    assert len(set(right)) == len(right)

    with ThreadPoolExecutor(len(clients)) as pool:
        wrong = list(pool.map(lambda client: wrong_answers(*client), clients))

    assert wrong == [0] * len(clients)
