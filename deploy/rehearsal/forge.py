"""What the played forges have in common: a server on loopback, routes, pages of lists, and a bare repository.

A request that the forge refuses gets the forge's answer. One that no route plays gets 404 and is recorded in `errors`.
"""

from __future__ import annotations

import json
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

Json = dict[str, Any]


class Refused(Exception):  # noqa: N818 - it is an answer
    """What GitHub answers instead: a status, and its JSON."""

    def __init__(self, status: int, message: str, *errors: Json) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {
            "message": message,
            "status": str(status),
            **({"errors": errors} if errors else {}),
        }


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below repos/OWNER/NAME/."""
    query: dict[str, str]
    body: Json
    login: str

    @property
    def user(self) -> Json:
        return {"login": self.login, "type": "Bot" if self.login.endswith("[bot]") else "User"}


@dataclass(frozen=True)
class Answer:
    """The JSON of a route."""

    body: Any
    status: int = 200
    pages: bool = False
    """Whether `body` is a list to be cut by per_page and page."""


@dataclass(frozen=True)
class Response:
    """What is sent."""

    status: int
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Route = Callable[..., Answer]


class Played(ABC):
    """A forge for one repository."""

    def __init__(self, repository: str, origin: Path | None, tokens: dict[str, str] | None) -> None:
        """`tokens` gives the login of each token that is let in; without it every token is espalier[bot]'s."""
        self.repository = repository
        self.origin = origin
        self.tokens = tokens
        self.requests: list[str] = []
        """METHOD PATH of every request, in order."""
        self.errors: list[str] = []
        """Requests that no route plays, and faults of this server: must be empty at the end."""
        self._lock = threading.RLock()
        self._ids = iter(range(1001, 10**9))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    @abstractmethod
    def site(self) -> str:
        """The address of the repository for people and git."""

    @abstractmethod
    def environment(self, token: str = "a-token", folder: Path | None = None) -> dict[str, str]:
        """What makes commands talk to this server with a token; `folder` is for settings of their programs."""

    @abstractmethod
    def _routes(self) -> list[tuple[str, str, Route]]:
        """Method, pattern of the path, and what answers it."""

    @abstractmethod
    def _answer(self, method: str, target: str, token: str, payload: bytes) -> tuple[Answer, dict[str, str]]:
        """The answer to a request, and further headers."""

    def _token(self, headers: Message) -> str:
        """The token in the headers of a request; empty without one."""
        return headers.get("Authorization", "").partition(" ")[2]

    def respond(self, method: str, target: str, headers: Message, payload: bytes) -> Response:
        """Answer one request; the target is what stands in its first line."""
        more: dict[str, str] = {}
        try:
            with self._lock:
                answer, more = self._answer(method, target, self._token(headers), payload)
        except Refused as refused:
            answer = Answer(refused.body, refused.status)
        except Exception as error:
            self.errors.append(f"{method} {target}: {error!r}")
            answer = Answer({"message": repr(error)}, 500)
        content = b"" if answer.status == 204 else json.dumps(answer.body).encode()
        return Response(answer.status, content, {"Content-Type": "application/json; charset=utf-8", **more})

    def _tip(self, branch: str) -> str | None:
        if self.origin is None:
            return None
        return self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False) or None

    def _git(self, *arguments: str, check: bool = True, people: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", f"--git-dir={self.origin}", *arguments],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", **(people or {})},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()


def by_id(records: list[Json], number: str) -> Json:
    for each in records:
        if each["id"] == int(number):
            return each
    raise Refused(404, "Not Found")


def stamp(time: datetime | None = None) -> str:
    """A time as GitHub writes it; now without one."""
    return (time or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _handler(forge: Played) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            response = forge.respond(self.command, self.path, self.headers, self._read())
            self.send_response(response.status)
            if response.status not in (204, 304):
                self.send_header("Content-Length", str(len(response.content)))
            for key, value in response.headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(response.content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = do_GET  # noqa: N815

        def _read(self) -> bytes:
            """The body; `gh api --input -` does not know its length and sends it in chunks."""
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while length := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def log_message(self, format: str, *args: Any) -> None:
            """`requests` has them."""

    return Handler
