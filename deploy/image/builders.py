"""Builds, pushes and reads images with docker (buildx), podman or buildah.

All three read the same Dockerfile, and a second build has the same digest. Every file in a layer has the same fixed
time, so an unchanged layer stays the same from commit to commit and a new model does not make hosts pull the libraries
again. The configuration alone holds the time of the commit.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from deploy.image.source import DOCKERFILE, ImageError

LAYER_EPOCH = 315532800
"""Time of every file in a layer, in seconds since 1970: the start of 1980, the first that all archives can hold.

BuildKit changes the times of younger files only. With the commit's time, layers that it cached before the commit would
keep older times than fresh ones.
"""
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?/")
_ERROR = re.compile(r"\b(error|\w+Error):", re.IGNORECASE)
_REPEATED = re.compile(r"building at STEP|exit(ed with)? status|exit code")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Request:
    """What to build."""

    root: Path
    reference: str
    base: str | None
    """An image in place of the Dockerfile's, if any."""
    labels: dict[str, str]
    build_arguments: dict[str, str]
    """The Dockerfile's."""
    epoch: int
    cache: bool = True
    arguments: tuple[str, ...] = ()
    """Further options of the builder."""
    dockerfile: str = DOCKERFILE
    """Below `root`."""

    def options(self) -> Iterator[str]:
        """The options that all builders take."""
        yield f"--file={self.root / self.dockerfile}"
        if not self.cache:
            yield "--no-cache"
        for name, value in self.labels.items():
            yield f"--label={name}={value}"
        for name, value in self.build_arguments.items():
            yield f"--build-arg={name}={value}"
        yield from self.arguments


@dataclass(frozen=True)
class Image:
    """An image in a builder's storage."""

    id: str
    """`sha256:…` of the configuration, which is the same everywhere, however the layers are packed.

    docker's new store has only the manifest's digest, and gives that.
    """
    digest: str
    """`sha256:…` of the manifest. It covers the packed layers, so a registry may have another."""
    bytes: int
    labels: dict[str, str]


class Builder(Protocol):
    name: str

    def fault(self) -> str | None:
        """Why it cannot be used here; None if it can."""

    def build(self, request: Request) -> Image:
        """Build, and keep the image under the reference."""

    def push(self, reference: str) -> str:
        """Push; returns the digest that the registry knows it by."""

    def pull(self, reference: str) -> Image:
        """Get an image from its registry."""

    def image(self, reference: str) -> Image:
        """An image that was built or pulled."""


