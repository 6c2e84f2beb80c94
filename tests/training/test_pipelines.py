"""Which dvc.yaml each model has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common import pipelines
from tests.training import own_code
from tests.training.project import ROOT, Project
from training.base.errors import ConfigError

PARAMS = "name: {}\nschema:\n  target: y\n{}"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A classification at the top, and a further model of each task; all have the dvc.yaml of a classification."""
    tasks = {"": "", "models/old": "  task: classification\n", "models/new": "  task: regression\n"}
    for folder, task in tasks.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "dvc.yaml", tmp_path / folder)
        (tmp_path / folder / "params.yaml").write_text(PARAMS.format(Path(folder).name or "top", task))
    return Project(tmp_path, monkeypatch)


def listed(project: Project) -> dict[str, str | None]:
    return {
        str(each.parent.relative_to(project.root)): pipelines.task_of(each.read_text())
        for each in sorted(project.root.rglob("dvc.yaml"))
    }


def test_each_model_gets_the_plots_of_its_task(repository: Project) -> None:
    with pytest.raises(ConfigError, match=r"not current: models/new/dvc\.yaml, models/old/dvc\.yaml"):
        repository.run("pipelines", "--check")
    repository.run("pipelines")
    assert listed(repository) == {
        ".": "classification",
        "models/new": "regression",
        "models/old": "classification",
    }
    repository.run("pipelines", "--check")


def test_each_model_lists_the_code_that_it_has(repository: Project) -> None:
    repository.run("pipelines")
    before = {each: each.read_text() for each in repository.root.rglob("dvc.yaml")}
    for folder, name in (("", "first"), ("models/new", "second")):
        own_code.write(repository.root / folder, {f"{name}.py": "import yaml\n"})
        with (repository.root / folder / "params.yaml").open("a") as file:
            file.write(f"train:\n  algorithms:\n    net: {{estimator: '{name}:make'}}\n")
    with pytest.raises(ConfigError, match=r"not current: dvc\.yaml, models/new/dvc\.yaml, which follow"):
        repository.run("pipelines", "--check")
    repository.run("pipelines")
    added = {
        str(file.parent.relative_to(repository.root)): [
            line.strip() for line in file.read_text().splitlines() if line not in text.splitlines()
        ]
        for file, text in before.items()
    }
    packages = "[pydantic, ruamel-yaml, tzdata, pyyaml]"
    assert added == {".": ["- first.py", packages], "models/new": ["- second.py", packages], "models/old": []}


def test_the_first_model_may_change_its_task(repository: Project) -> None:
    repository.run("pipelines")
    before = (repository.root / "dvc.yaml").read_text()
    params = repository.root / "params.yaml"
    classification = params.read_text()
    params.write_text(classification + "  task: regression\n")
    with pytest.raises(ConfigError, match=r"not current: dvc\.yaml, which"):
        repository.run("pipelines", "--check")
    repository.run("pipelines")
    assert listed(repository)["."] == "regression"
    assert listed(repository)["models/old"] == "classification"
    params.write_text(classification)
    repository.run("pipelines")
    assert (repository.root / "dvc.yaml").read_text() == before
