"""Writes or replaces a comment on a pull request: one comment for each marker."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.command import run
from deploy import github
from deploy.errors import DeployError

LONGEST = 65_000
"""Characters; GitHub takes 65,536."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.comment", description=__doc__)
    parser.add_argument("file", type=Path, help="the text, in Markdown")
    parser.add_argument("--pull-request", type=int, required=True, metavar="NUMBER")
    parser.add_argument("--marker", required=True, help="identifies the comment")
    arguments = parser.parse_args()
    try:
        text = arguments.file.read_text(encoding="utf-8")
    except OSError as error:
        raise DeployError(f"cannot read {arguments.file}: {error.strerror}") from None
    print(post(arguments.pull_request, arguments.marker, text))


def post(number: int, marker: str, text: str) -> str:
    """Write the comment and give its address.

    Raises:
        GitHubError: GitHub refuses.
    """
    body = f"{hidden(marker)}\n{shorten(text)}"
    former = next(
        (each for each in github.get_all(f"issues/{number}/comments") if _is_ours(each, marker)), None
    )
    if former is None:
        answer = github.send("POST", f"issues/{number}/comments", body=body)
    elif former["body"] == body:
        answer = former
    else:
        answer = github.send("PATCH", f"issues/comments/{int(former['id'])}", body=body)
    return str(answer["html_url"])


def hidden(marker: str) -> str:
    """The first line of the comment, which GitHub does not show."""
    if not marker.isidentifier():
        raise DeployError(f"{marker!r} is no marker: letters, digits and underscores only")
    return f"<!-- espalier:{marker} -->"


def shorten(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return (
        text[:LONGEST].rsplit("\n", 1)[0]
        + "\n\n… too long for a comment: the rest is in the run's artifact.\n"
    )


def _is_ours(comment: github.Json, marker: str) -> bool:
    """Whether a workflow wrote the comment with this marker, which anybody can write."""
    user = comment["user"] or {}  # none where the account was deleted
    return user.get("type") == "Bot" and str(comment["body"]).startswith(hidden(marker))


if __name__ == "__main__":
    run(main)
