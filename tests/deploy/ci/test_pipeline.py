"""DVC as the workflows use it, in a small repository with a remote of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import models
from deploy.ci import pipeline
from tests.deploy.ci.conftest import Clone
from tests.deploy.conftest import Call
from tests.e2e.clone import BIN, ROOT
from tests.tools import dvc, free_port

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
    cmd: python stage.py rows candidates/other.txt
    deps: [stage.py, data/raw.txt]
    params: [rows]
    outs: [candidates/other.txt]
  select:
    cmd: python stage.py depth model/model.txt
    deps: [stage.py, candidates]
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
    call: Call

    def start(self, module: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a step as the workflow does."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.clone.folder,
            env={**os.environ, **self.variables(), "PYTHONPATH": str(ROOT), **more},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, main: Callable[[], None], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a step in this process."""
        return self.call(main, self.clone.folder, *arguments, **{**self.variables(), **more})

    def pipeline(self, command: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(pipeline.main, command, *arguments, **more)

    def variables(self) -> dict[str, str]:
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAN": str(self.log),
        }

    def add_remote(self) -> None:
        """Commit a remote, as docs/setup.md says."""
        self.dvc("remote", "add", "--quiet", "--default", "storage", str(self.remote))
        self.clone.git("commit", "--quiet", "--all", "--message", "Remote")

    def push(self) -> None:
        shutil.copytree(self.clone.folder / ".dvc/cache/files", self.remote / "files", dirs_exist_ok=True)

    def dvc(self, *arguments: str) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in self.variables().items():
                monkeypatch.setenv(name, value)
            dvc(self.clone.folder, *arguments)

    def ran(self) -> list[str]:
        """What was written since it was asked last, by name."""
        names = sorted(self.log.read_text().split())
        self.log.write_text("")
        return names

    def lose_data(self) -> None:
        """As in a fresh clone: no output, no cache."""
        for folder in (self.clone.folder, self.clone.folder / "models/wine"):
            for name in ("data", "model", "candidates", ".dvc/cache", ".dvc/tmp"):
                shutil.rmtree(folder / name, ignore_errors=True)

    def add_wine(self) -> None:
        """A further model, reproduced and committed."""
        text = PIPELINE.replace("python stage.py", "python ../../stage.py").replace(
            "[stage.py", "[../../stage.py"
        )
        params = "name: wine\nrows: 20\ndepth: 2\n"
        self.clone.write(**{"models/wine/dvc.yaml": text, "models/wine/params.yaml": params})
        self.dvc("repro", "--all-pipelines", "--quiet")
        self.clone.git("add", "--all")
        self.clone.git("commit", "--quiet", "--message", "Wine")
        self.ran()


def forked_dvc(*arguments: str) -> tuple[int, str]:
    """As `pipeline.dvc`, in a fork of this process: to import DVC takes two seconds."""
    import dvc.logger
    from dvc.cli import main

    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        for number in (1, 2):
            os.dup2(writing, number)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
        dvc.logger.setup()
        os._exit(main(list(arguments)))
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        said = stream.read()
    print(said, end="")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reproduced once and committed."""
    folder, log = tmp_path_factory.mktemp("template") / "work", tmp_path_factory.mktemp("log") / "ran"
    folder.mkdir()
    clone = Clone(folder)
    clone.git("init", "--quiet", "--initial-branch=main")
    dvc(folder, "init", "--quiet")
    clone.write(**{"dvc.yaml": PIPELINE, "stage.py": STAGE, "params.yaml": "rows: 10\ndepth: 4\n"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
        patch.setenv("RAN", str(log))
        dvc(folder, "repro", "--quiet")
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--message", "Start")
    assert sorted(log.read_text().split()) == STAGES
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Nothing is pushed to the remote yet."""
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(pipeline, "dvc", forked_dvc)
    shutil.copytree(template, tmp_path / "work")
    made = Repository(Clone(tmp_path / "work"), tmp_path / "remote", tmp_path / "ran", call)
    made.remote.mkdir()
    made.log.touch()
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
    assert "run `make repro MODEL=all` and commit dvc.lock" in done.stderr
    assert repository.ran() == []


