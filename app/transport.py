"""Between HTTP and the service: bounded bodies, media types, and errors in their one shape."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RequestError, error_body
from app.http import JSON, Answer, RequestHeaders, content_length, json_answer
from app.service import Service

CLIENT_CLOSED_REQUEST = json_answer(b"", 499)
"""Nobody reads this; the status only marks the request in the metrics."""

FAILED = json_answer(error_body("internal", "the service failed; its log says why"), 500)

_access = logging.getLogger("app.access")


def check_length(headers: RequestHeaders, limit: int) -> None:
    """Refuse a body that is announced to be over the limit.

    Raises:
        RequestError: 413.
    """
    if content_length(headers) > limit:
        raise _too_large(limit)


async def read_body(message: Message, receive: Receive, limit: int) -> bytes:
    """The body that starts with a message, refused as soon as it is known to be over the limit.

    Raises:
        RequestError: 413.
        ClientDisconnect: there is no more to come.
    """
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()
    raise ClientDisconnect


def check_media_type(headers: RequestHeaders, extra: Collection[bytes] = ()) -> None:
    """Accept JSON, no type at all, and `extra`.

    Raises:
        RequestError: 415.
    """
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise RequestError(
            415,
            "unsupported_encoding",
            f"content-encoding {encoding.decode('latin-1')} is not supported: send the body as it is",
            reason="media_type",
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
    """Answer every error, the framework's own included, in the one JSON shape."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)  # noqa: S101  the handler is registered for this class
        return response(service.refuse(error))

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  as above
        codes = {404: "not_found", 405: "method_not_allowed"}
        messages = {
            404: f"there is nothing at {request.url.path}",
            405: f"{request.method} is not possible at {request.url.path}",
        }
        body = error_body(
            codes.get(error.status_code, "http_error"), messages.get(error.status_code, error.detail)
        )
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


def as_get(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """A HEAD request as the GET that it stands for, with the same answer but for the body.

    FastAPI's routes know no HEAD, unlike Starlette's.
    """

    async def without_body(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return {**scope, "method": "GET"}, without_body


def response(answer: Answer) -> Response:
    """An answer as the framework's routes give it."""
    body, status, headers = answer
    made = Response(body, status)
    made.raw_headers.extend(headers)
    return made


class AccessLog:
    """ASGI middleware that logs one line a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            log_access(scope, status, time.perf_counter() - started)


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """Log one line about an answered request."""
    client = scope.get("client")
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
        "client": client[0] if client else None,
    }
    _access.info("request %s", json.dumps(fields), extra={"fields": fields})


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413, "too_large", f"the body is larger than {limit} bytes: send fewer rows", reason="too_large"
    )
