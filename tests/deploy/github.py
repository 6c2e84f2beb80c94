"""Adds to the GitHub that the rehearsal plays what tests need besides: faults, caching, workflow runs, git over HTTP.

Git fetches from `http://github.localhost/OWNER/NAME`, which git's own server program answers. Answers of the API have an
ETag, and a client that names it gets 304.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from datetime import datetime
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.rehearsal.forge import Answer, Json, Refused, Request, Response, Route, by_id, stamp
from deploy.rehearsal.github import HOST, GitHub

SERVER = f"http://{HOST}"


class FakeGitHub(GitHub):
    """As its base, for tests; see the module."""

    def __init__(
        self,
        repository: str = "espalier-ml/espalier",
        origin: Path | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        super().__init__(repository, origin, tokens)
        self.workflows: list[Json] = []
        self.runs: list[Json] = []
        """Of workflows."""
        self.fail_next: list[tuple[int, str]] = []
        """Statuses and messages to answer the next requests with, as GitHub in trouble would."""
        self.fail_fetches: list[int] = []
        """Statuses to answer git's next requests with."""
        self.fetches = 0
        """Requests of git."""
        self.unmodified = 0
        """How many requests were answered by 304; GitHub does not count those."""

    def add_run(self, workflow: str, began: datetime, ended: datetime, conclusion: str, **more: Any) -> Json:
        """Record a run of a workflow on main that is over; the workflow is known from then on."""
        with self._lock:
            path = workflow if "/" in workflow else f".github/workflows/{workflow}.yml"
            known = next((each for each in self.workflows if each["path"] == path), None)
            if known is None:
                known = {"id": next(self._ids), "name": workflow, "path": path, "state": "active"}
                self.workflows.append(known)
            run = {
                "id": next(self._ids),
                "workflow_id": known["id"],
                "event": "push",
                "head_branch": "main",
                "head_repository": {"full_name": self.repository},
                "status": "completed",
                "conclusion": conclusion,
                "created_at": stamp(began),
                "run_started_at": stamp(began),
                "updated_at": stamp(ended),
                **more,
            }
            self.runs.append(run)
            return run

    def respond(self, method: str, target: str, headers: Message, payload: bytes) -> Response:
        address = urlsplit(target)
        if address.netloc == HOST and re.search(r"/(info/refs|git-upload-pack)$", address.path):
            return self._fetch(method, target, headers, payload)
        response = super().respond(method, target, headers, payload)
        if method == "GET" and response.status == 200:
            tag = f'W/"{hashlib.sha256(response.content).hexdigest()}"'
            response.headers["ETag"] = tag
            if headers.get("If-None-Match") == tag:
                self.unmodified += 1
                return Response(304, headers={"ETag": tag})
        return response

    def _answer(self, method: str, target: str, token: str, payload: bytes) -> tuple[Answer, dict[str, str]]:
        if self.fail_next:
            address = urlsplit(target)
            self.requests.append(f"{method} {address.path}{'?' + address.query if address.query else ''}")
            raise Refused(*self.fail_next.pop(0))
        return super()._answer(method, target, token, payload)

    def _fetch(self, method: str, target: str, headers: Message, payload: bytes) -> Response:
        """What git's own program for web servers answers to a fetch."""
        address = urlsplit(target)
        with self._lock:
            self.fetches += 1
            status = self.fail_fetches.pop(0) if self.fail_fetches else 200
        given = base64.b64decode(headers.get("Authorization", "").partition("Basic ")[2]).decode()
        user, _, token = given.partition(":")
        if user != "x-access-token" or (self.tokens is not None and token not in self.tokens):
            status = 401
        if status != 200:
            return Response(
                status, headers={"WWW-Authenticate": 'Basic realm="GitHub"'} if status == 401 else {}
            )
        said = subprocess.run(
            ["git", "http-backend"],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "GIT_PROJECT_ROOT": str(self.origin),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": method,
                "PATH_INFO": address.path.removeprefix(f"/{self.repository}"),
                "QUERY_STRING": address.query,
                "CONTENT_TYPE": headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
            },
            input=payload,
            capture_output=True,
            check=True,
        ).stdout
        head, _, content = said.partition(b"\r\n\r\n")
        answered = message_from_bytes(head)
        status = int(answered.get("Status", "200").split()[0])
        del answered["Status"]
        return Response(status, content, dict(answered.items()))

    def _routes(self) -> list[tuple[str, str, Route]]:
        return [
            *super()._routes(),
            ("DELETE", r"issues/comments/(\d+)", self._delete_comment),
            ("GET", "actions/workflows", self._list_workflows),
            ("GET", r"actions/workflows/(\d+)/runs", self._list_runs),
        ]

    def _delete_comment(self, request: Request, number: str) -> Answer:
        self.state.comments.remove(by_id(self.state.comments, number))
        return Answer(None, 204)

    def _list_workflows(self, request: Request) -> Answer:
        return Answer({"total_count": len(self.workflows), "workflows": self.workflows[:100]})

    def _list_runs(self, request: Request, number: str) -> Answer:
        runs = [each for each in reversed(self.runs) if each["workflow_id"] == int(number)]
        for key, name in (("branch", "head_branch"), ("status", "status"), ("event", "event")):
            if key in request.query:
                runs = [each for each in runs if each[name] == request.query[key]]
        size = min(int(request.query.get("per_page", 30)), 100)
        return Answer({"total_count": len(runs), "workflow_runs": runs[:size]})
