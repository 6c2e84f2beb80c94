"""Git, as the workflows' steps need it: one call, one clear error.

`deploy.git` makes the release tool's commits without a working tree; here there is one, and it is thrown away.
"""

from __future__ import annotations

from common.git import git

NAME = "espalier[bot]"
EMAIL = "espalier[bot]@users.noreply.github.com"


def commit(message: str) -> None:
    """Commit the index in the name of the project's bot, whosever machine this is."""
    people = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _BOT.items()}
    git("commit", "--quiet", "--no-verify", "--file=-", stdin=message.encode(), environment=people)


def trailer(commit: str, key: str) -> str:
    """The value of a trailer in a commit's message; empty where it has none."""
    return git("log", "-1", f"--format=%(trailers:key={key},valueonly)", commit).strip()


_BOT = {"NAME": NAME, "EMAIL": EMAIL}
