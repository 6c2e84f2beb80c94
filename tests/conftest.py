from __future__ import annotations

import signal

import pytest
from hypothesis import settings

pytest_plugins = ["tests.browsing"]

# A machine that is busy is no fault of the code: examples may take as long as they take.
settings.register_profile("espalier", deadline=None, print_blob=True)
settings.load_profile("espalier")

# Behind `nohup … &` an interrupt is ignored, and processes inherit that: those that tests interrupt would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    "e2e/test_rehearsal",
    "e2e/test_pipeline",
    "e2e/test_examples",
    "deploy/test_image",
    "e2e/test_install",
)
"""Modules that take minutes, the longest first."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes minutes where workers share the tests: at the end all but one would wait for it."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(
            key=lambda item: places.get(item.nodeid.removeprefix("tests/").partition(".py")[0], len(places))
        )
