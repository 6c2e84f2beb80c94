"""What the components of the Kubeflow pipeline do. They share no disk: all passes through a run's folder in the DVC remote.

checkout OUTPUT         in a clone of main: store the commit, and write the address of the run's folder to a file
stage NAME INPUTS       in a clone of the commit: run a stage, given what those that it depends on recorded
review STAGES           in a clone of the commit: take over what all stages recorded, and go on as a run in a cluster does
propose FOLDER          in a clone of main: open the pull request of the workflow `retrain`

A stage records its entry of dvc.lock and the outputs that are in git. Its other outputs are in the DVC remote, as always.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import files, models
from common.command import run
from common.lock import LOCK_FILE
from deploy.ci import cluster, cluster_run, pipeline, retrain, steps
from deploy.errors import DeployError
from training.remote import command as remote
from training.remote.objects import Objects

ENTRY = "entry.json"
"""The member of a record that goes into dvc.lock; the others are files."""
NEVER_CURRENT = "fetch"
"""DVC sees no change in a database or a bucket, so this stage always runs."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.schedulers.component",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("checkout").add_argument("output", type=Path)
    one = commands.add_parser("stage")
    one.add_argument("name")
    one.add_argument("inputs")
    commands.add_parser("review").add_argument("stages")
    commands.add_parser("propose").add_argument("folder")
    options = parser.parse_args()
    if options.command == "checkout":
        checkout(options.output)
    elif options.command == "stage":
        run_stage(_store(), options.name, options.inputs.split())
    elif options.command == "review":
        review(_store(), options.stages.split())
    else:
        propose(options.folder)


def checkout(output: Path) -> None:
    """Begin a run."""
    store = cluster.Store(f"kubeflow-{os.urandom(8).hex()}")
    cluster.pack("HEAD", store)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(store.url, encoding="utf-8")


def run_stage(store: cluster.Store, name: str, inputs: Iterable[str]) -> None:
    """Run a stage as DVC names it, and record it.

    Raises:
        DeployError: it fails.
        RemoteError: the DVC remote does not give an input, or does not take an output.
    """
    for each in inputs:
        take(store, each)
    objects = Objects()
    stage = _stage(objects, name)
    needed = [Path(each.fs_path) for each in (*stage.deps, *stage.outs)]
    wanted = [each.path for each in objects.outputs() if _is_one_of(Path(each.path).absolute(), needed)]
    if wanted:
        remote.pull(wanted, allow_missing=True, objects=objects)
    force = ["--force"] if stage.name == NEVER_CURRENT else []
    status, said = pipeline.dvc("repro", "--single-item", *force, name)
    if status:
        raise DeployError(f"the stage {name} failed: {pipeline.error_lines(said).splitlines()[-1]}")
    objects = Objects()
    stage = _stage(objects, name)
    if kept := [_path(out) for out in stage.outs if out.use_cache]:
        remote.push(kept, objects)
    give(store, name, stage)


def give(store: cluster.Store, name: str, stage: Any) -> None:
    """Record a stage of DVC that ran."""
    from dvc.utils.serialize import load_yaml

    lock = Path(stage.path).with_name(LOCK_FILE)
    entry = json.dumps(load_yaml(str(lock))["stages"][stage.name]).encode()
    with tempfile.TemporaryDirectory(prefix="espalier-record-") as temporary:
        file = Path(temporary) / "record.tar"
        with tarfile.open(file, "w", encoding="utf-8") as archive:
            member = tarfile.TarInfo(ENTRY)
            member.size = len(entry)
            archive.addfile(member, io.BytesIO(entry))
            for out in stage.outs:
                if not out.use_cache:
                    archive.add(_path(out))
        store.put(file, _record(name))


def take(store: cluster.Store, name: str) -> None:
    """Have this clone as the stage left its own, except for outputs that DVC keeps."""
    from dvc.utils.serialize import modify_yaml

    place, _, stage = name.rpartition(":")
    with tempfile.TemporaryDirectory(prefix="espalier-record-") as temporary:
        file = Path(temporary) / "record.tar"
        store.get(_record(name), file)
        with tarfile.open(file, encoding="utf-8") as archive:
            archive.extractall(temporary, filter="data")
        entry = json.loads((Path(temporary) / ENTRY).read_bytes())
        for member in Path(temporary).rglob("*"):
            path = member.relative_to(temporary)
            if member.is_file() and member != file and path != Path(ENTRY):
                files.write_bytes(path, member.read_bytes())
    # As DVC writes it.
    with modify_yaml(str(Path(place).with_name(LOCK_FILE) if place else LOCK_FILE)) as lock:
        lock.setdefault("schema", "2.0")
        known = lock.setdefault("stages", {})
        if known.get(stage) != entry:
            known[stage] = entry


def review(store: cluster.Store, stages: Iterable[str]) -> None:
    """Put the result where `propose` finds it."""
    for each in stages:
        take(store, each)
    os.environ["RUN_ARGUMENTS"] = json.dumps(["--base", cluster.BASE, "--model", models.ALL])
    cluster_run.main()


def propose(folder: str) -> None:
    """Open the pull request."""
    result = Path("build/reproduce")
    cluster.unpack(cluster.Store(folder.rpartition("/")[2]), result)
    command = [sys.executable, "-m", retrain.__name__, "--patch", str(result / "lock.patch")]
    subprocess.run(command, env={**os.environ, "TRIGGER": "kubeflow"}, check=True)


def _store() -> cluster.Store:
    return cluster.Store(steps.environment("RUN_FOLDER").rpartition("/")[2])


def _record(name: str) -> str:
    """The name of a stage's record in the run's folder; names of stages have no such character."""
    return f"{name.replace('/', '+')}.tar"


def _stage(objects: Objects, name: str) -> Any:
    (stage,) = objects.repo.stage.collect(name)
    return stage


def _path(out: Any) -> str:
    return Path(out.fs_path).relative_to(Path.cwd()).as_posix()


def _is_one_of(path: Path, places: Iterable[Path]) -> bool:
    """Whether a path is one of some places, below one, or above."""
    return any(path.is_relative_to(each) or each.is_relative_to(path) for each in places)


if __name__ == "__main__":
    run(main)
