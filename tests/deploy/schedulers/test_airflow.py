"""The DAG runs in Airflow itself, and comes to the bytes of `dvc repro` and to the pull request of `retrain`."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.schedulers import world
from tests.deploy.schedulers.airflow import install
from tests.deploy.schedulers.world import World

SUBJECTS = ("deploy/schedulers", "deploy/ci/retrain.py", "deploy/ci/reproduce.py", "training/parallel.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world.make(tmp_path_factory.mktemp("world")) as each:
        yield each


@pytest.mark.long(*SUBJECTS)
def test_a_run_gives_the_bytes_of_dvc_repro_and_opens_the_pull_request(made: World, tmp_path: Path) -> None:
    clone, origin = tmp_path / "work/clone", made.origin
    clone.parent.mkdir()
    prefix = tmp_path / "prefix"
    prefix.write_text('echo "in the container: $*"; exec "$@"\n')
    airflow = install(
        tmp_path / "airflow",
        made.expected / "deploy/schedulers/airflow",
        **made.environment(),
        AIRFLOW_VAR_ESPALIER_REPOSITORY=str(origin.folder),
        AIRFLOW_VAR_ESPALIER_CLONE=str(clone),
        AIRFLOW_VAR_ESPALIER_VENV=sys.prefix,
        # In place of a container.
        AIRFLOW_VAR_ESPALIER_RUN=f"sh {prefix}",
        AIRFLOW_CONN_ESPALIER_FORGE=json.dumps({"conn_type": "generic", "password": world.TOKEN}),
    )
    assert "No data found" in airflow.run("dags", "list-import-errors").stdout
    airflow.run("pools", "set", "espalier", "2", "Stages at a time")
    said = airflow.run("dags", "test", "espalier_retrain").stdout

    with sqlite3.connect(tmp_path / "airflow/airflow.db") as database:
        states = dict(database.execute("select task_id, state from task_instance"))
    assert set(states.values()) == {"success"}, (states, said[-5000:])
    assert {"checkout", "iris.train-decision_tree", "wine.select", "review", "propose", "verdict"} <= set(
        states
    )
    # The stages ran in their tasks, and nothing was left to the review. Wine is as in the remote.
    assert "Running stage 'train@decision_tree'" in said
    assert "Running stage 'models/wine/dvc.yaml:train" not in said
    assert (
        "in the container: dvc --wait-for-lock repro --single-item --force models/wine/dvc.yaml:fetch" in said
    )
    assert world.TOKEN not in said

    (pull,) = made.github.open_pulls()
    assert (pull["title"], pull["head"]["ref"]) == ("Retrain iris on fresh data", "retrain")
    assert "started by hand" in pull["body"]
    world.check(made, origin.tip("retrain"))
    mine, theirs = world.contents(clone), world.contents(made.expected)
    assert [path for path in theirs if mine.get(path) != theirs[path]] == []
