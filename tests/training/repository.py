"""A trained project in a git repository with DVC, as it is on somebody's machine: commits, a release, a remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from app.contract import MANIFEST_FILE, MODEL_FILE, Manifest, read_bundle
from common import overlays
from deploy.ci import touched
from tests.tools import dvc
from tests.training.project import ROOT, Project

ENVIRONMENT = Path("deploy/overlays/production/kustomization.yaml")
CODE = ("app/", "common/", "training/")
OVERLAY = Path(overlays.path("production", "iris"))


class Repository(Project):
    def environment(self, **more: str) -> dict[str, str]:
        """This process's, and nobody's git settings."""
        identity = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
        }
        dates = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
        return {
            **os.environ,
            **identity,
            **dates,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **more,
        }

    def command(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*map(str, arguments)],
            cwd=self.root,
            env=self.environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def git(self, *arguments: str) -> str:
        return self.command("git", *arguments).stdout.strip()

    def dvc(self, *arguments: str) -> None:
        dvc(self.root, *arguments)

    def record(self) -> None:
        """Have dvc.lock and the cache say what the working tree holds, as `dvc repro` would leave them."""
        self.dvc("commit", "--force", "--quiet")

    def commit(self, message: str = "change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def release(self, commit: str | None = None, version: str | None = None) -> str:
        """Have production's overlay say that a commit runs, or that none ever did, and commit that."""
        file = self.root / OVERLAY
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.root / ENVIRONMENT).write_text("kind: Kustomization\n")
        file.unlink(missing_ok=True)
        if commit is not None:
            release = overlays.Release(
                "registry.example.com/espalier", f"sha256:{'1' * 64}", version or self.made_version(), commit
            )
            file.write_text(str(release))
        return self.commit("release")

    def made_version(self) -> str:
        """The version of the bundle, which need not be sound."""
        version: str = json.loads((self.root / "model" / MANIFEST_FILE).read_bytes())["version"]
        return version

    def release_now(self) -> str:
        """Release what the working tree holds and has recorded."""
        return self.release(self.commit("reproduced"), self.version())

    def retrain(self, *algorithms: str) -> None:
        """Compute what depends on params.yaml and leave it as `dvc repro` would."""
        self.run("settings")
        for name in algorithms or self.params()["train"]["algorithms"]:
            self.run("train", name)
        self.run("select")

    def only(self, name: str, **parameters: object) -> None:
        """Leave one algorithm, with these parameters, and no demands of the gate on it alone."""
        self.change(train__algorithms={name: parameters})
        self.change(select__gate__minimum={}, select__gate__maximum={})

    def manifest(self) -> Manifest:
        return read_bundle(self.root / "model").manifest

    def version(self) -> str:
        return self.manifest().version

    def replace_manifest(self, manifest: Manifest) -> None:
        text = manifest.sealed().model_dump_json(indent=2) + "\n"
        (self.root / "model" / MANIFEST_FILE).write_text(text)
        assert (self.root / "model" / MODEL_FILE).is_file()
        # As if that bundle had been made here: the leaderboard names its version.
        board = self.root / "reports/leaderboard.json"
        board.write_text(board.read_text().replace(self.board_version(), manifest.sealed().version))

    def board_version(self) -> str:
        version: str = yaml.safe_load((self.root / "reports/leaderboard.json").read_text())["version"]
        return version

    def remote(self) -> Path:
        """A folder as the remote, to which everything was pushed."""
        folder = self.root.parent / f"{self.root.name}-remote"
        self.dvc("remote", "add", "--local", "--default", "storage", str(folder))
        # As `dvc push` does in two seconds.
        shutil.copytree(self.root / ".dvc/cache/files", folder / "files")
        return folder

    def forget(self) -> None:
        """Lose DVC's cache, as in a fresh clone."""
        shutil.rmtree(self.root / ".dvc/cache")


def make(project: Path, root: Path) -> None:
    """Put a trained project under git and DVC, with the pipeline of this repository and nothing released."""
    shutil.copytree(project, root)
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    # Stages depend on code and on locked versions; for what is tested here their content does not matter, and a folder for
    # each stage stands for all, because DVC takes most of its time to write a long lock. Without `__init__.py` these folders
    # are no packages, and commands that run here find the real ones.
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for name, each in document["stages"].items():
        stage = each.get("do", each)
        paths = [path.removeprefix("${code}") for path in stage["deps"]]
        stage["deps"] = [path for path in paths if not path.startswith(CODE) or path == f"training/{name}"]
        stage["params"] = [each for each in stage["params"] if "reports/settings.json" in each]
    pipeline = yaml.safe_dump(document)
    (root / "dvc.yaml").write_text(pipeline)
    for name in touched.pipeline_paths(pipeline):
        if name.startswith((*CODE, "data/source", "reports/explore")):
            file = root / name if (ROOT / name).is_file() else root / name / "README.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("Not read.\n")
    import pytest

    with pytest.MonkeyPatch.context() as monkeypatch:
        repository = Repository(root, monkeypatch)
        repository.git("init", "--quiet", "--initial-branch", "main")
        repository.dvc("init", "--quiet")
        repository.record()
        repository.release()
