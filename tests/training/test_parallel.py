"""Several stages at a time, in a small repository of quick commands, and with the real pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.clone import BIN, ROOT, clone
from tests.tools import dvc
from training import parallel

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  end: {cmd: python step.py end, deps: [one.txt, two.txt], outs: [end.txt]}
  start: {cmd: python step.py start, params: [seed], outs: [start.txt]}
  one: {cmd: python step.py one, deps: [start.txt], outs: [one.txt]}
  two: {cmd: python step.py two, deps: [start.txt], outs: [two.txt]}
  alone: {cmd: python step.py alone, params: [seed], outs: [alone.txt]}
"""
STEP = """\
import json, os, pathlib, signal, sys, time
name = sys.argv[1]
def log(what):
    with open(os.environ["LOG"], "a") as file:
        file.write(f"{what} {name}\\n")
def stop(*_):
    log("interrupted")
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
log("begins")
if name in os.environ.get("FAIL", "").split():
    sys.exit(f"error: {name} cannot")
# Until others have begun or ended, so that no test depends on how fast the machine is.
for each in os.environ.get(f"AFTER_{name}", "").split(","):
    while each and each.replace("_", " ") not in pathlib.Path(os.environ["LOG"]).read_text():
        time.sleep(0.02)
print("from", name, end="", flush=True)
print(" and more", flush=True)
pathlib.Path(name + ".txt").write_text(name)
log("ends")
"""


@dataclass(frozen=True)
class Stages:
    folder: Path
    log: Path

    def start(self, *arguments: str, wrapper: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*wrapper, sys.executable, "-m", "training.parallel", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "LOG": str(self.log),
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, jobs: int, **variables: str) -> tuple[int, str, str]:
        process = self.start("--jobs", str(jobs), **variables)
        out, error = process.communicate(timeout=60)
        return process.returncode, out, error

    def told(self) -> list[str]:
        """What the stages logged since it was asked last."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines

    def wait_for(self, line: str) -> None:
        for _ in range(600):
            if line in self.log.read_text():
                return
            time.sleep(0.05)
        raise AssertionError(f"{line!r} is not in {self.log.read_text()!r}")

    def recorded(self) -> dict[str, Any]:
        """The entries of dvc.lock; new ones are in the order in which stages ended, and DVC's own order varies, too."""
        entries: dict[str, Any] = yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]
        return entries


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages") / "work"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    dvc(folder, "init", "--quiet")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "step.py").write_text(STEP)
    (folder / "params.yaml").write_text("seed: 1\n")
    return folder


@pytest.fixture
def stages(template: Path, tmp_path: Path) -> Stages:
    folder = tmp_path / "work"
    subprocess.run(["cp", "-R", template, folder], check=True)
    (tmp_path / "log").touch()
    return Stages(folder, tmp_path / "log")


