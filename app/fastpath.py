"""Predictions without the framework's overhead.

FastAPI spends nine tenths of the time of a small request on routes, dependencies and middleware. Here each operation that
predicts is an ASGI application, which comes before the router. The ordinary route of the operation also calls `respond`,
so both give the same answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, thread_time

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.encodings import content_encoding, decompress
from app.errors import RequestError
from app.featurestore import FeatureStore
from app.http import Answer, RequestHeaders, content_length
from app.metrics import RouteMetrics
from app.offload import Offload
from app.transport import (
    CLIENT_CLOSED_REQUEST,
    FAILED,
    Budget,
    check_length,
    check_media_type,
    log_access,
    read_body,
)

_log = logging.getLogger("app")

INLINE_SECONDS = 0.001
"""Work that is expected to take longer runs in a thread, so that single rows need not wait. The hand-over takes about
0.1 ms, so shorter work runs at once."""
INLINE_BYTES = 2 * 1024
"""Bodies up to this size are answered at once, except those that ask for what takes long."""
_FIRST_GUESS = INLINE_SECONDS / (8 * 1024)
"""Seconds per byte before the first measurement: those of a forest of 100 trees."""

# One thread for all endpoints: batches are bound by the processor, and only one at a time uses memory. It answers what no
# process answers (`app.offload`).
_thread = ThreadPoolExecutor(1, thread_name_prefix="batch")


class Endpoint:
    """One operation: a body in, an answer out.

    Args:
        answer: computes the answer from the body and the request's headers.
        metrics: of the operation's route.
        refuse: converts an error to its answer.
        max_body_bytes: larger bodies get a 413.
        budget: of the process, for bodies that are not small.
        media_types: accepted besides JSON.
        takes_long: whether a body asks for what takes long however small it is; such a body is answered in the thread.
        features: completes bodies that name an entity, which take long.
        offload: the process for large requests, if there is one.
        answer_elsewhere: asks that process for the answer.
        access_log: whether each answer is logged.
    """

    def __init__(
        self,
        answer: Callable[[bytes, RequestHeaders], Answer],
        metrics: RouteMetrics,
        refuse: Callable[[RequestError], Answer],
        max_body_bytes: int,
        budget: Budget,
        media_types: Collection[bytes] = (),
        *,
        takes_long: Callable[[bytes | bytearray], bool] | None = None,
        features: FeatureStore | None = None,
        offload: Offload | None = None,
        answer_elsewhere: Callable[[bytes, RequestHeaders], Answer] | None = None,
        access_log: bool = False,
    ) -> None:
        self._answer = answer
        self._metrics = metrics
        self.refuse = refuse
        self._max_body_bytes = max_body_bytes
        self._budget = budget
        self._inline_bytes = min(INLINE_BYTES, max_body_bytes)
        self._media_types = media_types
        self._takes_long = takes_long
        self._features = features
        self._offload = offload
        self._elsewhere = answer_elsewhere
        self._access_log = access_log
        self._seconds_per_byte = _FIRST_GUESS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application, and count the answer."""
        started = perf_counter()
        headers = dict(scope["headers"])
        failure = None
        try:
            answer = await self.respond(headers, receive)
        except RequestError as error:
            answer = self.refuse(error)
        except ClientDisconnect:
            answer = CLIENT_CLOSED_REQUEST
        except Exception as error:
            answer, failure = FAILED, error
        body, status, answer_headers = answer
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [*answer_headers, length]})
        await send({"type": "http.response.body", "body": body})
        self.count(answer, scope, headers, started)
        if failure is not None:
            raise failure  # The server logs it.

    def is_small(self, headers: RequestHeaders) -> bool:
        """Whether the request announces a small body, so that `answer` may be called when it is complete, if `is_quick`."""
        return (
            0 < content_length(headers) <= self._inline_bytes
            and b"expect" not in headers
            and b"content-encoding" not in headers
        )

    def is_quick(self, body: bytes | bytearray) -> bool:
        """Whether the time that a body takes is known from its size."""
        return (self._takes_long is None or not self._takes_long(body)) and (
            self._features is None or not self._features.is_asked_for(body)
        )

    def answer(self, body: bytes, headers: RequestHeaders) -> Answer:
        """Answer at once, also invalid requests; the caller counts the answer."""
        try:
            self._check_media_type(headers)
            return self._answer(body, headers)
        except RequestError as error:
            return self.refuse(error)
        except Exception:
            _log.exception("a request failed")
            return FAILED

    def count(self, answer: Answer, scope: Scope, headers: RequestHeaders, started: float) -> None:
        """Count and log an answer. The request started at that value of the performance counter."""
        body, status, _ = answer
        seconds = perf_counter() - started
        # Not the headers, which would be held until the answer is counted.
        self._metrics.count((status, seconds, content_length(headers), len(body)))
        if self._access_log:
            log_access(scope, status, seconds)

    def _check_media_type(self, headers: RequestHeaders) -> None:
        if headers.get(b"content-type") != b"application/json" or b"content-encoding" in headers:
            check_media_type(headers, self._media_types)

    async def respond(self, headers: RequestHeaders, receive: Receive) -> Answer:
        """Receive the body and answer the request.

        Raises:
            RequestError: 413, 415, 422 or 503.
            ClientDisconnect: the client closed the connection before the end of the body.
        """
        self._check_media_type(headers)
        if b"expect" in headers:
            # A client that waits for "100 Continue" gets the refusal instead.
            check_length(headers, self._max_body_bytes)
        message = await receive()
        body: bytes = message.get("body", b"")
        encoding = content_encoding(headers)
        whole = message.get("more_body") is False and not encoding
        if len(body) <= self._inline_bytes and whole and self.is_quick(body):
            return self._answer(body, headers)
        check_length(headers, self._max_body_bytes)
        self._budget.check(content_length(headers))
        with self._budget.holding() as hold:
            body = await read_body(message, receive, self._max_body_bytes, hold)
            if self._features is not None and (encoding or self._features.is_asked_for(body)):
                if encoding:
                    loop = asyncio.get_running_loop()
                    body = await loop.run_in_executor(_thread, self._decompressed, body, encoding)
                    headers, encoding = {**headers, b"content-encoding": b""}, b""
                completed = await self._features.complete(body)
                hold(max(0, len(completed) - len(body)))
                body = completed
            large = len(body) > self._inline_bytes
            if not encoding and len(body) * self._seconds_per_byte <= INLINE_SECONDS and self.is_quick(body):
                return self._answer_timed(body, headers)
            loop = asyncio.get_running_loop()
            if large and self._offload is not None and self._offload.is_ready():
                return await loop.run_in_executor(
                    self._offload.thread, self._answer_elsewhere, body, encoding, headers
                )
            if encoding:
                return await loop.run_in_executor(_thread, self._answer_compressed, body, encoding, headers)
            return await loop.run_in_executor(_thread, self._answer_timed, body, headers)

    def _answer_compressed(self, body: bytes, encoding: bytes, headers: RequestHeaders) -> Answer:
        return self._answer(self._decompressed(body, encoding), headers)

    def _decompressed(self, body: bytes, encoding: bytes) -> bytes:
        self._budget.check(len(body), len(body))
        return decompress(body, encoding, self._max_body_bytes)

    def _answer_elsewhere(self, body: bytes, encoding: bytes, headers: RequestHeaders) -> Answer:
        assert self._elsewhere is not None  # noqa: S101  for mypy: it is given with the process
        assert self._offload is not None  # noqa: S101  as above
        self._budget.check(len(body), len(body))
        answer = self._elsewhere(body, headers)
        if not encoding:
            self._learn(body, self._offload.seconds)
        return answer

    def _answer_timed(self, body: bytes, headers: RequestHeaders) -> Answer:
        # Unread responses may have filled the budget while this request waited.
        self._budget.check(len(body), len(body))
        started = thread_time()
        answer = self._answer(body, headers)
        self._learn(body, thread_time() - started)
        return answer

    def _learn(self, body: bytes, seconds: float) -> None:
        """Measure the time per byte, which differs tenfold between models and shapes of requests."""
        # What takes long says nothing about the other bodies, and neither do compressed ones.
        if self.is_quick(body):
            pace = seconds / len(body)
            # Up at once and down slowly: too high an estimate costs a hand-over, too low a one makes all requests wait.
            self._seconds_per_byte = max(pace, 0.9 * self._seconds_per_byte + 0.1 * pace)
