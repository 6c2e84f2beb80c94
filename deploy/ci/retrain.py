"""Opens a pull request with what retraining changed, or updates the one that is open.

A proposal is on the branch `retrain`, or `retrain-NAME` if it is about one of several models. The branch is made from main
each time and never replaced once somebody has added a commit to it. The pull request is reviewed like any other, and its
own run of `reproduce` compares the models. Drift that monitoring reports is quoted in it, and does not decide whether
anything is proposed.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

from common import models
from common.command import run
from deploy import forge
from deploy.ci import lockback, patches, steps
from deploy.errors import DeployError
from deploy.git import Git

BRANCH = "retrain"
TRAILER = "Retrained-from"
LONGEST_TITLE = 72
"""Of a commit's subject; a longer one counts the models."""
LONGEST_REASON = 300
LARGEST_TABLE = 20_000
"""Bytes of the drift table that are read; a hundred features are about half of it."""
LONGEST_LINE = 300
TRIGGERS = {
    "schedule": "The weekly look at the data's source found it changed.",
    "repository_dispatch": "Monitoring asked for it.",
    "workflow_dispatch": "Somebody asked for it.",
    # GitLab's words for the two before.
    "trigger": "Monitoring asked for it.",
    "web": "Somebody asked for it.",
    # Kinds of runs of Airflow; one that was started by hand is of the kind `manual`.
    "scheduled": "The weekly look at the data's source found it changed.",
    "asset_triggered": "Airflow was told of new data.",
    "kubeflow": "A run of the Kubeflow pipeline found the data changed.",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.retrain", description=__doc__)
    parser.add_argument("--patch", type=Path, required=True, help="what deploy.ci.reproduce left")
    parser.add_argument(
        "--model", default="", metavar="NAME", help="the model that was retrained (default: all of them)"
    )
    parser.add_argument("--base", default="main", help="the branch to merge into (main)")
    parser.add_argument(
        "--drift",
        type=Path,
        metavar="FILE",
        help="the table of `python -m monitoring.drift --markdown`; DRIFT holds the result of its job",
    )
    arguments = parser.parse_args()
    selected = models.select(arguments.model or models.ALL, Path())
    reason = why(os.environ.get("TRIGGER", ""), os.environ.get("REASON", ""))
    found = drift(arguments.drift, os.environ.get("DRIFT", "success")) if arguments.drift else ""
    address = propose(arguments.patch, selected, arguments.base, reason, found)
    print(address or "nothing changed: nothing to propose")


def why(trigger: str, reason: str) -> str:
    """The trigger and its reason, as one quoted line in which nothing is markup."""
    text = TRIGGERS.get(trigger, "It was started by hand.")
    if cleaned := sanitise(reason):
        text += f" It says:\n\n> {cleaned}"
    return text


def sanitise(reason: str) -> str:
    """Words, figures and plain punctuation on one line: whoever sends the event can write anything into it."""
    return _words(reason)[:LONGEST_REASON]


def drift(file: Path, job: str) -> str:
    """The section on drift, from the table in a file and the result of the job that should have made it.

    Prometheus decides the names in the table, so only words, figures and the table's own bars are kept. Empty when the
    job was skipped: the address of Prometheus is not set.
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


def propose(patch: Path, selected: Mapping[str, Path], base: str, reason: str, found: str = "") -> str:
    """Commit, push and open; gives the pull request's address, or nothing when nothing changed.

    Args:
        patch: what retraining changed.
        selected: the models that were retrained, as `common.models.select` gives them.
        base: the branch to merge into.
        reason: why, in the commit and in the pull request.
        found: the section on drift.

    Raises:
        DeployError: somebody works on the branch, or the patch is about another model.
    """
    git = Git(Path())
    start = git.require("HEAD")
    changed = patches.apply(patch)
    if not changed:
        return ""
    found_in = {patches.split(path)[0] for path in changed}
    names = [name for name, folder in selected.items() if models.further(folder) in found_in]
    if len(names) < len(found_in):
        raise DeployError(f"the patch changes more than {', '.join(selected)}, which was retrained")
    branch = BRANCH if len(selected) == len(models.find(Path())) else f"{BRANCH}-{next(iter(selected))}"
    title = f"Retrain {' and '.join(names)} on fresh data"
    if len(title) > LONGEST_TITLE:
        title = f"Retrain {len(names)} models on fresh data"
    git.commit_index(f"{title}\n\n{reason}\n\n{TRAILER}: {start}\n")
    # Only the tip that was checked is replaced.
    git.replace(git.require("HEAD"), branch, replaceable_tip(git, branch))
    body = (
        f"{reason}\n\nThis retrains {', '.join(names)} and changes {', '.join(f'`{path}`' for path in changed)}. "
        "The comment below compares the models as soon as they are reproduced. Nothing is deployed before this is "
        "merged and promoted."
    )
    if found:
        body += f"\n\n{found}\n"
    steps.summary(body)
    address, _ = forge.current().propose(branch, base, title, body)
    return address


def _row(line: str) -> str:
    """A line of a table or of plain text."""
    if not line.startswith("|"):
        return _words(line)[:LONGEST_LINE]
    return f"| {' | '.join(_words(cell)[:LONGEST_LINE] for cell in line.strip('| ').split('|'))} |"


def _words(text: str) -> str:
    """The text without the characters that start a mention, link or issue reference, and without URL schemes."""
    words = re.sub(r"[^\w .,:;%()'+=/-]", " ", text)
    words = re.sub(r"(?i)\b(https?:|www\.)/*", " ", words)
    return " ".join(words.split())


def replaceable_tip(git: Git, branch: str) -> str | None:
    """The branch's tip on origin, all of whose commits workflows made; None when there is no such branch.

    Raises:
        DeployError: it holds a commit that no workflow made.
    """
    tip = git.remote_tip(branch)
    if tip is None:
        return None
    for each in git.run("rev-list", f"HEAD..{tip}").split():
        # `reproduce` may have recorded its results after ours.
        if not git.trailer(each, TRAILER) and not git.trailer(each, lockback.TRAILER):
            raise DeployError(
                f"branch {branch} holds a commit that was made by hand ({each[:10]}): "
                "merge or delete the branch, then start again"
            )
    return tip


if __name__ == "__main__":
    run(main)
