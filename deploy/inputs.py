"""The inputs of a model's image: one list for the builder, the release tool and the tests.

`.dockerignore` admits these paths and `app/Dockerfile` copies them, and of the bundles it copies one. Git does not hold the
bundle in `model/`; its hash in `dvc.lock` represents it, so other changes of that file do not change the image.

A further model is given by its name, and the first by None, as `common.models.further` does.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import yaml

from common import models
from common.git import GitError, git
from common.lock import LOCK_FILE, Entry, outputs
from deploy.errors import DeployError
from deploy.registry import split_repository
from deploy.yaml_loader import LOADER

INPUTS = (".dockerignore", "app", "pyproject.toml", "uv.lock")
"""Paths in git. `.dockerignore` and `app/Dockerfile` are not copied, but decide what is."""
MODEL = "model"
"""The bundle, in the model's folder."""
TRAINING_DOCKERFILE = "training/Dockerfile"
TRAINING_INPUTS = (
    "app/uv.txt",
    "common/__init__.py",
    "deploy/training/start.py",
    "pyproject.toml",
    TRAINING_DOCKERFILE,
    "training/__init__.py",
    "uv.lock",
)
"""What the image of training in a cluster is built from: packages, and hardly any code."""


def place(name: str, model: str | None) -> str:
    """A file of a model, from the top of the repository."""
    return f"{models.FOLDER}/{model}/{name}" if model else name


def training_image(repository: str, root: Path) -> str:
    """The image of training of the commit that is checked out: REGISTRY/NAME:training-HASH.

    Raises:
        DeployError: what it is built from differs from the commit.
        RegistryError: the repository is no REGISTRY/NAME.
    """
    split_repository(repository)
    if changed := git("status", "--porcelain", "--", *TRAINING_INPUTS, cwd=root).strip():
        raise DeployError(f"the image of training is built from commits, and these differ: {changed}")
    listing = git("ls-tree", "-r", "HEAD", "--", *TRAINING_INPUTS, cwd=root)
    return f"{repository}:training-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"


def changed(
    old_revision: str, new_revision: str, root: Path | None = None, model: str | None = None
) -> list[str]:
    """The inputs of a model's image that differ between two commits; with none the image would be the same.

    Args:
        old_revision: anything that git understands as a commit.
        new_revision: as `old_revision`.
        root: the clone; the working directory if None.
        model: a further model; the first if None.

    Returns:
        Paths of files, and the bundle's (`model`, `models/NAME/model`) if it differs.

    Raises:
        GitError: a revision is not in this clone.
    """
    root = root or Path()
    old, new = _commit(old_revision, root), _commit(new_revision, root)
    inputs = [f":(top){path}" for path in INPUTS]
    listing = git("diff", "--name-only", "--no-renames", "-z", old, new, "--", *inputs, cwd=root)
    paths = [path for path in listing.split("\0") if path]
    if bundle_hash(old, root, model) != bundle_hash(new, root, model):
        paths.append(place(MODEL, model))
    return paths


def bundle_hash(revision: str, root: Path | None = None, model: str | None = None) -> str | None:
    """The hash that a model's `dvc.lock` gives its bundle at a revision; None where it has none yet.

    Raises:
        GitError: the revision is not in this clone, or its dvc.lock cannot be read.
    """
    root = root or Path()
    commit, lock = _commit(revision, root), place(LOCK_FILE, model)
    if not git("ls-tree", "--full-tree", "--name-only", commit, "--", lock, cwd=root):
        return None
    return hash_in_lock(git("show", f"{commit}:{lock}", cwd=root), f"{revision}:{lock}")


def hash_in_lock(text: str, name: str = LOCK_FILE, path: str = MODEL) -> str | None:
    """The hash of the bundle, or of another output, in the text of a `dvc.lock`.

    Raises:
        GitError: it is no such file, for example because a merge left its marks in it.
    """
    try:
        output = _outputs(text).get(path)
    except (yaml.YAMLError, ValueError):
        raise GitError(f"{name} cannot be read: take either side of a conflict and run `dvc repro`") from None
    return output.md5 if output else None


@lru_cache(maxsize=64)
def _outputs(text: str) -> dict[str, Entry]:
    """Each lock of the history is read for the model and again for its data."""
    # This loader takes 17 ms for our lock, and ruamel.yaml's 240 ms.
    return outputs(yaml.load(text, LOADER))  # noqa: S506 - a safe one


def _commit(revision: str, root: Path) -> str:
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}", cwd=root).strip()
    except GitError as error:
        raise GitError(
            f"{revision} is no commit of this clone ({error}); "
            "a shallow one lacks those before: `git fetch --unshallow` brings them"
        ) from None
