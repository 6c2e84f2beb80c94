"""The fast path against the ordinary routes: the same answers and counts, and when it is not taken."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from app import fastpath
from app.errors import RequestError
from app.fastpath import INLINE_BYTES, INLINE_SECONDS, Endpoint
from app.http import Answer, RequestHeaders, json_answer
from app.main import Application
from app.metrics import HttpMetrics
from app.transport import Budget
from tests.app.conftest import Serve
from tests.app.wire import answer_on_the_wire
from tests.bundles import mixed_row, number_row
from tests.tools import examples

GOOD = number_row((5.1, 3.5, 1.4, 0.2)).values
PLANT = mixed_row(4.9, 3.0, "clay").values
NAMES = [*GOOD, *PLANT]

# ------------------------------------------------------------------------------ the same answers

numbers = st.floats(0, 15) | st.floats() | st.integers(-(10**25), 10**25)
values = numbers | st.none() | st.booleans() | st.text(max_size=3) | st.sampled_from(["clay", "sand"])
plausible = st.fixed_dictionaries({name: st.floats(1, 5) for name in GOOD})
plants = st.fixed_dictionaries(
    {"age": st.floats(0, 100)},
    optional={
        "Höhe (cm)": st.floats(0, 50) | st.none(),
        "soil type": st.sampled_from(["clay", "sand", None]),
    },
)
odd_rows = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), values, max_size=6)
rows = plausible | plants | odd_rows
columns = st.dictionaries(st.sampled_from(NAMES), st.lists(values, max_size=4), max_size=5)
even_columns = st.integers(1, 40).flatmap(
    lambda count: st.fixed_dictionaries(
        {name: st.lists(st.floats(1, 5), min_size=count, max_size=count) for name in GOOD}
    )
)
documents = (
    rows
    | st.builds(lambda each: {"instances": each}, st.lists(rows, max_size=4))
    | st.builds(lambda each: {"columns": each}, columns | even_columns)
    | st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
)


def tensor(name: str, data: list[Any], datatype: str, width: int | None) -> dict[str, Any]:
    shape = [len(data)] if width is None else [len(data), width]
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


tensors = st.builds(
    tensor,
    st.sampled_from(NAMES),
    st.lists(values, max_size=3) | st.lists(st.floats(1, 5), min_size=1, max_size=20),
    st.sampled_from(["FP64", "FP32", "INT64", "BYTES", "X"]),
    st.none() | st.just(1),
)
even_tensors = even_columns.map(
    lambda by_name: [tensor(name, by_name[name], "FP64", None) for name in by_name]
)
inference = st.fixed_dictionaries(
    {"inputs": even_tensors | st.lists(tensors, max_size=5)},
    optional={
        "id": st.text(max_size=3),
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["label", "probabilities", "x"])})
        ),
        "parameters": st.fixed_dictionaries({"binary_data_output": st.booleans()}),
    },
)

bodies = (documents | inference).map(lambda each: json.dumps(each).encode()) | st.binary(max_size=30)
cut_bodies = st.tuples(bodies, st.integers(0, 30)).map(lambda each: each[0][: -each[1] or None])
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["application/json", "Application/JSON; charset=utf-8", "application/x+json", "text/csv", ""]
        ),
        "content-encoding": st.sampled_from(["identity", "gzip"]),
        "inference-header-content-length": st.sampled_from(["0", "5", "99999", "-1", "x"]),
    },
)


Seen = tuple[int, dict[str, str], bytes]


class Ways:
    """Three applications of one bundle, each asked in another way.

    On the wire, where small requests are answered on the connection; through ASGI, where the endpoints stand
    before the router; and without the fast path, where the router answers.
    """

    def __init__(self, serve: Serve, model: Path, name: str) -> None:
        self.clients = [serve(model, max_body_bytes=3000) for _ in range(3)]
        self.wired, self.fast, self.ordinary = self.clients
        application(self.ordinary).fast_path = {}
        self.paths = ["/predict", f"/v2/models/{name}/infer"]

    def post(self, path: str, body: bytes, sent: dict[str, str]) -> list[Seen]:
        answers = (client.post(path, content=body, headers=sent) for client in (self.fast, self.ordinary))
        return [
            self._on_the_wire(path, body, sent),
            *((each.status_code, dict(each.headers), each.content) for each in answers),
        ]

    def counts(self) -> list[list[str]]:
        return [without_times(client.get("/metrics").text) for client in self.clients]

    def _on_the_wire(self, path: str, body: bytes, sent: dict[str, str]) -> Seen:
        length = {"host": "testserver", "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in (length | sent).items())
        request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        return parsed(asyncio.run(answer_on_the_wire(application(self.wired), request)))


def parsed(response: bytes) -> Seen:
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(status.split()[1]), {name.lower(): value for name, value in pairs}, body


def application(client: TestClient) -> Application:
    app = client.app
    assert isinstance(app, Application)
    return app


def without_times(text: str) -> list[str]:
    """The metrics but for how long the requests took, in an order that does not depend on who came first.

    Nor is it asked what the process uses: that is this one, three times, from one moment to the next.
    """
    own = r"^(http_request_duration\w*_(?:bucket|sum)\S*|process_\w+) \S+$"
    timeless = re.sub(own, r"\1", text, flags=re.MULTILINE)
    return sorted(timeless.splitlines())


@pytest.fixture(scope="module", params=["numbers", "mixed"])
def ways(request: pytest.FixtureRequest, number_model: Path, mixed_model: Path, serve: Serve) -> Ways:
    model, name = {"numbers": (number_model, "iris"), "mixed": (mixed_model, "plants")}[request.param]
    return Ways(serve, model, name)


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(body=bodies | cut_bodies, sent=st.just({}) | headers, path=st.sampled_from([0, 1]))
def test_all_ways_give_the_same_answer(ways: Ways, body: bytes, sent: dict[str, str], path: int) -> None:
    wired, fast, ordinary = ways.post(ways.paths[path], body, sent)

    assert wired == fast == ordinary
    assert fast[0] in {200, 413, 415, 422}


def test_all_ways_count_alike(ways: Ways) -> None:
    """After whatever the other tests have sent, so this one stands behind them."""
    for body in (json.dumps(GOOD), json.dumps(PLANT), "{", " " * 4000):
        for path in ways.paths:
            ways.post(path, body.encode(), {})

    wired, fast, ordinary = ways.counts()

    assert wired == fast == ordinary
    assert any(re.match(r'model_rejected_fields_total{field="(?!other").*} [1-9]', line) for line in fast)
    for status in (200, 413, 422):
        assert any(re.match(rf'http_requests_total{{.*status="{status}"}} [1-9]', line) for line in fast)


@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer", "/v2/models/iris/versions/{}/infer"])
def test_the_framework_is_not_asked(numbers: TestClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = numbers.get("/model").json()["version"]
    inputs = [tensor(name, [value], "FP64", None) for name, value in GOOD.items()]

    async def unexpected(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(FastAPI, "__call__", unexpected)
    answer = numbers.post(path.format(version), json=GOOD if path == "/predict" else {"inputs": inputs})
    assert answer.status_code == 200


# ------------------------------------------------------------------------------ when it is not taken


def test_middleware_that_is_added_sees_every_request(number_model: Path, serve: Serve) -> None:
    client = serve(number_model)
    app = application(client)

    @app.middleware("http")
    async def only_friends(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request) if request.headers.get("x-friend") else Response(status_code=401)

    assert client.post("/predict", json=GOOD).status_code == 401
    assert client.post("/v2/models/iris/infer", json={}).status_code == 401
    assert client.post("/predict", json=GOOD, headers={"x-friend": "yes"}).status_code == 200


@pytest.mark.parametrize("path", ["/predict/", "/x/predict", "/Predict", "/v2/models/other/infer"])
def test_other_paths_are_the_routers(numbers: TestClient, path: str) -> None:
    assert numbers.post(path, json=GOOD).status_code == 404


# ------------------------------------------------------------------------------ the endpoint by itself


class Exchange:
    """A request to an endpoint, without a server."""

    def __init__(self, answer: Callable[[bytes, RequestHeaders], Answer], **options: Any) -> None:
        registry = CollectorRegistry()
        self.http = HttpMetrics(registry)
        self.registry = registry
        self.sent: list[Message] = []
        refuse = lambda error: json_answer(error.body(), error.status)  # noqa: E731
        route, budget = self.http.route("/x", "POST"), Budget(10**9, 10**9)
        self.endpoint = Endpoint(answer, route, refuse, 10**9, budget, **options)

    def run(self, *messages: Message) -> list[Message]:
        return asyncio.run(self.answer(*messages))

    async def answer(self, *messages: Message) -> list[Message]:
        scope: Scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
        waiting, sent = list(messages), []

        async def receive() -> Message:
            return waiting.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await self.endpoint(scope, receive, send)
        finally:
            self.sent = sent
        return sent

    def counted(self, status: int) -> float | None:
        self.http.flush()
        labels = {"handler": "/x", "method": "POST", "status": str(status)}
        return self.registry.get_sample_value("http_requests_total", labels)


def body_of(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def test_a_body_may_come_in_parts() -> None:
    exchange = Exchange(lambda body, _: json_answer(body))

    start, end = exchange.run(body_of(b"a", more=True), body_of(b"", more=True), body_of(b"b"))

    assert start["headers"] == [(b"content-type", b"application/json"), (b"content-length", b"2")]
    assert end["body"] == b"ab"


def test_a_client_that_leaves_is_counted_apart() -> None:
    exchange = Exchange(lambda body, _: json_answer(body))

    exchange.run(body_of(b"a", more=True), {"type": "http.disconnect"})

    assert exchange.counted(499) == 1


def test_a_bug_is_answered_counted_and_raised_for_the_log() -> None:
    def broken(_: bytes, __: RequestHeaders) -> Answer:
        raise ZeroDivisionError

    exchange = Exchange(broken)
    with pytest.raises(ZeroDivisionError):
        exchange.run(body_of(b"{}"))

    start, end = exchange.sent
    assert start["status"] == 500
    assert orjson.loads(end["body"])["code"] == "internal"
    assert exchange.counted(500) == 1


def test_a_refusal_is_answered_and_counted() -> None:
    def refuse(_: bytes, __: RequestHeaders) -> Answer:
        raise RequestError(422, "invalid_input", "no", reason="wrong_type")

    exchange = Exchange(refuse)

    assert exchange.run(body_of(b"{}"))[0]["status"] == 422
    assert exchange.counted(422) == 1


# ------------------------------------------------------------------------------ where it computes


class Clock:
    """Time that passes only with the bytes that are worked on."""

    def __init__(self, seconds_per_byte: float) -> None:
        self.now = 0.0
        self.seconds_per_byte = seconds_per_byte


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(0.0)
    monkeypatch.setattr(fastpath, "thread_time", lambda: made.now)
    return made


def worked_inline(exchange: Exchange, size: int, fill: bytes = b" ") -> bool:
    (_, end) = exchange.run(body_of(fill * size))
    return bool(end["body"] == threading.main_thread().name.encode())


@pytest.fixture
def worker(clock: Clock) -> Exchange:
    def work(body: bytes, _: RequestHeaders) -> Answer:
        clock.now += clock.seconds_per_byte * len(body)
        return json_answer(threading.current_thread().name.encode())

    return Exchange(work, takes_long=lambda body: b"long" in body)


def test_the_first_batch_is_taken_for_slow_and_a_row_never_is(worker: Exchange, clock: Clock) -> None:
    clock.seconds_per_byte = 1.0

    assert not worked_inline(worker, 20_000)
    assert worked_inline(worker, INLINE_BYTES)


def test_fast_work_comes_to_the_event_loop_and_slow_work_leaves_it_at_once(
    worker: Exchange, clock: Clock
) -> None:
    clock.seconds_per_byte = INLINE_SECONDS / 100_000
    turns = [worked_inline(worker, 50_000) for _ in range(50)]
    assert not turns[0]
    assert turns[-1]
    assert not worked_inline(worker, 200_000)

    clock.seconds_per_byte = INLINE_SECONDS / 10_000
    # One slow batch is the price of finding out.
    assert [worked_inline(worker, 50_000) for _ in range(3)] == [True, False, False]


def test_what_takes_long_leaves_the_event_loop_and_says_nothing_about_the_rest(
    worker: Exchange, clock: Clock
) -> None:
    clock.seconds_per_byte = 0.0
    assert any(worked_inline(worker, 50_000) for _ in range(50))

    clock.seconds_per_byte = 1.0
    assert not worked_inline(worker, 1, b"long")
    assert not worked_inline(worker, 5_000, b"long")
    assert worked_inline(worker, 50_000)


def test_other_requests_are_answered_while_a_batch_is_worked_on() -> None:
    released = threading.Event()

    def work(body: bytes, _: RequestHeaders) -> Answer:
        if len(body) > INLINE_BYTES:
            assert released.wait(30)
        return json_answer(body[:1])

    exchange = Exchange(work)

    async def both() -> list[Message]:
        batch = asyncio.create_task(exchange.answer(body_of(b"b" * 20_000)))
        await asyncio.sleep(0.05)
        small = await exchange.answer(body_of(b"s"))
        assert small[1]["body"] == b"s"
        assert not batch.done()
        released.set()
        return await batch

    assert asyncio.run(both())[1]["body"] == b"b"
