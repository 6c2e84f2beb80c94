"""A repository with an origin, and GitHub's part, for the steps of the workflows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.ci.actions import GitHubActions
from tests.tools import require

FILES = {
    "params.yaml": "name: iris\ndepth: 4\n",
    "dvc.lock": "schema: '2.0'\nstages: {}\n",
    "metrics/tree.json": '{"f1": 0.9}\n',
    "reports/data.md": "# Data\n",
    "MODEL_CARD.md": "# Card\n",
    "app/main.py": "app = None\n",
}


@dataclass(frozen=True)
class Clone:
    """A clone of the origin, as a job of a workflow has one."""

    folder: Path

    def git(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, **files: str) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def commit(self, message: str, files: dict[str, str]) -> str:
        self.write(**files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


@dataclass(frozen=True)
class Origin:
    folder: Path

    def clone(self, name: str, branch: str = "main") -> Clone:
        target = self.folder.parent / name
        subprocess.run(
            ["git", "clone", "--quiet", "--branch", branch, str(self.folder), str(target)], check=True
        )
        return Clone(target)

    def tip(self, branch: str) -> str:
        return self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")

    def log(self, branch: str) -> list[str]:
        return self._git("log", "--format=%an: %s", branch).splitlines()

    def show(self, branch: str, path: str) -> str:
        return self._git("show", f"{branch}:{path}")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Origin:
    """A bare repository with one commit on main, and the branch `change` with another."""
    require("git")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    made = Origin(tmp_path / "origin.git")
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(made.folder)], check=True
    )
    first = Clone(tmp_path / "first")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(first.folder)], check=True)
    first.git("remote", "add", "origin", str(made.folder))
    first.commit("Start", FILES)
    first.git("push", "--quiet", "origin", "main")
    first.git("checkout", "--quiet", "-b", "change")
    first.commit("Let the tree be shallower", {"params.yaml": "name: iris\ndepth: 3\n"})
    first.git("push", "--quiet", "origin", "change")
    return made


@pytest.fixture
def github(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubActions]:
    """GitHub's part, for this process and those it starts; asked for nothing that it does not play."""
    require("gh")
    with GitHubActions(origin=origin.folder) as played:
        for name, value in played.environment(folder=tmp_path / "gh").items():
            monkeypatch.setenv(name, value)
        yield played
        assert played.errors == []
