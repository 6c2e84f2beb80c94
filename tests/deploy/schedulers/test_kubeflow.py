"""kfp compiles the pipeline, it has DVC's edges, and its commands come to the bytes of `dvc repro`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.schedulers import __main__ as command
from deploy.schedulers import graph
from tests.deploy.schedulers import world
from tests.deploy.schedulers.kubeflow import Pipeline
from tests.deploy.schedulers.world import World
from tests.e2e.clone import ROOT
from tests.tools import require

SUBJECTS = (
    "deploy/schedulers",
    "deploy/training/start.py",
    *(f"deploy/ci/{name}.py" for name in ("cluster", "cluster_run", "reproduce", "retrain")),
)
IMAGE = "registry.example.com/training:1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world.make(tmp_path_factory.mktemp("world")) as each:
        yield each


def compiled(
    root: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    require("uv")
    monkeypatch.chdir(root)
    command.compile_pipeline(graph.read(), output)
    spec, platform = yaml.safe_load_all(output.read_text())
    return spec, platform


def edges(spec: Mapping[str, Any], of: str) -> dict[str, list[str]]:
    """The tasks of a model's pipeline and what each waits for."""
    tasks = spec["components"][of]["dag"]["tasks"]
    names = {key: each["taskInfo"]["name"] for key, each in tasks.items()}
    return {
        names[key]: sorted(names[each] for each in task.get("dependentTasks", ()))
        for key, task in tasks.items()
    }


@pytest.mark.long("deploy/schedulers")
def test_kfp_compiles_the_same_each_time_and_reads_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "one/pipeline.yaml"
    spec, _ = compiled(ROOT, output, monkeypatch)
    compiled(ROOT, tmp_path / "two/pipeline.yaml", monkeypatch)
    assert output.read_bytes() == (tmp_path / "two/pipeline.yaml").read_bytes()
    expected = graph.read()
    for task in spec["root"]["dag"]["tasks"].values():
        if (model := task["taskInfo"]["name"]) in expected:
            stages = expected.pop(model)
            assert edges(spec, task["componentRef"]["name"]) == {
                name: sorted(each) for name, each in stages.items()
            }
    assert expected == {}

    # kfp reads it into the messages of its schema, and writes the same.
    again = tmp_path / "again.yaml"
    script = (
        "import sys; from kfp import compiler, components; "
        "component = components.load_component_from_file(sys.argv[1]); "
        "compiler.Compiler().compile(component, sys.argv[2])"
    )
    subprocess.run(
        [
            *("uv", "run", "--quiet", "--locked", "--isolated", "--project", str(ROOT / command.KUBEFLOW)),
            *("python", "-c", script, str(output), str(again)),
        ],
        check=True,
    )
    assert list(yaml.safe_load_all(again.read_text())) == list(yaml.safe_load_all(output.read_text()))


@pytest.mark.long(*SUBJECTS)
def test_its_commands_give_the_bytes_of_dvc_repro_and_open_the_pull_request(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, platform = compiled(made.expected, tmp_path / "compiled/pipeline.yaml", monkeypatch)
    pipeline = Pipeline(
        spec, platform, tmp_path, made.environment(), {"espalier-forge": {"token": world.TOKEN}}
    )
    pipeline.run(repository=str(made.origin.folder), image=IMAGE, reason="A new table")

    order = list(pipeline.said)
    assert order[0] == "checkout"
    assert order[-2:] == ["review", "propose"]
    assert len(order) == sum(map(len, graph.read().values())) + 3
    assert "Running stage 'train@decision_tree'" in pipeline.said["iris.train@decision_tree"]
    assert "Running stage" not in pipeline.said["review"]
    assert "Running stage" not in pipeline.said["wine.select"]
    (pull,) = made.github.open_pulls()
    assert (pull["title"], pull["head"]["ref"]) == ("Retrain iris on fresh data", "retrain")
    assert "Kubeflow" in pull["body"]
    assert "> A new table" in pull["body"]
    world.check(made, made.origin.tip("retrain"))
    assert world.TOKEN not in json.dumps(pipeline.said)
    assert os.environ.get("GH_TOKEN") is None
