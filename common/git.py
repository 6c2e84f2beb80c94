"""Runs git without password prompts and with English messages."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from common.errors import EspalierError

NO_VARIABLES: Mapping[str, str] = {}


class GitError(EspalierError):
    """Git failed, or the clone lacks what is needed."""


class PassingError(GitError):
    """Git failed for a reason that may be gone the next time: no answer in time, or no connection."""


def git(
    *arguments: str,
    cwd: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] = NO_VARIABLES,
) -> str:
    """What git printed.

    Raises:
        GitError: it failed; the message says why.
    """
    done = attempt(*arguments, cwd=cwd, stdin=stdin, environment=environment)
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {reason(done.stderr)}")
    return done.stdout.decode(errors="replace")


def attempt(
    *arguments: str,
    cwd: Path | None = None,
    stdin: bytes = b"",
    seconds: float | None = None,
    environment: Mapping[str, str] = NO_VARIABLES,
) -> subprocess.CompletedProcess[bytes]:
    """Run git and let the caller decide what a failure means.

    Raises:
        GitError: git is not installed.
        PassingError: it did not end within `seconds`.
    """
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **environment},
        )
    except FileNotFoundError:
        raise GitError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise PassingError(f"git {arguments[0]} does not end within {seconds:g} s") from None


def reason(said: bytes) -> str:
    """Why git failed, in one line, from what it wrote to stderr."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    line = fatal[0] if fatal else (lines or ["git said nothing"])[-1]
    found = line.removeprefix("fatal: ").removeprefix("error: ")
    trust = trust_command(said)
    return f"{found}; trust it with `{trust}`" if trust else found


def trust_command(said: bytes) -> str | None:
    """The command that git suggests if the clone belongs to another user, from what it wrote to stderr."""
    found = re.search(rb"git config --global --add safe\.directory .+", said)
    return found[0].decode(errors="replace").strip() if found else None
