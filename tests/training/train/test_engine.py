"""Folds, candidates and importance on a Dask cluster, and what a lost worker costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tools import free_port, require_package
from tests.training import own_code
from tests.training.project import ROOT, Project
from tests.training.rows import mixed
from training.base.errors import ClusterError, ConfigError
from training.data import memory
from training.data.dataset import TRAIN_FILE, Profile, Split, Taken, read_profile, read_split
from training.results import scores
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms, engine
from training.train.onnx import export

pytestmark = [pytest.mark.slow]
LONG = pytest.mark.long("tests/training/train", "training/train", "training/worker.py")


class Machines:
    """A scheduler and workers, each a process of its own, as on other machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.workers: list[subprocess.Popen[bytes]] = []
        # It needs nothing of the project.
        self._scheduler = self._start(
            "-m", "distributed.cli.dask_scheduler", "--port", self.address.rpartition(":")[2], PYTHONPATH=""
        )

    def add(self, count: int = 1, **environment: str) -> None:
        for _ in range(count):
            self.workers.append(self._start("-m", "training.worker", self.address, **environment))

    def _start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        output = (self.folder / "machines.log").open("ab")
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def stop(self) -> None:
        for each in (*self.workers, self._scheduler):
            each.terminate()
        for each in (*self.workers, self._scheduler):
            try:
                each.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(each.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    require_package("distributed")
    found = Machines(tmp_path_factory.mktemp("machines"))
    found.add(2)
    yield found
    found.stop()


@pytest.fixture
def dask(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Machines:
    monkeypatch.setenv("ESPALIER_DASK", machines.address)
    return machines


SEARCH = {"method": "random", "budget": 4, "space": {"max_depth": {"low": 1, "high": 5, "integer": True}}}


@pytest.fixture
def prepared(project: Project) -> Project:
    project.change(train__algorithms={"decision_tree": {"search": SEARCH}, "logistic_regression": {}})
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)
    return project


def outputs(root: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(root)): each.read_bytes()
        for each in sorted(root.rglob("*"))
        if each.is_file() and each.parts[len(root.parts)] in ("candidates", "metrics")
    }


@pytest.mark.parametrize("algorithm", ["decision_tree", "logistic_regression"])
def test_a_cluster_gives_the_same_bytes(algorithm: str, prepared: Project, dask: Machines) -> None:
    prepared.run("train", algorithm)
    local = outputs(prepared.root)
    shutil.rmtree(prepared.root / "candidates")
    prepared.change(train__engine="dask")
    prepared.run("train", algorithm)
    assert outputs(prepared.root) == local


