from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training import own_code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model's folder with code of its own, in which the test works."""
    own_code.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with own_code.forgotten(tmp_path):
        yield tmp_path
