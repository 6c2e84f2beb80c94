"""Property tests judge a commit by the same examples each time; `make explore` looks at others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import free_port

ROOT = Path(__file__).parents[1]
TEST = """
from hypothesis import given, strategies

@given(strategies.integers())
def test_numbers(number):
    print("drawn", number)
    assert number < 2**15
"""


def examples(folder: Path, *options: str) -> tuple[list[str], str]:
    """What a property test draws in a process of its own, and all that pytest says."""
    (folder / "test_property.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-s", *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("drawn")], done.stdout


@pytest.mark.long("pyproject.toml", "tests/conftest.py", "tests/test_chance.py", "uv.lock")
def test_examples_are_the_same_each_time_unless_chance_is_asked_for(tmp_path: Path) -> None:
    """And a failure is told with the line that reproduces it."""
    first, said = examples(tmp_path)
    assert "@reproduce_failure(" in said
    assert examples(tmp_path)[0] == first
    explored, said = examples(tmp_path, "--hypothesis-profile=explore", "-m", "hypothesis")
    assert "@reproduce_failure(" in said
    assert explored != first
    # A failure that exploring has found is not remembered here.
    assert examples(tmp_path)[0] == first


def test_ports_are_given_once() -> None:
    given = [free_port() for _ in range(200)]
    assert len(set(given)) == 200
    assert max(given) < 32768, "systems choose ports for connections from there"
