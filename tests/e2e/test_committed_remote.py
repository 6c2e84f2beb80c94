"""A clone whose .dvc/config names a remote for which there are no credentials: a fork's, Dependabot's, a newcomer's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import models
from tests.e2e.clone import BIN, ROOT, Clone, clone
from tests.tools import free_port

REMOTE = "s3://espalier-dvc/dvc"
NONE = f"there are no credentials for the remote {REMOTE}"


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """With the first model alone, because every model would be trained."""
    made = clone(tmp_path_factory.mktemp("remote") / "clone")
    for command in (
        ["git", "rm", "-rq", *(f"{models.FOLDER}/{name}" for name in list(models.find(made.root))[1:])],
        ["dvc", "remote", "add", "--force", "--default", "storage", REMOTE],
        ["dvc", "remote", "modify", "storage", "endpointurl", f"http://127.0.0.1:{free_port()}"],
        ["dvc", "remote", "modify", "storage", "verify", "true"],
        ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qam", "Remote"],
    ):
        subprocess.run(command, cwd=made.root, env=made.environment(), check=True, capture_output=True)
    (made.root / ".venv").symlink_to(BIN.parent)
    return made


def run(made: Clone, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in made.environment().items() if not key.startswith("AWS_")}
    return subprocess.run(
        command,
        cwd=made.root,
        env={
            **environment,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(made.root.parent),
            "GIT_CONFIG_GLOBAL": os.devnull,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def python(made: Clone, *arguments: str) -> str:
    done = run(made, sys.executable, "-m", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def make(made: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The environment is this test's own.
    return run(made, "make", "--assume-old=.venv/.ready", *arguments)


@pytest.mark.long("common", "deploy/ci", "dvc.yaml", "training", "tests/e2e/test_committed_remote.py")
def test_every_command_computes(newcomer: Clone) -> None:
    assert Path(sys.executable).parent == BIN
    assert newcomer.root != ROOT
    python(newcomer, "deploy.ci.pipeline", "current")
    for target in ("pull", "push"):
        done = make(newcomer, target)
        assert done.returncode != 0
        assert f"error: {NONE}\n" in done.stdout
    assert python(newcomer, "deploy.ci.pipeline", "bundle").count(NONE) == 1
    python(newcomer, "training.production")
    said = python(newcomer, "deploy.ci.reproduce", "--base", "HEAD", "--output", "build/reproduce", "--fork")
    assert "passed=true" in said
    assert NONE not in said, "everything is in the cache by now"
    done = make(newcomer, "all")
    assert done.returncode == 0, done.stdout
    assert "make serve" in done.stdout
    assert run(newcomer, "git", "status", "--short", "--untracked-files=no").stdout == ""
    assert "every hash is the one in dvc.lock" in python(newcomer, "deploy.ci.pipeline", "scratch")
