"""Tracking, read back from the offline records that `wandb sync` would upload."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.contract import read_bundle
from tests.training.project import ROOT, Project
from training import report, track
from training.config import TrackSettings
from training.errors import DataError
from training.track import choose_mode, read_plan

pb: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
KEY = "0123456789" * 4
BLOCK, HEADER = 32768, struct.Struct("<IHB")


@pytest.fixture(autouse=True)
def _nobody_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))


@dataclass
class Recorded:
    """What one `.wandb` file says."""

    run: Any
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    files: Path = Path()

    def table(self, key: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.files / self.summary[key]["path"]).read_text())
        return content


def chunks(content: bytes) -> Iterator[bytes]:
    """Records of the log format that wandb shares with LevelDB: blocks of 32 KiB with pieces of records."""
    position, pieces = 7, b""
    while position + HEADER.size <= len(content):
        room = BLOCK - position % BLOCK
        if room < HEADER.size:
            position += room
            continue
        _, length, kind = HEADER.unpack_from(content, position)
        position += HEADER.size
        pieces += content[position : position + length]
        position += length
        if kind in (1, 4):  # the whole record, or its last piece
            yield pieces
            pieces = b""


def read_run(folder: Path) -> Recorded:
    (path,) = folder.glob("*.wandb")
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    result = Recorded(pb.RunRecord(), files=folder / "files")
    for chunk in chunks(content):
        record = pb.Record.FromString(chunk)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            result.run = record.run
            put(result.config, record.run.config.update)
        elif kind == "config":
            put(result.config, record.config.update)
        elif kind == "summary":
            put(result.summary, record.summary.update)
        elif kind == "history":
            result.history.append(put({}, record.history.item))
            result.summary |= result.history[-1]
        elif kind == "artifact":
            result.artifacts.append(record.artifact)
    return result


def put(content: dict[str, Any], updates: Any) -> dict[str, Any]:
    for each in updates:
        *parents, last = list(each.nested_key) or [each.key]
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(each.value_json)
    return content


def read_runs(root: Path) -> dict[str, Recorded]:
    """By job type, or by algorithm for the training runs."""
    runs = {}
    for folder in root.glob("wandb/offline-run-*"):
        run = read_run(folder)
        runs[run.config["algorithm"] if run.run.job_type == "train" else run.run.job_type] = run
    return runs


@pytest.fixture(scope="module")
def offline(trained_iris: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Recorded]]:
    """The trained Iris project, tracked once without a key."""
    root = tmp_path_factory.mktemp("tracked")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "training.track"],
        cwd=trained_iris,
        env=clean | {"WANDB_DIR": str(root), "HOME": str(root), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tracked 7 runs in group iris-")
    assert "wandb sync" in line
    return root, read_runs(root)


def test_offline_there_is_one_run_for_each_algorithm_one_for_the_data_and_one_that_compares(
    offline: tuple[Path, dict[str, Recorded]], trained: Project
) -> None:
    _, runs = offline
    assert set(runs) == {*trained.params()["train"]["algorithms"], "data", "select"}
    groups = {each.run.run_group for each in runs.values()}
    assert len(groups) == 1
    assert {each.run.project for each in runs.values()} == {"espalier"}


def test_run_has_parameters_scores_intervals_and_folds(
    offline: tuple[Path, dict[str, Recorded]], trained: Project
) -> None:
    _, runs = offline
    run, expected = runs["svm"], report.read("svm")
    assert run.run.display_name == "iris svm"
    assert set(run.run.tags) >= {"iris", "svm"}
    assert run.config["parameters"] == expected.parameters
    assert run.config["data"]["source"] == "sklearn:iris"
    assert run.summary["cv/f1_macro"] == expected.cv["f1_macro"].mean
    assert run.summary["cv/f1_macro_std"] == expected.cv["f1_macro"].std
    assert run.summary["train/accuracy"] == expected.train["accuracy"].value
    assert run.summary["test/accuracy"] == expected.test["accuracy"].value
    assert run.summary["test/accuracy_low"] == expected.test["accuracy"].low
    assert run.summary["test/accuracy_high"] == expected.test["accuracy"].high
    folds = [each["fold/accuracy"] for each in run.history if "fold/accuracy" in each]
    assert folds == list(expected.cv["accuracy"].folds)


def test_run_has_confusion_matrix_curves_and_importance(
    offline: tuple[Path, dict[str, Recorded]], trained: Project
) -> None:
    _, runs = offline
    run, expected = runs["svm"], report.read("svm")
    cells = run.table("confusion_table")["data"]
    assert [count for _, _, count in cells] == [count for row in expected.confusion for count in row]
    assert run.table("roc_table")["columns"] == ["class", "fpr", "tpr"]
    assert run.table("precision_recall_table")["columns"] == ["class", "recall", "precision"]
    assert {row[0] for row in run.table("importance_table")["data"]} == set(expected.importance)
    assert {row[0] for row in run.table("per_class")["data"]} == set(expected.per_class)
    assert run.table("calibration")["data"]
    panels = run.config["_wandb"]["visualize"]
    assert panels["roc"]["panel_config"]["panelDefId"] == "wandb/area-under-curve/v0"
    assert set(panels) == {"confusion", "roc", "precision_recall", "importance"}


def test_only_the_champion_has_the_bundle_as_an_artifact(
    offline: tuple[Path, dict[str, Recorded]], trained: Project
) -> None:
    _, runs = offline
    manifest = read_bundle(trained.root / "model").manifest
    models = {key: [each for each in run.artifacts if each.type == "model"] for key, run in runs.items()}
    assert [key for key, found in models.items() if found] == [manifest.algorithm]
    (artifact,) = models[manifest.algorithm]
    metadata = json.loads(artifact.metadata)
    assert artifact.name == "iris"
    assert set(artifact.aliases) >= {"champion", manifest.version}
    assert metadata["version"] == manifest.version
    assert metadata["data_sha256"] == manifest.data.sha256
    assert {each.path for each in artifact.manifest.contents} == {"model.onnx", "model.json"}
    for each in artifact.manifest.contents:
        assert Path(each.local_path).read_bytes() == (trained.root / "model" / each.path).read_bytes()
    assert "champion" in runs[manifest.algorithm].run.tags


def test_data_run_has_the_pictures_and_the_features(offline: tuple[Path, dict[str, Recorded]]) -> None:
    _, runs = offline
    run = runs["data"]
    assert {"class_balance", "correlation", "distributions", "scatter_matrix"} <= set(run.summary)
    assert (run.files / run.summary["scatter_matrix"]["path"]).stat().st_size > 1000
    assert next(row[0] for row in run.table("features")["data"]) == "sepal_length"
    assert run.summary["rows/train"] + run.summary["rows/test"] > 100


def test_comparison_lists_all_algorithms_best_first(
    offline: tuple[Path, dict[str, Recorded]], trained: Project
) -> None:
    _, runs = offline
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())
    table = runs["select"].table("leaderboard")
    names = [row[table["columns"].index("algorithm")] for row in table["data"]]
    assert names == [each["algorithm"] for each in board["rows"]]
    assert runs["select"].summary["rule"] == board["rule"]


def test_records_say_nothing_about_the_machine_or_the_person(
    offline: tuple[Path, dict[str, Recorded]], trained_iris: Path
) -> None:
    root, runs = offline
    for run in runs.values():
        assert run.run.host == ""
    for path in root.glob("wandb/offline-run-*/*.wandb"):
        content = path.read_bytes()
        assert str(trained_iris).encode() not in content
        assert sys.executable.encode() not in content
    assert not list(root.glob("wandb/offline-run-*/files/requirements.txt"))
    assert not list(root.glob("wandb/offline-run-*/files/wandb-metadata.json"))


@pytest.mark.slow
def test_twice_is_one_run(trained: Project) -> None:
    trained.run("track")
    first = {each.run.run_id for each in read_runs(trained.root).values()}
    time.sleep(1.1)  # folders are named by the second
    trained.run("track")
    folders = list(trained.root.glob("wandb/offline-run-*"))
    assert len(folders) == 7
    assert {read_run(each).run.run_id for each in folders} == first
    assert len(list(trained.root.glob("wandb/staging/*"))) == 1


def test_ids_follow_the_inputs(trained: Project) -> None:
    before = read_plan("iris")
    assert read_plan("iris") == before
    path = trained.root / "models/svm/report.json"
    document = json.loads(path.read_text())
    document["parameters"]["C"] = 77.0
    path.write_text(json.dumps(document))
    after = read_plan("iris")
    assert after.group != before.group
    changed = {old.name for old, new in zip(before.runs, after.runs, strict=True) if old.id != new.id}
    assert changed == {"iris svm", "iris leaderboard"}
    assert {each.id for each in read_plan("another").runs}.isdisjoint(each.id for each in before.runs)


def test_mode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = {"NETRC": str(tmp_path / "netrc")}
    assert choose_mode(home) == "offline"
    assert choose_mode(home | {"WANDB_API_KEY": KEY}) == "online"
    assert choose_mode(home | {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}) == "offline"
    assert choose_mode(home | {"WANDB_MODE": "online"}) == "online"
    assert choose_mode(home | {"WANDB_MODE": "disabled"}) == "disabled"
    assert choose_mode(home | {"WANDB_DISABLED": "true"}) == "disabled"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert choose_mode(home) == "online"
    assert choose_mode(home | {"WANDB_BASE_URL": "https://wandb.example.com"}) == "offline"
    assert choose_mode(home | {"WANDB_MODE": "sometimes"}) == "online"
    assert "WANDB_MODE=sometimes is not known" in caplog.text


def test_disabled_writes_nothing(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trained.run("track")
    assert not (trained.root / "wandb").exists()


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_server_that_nobody_answers_at_is_a_warning(
    trained: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        # Bound and not listening: connections are refused, and nobody else gets the port.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        trained.run("track")
    assert "cannot reach 127.0.0.1" in warning(caplog)


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("silent_server")
def test_tracker_that_hangs_is_a_warning_and_leaves_no_process(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    trained.change(track__timeout_seconds=4)
    started = time.monotonic()
    trained.run("track")
    assert time.monotonic() - started < 15
    assert "no answer after 4 s" in warning(caplog)
    assert trackers(trained.root) == []


@pytest.mark.slow
@pytest.mark.usefixtures("silent_server")
def test_stage_that_is_stopped_takes_its_tracker_along(trained: Project) -> None:
    stage = subprocess.Popen(
        [sys.executable, "-m", "training.track"],
        cwd=trained.root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    until(lambda: any("wandb-core" in each for each in trackers(trained.root)))
    stage.send_signal(signal.SIGTERM)
    assert stage.wait(timeout=20) == 128 + signal.SIGTERM
    until(lambda: trackers(trained.root) == [])


def until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def trackers(folder: Path) -> list[str]:
    """Processes of tracking that were started in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if ("-m training.tracking" in line or "wandb-core" in line) and Path(process.cwd()) == folder:
                found.append(line)
        except psutil.Error:
            continue
    return found


