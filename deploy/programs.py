"""Finds other programs and runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from deploy.errors import DeployError


class MissingProgramError(DeployError):
    """A program is not installed."""


def find(program: str, remedy: str = "") -> str:
    """The path of a program, first beside this Python, because its environment need not be activated.

    Raises:
        MissingProgramError: it is not installed.
    """
    path = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if path is None:
        raise MissingProgramError(f"{program} is not installed" + (f": {remedy}" if remedy else ""))
    return path


def call(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: str | None = None,
    allowed: Collection[int] = (0,),
    whole: bool = False,
) -> str:
    """What a program printed.

    Raises:
        DeployError: it ended with a status that is not allowed; the message has its last line or, with `whole`, all.
    """
    done = subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode not in allowed:
        said = (done.stderr or done.stdout).strip() or "it printed no reason"
        reason = f"\n{said}" if whole else f" {said.splitlines()[-1]}"
        raise DeployError(f"{Path(command[0]).name} {command[1]} ended with {done.returncode}:{reason}")
    return done.stdout
