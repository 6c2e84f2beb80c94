"""Builds the image in which training runs in a cluster: the packages of uv.lock, without the project's code.

Its tag is a hash of what it is built from, so commits with the same packages share an image, and it is built once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.command import run
from deploy.image.builders import Builder, Request, choose
from deploy.inputs import TRAINING_DOCKERFILE, TRAINING_INPUTS, training_image
from deploy.registry import Registry, split_repository


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.image.training", description=__doc__)
    parser.add_argument("repository", metavar="REGISTRY/NAME", help="the variable REGISTRY")
    parser.add_argument("--push", action="store_true", help="push it, unless the registry has it")
    parser.add_argument(
        "--base",
        metavar="IMAGE",
        default=os.environ.get("IMAGE_BASE"),
        help="an image to build on in place of the Dockerfile's (IMAGE_BASE)",
    )
    options = parser.parse_args()
    name, root = training_image(options.repository, Path()), Path().absolute()
    if options.push and _is_there(name):
        print(f"{name} is there already")
        return
    builder = choose(os.environ.get("IMAGE_TOOL") or None)
    build(name, root, builder, options.base, tuple(shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))))
    print(f"built {name}")
    if options.push:
        print(f"pushed it as {builder.push(name)}")


def build(name: str, root: Path, builder: Builder, base: str | None, arguments: tuple[str, ...] = ()) -> None:
    """Build it under a name, as `training_image` gives it. Raises ImageError if the builder fails."""
    with _context(root) as folder:
        builder.build(
            Request(
                root=folder,
                dockerfile=TRAINING_DOCKERFILE,
                reference=name,
                base=base,
                labels={},
                build_arguments={},
                # Not the commit's: the same packages are the same image.
                epoch=0,
                arguments=arguments,
            )
        )


def _is_there(name: str) -> bool:
    repository, _, tag = name.rpartition(":")
    with Registry() as registry:
        return registry.digest_of(*split_repository(repository), tag) is not None


@contextmanager
def _context(root: Path) -> Iterator[Path]:
    """A folder with the inputs alone. .dockerignore is about the service's image."""
    with tempfile.TemporaryDirectory(prefix="espalier-training-") as temporary:
        for each in TRAINING_INPUTS:
            target = Path(temporary) / each
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((root / each).read_bytes())
            target.chmod(0o644)
        yield Path(temporary)


if __name__ == "__main__":
    run(main)
