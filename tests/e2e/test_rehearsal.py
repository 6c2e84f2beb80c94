"""The way from a pull request to production and back, played with the real workflow files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.rehearsal.__main__ import TOOLS
from tests.e2e.clone import ROOT
from tests.tools import require


@pytest.mark.long(".github", "app", "common", "deploy", "dvc.yaml", "training")
def test_a_change_goes_to_production_and_comes_back() -> None:
    for tool in TOOLS:
        require(tool)

    done = subprocess.run(
        [sys.executable, "-m", "deploy.rehearsal"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Played, not real:" in done.stdout
