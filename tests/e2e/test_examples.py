"""Other data sets by configuration alone: from their params.yaml to an answer on the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.contract import read_bundle
from tests.app.processes import running
from tests.browsing import Visit
from tests.e2e.clone import ROOT, Clone, clone

pytestmark = pytest.mark.long("app", "common", "dvc.yaml", "examples", "training")

EXAMPLES = ("wine", "breast_cancer", "digits", "penguins")


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A project that trained an example; quick, and otherwise as the example says."""
    project = clone(tmp_path_factory.mktemp(request.param) / "project")
    (project.root / "params.yaml").write_bytes((ROOT / "examples" / f"{request.param}.yaml").read_bytes())
    params = project.params()
    params["evaluate"] |= {"parity_rows": 5000, "bootstrap": 100}
    params["train"]["algorithms"]["random_forest"]["n_estimators"] = 30
    params["train"]["algorithms"]["xgboost"]["n_estimators"] = 20
    project.write_params(params)
    project.dvc("repro")
    return project


def test_every_algorithm_took_part_and_the_champion_passed(example: Clone) -> None:
    board = json.loads((example.root / "reports/leaderboard.json").read_text())
    assert {row["algorithm"] for row in board["rows"]} == set(example.params()["train"]["algorithms"])
    manifest = read_bundle(example.root / "model").manifest
    assert manifest.name == example.params()["name"]
    assert [each.name for each in manifest.features] == list(example.params()["schema"]["features"])
    assert "MODEL_CARD.md" in {each.name for each in example.root.iterdir()}


def test_the_service_answers_the_bundles_own_rows(example: Clone) -> None:
    manifest = read_bundle(example.root / "model").manifest
    rows = [each.values for each in manifest.examples]
    with running(example.root / "model") as service:
        request = urllib.request.Request(
            f"{service.url}/predict",
            data=json.dumps({"instances": rows}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    labels = [each["label"] for each in answer["predictions"]]
    right = sum(label == each.label for label, each in zip(labels, manifest.examples, strict=True))
    assert right >= len(rows) - 2
    assert answer["model"]["version"] == manifest.version


def test_the_page_has_its_inputs_and_shows_an_answer(example: Clone, visit: Visit) -> None:
    manifest = read_bundle(example.root / "model").manifest
    with running(example.root / "model") as service:
        page = visit(service.url)
        expect(page.locator(".field")).to_have_count(len(manifest.features))
        expect(page.locator("#bars .name")).to_have_count(len(manifest.classes))
        expect(page.locator("#verdict")).to_have_text(re.compile("|".join(map(re.escape, manifest.classes))))


def test_the_load_test_draws_its_requests_from_it(example: Clone, tmp_path: Path) -> None:
    with running(example.root / "model") as service:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.load.run", "--host", service.url, "--users", "4"),
                *("--time", "4s", "--p95-ms", "5000", "--html", str(tmp_path / "report.html")),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report.html").stat().st_size > 0
