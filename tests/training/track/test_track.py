"""Tracking, read back from the offline records that `wandb sync` would upload."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.contract import read_bundle
from tests.training.project import ROOT, Project
from tests.training.track.wandb_records import Recorded, read_runs
from training.base.errors import DataError
from training.results import report
from training.track.plan import read_plan
from training.track.wandb_recorder import WandbRecorder

pytestmark = pytest.mark.slow

KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def _nobody_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))


@pytest.fixture(scope="module")
def offline(trained_iris: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Recorded]]:
    """The trained Iris project with its pictures, tracked once without a key."""
    folder = tmp_path_factory.mktemp("pictured") / "iris"
    shutil.copytree(trained_iris, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        Project(folder, monkeypatch).run("explore")
    return tracked(folder, tmp_path_factory.mktemp("tracked"), "tracked 7 runs in group iris-")


def tracked(folder: Path, root: Path, said: str) -> tuple[Path, dict[str, Recorded]]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "training.track"],
        cwd=folder,
        env=clean | {"WANDB_DIR": str(root), "HOME": str(root), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert f"{said.split()[1]} of them now, offline: `wandb leet " in line
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
    assert run.summary["count/classes"] == 3
    assert [row[0] for row in run.table("class_shares")["data"]] == ["setosa", "versicolor", "virginica"]


def test_runs_of_a_regression_have_values_and_an_interval_and_no_classes(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.run("draft", "sklearn:diabetes", "--target", "target", "--write")
    project.change(
        train={"algorithms": {"ridge": {}, "decision_tree": {"max_depth": 3}}},
        select__gate={},
        schema__unit="points",
    )
    for stage in ("settings", "fetch", "prepare", "explore"):
        project.run(stage)
    for algorithm in ("ridge", "decision_tree"):
        project.run("train", algorithm)
    project.run("select")
    _, runs = tracked(project.root, tmp_path_factory.mktemp("values"), "tracked 4 runs in group diabetes-")

    run, expected = runs["ridge"], report.read("ridge")
    assert run.summary["cv/r2"] == expected.cv["r2"].mean
    assert run.summary["test/rmse_low"] == expected.test["rmse"].low
    assert expected.interval is not None
    assert run.summary["interval/level"] == 0.9
    assert run.summary["interval/margin"] == expected.interval.margin
    assert run.summary["interval/coverage"] == expected.interval.coverage.value
    assert run.summary["interval/coverage_low"] == expected.interval.coverage.low
    assert run.summary["parity/largest_difference"] == expected.parity.largest_difference
    assert set(run.config["_wandb"]["visualize"]) == {"predicted", "residuals", "importance"}
    assert run.table("predicted_table")["columns"] == ["predicted", "actual"]
    first = run.table("residuals_table")["data"][0]
    assert run.table("predicted_table")["data"][0][1] == pytest.approx(sum(first))
    assert not {"per_class", "calibration"} & set(run.summary)

    data = runs["data"]
    assert {"target", "against_target", "scatter_matrix", "correlation"} <= set(data.summary)
    assert not {"count/classes", "class_shares"} & set(data.summary)
    shares = data.table("target_shares")
    assert shares["columns"] == ["target", "share"]
    assert sum(share for _, share in shares["data"]) == pytest.approx(1)
    assert "test/rmse" in runs["select"].table("leaderboard")["columns"]


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


def test_records_can_be_looked_at_without_an_account(offline: tuple[Path, dict[str, Recorded]]) -> None:
    """The command that the message gives, in the form that needs no terminal."""
    root, runs = offline
    (folder,) = root.glob(f"wandb/offline-run-*-{runs['svm'].run.run_id}")
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "iris svm" in shown.stdout
    assert "test/f1_macro" in shown.stdout


def test_ids_follow_the_inputs(trained: Project) -> None:
    before = read_plan("iris")
    assert read_plan("iris") == before
    change_svm(trained)
    after = read_plan("iris")
    assert after.group != before.group
    changed = {old.name for old, new in zip(before.runs, after.runs, strict=True) if old.id != new.id}
    assert changed == {"iris svm", "iris leaderboard"}
    assert {each.id for each in read_plan("another").runs}.isdisjoint(each.id for each in before.runs)


def test_mode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = {"NETRC": str(tmp_path / "netrc")}
    choose_mode = WandbRecorder("iris", "espalier", None, 300, "wandb").mode
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


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("silent_server")
def test_tracker_that_hangs_is_a_warning_and_leaves_no_process(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    trained.change(track__timeout_seconds=4)
    started = time.monotonic()
    trained.run("track")
    assert time.monotonic() - started < 60
    assert "no answer after 4 s" in caplog.records[0].getMessage()
    assert trackers(trained.root) == []


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
            if ("-m training.track.child" in line or "wandb-core" in line) and Path(process.cwd()) == folder:
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
    (trained.root / "candidates/svm/plots/roc.csv").unlink()
    with pytest.raises(DataError, match="dvc repro train@svm"):
        trained.run("track")


# What is recorded where. wandb is a stand-in that writes down what it is asked for.


WANDB = """
import json, os, time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

