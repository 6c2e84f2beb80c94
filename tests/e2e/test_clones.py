"""Clones in places, with settings and owners that are not those of whoever wrote this."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.clone import clone

ROOT = Path(__file__).parents[2]
PATHS = ["with blanks in it", "dol$lar", "quo'te", 'dou"ble', "ha#sh", "größe 語", "per%cent & (more)"]
UV = """#!/bin/sh
echo "uv $*" >> uv.log
mkdir -p .venv/bin
"""
PYTHON = f"""#!/bin/sh
case "$*" in
  "-m venv .uv") mkdir -p .uv/bin && cp "$0" .uv/bin/python ;;
  *"pip install"*" uv") cat > .uv/bin/uv <<'END' && chmod +x .uv/bin/uv ;;
{UV}END
esac
"""
"""Stands in for a Python that makes an environment and installs uv into it."""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", PATHS)
def test_make_brings_uv_wherever_the_clone_is(tmp_path: Path, name: str) -> None:
    if shutil.which("uv", path="/usr/bin:/bin"):
        pytest.skip("this machine's own folders have uv")
    root = Path(__file__).parents[2]
    folder = tmp_path / name
    folder.mkdir()
    for each in ("Makefile", "uv.lock", "pyproject.toml"):
        shutil.copy(root / each, folder)
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    done = make(folder, "setup", "PYTHON=./python")
    assert done.returncode == 0, done.stderr
    assert "getting it from PyPI into .uv" in done.stdout
    log = folder / "uv.log"
    assert log.read_text() == "uv sync --locked --compile-bytecode --python ./python\n"
    again = make(folder, "setup", "PYTHON=./python")
    assert (again.returncode, again.stderr) == (0, "")
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize("autocrlf", ["true", "input", "false"])
def test_a_clone_has_the_committed_bytes_whatever_git_does_to_line_ends(
    tmp_path: Path, autocrlf: str
) -> None:
    """DVC's hashes are of bytes: with other line ends every stage would be out of date."""
    original = clone(tmp_path / "original").root
    data = original / "data/source/windows.csv"
    data.write_bytes(b"a,b\r\n1,2\r\n")
    git(original, "-c", f"core.autocrlf={autocrlf}", "add", "-A")
    git(original, "commit", "-qm", "data")
    git(tmp_path, "clone", "-q", "-c", f"core.autocrlf={autocrlf}", str(original), "copy")
    names = git(tmp_path / "copy", "ls-files", "-z").split("\0")[:-1]
    assert "dvc.yaml" in names
    changed = [
        name for name in names if (tmp_path / "copy" / name).read_bytes() != (original / name).read_bytes()
    ]
    assert changed == []
    assert git(tmp_path / "copy", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), []),
        (("TIME=30s", "GROUP=users"), []),  # of the load test, or of the shell
        (("SPLIT_GROUP=a b", "SPLIT_TIME=day"), ["--group", "a b", "--time", "day"]),
    ],
)
def test_a_model_is_drafted_with_the_options_that_are_given(
    given: tuple[str, ...], expected: list[str]
) -> None:
    said = make(ROOT, "-n", "model", "NAME=a", "SOURCE=b.csv", "TARGET=c", *given).stdout
    (line,) = (each for each in said.replace("\\\n", "").splitlines() if "training.draft" in each)
    assert shlex.split(line)[3:] == ["b.csv", "--target", "c", "--model", "a", *expected]
