"""Commits what a reproduction changed to the branch of a pull request: dvc.lock, metrics and reports.

It never loops: on the commit that this makes, the reproduction finds nothing to do and the patch is empty; should it
not be, the pipeline is not reproducible, and that is an error. It pushes only if the branch still
points at the reproduced commit: a newer commit has a run of its own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from common.command import run
from common.git import GitError, attempt, git
from common.git import reason as git_reason
from deploy.ci import patches, steps
from deploy.ci.git import commit, trailer
from deploy.errors import DeployError

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
    if git("rev-parse", "HEAD").strip() != head:
        raise DeployError(f"HEAD is not {head[:10]}, the commit that was reproduced")
    changed = patches.apply(patch)
    if not changed:
        print("dvc.lock was current: nothing to record")
        return False
    if origin := trailer(head, TRAILER):
        raise DeployError(
            f"{head[:10]} records what {origin[:10]} came to, and reproducing it changed {', '.join(changed)} again: "
            "the pipeline does not give the same result twice. Find the stage with `dvc repro --force`"
        )
    if not can_push:
        raise DeployError(
            f"{', '.join(changed)} must be committed, and there is no GitHub App to do it (vars.APP_ID): "
            "run `make repro` and commit them, or see docs/setup.md"
        )
    commit(message(changed, head))
    return _push(branch, head)


def message(changed: list[str], head: str) -> str:
    files = "\n".join(f"- {name}" for name in changed)
    return f"Record what {head[:10]} reproduces to\n\n{files}\n\n{TRAILER}: {head}\n"


def _push(branch: str, head: str) -> bool:
    target = f"refs/heads/{branch}"
    # The lease names what the branch must be, so it is neither overtaken nor brought back after it was deleted.
    pushed = attempt("push", "--quiet", f"--force-with-lease={target}:{head}", "origin", f"HEAD:{target}")
    if pushed.returncode == 0:
        print(f"pushed {git('rev-parse', '--short=10', 'HEAD').strip()} to {branch}")
        return True
    now = git("ls-remote", "origin", target).split()
    if not now:
        print(f"{branch} is gone: nothing to record")
        return False
    if now[0] != head:
        print(f"{branch} has moved on to {now[0][:10]}, whose own run records its results: nothing is pushed")
        return False
    raise GitError(f"cannot push to {branch}: {git_reason(pushed.stderr)}")


if __name__ == "__main__":
    run(main)
