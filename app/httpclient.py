"""A small HTTP client for the event loop: posts JSON to one server, with bounded connections and answers.

The libraries for this weigh more than the rest of the service's code. The parser is that of the server. The caller sets the
time limit, and a request that is cancelled closes its connection.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from urllib.parse import SplitResult
from weakref import WeakKeyDictionary

from httptools import HttpParserError, HttpResponseParser

_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class AnswerError(Exception):
    """The server does not answer as it should; the message says what it does."""


class Client:
    """Posts JSON to one address over a bounded number of connections, which are kept for the next requests.

    Args:
        url: of the server.
        path: after the URL's own.
        connections: at most so many at once; further requests wait for one.
    """

    def __init__(self, url: SplitResult, path: str, connections: int) -> None:
        assert url.hostname is not None  # noqa: S101  the caller has checked
        self._host = url.hostname
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = url.scheme == "https"
        self._connections = connections
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._head = (
            f"POST {url.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {host}:{self._port}\r\n"
            "content-type: application/json\r\naccept: application/json\r\ncontent-length: "
        ).encode()
        # One event loop in a server, several in tests.
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()

    async def post(self, body: bytes) -> bytes:
        """The body of the answer.

        Raises:
            OSError: there is no connection, or it broke.
            AnswerError: the answer is not a 200.
        """
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = _Pool(asyncio.Semaphore(self._connections), [])
        message = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        async with pool.slots:
            while pool.idle:
                connection = pool.idle.pop()
                # The server may close an idle connection at any time, even at the moment of the next request.
                with suppress(_ClosedError):
                    return await self._exchanged(pool, connection, message)
            try:
                return await self._exchanged(pool, await self._connected(loop), message)
            except _ClosedError:
                raise AnswerError("it closed the connection without an answer") from None

    async def _exchanged(self, pool: _Pool, connection: _Connection, message: bytes) -> bytes:
        try:
            answer = await connection.exchange(message)
        finally:
            if connection.is_idle:
                pool.idle.append(connection)
            else:
                connection.abort()
        return answer

    async def _connected(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        _, connection = await loop.create_connection(
            _Connection, self._host, self._port, ssl=self._context if self._tls else None
        )
        return connection

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()


@dataclass
class _Pool:
    slots: asyncio.Semaphore
    idle: list[_Connection]


class _ClosedError(Exception):
    """The server closed the connection before it answered anything."""


class _Connection(asyncio.Protocol):
    """A connection to the server, with one request at a time.

    Attributes:
        is_idle: whether it takes another request.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._parser: Any = None
        self._received = False
        self._body = bytearray()
        self.is_idle = False

    async def exchange(self, message: bytes) -> bytes:
        """Send a request, and return the body of its answer."""
        if self._transport is None or self._transport.is_closing():
            raise _ClosedError
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        self._received = self.is_idle = False
        self._body = bytearray()
        self._transport.write(message)
        return await self._answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Nothing was asked.
            self.is_idle = False
            self.abort()
            return
        self._received = True
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._fail(AnswerError("its answer is not HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self.is_idle = False
        self._fail(
            AnswerError("it closed the connection within its answer") if self._received else _ClosedError()
        )
        self._transport = None

    # What the parser calls.

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > _MAX_ANSWER_BYTES:
            self._fail(AnswerError(f"its answer has more than {_MAX_ANSWER_BYTES} bytes"))

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status == 200:
            self.is_idle = bool(self._parser.should_keep_alive())
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(bytes(self._body))
        else:
            said = self._body[:200].decode("utf-8", "replace")
            self._fail(AnswerError(f"it answers {status}: {said}"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
