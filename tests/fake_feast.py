"""A feature server that answers as Feast 0.67 does, or badly."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.tools import http_server

NEVER = "1970-01-01T00:00:00Z"


@dataclass
class FakeFeast:
    """What the server has and does.

    Attributes:
        rows: the values of each entity by their full names, `view__feature`; None is a value that is missing.
        times: event times by full name; now if not given.
        how: `well`, or the fault that each answer has.
        asked: the requests that came.
        connections: how many were opened.
    """

    rows: dict[Any, dict[str, Any]]
    key: str = "id"
    times: Mapping[str, str] = field(default_factory=dict)
    how: str = "well"
    status: int = 200
    body: bytes | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        keys = question["entities"][self.key]
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        results = [
            {"values": keys, "statuses": ["PRESENT"] * len(keys), "event_timestamps": [NEVER] * len(keys)}
        ]
        for name in names:
            found = [self.rows.get(key, {}).get(name) for key in keys]
            results.append(
                {
                    "values": found,
                    "statuses": ["NOT_FOUND" if each is None else "PRESENT" for each in found],
                    "event_timestamps": [self.times.get(name, now)] * len(keys),
                }
            )
        return {"results": results, "metadata": {"feature_names": [self.key, *names]}}


@contextmanager
def fake_feast(rows: dict[Any, dict[str, Any]], **options: Any) -> Iterator[FakeFeast]:
    feast = FakeFeast(rows, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            feast.connections += 1
            super().setup()

        def do_POST(self) -> None:
            assert self.path == "/get-online-features", self.path
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            feast.asked.append(question)
            content = json.dumps(feast.answer(question)).encode() if feast.body is None else feast.body
            with suppress(OSError):
                self._send(content)

        def _send(self, content: bytes) -> None:
            if feast.how == "hangs":
                time.sleep(2)
            if feast.how == "closes":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if feast.how == "no HTTP":
                self.wfile.write(b"SSH-2.0-nothing\r\n\r\n")
                return
            if feast.how == "chunked":
                self.send_response(feast.status)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for piece in (content[:7], content[7:]):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
                return
            self.send_response(feast.status)
            self.send_header("content-length", str(len(content) + (feast.how == "short")))
            self.end_headers()
            if feast.how == "drips":
                for start in range(len(content)):
                    self.wfile.write(content[start : start + 1])
                    time.sleep(0.05)
            else:
                self.wfile.write(content)
            if feast.how in ("short", "closes after"):
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as url:
        feast.url = url
        yield feast
