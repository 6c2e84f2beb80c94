"""DVC as the workflows use it, in a small repository with a remote of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.ci import pipeline
from tests.deploy.ci.conftest import Clone
from tests.e2e.clone import BIN, ROOT
from tests.tools import dvc

STAGES = ["model.txt", "other.txt", "profile.json", "raw.txt", "test.parquet"]
"""What they write, by name."""
PIPELINE = """\
stages:
  fetch:
    cmd: python stage.py rows data/raw.txt
    deps: [stage.py]
    params: [rows]
    outs: [data/raw.txt]
  prepare:
    cmd: python stage.py rows data/test.parquet data/profile.json
    deps: [stage.py, data/raw.txt]
    params: [rows]
    outs: [data/test.parquet, data/profile.json]
  other:
    cmd: python stage.py rows models/other.txt
    deps: [stage.py, data/raw.txt]
    params: [rows]
    outs: [models/other.txt]
  select:
    cmd: python stage.py depth model/model.txt
    deps: [stage.py, models]
    params: [depth]
    outs: [model]
"""
STAGE = """\
import os, pathlib, sys
params = pathlib.Path("params.yaml").read_text()
if "depth: 0" in params and sys.argv[1] == "depth":
    sys.exit("error: the tree won but does not pass the gate: too shallow")
for name in sys.argv[2:]:
    out = pathlib.Path(name)
    out.parent.mkdir(exist_ok=True)
    out.write_text(f"{out.name} {params} {os.environ.get('NOISE', '')}")
    with open(os.environ["RAN"], "a") as log:
        log.write(out.name + " ")
"""


@dataclass(frozen=True)
class Repository:
    clone: Clone
    remote: Path
    log: Path

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.clone.folder,
            env={**self.environment(), **more},
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAN": str(self.log),
            "DVC_REMOTE_URL": str(self.remote),
        }

    def pipeline(self, command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("deploy.ci.pipeline", command, **more)

    def dvc(self, *arguments: str) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in self.environment().items():
                monkeypatch.setenv(name, value)
            dvc(self.clone.folder, *arguments)

    def ran(self) -> list[str]:
        """What was written since it was asked last, by name."""
        names = sorted(self.log.read_text().split())
        self.log.write_text("")
        return names

    def lose_data(self) -> None:
        """As in a fresh clone: no output, no cache."""
        for folder in ("data", "model", "models", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(self.clone.folder / folder, ignore_errors=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Reproduced once and committed; nothing pushed to the remote yet."""
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    made = Repository(Clone(tmp_path / "work"), tmp_path / "remote", tmp_path / "ran")
    made.remote.mkdir()
    made.log.touch()
    made.clone.folder.mkdir()
    made.clone.git("init", "--quiet", "--initial-branch=main")
    made.dvc("init", "--quiet")
    made.clone.write(**{"dvc.yaml": PIPELINE, "stage.py": STAGE, "params.yaml": "rows: 10\ndepth: 4\n"})
    made.dvc("repro", "--quiet")
    made.clone.git("add", "--all")
    made.clone.git("commit", "--quiet", "--message", "Start")
    assert made.ran() == STAGES
    return made


def deepen(repository: Repository) -> None:
    repository.clone.write(**{"params.yaml": "rows: 10\ndepth: 5\n"})


@pytest.mark.slow
def test_current_needs_no_data_and_names_the_remedy(repository: Repository) -> None:
    repository.lose_data()
    done = repository.pipeline("current")
    assert done.returncode == 0, done.stderr
    deepen(repository)
    done = repository.pipeline("current")
    assert done.returncode == 1
    assert done.stderr.startswith("error: dvc.lock is not current")
    assert "run `make repro` and commit dvc.lock" in done.stderr
    assert repository.ran() == []


