"""HTTP connections that send what they have once per turn of the event loop.

uvicorn writes a response in two pieces, head and body, each as soon as it is there. Each piece is a packet,
and each wakes the peer. Here the pieces of all requests that were answered in one turn of the event loop wait
for its end: a response is one packet, and a peer with several connections is woken once. Nothing waits for
anything to arrive: when a single request is answered, the turn ends with it.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.http import WHOLE_RESPONSE, ResponseHeaders


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
    """A transport whose writes wait for the end of the turn; everything else is as it was."""

    __slots__ = ("_outbox", "_transport", "_unsent", "is_closing")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._unsent = b""
        # Asked for with every response, which is why it does not take the way of `__getattr__`.
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
        else:
            self._unsent = data
            self._outbox.add(self)

    def flush(self) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent and not self.is_closing():
            self._transport.write(unsent)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Cycle(RequestResponseCycle):
    """uvicorn's request and response, which can also take a whole response in one message.

    The message is an ASGI extension: `{"type": "espalier.response", "status", "headers", "body"}`, announced
    in the scope. An application on another server sends the two messages of the standard.
    """

    async def send(self, message: Any) -> None:
        if message["type"] != WHOLE_RESPONSE:
            await super().send(message)
            return
        status, headers, body = message["status"], message["headers"], message["body"]
        prefix = (
            _lines(tuple(self.default_headers)) if self.keep_alive and not self.flow.write_paused else None
        )
        if prefix is None or self.disconnected:
            length = (b"content-length", b"%d" % len(body))
            await super().send(
                {"type": "http.response.start", "status": status, "headers": [*headers, length]}
            )
            await super().send({"type": "http.response.body", "body": body})
            return
        self.response_started = self.response_complete = True
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\n\r\n%b"
            % (STATUS_LINE[status], prefix, _lines(headers), len(body), body)
        )
        self.message_event.set()
        self.on_response()


class Connection(HttpToolsProtocol):
    """uvicorn's connection on such a transport, without a timer for every response.

    uvicorn starts a timer after each response and cancels it at the next request. Here the server looks at
    its connections once a second instead.
    """

    def __init__(self, outbox: Outbox, **options: Any) -> None:
        super().__init__(**options)
        self._outbox = outbox
        self._looked_at: RequestResponseCycle | None = None
        self._idle_seconds = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._gathering = GatheringTransport(transport, self._outbox)
        super().connection_made(cast(asyncio.Transport, self._gathering))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # uvicorn names the class in the middle of its method; nothing has used the object yet.
        self.cycle.__class__ = Cycle
        self.scope["extensions"] = _EXTENSIONS

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

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

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


_EXTENSIONS: dict[str, dict[object, object]] = {WHOLE_RESPONSE: {}}


@lru_cache(maxsize=256)
def _lines(headers: ResponseHeaders) -> bytes:
    """Headers as they are sent; none if they have a say about the connection, which uvicorn then acts on."""
    if any(name == b"connection" for name, _ in headers):
        return b""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
