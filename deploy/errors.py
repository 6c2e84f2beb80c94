"""The errors of delivery that a person can do something about: shown as one line, ending with a status that says so.

`deploy` imports nothing of `training` and runs without it, so it has a family of its own.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable


class DeployError(Exception):
    """The message names the thing at fault and the remedy."""


class GitError(DeployError):
    """Git does not do what it was asked, or the clone lacks what is needed."""


class RegistryError(DeployError):
    """The registry cannot be asked, or does not have what it was asked for."""


class GitHubError(DeployError):
    """GitHub refuses, or cannot be reached."""


class ReleaseError(DeployError):
    """A release that must not or cannot be made."""


def git_reason(said: bytes) -> str:
    """Why git failed, in one line, from what it wrote to stderr."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    line = fatal[0] if fatal else (lines or ["git said nothing"])[-1]
    reason = line.removeprefix("fatal: ").removeprefix("error: ")
    # Of a clone that belongs to another user; git's remedy is on a line of its own.
    trust = next(
        (line for line in lines if line.startswith("git config --global --add safe.directory ")), None
    )
    return f"{reason}; trust it with `{trust}`" if trust else reason


def run(main: Callable[[], None], status: int = 1) -> None:
    """Run a command and end the process: `status` with one line on stderr for an error a person can act on.

    Anything else is a bug and shows its traceback, with the same status: 1 may be an answer of the command's.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # As files are read, whatever the locale is.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            main()
        finally:
            # Also what `--help` has printed before it exits.
            sys.stdout.flush()
    except DeployError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does; what is left must not be written at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        traceback.print_exc()
        sys.exit(status)