@pytest.mark.slow
def test_the_remote_is_of_this_clone_alone(repository: Repository) -> None:
    before = (repository.clone.folder / ".dvc/config").read_text()
    elsewhere = {"DVC_REMOTE_URL": "s3://bucket/dvc", "DVC_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert repository.pipeline("remote", **elsewhere).returncode == 0
    local = (repository.clone.folder / ".dvc/config.local").read_text()
    assert "url = s3://bucket/dvc" in local
    assert "endpointurl = http://127.0.0.1:1" in local
    assert (repository.clone.folder / ".dvc/config").read_text() == before
    assert repository.clone.git("status", "--short") == ""
    done = repository.pipeline("remote", DVC_REMOTE_URL="")
    assert done.stderr == "error: DVC_REMOTE_URL is not set: the workflow has to give it in `env`\n"


@pytest.mark.slow
def test_the_bundle_comes_from_the_remote_and_else_is_computed(repository: Repository) -> None:
    repository.lose_data()
    done = repository.pipeline("bundle")
    assert done.returncode == 0, done.stderr
    assert repository.ran() == STAGES, "there is no remote"
    assert repository.pipeline("remote").returncode == 0
    repository.lose_data()
    done = repository.pipeline("bundle")
    assert done.returncode == 0, done.stderr
    assert "model.txt" in repository.ran(), "the remote is empty"
    repository.dvc("push", "--quiet")
    repository.lose_data()
    assert repository.pipeline("bundle").returncode == 0
    assert repository.ran() == []
    assert "depth: 4" in (repository.clone.folder / "model/model.txt").read_text()
    assert (repository.clone.folder / "data/test.parquet").exists(), "the gate scores on it"
    assert not (repository.clone.folder / "data/raw.txt").exists(), "nothing else is needed"


@pytest.mark.slow
def test_a_bundle_that_the_lock_does_not_name_is_refused(repository: Repository) -> None:
    deepen(repository)
    done = repository.pipeline("bundle")
    assert done.returncode == 1
    assert "this commit comes to something else than its dvc.lock says" in done.stderr
    assert done.stderr.count("error: ") == 1
    repository.clone.write(**{"params.yaml": "rows: 10\ndepth: 0\n"})
    done = repository.pipeline("bundle")
    assert "error: the bundle cannot be computed: the tree won but does not pass the gate" in done.stderr


@pytest.mark.slow
def test_only_what_changed_is_computed_and_everything_is_there_afterwards(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repository.pipeline("remote").returncode == 0
    repository.dvc("push", "--quiet")
    repository.lose_data()
    deepen(repository)
    monkeypatch.chdir(repository.clone.folder)
    for name, value in repository.environment().items():
        monkeypatch.setenv(name, value)
    status, said = pipeline.reproduce()
    assert status == 0, said
    assert repository.ran() == ["model.txt"]
    assert (repository.clone.folder / "data/test.parquet").exists(), (
        "the review reads what did not change too"
    )
    # The remote lost something: it is computed again, and that is no failure.
    for file in repository.remote.rglob("*"):
        if file.is_file():
            file.unlink()
    repository.lose_data()
    status, said = pipeline.reproduce()
    assert status == 0, said
    assert repository.ran() == STAGES


@pytest.mark.slow
def test_a_stage_that_fails_is_not_tried_twice(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repository.pipeline("remote").returncode == 0
    repository.dvc("push", "--quiet")
    repository.clone.write(**{"params.yaml": "rows: 10\ndepth: 0\n"})
    monkeypatch.chdir(repository.clone.folder)
    for name, value in repository.environment().items():
        monkeypatch.setenv(name, value)
    status, said = pipeline.reproduce()
    assert status != 0
    assert said.count("does not pass the gate") == 1
    assert (
        pipeline.error_lines(said).splitlines()[0] == "the tree won but does not pass the gate: too shallow"
    )


@pytest.mark.slow
def test_from_scratch_every_hash_is_compared(repository: Repository, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = repository.pipeline("scratch", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert "every hash is the one in dvc.lock" in done.stdout
    assert repository.ran() == STAGES, "nothing came from a cache"
    done = repository.pipeline("scratch", GITHUB_STEP_SUMMARY=str(summary), NOISE="today")
    assert done.returncode == 1
    assert "8 hashes are not those of dvc.lock: fetch data/raw.txt, other data/raw.txt, " in done.stderr
    assert "| select | `model` |" in summary.read_text()
    done = repository.pipeline("scratch")
    assert "dvc.lock has changes that are not committed" in done.stderr


def test_a_stage_that_is_gone_or_new_is_a_difference() -> None:
    lock = {"stages": {"a": {"outs": [{"path": "x", "md5": "1"}]}}}
    other = {"stages": {"b": {"outs": [{"path": "x", "md5": "1"}], "deps": []}}}
    assert pipeline.compare(lock, lock) == {}
    assert pipeline.compare(lock, other) == {("a", "x"): ("1", "absent"), ("b", "x"): ("absent", "1")}


def test_error_lines() -> None:
    said = "Running\nerror: one\nERROR: failed to reproduce 'x'\nerror: one\n"
    assert pipeline.error_lines(said) == "one\nfailed to reproduce 'x'"
    assert pipeline.error_lines("a\n\nb\n\n") == "b"
    assert pipeline.error_lines("") == "it says nothing"
    with pytest.raises(ValueError, match=r"not a dvc\.lock that DVC wrote"):
        pipeline.compare([], [])
