"""dvc.yaml against the modules that it runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.training.project import ROOT
from training import config
from training.config import Settings

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def definition(stage: str) -> dict[str, Any]:
    whole = STAGES[stage]
    repeated: dict[str, Any] = whole.get("do", whole)
    return repeated


def settings_class(stage: str) -> type[Settings] | None:
    """The settings class that the stage's module defines, if it reads parameters at all."""
    module = importlib.import_module(f"training.{stage}")
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Settings) and each.__module__ == module.__name__
    ]
    assert len(own) <= 1
    return own[0] if own else None


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_parameters_it_reads(stage: str) -> None:
    kind = settings_class(stage)
    read = set(config.sections(kind)) if kind else set()
    listed = {each.split(".")[0] for each in definition(stage).get("params", [])}
    assert read == listed


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_code_and_on_the_lock(stage: str) -> None:
    assert {"app/cells.py", "app/contract.py", "app/predictor.py", "training", "uv.lock"} <= set(
        definition(stage)["deps"]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_outlive_a_run_that_fails(stage: str) -> None:
    for kind in ("outs", "metrics", "plots"):
        for each in definition(stage).get(kind, []):
            ((_, options),) = each.items()
            assert options["persist"] is True


@pytest.mark.parametrize("stage", [*STAGES, "track", "leaderboard", "draft", "storage"])
def test_every_module_runs_alone_and_explains_itself(stage: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"training.{stage}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"usage: python -m training.{stage}" in done.stdout
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize("stage", [*STAGES, "track"])
def test_a_stage_that_cannot_work_says_so_in_one_line(stage: str, tmp_path: Any) -> None:
    arguments = ["svm"] if stage == "train" else []
    done = subprocess.run(
        [sys.executable, "-m", f"training.{stage}", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