Settings = SimpleNamespace
Image = plot_table = Table = lambda *_, **__: None
Artifact = lambda *_, **__: SimpleNamespace(add_file=lambda path: None)

def note(*what):
    with open(os.environ["STAND_IN_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps(what) + "\\n")

@contextmanager
def init(*, id, group, settings, **_):
    note(settings.mode, id, group)
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
    kind = "offline-run" if settings.mode == "offline" else "run"
    record = Path(settings.root_dir) / "wandb" / f"{kind}-{time.time_ns()}-{id}"
    (record / "files").mkdir(parents=True, exist_ok=True)
    yield SimpleNamespace(
        dir=str(record / "files"), url="", summary={}, log=lambda *_, **__: None, log_artifact=lambda *_, **__: None
    )
"""
SYNC = """
import os, sys, wandb
from pathlib import Path

wandb.note("sync", Path(sys.argv[2]).name.split("-", 3)[-1])
print("what a server said")
sys.exit(int(os.environ.get("STAND_IN_SYNC", "0")))
"""
Note = list[str]


@dataclass
class StandIn:
    log: Path
    monkeypatch: pytest.MonkeyPatch

    def notes(self) -> list[Note]:
        """What it was asked for since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def log_in(self, url: str) -> None:
        self.monkeypatch.setenv("WANDB_API_KEY", KEY)
        self.monkeypatch.setenv("WANDB_BASE_URL", url)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    package = tmp_path / "stand-in" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(WANDB)
    (package / "__main__.py").write_text(SYNC)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "stand-in.log"))
    return StandIn(tmp_path / "stand-in.log", monkeypatch)


@pytest.fixture
def server() -> Iterator[str]:
    """An address that takes connections, which is all that is looked at before wandb itself is started."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def ids(notes: list[Note], kind: str) -> set[str]:
    return {each[1] for each in notes if each[0] == kind}


def change_svm(trained: Project) -> None:
    path = trained.root / "candidates/svm/report.json"
    document = json.loads(path.read_text())
    document["parameters"]["C"] = 77.0
    path.write_text(json.dumps(document))


def records(trained: Project) -> set[str]:
    return {each.name.split("-", 3)[-1] for each in trained.root.glob("wandb/offline-run-*")}


def test_offline_a_second_call_records_nothing_and_a_lost_record_is_made_again(
    trained: Project, stand_in: StandIn
) -> None:
    runs = {each.id for each in read_plan("iris").runs}
    trained.run("track")
    assert ids(stand_in.notes(), "offline") == runs == records(trained)
    trained.run("track")
    assert stand_in.notes() == []
    (lost,) = trained.root.glob("wandb/offline-run-*-svm-*")
    shutil.rmtree(lost)
    trained.run("track")
    assert ids(stand_in.notes(), "offline") == {each for each in runs if each.startswith("svm-")}


def test_what_was_recorded_offline_or_missed_is_sent_as_soon_as_there_is_a_key(
    trained: Project, stand_in: StandIn, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = {each.id for each in read_plan("iris").runs}
    trained.run("track")
    change_svm(trained)
    trained.run("track")
    second = {each.id for each in read_plan("iris").runs}
    assert records(trained) == first | second
    stand_in.notes()
    elsewhere = trained.root / "wandb/offline-run-20200101_000000-another-projects"
    elsewhere.mkdir()

    stand_in.log_in(server)
    monkeypatch = stand_in.monkeypatch
    monkeypatch.setenv("STAND_IN_SYNC", "1")
    trained.run("track")
    notes = stand_in.notes()
    assert ids(notes, "online") == second
    assert ids(notes, "sync") == first - second
    assert "what a server said" in warning(caplog)
    assert records(trained) == (first - second) | {"another-projects"}

    monkeypatch.setenv("STAND_IN_SYNC", "0")
    trained.run("track")
    assert stand_in.notes() == [["sync", each] for each in sorted(first - second)]
    assert records(trained) == {"another-projects"}
    trained.run("track")
    assert stand_in.notes() == []


def test_runs_of_one_comparison_are_in_one_group(trained: Project, stand_in: StandIn, server: str) -> None:
    """Those that did not change, too: they move on to the new comparison's."""
    stand_in.log_in(server)
    trained.run("track")
    stand_in.notes()
    change_svm(trained)
    trained.run("track")
    plan = read_plan("iris")
    notes = stand_in.notes()
    assert {(id, group) for _, id, group in notes} == {(each.id, plan.group) for each in plan.runs}


