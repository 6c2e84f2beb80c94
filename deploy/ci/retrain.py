"""Opens a pull request with what retraining changed, or brings the one that is open up to date.

There is one branch for it. It is made again from main each time, unless somebody has added a commit to it: then it is
theirs. The pull request is reviewed like any other, and its own run of `reproduce` compares the models. What monitoring
says of drift stands in it when there is something to say; whether anything is proposed does not depend on it.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from common.command import run
from common.git import GitError, attempt, git
from common.git import reason as git_reason
from deploy import github
from deploy.ci import lockback, patches, steps
from deploy.ci.git import commit, trailer
from deploy.errors import DeployError

BRANCH = "retrain"
TRAILER = "Retrained-from"
LONGEST_REASON = 300
LARGEST_TABLE = 20_000
"""Bytes of the drift table that are read; a hundred features are about half of it."""
LONGEST_LINE = 300
TRIGGERS = {
    "schedule": "The weekly look at the data's source found it changed.",
    "repository_dispatch": "Monitoring asked for it.",
    "workflow_dispatch": "Somebody asked for it.",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.retrain", description=__doc__)
    parser.add_argument("--patch", type=Path, required=True, help="what deploy.ci.reproduce left")
    parser.add_argument("--base", default="main", help="the branch to merge into (main)")
    parser.add_argument(
        "--drift",
        type=Path,
        metavar="FILE",
        help="the table of `python -m monitoring.drift --markdown`; what became of its job is in DRIFT",
    )
    arguments = parser.parse_args()
    reason = why(os.environ.get("TRIGGER", ""), os.environ.get("REASON", ""))
    found = drift(arguments.drift, os.environ.get("DRIFT", "success")) if arguments.drift else ""
    address = propose(arguments.patch, arguments.base, reason, found)
    print(address or "nothing changed: nothing to propose")


def why(trigger: str, reason: str) -> str:
    """The trigger, and the reason that came with it as one quoted line in which nothing means anything to GitHub."""
    text = TRIGGERS.get(trigger, "It was started by hand.")
    if cleaned := sanitise(reason):
        text += f" It says:\n\n> {cleaned}"
    return text


def sanitise(reason: str) -> str:
    """Words, figures and plain punctuation on one line: whoever may send the event may write anything into it."""
    return _words(reason)[:LONGEST_REASON]


def drift(file: Path, job: str) -> str:
    """The section on drift, from the table in a file and the result of the job that should have made it.

    The names in the table are whatever Prometheus holds, so nothing of it but words, figures and the table's own bars
    gets through. Empty when the job was skipped: the address of Prometheus is not set.
    """
    if job == "skipped":
        return ""
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_TABLE + 1)
    except OSError:
        content = b""
    lines = [_row(line) for line in content[:LARGEST_TABLE].decode("utf-8", errors="replace").splitlines()]
    if not any(lines):
        text = "Drift was not looked at: the job that asks Prometheus failed. The log of this run says why."
    else:
        if len(content) > LARGEST_TABLE:
            lines[-1] = ""
            lines.append("The rest is in the artifact of this run.")
        text = "\n".join(lines).strip()
    return f"### Drift\n\n{text}"


def propose(patch: Path, base: str, reason: str, found: str = "") -> str:
    """Commit, push and open; gives the pull request's address, or nothing when nothing changed.

    Raises:
        DeployError: somebody works on the branch.
    """
    start = git("rev-parse", "HEAD").strip()
    changed = patches.apply(patch)
    if not changed:
        return ""
    commit(f"Retrain on what the source holds now\n\n{reason}\n\n{TRAILER}: {start}\n")
    _push(_ours())
    body = (
        f"{reason}\n\nThis changes {', '.join(f'`{name}`' for name in changed)}. The comment below compares the models "
        "as soon as they are reproduced. Nothing is deployed before this is merged and promoted."
    )
    if found:
        body += f"\n\n{found}\n"
    steps.summary(body)
    pull, _ = github.open_pull_request(BRANCH, base, "Retrain on fresh data", body)
    return pull.html_url


def _row(line: str) -> str:
    """A line of a table, or of text that is nothing but text."""
    if not line.startswith("|"):
        return _words(line)[:LONGEST_LINE]
    return f"| {' | '.join(_words(cell)[:LONGEST_LINE] for cell in line.strip('| ').split('|'))} |"


def _words(text: str) -> str:
    """No mention, no link, no reference to an issue: what starts them is gone, and so is the start of an address."""
    words = re.sub(r"[^\w .,:;%()'+=/-]", " ", text)
    words = re.sub(r"(?i)\b(https?:|www\.)/*", " ", words)
    return " ".join(words.split())


def _ours() -> str:
    """The branch's tip on origin, which may be replaced; empty when there is no such branch.

    Raises:
        DeployError: it holds a commit that no workflow made.
    """
    found = git("ls-remote", "origin", f"refs/heads/{BRANCH}").split()
    if not found:
        return ""
    git("fetch", "--quiet", "origin", f"refs/heads/{BRANCH}")
    tip = found[0]
    for each in git("rev-list", f"HEAD..{tip}").split():
        # `reproduce` may have recorded its results on top of ours.
        if not trailer(each, TRAILER) and not trailer(each, lockback.TRAILER):
            raise DeployError(
                f"branch {BRANCH} holds a commit that was made by hand ({each[:10]}): "
                "merge or delete the branch, then start again"
            )
    return tip


def _push(tip: str) -> None:
    """Replace the tip that was looked at, and no other."""
    pushed = attempt(
        "push",
        "--quiet",
        f"--force-with-lease=refs/heads/{BRANCH}:{tip}",
        "origin",
        f"HEAD:refs/heads/{BRANCH}",
    )
    if pushed.returncode:
        raise GitError(f"cannot push to {BRANCH}: {git_reason(pushed.stderr)}")


if __name__ == "__main__":
    run(main)
