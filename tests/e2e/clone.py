"""A clean clone of this working tree and the means to run DVC in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.rehearsal.clone import commit_working_tree

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Clone:
    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        """This process's, with the project's tools first and no tracker to talk to."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("WANDB_", "COVERAGE_", "COV_"))
        }
        return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "WANDB_MODE": "disabled", **more}

    def dvc(self, *arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["dvc", *arguments],
            cwd=self.root,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"dvc {arguments}: {done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, so that all of it can be signalled."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def params(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text())
        return document

    def write_params(self, document: dict[str, Any]) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def clone(destination: Path) -> Clone:
    """Commit the working tree as it stands, with what is not yet committed, into a new repository."""
    commit_working_tree(destination)
    return Clone(destination)


def kill(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a whole group until its leader has ended, as a person does who presses Ctrl-C again.

    DVC ignores an interrupt while a stage runs and leaves it to the stage, which may be at its very end.
    """
    for _ in range(60):
        os.killpg(process.pid, number)
        try:
            process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            continue
        return
    raise AssertionError(f"{process.args!r} does not heed {number!r}")