@pytest.mark.slow
def test_a_job_without_an_identity_computes(repository: Repository) -> None:
    repository.add_remote()
    repository.push()
    assert repository.pipeline("offline").returncode == 0
    assert repository.clone.git("status", "--short") == "", "it is of this clone alone"
    repository.lose_data()
    done = repository.pipeline("bundle")
    assert done.returncode == 0, done.stderr
    assert repository.ran() == STAGES
    assert done.stdout.count("there is no remote: ") == 1


@pytest.mark.slow
def test_without_credentials_it_is_computed_and_with_them_a_failure_is_one(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(repository.clone.folder.parent))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    repository.dvc("remote", "add", "--quiet", "--default", "storage", "s3://bucket/dvc")
    repository.dvc("remote", "modify", "--quiet", "storage", "endpointurl", f"http://127.0.0.1:{free_port()}")
    repository.lose_data()
    done = repository.pipeline("bundle")
    assert done.returncode == 0, done.stderr
    assert repository.ran() == STAGES
    assert done.stdout.count("there are no credentials for the remote s3://bucket/dvc") == 1
    repository.lose_data()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-central-1"}
    done = repository.pipeline("bundle", **keys)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the remote s3://bucket/dvc does not give model (")
    assert repository.ran() == []


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["model/model.txt", "data/test.parquet", "model"])
def test_replaced_bytes_are_neither_used_nor_computed_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    repository.add_remote()
    repository.push()
    files = {file.read_bytes(): file for file in repository.remote.rglob("*") if file.is_file()}
    if planted == "model":
        (object_,) = repository.remote.rglob("*.dir")
    else:
        object_ = files[(repository.clone.folder / planted).read_bytes()]
    object_.chmod(0o644)
    object_.write_bytes(b"replaced")
    repository.lose_data()
    monkeypatch.chdir(repository.clone.folder)
    for name, value in repository.variables().items():
        monkeypatch.setenv(name, value)
    named = f"the remote has other content than the name says for {planted} (file://{object_})"
    done = repository.pipeline("bundle")
    assert done.returncode == 1
    assert named in done.stderr.replace("local://", "file://").replace(f"({object_}", f"(file://{object_}")
    status, said = pipeline.reproduce(models.select("", Path()))
    assert status != 0
    assert said.startswith("ERROR: the remote has other content than the name says for " + planted)
    assert repository.ran() == []
    assert not Path("model").exists()
    assert not Path("data/test.parquet").exists()
    assert b"replaced" not in [each.read_bytes() for each in Path(".dvc/cache").rglob("*") if each.is_file()]


@pytest.mark.slow
def test_the_bundle_comes_from_the_remote_and_else_is_computed(repository: Repository) -> None:
    repository.lose_data()
    done = repository.pipeline("bundle")
    assert done.returncode == 0, done.stderr
    assert repository.ran() == STAGES, "there is no remote"
    repository.add_remote()
    repository.lose_data()
    done = repository.pipeline("bundle")
    assert done.returncode == 0, done.stderr
    assert "model.txt" in repository.ran(), "the remote is empty"
    repository.push()
    repository.lose_data()
    assert repository.pipeline("bundle").returncode == 0
    assert repository.ran() == []
    assert "depth: 4" in (repository.clone.folder / "model/model.txt").read_text()
    assert (repository.clone.folder / "data/test.parquet").exists(), "the gate scores on it"
    assert not (repository.clone.folder / "data/raw.txt").exists(), "nothing else is needed"


@pytest.mark.slow
def test_a_bundle_that_the_lock_does_not_name_is_refused(repository: Repository) -> None:
    repository.lose_data()
    deepen(repository)
    done = repository.pipeline("bundle")
    assert done.returncode == 1
    assert "this commit comes to something else than its dvc.lock says" in done.stderr
    assert done.stderr.count("error: ") == 1
    repository.lose_data()
    repository.clone.write(**{"params.yaml": "rows: 10\ndepth: 0\n"})
    done = repository.pipeline("bundle")
    assert "error: the bundle cannot be computed: the tree won but does not pass the gate" in done.stderr


