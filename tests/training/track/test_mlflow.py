"""MLflow beside W&B: the same figures in its store, with a server and without one, and a model that it can load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run

from app.contract import Manifest, read_bundle
from app.limits import RowLimits, Sizes
from app.predictor import load
from app.schema import Rows, Schema
from common import overlays
from common.ports import free_port
from deploy import clusters
from tests.bundles import write_harvest_bundle, write_mixed_bundle, write_number_bundle, write_value_bundle
from tests.deploy.project import Clone
from tests.tools import require
from tests.training.project import ROOT, Project
from tests.training.repository import Repository
from tests.training.track.wandb_records import Recorded, read_runs
from training.track import mlflow_recorder
from training.track.mlflow_recorder import MlflowRecorder, flattened, is_number
from training.track.plan import read_plan, release_run

pytestmark = pytest.mark.slow

SERVER = ROOT / "deploy/mlflow"
LONG = pytest.mark.long("deploy/mlflow", "tests/training/track", "training/track")


def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")


def runs_of(store: MlflowClient, experiment: str = "espalier/iris") -> list[Run]:
    found = store.get_experiment_by_name(experiment)
    assert found is not None
    return list(store.search_runs([found.experiment_id]))


def by_key(store: MlflowClient, experiment: str = "espalier/iris") -> dict[str, Run]:
    """By job type, or by algorithm for the training runs, as `read_runs` has them."""
    return {
        each.data.params["algorithm"]
        if each.data.tags["job_type"] == "train"
        else each.data.tags["job_type"]: each
        for each in runs_of(store, experiment)
    }


def track(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "training.track", *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def both(trained_iris: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained Iris project with its pictures, tracked once in both trackers without a server."""
    folder = tmp_path_factory.mktemp("both") / "iris"
    shutil.copytree(trained_iris, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [each for each in os.environ if each.startswith(("WANDB_", "MLFLOW_"))]:
            monkeypatch.delenv(name)
        project = Project(folder, monkeypatch)
        project.run("explore")
        project.change(track__to=["wandb", "mlflow"])
        first, second = track(folder).splitlines()
    assert first.startswith("tracked 7 runs in group iris-")
    assert second.startswith("tracked 7 runs in group iris-")
    assert "7 of them now, offline: `make mlflow` shows them" in second
    return folder


def assert_equal_figures(run: Run, other: Recorded, store: MlflowClient, folder: Path) -> None:
    """Compare a run of MLflow with the same of W&B, in everything that the plan gives to both."""
    ids = run.data.tags
    assert ids["espalier.id"] == other.run.run_id
    assert ids["group"] == other.run.run_group
    assert run.info.run_name == other.run.display_name
    assert ids["tags"].split(", ") == list(other.run.tags)

    config = {key: value for key, value in other.config.items() if key != "_wandb"}
    expected = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in flattened(config)
        if value is not None
    }
    assert run.data.params == expected

    numbers = {
        key: value
        for key, value in other.summary.items()
        if is_number(value) and not key.startswith("_") and not key.startswith("fold/")
    }
    folds = {key for row in other.history for key in row if key.startswith("fold/")}
    assert {key: value for key, value in run.data.metrics.items() if key not in folds} == numbers
    for key in folds:
        steps = sorted(store.get_metric_history(run.info.run_id, key), key=lambda each: each.step)
        assert [each.value for each in steps] == [row[key] for row in other.history if key in row]
    for key, value in other.summary.items():
        if isinstance(value, str | bool) and not key.startswith("_"):
            assert ids[key] == (value if isinstance(value, str) else json.dumps(value))

    artifacts = Path(store.download_artifacts(run.info.run_id, "", str(folder)))
    tables = {
        key.removesuffix("_table"): other.table(key)
        for key, value in other.summary.items()
        if isinstance(value, dict) and value.get("_type") == "table-file"
    }
    ours = {each.stem: json.loads(each.read_text()) for each in artifacts.glob("tables/*.json")}
    assert set(ours) == set(tables)
    for name, table in ours.items():
        assert table["columns"] == tables[name]["columns"], name
        assert table["data"] == tables[name]["data"], name
    pictures = {
        key
        for key, value in other.summary.items()
        if isinstance(value, dict) and value.get("_type") == "image-file"
    }
    assert {each.stem for each in artifacts.glob("images/*.png")} == pictures
    for key in pictures:
        recorded = (other.files / other.summary[key]["path"]).read_bytes()
        assert (artifacts / f"images/{key}.png").read_bytes() == recorded
    charts = {each.stem for each in artifacts.glob("charts/*.png")}
    assert charts == set(other.config.get("_wandb", {}).get("visualize", {}))
    models = [each for each in other.artifacts if each.type == "model"]
    assert {each.name for each in artifacts.glob("bundle/*")} == {
        entry.path for each in models for entry in each.manifest.contents
    }
    for each in models:
        for entry in each.manifest.contents:
            assert (artifacts / "bundle" / entry.path).read_bytes() == Path(entry.local_path).read_bytes()


