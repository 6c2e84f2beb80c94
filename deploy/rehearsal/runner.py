"""Runs a workflow file through act, as GitHub would for an event."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STAND_INS = Path(__file__).parent / "actions"
WORKFLOWS = Path(".github") / "workflows"
_TAIL = 40


class WorkflowError(Exception):
    """A run failed that had to succeed; the message holds the end of the failed steps' logs."""


@dataclass
class Run:
    """The results of a workflow's run."""

    workflow: str
    succeeded: bool = False
    jobs: dict[str, str] = field(default_factory=dict)
    """Result by job: success or failure; skipped jobs are absent."""
    output: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """The last lines of each step that failed, after the names of its job and step."""

    def says(self, text: str) -> bool:
        return any(text in line for line in self.output)


def run(
    checkout: Path,
    workflow: str,
    event: str,
    payload: Mapping[str, Any],
    *,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
    environment: Mapping[str, str],
    folder: Path,
    inputs: Mapping[str, str] | None = None,
) -> Run:
    """Run every job of a workflow that the event starts, on this machine.

    Args:
        checkout: a clone at the commit of the event.
        workflow: name of the file, without its ending.
        event: as under `on:`.
        payload: as GitHub sends it.
        variables: of the repository.
        secrets: of the repository.
        environment: added to the environment of every step.
        folder: for act's files and the log.
        inputs: of a manual run.
    """
    file = WORKFLOWS / f"{workflow}.yml"
    folder.mkdir(parents=True, exist_ok=True)
    event_file = folder / "event.json"
    event_file.write_text(
        json.dumps({**payload, **({"inputs": dict(inputs)} if inputs is not None else {})}), encoding="utf-8"
    )
    command = [
        "act",
        event,
        *("--workflows", str(file)),
        *("--eventpath", str(event_file)),
        *("--platform", "ubuntu-latest=-self-hosted"),
        *("--platform", "ubuntu-24.04=-self-hosted"),
        *("--action-cache-path", str(folder / "actions")),
        *("--secret-file", os.devnull),
        *("--var-file", os.devnull),
        *("--env-file", os.devnull),
        *("--input-file", os.devnull),
        "--no-skip-checkout",
        "--no-cache-server",
        "--json",
    ]
    for option, values in (("--var", variables), ("--secret", secrets), ("--env", environment)):
        for name, value in values.items():
            command += [option, f"{name}={value}"]
    for name, value in (inputs or {}).items():
        command += ["--input", f"{name}={value}"]
    for action in sorted(_actions(checkout)):
        command += ["--local-repository", f"{action}={_stand_in(action)}"]
    made = Run(workflow)
    steps: dict[tuple[str, str], list[str]] = {}
    with (
        (folder / "log.jsonl").open("wb") as log,
        subprocess.Popen(
            command,
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            _read(line, made, steps)
    made.succeeded = process.returncode == 0
    return made


def _read(line: bytes, made: Run, steps: dict[tuple[str, str], list[str]]) -> None:
    """One line of act's log."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        made.output.append(line.decode(errors="replace").rstrip())
        return
    message = str(entry.get("msg", "")).rstrip()
    job, step = str(entry.get("jobID", "")), str(entry.get("step", ""))
    if "jobResult" in entry:
        made.jobs[job] = str(entry["jobResult"])
    if entry.get("raw_output"):
        made.output += message.splitlines()
        steps.setdefault((job, step), []).append(message)
    elif entry.get("stepResult") == "failure" or (entry.get("level") == "error" and not step):
        tail = steps.get((job, step), [])[-_TAIL:] or [message]
        made.failed.append("\n".join([f"{job or made.workflow}: {step}", *tail]))


def _actions(checkout: Path) -> set[str]:
    """The actions of other repositories that workflows and composite actions use: owner/name@commit."""
    found: set[str] = set()
    for file in [*(checkout / WORKFLOWS).glob("*.yml"), *(checkout / ".github/actions").glob("*/action.yml")]:
        found |= _uses(yaml.safe_load(file.read_text(encoding="utf-8")))
    return found


def _uses(node: object) -> set[str]:
    """owner/name@commit of every action of another repository, without the folder inside the repository."""
    if isinstance(node, dict):
        found = set().union(*map(_uses, node.values()))
        use = node.get("uses")
        if isinstance(use, str) and not use.startswith("./"):
            path, _, commit = use.partition("@")
            found.add("/".join(path.split("/")[:2]) + "@" + commit)
        return found
    return set().union(*map(_uses, node)) if isinstance(node, list) else set()


def _stand_in(action: str) -> Path:
    """The folder that act takes in place of an action's repository."""
    name = action.partition("@")[0]
    source = STAND_INS / name
    if not source.is_dir():
        raise WorkflowError(f"there is no stand-in for {name} in {STAND_INS}: add {name}/action.yml")
    return source
