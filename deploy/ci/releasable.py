"""Tells which models must be released at a commit: output `models`, a list as JSON, and `release`, true unless it is empty.

It fails if the commit may not be released: it must be in main, and CI green for it. A model must be released if
`deploy.release needed` says so at that commit. This runs on main, so that the commit cannot change the rules for itself.
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
from deploy.release.commands import require_check

REQUIRED_CHECK = "gate"
"""The job of ci that sums up all others."""
NEEDED, NOT_NEEDED = 0, 1
"""Exit statuses of `deploy.release needed`; any other is a failure."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.releasable", description=__doc__)
    parser.add_argument("commit", help="all 40 digits")
    commit = parser.parse_args().commit
    git = Git.around(Path.cwd())
    check(git, commit)
    git.run("checkout", "--quiet", "--detach", commit)
    found = _needed()
    steps.output(models=json.dumps(found), release=bool(found))


def check(git: Git, commit: str) -> None:
    """Refuse a commit that may not be released; HEAD is main.

    Raises:
        ReleaseError: it is not a full commit, not in main, or CI is not green for it.
        GitHubError: GitHub cannot be asked.
    """
    if not _COMMIT.fullmatch(commit):
        raise ReleaseError(f"{commit!r} is not a full commit: give all 40 digits")
    git.require_history()
    if git.commit(commit) is None or not git.contains("HEAD", commit):
        raise ReleaseError(f"{commit[:12]} is not part of main: merge it first")
    require_check(REQUIRED_CHECK, commit)


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
