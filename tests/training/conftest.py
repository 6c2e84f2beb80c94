from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import training  # noqa: F401 - before sklearn, because it limits the numeric libraries to one thread
from tests.training import repository
from tests.training.project import ROOT, Project
from tests.training.repository import Repository


@contextmanager
def made_once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that pytest-xdist's workers share; who finds it absent makes it, and the others wait."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / name


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
    """The pipeline without pictures, run once on Iris for all workers; read it, do not change it."""
    with made_once(tmp_path_factory, "iris") as root:
        if not root.exists():
            root.mkdir()
            shutil.copy(ROOT / "params.yaml", root)
            with pytest.MonkeyPatch.context() as monkeypatch:
                project = Project(root, monkeypatch)
                project.fast()
                for stage in ("settings", "fetch", "prepare"):
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


@pytest.fixture(scope="session")
def committed_iris(trained_iris: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained Iris project under git and DVC; read it, do not change it."""
    with made_once(tmp_path_factory, "committed") as root:
        if not root.exists():
            repository.make(trained_iris, root)
    return root


@pytest.fixture
def committed(committed_iris: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A copy of the trained Iris project under git and DVC; nothing is released."""
    root = tmp_path / "repository"
    shutil.copytree(committed_iris, root, symlinks=True)
    monkeypatch.chdir(root)
    for name, value in (("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")):
        monkeypatch.setenv(name, value)
    return Repository(root, monkeypatch)


@pytest.fixture
def released(committed: Repository) -> Repository:
    """The same with what it holds released to production."""
    committed.release_now()
    return committed
