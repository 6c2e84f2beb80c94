"""Git, as the workflows' steps need it: one call, one clear error.

`deploy.git` makes the release tool's commits without a working tree; here there is one, and it is thrown away.
"""

from __future__ import annotations

import os
import subprocess

from deploy.errors import GitError, git_reason

NAME = "espalier[bot]"
EMAIL = "espalier[bot]@users.noreply.github.com"


def git(*arguments: str, stdin: bytes | None = None, **environment: str) -> str:
    """What git printed.

    Raises:
        GitError: it failed; the message says why.
    """
    done = attempt(*arguments, stdin=stdin, **environment)
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {git_reason(done.stderr)}")
    return done.stdout.decode(errors="replace")


def commit(message: str) -> None:
    """Commit the index in the name of the project's bot, whosever machine this is."""
    people = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _BOT.items()}
    git("commit", "--quiet", "--no-verify", "--file=-", stdin=message.encode(), **people)


def trailer(commit: str, key: str) -> str:
    """The value of a trailer in a commit's message; empty where it has none."""
    return git("log", "-1", f"--format=%(trailers:key={key},valueonly)", commit).strip()


def attempt(
    *arguments: str, stdin: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run git and leave it to the caller what a failure means. It never asks anybody for a password."""
    try:
        return subprocess.run(
            ["git", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **environment},
        )
    except FileNotFoundError:
        raise GitError("git is not installed") from None


_BOT = {"NAME": NAME, "EMAIL": EMAIL}
