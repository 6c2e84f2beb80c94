"""HTTP proxies that ask the policies before they forward a request: in front of an S3 server, and of a registry.

The caller is the role that the access key or the user's password names. What AWS decides about a request depends on its
action, resource and condition keys; `_operation` and `_ecr_action` derive them from the request.
"""

from __future__ import annotations

import base64
import http.client
import io
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.deploy.policies.iam import Document, Request, refusal

_KEY = re.compile(r"Credential=(.+?)/\d{8}/")
HOP = {"connection", "transfer-encoding", "keep-alive", "te", "trailer", "upgrade"}


@dataclass(frozen=True)
class Call:
    role: str
    operation: str
    resource: str
    refusal: str
    """Empty if it was allowed."""


@dataclass
class Policies:
    """The rendered documents of an installation."""

    documents: Mapping[str, Any]
    region: str = "eu-central-1"
    account: str = "111122223333"
    calls: list[Call] = field(default_factory=list)

    @property
    def key(self) -> str | None:
        """The ARN of the key that encrypts the buckets."""
        found = set(re.findall(r"arn:aws:kms:[\w:/-]+", str(self.documents["roles"])))
        assert len(found) <= 1
        return found.pop() if found else None

    def bucket(self, kind: str) -> str:
        return f"espalier-{kind}-{self.account}-{self.region}"

    def trusts(self, role: str, action: str, principal: tuple[str, str], context: Mapping[str, str]) -> str:
        """Why a role cannot be assumed; empty if it can."""
        trust = self.documents["roles"][role]["trust"]
        return refusal(Request(action, "", context, principal), [], [trust])

    def decide(
        self, role: str, operation: str, action: str, resource: str, context: Mapping[str, str], kms: str = ""
    ) -> str:
        known = self.documents["roles"].get(role)
        identity: list[Document] = [known["policy"]] if known else []
        reason = refusal(Request(action, resource, context), identity, self._attached(resource))
        if not reason and kms and self.key:
            via = {"kms:ViaService": f"s3.{self.region}.amazonaws.com"}
            reason = refusal(Request(kms, self.key, via), identity)
        self.calls.append(Call(role, operation, resource, reason))
        return reason

    def _attached(self, resource: str) -> list[Document]:
        if resource.startswith("arn:aws:ecr:"):
            return [self.documents["repositories"]]
        name = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        kinds = [kind for kind in self.documents["buckets"] if name == self.bucket(kind)]
        return [self.documents["buckets"][kind] for kind in kinds]


@contextmanager
def s3(
    policies: Policies,
    server: str,
    tls: ssl.SSLContext | None,
    lost: Callable[[Call], bool] = lambda _: False,
) -> Iterator[str]:
    """A gate before an S3 server; of the calls that `lost` names, the client gets no answer."""

    def decide(handler: _Handler, body: bytes) -> str:
        found = _KEY.search(handler.headers.get("Authorization", ""))
        role = found[1].replace(".", "/") if found else "(anonymous)"
        reason = ""
        for operation, action, resource, more, kms in _operation(handler, body):
            context = {"aws:SecureTransport": str(tls is not None).lower(), **more}
            if tls is not None:
                context["s3:TlsVersion"] = str(handler.connection.version()).removeprefix("TLSv")
            reason = reason or policies.decide(role, operation, action, resource, context, kms)
        return reason

    denied = "<Error><Code>AccessDenied</Code><Message>{}</Message></Error>"
    with _serve(server, decide, denied, tls, lambda: lost(policies.calls[-1])) as port:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"


@contextmanager
def registry(policies: Policies, server: str) -> Iterator[str]:
    """A gate before a registry, as ECR is one; gives its host. Who has not logged in is asked to."""

    def decide(handler: _Handler, body: bytes) -> str | None:
        scheme, _, rest = handler.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        role = base64.b64decode(rest).decode().partition(":")[2]
        action, name = _ecr_action(handler.command, handler.path)
        if action is None:
            return ""
        arn = f"arn:aws:ecr:{policies.region}:{policies.account}:repository/{name}"
        return policies.decide(role, action.partition(":")[2], action, arn, {})

    denied = '{{"errors": [{{"code": "DENIED", "message": "{}"}}]}}'
    with _serve(server, decide, denied, None, lambda: False) as port:
        yield f"127.0.0.1:{port}"


