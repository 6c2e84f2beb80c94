"""The stages of the DAG and of DVC are the same, and names that schedulers do not take are refused."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common import models
from deploy.errors import DeployError
from deploy.schedulers import __main__ as command
from deploy.schedulers import graph
from tests.e2e.clone import ROOT, Clone, clone
from training import parallel

DAG = ROOT / command.DAG
TEXT = DAG.read_text()
NAMES = st.from_regex(r"[a-z][a-z_-]{0,40}(@[a-zA-Z0-9_.-]{1,40})?", fullmatch=True)


def stages_of(text: str) -> graph.Graph:
    """The stages in the text of a DAG."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STAGES":
            found: graph.Graph = ast.literal_eval(node.value)
            return found
    raise AssertionError("it has none")


def edges(found: graph.Graph) -> set[tuple[str, str]]:
    """As DVC names the stages."""
    first = next(iter(found))
    return {
        tuple(name if model == first else f"models/{model}/dvc.yaml:{name}" for name in (before, after))  # type: ignore[misc]
        for model, stages in found.items()
        for after, needed in stages.items()
        for before in needed
    }


def test_the_dag_has_the_edges_of_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = stages_of(DAG.read_text())
    dependencies = parallel.dependencies()
    assert edges(found) == {(before, after) for after, needed in dependencies.items() for before in needed}
    assert sum(map(len, found.values())) == len(dependencies)
    assert list(found) == list(models.find(ROOT))


def test_it_runs_at_the_time_of_the_workflow() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/retrain.yml").read_text())
    (schedule,) = workflow[True]["schedule"]  # `on`, to YAML 1.1
    assert f'CRON = "{schedule["cron"]}"' in DAG.read_text()


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=9), max_size=5))
def test_what_is_written_is_read_again(stages: dict[str, list[str]]) -> None:
    assert stages_of(command.dag(TEXT, {"first": stages})) == {"first": stages}


def test_ruff_changes_nothing_of_it() -> None:
    """Of lines that fit, that just fit, and that do not."""
    stages = {f"s{length}": ["a" * (length - 30), "b"] for length in range(80, 130)}
    written = command.dag(TEXT, {"first": {"none": [], **stages}})
    formatted = subprocess.run(
        ["ruff", "format", "--config", str(ROOT / "pyproject.toml"), "-"],
        input=written,
        capture_output=True,
        text=True,
        check=True,
        env=Clone(ROOT).environment(),
    )
    assert formatted.stdout == written


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        ({"train@a;b": frozenset()}, "the stage train@a;b cannot be a task"),
        ({"models/wine/dvc.yaml:train@$(x)": frozenset()}, "cannot be a task"),
        (
            {"a": frozenset({"models/wine/dvc.yaml:b"}), "models/wine/dvc.yaml:b": frozenset()},
            "another dvc.yaml",
        ),
    ],
)
def test_what_no_scheduler_takes_is_refused(dependencies: dict[str, frozenset[str]], message: str) -> None:
    with pytest.raises(DeployError, match=message):
        graph.split(dependencies, {"iris": "", "wine": "models/wine/dvc.yaml:"})


@pytest.mark.slow
def test_a_new_algorithm_is_written_and_a_project_without_airflow_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = clone(tmp_path / "clone")
    file = project.root / command.DAG
    monkeypatch.chdir(project.root)

    def generate(*options: str) -> None:
        monkeypatch.setattr("sys.argv", ["deploy.schedulers", "airflow", *options])
        command.main()

    params = project.params()
    params["train"]["algorithms"]["extra_trees"] = {}
    project.write_params(params)
    with pytest.raises(DeployError, match="run `make packages`"):
        generate("--check")
    assert file.read_text() == DAG.read_text()
    generate()
    assert "train@extra_trees" in stages_of(file.read_text())["iris"]["select"]
    generate("--check")
    file.write_text("dag = None\n")
    with pytest.raises(DeployError, match="has no dictionary STAGES"):
        generate()
    file.unlink()
    generate("--check")
    generate()
    assert not file.exists()
