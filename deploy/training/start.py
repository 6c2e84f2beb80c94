"""Starts what a pod of training is for: `run`, which gets a commit and has its code do the rest, or `worker` of Dask.

usage: start.py run [MODULE ARGUMENT...]
       start.py worker OPTION...

It is all of the project that the image has, so one image serves all commits with the same uv.lock. Workers get the code of
the run that they work for. Options after `worker` are those of `dask worker`. Without MODULE the rest is done by
deploy.ci.cluster_run. `run` reads:

RUN_FOLDER     the run's folder in the DVC remote, as a URL; `source.bundle` is there
RUN_ARGUMENTS  of deploy.ci.reproduce, in JSON; for deploy.ci.cluster_run
RUN_WORK       where it works, if not in /work
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAD, BASE = "refs/espalier/head", "refs/espalier/base"
"""The refs of the bundle."""


def run(command: list[str]) -> None:
    import fsspec

    work = Path(os.environ.get("RUN_WORK", "/work"))
    bundle, clone = work / "source.bundle", work / "source"
    with (
        fsspec.open(f"{os.environ['RUN_FOLDER']}/source.bundle", "rb") as given,
        bundle.open("wb") as file,
    ):
        while block := given.read(1 << 20):
            file.write(block)
    subprocess.run(["git", "init", "--quiet", clone], check=True)
    git = ["git", "-C", str(clone)]
    subprocess.run([*git, "fetch", "--quiet", bundle, f"{HEAD}:{HEAD}", f"{BASE}:{BASE}"], check=True)
    subprocess.run([*git, "checkout", "--quiet", "--detach", HEAD], check=True)
    os.chdir(clone)
    # The signals of the pod are for it.
    os.execv(sys.executable, [sys.executable, "-m", *(command or ["deploy.ci.cluster_run"])])  # noqa: S606


def worker(options: list[str]) -> None:
    from distributed.cli import dask_worker

    import training  # noqa: F401 - limits the numeric libraries, before they are loaded

    dask_worker.main(["--nthreads", "1", "--no-dashboard", *options])


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2:])
    else:
        run(sys.argv[2:])
