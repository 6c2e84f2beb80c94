"""Runs DVC for the steps of workflows.

offline   have this clone do without the DVC remote, because the job has no identity to reach it with
current   fail unless dvc.lock is what `dvc repro` would write, for every model; needs no data
outputs   bring the outputs that dvc.lock names from the remote; without credentials, or what it lacks, none
bundle    get the bundle that a model's dvc.lock names, and its test split: from the remote, or by computing them
scratch   compute every model again without a cache, and fail unless every hash is the one in its dvc.lock

What the remote lacks is computed, and so is everything if there are no credentials for it. With credentials, a remote
that cannot be reached is a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from common import models
from common.command import run
from common.errors import EspalierError
from common.git import attempt, git
from common.lock import LOCK_FILE, stages
from deploy.ci import steps
from deploy.errors import DeployError
from deploy.yaml_loader import LOADER
from training.remote import command as remote
from training.remote.objects import MissingError, NoCredentialsError, NoRemoteError

PIPELINE_FILE = "dvc.yaml"
BUNDLE = ("model", "data/test.parquet", "data/profile.json")
"""With the split on which the gate compares it with production's."""
_ERROR = re.compile(r"(?:\S+ \| )?error: (.*)", re.IGNORECASE)
"""Stages that run side by side have their names before each line."""
_REMEDY = "run `make repro MODEL=all` and commit dvc.lock, metrics and reports"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.ci.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("offline", "current", "outputs", "bundle", "scratch"))
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="of bundle (default: the first model), outputs and scratch (default: all)",
    )
    options = parser.parse_args()
    if options.command == "bundle":
        bundle(models.select(options.model, Path()))
    elif options.command == "outputs":
        outputs(models.select(options.model or models.ALL, Path()))
    elif options.command == "scratch":
        scratch(models.select(options.model or models.ALL, Path()))
    else:
        {"offline": offline, "current": current}[options.command]()


def offline() -> None:
    """Switch off the remote in .dvc/config.local, which git ignores and which comes before .dvc/config."""
    from dvc.config import Config, ConfigError

    try:
        with Config(dvc_dir=".dvc").edit("local") as local:
            local["core"]["remote"] = ""
    except ConfigError as error:
        raise DeployError(f"DVC's configuration is broken: {' '.join(str(error).split())}") from None


def current() -> None:
    status, said = dvc("repro", "--all-pipelines", "--dry", "--allow-missing")
    if status:
        raise DeployError(f"dvc.lock is not current ({_in_one_line(said)}): {_REMEDY}")
    if stale := [line for line in said.splitlines() if line.startswith("Running stage")]:
        raise DeployError(f"dvc.lock is not current ({len(stale)} stages would run): {_REMEDY}")


def bundle(selected: Mapping[str, Path]) -> None:
    """Get the bundles of these models, which are given as `common.models.select` does.

    Raises:
        DeployError: this commit computes another one than its dvc.lock records.
    """
    targets = [(folder / each).as_posix() for folder in selected.values() for each in BUNDLE]
    try:
        remote.pull(targets)
    except MissingError as error:
        print(f"{error}: computing it", flush=True)
    except (NoCredentialsError, NoRemoteError):
        pass  # `reproduce` says so
    else:
        return
    locks = [folder / LOCK_FILE for folder in selected.values()]
    before = [lock.read_bytes() for lock in locks]
    status, said = reproduce(selected)
    if status:
        raise DeployError(f"the bundle cannot be computed: {_in_one_line(said)}")
    if [lock.read_bytes() for lock in locks] != before:
        raise DeployError(f"this commit comes to something else than its dvc.lock says: {_REMEDY}")


def reproduce(selected: Mapping[str, Path], jobs: int = 1) -> tuple[int, str]:
    """Run what changed for these models, `jobs` stages at a time, so that every output exists; returns status and output.

    Outputs in dvc.lock come from the remote, and those that it lacks, as before the first push, are computed. `repro
    --pull` would be shorter, but it skips outputs of unchanged stages, which later stages read.
    """
    try:
        outputs(selected)
    except EspalierError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1, f"ERROR: {error}"
    if jobs > 1:
        return _shown("training.parallel", "--jobs", str(jobs), "--model", _name(selected))
    return dvc("repro", *(_pipelines(selected) or ["--all-pipelines"]))


