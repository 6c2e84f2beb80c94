"""Git, as the workflows' steps need it: one call, one clear error."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy.errors import GitError


def git(*arguments: str, folder: Path | None = None, stdin: bytes | None = None) -> str:
    """What git printed.

    Raises:
        GitError: it failed; the message is its last line.
    """
    done = attempt(*arguments, folder=folder, stdin=stdin)
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {_said(done)}")
    return done.stdout.decode()


def attempt(
    *arguments: str, folder: Path | None = None, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run git and leave it to the caller what a failure means. It never asks anybody for a password."""
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise GitError("git is not installed") from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ended with {done.returncode}"
