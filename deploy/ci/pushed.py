"""Gives later steps what `python -m deploy.image push` wrote down: outputs `image` (name@digest) and `digest`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from common.command import run
from deploy.ci import steps
from deploy.errors import DeployError

RECORD = Path("build/image.json")
_PUSHED = re.compile(r"[^@\s]+@(sha256:[0-9a-f]{64})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.pushed", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=RECORD, help=f"{RECORD} if not given")
    image, digest = read(parser.parse_args().file)
    steps.output(image=image, digest=digest)


def read(file: Path) -> tuple[str, str]:
    """The image by digest, and the digest.

    Raises:
        DeployError: nothing was pushed.
    """
    try:
        pushed = json.loads(file.read_text(encoding="utf-8"))["pushed"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DeployError(f"{file} cannot be read: `python -m deploy.image push` writes it") from None
    found = _PUSHED.fullmatch(str(pushed))
    if found is None:
        raise DeployError(f"{file} names no digest in a registry: `python -m deploy.image push` first")
    return str(pushed), found[1]


if __name__ == "__main__":
    run(main)