def test_each_server_gets_the_runs(trained: Project, stand_in: StandIn, server: str) -> None:
    stand_in.log_in(server)
    trained.run("track")
    assert len(ids(stand_in.notes(), "online")) == 7
    trained.change(track__project="another")
    trained.run("track")
    assert len(ids(stand_in.notes(), "online")) == 7
    # With its record of what was sent, wherever it is asked for.
    stand_in.monkeypatch.setenv("WANDB_MODE", "offline")
    trained.run("track")
    assert stand_in.notes() == []


def tracker(trained: Project) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "training.track"],
        cwd=trained.root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])},
    )


def test_two_at_once_record_each_run_once(trained: Project, stand_in: StandIn) -> None:
    stand_in.monkeypatch.setenv("STAND_IN_SECONDS", "0.3")
    both = [tracker(trained), tracker(trained)]
    assert [each.wait() for each in both] == [0, 0]
    notes = stand_in.notes()
    assert len(notes) == len(ids(notes, "offline")) == len(read_plan("iris").runs)


def test_after_a_kill_the_next_call_waits_for_what_still_runs(trained: Project, stand_in: StandIn) -> None:
    stand_in.monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    killed = tracker(trained)
    until(stand_in.log.exists)
    killed.kill()
    killed.wait()
    assert tracker(trained).wait() == 0
    runs = [each.id for each in read_plan("iris").runs]
    # In turn, and not mixed with what the killed one started; nothing is written down of that.
    assert [id for _, id, _ in stand_in.notes()] == [*runs, *runs]
    assert len(list(trained.root.glob("wandb/offline-run-*"))) == len(runs)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"offline": []}', '{"offline": 1}', "\x00", "[" * 100_000],
    ids=lambda text: text[:20],
)
def test_a_damaged_ledger_means_that_everything_is_recorded_again(
    trained: Project, stand_in: StandIn, content: str
) -> None:
    (trained.root / "wandb").mkdir()
    (trained.root / "wandb/tracked.json").write_text(content)
    trained.run("track")
    assert len(ids(stand_in.notes(), "offline")) == 7
    trained.run("track")
    assert stand_in.notes() == []


def test_a_server_that_nobody_answers_at_is_a_warning_and_the_runs_are_kept(
    trained: Project, stand_in: StandIn, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        # Bound and not listening: connections are refused, and nobody else gets the port.
        taken.bind(("127.0.0.1", 0))
        stand_in.log_in(f"http://127.0.0.1:{taken.getsockname()[1]}")
        trained.run("track")
    assert "cannot reach 127.0.0.1" in warning(caplog)
    assert len(ids(stand_in.notes(), "offline")) == 7
    stand_in.log_in(server)
    trained.run("track")
    assert len(ids(stand_in.notes(), "online")) == 7
    assert records(trained) == set()


def test_after_it_was_disabled_it_is_recorded(trained: Project, stand_in: StandIn) -> None:
    stand_in.monkeypatch.setenv("WANDB_MODE", "disabled")
    trained.run("track")
    assert not (trained.root / "wandb").exists()
    assert stand_in.notes() == []
    stand_in.monkeypatch.delenv("WANDB_MODE")
    trained.run("track")
    assert len(ids(stand_in.notes(), "offline")) == 7
