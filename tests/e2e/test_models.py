"""Further models: created by one command, reproduced by DVC as the first one is, and served."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.contract import read_bundle
from common import models
from common.git import git
from tests.app.processes import running
from tests.browsing import Visit
from tests.e2e.clone import ROOT, Clone, clone

pytestmark = pytest.mark.long(
    "app", "common", "dvc.yaml", "models", "pyproject.toml", "tests/e2e", "training", "uv.lock"
)

STAGES = re.compile(r"Running stage '([^']+)'")
FURTHER = ("breast-cancer", "diabetes", "digits", "penguins", "wine")
LOCKS = ("dvc.lock", *(f"models/{name}/dvc.lock" for name in FURTHER))


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with all models, computed on a machine unlike the one that wrote the committed locks."""
    result = clone(tmp_path_factory.mktemp("all") / "project")
    result.dvc(
        "repro", "--all-pipelines", PYTHONHASHSEED="2", OMP_NUM_THREADS="2", OPENBLAS_CORETYPE="Nehalem"
    )
    return result


def inside(project: Clone, name: str) -> Clone:
    return Clone(project.root / "models" / name)


def run(project: Clone, module: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="dvc.lock is written on Linux with x86-64, and other kernels round other bits",
)
def test_a_clean_clone_computes_the_committed_bytes_of_every_model(reproduced: Clone) -> None:
    for name in LOCKS:
        assert (reproduced.root / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_nothing_to_do_the_second_time(reproduced: Clone) -> None:
    again = reproduced.dvc("repro", "--all-pipelines")
    assert not STAGES.findall(again.stdout)
    assert "up to date" in reproduced.dvc("status").stdout


@pytest.mark.parametrize("name", FURTHER)
def test_every_algorithm_took_part_and_the_champion_passed(reproduced: Clone, name: str) -> None:
    model = inside(reproduced, name)
    board = json.loads((model.root / "reports/leaderboard.json").read_text())
    assert {row["algorithm"] for row in board["rows"]} == set(model.params()["train"]["algorithms"])
    manifest = read_bundle(model.root / "model").manifest
    assert manifest.name == name
    assert [each.name for each in manifest.features] == list(model.params()["schema"]["features"])


@pytest.mark.parametrize("name", FURTHER)
def test_the_service_answers_the_bundles_own_rows(reproduced: Clone, name: str) -> None:
    folder = inside(reproduced, name).root / "model"
    manifest = read_bundle(folder).manifest
    rows = [each.values for each in manifest.examples]
    with running(folder) as service:
        request = urllib.request.Request(
            f"{service.url}/predict",
            data=json.dumps({"instances": rows}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    answered = list(zip(answer["predictions"], manifest.examples, strict=True))
    if manifest.classes:
        right = sum(each["label"] == example.label for each, example in answered)
    else:
        right = sum(each["interval"][0] <= example.label <= each["interval"][1] for each, example in answered)
    assert right >= len(rows) - 2
    assert answer["model"]["version"] == manifest.version


@pytest.mark.parametrize("name", FURTHER)
def test_the_page_has_its_inputs_and_shows_an_answer(reproduced: Clone, name: str, visit: Visit) -> None:
    folder = inside(reproduced, name).root / "model"
    manifest = read_bundle(folder).manifest
    with running(folder) as service:
        page = visit(service.url)
        expect(page.locator(".field")).to_have_count(len(manifest.features))
        expect(page.locator("#bars .name")).to_have_count(len(manifest.classes))
        shown = "|".join(map(re.escape, manifest.classes)) or r"^\d+"
        expect(page.locator("#verdict")).to_have_text(re.compile(shown))


@pytest.mark.parametrize("name", FURTHER)
def test_the_load_test_draws_its_requests_from_it(reproduced: Clone, name: str, tmp_path: Path) -> None:
    with running(inside(reproduced, name).root / "model") as service:
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


def test_a_default_reruns_the_models_that_use_it(reproduced: Clone) -> None:
    """Digits has a value of its own for one of the two keys; nothing is computed here."""
    defaults = reproduced.root / "training/defaults.yaml"
    before = defaults.read_text()
    settings = {name: inside(reproduced, name).root / "reports/settings.json" for name in FURTHER}
    held = {name: file.read_text() for name, file in settings.items()}
    try:
        defaults.write_text(before.replace("parity_rows: 100000", "parity_rows: 90000"))
        for name in FURTHER:
            inside(reproduced, name).dvc("repro", "settings")
        changed = {name for name, file in settings.items() if file.read_text() != held[name]}
        assert changed == {"breast-cancer", "diabetes", "penguins", "wine"}
        dry = reproduced.dvc("repro", "--all-pipelines", "--dry").stdout
        stages = STAGES.findall(dry)
        assert not [each for each in stages if "digits" in each]
        assert "models/wine/dvc.yaml:train@svm" in stages
        assert "models/wine/dvc.yaml:fetch" not in stages
        # The first model's params.yaml has every key.
        assert [each for each in stages if "/" not in each] == ["settings"]
    finally:
        defaults.write_text(before)
        reproduced.dvc("checkout", "--force")
        for name in FURTHER:
            inside(reproduced, name).dvc("repro", "settings")


def test_one_parameter_reruns_three_stages_of_one_model(reproduced: Clone) -> None:
    wine = inside(reproduced, "wine")
    params = wine.params()
    params["train"]["algorithms"]["decision_tree"] = {"max_depth": 2}
    wine.write_params(params)
    done = reproduced.dvc("repro", "--all-pipelines")
    assert STAGES.findall(done.stdout) == [
        f"models/wine/dvc.yaml:{stage}" for stage in ("settings", "train@decision_tree", "select")
    ]
    run(reproduced, "common.models", "wine", sys.executable, "-m", "training.review", "--base", "HEAD")
    text = (wine.root / "build/review/review.md").read_text()
    assert "| `train.algorithms.decision_tree.max_depth` | `4` | `2` |" in text
    assert "nothing was released to production yet" in text


def test_dvc_works_in_a_models_folder(reproduced: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments, in place, beside and in the queue, and what compares them."""
    penguins = inside(reproduced, "penguins")
    reproduced.dvc("config", "core.analytics", "false")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@localhost")
    git("commit", "--allow-empty", "-qam", "as reproduced", cwd=reproduced.root)
    quick = ("-S", "+evaluate.parity_rows=1000", "-S", "+evaluate.bootstrap=100")
    here = penguins.dvc("exp", "run", "--name", "here", *quick)
    assert "train@svm" in here.stdout
    assert "evaluate.parity_rows" in penguins.dvc("params", "diff").stdout
    assert "f1_macro" in penguins.dvc("metrics", "diff", "--all").stdout
    penguins.dvc("plots", "diff", "--targets", "candidates/svm/plots/roc.csv")
    beside = penguins.dvc(
        "exp",
        "run",
        "--temp",
        "--name",
        "beside",
        "-S",
        "train.algorithms.decision_tree={max_depth: 3}",
    )
    assert "beside" in beside.stdout + beside.stderr
    penguins.dvc("exp", "run", "--queue", "--name", "queued", "-S", "select.gate.maximum.log_loss=0.3")
    penguins.dvc("exp", "run", "--run-all")
    shown = penguins.dvc("exp", "show", "--csv").stdout
    assert {"here", "beside", "queued"} <= set(re.split(r"[,\n]", shown))
    penguins.dvc("gc", "--workspace", "--force")
    assert "up to date" in penguins.dvc("status").stdout


def test_one_command_adds_a_model_that_answers(tmp_path: Path) -> None:
    project = clone(tmp_path / "project")
    rows = "".join(
        f"{n / 9:.2f},{'a b' if n % 2 else 'ü'},{'yes' if n % 7 > 3 else 'no'}\n" for n in range(140)
    )
    (tmp_path / "my data.csv").write_text("größe,kind,left\n" + rows, encoding="utf-8")
    before = {
        file: file.read_bytes()
        for file in project.root.rglob("*")
        if file.is_file() and ".git" not in file.parts
    }
    run(project, "training.draft", "../my data.csv", "--target", "left", "--model", "churn")
    assert all(file.read_bytes() == content for file, content in before.items())
    churn = inside(project, "churn")
    params = churn.params()
    params["evaluate"] = {"parity_rows": 2000, "bootstrap": 100}
    params["select"]["gate"] = None
    churn.write_params(params)
    reran = churn.dvc("repro")
    assert len(STAGES.findall(reran.stdout)) == 4 + len(params["train"]["algorithms"]) + 1
    assert list(models.find(project.root)) == ["iris", *sorted((*FURTHER, "churn"))]
    with running(churn.root / "model") as service:
        request = urllib.request.Request(
            f"{service.url}/predict",
            data=json.dumps({"instances": [{"größe": 3.5, "kind": "ü"}]}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["predictions"][0]["label"] in ("yes", "no")
