"""Writes or replaces a comment on a pull or merge request: one comment for each marker."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.command import run
from deploy import forge
from deploy.errors import DeployError

LONGEST = 65_000
"""Characters; GitHub takes 65,536, and GitLab a million."""


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
        ForgeError: the forge refuses.
    """
    mark = hidden(marker)
    return forge.current().comment(number, mark, f"{mark}\n{shorten(text)}")


def hidden(marker: str) -> str:
    """The first line of the comment, which is not shown."""
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


if __name__ == "__main__":
    run(main)
