"""An AWS account on loopback: moto, with EKS and the policies of buckets played here.

moto applies a bucket's policy without its conditions: `Deny` of what comes without TLS would deny everything. So the policies
are kept here, and not applied.

    with serve(folder) as account:
        subprocess.run(["terraform", "plan"], env={**os.environ, **account.environment()})
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

from tests.deploy.eks import Eks
from tests.tools import free_port, require

ACCOUNT = "123456789012"
MOTO = "moto[server]==5.2.5"
"""Run by uv where the machine has no moto_server: its requirements would be some 40 more packages of the environment."""
_HOP = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


class Account:
    """Answers every request itself or through moto."""

    def __init__(self, moto: int) -> None:
        self.moto = moto
        self.eks: dict[str, Eks] = {}
        """By region."""
        self.policies: dict[str, bytes] = {}
        """By bucket."""
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    def environment(self) -> dict[str, str]:
        """What makes programs talk to this account. Buckets are in the path, because the host is an address."""
        return {
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.server_address[1]}",
        }

    # What a person does with buckets, as moto takes it.

    def buckets(self) -> list[str]:
        return re.findall(r"<Name>(.*?)</Name>", self._s3("GET", "").decode())

    def get(self, path: str) -> bytes:
        """An object, by BUCKET/KEY."""
        return self._s3("GET", path)

    def put(self, path: str, content: bytes) -> None:
        self._s3("PUT", path, content)

    def delete(self, path: str) -> None:
        """Delete all versions of an object, or those of all objects of a bucket."""
        bucket, _, key = path.partition("/")
        # moto fails where versioning is suspended.
        enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        self._s3("PUT", f"{bucket}?versioning", enabled)
        listed = ElementTree.fromstring(self._s3("GET", f"{bucket}?versions&prefix={quote(key, safe='')}"))
        for each in listed:
            found = {child.tag.rpartition("}")[2]: child.text or "" for child in each}
            if "VersionId" in found:
                self._s3("DELETE", f"{bucket}/{found['Key']}?versionId={found['VersionId']}")

    def _s3(self, method: str, path: str, content: bytes = b"") -> bytes:
        scope = "AWS4-HMAC-SHA256 Credential=anyone/20260101/us-east-1/s3/aws4_request"
        status, _, answer = self._ask_moto(method, f"/{path}", {"Authorization": scope}, content)
        assert status < 300, (method, path, answer)
        return answer

    def respond(
        self, method: str, target: str, headers: Message, content: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of an answer."""
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", headers.get("Authorization", ""))
        region, service = scope.groups() if scope else ("", "")
        address = urlsplit(target)
        if service == "eks":
            path = tuple(unquote(part) for part in address.path.strip("/").split("/"))
            with self.lock:
                eks = self.eks.setdefault(region, Eks(ACCOUNT, region))
                status, body = eks.answer(method, path, json.loads(content or b"{}"))
            kind = {"X-Amzn-ErrorType": "ResourceNotFoundException"} if status == 404 else {}
            return status, {"Content-Type": "application/json", **kind}, json.dumps(body).encode()
        if service == "s3" and "policy" in parse_qs(address.query, keep_blank_values=True):
            return self._policy(method, address.path.strip("/"), content)
        return self._ask_moto(method, target, dict(headers.items()), content)

    def _policy(self, method: str, bucket: str, content: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "PUT":
            self.policies[bucket] = content
            return 204, {}, b""
        if bucket not in self.policies:
            return 404, {}, b"<Error><Code>NoSuchBucketPolicy</Code></Error>"
        if method == "GET":
            return 200, {}, self.policies[bucket]
        del self.policies[bucket]
        return 204, {}, b""

    def _ask_moto(
        self, method: str, target: str, headers: dict[str, str], content: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.moto, timeout=60)
        try:
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
            kept = {key: value for key, value in answer.getheaders() if key.lower() not in _HOP}
            if method == "HEAD" and answer.headers["Content-Length"]:
                kept["Content-Length"] = answer.headers["Content-Length"]
            return answer.status, kept, answer.read()
        finally:
            connection.close()


@contextmanager
def serve(folder: Path) -> Iterator[Account]:
    """An empty account; moto's log goes to the folder."""
    port = free_port()
    with (folder / "moto.log").open("w") as log:
        moto = subprocess.Popen(
            [*_moto(), "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
            stdout=log,
            stderr=log,
        )
    account = Account(port)
    try:
        _wait(moto, port, folder / "moto.log")
        threading.Thread(target=account.server.serve_forever, daemon=True).start()
        yield account
        account.server.shutdown()
    finally:
        account.server.server_close()
        moto.terminate()
        moto.wait()


def _moto() -> list[str]:
    if found := shutil.which("moto_server"):
        return [found]
    return [require("uv"), "tool", "run", "--quiet", "--from", MOTO, "moto_server"]


def _wait(moto: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 120
    while moto.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"moto does not answer: {log.read_text()}")


def _handler(account: Account) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, answer = account.respond(self.command, self.path, self.headers, content)
            self.send_response(status)
            if status != 204 and "Content-Length" not in headers:
                headers["Content-Length"] = str(len(answer))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_DELETE = do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """`moto.log` has the requests."""

    return Handler
