"""Posts the artifact of a fork's run as a comment without trusting it.

The fork's code wrote the artifact, and this command has a token that may comment. So GitHub's record of the run's commit
and branch identifies the pull request, and no number in the artifact does. The archive's size is checked before the
download, and one text file is read in memory up to a limit. The comment shows the text in a code block that it cannot
end, so that GitHub renders no link, picture or mention.
"""

from __future__ import annotations

import argparse
import io
import re
import zipfile
import zlib

from common.command import run
from deploy import forge
from deploy.ci import comment
from deploy.errors import DeployError

ARTIFACT = "fork"
FILE = "comment.md"
LARGEST_ARCHIVE = 1_000_000
LARGEST_TEXT = 200_000
"""Bytes; the comment has a lower limit of its own."""
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Control characters, and those that change the direction or appearance of their neighbours."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.untrusted", description=__doc__)
    parser.add_argument("--run", type=int, required=True, metavar="ID", help="the fork's run")
    parser.add_argument("--head", required=True, metavar="COMMIT", help="its commit")
    parser.add_argument("--owner", required=True, help="who owns the fork")
    parser.add_argument("--branch", required=True, help="its branch")
    arguments = parser.parse_args()
    number = find(arguments.owner, arguments.branch, arguments.head)
    if number is None:
        print("no open pull request has this commit as its newest: nothing to say")
        return
    text = fetch(arguments.run)
    if text is None:
        print("the run left no comment: it does not touch the pipeline, or it was cancelled")
        return
    print(comment.post(number, "reproduce", present(text, arguments.head)))


def find(owner: str, branch: str, head: str) -> int | None:
    """The number of the open pull request whose newest commit this is."""
    if not _COMMIT.match(head):
        raise DeployError(f"{head!r} is no commit")
    return forge.current().fork_proposal(owner, branch, head)


def fetch(run_id: int) -> str | None:
    """The text in the run's artifact; None if it left none.

    Raises:
        DeployError: the artifact is too large, or has another form than our workflow uploads.
    """
    archive = forge.current().artifact(run_id, ARTIFACT, LARGEST_ARCHIVE)
    return None if archive is None else read(archive)


def read(archive: bytes) -> str:
    """The text in an archive; other members and the sizes in its directory are ignored."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(FILE) as file:
            content = file.read(LARGEST_TEXT + 1)
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error):
        raise DeployError(f"the artifact is no archive with a {FILE} in it") from None
    if len(content) > LARGEST_TEXT:
        raise DeployError(f"{FILE} has more than {LARGEST_TEXT:,} bytes")
    return content.decode("utf-8", errors="replace")


def present(text: str, head: str) -> str:
    """The text as a code block that nothing in it can end."""
    shown = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")).strip()
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    # The end of the fence counts towards the comment's limit.
    room = comment.LONGEST - 2 * len(fence) - 1000
    if room < 1000:
        raise DeployError("the text is nothing but backticks")
    if len(shown) > room:
        shown = shown[:room].rsplit("\n", 1)[0] + "\n…"
    return (
        f"The result of {head[:10]}, from a run without secrets. The fork's own code wrote this text, so it is shown "
        f"as it is and not rendered.\n\n{fence}text\n{shown}\n{fence}\n"
    )


if __name__ == "__main__":
    run(main)
