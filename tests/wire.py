"""HTTP/1.1 by hand: requests that no client library would send, and their answers read strictly, by h11."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import h11

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST instead of FIN."""


@dataclass(frozen=True)
class Answer:
    """A response that came whole.

    Attributes:
        headers: names in lower case.
        interim: statuses that came before it, such as 100.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    interim: tuple[int, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        """Whether it announces that the connection ends with it."""
        return self.headers.get("connection", "").lower() == "close"


class AnswerReader:
    """Puts one response together out of bytes as they come, without reading any itself.

    Args:
        method: of the request, because the answer to HEAD has no body whatever its length says.

    Attributes:
        rest: what came after the response.
    """

    def __init__(self, method: str) -> None:
        self.rest = b""
        self._parser = h11.Connection(h11.CLIENT)
        # h11 reads a response only after its request; where that one goes is no concern of ours.
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "any")]))
        self._parser.send(h11.EndOfMessage())
        self._head: h11.Response | None = None
        self._interim: list[int] = []
        self._body = bytearray()

    def feed(self, content: bytes) -> Answer | None:
        """Take what was received, b"" for the end of the connection; the response if it is now whole.

        Raises:
            h11.RemoteProtocolError: this is no HTTP, or it ended too early.
        """
        self._parser.receive_data(content)
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.InformationalResponse):
                self._interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self._answer()
            else:
                raise h11.RemoteProtocolError("the connection ended without an answer")

    def _answer(self) -> Answer:
        assert self._head is not None
        self.rest = self._parser.trailing_data[0]
        headers = {name.decode(): value.decode("latin-1") for name, value in self._head.headers}
        return Answer(self._head.status_code, headers, bytes(self._body), tuple(self._interim))


class Wire:
    """A connection that sends any bytes and reads answers one after the other."""

    def __init__(self, port: int, patience: float) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        # Otherwise the kernel would put pieces together again.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send each piece by itself, with a pause after it."""
        for piece in pieces:
            self.socket.sendall(piece)
            if pause:
                time.sleep(pause)

    def answer(self, method: str = "POST") -> Answer:
        """The next answer.

        Raises:
            TimeoutError: there is none.
            ConnectionError, h11.RemoteProtocolError: the connection ended before it.
        """
        reader = AnswerReader(method)
        whole = reader.feed(self._received) if self._received else None
        while whole is None:
            whole = reader.feed(self.socket.recv(65536))
        self._received = reader.rest
        return whole

    def end(self) -> bytes:
        """Whatever still comes until the service closes the connection.

        Raises:
            TimeoutError: it does not.
        """
        rest = self._received
        try:
            while received := self.socket.recv(65536):
                rest += received
        except ConnectionError:
            pass  # A reset is an end as well.
        return rest

    def stop_sending(self, last: bytes = b"") -> None:
        """Send the last bytes and, in the same packet if possible, the end; answers can still come."""
        self.socket.sendall(last, getattr(socket, "MSG_MORE", 0))
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close at once and rudely."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()


def request(method: str, target: str, *headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """A request as bytes, with nothing added but its Host and, unless the headers say, the body's length."""
    lines = [f"{method} {target} HTTP/{version}", "Host: service", *headers]
    framed = any(each.lower().startswith(("content-length:", "transfer-encoding:")) for each in headers)
    if body and not framed:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(target: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    return request("POST", target, *headers, body=body, version=version)


def pieces_of(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def chunked(pieces: Iterable[bytes], *, extension: str = "", trailers: Iterable[str] = ()) -> bytes:
    """A body in the chunked transfer coding, one chunk a piece."""
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension.encode(), piece) for piece in pieces]
    return b"".join([*chunks, b"0\r\n", *(f"{each}\r\n".encode() for each in trailers), b"\r\n"])
