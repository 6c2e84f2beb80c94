"""Says whether a commit may and must be released: output `release`, true or false; fails when it may not.

It may when it is main's and CI is green for it, whoever or whatever asks. It must when its image would be another than
the one staging runs. A commit that staging's image already contains is passed over: two runs can finish in the
other order than they began. Run it on main, so that the commit in question has no say in this.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

from deploy import github
from deploy.ci import steps
from deploy.ci.git import attempt, git
from deploy.errors import DeployError, ReleaseError, run

GATE = "gate"
"""The job of ci that stands for all of them."""
STAGING = "deploy/overlays/staging/kustomization.yaml"
NOT_NEEDED = 1
"""The status of `deploy.release needed` when nothing in the image would change; above it, it failed."""
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_REVISION = re.compile(r"^\s*espalier\.dev/revision:\s*[\"']?([0-9a-f]{40})\b", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.releasable", description=__doc__)
    parser.add_argument("commit", help="all 40 digits")
    commit = parser.parse_args().commit
    check(commit)
    steps.output(release=not _contained(commit) and _needed(commit))


def check(commit: str) -> None:
    """Refuse what may not be released.

    Raises:
        ReleaseError: it is not a full commit, not main's, or CI is not green for it.
        GitHubError: GitHub does not say.
    """
    if not _COMMIT.match(commit):
        raise ReleaseError(f"{commit!r} is not a full commit: give all 40 digits")
    if attempt("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ReleaseError(f"{commit[:10]} is not in this clone: it is not main's, or the clone is shallow")
    if attempt("merge-base", "--is-ancestor", commit, "HEAD").returncode:
        raise ReleaseError(f"{commit[:10]} is not part of main: merge it first")
    runs = github.check_runs(commit, GATE)
    if not runs:
        raise ReleaseError(f"CI has no result for {commit[:10]}: there is no check called {GATE}")
    for each in runs:
        if each.conclusion != "success":
            raise ReleaseError(
                f"CI is not green for {commit[:10]}: {GATE} is {each.conclusion or each.status}"
            )


def _contained(commit: str) -> bool:
    """Whether staging's image was made from this commit or a later one."""
    found = _REVISION.search(git("show", f"HEAD:{STAGING}"))
    if found is None:
        raise DeployError(f"{STAGING} names no revision: it needs the annotation espalier.dev/revision")
    staged = found[1]
    if not attempt("merge-base", "--is-ancestor", commit, staged).returncode:
        print(f"staging runs {staged[:10]}, which contains {commit[:10]}: nothing to release")
        return True
    return False


def _needed(commit: str) -> bool:
    """Ask the release tool, at that commit."""
    git("checkout", "--quiet", "--detach", commit)
    status = subprocess.run([sys.executable, "-m", "deploy.release", "needed"], check=False).returncode
    if status > NOT_NEEDED or status < 0:
        raise DeployError(f"`python -m deploy.release needed` failed with {status}")
    return status == 0


if __name__ == "__main__":
    run(main)
