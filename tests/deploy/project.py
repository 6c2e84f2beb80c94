"""A small project in git to release from: a bare origin, clones of it, and images in a real registry."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from common import models, overlays
from common.overlays import Release
from deploy import clusters
from deploy.release import __main__ as tool
from deploy.release.commands import NAME_LABEL, REVISION_LABEL, VERSION_LABEL
from tests.deploy.registries import Server

ROOT = Path(__file__).parents[2]
MODEL = "iris"
"""The project's first model."""
ENVIRONMENTS = ("staging", "production")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Clone:
    root: Path

    def git(self, *arguments: str, check: bool = True, **environment: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"git {arguments}: {done.stderr}"
        return done.stdout.strip()

    def release(self, *arguments: str) -> Done:
        """Run the tool in this process, as `python -m deploy.release` would."""
        out, err = io.StringIO(), io.StringIO()
        status = 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(self.root)
            patch.setattr(sys, "argv", ["release", *arguments])
            try:
                tool.run()
            except SystemExit as exit_:
                status = int(exit_.code or 0)
        return Done(status, out.getvalue(), err.getvalue())

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run the tool as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.release", *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def commit(self, message: str, files: dict[str, str], push: bool = True) -> str:
        """Commit files upon origin's branch, as a person does after pulling."""
        self.git("pull", "-q", "--rebase", "origin", "main")
        for name, content in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(content)
            self.git("add", name)
        self.git("commit", "-q", "-m", message)
        if push:
            self.git("push", "-q", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def state(self) -> dict[str, str]:
        """All of the clone that a person can see changed: files, index, branches, worktrees, what git is at."""
        return {
            "head": self.git("rev-parse", "HEAD"),
            "files": self.git("status", "--porcelain=v2", "--branch", "--ignored"),
            "branches": self.git("for-each-ref", "refs/heads", "refs/tags", "refs/stash"),
            "worktrees": self.git("worktree", "list", "--porcelain"),
            "git": " ".join(
                sorted(
                    each.name
                    for each in Path(self.git("rev-parse", "--absolute-git-dir")).iterdir()
                    if each.suffix in (".lock", "") and each.name not in ("ORIG_HEAD", "FETCH_HEAD")
                )
            ),
        }


@dataclass(frozen=True)
class Project:
    folder: Path
    registry: Server
    me: Clone

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    def clone(self, name: str, *options: str) -> Clone:
        subprocess.run(
            ["git", "clone", "-q", *options, f"file://{self.origin}", str(self.folder / name)], check=True
        )
        return Clone(self.folder / name)

    def change(self, number: int, push: bool = True, model: str = MODEL) -> str:
        """Merge a better model, and give its commit."""
        prefix = models.prefix(model, self.me.root)
        files = {
            f"{prefix}reports/leaderboard.json": json.dumps({**leaderboard(number), "name": model}),
            f"{prefix}dvc.lock": f"stages:\n  select:\n    outs:\n    - path: model\n      md5: {number:032x}.dir\n",
        }
        if not prefix:
            files["app/main.py"] = f"number = {number}\n"
        return self.me.commit(f"Train model {number}", files, push)

    def add_model(self, name: str) -> None:
        """Merge a further model, with its overlays and nothing released."""
        files = {f"models/{name}/params.yaml": f"name: {name}\n"}
        for environment in ENVIRONMENTS:
            files[f"{overlays.folder(environment, name)}/kustomization.yaml"] = f"namePrefix: {name}-\n"
        self.me.commit(f"Add the model {name}", files)

    def image(self, revision: str, number: int, model: str = MODEL, **more: str) -> str:
        """Build, so to speak, the image of a revision, and give its reference."""
        labels = {REVISION_LABEL: revision, VERSION_LABEL: version(number), NAME_LABEL: model, **more}
        return f"{self.registry.host}/espalier@{self.registry.push(labels)}"

    def made(self, number: int, model: str = MODEL) -> str:
        """A change and its image."""
        return self.image(self.change(number, model=model), number, model)

    def staged(self, number: int, model: str = MODEL) -> str:
        """A change, its image, and its release to staging."""
        image = self.made(number, model)
        done = self.me.release("set", "staging", "--image", image, "--push")
        assert done.status == 0, done.err
        return image

    def runs(self, environment: str, branch: str = "main", model: str = MODEL) -> Release:
        text = self.at_origin("show", f"{branch}:{overlays.path(environment, model)}")
        # The output of git is stripped here.
        return overlays.parse(f"{text}\n", environment)

    def released(self, environment: str, branch: str = "main", model: str = MODEL) -> bool:
        return bool(self.at_origin("ls-tree", "--name-only", branch, "--", overlays.path(environment, model)))

    def at_origin(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", f"--git-dir={self.origin}", *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def message(self, commit: str = "main") -> str:
        return self.at_origin("log", "-1", "--format=%B", commit)

    def trailers(self, commit: str = "main") -> dict[str, str]:
        parsed = subprocess.run(
            ["git", "interpret-trailers", "--parse"],
            input=self.message(commit),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return dict(line.split(": ", 1) for line in parsed.splitlines())


def version(number: int) -> str:
    return f"{number:012x}"


def leaderboard(number: int) -> dict[str, Any]:
    score = {"value": 0.9 + number / 1000, "low": 0.8, "high": 1.0}
    row = {"algorithm": "svm", "cv_mean": 0.95 + number / 1000, "cv_std": 0.01, "complexity": 3, "bytes": 5}
    return {
        "name": "iris",
        "version": version(number),
        "score": "f1_macro",
        "champion": "svm",
        "rule": "highest",
        "rows": [{**row, "test": {"accuracy": score, "f1_macro": score}}],
    }


def make(folder: Path, registry: Server) -> Project:
    """A project whose overlays are this one's, and in which nothing was released."""
    template = _template().name
    shutil.copytree(template, folder)
    settings = folder / "me/.git/config"
    settings.write_text(settings.read_text().replace(template, str(folder)))
    return Project(folder, registry, Clone(folder / "me"))


@cache
def _template() -> tempfile.TemporaryDirectory[str]:
    """An origin and a clone of it, which projects are copies of; removed when the process ends."""
    made = tempfile.TemporaryDirectory()
    folder = Path(made.name)
    (folder / "first").mkdir()
    first = Clone(folder / "first")
    first.git("init", "-q", "-b", "main")
    for environment in ENVIRONMENTS:
        for name in ("kustomization.yaml", f"{MODEL}/kustomization.yaml"):
            file = first.root / overlays.FOLDER / environment / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / overlays.FOLDER / environment / name, file)
    for path in (clusters.CLUSTERS, clusters.ENVIRONMENTS):
        shutil.copy(ROOT / path, first.root / path)
    (first.root / "params.yaml").write_text(f"name: {MODEL}\n")
    (first.root / "uv.lock").write_text("")
    (first.root / "pyproject.toml").write_text("")
    first.git("add", ".")
    first.git("commit", "-q", "-m", "Begin")
    first.git("clone", "-q", "--bare", str(first.root), str(folder / "origin.git"))
    shutil.rmtree(first.root)
    subprocess.run(["git", "clone", "-q", f"file://{folder}/origin.git", str(folder / "me")], check=True)
    for sample in folder.rglob("hooks/*.sample"):
        sample.unlink()
    return made


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Nobody's git settings, logins, proxies or GitHub."""
    home.mkdir(parents=True, exist_ok=True)
    for name in [*os.environ]:
        if name.startswith(("GIT_", "GH_", "GITHUB_", "XDG_", "DOCKER_")) or name == "REGISTRY_AUTH_FILE":
            patch.delenv(name)
    settings = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@localhost",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@localhost",
    }
    for name, value in settings.items():
        patch.setenv(name, value)


def copy_manifests(folder: Path) -> None:
    """What `python -m deploy.manifests` needs: the manifests, its own code, and the service's settings."""
    for name in ("app", "common", "deploy", "monitoring"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
