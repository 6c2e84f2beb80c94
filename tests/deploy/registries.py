"""A real registry on loopback, and tiny images that are put into it through its API: nothing is built."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.tools import free_port, require

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
USER, PASSWORD = "AWS", "pass:word"
"""The colon is allowed in passwords; only the first one separates."""
_HASH = "$2b$05$jBQ5jz0fhIo1ySlZR1b7yO4tPs0b7PMJOzDq02ECk2vxV2Ug9nsOm"
"""PASSWORD by bcrypt."""
_CLIENT = httpx.Client(verify=False, trust_env=False)  # Loading certificates takes 40 ms, and none are used.


@dataclass(frozen=True)
class Server:
    host: str
    folder: Path
    authorization: str | None = None

    def push(
        self,
        labels: Mapping[str, str] | None,
        path: str = "espalier",
        tag: str | None = None,
        architecture: str = "amd64",
        media_type: str = MANIFEST,
    ) -> str:
        """Put an image with these labels there, and give its digest."""
        config: dict[str, Any] = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers"}}
        config["config"] = {} if labels is None else {"Labels": dict(labels)}
        layer, content = self._blob(path, b"a layer"), self._blob(path, json.dumps(config).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": CONFIG, **content},
            "layers": [{"mediaType": LAYER, **layer}],
        }
        return self.put_manifest(manifest, path, tag)

    def push_index(
        self,
        digests: Mapping[str, str],
        path: str = "espalier",
        media_type: str = INDEX,
        kind: str = MANIFEST,
    ) -> str:
        """Put an index of images there, by platform as os/architecture."""
        manifests = []
        for platform, digest in digests.items():
            system, _, architecture = platform.partition("/")
            manifests.append(
                {
                    "mediaType": kind,
                    "digest": digest,
                    "size": 100,
                    "platform": {"os": system, "architecture": architecture},
                }
            )
        return self.put_manifest({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}, path)

    def put_manifest(
        self, manifest: Mapping[str, Any], path: str = "espalier", tag: str | None = None
    ) -> str:
        content = json.dumps(manifest).encode()
        digest = _digest(content)
        headers = {"Content-Type": str(manifest["mediaType"])}
        self._request("PUT", f"/v2/{path}/manifests/{tag or digest}", content=content, headers=headers)
        return digest

    def delete(self, digest: str, path: str = "espalier") -> None:
        self._request("DELETE", f"/v2/{path}/manifests/{digest}")

    def blob_file(self, digest: str) -> Path:
        """Where the registry keeps a blob, for spoiling it."""
        number = digest.removeprefix("sha256:")
        return self.folder / "data/docker/registry/v2/blobs/sha256" / number[:2] / number / "data"

    def _blob(self, path: str, content: bytes) -> dict[str, Any]:
        digest = _digest(content)
        begun = self._request("POST", f"/v2/{path}/blobs/uploads/")
        place = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": digest})
        self._request("PUT", str(place), content=content)
        return {"digest": digest, "size": len(content)}

    def _request(self, method: str, place: str, **more: Any) -> httpx.Response:
        url = place if place.startswith("http") else f"http://{self.host}{place}"
        headers = more.pop("headers", {})
        if self.authorization:
            headers["Authorization"] = self.authorization
        answer = _CLIENT.request(method, url, headers=headers, **more)
        assert answer.is_success, answer.text
        return answer


@contextmanager
def serve(folder: Path, auth: str = "", port: int | None = None) -> Iterator[Server]:
    """Run a registry; `auth` is a part of its configuration."""
    program = require("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port or free_port()}"
    settings = folder / "config.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: '{host}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}, delete: {{enabled: true}}}}\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(settings)], stdout=log, stderr=log)
    try:
        _wait(process, host, folder / "log")
        yield Server(host, folder)
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def serve_with_password(folder: Path) -> Iterator[Server]:
    """A registry that wants HTTP Basic, as ECR does: user and password are USER and PASSWORD."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
    with serve(folder, f"auth: {{htpasswd: {{realm: r, path: '{folder}/htpasswd'}}}}\n") as server:
        yield Server(server.host, folder, basic(USER, PASSWORD))


class TokenServer:
    """Gives out the tokens that a registry with token authentication takes, as registries of vendors do.

    Registry and this server are told to trust each other by a certificate; openssl makes and uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str, str]] = []
        """Method, query or form, and Authorization of every request."""
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl = require("openssl")
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens", "-days", "2"]
        self._run(*command, "-keyout", str(key), "-out", str(certificate))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def settings(self) -> str:
        """The registry's part of the trust."""
        return (
            f"auth: {{token: {{realm: '{self.realm}', service: registry, issuer: tokens, "
            f"rootcertbundle: '{self.folder}/certificate.pem'}}}}\n"
        )

    def token(self, scope: str) -> str:
        """For a scope as `repository:NAME:pull,push`, or for none, as a login asks for."""
        certificate = (self.folder / "certificate.pem").read_text()
        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "x5c": ["".join(certificate.splitlines()[1:-1])]}
        claims = {
            "iss": "tokens",
            "sub": USER,
            "aud": "registry",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
            "access": [],
        }
        if scope:
            kind, name, actions = scope.split(":")
            claims["access"] = [{"type": kind, "name": name, "actions": actions.split(",")}]
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._run("dgst", "-sha256", "-sign", str(self.folder / "key.pem"), content=signed)
        return (signed + b"." + _base64(signature)).decode()

    def _run(self, *arguments: str, content: bytes = b"") -> bytes:
        done = subprocess.run([self._openssl, *arguments], input=content, capture_output=True, check=True)
        return done.stdout

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                asked = form or urlsplit(self.path).query
                authorization = self.headers.get("Authorization", "")
                tokens.requests.append((self.command, asked, authorization))
                values = {key: value[0] for key, value in parse_qs(asked).items()}
                right = authorization == basic(USER, PASSWORD) or values.get("refresh_token") == "identity"
                content = json.dumps(
                    {"token": tokens.token(values.get("scope", ""))} if right else {}
                ).encode()
                self.send_response(200 if right else 401)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                """`requests` has them."""

        return Handler


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _wait(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"http://{host}/v2/", trust_env=False).status_code in (200, 401):
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"the registry does not start: {log.read_text()}")
