"""The models of a repository, and a command that runs in the folder of one or of all.

The repository's top folder is the first model. Each further one is a folder in models/.

usage: python -m common.models MODEL COMMAND...

MODEL is the name of a model, or `all`; an empty one is the first model.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from common.command import run
from common.errors import EspalierError

ROOT = Path(__file__).parents[1]
FOLDER = "models"
PARAMS_FILE = "params.yaml"
ALL = "all"
"""Stands for every model, so no model has this name."""
NAME = re.compile(r"[a-z](-?[a-z0-9]){0,30}\Z")
"""What a folder in models/ may be called: it becomes part of names in Kubernetes and of an image."""
_NAMED = re.compile(r"""^name:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)


class UnknownModelError(EspalierError):
    """No model has this name."""


class ModelNameError(EspalierError):
    """A model cannot have this name."""


def find(root: Path = ROOT) -> dict[str, Path]:
    """The folder of each model by its name: first the repository's, then those in models/, sorted.

    The first model is called as its params.yaml says, because its folder may have any name.
    """
    found = {_declared(root): root}
    # A name that begins with a dot is of a folder that is being written.
    further = {each.parent.name: each.parent for each in root.glob(f"{FOLDER}/[!.]*/{PARAMS_FILE}")}
    return found | {name: further[name] for name in sorted(further)}


def select(name: str, root: Path = ROOT) -> dict[str, Path]:
    """The models that a command is about: one by its name, the first for an empty name, or all.

    Raises:
        UnknownModelError: no model has this name. The message names a similar one, or all.
    """
    models = find(root)
    if name == ALL:
        return models
    if not name:
        return dict(list(models.items())[:1])
    if name not in models:
        raise UnknownModelError(unknown(name, models))
    return {name: models[name]}


def further(folder: Path) -> str | None:
    """The name of the further model in a folder; None for the first model's."""
    folder = folder.resolve()
    top = folder.parent.parent
    return folder.name if folder.parent.name == FOLDER and (top / PARAMS_FILE).is_file() else None


def name(folder: Path) -> str:
    """The name of the model in a folder."""
    return further(folder) or _declared(folder)


def prefix(name: str, root: Path = ROOT) -> str:
    """What the paths of a model's files begin with, from the top of the repository; empty for the first model."""
    return "" if name == _declared(root) else f"{FOLDER}/{name}/"


def check_name(name: str) -> None:
    """Raise if a model cannot have a name.

    Raises:
        ModelNameError: it cannot; the message says what can.
    """
    if not NAME.match(name) or name == ALL:
        raise ModelNameError(
            f"a model cannot be called {name[:100]!r}, because names in Kubernetes begin with its name: use at most 31 "
            f"lower-case letters, digits and single hyphens, a letter first, and not {ALL}"
        )


def proposed_name(text: str) -> str:
    """A name for a model that is made of some text, such as a file's name; `model` if nothing in it can be used."""
    found = re.sub(r"[^a-z0-9]+", "-", text.lower())[:31].strip("-")
    found = found if not found[:1].isdigit() else f"model-{found}"[:31].strip("-")
    return found if found and found != ALL else "model"


def unknown(name: str, models: Mapping[str, Path]) -> str:
    """What to say of a name that no model has, in one line even if a stranger made it up."""
    close = difflib.get_close_matches(name, [*models, ALL], n=1)
    hint = f"did you mean {close[0]}" if close else f"there are {', '.join(models)} (and {ALL})"
    if NAME.match(name):
        hint += f", or create it with `make model NAME={name} SOURCE=… TARGET=…`"
    return f"there is no model {name[:100]!r}: {hint}"


def main() -> None:
    if len(sys.argv) < 3:
        print((__doc__ or "").strip())
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    models = select(sys.argv[1])
    command = sys.argv[2:]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, folder in models.items():
        if len(models) > 1:
            print(f"\n{name}:", flush=True)
        status = _execute(command, folder, environment)
        if status:
            # Negative: a signal ended it.
            sys.exit(status if status > 0 else 128 - status)


def _execute(command: list[str], folder: Path, environment: Mapping[str, str]) -> int:
    try:
        with subprocess.Popen(command, cwd=folder, env=environment) as process:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    # The command got it from the terminal, too, and may have work to save.
                    continue
    except OSError as error:
        raise EspalierError(f"cannot run {command[0]}: {error.strerror}") from None


def _declared(folder: Path) -> str:
    """The name in a params.yaml; empty where there is none."""
    try:
        found = _NAMED.search((folder / PARAMS_FILE).read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""


if __name__ == "__main__":
    run(main)
