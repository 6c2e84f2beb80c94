from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import registry as module
from deploy.errors import RegistryError
from deploy.registry import Credentials, MissingImageError, Reference, Registry, credentials_for
from tests.deploy import registries
from tests.deploy.registries import DOCKER_LIST, DOCKER_MANIFEST, PASSWORD, USER, Server, TokenServer
from tests.tools import free_port

LABELS = {"org.opencontainers.image.revision": "a" * 40, "dev.espalier.model.version": "0123456789ab"}
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with registries.serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(autouse=True)
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No login of the person who runs the tests: the place where docker's would be."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker/config.json"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def image(server: Server, digest: str, path: str = "espalier") -> Reference:
    return Reference(server.host, path, digest)


# What names an image.


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        (f"111122223333.dkr.ecr.eu-central-1.amazonaws.com/espalier@{DIGEST}", "111122223333.dkr.ecr.eu-central-1.amazonaws.com", "espalier"),
        (f"localhost:5000/a/b_c/d-e@{DIGEST}", "localhost:5000", "a/b_c/d-e"),
        (f"localhost/a@{DIGEST}", "localhost", "a"),
        (f"[::1]:5000/a@{DIGEST}", "[::1]:5000", "a"),
    ],
)  # fmt: skip
def test_a_reference_by_digest_is_taken(text: str, host: str, path: str) -> None:
    reference = Reference.parse(text)
    assert (reference.host, reference.path, reference.digest) == (host, path, DIGEST)
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registry.example.com/espalier:latest", "has no digest"),
        ("registry.example.com/espalier", "has no digest"),
        (f"registry.example.com/espalier:v1@{DIGEST}", "leave out :v1"),
        (f"registry.example.com/espalier@{DIGEST[:-1]}", "is no digest"),
        (f"registry.example.com/espalier@{DIGEST.upper()}", "is no digest"),
        (f"registry.example.com/espalier@{DIGEST}\n", "does not name an image"),
        (f"registry.example.com/espalier@sha512:{'a' * 128}", "is no digest"),
        (f"espalier@{DIGEST}", "does not name an image"),
        (f"library/espalier@{DIGEST}", "does not name an image"),
        (f"registry.example.com/Espalier@{DIGEST}", "does not name an image"),
        (f"https://registry.example.com/espalier@{DIGEST}", "does not name an image"),
        (f"registry.example.com/../espalier@{DIGEST}", "does not name an image"),
        ("", "does not name an image"),
    ],
)
def test_any_other_reference_is_refused_with_its_fault(text: str, said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        Reference.parse(text)


@given(st.text(max_size=80), st.sampled_from(["", f"@{DIGEST}", ":tag", f":tag@{DIGEST}"]))
def test_what_is_taken_is_what_was_written(name: str, rest: str) -> None:
    with contextlib.suppress(RegistryError):
        assert str(Reference.parse(name + rest)) == name + rest


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("registry.localhost", "http://registry.localhost"),
        ("registry.example.com", "https://registry.example.com"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("localhost.example.com", "https://localhost.example.com"),
        ("docker.io", "https://registry-1.docker.io"),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(host: str, base: str) -> None:
    assert module._base(host) == base


# What a registry has.


def test_labels_of_an_image_are_read(server: Server, registry: Registry) -> None:
    found = registry.inspect(image(server, server.push(LABELS)))
    assert (found.labels, found.platforms) == (LABELS, ("linux/amd64",))


@pytest.mark.parametrize("labels", [{}, None])
def test_an_image_without_labels_has_none(
    server: Server, registry: Registry, labels: dict[str, str] | None
) -> None:
    assert registry.inspect(image(server, server.push(labels))).labels == {}


@pytest.mark.parametrize(
    ("index", "kind"), [(registries.INDEX, registries.MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)]
)
def test_an_index_has_the_labels_of_its_images(
    server: Server, registry: Registry, index: str, kind: str
) -> None:
    parts = {
        f"linux/{cpu}": server.push(LABELS, architecture=cpu, media_type=kind) for cpu in ("amd64", "arm64")
    }
    # docker's build puts its attestation beside them, as an image without labels for no platform.
    digest = server.push_index(
        {**parts, "unknown/unknown": server.push(None, architecture="unknown", media_type=kind)},
        media_type=index,
        kind=kind,
    )
    found = registry.inspect(image(server, digest))
    assert (found.labels, found.platforms) == (LABELS, ("linux/amd64", "linux/arm64"))
    registry.require(image(server, digest))


def test_an_index_whose_images_disagree_is_refused(server: Server, registry: Registry) -> None:
    other = {**LABELS, "dev.espalier.model.version": "ba9876543210"}
    digest = server.push_index(
        {"linux/amd64": server.push(LABELS), "linux/arm64": server.push(other, architecture="arm64")}
    )
    with pytest.raises(RegistryError, match=r"disagree on the label dev\.espalier\.model\.version"):
        registry.inspect(image(server, digest))


def test_what_is_not_there_is_missing(server: Server, registry: Registry) -> None:
    there = server.push({"gone": "soon"})
    for reference in (image(server, DIGEST), image(server, there, "another")):
        with pytest.raises(MissingImageError, match="has no image"):
            registry.inspect(reference)
        with pytest.raises(MissingImageError, match="has no image"):
            registry.require(reference)
    registry.require(image(server, there))
    server.delete(there)
    with pytest.raises(MissingImageError, match="has no image"):
        registry.require(image(server, there))


def test_an_index_that_lost_an_image_is_missing(server: Server, registry: Registry) -> None:
    part = server.push({"part": "of it"})
    digest = server.push_index({"linux/amd64": part})
    server.delete(part)
    with pytest.raises(MissingImageError, match=part):
        registry.require(image(server, digest))


def test_tags_are_resolved(server: Server, registry: Registry) -> None:
    digest = server.push({"tagged": "yes"}, path="tagged", tag="b" * 40)
    assert registry.digest_of(server.host, "tagged", "b" * 40) == digest
    assert registry.digest_of(server.host, "tagged", "c" * 40) is None


def test_a_proxy_is_not_asked_for_this_machine(
    server: Server, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = server.push(LABELS)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    registry.require(image(server, digest))


def test_a_registry_that_does_not_answer_is_named(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match=f"the registry {host} cannot be reached: .+"):
        registry.require(Reference(host, "espalier", DIGEST))


# Logging in.


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with registries.serve_with_password(tmp_path_factory.mktemp("closed")) as server:
        yield server


def test_basic_authentication_as_ecr_wants_it(closed: Server, registry: Registry, logins: Path) -> None:
    reference = image(closed, closed.push(LABELS))
    with pytest.raises(RegistryError, match=r"does not let us see espalier \(401.*docker login"):
        registry.inspect(reference)
    logins.write_text(json.dumps({"auths": {closed.host: {"auth": auth(USER, PASSWORD)}}}))
    assert registry.inspect(reference).labels == LABELS
    with Registry() as another:
        logins.write_text(json.dumps({"auths": {closed.host: {"auth": auth(USER, "wrong")}}}))
        with pytest.raises(RegistryError, match="does not let us see") as raised:
            another.inspect(reference)
    assert "wrong" not in str(raised.value)


@pytest.mark.slow
def test_tokens_as_other_registries_want_them(tmp_path: Path, logins: Path) -> None:
    with (
        TokenServer(tmp_path / "tokens") as tokens,
        registries.serve(tmp_path / "registry", tokens.settings()) as server,
    ):
        push = replace(server, authorization=f"Bearer {tokens.token('repository:espalier:pull,push')}")
        reference = image(server, push.push(LABELS))
        with Registry() as registry, pytest.raises(RegistryError, match="does not take our credentials"):
            registry.inspect(reference)
        logins.write_text(json.dumps({"auths": {server.host: {"auth": auth(USER, PASSWORD)}}}))
        with Registry() as registry:
            assert registry.inspect(reference).labels == LABELS
        (_, asked, _), *more = tokens.requests[1:]
        assert "scope=repository%3Aespalier%3Apull" in asked
        assert more == [], "one token serves all requests for a repository"
        logins.write_text(json.dumps({"auths": {server.host: {"identitytoken": "identity"}}}))
        with Registry() as registry:
            assert registry.inspect(reference).labels == LABELS
        assert tokens.requests[-1][0] == "POST"


def test_credential_helpers_are_asked(
    closed: Server, registry: Registry, logins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = image(closed, closed.push(LABELS))
    helper = tmp_path / "bin/docker-credential-safe"
    helper.parent.mkdir()
    helper.write_text(
        "#!/bin/sh\nread host\n"
        f'test "$1 $host" = "get {closed.host}" || {{ echo "credentials not found in native keychain"; exit 1; }}\n'
        f"""echo '{json.dumps({"Username": USER, "Secret": PASSWORD})}'\n"""
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
    logins.write_text(json.dumps({"auths": {closed.host: {}}, "credsStore": "safe"}))
    assert registry.inspect(reference).labels == LABELS
    assert credentials_for("registry.example.com", "espalier") is None
    logins.write_text(json.dumps({"credHelpers": {"registry.example.com": "absent"}}))
    with pytest.raises(RegistryError, match="cannot ask docker-credential-absent"):
        credentials_for("registry.example.com", "espalier")


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("registry.example.com", True),
        ("https://registry.example.com", True),
        ("https://registry.example.com/v2/", True),
        ("registry.example.com/team", True),
        ("registry.example.com/team/espalier", True),
        ("registry.example.com/tea", False),
        ("example.com", False),
    ],
)
def test_logins_are_found_as_docker_and_podman_write_them(logins: Path, key: str, found: bool) -> None:
    logins.write_text(json.dumps({"auths": {key: {"auth": auth("user", "secret")}}}))
    expected = Credentials("user", "secret") if found else None
    assert credentials_for("registry.example.com", "team/espalier") == expected


def test_dockers_own_registry_has_another_name_in_a_login(logins: Path) -> None:
    auth = base64.b64encode(b"user:secret").decode()
    logins.write_text(json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    assert credentials_for("docker.io", "team/espalier") == Credentials("user", "secret")
    assert credentials_for("registry.example.com", "espalier") is None


def test_the_login_for_the_path_is_before_that_for_the_registry(logins: Path) -> None:
    hosts = {
        "registry.example.com": {"auth": auth("all", "x")},
        "registry.example.com/team": {"auth": auth("team", "y")},
    }
    logins.write_text(json.dumps({"auths": hosts}))
    assert credentials_for("registry.example.com", "team/espalier") == Credentials("team", "y")
    assert credentials_for("registry.example.com", "other") == Credentials("all", "x")


@pytest.mark.parametrize(
    "place", ["runtime/containers/auth.json", "home/.config/containers/auth.json", "given.json"]
)
def test_podmans_places_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auths": {"registry.example.com": {"auth": auth("user", "secret")}}}))
    if place == "given.json":
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert credentials_for("registry.example.com", "espalier") == Credentials("user", "secret")


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": {"registry.example.com": {"auth": "%%%"}}}'])
def test_a_broken_login_file_is_named(logins: Path, content: str) -> None:
    logins.write_text(content)
    with pytest.raises(RegistryError, match=str(logins)):
        credentials_for("registry.example.com", "espalier")


def test_credentials_show_no_password() -> None:
    assert "secret" not in repr(Credentials("user", "secret", "secret"))


# Registries in trouble: played, because the real one has none to offer.


class Trouble:
    """Answers as it is told to, path by path."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.requests: list[tuple[str, str | None]] = []
        trouble = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                trouble.requests.append((self.path, self.headers.get("Authorization")))
                status, headers, content = trouble.answers.pop(0)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    trouble = Trouble()
    thread = threading.Thread(target=trouble.server.serve_forever, daemon=True)
    thread.start()
    yield trouble
    trouble.server.shutdown()
    trouble.server.server_close()


def test_a_busy_registry_is_asked_again(trouble: Trouble, registry: Registry) -> None:
    trouble.answers = [(503, {}, b""), (429, {}, b""), (404, {}, b"")]
    with pytest.raises(MissingImageError):
        registry.require(Reference(trouble.host, "espalier", DIGEST))
    assert len(trouble.requests) == 3


def test_a_registry_that_stays_broken_is_named_with_what_it_says(
    trouble: Trouble, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    trouble.answers = [(500, {}, b'{"errors": [{"code": "UNKNOWN", "message": "disk is full"}]}')] * 2
    with pytest.raises(RegistryError, match="answers 500, disk is full when asked for espalier"):
        registry.require(Reference(trouble.host, "espalier", DIGEST))


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        ("Negotiate", "of a kind that is not known here: Negotiate"),
        ('Bearer service="x"', "sends us to ''"),
    ],
)
def test_strange_challenges_are_refused(
    trouble: Trouble, registry: Registry, challenge: str, said: str
) -> None:
    trouble.answers = [(401, {"WWW-Authenticate": challenge}, b"")]
    with pytest.raises(RegistryError, match=said):
        registry.require(Reference(trouble.host, "espalier", DIGEST))


def test_blobs_may_lie_elsewhere_and_the_password_stays_here(
    trouble: Trouble, registry: Registry, logins: Path, server: Server
) -> None:
    """ECR keeps them in S3, and S3 must not see what ECR is told."""
    digest = server.push(LABELS)
    logins.write_text(json.dumps({"auths": {trouble.host: {"auth": auth(USER, PASSWORD)}}}))
    elsewhere = Trouble()
    threading.Thread(target=elsewhere.server.serve_forever, daemon=True).start()
    elsewhere.answers = [(200, {}, server.blob_file(digest).read_bytes())]
    trouble.answers = [
        (401, {"WWW-Authenticate": 'Basic realm="r"'}, b""),
        (307, {"Location": f"http://localhost:{elsewhere.server.server_address[1]}/signed"}, b""),
    ]
    registry.require(Reference(trouble.host, "espalier", digest))
    elsewhere.server.shutdown()
    elsewhere.server.server_close()
    assert trouble.requests[-1][1] == registries.basic(USER, PASSWORD)
    assert elsewhere.requests == [("/signed", None)]


def test_an_endless_answer_is_cut(trouble: Trouble, registry: Registry) -> None:
    trouble.answers = [(200, {}, b" " * (module.MAX_BYTES + 1))]
    with pytest.raises(RegistryError, match="larger than 4 MiB"):
        registry.require(Reference(trouble.host, "espalier", DIGEST))


@pytest.mark.parametrize("changed", ["manifest", "configuration"])
def test_content_that_does_not_match_its_digest_is_not_trusted(
    trouble: Trouble, registry: Registry, server: Server, changed: str
) -> None:
    digest = server.push(LABELS)
    manifest = server.blob_file(digest).read_bytes()
    config = server.blob_file(json.loads(manifest)["config"]["digest"]).read_bytes()
    if changed == "manifest":
        manifest += b" "
    else:
        config = config.replace(b"a" * 40, b"b" * 40)
    trouble.answers = [(200, {}, manifest), (200, {}, config)]
    with pytest.raises(RegistryError, match=r"other content than .*espalier"):
        registry.inspect(Reference(trouble.host, "espalier", digest))


@pytest.mark.parametrize("content", [b"[]", b"not json", b"\xff"])
def test_what_is_no_manifest_is_refused(
    server: Server, registry: Registry, trouble: Trouble, content: bytes
) -> None:
    trouble.answers = [(200, {}, content)]
    with pytest.raises(RegistryError, match="is no JSON object"):
        registry.require(Reference(trouble.host, "espalier", registries._digest(content)))


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()
