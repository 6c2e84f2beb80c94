"""HTTP connections on uvicorn's, with less to do for small requests and better manners.

Parsing, pipelining and everything that is not a small prediction is still uvicorn's
(`uvicorn.protocols.http.httptools_impl`). Two things make it faster.

A small prediction is answered as soon as its last byte is parsed. uvicorn starts a task for each request,
which calls the application, which asks for the body and sends a response in two messages; for an answer that
takes ten microseconds to compute, that is twice the work. Requests that may have to wait for something (large
bodies, bodies in chunks, `Expect`) go that way.

What is written leaves once per turn of the event loop. uvicorn sends head and body each by itself; each is a
packet and wakes the peer. Here a response is one packet, and a peer with several connections is woken once.
Nothing waits for anything to arrive: when a single request is answered, the turn ends with it.

And some things are as HTTP wants them: who has sent all still gets the answers; who is refused in the middle
of sending gets to read why; an offer to change the protocol is not taken up, with the body left in peace; what
follows a chunked body is no header; a head has an end; and what is no HTTP is answered in its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.responses import PlainTextResponse
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.errors import error_body
from app.fastpath import Endpoint
from app.http import RequestHeaders, ResponseHeaders
from app.main import Application
from app.transport import CLIENT_CLOSED_REQUEST

MAX_HEAD_BYTES = 64 * 1024
_LINGER_SECONDS = 2
_MOST_PIECES = 64
_MOST_TRAILERS = 100


class Outbox:
    """The transports that have something to send at the end of this turn."""

    def __init__(self) -> None:
        self._waiting: list[GatheringTransport] = []

    def add(self, transport: GatheringTransport) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(transport)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.flush()


class GatheringTransport:
    """A transport whose writes wait for the end of the turn, and which closes when the peer has done.

    Args:
        transport: the real one.
        outbox: of the event loop.
        peer_is_sending: whether the peer is in the middle of a body.
    """

    __slots__ = ("_outbox", "_peer_is_sending", "_transport", "_unsent", "is_closing")

    def __init__(
        self, transport: asyncio.Transport, outbox: Outbox, peer_is_sending: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._outbox = outbox
        self._peer_is_sending = peer_is_sending
        self._unsent: list[bytes] = []
        # Asked for with every response, which is why it does not take the way of `__getattr__`.
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._unsent:
            self._outbox.add(self)
        self._unsent.append(data)
        if len(self._unsent) >= _MOST_PIECES:
            # Of a long pipeline: the transport must notice if the peer does not read.
            self.flush()

    def flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._transport.is_closing():
            # uvloop raises this for a connection that broke a moment ago.
            with suppress(RuntimeError):
                self._transport.write(b"".join(unsent))

    def close(self) -> None:
        self.flush()
        if self._peer_is_sending() and not self.is_closing():
            # Closing with unread bytes would reset the connection, and the reset would overtake the answer.
            self.is_closing = lambda: True
            self._transport.set_protocol(_Lingering(self._transport))
            with suppress(RuntimeError):
                self._transport.write_eof()
        else:
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Lingering(asyncio.Protocol):
    """Reads without looking until the peer has done, or for a while."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._protocol = transport.get_protocol()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
        transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._protocol.connection_lost(exc)