def test_folder_that_cannot_be_written_is_a_warning(
    trained: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (trained.root / "file").write_text("")
    monkeypatch.setenv("WANDB_DIR", str(trained.root / "file"))
    trained.run("track")
    assert "not tracked" in warning(caplog)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise ImportError('no wandb here')", "no wandb here"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("import sys; print('noise'); sys.exit('it broke')", "it broke"),
    ],
)
def test_wandb_that_is_absent_or_crashes_is_a_warning(
    trained: Project,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    reason: str,
) -> None:
    (trained.root / "fake").mkdir()
    (trained.root / "fake" / "wandb.py").write_text(module)
    # The project's top folder comes first in the child's path; this one stands in for site-packages.
    monkeypatch.setenv("PYTHONPATH", str(trained.root / "fake"))
    trained.run("track")
    assert reason in warning(caplog)


def test_missing_models_are_an_error_that_names_the_remedy(trained: Project) -> None:
    (trained.root / "models/svm/plots/roc.csv").unlink()
    with pytest.raises(DataError, match="dvc repro train@svm"):
        trained.run("track")


def test_links_of_an_online_run_point_to_the_project() -> None:
    plan = track.Plan("iris-1", [])
    line = track._where(plan, ["https://wandb.ai/me/espalier/runs/svm-1"], "online")
    assert line == "tracked 0 runs in group iris-1: https://wandb.ai/me/espalier"
    assert TrackSettings(project="espalier").timeout_seconds == 300
