"""How commands end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.clone import ROOT

SCRIPT = """
import sys
from common.command import run
def main():
    print({lines})
    {end}
run(main)
"""


def unread(*command: str) -> tuple[int, bytes]:
    """Exit status and stderr of a command whose output nothing reads, as at the end of `command | true`."""
    unread, stdout = os.pipe()
    # Before the start: a quick command would have written before the end was closed.
    os.close(unread)
    try:
        done = subprocess.run(
            [sys.executable, *command], stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    finally:
        os.close(stdout)
    return done.returncode, done.stderr


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "sys.exit(1)"])
@pytest.mark.parametrize("lines", ["'line'", "'line\\n' * 100_000"])
def test_a_reader_that_closed_the_pipe_is_no_error(lines: str, end: str) -> None:
    """Little output is written at the very end, much while the command runs."""
    assert unread("-c", SCRIPT.format(lines=lines, end=end)) == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["training.draft", "sklearn:iris", "--target=species"],
        ["training.draft", "--help"],
        ["training.select", "--help"],
        ["monitoring.queries"],
        ["monitoring.drift", "--help"],
        ["deploy.release", "--help"],
    ],
    ids=" ".join,
)
def test_commands_end_quietly_when_their_output_is_not_read(command: list[str]) -> None:
    status, said = unread("-m", *command)
    # The draft says on the error stream which task it chose.
    assert b"drafted for a classification" in said if "--target=species" in command else said == b""
    assert len(said.splitlines()) <= 1
    # argparse takes a help that cannot be written for one that was.
    assert status in ((0, 141) if "--help" in command else (141,))


@pytest.mark.parametrize(
    "module",
    [
        "training.train",
        "training.parallel",
        "deploy.release",
        "deploy.ci.reproduce",
        "monitoring.drift",
        "benchmarks.pipeline",
        "tests.load.run",
    ],
)
def test_an_interrupt_while_a_command_imports_its_packages_is_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "interrupted\n"
    assert done.returncode == -signal.SIGINT, "a shell calls it 130"


def test_an_interrupt_of_a_command_is_one_line() -> None:
    script = SCRIPT.format(lines="'line'", end="raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "command",
    [
        ["deploy.release", "status"],
        ["deploy.ci.touched", "--base", "HEAD"],
        ["training.review", "--base", "HEAD"],
        ["monitoring.delivery", "--git=.", "--port=0"],
    ],
    ids=" ".join,
)
def test_a_clone_of_another_user_is_one_line_with_the_remedy(command: list[str]) -> None:
    trusted_by_nobody = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **trusted_by_nobody},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"trust it with `git config --global --add safe.directory {ROOT}`" in line
