"""Commits what a reproduction changed to the branch of a pull request: dvc.lock, metrics and reports.

It never loops: reproducing the commit that this makes gives an empty patch; any other patch means that the pipeline is
not reproducible, and is an error. It pushes only if the branch still points at the reproduced commit: a newer commit
has its own run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from common.command import run
from common.git import GitError
from deploy import forge
from deploy.ci import patches, steps
from deploy.errors import DeployError
from deploy.git import Git

TRAILER = "Reproduced-from"
"""Names the commit whose results a commit records."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.lockback", description=__doc__)
    parser.add_argument("--patch", type=Path, required=True, help="what deploy.ci.reproduce left")
    parser.add_argument("--branch", required=True, help="the pull request's branch")
    parser.add_argument("--head", required=True, metavar="COMMIT", help="the commit that was reproduced")
    arguments = parser.parse_args()
    can_push = os.environ.get("CAN_PUSH", "true") == "true"
    steps.output(recorded=record(arguments.patch, arguments.branch, arguments.head, can_push=can_push))


def record(patch: Path, branch: str, head: str, *, can_push: bool = True) -> bool:
    """Whether a commit was made and pushed.

    Raises:
        DeployError: the patch is not acceptable, the pipeline not reproducible, or there is no token to push with.
        GitError: the push failed although the branch has not moved.
    """
    git = Git(Path())
    if git.require("HEAD") != head:
        raise DeployError(f"HEAD is not {head[:10]}, the commit that was reproduced")
    changed = patches.apply(patch)
    if not changed:
        print("dvc.lock was current: nothing to record")
        return False
    if origin := git.trailer(head, TRAILER):
        raise DeployError(
            f"{head[:10]} records what {origin[:10]} reproduces to, and reproducing it changed {', '.join(changed)} again: "
            "the pipeline does not give the same result twice. Find the stage with `dvc repro --force`"
        )
    if not can_push:
        raise DeployError(
            f"{', '.join(changed)} must be committed, and {forge.current().without_token}: "
            "run `make repro` and commit them, or see docs/setup.md"
        )
    git.commit_index(message(changed, head))
    return _push(git, branch, head)


def message(changed: list[str], head: str) -> str:
    names = "\n".join(f"- {name}" for name in changed)
    return f"Record what {head[:10]} reproduces to\n\n{names}\n\n{TRAILER}: {head}\n"


def _push(git: Git, branch: str, head: str) -> bool:
    commit = git.require("HEAD")
    try:
        git.replace(commit, branch, head)
    except GitError:
        now = git.remote_tip(branch)
        if now is None:
            print(f"{branch} is gone: nothing to record")
        elif now != head:
            print(
                f"{branch} has moved on to {now[:10]}, whose own run records its results: nothing is pushed"
            )
        else:
            raise
        return False
    print(f"pushed {commit[:10]} to {branch}")
    return True


if __name__ == "__main__":
    run(main)
