from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.project import ROOT, Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with the project's own params.yaml, quick to train, and nothing run yet."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data" / "source").mkdir(parents=True)
    result = Project(tmp_path, monkeypatch)
    result.fast()
    monkeypatch.chdir(tmp_path)
    return result


@pytest.fixture(scope="session")
def trained_iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole pipeline but `track`, run once on Iris; read it, do not change it."""
    root = tmp_path_factory.mktemp("iris")
    shutil.copy(ROOT / "params.yaml", root)
    with pytest.MonkeyPatch.context() as monkeypatch:
        project = Project(root, monkeypatch)
        project.fast()
        for stage in ("fetch", "prepare", "explore"):
            project.run(stage)
        for algorithm in project.params()["train"]["algorithms"]:
            project.run("train", algorithm)
        project.run("select")
    return root


@pytest.fixture
def trained(trained_iris: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the trained Iris project that a test may change."""
    root = tmp_path / "project"
    shutil.copytree(trained_iris, root)
    monkeypatch.chdir(root)
    return Project(root, monkeypatch)