def outputs(selected: Mapping[str, Path]) -> None:
    """Bring outputs of these models from the remote; those that it lacks, and all without credentials, have to be computed.

    Raises:
        EspalierError: the remote has other content, or does not give what it has.
    """
    try:
        remote.pull(_pipelines(selected), allow_missing=True)
    except (MissingError, NoCredentialsError, NoRemoteError) as error:
        print(f"{error}: computing what is not here", flush=True)


def scratch(selected: Mapping[str, Path]) -> None:
    """Compute these models again.

    Raises:
        DeployError: hashes differ; the message names them.
    """
    locks = [(folder / LOCK_FILE).as_posix() for folder in selected.values()]
    if attempt("diff", "--quiet", "HEAD", "--", *locks).returncode:
        raise DeployError("dvc.lock has changes that are not committed")
    status, said = dvc("repro", "--force", "--no-run-cache", *(_pipelines(selected) or ["--all-pipelines"]))
    if status:
        raise DeployError(f"the pipeline fails from scratch: {_in_one_line(said)}")
    differences: dict[tuple[str, str], tuple[str, str]] = {}
    for lock in locks:
        try:
            found = compare(_parsed(git("show", f"HEAD:{lock}")), _parsed(Path(lock).read_text("utf-8")))
        except ValueError as error:
            raise DeployError(f"cannot read {lock}: {error}") from None
        # DVC names the stages of a further model in this way.
        place = "" if lock == LOCK_FILE else f"{Path(lock).with_name(PIPELINE_FILE).as_posix()}:"
        differences |= {(place + stage, path): pair for (stage, path), pair in found.items()}
    steps.summary(table(differences))
    if differences:
        names = ", ".join(f"{stage} {path}" for stage, path in differences)
        raise DeployError(
            f"computed from scratch, {len(differences)} hashes are not those of dvc.lock: {names}"
        )
    print("every hash is the one in dvc.lock")


Hashes = dict[tuple[str, str], str]
"""By stage and path."""


def hashes(lock: Any) -> Hashes:
    """The hash of every input and output of each stage."""
    return {
        (name, entry.path): entry.md5
        for name, stage in stages(lock).items()
        for entry in (*stage.deps, *stage.outs)
    }


def compare(expected: Any, found: Any) -> dict[tuple[str, str], tuple[str, str]]:
    """The differences: hash expected and hash found, "absent" where there is none."""
    left, right = hashes(expected), hashes(found)
    pairs = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in sorted(left | right)}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def table(differences: Mapping[tuple[str, str], tuple[str, str]]) -> str:
    if not differences:
        return "Computed from scratch, every hash is the one in `dvc.lock`.\n"
    rows = [f"| {stage} | `{path}` | `{a}` | `{b}` |" for (stage, path), (a, b) in differences.items()]
    return "\n".join(["| stage | path | dvc.lock | from scratch |", "|---|---|---|---|", *rows]) + "\n"


def dvc(*arguments: str) -> tuple[int, str]:
    """Run DVC, show its output at once, and return its status and output."""
    return _shown("dvc", *arguments)


def _shown(module: str, *arguments: str) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None  # noqa: S101 - asked for above
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return process.wait(), "".join(lines)


def error_lines(said: str) -> str:
    """The lines in which a stage or DVC reports an error, each once; without any, the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = [error[1] for line in lines if (error := _ERROR.match(line))]
    return "\n".join(dict.fromkeys(found)) or (lines or ["it says nothing"])[-1]


def _pipelines(selected: Mapping[str, Path]) -> list[str]:
    """The models as targets of DVC; none for all models, which DVC reads at once."""
    if len(selected) == len(models.find(Path())):
        return []
    return [(folder / PIPELINE_FILE).as_posix() for folder in selected.values()]


def _name(selected: Mapping[str, Path]) -> str:
    """What `common.models.select` calls these models."""
    return models.ALL if len(selected) == len(models.find(Path())) else next(iter(selected))


def _in_one_line(said: str) -> str:
    return "; ".join(error_lines(said).splitlines())


def _parsed(text: str) -> Any:
    return yaml.load(text, LOADER)  # noqa: S506 - a safe one


if __name__ == "__main__":
    run(main)
