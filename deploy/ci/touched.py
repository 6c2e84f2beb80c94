"""Tells whether a branch touches anything that the pipeline reads: output `pipeline`, true or false.

It compares with the commit at which the branch left its base, so later merges of others do not count.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from common.command import run
from common.git import GitError, attempt, git
from deploy.ci import steps

PIPELINE_FILE = Path("dvc.yaml")
ALWAYS = (".dvc", ".dvcignore", "dvc.lock", "dvc.yaml", "params.yaml", "models")
"""What DVC reads with any stages, and the folders of further models."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.touched", description=__doc__)
    parser.add_argument("--base", required=True, metavar="REV", help="the branch to merge into")
    arguments = parser.parse_args()
    paths = pipeline_paths(PIPELINE_FILE.read_text(encoding="utf-8"))
    touched = sorted(each for each in changed(arguments.base) if is_below(each, paths))
    for path in touched:
        print(path)
    steps.output(pipeline=bool(touched))


def changed(base: str) -> Iterable[str]:
    """The files that differ between HEAD and the commit at which it left `base`, old names included.

    Raises:
        GitError: this clone lacks the common history of the two commits.
    """
    found = attempt("merge-base", "--", base, "HEAD")
    if found.returncode:
        git("rev-parse", "--git-dir")  # raises with the reason if git refuses the clone itself
        raise GitError(
            f"{base[:10]} and HEAD have no common commit in this clone: check out with fetch-depth: 0"
        )
    names = git("diff", "--name-only", "--no-renames", "-z", found.stdout.decode().strip(), "HEAD", "--")
    return [name for name in names.split("\0") if name]


def pipeline_paths(pipeline: str) -> set[str]:
    """The files and folders that DVC and the stages read, and those that the stages write into git.

    They are the items of the lists in dvc.yaml; parameters are items too, but match no file. The text is searched
    because a runner has no YAML library before this decides whether to make the environment.
    """
    items = re.findall(r"^ +- (?:\$\{code\})?([\w./-]+)", pipeline, re.MULTILINE)
    return {*ALWAYS, *(each.rstrip("/") for each in items)}


def is_below(path: str, parents: Iterable[str]) -> bool:
    """Whether a path is one of the others, or in a folder that is."""
    return any(path == each or path.startswith(f"{each}/") for each in parents)


if __name__ == "__main__":
    run(main)
