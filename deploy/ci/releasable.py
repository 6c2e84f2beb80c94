"""Tells which models must be released at a commit: output `models`, a list as JSON, and `release`, true unless it is empty.
`names` has the same models with blanks between them.

It fails if the commit may not be released: it must be in main, and CI green for it. A model must be released if
`deploy.release needed` says so at that commit, and the environment of wave 0 does not run a newer one. This runs on main, so that the commit
cannot change the rules for itself. `deploy.release set` decides again when the image is there.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from common.command import run
from deploy.ci import steps
from deploy.errors import DeployError, ReleaseError
from deploy.git import Git
from deploy.release import deployments, waves
from deploy.release.commands import require_check

REQUIRED_CHECK = "gate"
"""The job of ci that sums up all others."""
NEEDED, NOT_NEEDED = 0, 1
"""Exit statuses of `deploy.release needed`; any other is a failure."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.releasable", description=__doc__)
    parser.add_argument("commit", help="all 40 digits")
    parser.add_argument(
        "--by-hand",
        action="store_true",
        help="refuse a commit if the environment of wave 0 has gone past it, instead of skipping it",
    )
    parser.add_argument(
        "--gated",
        action="store_true",
        help="do not ask whether CI is green: this is a later job of the same run, in which it is",
    )
    arguments = parser.parse_args()
    commit, git = arguments.commit, Git.around(Path.cwd())
    check(git, commit, gated=arguments.gated)
    first, newer = overtaken(git, commit)
    git.run("checkout", "--quiet", "--detach", commit)
    found = [model for model in _needed() if model not in newer]
    for model, revision in newer.items():
        print(f"{model}: {first} runs {revision[:12]}, which contains {commit[:12]}: left as it is")
    if arguments.by_hand and newer and not found:
        model, revision = next(iter(newer.items()))
        raise ReleaseError(
            f"{commit[:12]} is older than {revision[:12]}, which {first} runs of {model}, and would displace it: release "
            f"a newer commit, or start the workflow rollback with the environment {first} (`python -m deploy.release "
            f"rollback {first} --model {model} --pull-request`)"
        )
    steps.output(names=" ".join(found), models=json.dumps(found), release=bool(found))


def check(git: Git, commit: str, *, gated: bool = False) -> None:
    """Refuse a commit that may not be released; HEAD is main.

    Raises:
        ReleaseError: it is not a full commit, not in main, or CI is not green for it.
        ForgeError: the forge cannot be asked.
    """
    if not _COMMIT.fullmatch(commit):
        raise ReleaseError(f"{commit!r} is not a full commit: give all 40 digits")
    git.require_history()
    if git.commit(commit) is None or not git.contains("HEAD", commit):
        raise ReleaseError(f"{commit[:12]} is not part of main: merge it first")
    if not gated:
        require_check(REQUIRED_CHECK, commit)


def overtaken(git: Git, commit: str) -> tuple[str, dict[str, str]]:
    """The environment of wave 0, and the newer commit of each model of which it runs one; HEAD is main."""
    head = git.require("HEAD")
    first = waves.read(git, head).first
    found = {}
    for model in deployments.owners(git, head).get(first, ()):
        running = deployments.current(git, head, first, model)
        if running is None or running.revision == commit or git.commit(running.revision) is None:
            continue
        if git.contains(running.revision, commit):
            found[model] = running.revision
    return first, found


def _needed() -> list[str]:
    """The models, according to the release tool of the commit that is checked out."""
    command = [sys.executable, "-m", "deploy.release", "needed", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    *said, last = done.stdout.splitlines() or [""]
    print("\n".join(said))
    if done.returncode not in (NEEDED, NOT_NEEDED):
        raise DeployError(f"`python -m deploy.release needed` failed with {done.returncode}")
    found: list[str] = json.loads(last)
    return found


if __name__ == "__main__":
    run(main)
