"""Which models a repository has, and commands in their folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import models, overlays
from tests.training.project import ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in (("", 'name: "iris"  # the first\n'), ("models/churn", ""), ("models/a-b", "")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "params.yaml").write_text(text)
    (tmp_path / "models/empty").mkdir()
    return tmp_path


def test_the_first_is_the_repository_and_the_others_are_folders(repository: Path) -> None:
    assert list(models.find(repository)) == ["iris", "a-b", "churn"]
    assert models.select("", repository) == {"iris": repository}
    assert models.select("churn", repository) == {"churn": repository / "models/churn"}
    assert list(models.select("all", repository)) == ["iris", "a-b", "churn"]


def test_where_there_is_no_name_the_repository_is_still_the_first(tmp_path: Path) -> None:
    assert models.select("", tmp_path) == {"": tmp_path}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("chrun", "did you mean churn"), ("iriss", "did you mean iris"), ("zzz", "there are iris, a-b, churn")],
)
def test_an_unknown_name_is_named_with_one_that_is_meant(repository: Path, name: str, hint: str) -> None:
    with pytest.raises(models.UnknownModelError, match=f"there is no model '{name}': {hint}"):
        models.select(name, repository)


def test_a_process_knows_the_model_in_whose_folder_it_works(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    assert models.further(Path()) is None
    assert overlays.from_here("staging") == Path("deploy/overlays/staging/iris/release/kustomization.yaml")
    monkeypatch.chdir(repository / "models/churn")
    assert models.further(Path()) == "churn"
    release = "deploy/overlays/staging/churn/release/kustomization.yaml"
    assert overlays.from_here("staging") == Path("../..") / release
    (repository / "params.yaml").unlink()
    assert models.further(Path()) is None, "some other folder is called models"


@pytest.mark.parametrize("name", ["churn", "a", "a1-b2", "x" * 31])
def test_names(name: str) -> None:
    assert models.NAME.match(name)


@pytest.mark.parametrize(
    "name", ["", "Churn", "1a", "a_b", "a--b", "a-", "-a", "x" * 32, "ü", "a/b", "a\n", "."]
)
def test_what_is_no_name(name: str) -> None:
    assert not models.NAME.match(name)
    with pytest.raises(models.ModelNameError, match="cannot be called"):
        models.check_name(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Default", "default"),
        ("credit_default (2)", "credit-default-2"),
        ("2019 Q3", "model-2019-q3"),
        ("all", "model"),
        ("数据", "model"),
        ("y" * 30 + "_z", "y" * 30),
    ],
)
def test_a_name_is_proposed(text: str, name: str) -> None:
    assert models.proposed_name(text) == name


@given(st.text())
def test_every_proposed_name_can_be_had(text: str) -> None:
    models.check_name(models.proposed_name(text))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "common.models", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_runs_in_each_folder_with_the_code_at_hand() -> None:
    done = command("all", sys.executable, "-c", "import os, training; print(os.getcwd())")
    assert done.returncode == 0, done.stderr
    assert f"wine:\n{ROOT}/models/wine\n" in done.stdout
    alone = command("wine", sys.executable, "-c", "import os; print(os.getcwd())")
    assert alone.stdout == f"{ROOT}/models/wine\n"


def test_the_first_failure_ends_it_with_its_status() -> None:
    done = command("all", sys.executable, "-c", "print('once'); exit(7)")
    assert done.returncode == 7
    assert done.stdout.count("once") == 1
    assert command("", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 137


def test_what_cannot_run_is_one_line() -> None:
    assert (
        command("", "no-such-program").stderr
        == "error: cannot run no-such-program: No such file or directory\n"
    )
    assert command("wien", "true").stderr.startswith("error: there is no model 'wien': did you mean wine")
    assert command().returncode == 2


def test_an_interrupt_is_left_to_the_command() -> None:
    """It comes to both from the terminal, and the command may have work to save."""
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('saved', flush=True), sys.exit(5)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "common.models", "", sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "saved\n"
    assert process.returncode == 5
