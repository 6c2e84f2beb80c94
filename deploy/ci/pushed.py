"""Gives later steps what `python -m deploy.image push` wrote down: outputs `image` (name@digest) and `digest`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from deploy.ci import steps
from deploy.errors import DeployError, run

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.pushed", description=__doc__)
    parser.add_argument("file", type=Path, help="build/image.json")
    name, digest = read(parser.parse_args().file)
    steps.output(image=f"{name}@{digest}", digest=digest)


def read(file: Path) -> tuple[str, str]:
    """The image's name without its tag, and its digest in the registry."""
    try:
        image = json.loads(file.read_text(encoding="utf-8"))
        reference, digest = str(image["reference"]), str(image["digest"])
    except OSError as error:
        raise DeployError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise DeployError(f"{file} is not what deploy.image writes") from None
    if not _DIGEST.match(digest):
        raise DeployError(f"{file} names no digest: push the image first")
    # A tag stands behind the last slash; a colon before it belongs to the registry's port.
    head, slash, tail = reference.partition("@")[0].rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}", digest


if __name__ == "__main__":
    run(main)
