"""Between HTTP and the service: bounded bodies, media types, and errors in one shape."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from fastapi import FastAPI, Request, Response
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from app.encodings import ENCODINGS, content_encoding, too_large
from app.errors import RequestError, error_body
from app.http import JSON, Answer, RequestHeaders, content_length, json_answer
from app.service import Service

CLIENT_CLOSED_REQUEST = json_answer(b"", 499)
"""Never sent; the status marks the request in the metrics."""

_SHARE = 8
"""A body may take an eighth of the remaining budget."""

FAILED = json_answer(error_body("internal", "the service failed; its log says why"), 500)

_access = logging.getLogger("app.access")


class Budget:
    """Bytes that this process holds for its clients, and their limit.

    It holds bodies until they are answered, input behind an unanswered request, and responses that the client has not
    read. A body may take only a share of the remaining bytes. So every size is accepted while few bytes are held, and
    clients that hold a lot and stall cannot keep smaller requests out.

    Args:
        limit: of the held bytes.
        max_body_bytes: a body of this size is accepted while less than half of the limit is held.

    Attributes:
        held: changed only by the event loop's thread.
    """

    def __init__(self, limit: int, max_body_bytes: int) -> None:
        self.held = 0
        self._limit = max(limit, max_body_bytes)
        self._share = max(1, min(_SHARE, self._limit // max_body_bytes // 2))

    @property
    def pressed(self) -> bool:
        """Whether more than half is held."""
        return 2 * self.held > self._limit

    @property
    def exhausted(self) -> bool:
        return self.held > self._limit

    def check(self, size: int, held: int = 0) -> None:
        """Raise a 503 if a size, of which `held` is held already, exceeds its share of the remaining bytes."""
        if self._share * size > self._limit - (self.held - held):
            raise RequestError(
                503,
                "overloaded",
                "too much is held for other requests: try again, or send fewer rows",
                reason="overloaded",
                headers=((b"retry-after", b"1"),),
            )

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that holds more bytes; all are released at the end of the block."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            self.check(held + size, held)
            self.held += size
            held += size

        try:
            yield hold
        finally:
            self.held -= held


def check_length(headers: RequestHeaders, limit: int) -> None:
    """Raise a 413 if the announced length exceeds the limit."""
    if content_length(headers) > limit:
        raise too_large(limit)


async def read_body(message: Message, receive: Receive, limit: int, hold: Callable[[int], None]) -> bytes:
    """The body that starts with a message.

    Args:
        message: the first one.
        receive: for the others.
        limit: of the body's length.
        hold: called with the number of bytes as they arrive; raises RequestError if there is no room for them.

    Raises:
        RequestError: 413 as soon as the limit is exceeded, or what `hold` raises.
        ClientDisconnect: the client closed the connection before the end of the body.
    """
    body = bytearray()
    while message["type"] == "http.request":
        piece = message.get("body", b"")
        if len(body) + len(piece) > limit:
            raise too_large(limit)
        hold(len(piece))
        body += piece
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()
    raise ClientDisconnect


def check_media_type(headers: RequestHeaders, extra: Collection[bytes] = ()) -> None:
    """Raise a 415 unless the media type is JSON, missing, or in `extra`, and the encoding is supported."""
    encoding = content_encoding(headers)
    if encoding not in (b"", *ENCODINGS):
        accepted = b", ".join(ENCODINGS)
        raise RequestError(
            415,
            "unsupported_encoding",
            f"content-encoding {encoding.decode('latin-1')} is not supported: send the body as it is, "
            f"or one of {accepted.decode()}",
            reason="media_type",
            headers=((b"accept-encoding", accepted),),
        )
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media in (b"", b"application/json", *extra):
        return
    if media.startswith(b"application/") and media.endswith(b"+json"):
        return
    raise RequestError(
        415,
        "unsupported_media_type",
        f"content-type {media.decode('latin-1')} is not supported: send {JSON}",
        reason="media_type",
    )


def add_error_handlers(app: FastAPI, service: Service) -> None:
    """Answer every error, including the framework's own, in one JSON shape."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)  # noqa: S101  the handler is registered for this class
        return response(service.refuse(error))

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  as above
        path = request.url.path
        code, message = {
            404: ("not_found", f"there is nothing at {path}"),
            405: ("method_not_allowed", f"{request.method} is not possible at {path}"),
        }.get(error.status_code, ("http_error", error.detail))
        body = error_body(code, message)
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        return Response(body, error.status_code, headers, media_type=JSON)

    async def disconnected(_: Request, __: Exception) -> Response:
        return response(CLIENT_CLOSED_REQUEST)

    async def failed(_: Request, __: Exception) -> Response:
        return response(FAILED)

    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(ClientDisconnect, disconnected)
    app.add_exception_handler(Exception, failed)


def response(answer: Answer) -> Response:
    """An answer as the framework's response."""
    body, status, headers = answer
    made = Response(body, status)
    made.raw_headers.extend(headers)
    return made


def log_observed(info: Info) -> None:
    """Log a request that the instrumentator observed."""
    log_access(info.request.scope, int(info.modified_status), info.modified_duration)


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """Log one line for an answered request."""
    client = scope.get("client")
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
        "client": client[0] if client else None,
    }
    _access.info("request %s", json.dumps(fields), extra={"fields": fields})