def test_a_local_cluster_gives_the_same_bytes(prepared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    require_package("distributed")
    prepared.run("train", "decision_tree")
    local = outputs(prepared.root)
    monkeypatch.delenv("ESPALIER_DASK", raising=False)
    monkeypatch.setenv("ESPALIER_DASK_WORKERS", "2")
    prepared.change(train__engine="dask")
    prepared.run("train", "decision_tree")
    assert outputs(prepared.root) == local


def test_workers_run_the_models_own_code_without_its_folder(
    prepared: Project, dask: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get a copy of the folder where they do not see it."""
    from training.train import workspace

    own_code.write(prepared.root)
    with own_code.forgotten(prepared.root):
        prepared.change(
            train__algorithms={
                "trees": {"estimator": "custom.models:bagging", "features": "custom.features:products"}
            }
        )
        prepared.run("settings")
        prepared.run("train", "trees")
        local = outputs(prepared.root)
        prepared.change(train__engine="dask")
        monkeypatch.setattr(workspace, "sees", lambda *_: False)
        prepared.run("train", "trees")
        assert outputs(prepared.root) == local


def _slow(folder: Path, number: int) -> int:
    """Says which process computes what."""
    with (folder / "calls").open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    time.sleep(0.4)
    return number * number


def calls(folder: Path) -> list[list[int]]:
    file = folder / "calls"
    return [[*map(int, each.split())] for each in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def killed(folder: Path, after: int) -> Iterator[None]:
    """Kill the process that makes the call with this number, while it does."""

    def kill() -> None:
        end = time.monotonic() + 60
        while len(calls(folder)) < after and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(calls(folder)[after - 1][1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_killed_worker_costs_only_its_own_tasks(prepared: Project, dask: Machines, tmp_path: Path) -> None:
    with engine.opened("dask"), killed(tmp_path, after=5):
        assert engine.mapped(partial(_slow, tmp_path), range(12), "test", "numbers") == [
            each * each for each in range(12)
        ]
    numbers = [number for number, _ in calls(tmp_path)]
    assert {*numbers} == {*range(12)}
    assert len(numbers) <= 14  # what it computed, and what it had finished in the moment before


LOGGED = """
import os, time
from pathlib import Path
from sklearn.tree import DecisionTreeClassifier


class Logged(DecisionTreeClassifier):
    def fit(self, X, y, **options):
        with Path({folder!r}, "calls").open("a") as file:
            file.write(f"0 {{os.getpid()}}\\n")
        time.sleep(0.1)
        return super().fit(X, y, **options)


def tree():
    return Logged()
"""
CALLS = 6 + 2 + 5 * 6 + 5
"""The search, the fit and its repetition, the searches of the folds, their fits."""


@LONG
def test_workers_killed_in_a_search_and_in_a_fold_change_nothing(
    prepared: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("distributed")
    monkeypatch.delenv("ESPALIER_DASK", raising=False)
    monkeypatch.setenv("ESPALIER_DASK_WORKERS", "2")
    own_code.write(
        prepared.root, {"custom/__init__.py": "", "custom/trees.py": LOGGED.format(folder=str(tmp_path))}
    )
    search = {"method": "grid", "space": {"max_depth": [2, 3]}}
    with own_code.forgotten(prepared.root):
        prepared.change(train__algorithms={"tree": {"estimator": "custom.trees:tree", "search": search}})
        prepared.run("train", "tree")
        local = outputs(prepared.root)
        assert len(calls(tmp_path)) == CALLS
        (tmp_path / "calls").unlink()
        prepared.change(train__engine="dask")
        with killed(tmp_path, after=3), killed(tmp_path, after=CALLS - 2):
            prepared.run("train", "tree")
    assert outputs(prepared.root) == local
    # Each killed worker may take a fit with it, and one that it had just finished.
    assert CALLS < len(calls(tmp_path)) <= CALLS + 4


def test_an_error_of_a_task_is_that_of_the_caller(prepared: Project, dask: Machines) -> None:
    def refuse(number: int) -> None:
        raise ConfigError(f"{number} is wrong")

    with engine.opened("dask"), pytest.raises(ConfigError, match="is wrong"):
        engine.mapped(refuse, [1], "test", "numbers")


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """The address of a server that is no scheduler; without an answer it accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    if answer:
                        connection.sendall(answer)

        held: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        for each in held:
            each.close()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "it does not answer within 1 seconds"),
        (b"", "it does not answer within 1 seconds"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "another server answers there"),
    ],
)
def test_a_scheduler_that_is_not_there_is_one_line_after_a_bounded_wait(
    answer: bytes | None, why: str, prepared: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("distributed")
    from training.train import cluster

    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1)
    with listening(answer or b"") as other:
        address = other if answer is not None else f"tcp://127.0.0.1:{free_port()}"
        monkeypatch.setenv("ESPALIER_DASK", address)
        started = time.monotonic()
        with pytest.raises(ConfigError) as error, engine.opened("dask"):
            pass
    assert str(error.value).startswith(f"cannot use the Dask scheduler at {address}: ")
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 20


