"""What a pod does for deploy.ci.cluster, in a clone of the commit: reproduce, push the outputs, hand the result back.

A failing pipeline is no failure of this command, as in deploy.ci.reproduce.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from common.command import run
from deploy.ci import cluster, steps

FOLDER = Path("build/reproduce")


def main() -> None:
    arguments = json.loads(steps.environment("RUN_ARGUMENTS"))
    written, summary = Path("build/outputs.txt"), Path("build/summary.md")
    written.parent.mkdir(exist_ok=True)
    for each in (written, summary):
        each.write_text("", encoding="utf-8")
    environment = {
        **os.environ,
        "GITHUB_OUTPUT": str(written.absolute()),
        "GITHUB_STEP_SUMMARY": str(summary.absolute()),
    }
    if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
        environment["ESPALIER_DASK"] = address
    command = [sys.executable, "-m", "deploy.ci.reproduce", *arguments, "--output", str(FOLDER)]
    subprocess.run(command, env=environment, check=True)
    outputs = {
        name: value == "true"
        for name, _, value in (
            line.partition("=") for line in written.read_text(encoding="utf-8").splitlines()
        )
    }
    if outputs["reproduced"] or outputs["changed"]:
        subprocess.run([sys.executable, "-m", "training.remote", "push"], check=True)
    (FOLDER / cluster.OUTPUTS).write_text(json.dumps(outputs), encoding="utf-8")
    summary.replace(FOLDER / cluster.SUMMARY)
    result = Path("build") / cluster.RESULT
    with tarfile.open(result, "w", encoding="utf-8") as archive:
        archive.add(FOLDER, ".")
    name = steps.environment("RUN_FOLDER").rpartition("/")[2]
    cluster.Store(name).put(result, cluster.RESULT)


if __name__ == "__main__":
    run(main)
