from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.datasets import Outcome, report
from benchmarks.sets import SETS
from tests.tools import require_package
from tests.training.project import ROOT

CHOSEN = ("greatlakes", "kyphosis", "travelmode")
"""A regression, a classification, and a classification of rows in groups; all small."""


@pytest.mark.long("app", "benchmarks", "tests/benchmarks", "training")
def test_public_data_sets_end_in_a_service_without_an_edit(tmp_path: Path) -> None:
    for each in SETS:
        if each.model in CHOSEN:
            require_package(each.package)
    output = tmp_path / "datasets.md"
    command = [sys.executable, "-m", "benchmarks.datasets", "--output", str(output), "--sets", *CHOSEN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.with_suffix(".json").read_text())
    found = {name: Outcome.model_validate(each) for name, each in figures.items()}
    assert {name: (one.refusal, one.fault) for name, one in found.items()} == dict.fromkeys(CHOSEN, ("", ""))
    assert [name for name, one in found.items() if one.task == "regression"] == ["greatlakes"]
    assert "Of 3 data sets from packages on PyPI, 3 end in a served model" in output.read_text()
    assert "| AER/TravelMode | 840 | 7 | group |" in output.read_text()


def test_the_sets_are_of_both_tasks_and_some_keep_rows_apart() -> None:
    assert len({each.model for each in SETS}) == len(SETS) == 40
    tasks = [each.task for each in SETS]
    assert tasks.count("classification") >= 25
    assert tasks.count("regression") >= 12
    assert sum(bool(each.split) for each in SETS) >= 5


def test_the_report_has_refusals_and_faults_with_their_messages() -> None:
    first, second = SETS[:2]
    text = report(
        {
            first.model: Outcome(rows=9, columns=2, seconds=1, stage="select", refusal="a | b\nc"),
            second.model: Outcome(rows=9, columns=2, seconds=1, stage="serve", fault="KeyError: 'x'"),
        }
    )
    assert "0 end in a served model, 1 in a refusal and 1 in a fault" in text
    assert f"| {first.name} | select | a / b c |" in text
    assert f"| {second.name} | serve | KeyError: 'x' |" in text
