"""Tells what a branch can affect: output `pipeline`, true if it touches what the pipeline reads, and `jobs`, those of ci.

It compares with the commit at which the branch left its base, so later merges of others do not count. Without a base, as
on main, everything counts as touched.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

from common import overlays
from common.command import run
from common.git import GitError, attempt, git
from deploy.ci import steps

PIPELINE_FILE = Path("dvc.yaml")
ALWAYS = (".dvc", ".dvcignore", "dvc.lock", "dvc.yaml", "params.yaml", "models")
"""What DVC reads with any stages, and the folders of further models."""
JOBS = ("check", "test", "manifests", "dashboards", "image")
"""The jobs of ci. `image-untrusted` takes the place of `image`, and the workflow knows when."""
ANY = "[^/]+"
EFFECTS = (
    # What runs: promotion, rollback and release. The image was tested when it was built.
    (re.compile(re.escape(overlays.path("*", "*")).replace(r"\*", ANY)), ("check", "manifests")),
    # How it runs. Tests read the overlays, and the image does not hold them.
    (re.compile(f"{overlays.FOLDER}/.+"), ("check", "test", "manifests", "dashboards")),
)
"""Paths and the jobs that they can affect; the first match counts. Any other path can affect every job."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.touched", description=__doc__)
    parser.add_argument(
        "--base", required=True, metavar="REV", help="the branch to merge into; empty for none"
    )
    base = parser.parse_args().base
    if not base:
        steps.output(pipeline=True, jobs=json.dumps(JOBS))
        return
    paths = pipeline_paths(PIPELINE_FILE.read_text(encoding="utf-8"))
    everything = list(changed(base))
    touched = sorted(each for each in everything if is_below(each, paths))
    for path in touched:
        print(path)
    steps.output(pipeline=bool(touched), jobs=json.dumps(affected(everything)))


def affected(paths: Iterable[str]) -> list[str]:
    """The jobs of ci that a change of these files can affect; all of them for no files, as of an empty commit."""
    found = {job for path in paths for job in _effects(path)}
    return [job for job in JOBS if job in found or not found]


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


def _effects(path: str) -> tuple[str, ...]:
    return next((jobs for pattern, jobs in EFFECTS if pattern.fullmatch(path)), JOBS)


def is_below(path: str, parents: Iterable[str]) -> bool:
    """Whether a path is one of the others, or in a folder that is."""
    return any(path == each or path.startswith(f"{each}/") for each in parents)


if __name__ == "__main__":
    run(main)
