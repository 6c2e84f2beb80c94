"""The DAG runs in Airflow itself, and comes to the bytes of `dvc repro` and to the pull request of `retrain`."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.schedulers import __main__ as command
from deploy.schedulers import graph
from tests.deploy.schedulers import world
from tests.deploy.schedulers.airflow import install
from tests.deploy.schedulers.world import World
from tests.e2e.clone import ROOT

SMALL = {
    "iris": {"settings": [], "train@svm": ["settings"], "select": ["train@svm"]},
    "wine": {"settings": [], "explore": ["settings"], "select": ["settings"]},
}
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


@pytest.mark.long("deploy/schedulers")
def test_airflow_reads_the_dag_and_sees_the_edges_of_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ROOT / command.DAG.parent
    airflow = install(tmp_path / "airflow", folder)
    # Without --local it would ask the database, which knows no DAG.
    assert "No data found" in airflow.run("dags", "list-import-errors", "--local").stdout
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/broken_dag.py").write_text("from airflow.sdk import no_dag")
    broken = airflow.run(
        *("dags", "list-import-errors", "--local", "--output", "json"),
        check=False,
        AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "broken"),
    )
    assert "cannot import name" in broken.stdout

    script = (
        f"import json, sys; sys.path.insert(0, {str(folder)!r}); from espalier_dag import dag; "
        "print(json.dumps({each.task_id: sorted(each.upstream_task_ids) for each in dag.tasks}))"
    )
    upstream = json.loads(airflow.python(script).splitlines()[-1])
    monkeypatch.chdir(ROOT)
    for model, stages in graph.read().items():
        for stage, needed in stages.items():
            names = [f"{model}.{each}".replace("@", "-") for each in (stage, *needed)]
            assert upstream.pop(names[0]) == (sorted(names[1:]) or ["checkout"])
    assert upstream.keys() == {"checkout", "review", "track", "propose", "verdict"}


@pytest.mark.long("deploy/schedulers")
def test_a_model_that_fails_or_is_not_wanted_leaves_the_others_alone(tmp_path: Path) -> None:
    dags, clone = tmp_path / "dags", tmp_path / "clone"
    dags.mkdir()
    clone.mkdir()
    text = command.dag((ROOT / command.DAG).read_text(), SMALL)
    # Three tries with their pauses say no more than one.
    (dags / "small_dag.py").write_text(text.replace('"retries": 2', '"retries": 0'))
    airflow = install(
        tmp_path / "airflow",
        dags,
        AIRFLOW_VAR_ESPALIER_REPOSITORY="unused",
        AIRFLOW_VAR_ESPALIER_CLONE=str(clone),
        AIRFLOW_VAR_ESPALIER_RUN="false",
    )

    def run(day: str, real: str, model: str) -> dict[str, str]:
        """Run one task, with a command that fails, and call the others successful; gives the state of each task."""
        others = f"(?!{re.escape(real)}$).*"
        conf = json.dumps({"model": model})
        options = ("--conf", conf, "--mark-success-pattern", others)
        airflow.run("dags", "test", "espalier_retrain", f"2026-01-0{day}", *options, check=False)
        with sqlite3.connect(tmp_path / "airflow/airflow.db") as database:
            query = (
                "select task_id, task_instance.state from task_instance join dag_run using (run_id) "
                "where date(logical_date) = ?"
            )
            return dict(database.execute(query, (f"2026-01-0{day}",)))

    assert run("1", "wine.settings", "all") == {
        **dict.fromkeys(("checkout", "iris.settings", "iris.train-svm", "iris.select"), "success"),
        "wine.settings": "failed",
        **dict.fromkeys(("wine.explore", "wine.select"), "upstream_failed"),
        **dict.fromkeys(("review", "propose", "track"), "success"),
        "verdict": "upstream_failed",
    }
    assert set(run("2", "wine.settings", "iris").values()) == {"success"}
