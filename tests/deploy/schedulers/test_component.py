"""A stage in a component of its own: what it gets, what it records, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import cast

import pytest

from deploy.ci import cluster
from deploy.errors import DeployError
from deploy.schedulers import component
from tests.e2e.clone import BIN
from tests.tools import dvc
from training.remote.objects import ReplacedError

PIPELINE = """\
stages:
  fetch:
    cmd: cat ../source > raw && wc -c < raw > report
    outs: [raw, report: {cache: false}]
  train:
    cmd: cat raw raw > model && echo 1 > score
    deps: [raw]
    params: [seed]
    outs: [model, score: {cache: false}]
"""
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")


class Folder:
    """Stands for a run's folder in the DVC remote."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()

    def put(self, file: Path, name: str) -> None:
        shutil.copy(file, self.place / name)

    def get(self, name: str, file: Path) -> None:
        shutil.copy(self.place / name, file)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cluster.Store:
    """A commit whose first model trains on another source than a further model, and an empty folder of a run."""
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    root = tmp_path / "first"
    (root / "models/wine").mkdir(parents=True)
    (tmp_path / "source").write_text("new\n")
    (root / "models/source").write_text("wine\n")
    for place in (root, root / "models/wine"):
        (place / "dvc.yaml").write_text(PIPELINE)
        (place / "params.yaml").write_text("seed: 0.10\n")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=root, check=True)
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", *IDENTITY, "commit", "--quiet", "-m", "Start"], cwd=root, check=True)
    return cast("cluster.Store", Folder(tmp_path / "run"))


def clone(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pod's clone, in which the test goes on."""
    subprocess.run(["git", "clone", "--quiet", str(tmp_path / "first"), str(tmp_path / name)], check=True)
    monkeypatch.chdir(tmp_path / name)
    return tmp_path / name


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "models/wine/dvc.yaml:"])
def test_stages_in_clones_of_their_own_make_what_dvc_repro_makes(
    store: cluster.Store, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(Path(prefix.rstrip(":")).parent)
    clone(tmp_path, "fetches", monkeypatch)
    component.run_stage(store, f"{prefix}fetch", [])
    trains = clone(tmp_path, "trains", monkeypatch)
    component.run_stage(store, f"{prefix}train", [f"{prefix}fetch"])
    together = clone(tmp_path, "together", monkeypatch)
    for name in ("fetch", "train"):
        component.take(store, f"{prefix}{name}")
    expected = clone(tmp_path, "expected", monkeypatch)
    dvc(expected, "repro", "--quiet", f"{prefix}train")

    for name in ("dvc.lock", "report", "raw", "model", "score"):
        assert (trains / place / name).read_bytes() == (expected / place / name).read_bytes(), name
    for name in ("dvc.lock", "report", "score"):
        assert (together / place / name).read_bytes() == (expected / place / name).read_bytes(), name
    assert not (together / place / "model").exists(), "DVC keeps it"


@pytest.mark.slow
def test_replaced_bytes_are_no_input_and_a_stage_that_fails_is_named(
    store: cluster.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone(tmp_path, "fetches", monkeypatch)
    component.run_stage(store, "fetch", [])
    (stored,) = (file for file in (tmp_path / "remote").rglob("*") if file.is_file())
    stored.chmod(0o644)
    stored.write_text("other\n")
    clone(tmp_path, "trains", monkeypatch)
    with pytest.raises(ReplacedError):
        component.run_stage(store, "train", ["fetch"])
    assert not Path("raw").exists()
    (tmp_path / "source").unlink()
    clone(tmp_path, "fails", monkeypatch)
    with pytest.raises(DeployError, match="the stage fetch failed: failed to reproduce"):
        component.run_stage(store, "fetch", [])
