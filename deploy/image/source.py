"""Reads what an image is built from: the commit, differences of the working tree from it, and the bundle."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.contract import BundleError, Manifest, read_bundle
from common.git import GitError
from deploy.errors import DeployError
from deploy.git import UNSHALLOW, Git
from deploy.image.ages import Ages, read_ages
from deploy.inputs import INPUTS, MODEL, bundle_hash, place

DOCKERFILE = "app/Dockerfile"


class ImageError(DeployError):
    """The image cannot be built, pushed or read; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    root: Path
    """The top of the clone."""
    bundle: str
    """The model's bundle, from there."""
    commit: str
    differences: tuple[str, ...]
    """Inputs that differ from the commit; the image is then marked as dirty."""
    epoch: int
    """The image's time of creation, in seconds since 1970: the commit's time."""
    version: str
    manifest: Manifest
    ages: Ages
    """When the bundle and its data were made, if they are the commit's."""

    @property
    def revision(self) -> str:
        return f"{self.commit}-dirty" if self.differences else self.commit

    def labels(self, base: str) -> dict[str, str]:
        """The image's labels, except those that the Dockerfile sets for every image."""
        name, _, digest = base.partition("@")
        oci, model = "org.opencontainers.image", "dev.espalier.model"
        return {
            f"{oci}.revision": self.revision,
            f"{oci}.version": self.version,
            f"{oci}.created": _shown(self.epoch),
            f"{oci}.base.name": name,
            **({f"{oci}.base.digest": digest} if digest else {}),
            f"{model}.name": self.manifest.name,
            f"{model}.version": self.manifest.version,
            f"{model}.digest": self.manifest.digest,
            **({f"{model}.created": _shown(self.ages.model)} if self.ages.model is not None else {}),
            **({"dev.espalier.data.created": _shown(self.ages.data)} if self.ages.data is not None else {}),
        }

    def build_arguments(self) -> dict[str, str]:
        """The Dockerfile's arguments; an age is empty where the history does not show it."""
        ages = {"MODEL_CREATED": self.ages.model, "DATA_CREATED": self.ages.data}
        return {"MODEL": self.bundle} | {
            name: "" if time is None else str(time) for name, time in ages.items()
        }

    def fault_of_ages(self) -> str | None:
        """Which ages a shallow clone hides, and the remedy; None if it hides none."""
        if not self.ages.missing:
            return None
        what = " and ".join(self.ages.missing)
        return f"the age of {what} is not in this clone: it is shallow; {UNSHALLOW}"


def read_source(root: Path, model: str | None = None) -> Source:
    """Read and verify the sources of the image of a further model, or of the first if None.

    Raises:
        ImageError: there is no bundle that can be served, or no commit.
    """
    named = place(MODEL, model)
    try:
        bundle = read_bundle(root / named)
    except BundleError as error:
        raise ImageError(
            f"{error}; `make pull TARGETS={named}` fetches the one that dvc.lock names"
        ) from None
    linked = next((path for path in (root / named).iterdir() if path.is_symlink()), None)
    if linked:
        raise ImageError(f"{linked} is a link, and a builder does not follow it: run `dvc unprotect {named}`")
    git = Git(root)
    try:
        commit = git.run("rev-parse", "--verify", "HEAD").strip()
    except GitError as error:
        raise ImageError(f"git cannot tell the commit of {root}: {error}; build in a clone") from None
    differences = _differences(git, model)
    # A bundle that is not committed has no age, and may come from other data.
    ages = Ages(None, None) if named in differences else read_ages(root, model)
    return Source(
        root=root,
        bundle=named,
        commit=commit,
        differences=differences,
        epoch=_epoch(git),
        version=tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"],
        manifest=bundle.manifest,
        ages=ages,
    )


def declared_base(root: Path) -> str:
    """The image that the Dockerfile starts from."""
    words = (root / DOCKERFILE).read_text(encoding="utf-8").split(maxsplit=2)
    if words[0] != "FROM":
        raise ImageError(f"{DOCKERFILE} does not begin with FROM")
    return words[1]


def bundle_hash_on_disk(directory: Path) -> str:
    """DVC's hash of a directory with these files."""
    entries = [
        {
            "md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
            "relpath": path.relative_to(directory).as_posix(),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]
    content = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def _differences(git: Git, model: str | None) -> tuple[str, ...]:
    listing = git.run("status", "--porcelain", "--no-renames", "-z", "--", *INPUTS)
    paths = [entry[3:] for entry in listing.split("\0") if entry]
    # The commit's dvc.lock counts, because no other clone has the working tree's.
    bundle = place(MODEL, model)
    if bundle_hash_on_disk(git.top / bundle) != bundle_hash("HEAD", git.top, model):
        paths.append(bundle)
    return tuple(paths)


def _shown(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _epoch(git: Git) -> int:
    """SOURCE_DATE_EPOCH, which other tools read too, or the time of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return int(git.run("log", "-1", "--format=%ct"))
    try:
        return int(given)
    except ValueError:
        raise ImageError(f"SOURCE_DATE_EPOCH={given}: it must be seconds since 1970") from None