class Containers:
    """buildah or podman, which share code, storage and options."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fault(self) -> str | None:
        return _fault([self.name, "info"])

    def build(self, request: Request) -> Image:
        """Build, then remove from the configuration what differs from build to build.

        Only docker's format has a health check, and in that format these programs record the names of their working
        containers. So the image is exported, normalised and imported again, which takes a few seconds. The export packs
        the layers as a registry does, so the registry gives the image the same digest.
        """
        with tempfile.TemporaryDirectory(prefix="espalier-image-") as folder:
            name, exported = Path(folder) / "id", Path(folder) / "image"
            _show([self.name, "build", *self._options(request), f"--iidfile={name}", str(request.root)])
            built = name.read_text(encoding="utf-8").strip()
            pack = ["--compress"] if self.name == "podman" else []  # buildah does so by default
            _ask([self.name, "push", "--quiet", *pack, built, f"dir:{exported}"])
            image = normalise(exported, request.epoch)
            _ask([self.name, "pull", "--quiet", f"dir:{exported}"])
        _ask([self.name, "tag", image.id.removeprefix("sha256:"), request.reference])
        return image

    def push(self, reference: str) -> str:
        with tempfile.TemporaryDirectory(prefix="espalier-image-") as folder:
            file = Path(folder) / "digest"
            options = [f"--digestfile={file}", *_tls(reference)]
            _show([self.name, "push", *options, reference, f"docker://{reference}"])
            return file.read_text(encoding="utf-8").strip()

    def pull(self, reference: str) -> Image:
        said = _ask([self.name, "pull", "--quiet", *_tls(reference), f"docker://{reference}"])
        # The last line is the image's id.
        return self.image(said.rsplit(maxsplit=1)[-1].removeprefix("sha256:"))

    def image(self, reference: str) -> Image:
        if self.name == "podman":
            shown = json.loads(_ask(["podman", "image", "inspect", reference]))[0]
            return Image(_prefixed(shown["Id"]), shown["Digest"], shown["Size"], shown["Labels"] or {})
        shown = json.loads(_ask(["buildah", "inspect", "--type=image", reference]))
        listed = json.loads(_ask(["buildah", "images", "--json", reference]))[0]
        labels = json.loads(shown["Config"])["config"].get("Labels") or {}
        return Image(
            _prefixed(shown["FromImageID"]), shown["FromImageDigest"], _bytes(listed["size"]), labels
        )

    def _options(self, request: Request) -> Iterator[str]:
        yield "--format=docker"
        # One layer an instruction, so that a new model does not change the layer of the libraries.
        yield "--layers"
        yield f"--timestamp={LAYER_EPOCH}"
        # A label with the program's version would change the digest.
        yield "--identity-label=false"
        if request.base:
            yield f"--from={request.base}"
        yield from request.options()


class Docker:
    """docker with BuildKit.

    BuildKit rewrites the times inside layers only when it exports to a file, so the image goes through a file. An engine
    with the old image store cannot export, so a separate builder in a container does it.
    """

    name = "docker"
    spare = "espalier"

    def fault(self) -> str | None:
        fault = _fault(["docker", "--version"])
        if fault is None and _fault(["docker", "buildx", "version"]):
            return "has no buildx"
        return fault or _fault(["docker", "info"])

    def build(self, request: Request) -> Image:
        with tempfile.TemporaryDirectory(prefix="espalier-image-") as folder:
            archive, dated = Path(folder) / "image.tar", Path(folder) / "dated.tar"
            _show(
                [
                    *("docker", "buildx", "build", *self._builder(), *self._options(request)),
                    f"--output=type=docker,dest={archive},rewrite-timestamp=true",
                    str(request.root),
                ]
            )
            digest, size = normalise_archive(archive, dated, request.epoch)
            _ask(["docker", "load", "--quiet", f"--input={dated}"])
        return replace(self.image(request.reference), digest=digest, bytes=size)

    def push(self, reference: str) -> str:
        found = _DIGEST.findall(_show(["docker", "push", reference]))
        if not found:
            raise ImageError(f"docker pushed {reference} and did not say under which digest")
        return str(found[-1])

    def pull(self, reference: str) -> Image:
        _ask(["docker", "pull", "--quiet", reference])
        return self.image(reference)

    def image(self, reference: str) -> Image:
        shown = json.loads(_ask(["docker", "image", "inspect", reference]))[0]
        digests = _DIGEST.findall(" ".join(shown.get("RepoDigests") or ()))
        return Image(
            id=shown["Id"],
            digest=digests[0] if digests else shown["Id"],
            bytes=shown["Size"],
            labels=shown["Config"].get("Labels") or {},
        )

    def _builder(self) -> tuple[str, ...]:
        """No option if the builder in use can export; else the option for one that can, which is made if needed."""
        described = _ask(["docker", "buildx", "inspect"])
        in_engine = re.search(r"^Driver:\s+docker$", described, re.MULTILINE) is not None
        store = _ask(["docker", "info", "--format={{json .DriverStatus}}"])
        if not in_engine or "io.containerd.snapshotter" in store:
            return ()
        if _fault(["docker", "buildx", "inspect", self.spare]):
            _show(["docker", "buildx", "create", f"--name={self.spare}", "--driver=docker-container"])
        return (f"--builder={self.spare}",)

    def _options(self, request: Request) -> Iterator[str]:
        yield f"--tag={request.reference}"
        yield f"--build-arg=SOURCE_DATE_EPOCH={LAYER_EPOCH}"
        # Provenance holds the time and place of the build; the release attests it beside the image.
        yield "--provenance=false"
        yield "--progress=plain"
        if request.base:
            yield f"--build-context=base=docker-image://{request.base}"
        yield from request.options()


BUILDERS: tuple[Builder, ...] = (Docker(), Containers("podman"), Containers("buildah"))
"""In the order in which they are tried."""


def choose(name: str | None) -> Builder:
    """The builder of that name, or the first that works.

    Raises:
        ImageError: none works; the message gives the reason for each.
    """
    faults = []
    for builder in BUILDERS:
        if name in (None, builder.name):
            fault = builder.fault()
            if fault is None:
                return builder
            faults.append(f"{builder.name}: {fault}")
    if name:
        raise ImageError(f"{'; '.join(faults)}: leave --tool out to take whichever works")
    raise ImageError(f"nothing here builds images ({'; '.join(faults)}): install docker, podman or buildah")


def normalise(exported: Path, epoch: int) -> Image:
    """Set the time of an exported image, and remove the names of working containers; returns the new image."""
    manifest_file = exported / "manifest.json"
    manifest = json.loads(manifest_file.read_bytes())
    former = exported / _hexadecimal(manifest["config"])
    config = normalised(json.loads(former.read_bytes()), epoch)
    content = _json(config)
    former.unlink()
    manifest["config"] |= _described(content)
    (exported / _hexadecimal(manifest["config"])).write_bytes(content)
    # These programs write this order and spacing, so a registry gets the same digest.
    manifest_file.write_bytes(_json(manifest))
    return Image(
        id=manifest["config"]["digest"],
        digest=str(_described(_json(manifest))["digest"]),
        bytes=sum(_unpacked(exported / _hexadecimal(layer)) for layer in manifest["layers"]),
        labels=config["config"]["Labels"] or {},
    )


def normalise_archive(source: Path, destination: Path, epoch: int) -> tuple[str, int]:
    """Set the time of an image in docker's archive; returns its manifest's digest and its unpacked size."""
    with tarfile.open(source) as tar, tarfile.open(destination, "w", encoding="utf-8") as output:

        def read(name: str, start: int = 0) -> bytes:
            file = tar.extractfile(name)
            if file is None:
                raise ImageError(f"{name} is no file in the archive that docker wrote")
            file.seek(start, os.SEEK_END if start else os.SEEK_SET)
            return file.read()

        def blob(described: Mapping[str, Any]) -> str:
            return f"blobs/sha256/{_hexadecimal(described)}"

        index = json.loads(read("index.json"))
        (entry,) = index["manifests"]
        manifest = json.loads(read(blob(entry)))
        (summary,) = summaries = json.loads(read("manifest.json"))
        replaced = {blob(entry), blob(manifest["config"]), "index.json", "manifest.json"}
        config = _json(normalised(json.loads(read(blob(manifest["config"]))), epoch))
        manifest["config"] |= _described(config)
        entry |= _described(_json(manifest))
        summary["Config"] = blob(manifest["config"])
        for member in tar:
            if member.name not in replaced:
                output.addfile(member, tar.extractfile(member) if member.isfile() else None)
        for name, content in {
            blob(manifest["config"]): config,
            blob(entry): _json(manifest),
            "index.json": _json(index),
            "manifest.json": _json(summaries),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            output.addfile(member, io.BytesIO(content))
        size = sum(int.from_bytes(read(blob(layer), -4), "little") for layer in manifest["layers"])
    return str(entry["digest"]), size


def normalised(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """An image's configuration with the time `epoch`, without names of working containers and intermediate images."""
    created, layers_created = _time(epoch), _time(LAYER_EPOCH)
    for name in ("container", "container_config", "parent"):
        config.pop(name, None)
    config["config"].pop("Hostname", None)
    config["created"] = created
    for step in config["history"]:
        if step.get("created") == layers_created:
            step["created"] = created
        # "FROM" and the name or id of an intermediate image.
        if str(step.get("comment", "")).startswith("FROM "):
            del step["comment"]
    return config


