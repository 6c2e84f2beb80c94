"""What the stages depend on of uv.lock."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from common import pipelines
from tests.training.project import ROOT, Project
from training import packages
from training.base.errors import ConfigError

LOCK = """
[[package]]
name = "forest"
version = "1.0"
dependencies = [{ name = "tree" }, { name = "bark", marker = "sys_platform == 'win32'" }]

[[package]]
name = "tree"
version = "2.0"
dependencies = [{ name = "leaf" }, { name = "forest" }]

[[package]]
name = "leaf"
version = "3.0"

[[package]]
name = "bark"
version = "4.0"

[[package]]
name = "leaf"
version = "3.1"

[[package]]
name = "linter"
version = "5.0"
"""


def test_a_line_has_the_version_and_all_that_the_package_needs() -> None:
    *_, line = packages.render({"forest"}, LOCK).splitlines()
    assert re.fullmatch(r"forest: 1\.0 with [0-9a-f]{8}  # bark 4\.0, leaf 3\.0 or 3\.1, tree 2\.0", line)


def test_a_line_is_without_what_only_draws() -> None:
    lock = (
        LOCK
        + """
[[package]]
name = "plotly"
version = "6.0"

[[package]]
name = "catboost"
version = "7.0"
dependencies = [{ name = "leaf" }, { name = "plotly" }]
"""
    )
    *_, line = packages.render({"catboost"}, lock).splitlines()
    assert re.fullmatch(r"catboost: 7\.0 with [0-9a-f]{8}  # leaf 3\.0 or 3\.1", line)


def versions(lock: str) -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load(packages.render({"forest", "leaf"}, lock))
    return found


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('"1.0"', '"1.1"', {"forest"}),
        ('"4.0"', '"4.1"', {"forest"}),
        ('"3.1"', '"3.2"', {"forest", "leaf"}),
        ('"5.0"', '"5.1"', set()),
    ],
)
def test_a_line_changes_with_what_the_package_needs_and_with_nothing_else(
    old: str, new: str, changed: set[str]
) -> None:
    before, after = versions(LOCK), versions(LOCK.replace(old, new))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_package_that_is_not_locked_is_named() -> None:
    with pytest.raises(
        ConfigError,
        match=r"names the package 'root', which is not in uv\.lock: run `uv add --group train root`",
    ):
        packages.render({"root"}, LOCK)


def test_names_are_read_from_stages_with_and_without_items() -> None:
    one = {"params": ["data", {"${code}training/packages.yaml": ["numpy"]}]}
    two = {"foreach": [], "do": {"params": [{"${code}training/packages.yaml": ["onnx"]}]}}
    assert packages.named(yaml.safe_dump({"stages": {"one": one, "two": two, "three": {}}})) == {
        "numpy",
        "onnx",
    }


@pytest.mark.slow
def test_the_check_fails_until_the_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uv.lock", "dvc.yaml", "training/packages.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    project = Project(tmp_path, monkeypatch)
    project.run("packages", "--check")
    file = tmp_path / "training/packages.yaml"
    current = file.read_text()
    file.write_text(current.replace("numpy: ", "numpy: 1"))
    with pytest.raises(ConfigError, match="run `make packages`"):
        project.run("packages", "--check")
    project.run("packages")
    assert file.read_text() == current


@pytest.mark.slow
def test_packages_of_all_models_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models/churn"
    folder.mkdir(parents=True)
    (tmp_path / "training").mkdir()
    for name in ("uv.lock", "dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (folder / "params.yaml").write_text("name: churn\n")
    text = (ROOT / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(
        pipelines.render(text, "regression", ["custom"], ["pytest"], further=True)
    )
    Project(tmp_path, monkeypatch).run("packages")
    written = yaml.safe_load((tmp_path / "training/packages.yaml").read_text())
    assert written.keys() == {"pytest"} | yaml.safe_load((ROOT / "training/packages.yaml").read_text()).keys()
