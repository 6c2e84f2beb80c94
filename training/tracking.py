"""The part of tracking that touches wandb: a process of its own, so that nothing wandb does can reach the pipeline.

`python -m training.tracking` reads a plan as JSON on stdin, records its runs and answers with one JSON line
on stdout. `training.track` makes the plan, sets a time limit and kills what exceeds it. This module imports
nothing of the project, because every import here is waited for.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

HINT = 300
"""Longest reason for a failure that is passed on."""
GRACE = 10


def main() -> None:
    plan = json.load(sys.stdin)
    if hasattr(signal, "alarm"):
        # Should the stage be killed and unable to do it, this process ends itself, and wandb's service with it.
        signal.alarm(int(plan["timeout"]) + GRACE)
    answer: dict[str, Any]
    try:
        answer = {"links": record(plan)}
    except Exception as error:  # whatever wandb raises is a warning on the other side
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:HINT]}"}
    print(json.dumps(answer))


def record(plan: dict[str, Any]) -> list[str]:
    """Record each run of a plan and say where each can be seen."""
    import wandb

    offline = plan["mode"] == "offline"
    folder = Path(plan["root"]) / "wandb"
    links = []
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
            # An id stands for its inputs: the same id again is the same run, not another one.
            resume=None if offline else "allow",
        ) as run:
            log(run, each)
            links.append(str(Path(run.dir).parent) if offline else str(run.url))
        for path in earlier:
            shutil.rmtree(path, ignore_errors=True)
    for path in Path(plan["staging"]).parent.glob(f"{plan['group']}.*"):
        # Of earlier times, or uploaded by now.
        if not offline or path.name != Path(plan["staging"]).name:
            shutil.rmtree(path, ignore_errors=True)
    return links


def settings(plan: dict[str, Any]) -> Any:
    """Quiet, and with nothing about the machine or the person: a run is described by its inputs."""
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

    # Steps are numbered, so that a run that is tracked again repeats its history and does not extend it.
    for step, row in enumerate(content["history"]):
        run.log(row, step=step)
    media: dict[str, Any] = {key: wandb.Image(path) for key, path in content["images"].items()}
    for key, table in content["tables"].items():
        media[key] = wandb.Table(columns=table["columns"], data=table["rows"])
    for key, chart in content["charts"].items():
        media[key] = wandb.plot_table(
            chart["preset"],
            wandb.Table(columns=chart["columns"], data=chart["rows"]),
            chart["fields"],
            {"title": chart["title"], **chart["labels"]},
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
