"""HTTP connections: uvicorn's, with less work for small requests, and limits on what a client can make them hold.

Parsing and the ASGI cycle are uvicorn's (`uvicorn.protocols.http.httptools_impl`). Two changes make it faster.

A small prediction is answered as soon as its last byte is parsed. uvicorn starts a task for each request, which calls
the application, which receives the body and sends a response in two messages. That doubles the work for an answer that
takes ten microseconds to compute. Only requests that may have to wait (large bodies, chunked bodies, `Expect`) use a
task.

Responses are written once per turn of the event loop. uvicorn sends head and body in separate packets, and each wakes
the peer. Here a response is one packet, and a peer with several connections is woken once. No response waits for others:
after a single request is answered, the turn ends.

What a client can make the service hold is limited:

- Nothing is parsed while a response is unfinished or unread. Input is kept unparsed until then, and reading pauses.
- Heads, trailers and the framing of chunks are limited in bytes and in number.
- Heads, bodies and unread responses have deadlines (`on_second`).
- Unparsed input, heads and unread responses count in the `Budget` of the process.
- An idle connection releases its last request.
- The number of connections is limited. When half of them are open, idle ones are closed early.

A request that breaks a rule is refused in order, after the responses before it, and the connection closes. A half-closed
client still receives its responses. A client that is refused while it sends can read the reason. A request that offers
to upgrade the protocol is answered without an upgrade.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from time import perf_counter
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from starlette.types import Scope
from uvicorn._types import ASGI3Application, ASGIReceiveEvent, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.errors import RequestError
from app.fastpath import Endpoint
from app.http import Answer, RequestHeaders, ResponseHeaders
from app.main import Application
from app.transport import CLIENT_CLOSED_REQUEST, response

MAX_HEAD_BYTES = 64 * 1024
"""Includes everything else that is not body: trailers, and chunk framing beyond `_FRAMING_PER_BYTE`."""
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 * 1024
"""Limit of the request target; a request holds several copies of it."""
_MAX_HOST_BYTES = 1024
_FRAMING_PER_BYTE = 6
"""Bytes on the wire for each byte of body; a chunk of one byte needs six."""

_UNDIVIDED_BYTES = 1024
"""Input up to this size is parsed at once. More is parsed request by request, because each queued request costs 2 KB."""
_MIN_PIECE_BYTES = 64
_MAX_PIECE_BYTES = 32 * 1024
_PIECES_PER_TURN = 4
"""Pieces that are parsed before other connections have their turn."""

_LINGER_SECONDS = 2
_MAX_GATHERED = 64
_MIN_BYTES_PER_SECOND = 4096
"""Bodies and responses that are slower on average end at their deadline, even if they never stall."""
_PRESSED_SECONDS = 5
"""How long a client may stall while more than half of the budget is held, or half of the connections are open."""

_HEAD_END = b"\r\n\r\n"
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]+(%25[\w.~-]+)?\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]*)?", re.ASCII
)


class Outbox:
    """The transports with data to send at the end of this turn."""

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
    """A transport that writes at the end of the turn, and that lets the peer finish sending before it closes.

    Args:
        transport: the real one.
        outbox: of the event loop.
        peer_is_sending: whether the peer may still send data that will not be read.
    """

    __slots__ = ("_outbox", "_peer_is_sending", "_transport", "_unsent", "is_closing")

    def __init__(
        self, transport: asyncio.Transport, outbox: Outbox, peer_is_sending: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._outbox = outbox
        self._peer_is_sending = peer_is_sending
        self._unsent: list[bytes] = []
        # Called for every response, so it bypasses `__getattr__`.
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._unsent:
            self._outbox.add(self)
        self._unsent.append(data)
        if len(self._unsent) >= _MAX_GATHERED:
            # In a long pipeline, the transport must notice that the peer does not read.
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
            # Closing a socket with unread bytes resets the connection, and the reset would overtake the response.
            self.is_closing = lambda: True
            self._transport.set_protocol(_Lingering(self._transport))
            with suppress(RuntimeError):
                self._transport.write_eof()
        else:
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Lingering(asyncio.Protocol):
    """Discards input until the peer closes, for at most `_LINGER_SECONDS`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._connection = cast(Connection, transport.get_protocol())
        # The connection's flow control must still see whether the peer reads.
        self.pause_writing = self._connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = self._connection.resume_writing  # type: ignore[method-assign]
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
        transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connection.connection_lost(exc)