def test_both_trackers_have_the_same_runs_and_figures(both: Path, tmp_path: Path) -> None:
    store = client(both)
    runs, others = by_key(store), read_runs(both)
    assert set(runs) == set(others)
    assert len(runs) == 7
    for key, run in runs.items():
        assert run.info.status == "FINISHED"
        folder = tmp_path / f"artifacts of {key}"
        folder.mkdir()
        assert_equal_figures(run, others[key], store, folder)


def test_both_trackers_have_the_same_figures_of_a_regression(project: Project, tmp_path: Path) -> None:
    project.run("draft", "sklearn:diabetes", "--target", "target", "--write")
    project.change(
        train={"algorithms": {"ridge": {}, "decision_tree": {"max_depth": 3}}},
        select__gate={},
        schema__unit="points",
        track__to=["mlflow", "wandb"],
    )
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)
    for algorithm in ("ridge", "decision_tree"):
        project.run("train", algorithm)
    project.run("select")
    track(project.root)
    store = client(project.root)
    runs, others = by_key(store, "espalier/diabetes"), read_runs(project.root)
    assert set(runs) == set(others) == {"ridge", "decision_tree", "data", "select"}
    for key, run in runs.items():
        folder = tmp_path / f"artifacts of {key}"
        folder.mkdir()
        assert_equal_figures(run, others[key], store, folder)