def tls(folder: Path, run: Callable[..., Any]) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, and the certificate that clients have to trust."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=s3", "-days", "2"]
    extensions = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    run("openssl", *command, *extensions, "-keyout", str(key), "-out", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def _operation(handler: _Handler, body: bytes) -> list[tuple[str, str, str, dict[str, str], str]]:
    """S3's name of a request; action, resource and condition keys of each right that it needs; and the key's right."""
    parts, method = urlsplit(handler.path), handler.command
    query = parse_qs(parts.query, keep_blank_values=True)
    name, _, key = unquote(parts.path).lstrip("/").partition("/")
    bucket = f"arn:aws:s3:::{name}"
    if not key:
        listing = {"s3:prefix": query["prefix"][0]} if "prefix" in query else {}
        if method == "POST" and "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            return [("DeleteObjects", "s3:DeleteObject", f"{bucket}/{each}", {}, "") for each in keys]
        for parameter, operation, action in (
            ("policy", f"{method.title()}BucketPolicy", f"s3:{method.title()}BucketPolicy"),
            ("location", "GetBucketLocation", "s3:GetBucketLocation"),
            ("versions", "ListObjectVersions", "s3:ListBucketVersions"),
            ("uploads", "ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        ):
            if parameter in query:
                return [(operation, action, bucket, listing, "")]
        operation = {"GET": "ListObjectsV2", "HEAD": "HeadBucket"}[method]
        return [(operation, "s3:ListBucket", bucket, listing, "")]
    target, version = f"{bucket}/{key}", "Version" if "versionId" in query else ""
    if method in ("GET", "HEAD"):
        operation = {"GET": "GetObject", "HEAD": "HeadObject"}[method]
        return [(operation, f"s3:GetObject{version}", target, {}, "kms:Decrypt" if method == "GET" else "")]
    if method == "DELETE":
        if "uploadId" in query:
            return [("AbortMultipartUpload", "s3:AbortMultipartUpload", target, {}, "")]
        return [("DeleteObject", f"s3:DeleteObject{version}", target, {}, "")]
    operation, creates, kms = {
        ("PUT", True): ("UploadPart", False, "kms:Decrypt"),
        ("PUT", False): ("PutObject", True, "kms:GenerateDataKey"),
        ("POST", True): ("CompleteMultipartUpload", True, "kms:Decrypt"),
        ("POST", False): ("CreateMultipartUpload", False, "kms:GenerateDataKey"),
    }[method, "uploadId" in query]
    context = {"s3:ObjectCreationOperation": str(creates).lower()}
    for header in (
        "if-none-match",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
    ):
        if header in handler.headers:
            context[f"s3:{header}"] = handler.headers[header]
    needed = [(operation, "s3:PutObject", target, context, kms)]
    if source := handler.headers.get("x-amz-copy-source"):
        needed.append(
            ("CopyObject", "s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}", {}, "kms:Decrypt")
        )
    return needed


def _ecr_action(method: str, path: str) -> tuple[str | None, str]:
    """The action that ECR asks for, as deploy/terraform/README.md lists them, and the repository."""
    plain = urlsplit(path).path
    if plain.rstrip("/") == "/v2":
        return None, ""
    found = re.fullmatch(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs)/(?P<rest>.+)", plain)
    assert found is not None, path
    action = {
        ("manifests", "GET"): "ecr:BatchGetImage",
        ("manifests", "HEAD"): "ecr:BatchGetImage",
        ("manifests", "PUT"): "ecr:PutImage",
        ("manifests", "DELETE"): "ecr:BatchDeleteImage",
        ("blobs", "GET"): "ecr:GetDownloadUrlForLayer",
        ("blobs", "HEAD"): "ecr:BatchCheckLayerAvailability",
        ("blobs", "POST"): "ecr:InitiateLayerUpload",
        ("blobs", "PATCH"): "ecr:UploadLayerPart",
        ("blobs", "PUT"): "ecr:CompleteLayerUpload",
    }[found["kind"], method]
    return action, found["name"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """`calls` has them."""


def _decoded(body: bytes) -> bytes:
    """The content of a body in S3's chunks, each with its size before it; checksums follow them."""
    stream, content = io.BytesIO(body), bytearray()
    while size := int(stream.readline().split(b";")[0], 16):
        content += stream.read(size)
        stream.readline()
    return bytes(content)


@contextmanager
def _serve(
    server: str,
    decide: Callable[[_Handler, bytes], str | None],
    denied: str,
    tls: ssl.SSLContext | None,
    lost: Callable[[], bool],
) -> Iterator[int]:
    host = urlsplit(server).netloc

    class Handler(_Handler):
        def answer(self) -> None:
            body = self._body()
            reason = decide(self, body)
            if reason != "":
                content = denied.format(reason).encode()
                self.send_response(403 if reason else 401)
                if reason is None:
                    self.send_header("WWW-Authenticate", 'Basic realm="gate"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
                return
            connection = http.client.HTTPConnection(host)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in {*HOP, "expect", "content-length"}
            }
            if self.headers.get("Content-Encoding") == "aws-chunked":
                # SeaweedFS takes unsigned chunks only from users that it knows.
                body = _decoded(body)
                for name in ("Content-Encoding", "X-Amz-Trailer", "X-Amz-Decoded-Content-Length"):
                    headers.pop(name, None)
                headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
            if body or self.command in ("PUT", "POST", "PATCH"):
                headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            content = response.read()
            if lost():
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {*HOP, "content-length", "date", "server"}:
                    self.send_header(name, value)
            size = response.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", size or str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            raw = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(raw)

    gate = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gate.daemon_threads = True
    if tls is not None:
        gate.socket = tls.wrap_socket(gate.socket, server_side=True)
    threading.Thread(target=gate.serve_forever, daemon=True).start()
    try:
        yield gate.server_address[1]
    finally:
        gate.shutdown()
        gate.server_close()
