"""Writes the overlays of a model, one for each environment, and its owners into CODEOWNERS.

The overlays are copies of the first model's, with another name and other hosts. Nothing is deployed before the first release.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from common import files, models, overlays
from common.command import run
from deploy.errors import DeployError

OWNERS = Path(".github/CODEOWNERS")
KUSTOMIZATION = "kustomization.yaml"
_EVERYTHING = re.compile(r"^\*\s+(@.+)$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.overlay", description=__doc__)
    parser.add_argument("model", metavar="NAME", help="a model, which has a folder in models/")
    parser.add_argument(
        "--owners", metavar="TEAMS", help="who reviews its changes (default: those who review everything)"
    )
    options = parser.parse_args()
    root = models.ROOT
    models.select(options.model, root)
    for path in write(root, options.model, options.owners):
        print(path)


def write(root: Path, model: str, owners: str | None = None) -> list[str]:
    """Write what is missing.

    Returns:
        The files that were written, from the root.

    Raises:
        ModelNameError: a model cannot have this name.
        DeployError: an environment has no overlay to copy, or CODEOWNERS has no owners of everything.
    """
    models.check_name(model)
    first = models.name(root)
    texts = {}
    for environment in sorted((root / overlays.FOLDER).glob(f"*/{KUSTOMIZATION}")):
        target = f"{overlays.folder(environment.parent.name, model)}/{KUSTOMIZATION}"
        if not (root / target).exists():
            source = _example(environment.parent, first)
            texts[target] = renamed(source.read_text(encoding="utf-8"), source.parent.name, model)
    code_owners = _owned((root / OWNERS).read_text(encoding="utf-8"), model, owners)
    if model != first and code_owners:
        texts[str(OWNERS)] = code_owners
    for path, text in texts.items():
        files.write_text(root / path, text)
    return list(texts)


def _example(environment: Path, first: str) -> Path:
    """The overlay to copy: the first model's, or any other's where that one was renamed."""
    found = sorted(environment.glob(f"*/{KUSTOMIZATION}"), key=lambda path: (path.parent.name != first, path))
    if not found:
        raise DeployError(f"{environment} has no overlay of a model to copy")
    return found[0]


def renamed(text: str, former: str, model: str) -> str:
    """An overlay for another model: its name prefix, its label, its hosts, and the comments that name it."""
    name = re.escape(former)
    places = (
        rf"^(namePrefix: ){name}(?=-$)",
        # In quotes, because YAML takes some names for no text.
        rf"""(app\.kubernetes\.io/instance: ["']?){name}(?=["']?$)""",
        rf"(\bvalue: ){name}(?=\.)",
        rf"^(# The model ){name}\b",
    )
    for place in places:
        text = re.sub(place, rf"\g<1>{model}", text, flags=re.MULTILINE)
    return text


def _owned(text: str, model: str, owners: str | None) -> str | None:
    """CODEOWNERS with a line for a further model; None if it has one."""
    path = f"/{models.FOLDER}/{model}/"
    if re.search(rf"^{path}\s", text, re.MULTILINE):
        return None
    everything = _EVERYTHING.search(text)
    if owners is None and everything is None:
        raise DeployError(f"{OWNERS} has no line `* @OWNERS`: say --owners")
    return f"{text.rstrip()}\n{path:<28} {owners or (everything[1] if everything else '')}\n"


if __name__ == "__main__":
    run(main)