def _time(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _described(content: bytes) -> dict[str, str | int]:
    return {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _hexadecimal(blob: Mapping[str, Any]) -> str:
    return str(blob["digest"]).removeprefix("sha256:")


def _unpacked(layer: Path) -> int:
    """The unpacked size of a layer, which gzip writes into the last four bytes."""
    with layer.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")


def _bytes(size: str) -> int:
    """Bytes from buildah's "290 MB"."""
    number, unit = size.split()
    return round(float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit])


def _tls(reference: str) -> tuple[str, ...]:
    """Registries on this machine, and only they, are used without TLS, as docker does by default."""
    return ("--tls-verify=false",) if _LOOPBACK.match(reference) else ()


def _prefixed(image: str) -> str:
    return "sha256:" + image.removeprefix("sha256:")


def _fault(command: Sequence[str]) -> str | None:
    """Why a command does not work; None if it does."""
    if shutil.which(command[0]) is None:
        return "not installed"
    result = _run(command)
    return None if result.returncode == 0 else _reason(result.stderr or result.stdout)


def _ask(command: Sequence[str]) -> str:
    """A command's output."""
    result = _run(command)
    if result.returncode:
        raise ImageError(f"`{' '.join(command[:2])}` failed: {_reason(result.stderr or result.stdout)}")
    return result.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _show(command: Sequence[str]) -> str:
    """Run a command with its progress on stderr; returns its output."""
    said = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            said.append(line)
    if process.returncode:
        raise ImageError(f"`{' '.join(command[:2])}` failed, as said above: {_reason(''.join(said))}")
    return "".join(said)


def _reason(said: str) -> str:
    """The line that explains the failure: the last that calls itself an error, or else the last.

    Builders end with the failed step and its exit status, after the reason.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reasons = [line for line in lines if not _REPEATED.search(line)]
    errors = [line for line in reasons if _ERROR.search(line)]
    return (errors or reasons or lines or ["it did not say why"])[-1]
