"""Says whether a branch touches anything that the pipeline reads: output `pipeline`, true or false.

Compares with the commit at which the branch left its base, so what others merged since does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from deploy.ci import steps
from deploy.ci.git import attempt, git
from deploy.errors import GitError, run

PIPELINE = (
    ".dvc/",
    ".dvcignore",
    "app/cells.py",
    "app/contract.py",
    "app/predictor.py",
    "data/",
    "dvc.lock",
    "dvc.yaml",
    "metrics/",
    "MODEL_CARD.md",
    "params.yaml",
    "reports/",
    "training/",
    "uv.lock",
)
"""What the stages read, and what they write into git. A test compares it with dvc.yaml."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.touched", description=__doc__)
    parser.add_argument("--base", required=True, metavar="REV", help="the branch to merge into")
    arguments = parser.parse_args()
    touched = sorted(each for each in changed(arguments.base) if is_of_pipeline(each))
    for path in touched:
        print(path)
    steps.output(pipeline=bool(touched))


def changed(base: str) -> Iterable[str]:
    """The files that differ between HEAD and the commit at which it left `base`, old names included.

    Raises:
        GitError: this clone has not got the two commits' common past.
    """
    found = attempt("merge-base", "--", base, "HEAD")
    if found.returncode:
        git("rev-parse", "--git-dir")  # says why where git refuses the clone itself
        raise GitError(
            f"{base[:10]} and HEAD have no common commit in this clone: check out with fetch-depth: 0"
        )
    names = git("diff", "--name-only", "--no-renames", "-z", found.stdout.decode().strip(), "HEAD", "--")
    return [name for name in names.split("\0") if name]


def is_of_pipeline(path: str) -> bool:
    return any(path == each or (each.endswith("/") and path.startswith(each)) for each in PIPELINE)


if __name__ == "__main__":
    run(main)