class _Cycle(RequestResponseCycle):
    """uvicorn's, which can fail while it receives the body."""

    failure: RequestError | None = None

    async def receive(self) -> ASGIReceiveEvent:
        """As uvicorn's; raises a RequestError if the body breaks a rule."""
        message = None if self.failure else await super().receive()
        if message is None or self.failure:
            raise self._take_failure()
        return message

    def _take_failure(self) -> RequestError:
        # A reference to the error would hold the body, by its traceback, until the garbage collector runs.
        failure, self.failure = self.failure, None
        assert failure is not None  # noqa: S101  the caller has checked
        return failure


class _Expected(NamedTuple):
    """A small request whose body is incomplete."""

    endpoint: Endpoint
    headers: RequestHeaders
    started: float


class _EndOfInputError(Exception):
    """Stops the parser: the rest of the input is discarded."""


_UNUSED = asyncio.Event()
"""Placeholder for the event of a request that needs no task; creating one takes 2 % of the time of an answer."""

_Wait = Literal["head", "body", "response", "idle"]


class Connection(HttpToolsProtocol):
    cycle: _Cycle

    def __init__(self, application: Application, outbox: Outbox, **options: Any) -> None:
        super().__init__(**options)
        self._application = application
        self._settings = application.state.settings
        self._budget = application.state.budget
        self._outbox = outbox
        self._expected: _Expected | None = None
        self._answering: _Cycle | None = None
        self._upgrade_offered = False
        # Input.
        self._unparsed = b""
        self._position = 0
        self._parsing = False
        self._yielded = False
        """Parsing continues after other connections have had their turn."""
        self._ended = False
        """All further input is discarded."""
        self._open = False
        """A message has begun and is incomplete."""
        self._framing = 0
        """Bytes of this message that are not body."""
        self._head = 0
        """Bytes of a head that arrived before the end of its message; they are held with it."""
        self._received = 0
        self._held = 0
        """Bytes that the budget counts for this connection."""
        # Deadlines: what the client has to do next, for how long, and its progress.
        self._awaited: tuple[_Wait, object] | None = None
        self._seconds = self._stalled = self._first = self._last = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._gathering = GatheringTransport(transport, self._outbox, lambda: self._ended or self._open)
        super().connection_made(cast(asyncio.Transport, self._gathering))
        # Unparsed input comes before more is read.
        self._resume_reading = self.flow.resume_reading
        self.flow.resume_reading = self._proceed  # type: ignore[method-assign]
        if len(self.connections) > self._settings.max_connections:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        expected, self._expected = self._expected, None
        if expected is not None:
            endpoint, headers, started = expected
            endpoint.count(CLIENT_CLOSED_REQUEST, cast(Scope, self.cycle.scope), headers, started)
        self._open = False
        super().connection_lost(exc)
        self._discard_input()
        self._budget.held -= self._held
        self._held = 0
        # Reference cycles keep this object until the garbage collector runs, so it should be small.
        self.pipeline.clear()
        if self.cycle is not None:
            self.cycle.body = bytearray()

    # ------------------------------------------------------------------------------------------ input

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._unparsed or self._must_wait():
            self._unparsed = self._unparsed[self._position :] + data
            self._position = 0
            self._pause_input()
        elif len(data) <= _UNDIVIDED_BYTES:
            self._feed(data)
        else:
            self._unparsed = data
            self._parse()

    def _must_wait(self) -> bool:
        """Whether a response must be finished, or read by the client, before more is parsed."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or self.flow.write_paused:
            return self.flow.write_paused
        return bool(self.pipeline) or not cycle.more_body or len(cycle.body) > HIGH_WATER_LIMIT

    def _parse(self) -> None:
        """Parse the kept input until a response is due; then pause reading, or resume it if nothing is left."""
        pieces = _PIECES_PER_TURN
        while self._position < len(self._unparsed) and not self._must_wait():
            if not pieces:
                self._yielded = True
                self.loop.call_soon(self._take_turn)
                break
            pieces -= 1
            start, self._position = self._position, _piece_end(self._unparsed, self._position)
            self._feed(self._unparsed[start : self._position])
        if self._position < len(self._unparsed):
            self._pause_input()
            return
        self._unparsed, self._position = b"", 0
        if self._held:
            self._count_held()
        if not self._must_wait():
            self._resume_reading()

    def _take_turn(self) -> None:
        self._yielded = False
        self._proceed()

    def _proceed(self) -> None:
        """Continue with the input, if possible."""
        if not (self._parsing or self._yielded or self._ended) and (self._unparsed or self.flow.read_paused):
            self._parse()

    def _pause_input(self) -> None:
        """Keep unparsed input, if the budget has room for it, and pause reading."""
        self.flow.pause_reading()
        self._check_budget()

    def _check_budget(self) -> None:
        """Refuse the request if this connection would exceed its share of the budget."""
        before = self._held
        self._count_held()
        if self._held > before:
            try:
                self._budget.check(self._held, self._held)
            except RequestError as error:
                self._refuse(error)

    def _count_held(self) -> None:
        """Count what is held for this connection in the budget."""
        held = len(self._unparsed) + self._head + self.transport.get_write_buffer_size()
        self._budget.held += held - self._held
        self._held = held

    def _feed(self, piece: bytes) -> None:
        within, scope = self._open, self.scope
        self._parsing = True
        while True:
            try:
                self.parser.feed_data(piece)
            except HttpParserUpgrade as offer:
                if self._upgrade_offered:
                    piece = self._head_without_upgrade() + piece[offer.args[0] :]
                    continue
                self._refuse(_malformed("CONNECT is not supported"))
            except HttpParserError:
                self._refuse(_malformed("this is not a valid HTTP request"))
            break
        self._parsing = False
        if self._open:
            self._received += len(piece)
            if not within or scope is self.scope:
                self._limit_framing(len(piece))

    def _limit_framing(self, size: int) -> None:
        """Refuse a message that has too many bytes besides its body, or too large an incomplete head."""
        self._framing = max(0, self._framing + size)
        if self._framing > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(_too_large_head())
        elif len(self.url) > MAX_TARGET_BYTES:
            self._refuse(_too_long_target())
        elif self._framing > max(self._head, _UNDIVIDED_BYTES):
            self._head = self._framing
            self._check_budget()

    def _discard_input(self) -> None:
        """Discard all further input."""
        self._ended = True
        self._unparsed, self._position = b"", 0
        if self._held:
            self._count_held()

    # ------------------------------------------------------------------------------------------ requests

    def on_message_begin(self) -> None:
        cycle = self.cycle
        if self._ended or (cycle is not None and not cycle.keep_alive):
            self._discard_input()
            raise _EndOfInputError
        self._open = True
        self._framing = self._head = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": cast(str, self.scheme),
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }  # type: ignore[typeddict-item]  # the head adds the others

    def on_headers_complete(self) -> None:
        parser = self.parser
        method = parser.get_method()
        if parser.should_upgrade() and method != b"CONNECT":
            self._upgrade_offered = True
            return
        version = parser.get_http_version()
        headers = dict(self.headers)
        try:
            self._check_head(version, headers)
        except RequestError as error:
            self._refuse(error)
            raise _EndOfInputError from None
        scope: Any = self.scope
        url = parse_url(self.url)
        # "http://host" without a path means the root.
        scope["raw_path"] = url.path or b"/"
        path = scope["raw_path"].decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["query_string"] = url.query or b""
        scope["method"] = method.decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        self.headers = []  # Trailers may follow; they are not headers.
        self._begin(scope, self.app, headers, version != "1.0" and parser.should_keep_alive())

    def _check_head(self, version: str, headers: RequestHeaders) -> None:
        """Check everything that decides where a request ends and which host it is for.

        Raises:
            RequestError: 400, 414 or 431.
        """
        if len(self.headers) > MAX_HEADERS:
            raise _too_large_head()
        if len(self.url) > MAX_TARGET_BYTES:
            raise _too_long_target()
        coding = headers.get(b"transfer-encoding")
        if len(self.headers) != len(headers):
            names = [name for name, _ in self.headers]
            if names.count(b"host") > 1:
                raise _malformed("there is more than one Host header")
            if names.count(b"transfer-encoding") > 1:
                coding = b""
        host = headers.get(b"host")
        if host is None:
            if version != "1.0":
                raise _malformed("there is no Host header")
        elif len(host) > _MAX_HOST_BYTES or not _is_host(host):
            raise _malformed("the Host header is not a host with an optional port")
        if b"#" in self.url:
            # A proxy may have seen another path.
            raise _malformed("the request target has a fragment")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            # RFC 9112, 6.1 recommends 501 for other codings, but metrics would count that as the service's fault.
            raise _malformed("Transfer-Encoding must be there once, say chunked, and be HTTP/1.1")

    def _begin(
        self, scope: HTTPScope, app: ASGI3Application, headers: RequestHeaders, keep_alive: bool
    ) -> _Cycle:
        """Start a request, or queue it behind unanswered ones."""
        ahead = self.cycle
        self.cycle = cycle = _Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=_UNUSED,
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if ahead is None or ahead.response_complete:
            self._start(cycle, app, headers)
        else:
            cycle.message_event = asyncio.Event()
            self.pipeline.appendleft((cycle, app))
        return cycle

    def _start(self, cycle: _Cycle, app: ASGI3Application, headers: RequestHeaders | None = None) -> None:
        """Start a request whose head is parsed, after the responses before it are finished."""
        scope = cycle.scope
        # Only an incomplete body is answered inline: a complete one would be answered within the previous response.
        # And only a task can wait for a peer that does not read.
        if cycle.more_body and scope["method"] == "POST" and not self.flow.write_paused:
            endpoint = self._application.fast_path.get(scope["path"])
            if endpoint is not None and cycle.failure is None:
                headers = dict(scope["headers"]) if headers is None else headers
                if endpoint.is_small(headers):
                    self._expected = _Expected(endpoint, headers, perf_counter())
                    return
        self._answering = cycle
        if cycle.message_event is _UNUSED:
            cycle.message_event = asyncio.Event()
        self._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._framing -= _FRAMING_PER_BYTE * len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if self._expected is None:
                cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._upgrade_offered:
            return
        self._open = False
        cycle = self.cycle
        cycle.more_body = False
        expected, self._expected = self._expected, None
        if expected is None:
            cycle.message_event.set()
        elif expected.endpoint.is_quick(cycle.body):
            self._answer(expected, expected.endpoint.answer(bytes(cycle.body), expected.headers))
        else:
            self._start(cycle, self.app)
            cycle.message_event.set()

    def _head_without_upgrade(self) -> bytes:
        """The head without its upgrade, for a new parser; the old one would take the body for the other protocol."""
        self._upgrade_offered = False
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio looks at it
        """The client has closed its sending half; returns whether it still waits for responses."""
        self._gathering.flush()
        last: _Cycle | None = self.cycle
        if self._open and last is not None and last.scope is self.scope:
            # The last request is incomplete and will not be answered.
            last = None
            if self.pipeline:
                self.pipeline.popleft()
                last = cast(_Cycle, self.pipeline[0][0]) if self.pipeline else self._answering
        if last is None or last.response_complete:
            return False
        self._discard_input()
        self._open = False
        self.cycle, self.scope = last, last.scope
        last.keep_alive = False
        return True

    # ------------------------------------------------------------------------------------------ responses

    def _answer(self, expected: _Expected, answer: Answer) -> None:
        endpoint, headers, started = expected
        cycle = self.cycle
        body, status, answer_headers = answer
        general = cycle.default_headers
        # While the server drains, every response closes its connection.
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
        """As uvicorn's, but without its keep-alive timer for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._discard_input()
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start(cast(_Cycle, cycle), app)
        if not self._parsing:
            self._proceed()

    def _refuse(self, error: RequestError) -> None:
        """Answer the request that breaks a rule, after the requests before it, and close the connection."""
        if self._ended:
            return
        self._discard_input()
        cycle = self.cycle
        self.logger.info("%s:%s: %s %s", *(self.client or ("?", "?")), error.status, error.message)
        if not self._open or cycle is None or cycle.scope is not self.scope:
            # The faulty request has no cycle yet.
            self._open = False
            self.scope = {**self.scope, "method": "GET", "path": ""}
            answer = self._application.state.service.refuse(error)
            self._application.state.http.refuse(error.status)
            self.expect_100_continue = False
            refused = self._begin(self.scope, cast(ASGI3Application, response(answer)), {}, keep_alive=False)
            refused.more_body = False
            return
        cycle.keep_alive = False
        expected, self._expected = self._expected, None
        if expected is not None:
            self._answer(expected, expected.endpoint.refuse(error))
        elif cycle.response_complete:
            self.transport.close()
        else:
            cycle.failure = error
            cycle.message_event.set()

    def pause_writing(self) -> None:
        """The client does not read as fast as responses are written."""
        super().pause_writing()
        self._count_held()
        if self._budget.exhausted:
            # Later, because the transport is writing now.
            self.loop.call_soon(self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._awaited = None
        self._count_held()
        self._proceed()

    def in_flight(self) -> Iterator[str]:
        """The path of each unfinished request."""
        last = self.cycle
        if last is None or last.response_complete:
            return
        first = self._answering if self.pipeline else last
        if first is not None:
            yield first.scope["path"]
        for cycle, _ in self.pipeline:
            yield cycle.scope["path"]

    def is_idle(self) -> bool:
        """Whether no request has begun, not even in bytes that arrived and are unread."""
        cycle = self.cycle
        if self._open or self._unparsed or not (cycle is None or cycle.response_complete):
            return False
        return self.transport.is_closing() or not _unread_bytes(self.transport)

    def shutdown(self) -> None:
        """Close if idle; otherwise the next response closes the connection."""
        if self.is_idle():
            self.transport.close()
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    # ------------------------------------------------------------------------------------------ deadlines

    def on_second(self) -> None:
        """Enforce the deadlines; called once a second, so that requests need no timers."""
        self._release_answered()
        self._count_held()
        awaited, progress = self._next_action()
        before, self._awaited = self._awaited, awaited
        if awaited is None or before is None or awaited[0] != before[0] or awaited[1] is not before[1]:
            self._seconds = self._stalled = 0
            self._first = self._last = progress
            return
        wait = awaited[0]
        self._seconds += 1
        self._stalled = self._stalled + 1 if progress == self._last else 0
        self._last = progress
        limit = self._limit_of(wait)
        moved = abs(progress - self._first)
        if self._stalled >= limit or self._seconds >= limit + moved / _MIN_BYTES_PER_SECOND:
            self._time_out(wait)

    def _release_answered(self) -> None:
        """Release the last request when it is answered; otherwise an idle connection would hold it."""
        cycle = self.cycle
        if cycle is None or not cycle.response_complete or not cycle.scope["path"]:
            return
        is_last = cycle.scope is self.scope
        cycle.scope = {**cycle.scope, "headers": [], "path": "", "raw_path": b"", "query_string": b""}
        cycle.body = bytearray()
        if is_last:
            self.scope, self.url, self._head = cycle.scope, b"", 0

    def _next_action(self) -> tuple[tuple[_Wait, object] | None, int]:
        """What the client has to do next, for which object, and its progress as a number."""
        cycle, unread = self.cycle, self.transport.get_write_buffer_size()
        if unread or self.transport.is_closing():
            return ("response", cycle), unread
        if self._must_wait():
            return None, 0
        if self._open:
            within_body = cycle is not None and cycle.scope is self.scope
            return ("body", cycle) if within_body else ("head", self.scope), self._received * within_body
        return ("head", self.flow) if cycle is None else ("idle", cycle), 0

    def _limit_of(self, wait: _Wait) -> int:
        if wait == "response" and self._budget.exhausted:
            return 1
        limit: int = self.timeout_keep_alive if wait == "idle" else getattr(self._settings, f"{wait}_seconds")
        pressed = 2 * len(self.connections) > self._settings.max_connections or (
            wait != "idle" and self._budget.pressed
        )
        return min(limit, _PRESSED_SECONDS) if pressed else limit

    def _time_out(self, wait: _Wait) -> None:
        self._awaited = None
        if wait == "response":
            self.logger.info("%s:%s: the response is not read", *(self.client or ("?", "?")))
            self.transport.abort()
        elif self._open:
            self._refuse(RequestError(408, "timeout", f"the {wait} of the request takes too long"))
        else:
            self.timeout_keep_alive_handler()


def _piece_end(data: bytes, start: int) -> int:
    """The end of the next head or trailers, so that few requests are parsed at once."""
    most = min(start + _MAX_PIECE_BYTES, len(data))
    # Searching for a single byte is much faster, and most bodies have no line ends.
    line_end = data.find(b"\r", start, most)
    if line_end < 0:
        return most
    end = data.find(_HEAD_END, max(line_end, start + _MIN_PIECE_BYTES), most)
    return most if end < 0 else end + len(_HEAD_END)


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _malformed(message: str) -> RequestError:
    return RequestError(400, "malformed_request", message)


def _too_large_head() -> RequestError:
    return RequestError(
        431,
        "head_too_large",
        f"head and trailers may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers",
    )


def _too_long_target() -> RequestError:
    return RequestError(
        414, "target_too_long", f"path and query may have {MAX_TARGET_BYTES} bytes; send data in the body"
    )


def _unread_bytes(transport: asyncio.Transport) -> int:
    """The number of bytes in the socket's receive buffer."""
    waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder)


@lru_cache(maxsize=256)
def _lines(headers: ResponseHeaders) -> bytes:
    """Headers in the format of HTTP."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
