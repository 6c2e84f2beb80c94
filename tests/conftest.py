from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import is_hypothesis_test, settings

pytest_plugins = ["tests.browsing"]

# A machine that is busy is no fault of the code: examples may take as long as they take. And no example is chosen by
# chance or remembered from another commit, so that a change is judged by itself.
settings.register_profile("repeat", deadline=None, print_blob=True, derandomize=True, database=None)
# Chosen by `make explore`: another choice of examples each time.
settings.register_profile("explore", deadline=None, print_blob=True, derandomize=False)
settings.load_profile("repeat")

# DVC starts a second process after each command to send statistics, in repositories that tests make.
os.environ["DVC_NO_ANALYTICS"] = "1"

# Behind `nohup … &` interrupts and hang-ups are ignored, and processes inherit that: tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A worker of xdist is a subprocess, which coverage follows, and has pytest's options, which pytest-cov takes for those of
# the first process. What measures the worker comes after these two and cannot pause them: it found the tests traced still.
while "PYTEST_XDIST_WORKER" in os.environ and (follower := Coverage.current()):
    follower.stop()

LONGEST = (
    "e2e/test_rehearsal",
    "e2e/test_gitlab",
    "e2e/test_jenkins",
    "e2e/test_pipeline",
    "e2e/test_models",
    "deploy/test_training_image",
    "deploy/schedulers/test_kubeflow",
    "deploy/test_applied",
    "deploy/test_image",
    "e2e/test_install",
)
"""Modules that take minutes, the longest first."""

STARTED = time.monotonic()

# The collection makes much and frees little: the collector of garbage takes a tenth of its time.
gc.disable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where a test is not traced, the processes that it starts are not either."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if item.get_closest_marker("no_cover"):
            monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--changed-since",
        metavar="REV",
        help="of the tests marked long, run those whose subject changed after this commit",
    )
    parser.addoption(
        "--start-within",
        metavar="MINUTES",
        type=float,
        help="skip tests that have not started after this time",
    )


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--start-within")
    if minutes is not None and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not started within {minutes:g} minutes: `make test-long` runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if revision := config.getoption("--changed-since"):
        changed = _changed_since(revision)
        untouched = [item for item in items if not _is_about(item, changed)]
        config.hook.pytest_deselected(items=untouched)
        items[:] = [item for item in items if item not in untouched]
    for item in items:
        # The same lines hundreds of times: to trace them makes these tests up to ten times as slow.
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("no_cover")
    # What takes minutes comes first where workers share the tests: at the end all but one would wait for it.
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(
            key=lambda item: places.get(item.nodeid.removeprefix("tests/").partition(".py")[0], len(places))
        )


def _changed_since(revision: str) -> list[str]:
    names = subprocess.run(
        ["git", "diff", "--name-only", "--no-renames", "-z", revision, "HEAD"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [name for name in names.split("\0") if name]


def _is_about(item: pytest.Item, changed: list[str]) -> bool:
    """Whether a file changed that a long test is about. Every other test is about all files."""
    mark = item.get_closest_marker("long")
    if mark and (absent := [path for path in mark.args if not (Path(__file__).parents[1] / path).exists()]):
        raise pytest.UsageError(f"{item.nodeid} is about {', '.join(absent)}, which is not there")
    return mark is None or any(Path(name).is_relative_to(path) for name in changed for path in mark.args)
