"""The only part of tracking that uses wandb, in a process of its own, so that wandb cannot affect its caller.

`python -m training.track.recorder` reads a plan as JSON on stdin, records its runs and answers with one JSON line on
stdout. `training.track` makes the plan and kills this process after a time limit. This module imports nothing of the
project, because its caller waits for every import.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HINT = 300
"""Longest reason of a failure, in characters."""
GRACE = 10


def main() -> None:
    plan = json.load(sys.stdin)
    if hasattr(signal, "alarm"):
        # If the caller is killed, this process ends by itself, and wandb's service with it.
        signal.alarm(int(plan["timeout"]) + GRACE)
    answer: dict[str, Any]
    try:
        record_runs(plan)
        answer = send(plan["earlier"]) if plan["earlier"] else {}
    except Exception as error:  # the caller turns any failure of wandb into a warning
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:HINT]}"}
    print(json.dumps(answer))


def record_runs(plan: dict[str, Any]) -> None:
    """Record each run of a plan, and remove its earlier offline records."""
    import wandb

    offline = plan["mode"] == "offline"
    folder = Path(plan["root"]) / "wandb"
    for each in plan["runs"]:
        earlier = list(folder.glob(f"offline-run-*-{each['id']}"))
        with wandb.init(
            project=plan["project"],
            entity=plan["entity"],
            id=each["id"],
            name=each["name"],
            group=plan["group"],
            job_type=each["job_type"],
            tags=each["tags"],
            config=each["config"],
            settings=settings(plan),
            # The id is derived from the inputs, so the same id is the same run.
            resume=None if offline else "allow",
        ) as run:
            # Copies of an artifact's files, needed until the upload, are removed with the record.
            record = Path(run.dir).parent
            staging = record / "staging"
            os.environ["WANDB_DATA_DIR"] = str(staging)
            log(run, each)
        # Folder names have a resolution of a second, so an earlier record may be this one.
        for path in [each for each in earlier if each != record] + ([] if offline else [staging]):
            shutil.rmtree(path, ignore_errors=True)


def send(records: list[str]) -> dict[str, str]:
    """Upload offline records of earlier runs and remove them; return why others could not be uploaded."""
    unsent = {}
    for each in records:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", each],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            shutil.rmtree(each, ignore_errors=True)
        else:
            last = done.stdout.strip().splitlines()[-1:] or [f"`wandb sync` ended with {done.returncode}"]
            unsent[Path(each).name] = last[0][:HINT]
    return {"unsent": "; ".join(f"{name}: {reason}" for name, reason in unsent.items())} if unsent else {}


def settings(plan: dict[str, Any]) -> Any:
    """Quiet, and without data about the machine or the person, because inputs alone describe a run."""
    import wandb

    return wandb.Settings(
        mode=plan["mode"],
        root_dir=plan["root"],
        init_timeout=plan["timeout"],
        login_timeout=plan["timeout"],
        silent=True,
        console="off",
        program="python -m training.track",
        host="",
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def log(run: Any, content: dict[str, Any]) -> None:
    import wandb

    # Numbered steps, so that tracking a run again does not extend its history.
    for step, row in enumerate(content["history"]):
        run.log(row, step=step)
    media: dict[str, Any] = {key: wandb.Image(path) for key, path in content["images"].items()}
    for key, table in content["tables"].items():
        media[key] = wandb.Table(**table)
    for key, chart in content["charts"].items():
        media[key] = wandb.plot_table(
            chart["preset"], wandb.Table(**chart["table"]), chart["fields"], chart["labels"]
        )
    if media:
        run.log(media, step=len(content["history"]))
    run.summary.update(content["summary"])
    if content["artifact"]:
        described = content["artifact"]
        artifact = wandb.Artifact(described["name"], described["type"], metadata=described["metadata"])
        for path in described["files"]:
            artifact.add_file(path)
        run.log_artifact(artifact, aliases=described["aliases"])


if __name__ == "__main__":
    main()
