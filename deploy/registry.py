"""Asks registries about images through the HTTP API that all of them have (OCI distribution, version 2).

Credentials are read from where `docker login`, `podman login`, ECR's login action and credential helpers leave them. A
registry on this machine is asked over plain HTTP, as docker does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from deploy.errors import RegistryError

SECONDS = 20
TRIES = 4
MAX_BYTES = 4 * 2**20
"""Manifests and configurations are a few kB; registries refuse larger manifests too."""
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        *MANIFESTS,
    )
)
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})/(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>.+))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'([a-zA-Z]+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Reference:
    """An image by its digest: HOST/PATH@sha256:…"""

    host: str
    path: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference that names registry and digest, and no tag, which may move.

        Raises:
            RegistryError: says what is wrong with it.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None or not _is_host(found["host"]):
            raise RegistryError(f"{text!r} does not name an image: it must be REGISTRY/NAME@sha256:…")
        if found["digest"] is None:
            raise RegistryError(
                f"{text!r} has no digest, so it may be another image tomorrow: give NAME@sha256:…"
            )
        if found["tag"] is not None:
            raise RegistryError(f"{text!r} has a tag beside the digest: leave out :{found['tag']}")
        if not _DIGEST.fullmatch(found["digest"]):
            raise RegistryError(f"{found['digest']!r} is no digest: it must be sha256: and 64 of 0-9a-f")
        return cls(found["host"], found["path"], found["digest"])

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


def split_repository(text: str) -> tuple[str, str]:
    """Registry and path of REGISTRY/NAME.

    Raises:
        RegistryError: it is something else.
    """
    found = _REFERENCE.fullmatch(text)
    if found is None or not _is_host(found["host"]) or found["tag"] or found["digest"]:
        raise RegistryError(
            f"{text!r} does not name a repository of images: it must be REGISTRY/NAME in lower case, without tag "
            "and digest, such as ghcr.io/owner/name"
        )
    return found["host"], found["path"]


@dataclass(frozen=True)
class ImageInfo:
    """What a registry says about an image."""

    reference: str
    labels: dict[str, str]
    platforms: tuple[str, ...]


class MissingImageError(RegistryError):
    """The registry answers and lacks the image."""


class Registry:
    """A client for registries, to be used in a `with`."""

    def __init__(self) -> None:
        # Blobs of cloud registries lie elsewhere; httpx follows there without the credentials. Only registries on this
        # machine are asked over plain HTTP, and a proxy is for those outside.
        certificates = _certificates()
        direct = {"http://": httpx.HTTPTransport(verify=certificates)}
        self._client = httpx.Client(
            timeout=SECONDS, follow_redirects=True, mounts=direct, verify=certificates
        )
        self._authorizations: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def inspect(self, image: Reference) -> ImageInfo:
        """The labels and platforms of an image.

        All images of an index count: a label that several of them have must be the same.

        Raises:
            MissingImageError: the registry lacks it or a part of it.
            RegistryError: the registry cannot be asked, or its answer does not match the digest.
        """
        labels: dict[str, str] = {}
        platforms = []
        for manifest in self._manifests(image):
            try:
                digest = str(manifest["config"]["digest"])
            except (KeyError, TypeError):
                raise RegistryError(
                    f"{image} is no container image: its manifest names no configuration"
                ) from None
            name = f"the configuration of {image}"
            content = self._get(image.host, image.path, f"blobs/{digest}", "*/*")
            if content is None:
                raise MissingImageError(
                    f"{image.host} has lost a part of {image}: its configuration {digest}"
                )
            config = _json(_verified(content, digest, name), name)
            found = (config.get("config") or {}).get("Labels") or {}
            for key, value in found.items():
                if labels.setdefault(key, value) != value:
                    raise RegistryError(
                        f"{image} holds images that disagree on the label {key}: {labels[key]!r} and {value!r}"
                    )
            platforms.append(f"{config.get('os', '?')}/{config.get('architecture', '?')}")
        return ImageInfo(reference=str(image), labels=labels, platforms=tuple(platforms))

    def require(self, image: Reference) -> None:
        """Raise MissingImageError unless the registry has the manifest and, for an index, those of its images."""
        for _ in self._manifests(image):
            pass

    def digest_of(self, host: str, path: str, tag: str) -> str | None:
        """The digest that a tag has now; None where there is no such tag."""
        answer = self._get(host, path, f"manifests/{tag}", ACCEPT)
        return None if answer is None else _digest(answer)

    def _manifests(self, image: Reference) -> Iterator[dict[str, Any]]:
        manifest = _json(self._manifest(image, image.digest), f"the manifest of {image}")
        if "manifests" not in manifest:
            yield manifest
            return
        images = [
            each
            for each in manifest["manifests"]
            # docker's build puts attestations beside the images, with the platform "unknown".
            if (each.get("platform") or {}).get("os") != "unknown"
            and each.get("mediaType") in (None, *MANIFESTS)
        ]
        if not images:
            raise RegistryError(f"{image} is an index without an image")
        for each in images:
            content = self._manifest(image, str(each["digest"]))
            yield _json(content, f"the manifest {each['digest']} of {image}")

    def _manifest(self, image: Reference, digest: str) -> bytes:
        content = self._get(image.host, image.path, f"manifests/{digest}", ACCEPT)
        if content is None:
            raise MissingImageError(f"{image.host} has no image {image.path}@{digest}")
        return _verified(content, digest, f"{image.name}@{digest}")

    def _get(self, host: str, path: str, what: str, accept: str) -> bytes | None:
        """The content; None where the registry answers that it does not exist."""
        url = f"{_base(host)}/v2/{path}/{what}"
        headers = {"Accept": accept}
        if known := self._authorizations.get((host, path)):
            headers["Authorization"] = known
        status, content, challenge = self._request(host, url, headers)
        if status == 401 and challenge:
            authorization = self._authorize(host, path, challenge)
            if authorization is not None:
                self._authorizations[host, path] = authorization
                status, content, _ = self._request(host, url, {**headers, "Authorization": authorization})
        if status == 404:
            return None
        if status in (401, 403):
            raise RegistryError(
                f"{host} does not let us see {path} ({status}{_said(content)}): log in with `docker login`, "
                "`podman login` or, for ECR, `aws ecr get-login-password`"
            )
        if status != 200:
            raise RegistryError(f"{host} answers {status}{_said(content)} when asked for {path} {what}")
        return content

    def _authorize(self, host: str, path: str, challenge: str) -> str | None:
        """The Authorization header that a 401 asks for; None where there are no credentials to try."""
        scheme, _, rest = challenge.partition(" ")
        credentials = credentials_for(host, path)
        if scheme.lower() == "basic":
            return credentials.basic() if credentials and credentials.user else None
        if scheme.lower() != "bearer":
            raise RegistryError(f"{host} wants authentication of a kind that is not known here: {scheme}")
        asked = dict(_CHALLENGE.findall(rest))
        realm = asked.get("realm", "")
        if not realm.startswith("https://") and not (_base(host).startswith("http://") and realm):
            raise RegistryError(f"{host} sends us to {realm!r} for a token, where passwords could be read")
        wanted = {"service": asked.get("service", ""), "scope": asked.get("scope", f"repository:{path}:pull")}
        try:
            if credentials and credentials.identity:
                grant = {"grant_type": "refresh_token", "refresh_token": credentials.identity}
                answer = self._client.post(realm, data={**grant, "client_id": "espalier", **wanted})
            else:
                headers = {"Authorization": credentials.basic()} if credentials else {}
                answer = self._client.get(realm, params=wanted, headers=headers)
        except httpx.HTTPError as error:
            raise RegistryError(
                f"{realm}, which gives out the tokens of {host}, does not answer: {error}"
            ) from None
        if answer.status_code in (401, 403):
            raise RegistryError(
                f"{host} does not take our credentials: log in again (docker login, podman login)"
            )
        if answer.status_code != 200:
            raise RegistryError(f"{realm} answers {answer.status_code} when asked for a token of {host}")
        document = _json(answer.content, f"the token from {realm}")
        token = document.get("token") or document.get("access_token")
        if not token:
            raise RegistryError(f"{realm} answers without a token")
        return f"Bearer {token}"

    def _request(self, host: str, url: str, headers: dict[str, str]) -> tuple[int, bytes, str]:
        """Status, content and challenge. Requests that fail, or that a busy server refuses, are repeated."""
        for attempt in range(TRIES):
            last = attempt == TRIES - 1
            try:
                with self._client.stream("GET", url, headers=headers) as answer:
                    busy = answer.status_code == 429 or answer.status_code >= 500
                    if not busy or last:
                        content = b"".join(_limited(answer.iter_bytes(), url))
                        return answer.status_code, content, answer.headers.get("WWW-Authenticate", "")
            except httpx.HTTPError as error:
                if last:
                    said = str(error) or type(error).__name__
                    raise RegistryError(f"the registry {host} cannot be reached: {said}") from None
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class Credentials:
    user: str = ""
    password: str = ""
    identity: str = ""
    """A refresh token that stands for both."""

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"  # so that no traceback shows the rest


def credentials_for(host: str, path: str) -> Credentials | None:
    """The credentials that docker or podman would use; the first file that has some for the registry decides.

    Raises:
        RegistryError: a file cannot be read, or a credential helper fails.
    """
    for file in _config_files():
        try:
            document = json.loads(file.read_bytes())
            helper = (document.get("credHelpers") or {}).get(host) or document.get("credsStore")
            entries = {_entry(key): value for key, value in (document.get("auths") or {}).items()}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise RegistryError(f"cannot read the logins in {file}: {error}") from None
        # As docker does: where there is a helper, the file's own entry may be old.
        found = (_ask_helper(str(helper), host) if helper else None) or _stored(entries, host, path, file)
        if found is not None:
            return found
    return None


def _config_files() -> Iterator[Path]:
    home = Path(os.environ.get("HOME") or "/nonexistent")
    if given := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(given)
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    else:
        yield Path(f"/run/containers/{os.getuid()}/auth.json")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"


def _entry(key: str) -> str:
    """The registry, and with podman the path, of a login; docker also writes URLs."""
    return re.sub(r"^https?://|/v[12]/?$", "", key).rstrip("/")


def _stored(entries: dict[str, Any], host: str, path: str, file: Path) -> Credentials | None:
    # The most specific entry first: HOST/TEAM/NAME, HOST/TEAM, HOST. docker has another name for its own registry.
    names = [f"{host}/{path}", *(f"{host}/{parent}" for parent in PurePosixPath(path).parents), host]
    names += ["index.docker.io"] if host == "docker.io" else []
    whole = next((name for name in names if entries.get(name)), None)
    if whole is None:
        return None
    entry = entries[whole]
    if identity := entry.get("identitytoken"):
        return Credentials(identity=str(identity))
    if "auth" in entry:
        try:
            user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, TypeError):
            raise RegistryError(f"the login for {whole} in {file} is broken: log in again") from None
        return Credentials(user, password.rstrip("\0")) if user else None
    if entry.get("username"):
        return Credentials(str(entry["username"]), str(entry.get("password", "")))
    return None


def _ask_helper(helper: str, host: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=host,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS * 2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"cannot ask {program} for the login of {host}: {error}") from None
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        # docker's protocol for helpers has these words for "none"; the registry may be public.
        if "credentials not found" in said.lower():
            return None
        raise RegistryError(
            f"{program} has no login for {host}: {said.splitlines()[0] if said else 'no word why'}"
        )
    found = _json(done.stdout.encode(), f"the answer of {program}")
    user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
    return Credentials(identity=secret) if user == "<token>" else Credentials(user, secret)


def _is_host(host: str) -> bool:
    """Whether it can be a registry's: docker reads a first part without dot or port as a part of the name."""
    return "." in host or ":" in host or host == "localhost"


def _base(host: str) -> str:
    name = re.sub(r":[0-9]+$", "", host).strip("[]")
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = name == "localhost" or name.endswith(".localhost")
    if name == "docker.io":
        return "https://registry-1.docker.io"
    return f"{'http' if local else 'https'}://{host}"


@cache
def _certificates() -> ssl.SSLContext:
    """Trusted authorities: loading them takes 40 ms, and httpx does it once for each transport."""
    return httpx.create_ssl_context()


def _limited(parts: Iterator[bytes], url: str) -> Iterator[bytes]:
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_BYTES:
            raise RegistryError(f"{url} is larger than {MAX_BYTES // 2**20} MiB, which no manifest is")
        yield part


def _verified(content: bytes, digest: str, name: str) -> bytes:
    if _digest(content) != digest:
        raise RegistryError(f"the registry answers with other content than {name} must have: do not trust it")
    return content


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RegistryError(f"{name} is no JSON object")
    return document


def _said(content: bytes) -> str:
    """The registry's reason, if its answer has the standard's form."""
    try:
        error = json.loads(content)["errors"][0]
        return f", {error.get('message') or error.get('code')}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
