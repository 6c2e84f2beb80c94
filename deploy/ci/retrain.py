"""Opens a pull request with what retraining changed, or brings the one that is open up to date.

There is one branch for it. It is written anew from main each time, unless somebody has added a commit to it: then it is
theirs. The pull request is reviewed like any other, and its own run of `reproduce` compares the models.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from deploy import github
from deploy.ci import lockback, patches, steps
from deploy.ci.git import attempt, commit, git, last_line, trailer
from deploy.errors import DeployError, GitError, run

BRANCH = "retrain"
TRAILER = "Retrained-from"
LONGEST_REASON = 300
TRIGGERS = {
    "schedule": "The weekly look at the data's source found it changed.",
    "repository_dispatch": "Monitoring asked for it.",
    "workflow_dispatch": "Somebody asked for it.",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.retrain", description=__doc__)
    parser.add_argument("--patch", type=Path, required=True, help="what deploy.ci.reproduce left")
    parser.add_argument("--base", default="main", help="the branch to merge into (main)")
    arguments = parser.parse_args()
    reason = why(os.environ.get("TRIGGER", ""), os.environ.get("REASON", ""))
    address = propose(arguments.patch, arguments.base, reason)
    print(address or "nothing changed: nothing to propose")


def why(trigger: str, reason: str) -> str:
    """The trigger, and the reason that came with it as one quoted line in which nothing means anything to GitHub."""
    text = TRIGGERS.get(trigger, "It was started by hand.")
    if cleaned := sanitise(reason):
        text += f" It says:\n\n> {cleaned}"
    return text


def sanitise(reason: str) -> str:
    """Words, figures and plain punctuation on one line: whoever may send the event may write anything into it."""
    words = re.sub(r"[^\w .,:;%()+=/-]", " ", reason)
    # No mention, no link, no reference to an issue: what starts them is gone, and so is the start of an address.
    words = re.sub(r"(?i)\b(https?:|www\.)/*", " ", words)
    return " ".join(words.split())[:LONGEST_REASON]


def propose(patch: Path, base: str, reason: str) -> str:
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
    steps.summary(body)
    pull, _ = github.open_pull_request(BRANCH, base, "Retrain on fresh data", body)
    return pull.html_url


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
        # `reproduce` may have recorded its results upon ours.
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
        raise GitError(f"cannot push to {BRANCH}: {last_line(pushed)}")


if __name__ == "__main__":
    run(main)
