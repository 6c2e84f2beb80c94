"""The pipeline as DVC runs it, in clean clones."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from app.contract import read_bundle
from tests.e2e.clone import ROOT, Clone, clone, kill

pytestmark = pytest.mark.slow

STAGES = re.compile(r"Running stage '([^']+)'")


TRAINED = (
    "app",
    "common",
    "data",
    "dvc.lock",
    "dvc.yaml",
    "params.yaml",
    "pyproject.toml",
    "tests/e2e",
    "training",
    "uv.lock",
)
"""What the pipeline's bytes depend on."""


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything was computed once, on a machine unlike the one that wrote the committed lock."""
    result = clone(tmp_path_factory.mktemp("first") / "project")
    result.dvc("repro", PYTHONHASHSEED="2", OMP_NUM_THREADS="2", OPENBLAS_CORETYPE="Nehalem")
    return result


def outputs(project: Clone) -> dict[str, bytes]:
    names = ("dvc.lock", "model/model.onnx", "model/model.json", "MODEL_CARD.md", "reports/leaderboard.json")
    return {name: (project.root / name).read_bytes() for name in names}


@pytest.mark.long(*TRAINED)
@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="dvc.lock is written on Linux with x86-64, and other kernels round other bits",
)
def test_a_clean_clone_computes_the_committed_bytes(reproduced: Clone) -> None:
    assert (reproduced.root / "dvc.lock").read_bytes() == (ROOT / "dvc.lock").read_bytes()


@pytest.mark.long(*TRAINED)
def test_two_clean_clones_compute_the_same_bytes(reproduced: Clone, tmp_path: Path) -> None:
    second = clone(tmp_path / "elsewhere")
    second.dvc("repro", PYTHONHASHSEED="1")
    assert outputs(second) == outputs(reproduced)


def test_the_committed_lock_is_current(tmp_path: Path) -> None:
    """Without any data: the lock names the digests of code, parameters and sources as they are committed."""
    done = clone(tmp_path / "project").dvc(
        "repro", "--all-pipelines", "--dry", "--allow-missing", check=False
    )
    assert done.returncode == 0, (
        f"dvc.lock is stale: run `dvc repro` and commit it\n{done.stdout}{done.stderr}"
    )
    assert not STAGES.findall(done.stdout)


@pytest.mark.long(*TRAINED)
def test_nothing_to_do_the_second_time(reproduced: Clone) -> None:
    before = outputs(reproduced)
    again = reproduced.dvc("repro")
    assert not STAGES.findall(again.stdout)
    assert "up to date" in again.stdout
    # `dvc status` without a target looks at the further models too, which this clone has not trained.
    assert "up to date" in reproduced.dvc("status", "dvc.yaml").stdout
    assert outputs(reproduced) == before


@pytest.mark.long(*TRAINED)
def test_one_parameter_reruns_its_algorithm_and_select_only(reproduced: Clone) -> None:
    params = reproduced.params()
    params["train"]["algorithms"]["decision_tree"]["max_depth"] = 2
    reproduced.write_params(params)
    done = reproduced.dvc("repro")
    assert STAGES.findall(done.stdout) == ["settings", "train@decision_tree", "select"]


@pytest.mark.long(*TRAINED)
def test_another_block_trains_beside_the_others(reproduced: Clone) -> None:
    """One factory function and one block; here the function is the test's."""
    factories = reproduced.root / "training" / "train" / "algorithms" / "factories.py"
    code = factories.read_text().replace(
        "def _by_name",
        "def discriminant(_: Task) -> Algorithm:\n"
        "    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis\n\n"
        "    return Algorithm(LinearDiscriminantAnalysis())\n\n\ndef _by_name",
    )
    factories.write_text(
        code.replace("_by_name(logistic_regression,", "_by_name(discriminant, logistic_regression,")
    )
    params = reproduced.params()
    params["train"]["algorithms"] = {"logistic_regression": {}, "discriminant": {"tol": 1e-5}}
    reproduced.write_params(params)
    done = reproduced.dvc("repro")
    assert "train@discriminant" in STAGES.findall(done.stdout)
    board = (reproduced.root / "reports/leaderboard.md").read_text()
    assert "discriminant" in board
    assert "xgboost" not in board
    assert not (reproduced.root / "candidates/xgboost").exists()


STOPPED = ("prepare", "train@random_forest", "select")
INT, KILL = signal.SIGINT, signal.SIGKILL


@pytest.mark.long(*TRAINED)
@pytest.mark.parametrize("numbers", [(INT, KILL, INT), (KILL, INT, KILL)])
def test_an_interrupted_run_is_taken_up_again(tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    project = clone(tmp_path / "project")
    params = project.params()
    params["evaluate"] |= {"parity_rows": 2000, "bootstrap": 100}
    params["train"]["algorithms"] = {
        name: params["train"]["algorithms"][name] for name in ("logistic_regression", "random_forest")
    }
    project.write_params(params)
    interrupted = []
    for stage, number in zip(STOPPED, numbers, strict=True):
        running = project.start("dvc", "repro", "select")
        _wait_for(running, f"Running stage '{stage}'")
        time.sleep(0.4)
        kill(running, number)
        interrupted.append(running.returncode != 0)
    # A short stage may have ended before the signal came; the forest takes seconds.
    assert interrupted[1]
    project.dvc("repro", "select")
    assert "up to date" in project.dvc("status", "select", "--with-deps").stdout
    assert read_bundle(project.root / "model").manifest.name == "iris"
    assert not list(project.root.rglob(".*.tmp"))


def _wait_for(running: subprocess.Popen[str], text: str) -> None:
    said = []
    for line in running.stdout or ():
        if text in line:
            return
        said.append(line)
    pytest.fail(f"never printed {text!r}, but:\n{''.join(said)}")