def test_tracking_again_adds_nothing(both: Path, tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    store = client(folder)
    before = {each.info.run_id: each.data.to_dictionary() for each in runs_of(store)}
    assert "0 of them now, offline" in track(folder, "--to", "mlflow")
    (folder / "mlruns/tracked.json").unlink()
    assert "7 of them now, offline" in track(folder, "--to", "mlflow")
    assert {each.info.run_id: each.data.to_dictionary() for each in runs_of(store)} == before
    assert len(store.search_model_versions("name = 'espalier-iris'")) == 1


def copied(folder: Path, tmp_path: Path) -> Path:
    """The project with its store, which names its artifacts by absolute paths."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("wandb"))
    return copy


def test_interrupted_run_is_completed(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(both)
    plan = read_plan("iris")
    recorder = MlflowRecorder("iris", "espalier", None, 60, str(tmp_path / "mlruns"))
    (tmp_path / "mlruns").mkdir()
    (svm,) = (asdict(each) for each in plan.runs if each.name == "iris svm")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_recorder, "write_files", killed)
        with pytest.raises(KeyboardInterrupt):
            recorder.record(plan.group, [svm], "offline")
    store = client(tmp_path)
    (begun,) = runs_of(store)
    assert begun.info.status == "RUNNING"
    recorder.record("another group", [svm], "offline")
    (run,) = runs_of(store)
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    assert run.data.tags["group"] == "another group"
    for metric in run.data.metrics:
        steps = [each.step for each in store.get_metric_history(run.info.run_id, metric)]
        assert len(steps) == len(set(steps))


def test_registered_model_is_the_bundle_and_predicts_the_same(both: Path) -> None:
    bundle = read_bundle(both / "model")
    (version,) = client(both).search_model_versions("name = 'espalier-iris'")
    assert version.tags["digest"] == bundle.manifest.digest
    assert version.tags["version"] == bundle.manifest.version
    (folder,) = both.glob("mlruns/artifacts/espalier/iris/models/*/artifacts")
    for name in ("model.onnx", "model.json"):
        assert (folder / name).read_bytes() == (both / "model" / name).read_bytes()
    assert_predicts_the_same(both, f"sqlite:///{both}/mlruns/mlflow.db")


def assert_predicts_the_same(
    folder: Path, store: str, registered: str = "espalier-iris", alias: str = ""
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # MLflow sets it for other processes.
        patch.setenv("MLFLOW_TRACKING_URI", store)
        mlflow.set_tracking_uri(store)
        loaded = mlflow.pyfunc.load_model(f"models:/{registered}{f'@{alias}' if alias else '/1'}")
    example = loaded.input_example
    bundle = read_bundle(folder / "model")
    assert isinstance(example, dict)
    # The service makes the same tensors of these rows.
    schema = Schema(bundle.manifest, RowLimits(1, Sizes(1, 1, 1, {}), 2**20))
    values = [each.values for each in bundle.manifest.examples[: len(example["numbers"])]]
    _, rows = schema.parse(json.dumps({"instances": values}).encode())
    assert isinstance(rows, Rows)
    assert np.array_equal(example["numbers"], rows.numbers, equal_nan=True)
    if rows.categories is not None:
        assert np.array_equal(example["categories"], rows.categories)
    answered = loaded.predict(example)
    expected = load(bundle).run(example["numbers"], example.get("categories"))
    assert list(answered) == [each.name for each in loaded.metadata.signature.outputs.inputs]
    for ours, theirs in zip(expected, answered.values(), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "write", [write_mixed_bundle, write_value_bundle, write_harvest_bundle, write_number_bundle]
)
def test_every_kind_of_bundle_can_be_registered_and_loaded(
    tmp_path: Path, write: Callable[[Path], Manifest]
) -> None:
    manifest = write(tmp_path / "model")
    recorder = MlflowRecorder(manifest.name, "espalier", None, 60, str(tmp_path / "mlruns"))
    (tmp_path / "mlruns").mkdir()
    run = release_run(manifest.name, manifest, tmp_path / "model")
    recorder.record("releases", [asdict(run)], "offline")
    store = client(tmp_path)
    (version,) = store.search_model_versions(f"name = '{recorder.registered}'")
    assert version.tags["digest"] == manifest.digest
    assert_predicts_the_same(tmp_path, store.tracking_uri, recorder.registered)


def test_server_that_cannot_be_reached_loses_nothing(both: Path, tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    shutil.rmtree(folder / "mlruns")
    said = track(folder, "--to", "mlflow", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert "warning: not sent: cannot reach 127.0.0.1:" in said
    assert "7 of them now, offline" in said
    assert len(runs_of(client(folder))) == 7


def test_address_without_a_scheme_is_named(both: Path, tmp_path: Path) -> None:
    said = track(copied(both, tmp_path), "--to", "mlflow", MLFLOW_TRACKING_URI="localhost:5000")
    assert "not sent: MLFLOW_TRACKING_URI=localhost:5000 has no scheme: write http://localhost:5000;" in said


@LONG
def test_server_that_hangs_is_a_warning(both: Path, tmp_path: Path) -> None:
    project = Project(copied(both, tmp_path), pytest.MonkeyPatch())
    shutil.rmtree(project.root / "mlruns")
    project.change(track__timeout_seconds=4)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        said = track(project.root, "--to", "mlflow", MLFLOW_TRACKING_URI=address)
    assert "warning: not sent: no answer after 4 s (track.timeout_seconds)" in said
    project.change(track__timeout_seconds=300)
    assert "7 of them now, offline" in track(project.root, "--to", "mlflow")


@LONG
def test_store_whose_creation_was_killed_can_be_used_the_next_time(both: Path, tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    shutil.rmtree(folder / "mlruns")
    begun = subprocess.Popen(
        [sys.executable, "-m", "training.track", "--to", "mlflow"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not list(folder.glob("mlruns/mlflow.*")):
        assert time.monotonic() < end, "no database was begun"
        time.sleep(0.001)
    begun.terminate()
    begun.wait()
    assert "7 of them now, offline" in track(folder, "--to", "mlflow")


def test_absent_mlflow_is_a_warning_with_the_remedy(both: Path, tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    (tmp_path / "absent/mlflow").mkdir(parents=True)
    (tmp_path / "absent/mlflow/__init__.py").write_text("raise ImportError('no mlflow here')")
    shutil.rmtree(folder / "mlruns")
    said = track(folder, "--to", "mlflow", PYTHONPATH=f"{tmp_path / 'absent'}{os.pathsep}{ROOT}")
    assert "not tracked in mlflow: MLflow is not installed: run `uv sync --inexact --group mlflow`" in said


def test_mirror_registers_a_released_bundle_that_was_never_tracked(released: Repository) -> None:
    for path in (clusters.CLUSTERS, clusters.ENVIRONMENTS):
        shutil.copy(ROOT / path, released.root / path)
    overlay = overlays.folder("production", "iris")
    (released.root / overlay / "kustomization.yaml").write_text("kind: Kustomization\n")
    released.commit("environments")
    released.remote()
    released.forget()
    origin = released.root.parent / "origin.git"
    released.git("clone", "-q", "--bare", ".", str(origin))
    released.git("remote", "add", "origin", f"file://{origin}")
    done = Clone(released.root).release("mirror", "--base", released.git("branch", "--show-current"))
    assert done.status == 0, done.err
    assert "espalier-iris: champion is version 1" in done.out
    store = client(released.root)
    (version,) = store.search_model_versions("name = 'espalier-iris'")
    assert version.tags["digest"] == released.manifest().digest
    (run,) = runs_of(store)
    assert run.info.run_name == f"iris {released.version()}"
    assert_predicts_the_same(released.root, f"sqlite:///{released.root}/mlruns/mlflow.db", alias="champion")


def test_versions_of_client_and_server_are_the_same() -> None:
    """Both use the database of `make mlflow`."""
    locks = [tomllib.loads((folder / "uv.lock").read_text(encoding="utf-8")) for folder in (ROOT, SERVER)]
    (ours,), (theirs,) = (
        {each["version"] for each in lock["package"] if each["name"] == "mlflow-skinny"} for lock in locks
    )
    assert ours == theirs


@contextmanager
def real_server(folder: Path) -> Iterator[str]:
    """A server with its own database and artifacts, from the lock in deploy/mlflow; gives its address."""
    uv, port = require("uv"), free_port()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(uv, "run", "--locked", "--project", str(SERVER), "mlflow", "server"),
                *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "UV_PROJECT_ENVIRONMENT": str(ROOT / ".venv/mlflow"),
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 180
            while True:
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < end, "it did not start"
                try:
                    if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


@LONG
def test_what_a_server_missed_is_sent_to_it_later(both: Path, tmp_path: Path) -> None:
    """A first comparison while there is no server, a second one with it, and again by a runner without a ledger."""
    folder = copied(both, tmp_path)
    path = folder / "candidates/svm/report.json"
    document = json.loads(path.read_text())
    document["parameters"]["C"] = 77.0
    path.write_text(json.dumps(document))
    with real_server(tmp_path) as address:
        said = track(folder, "--to", "mlflow", MLFLOW_TRACKING_URI=address)
        assert f"7 of them now, at {address} espalier/iris" in said
        there = MlflowClient(address)
        # Of the first comparison, the SVM and the leaderboard differ.
        runs = runs_of(there)
        assert len(runs) == 7 + 2
        (earlier,) = (
            each
            for each in runs
            if each.data.params.get("algorithm") == "svm" and each.data.params.get("parameters.C") != "77.0"
        )
        (tmp_path / "svm").mkdir()
        assert_equal_figures(earlier, read_runs(both)["svm"], there, tmp_path / "svm")
        assert "0 of them now" in track(folder, "--to", "mlflow", MLFLOW_TRACKING_URI=address)
        (folder / "mlruns/tracked.json").unlink()
        track(folder, "--to", "mlflow", MLFLOW_TRACKING_URI=address)
        assert {each.info.run_id for each in runs_of(there)} == {each.info.run_id for each in runs}
        assert len(there.search_model_versions("name = 'espalier-iris'")) == 1
        assert_predicts_the_same(folder, address)


@given(st.lists(st.text(max_size=300), unique=True, max_size=20))
def test_every_name_becomes_one_that_mlflow_accepts(names: list[str]) -> None:
    from mlflow.utils.validation import _validate_metric_name

    made = [mlflow_recorder.valid_name(each) for each in names if each]
    for name in made:
        _validate_metric_name(name)
        assert len(name) <= 250
    assert len(set(made)) == len(made)