def serial(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG", str(stages.log))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    dvc(stages.folder, "repro", "--quiet")


def test_independent_stages_run_at_the_same_time_and_others_in_their_order(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of the two waits for the other's beginning.
    status, out, error = stages.run(2, AFTER_one="begins_two", AFTER_two="begins_one")
    assert status == 0, error
    told = stages.told()
    assert told.index("ends start") < min(told.index("begins one"), told.index("begins two"))
    assert max(told.index("ends one"), told.index("ends two")) < told.index("begins end")
    assert len(told) == 10
    assert {line.partition(" | ")[0] for line in out.splitlines()} == {"start", "alone", "one", "two", "end"}
    assert "one | from one and more\n" in out
    assert "git add" not in out
    # A serial run has nothing to do, and computes the same.
    together = stages.recorded()
    before = (stages.folder / "dvc.lock").read_bytes()
    serial(stages, monkeypatch)
    assert stages.told() == []
    assert (stages.folder / "dvc.lock").read_bytes() == before
    (stages.folder / "dvc.lock").unlink()
    serial(stages, monkeypatch)
    assert stages.recorded() == together
    assert len(together) == 5


def test_the_lock_of_a_change_has_the_bytes_of_a_serial_run(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial(stages, monkeypatch)
    (stages.folder / "params.yaml").write_text("seed: 2\n")
    subprocess.run(["cp", "-R", stages.folder, stages.folder.with_name("other")], check=True)
    other = Stages(stages.folder.with_name("other"), stages.log)
    stages.told()
    serial(stages, monkeypatch)
    assert sorted(stages.told()) == ["begins alone", "begins start", "ends alone", "ends start"]
    status, out, error = other.run(3)
    assert status == 0, error
    assert sorted(other.told()) == ["begins alone", "begins start", "ends alone", "ends start"], (
        "start wrote the same bytes, so nothing follows"
    )
    assert "Stage 'one' didn't change, skipping" in out
    assert (other.folder / "dvc.lock").read_bytes() == (stages.folder / "dvc.lock").read_bytes()
    status, out, _ = other.run(3)
    assert (status, out) == (0, "Data and pipelines are up to date.\n")


def test_a_failed_stage_lets_the_others_end_and_starts_no_more(stages: Stages) -> None:
    status, out, error = stages.run(2, FAIL="one", AFTER_alone="ends_start", AFTER_two="begins_one")
    assert status == 1
    told = stages.told()
    assert "begins end" not in told
    assert {"ends alone", "ends start"} <= set(told)
    assert told.count("begins two") == told.count("ends two")
    assert "one | error: one cannot\n" in out
    assert error.startswith("error: failed: one; not run: end")
    assert error.count("\n") == 1
    # The next run does what is left, and nothing again.
    status, _, error = stages.run(2)
    assert status == 0, error
    again = stages.told()
    assert {"begins one", "begins end"} <= set(again)
    assert not {"begins start", "begins alone"} & set(again)
    assert len(stages.recorded()) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_all_and_what_was_finished_is_recorded(
    stages: Stages, number: signal.Signals
) -> None:
    process = stages.start("--jobs", "3", AFTER_one="never", AFTER_two="never")
    for line in ("begins one", "begins two", "ends alone"):
        stages.wait_for(line)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == "interrupted\n"
    told = stages.told()
    assert told.count("interrupted one") == told.count("interrupted two") == 1
    assert "begins end" not in told
    assert stages.recorded().keys() == {"start", "alone"}
    status, _, error = stages.run(2)
    assert status == 0, error
    assert "begins start" not in stages.told()


def test_under_nohup_it_goes_on(stages: Stages) -> None:
    process = stages.start("--jobs", "2", wrapper=["nohup"], AFTER_two="never")
    stages.wait_for("begins two")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert stages.told().count("interrupted two") == 1


def test_one_line_without_a_pipeline_and_for_a_wrong_number(stages: Stages) -> None:
    process = stages.start("--jobs", "0")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--jobs (JOBS): 0 is less than 1" in error
    (stages.folder / "dvc.yaml").write_text("stages: 1\n")
    status, _, error = stages.run(2)
    assert status == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_plan_names_stages_as_dvc_does(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stages.folder)
    assert parallel.outdated(["dvc.yaml"]) == {
        "end": {"start", "one", "two"},
        "start": set(),
        "one": {"start"},
        "two": {"start"},
        "alone": set(),
    }


@pytest.mark.long("app", "common", "data", "dvc.lock", "dvc.yaml", "params.yaml", "training", "uv.lock")
def test_the_real_pipeline_computes_the_same_bytes(tmp_path: Path) -> None:
    made = [clone(tmp_path / name).root for name in ("serial", "parallel")]
    here = [sys.executable, "-m", "training.parallel", "--jobs", "3", "--model", "wine"]
    names = ("dvc.lock", "model/model.onnx", "model/model.json", "MODEL_CARD.md", "reports/leaderboard.json")
    results = []
    for root, command in zip(made, (["dvc", "repro", "models/wine/dvc.yaml"], here), strict=True):
        done = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "WANDB_MODE": "disabled"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        results.append([(root / "models/wine" / name).read_bytes() for name in names])
    assert results[0] == results[1]