class _Expected(NamedTuple):
    """A small request whose body is still to come."""

    endpoint: Endpoint
    headers: RequestHeaders
    started: float


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, application: Application, outbox: Outbox, **options: Any) -> None:
        super().__init__(**options)
        self._application = application
        self._outbox = outbox
        self._expected: _Expected | None = None
        self._offered = False
        self._refused = False
        self._head_bytes = 0
        self._looked_at: RequestResponseCycle | None = None
        self._idle_seconds = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._gathering = GatheringTransport(transport, self._outbox, self._is_being_sent_to)
        super().connection_made(cast(asyncio.Transport, self._gathering))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._expected is not None:
            endpoint, headers, started = self._expected
            endpoint.count(CLIENT_CLOSED_REQUEST, cast(Scope, self.cycle.scope), headers, started)
        super().connection_lost(exc)

    def _is_being_sent_to(self) -> bool:
        """Whether a request, or only its head, is not complete."""
        cycle = self.cycle
        return self.scope is not None and (
            cycle is None or cycle.scope is not self.scope or (cycle.more_body and cycle.response_complete)
        )

    def data_received(self, data: bytes) -> None:
        begun, cycle = self.scope, self.cycle
        within_head = begun is not None and (cycle is None or cycle.scope is not begun)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except HttpParserError:
            self._refuse()
        if within_head:
            self._mind_head(begun, len(data))
        elif begun is self.scope and cycle and cycle.more_body and len(self.headers) > _MOST_TRAILERS:
            # The headers of this request have long been taken; these come behind its body.
            self.transport.close()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offered = True
            return
        super().on_headers_complete()
        self.headers = []  # What may follow a chunked body are no headers.

    def _decline(self, rest: bytes) -> None:
        """Go on after a head that offers another protocol, where the parser ends its work and drops the body."""
        if not self._offered:
            return  # CONNECT: what follows is no HTTP.
        self._offered = False
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _refuse(self) -> None:
        """Answer what is no HTTP, after the requests ahead of it, and close."""
        if self._refused:
            return
        self._refused = True
        message = "Invalid HTTP request received."
        self.logger.warning("%s:%s: %s", *(self.client or ("?", "?")), message)
        ahead = self.cycle
        if ahead is None or ahead.more_body or ahead.response_complete:
            self.send_400_response(message)
            return
        self.flow.pause_reading()
        self.cycle = RequestResponseCycle(
            scope={**ahead.scope, "method": "GET"},
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self.cycle.more_body = False
        self.pipeline.appendleft((self.cycle, cast(ASGI3Application, PlainTextResponse(message, 400))))

    def _mind_head(self, begun: object, size: int) -> None:
        """Count what came while a head was under way, unless it was the end of it."""
        cycle = self.cycle
        if self.scope is not begun or (cycle is not None and cycle.scope is begun):
            self._head_bytes = 0
            return
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def _refuse_head(self) -> None:
        body = error_body("head_too_large", f"the head is larger than {MAX_HEAD_BYTES} bytes")
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio looks at it
        """The client has sent all it will; it may still be waiting for answers.

        Returns:
            Whether to stay open, until the last answer closes the connection.
        """
        self._gathering.flush()
        last = self.cycle
        if last is None or last.more_body or last.response_complete:
            return False
        last.keep_alive = False
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Called when the head is parsed and no earlier request is still to be answered."""
        scope = cycle.scope
        # A request that waited for others, its body complete, would be answered in the middle of theirs; and
        # only the other way waits for a peer that does not read.
        if cycle.more_body and scope["method"] == "POST" and not self.flow.write_paused:
            endpoint = self._application.fast_path.get(scope["path"])
            if endpoint is not None:
                headers = dict(scope["headers"])
                if endpoint.expects_little(headers):
                    self._expected = _Expected(endpoint, headers, perf_counter())
                    return
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """Called when the last byte of a body is parsed."""
        if self._offered:
            return
        super().on_message_complete()
        expected, self._expected = self._expected, None
        if expected is not None:
            self._answer(expected)

    def _answer(self, expected: _Expected) -> None:
        endpoint, headers, started = expected
        cycle = self.cycle
        answer = endpoint.answer(bytes(cycle.body), headers)
        body, status, answer_headers = answer
        general = cycle.default_headers
        # While the server drains, it says so with every response.
        last = not cycle.keep_alive or (len(general) > 1 and (b"connection", b"close") in general)
        cycle.response_started = cycle.response_complete = True
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\n%b\r\n%b"
            % (
                STATUS_LINE[status],
                _lines(tuple(general)),
                _lines(answer_headers),
                len(body),
                b"connection: close\r\n" if not cycle.keep_alive else b"",
                body,
            )
        )
        if last:
            self.transport.close()
        self.on_response_complete()
        endpoint.count(answer, cast(Scope, cycle.scope), headers, started)

    def on_response_complete(self) -> None:
        """As uvicorn's, but without the timer that it starts now and cancels at the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def in_flight(self) -> Iterator[str]:
        """The path of each request whose answer is not finished; asked once in a while, nothing is kept for it."""
        last = self.cycle
        if last is None or last.response_complete:
            return
        yield last.scope["path"]
        for cycle, _ in self.pipeline:
            # The newest waits in there too if there are others before it. Of the one that is being answered
            # then, uvicorn keeps no trace here but that it is one.
            yield cycle.scope["path"] if cycle is not last else ""

    def second_passed(self) -> None:
        """Close if nothing has come since the last answer for longer than connections are kept."""
        cycle = self.cycle
        # A new request has a scope as soon as its first byte is there.
        idle = cycle is not None and cycle.response_complete and self.scope is cycle.scope
        if not idle or cycle is not self._looked_at:
            self._looked_at = cycle
            self._idle_seconds = 0
            return
        self._idle_seconds += 1
        if self._idle_seconds >= self.timeout_keep_alive:
            self.timeout_keep_alive_handler()


@lru_cache(maxsize=256)
def _lines(headers: ResponseHeaders) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