@pytest.mark.slow
def test_only_what_changed_is_computed_and_everything_is_there_afterwards(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add_remote()
    repository.push()
    repository.lose_data()
    deepen(repository)
    monkeypatch.chdir(repository.clone.folder)
    for name, value in repository.variables().items():
        monkeypatch.setenv(name, value)
    status, said = pipeline.reproduce(models.select("", Path()))
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
    status, said = pipeline.reproduce(models.select("", Path()))
    assert status == 0, said
    assert repository.ran() == STAGES


@pytest.mark.slow
def test_a_stage_that_fails_is_not_tried_twice(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add_remote()
    repository.push()
    repository.clone.write(**{"params.yaml": "rows: 10\ndepth: 0\n"})
    monkeypatch.chdir(repository.clone.folder)
    for name, value in repository.variables().items():
        monkeypatch.setenv(name, value)
    status, said = pipeline.reproduce(models.select("", Path()))
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
    assert (
        "8 hashes are not those of dvc.lock: fetch data/raw.txt, other candidates/other.txt, " in done.stderr
    )
    assert "| select | `model` |" in summary.read_text()
    done = repository.pipeline("scratch")
    assert "dvc.lock has changes that are not committed" in done.stderr


@pytest.mark.slow
def test_outputs_come_from_the_remote_and_are_never_computed(repository: Repository) -> None:
    repository.lose_data()
    done = repository.pipeline("outputs")
    assert (done.returncode, repository.ran()) == (0, [])
    assert "computing what is not here" in done.stdout
    repository.add_remote()
    assert repository.pipeline("bundle").returncode == 0
    repository.ran()
    repository.push()
    repository.lose_data()
    assert repository.pipeline("outputs").returncode == 0
    assert repository.ran() == []
    assert (repository.clone.folder / "data/raw.txt").exists()


@pytest.mark.slow
def test_the_bundle_of_a_further_model_comes_alone(repository: Repository) -> None:
    repository.add_wine()
    repository.lose_data()
    done = repository.pipeline("bundle", "--model", "wine")
    assert done.returncode == 0, done.stderr
    assert repository.ran() == STAGES, "of one model"
    folder = repository.clone.folder
    assert "depth: 2" in (folder / "models/wine/model/model.txt").read_text()
    assert not (folder / "model").exists()
    repository.add_remote()
    assert repository.pipeline("bundle", "--model", "all").returncode == 0
    assert repository.ran() == STAGES, "of the other"
    repository.push()
    repository.lose_data()
    assert repository.pipeline("bundle", "--model", "wine").returncode == 0
    assert repository.ran() == []
    assert (folder / "models/wine/data/test.parquet").exists()
    assert not (folder / "model").exists()
    done = repository.pipeline("bundle", "--model", "wino")
    assert done.stderr.startswith("error: there is no model 'wino': did you mean wine")


@pytest.mark.slow
def test_from_scratch_every_model_or_one_is_computed(repository: Repository) -> None:
    repository.add_wine()
    done = repository.pipeline("scratch")
    assert done.returncode == 0, done.stderr
    assert repository.ran() == sorted(2 * STAGES)
    done = repository.pipeline("scratch", "--model", "wine", NOISE="today")
    assert "8 hashes are not those of dvc.lock: models/wine/dvc.yaml:fetch data/raw.txt, " in done.stderr
    assert repository.ran() == STAGES


def test_a_stage_that_is_gone_or_new_is_a_difference() -> None:
    lock = {"stages": {"a": {"outs": [{"path": "x", "md5": "1"}]}}}
    other = {"stages": {"b": {"outs": [{"path": "x", "md5": "1"}], "deps": []}}}
    assert pipeline.compare(lock, lock) == {}
    assert pipeline.compare(lock, other) == {("a", "x"): ("1", "absent"), ("b", "x"): ("absent", "1")}


def test_error_lines() -> None:
    said = "Running\nerror: one\nERROR: failed to reproduce 'x'\nerror: one\n"
    assert pipeline.error_lines(said) == "one\nfailed to reproduce 'x'"
    assert (
        pipeline.error_lines("wine:select | error: one\nerror: failed: wine:select\n")
        == "one\nfailed: wine:select"
    )
    assert pipeline.error_lines("a\n\nb\n\n") == "b"
    assert pipeline.error_lines("") == "it says nothing"
    with pytest.raises(ValueError, match=r"not a dvc\.lock that DVC wrote"):
        pipeline.compare([], [])