def test_without_workers_it_waits_for_some_time_only(
    prepared: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("distributed")
    from training.train import cluster

    monkeypatch.setattr(cluster, "SECONDS_FOR_WORKERS", 1)
    alone = Machines(tmp_path)
    monkeypatch.setenv("ESPALIER_DASK", alone.address)
    try:
        with (
            pytest.raises(ClusterError, match="fewer than 1 workers for 1 seconds: start more"),
            engine.opened("dask"),
        ):
            pass
    finally:
        alone.stop()


def test_other_versions_are_one_line_that_names_them(
    prepared: Project, dask: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    get_versions = Client.get_versions

    def other(client: Any, **options: Any) -> Any:
        found = get_versions(client, **options)
        for each in found["workers"].values():
            each["packages"]["numpy"] = "1.0"
        return found

    monkeypatch.setattr(Client, "get_versions", other)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    with pytest.raises(ConfigError, match="would compute other models") as error, engine.opened("dask"):
        pass
    assert f"numpy is 1.0 on 2 of 2, and {np.__version__} here" in str(error.value)
    assert "on 2 of 2, and Zen here" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_dask_there_is_a_remedy(prepared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ConfigError, match="Dask is not installed: run `uv sync --inexact --group dask`"),
        engine.opened("dask"),
    ):
        pass


def _fitted(name: str, partitions: int | None, rows: tuple[Profile, Split], **parameters: Any) -> bytes:
    profile, split = rows
    own = {"partitions": partitions} if partitions else {}
    block = AlgorithmSettings.model_validate({"n_estimators": 20, "max_depth": 3, **own, **parameters})
    pipeline = algorithms.pipeline(name, block, profile)
    return export.export(algorithms.fit(pipeline, split), profile.layout)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
class TestPartitions:
    def test_one_is_the_fit_of_one_process_and_more_repeat(
        self, name: str, prepared: Project, dask: Machines, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        require_package(name if name == "lightgbm" else "distributed")
        rows = mixed(rows=1200)
        local = _fitted(name, None, rows)
        with engine.opened("dask"):
            assert _fitted(name, 1, rows) == local
            two = _fitted(name, 2, rows)
            assert two == _fitted(name, 2, rows)
            # Rows that are kept in a file are fitted on the workers, too.
            monkeypatch.setattr(memory, "LARGE", 500)
            profile, split = rows
            in_file = split.take(np.arange(len(split)))
            assert in_file.is_large
            assert two == _fitted(name, 2, (profile, in_file))
        scoring, layout = scores.of("classification"), rows[0].layout
        labels = [scoring.answerer(each, layout)(rows[1])[0] for each in (local, two)]
        # The bounds of bins differ, so a few rows near one may.
        assert (labels[0] != labels[1]).mean() < 0.05

    def test_the_report_and_the_bundle_say_so(self, name: str, prepared: Project, dask: Machines) -> None:
        require_package(name if name == "lightgbm" else "distributed")
        # The defaults' `exact` is for one process.
        method = {"tree_method": "hist"} if name == "xgboost" else {}
        block = {"n_estimators": 20, "partitions": 2, **method}
        prepared.change(train__engine="dask", train__algorithms={name: block}, select__gate={})
        prepared.run("train", name)
        prepared.run("select")
        expected = {"engine": "dask", "partitions": 2}
        for file in (f"candidates/{name}/report.json", "model/model.json"):
            assert json.loads((prepared.root / file).read_text())["partitioned"] == expected


@LONG
def test_a_fit_on_partitions_that_loses_a_worker_starts_again(
    prepared: Project,
    machines: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("ESPALIER_DASK", raising=False)
    monkeypatch.setenv("ESPALIER_DASK_WORKERS", "2")
    rows = mixed(rows=4000)
    with engine.opened("dask"):
        whole = _fitted("xgboost", 2, rows, n_estimators=20)
        client = engine.cluster_in_use().client
        victim = [*client.run(os.getpid).values()][1]
        threading.Timer(1.5, os.kill, (victim, signal.SIGKILL)).start()
        long = _fitted("xgboost", 2, rows, n_estimators=3000)
        assert "a worker was lost in a fit on partitions (try 1 of 3)" in caplog.text
        assert len(long) > len(whole)
        assert _fitted("xgboost", 2, rows, n_estimators=20) == whole


class TestData:
    def test_rows_of_a_file_are_pickled_as_positions(self, prepared: Project) -> None:
        import pickle

        train = read_split(TRAIN_FILE, read_profile())
        some = train.take(np.array([5, 3, 8])).take(np.array([2, 0]))
        content = pickle.dumps(some)
        assert len(content) < 1000
        same(pickle.loads(content), train.take(np.array([8, 5])))
        same(pickle.loads(pickle.dumps(Taken(train, np.arange(3, 50))))(), train.take(np.arange(3, 50)))
        same(
            pickle.loads(pickle.dumps(Taken(train, np.arange(3, 50)).alone()))(), train.take(np.arange(3, 50))
        )

    def test_other_data_is_refused(self, prepared: Project) -> None:
        import pickle

        from training.base.errors import DataError

        train = read_split(TRAIN_FILE, read_profile())
        content = pickle.dumps(train)
        TRAIN_FILE.write_bytes(Path("data/test.parquet").read_bytes())
        with pytest.raises(DataError, match=r"train\.parquet is another file"):
            pickle.loads(content)

    def test_rows_that_no_file_has_are_pickled_themselves(self) -> None:
        import pickle

        _, rows = mixed()
        same(pickle.loads(pickle.dumps(rows)), rows)
        same(pickle.loads(pickle.dumps(Taken(rows, np.arange(3))))(), rows.take(np.arange(3)))


def same(found: Split, wanted: Split) -> None:
    np.testing.assert_array_equal(found.numbers, wanted.numbers)
    np.testing.assert_array_equal(found.categories, wanted.categories)
    np.testing.assert_array_equal(found.target, wanted.target)
    assert found.frame.equals(wanted.frame) or found.frame.reset_index(drop=True).equals(
        wanted.frame.reset_index(drop=True)
    )
