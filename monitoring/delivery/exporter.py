"""Reads a clone at intervals, and serves the facts of the last reading."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import exposition
from .clone import Clone, DeliveryError
from .facts import Facts

LONGEST_WAIT = 3600
"""The most seconds between a failed reading and the next."""


class Exporter:
    """Reads the clone at intervals; keeps the last facts while it cannot be read."""

    def __init__(self, source: Clone, interval: float) -> None:
        self.source = source
        self._interval = interval
        self._facts: Facts | None = None
        self._read_at: float | None = None
        self._failures = 0
        self._up = False
        self.stopping = threading.Event()

    def text(self) -> str:
        """The body of `/metrics`."""
        return exposition.text(self._facts, self._up, self._read_at)

    def refresh(self) -> float:
        """Read once; returns the seconds to wait before the next time."""
        try:
            self._facts = self.source.read()
        except DeliveryError as error:
            return self._failed(str(error))
        except Exception as error:
            # GitHub's answer may have an unknown form. The last facts stay true, and the next answer may be valid.
            return self._failed(f"{self.source.name}: an answer is not what it was: {error!r}")
        self._read_at, self._up = time.time(), True
        if self._failures:
            log("info", f"{self.source.name} can be read again")
        self._failures = 0
        return self._interval

    def run(self) -> None:
        """Until `stopping` is set."""
        while not self.stopping.is_set():
            self.stopping.wait(self.refresh())

    def _failed(self, reason: str) -> float:
        """Log the reason, and double the wait after each failure, up to the hour after which GitHub renews its limit."""
        self._up = False
        self._failures += 1
        log("error", reason)
        return max(self._interval, min(LONGEST_WAIT, self._interval * 2.0 ** min(self._failures - 1, 10)))


def log(level: str, message: str) -> None:
    """Write one line of JSON to stderr, in the service's form."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"time": now, "level": level, "message": message}), file=sys.stderr, flush=True)


def server(exporter: Exporter, host: str, port: int) -> ThreadingHTTPServer:
    """Answers `/metrics` and `/health`; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "espalier-delivery"
        timeout = 20

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, exporter.text(), exposition.CONTENT_TYPE)
            elif path == "/health":
                self._answer(200, "ok\n")
            else:
                self._answer(404, "here are /metrics and /health\n")

        def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Scrapes are not logged."""

    return ThreadingHTTPServer((host, port), Handler)
