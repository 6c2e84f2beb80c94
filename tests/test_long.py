"""Which of the tests that take minutes run after a change."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.clone import ROOT

EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""git's tree without files: since then everything has changed."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "collected"),
    [
        ([], "no tests collected"),
        (["-m", "long"], "1 test collected"),
        (["-m", "long", f"--changed-since={EMPTY}"], "1 test collected"),
        (["-m", "long", "--changed-since=HEAD"], "no tests collected"),
    ],
)
def test_a_long_test_runs_when_asked_for_and_its_subject_changed(options: list[str], collected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/e2e/test_rehearsal.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert collected in done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.mark.slow
def test_a_test_that_is_not_started_in_time_is_skipped_by_name() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "long",
        "--start-within=0",
        "tests/e2e/test_rehearsal.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not started within 0 minutes" in done.stdout
    assert "1 skipped" in done.stdout
