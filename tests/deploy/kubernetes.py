"""A stand-in for the API of a Kubernetes cluster with the Dask operator, which kubectl talks to.

A DaskJob gets a pod for its run, as the operator makes one. What becomes of the pod, a test says.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests import tools

JOBS = "/apis/kubernetes.dask.org/v1/namespaces/training/daskjobs"
PODS = "/api/v1/namespaces/training/pods"


class Cluster:
    """Its objects.

    Attributes:
        jobs: by name.
        pods: the status of each by name.
        log: lines of all pods, with the time of each.
        follow: seconds for which the log is followed until the connection ends.
        deleted: names of jobs.
        start: what happens when a job is created; runs in a thread.
        refuse: a status by which everything but deletion is refused, if any.
        keep: whether deletion is refused.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[datetime, str]] = []
        self.follow = 0.0
        self.deleted: list[str] = []
        self.start: Callable[[dict[str, Any]], None] = lambda job: None
        self.refuse: int | None = None
        self.keep = False

    def say(self, text: str) -> None:
        self.log += [(datetime.now(UTC), line) for line in text.splitlines(keepends=True)]

    def phase(self, job: dict[str, Any], phase: str, **status: Any) -> None:
        self.pods[f"{job['metadata']['name']}-runner"] = {"phase": phase, **status}

    def create(self, job: dict[str, Any], created: datetime | None = None) -> None:
        moment = (created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
        job["metadata"]["creationTimestamp"] = moment
        self.jobs[job["metadata"]["name"]] = job


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Serve it; gives a configuration for kubectl."""

    class Handler(BaseHTTPRequestHandler):
        # Programs send bodies of unknown length in parts, which 1.0 does not have.
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            name = path.rpartition("/")[2]
            if cluster.refuse:
                self._refuse(cluster.refuse, "Forbidden", "no rights")
            elif path == JOBS:
                self._answer({"items": list(cluster.jobs.values())})
            elif path.startswith(JOBS) and name in cluster.jobs:
                self._answer(cluster.jobs[name])
            elif path.endswith("/log"):
                given = parse_qs(query).get("sinceTime", ["1970-01-01T00:00:00Z"])[0]
                time.sleep(cluster.follow)
                lines = [line for moment, line in cluster.log if moment >= datetime.fromisoformat(given)]
                self._send(200, "".join(lines).encode(), "text/plain")
            elif path.startswith(PODS) and name in cluster.pods:
                self._answer({"metadata": {"name": name}, "status": cluster.pods[name]})
            else:
                self._refuse(404, "NotFound", f"{name} not found")

        def do_POST(self) -> None:
            job = json.loads(self._body())
            if cluster.refuse:
                self._refuse(cluster.refuse, "Forbidden", "no rights")
                return
            cluster.create(job)
            threading.Thread(target=cluster.start, args=(job,), daemon=True).start()
            self._answer(job, 201)

        def do_DELETE(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            if "Transfer-Encoding" in self.headers or "Content-Length" in self.headers:
                self._body()
            if cluster.keep:
                self._refuse(403, "Forbidden", "no rights")
                return
            if cluster.jobs.pop(name, None) is None:
                self._refuse(404, "NotFound", f"{name} not found")
                return
            cluster.deleted.append(name)
            self._answer({"kind": "Status", "status": "Success"})

        def _body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            return b"".join(parts)

        def _refuse(self, status: int, reason: str, message: str) -> None:
            self._answer(
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Failure",
                    "reason": reason,
                    "message": message,
                    "code": status,
                },
                status,
            )

        def _answer(self, document: object, status: int = 200) -> None:
            self._send(status, json.dumps(document).encode(), "application/json")

        def _send(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    configuration = folder / "kubeconfig"
    with tools.http_server(Handler) as address:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        configuration.write_text(json.dumps(document))
        yield configuration
