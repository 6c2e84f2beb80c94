"""dvc.yaml against the modules that it runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

import grimp
import pytest
import yaml
from packaging.utils import canonicalize_name

from tests.training.project import ROOT
from training.base import config
from training.base.section import Settings

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text().replace("${code}", ""))[
    "stages"
]

OURS = {"app", "common", "training"}
CARRIERS = {"cloudpickle", "dask", "distributed", "feast", "pyspark"}
"""Optional modules that carry work or rows to and from other processes and change no result."""


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "app",
        "common",
        "training",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


@cache
def distributions() -> dict[str, set[str]]:
    """The packages that bring a module to import."""
    found = {
        name: {str(canonicalize_name(each)) for each in packages}
        for name, packages in packages_distributions().items()
    }
    # The optional packages may be missing.
    return {"catboost": {"catboost"}, "lightgbm": {"lightgbm"}, **found, "ruamel": {"ruamel-yaml"}}


def algorithms() -> list[str]:
    return list(yaml.safe_load((ROOT / "params.yaml").read_text())["train"]["algorithms"])


def modules(stage: str) -> set[str]:
    """Our modules that the stage imports, with the packages that they are in."""
    start = f"training.{stage}.__main__"
    found = {each for each in graph().find_upstream_modules(start) | {start} if each.split(".")[0] in OURS}
    parents = {each.rsplit(".", depth)[0] for each in found for depth in range(1, each.count(".") + 1)}
    return found | parents


def place(module: str) -> str:
    """What dvc.yaml calls a module: a folder of training/, or a file of app/, common/ and training/sections/."""
    path = module.replace(".", "/")
    if path.startswith("training/") and not path.startswith("training/sections"):
        return "/".join(path.split("/")[:2])
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def definition(stage: str) -> dict[str, Any]:
    whole = STAGES[stage]
    repeated: dict[str, Any] = whole.get("do", whole)
    return repeated


def params(stage: str) -> dict[str, list[str]]:
    """The parameters that a stage depends on, by file."""
    return {file: keys for each in definition(stage)["params"] for file, keys in each.items()}


def settings_class(stage: str) -> type[Settings] | None:
    """The settings class that the stage's module defines, if it reads parameters at all."""
    module = importlib.import_module(f"training.{stage}.stage")
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Settings) and each.__module__ == module.__name__
    ]
    assert len(own) <= 1
    return own[0] if own else None


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_parameters_it_reads(stage: str) -> None:
    kind = settings_class(stage)
    read = set(config.sections(kind)) if kind else set()
    listed = {each.split(".")[0] for each in params(stage).get("reports/settings.json", ())}
    # The stage `settings` reads all of params.yaml, and the others read what it writes.
    assert read == listed or stage == "settings"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_imports_and_on_no_other(stage: str) -> None:
    code = {each for each in definition(stage)["deps"] if each.startswith(("app/", "common/", "training/"))}
    listed = code - {"training/defaults.yaml"}
    if stage == "settings":
        listed = listed - {"training/sections"} | {
            str(each.relative_to(ROOT)) for each in ROOT.glob("training/sections/*.py")
        }
    assert listed == set(map(place, modules(stage)))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_packages_it_imports_and_on_no_other(stage: str) -> None:
    imported = {each.split(".")[0] for each in graph().find_upstream_modules(f"training.{stage}.__main__")}
    # Pandas is asked by name for what reads and writes Parquet.
    imported |= {"pyarrow"} if "pandas" in imported else set()
    packages = {
        name
        for each in imported - OURS - CARRIERS - sys.stdlib_module_names
        for name in distributions()[each]
    }
    listed = params(stage)["training/packages.yaml"]
    assert set(listed) - {"xgboost", "xgboost-cpu"} == packages - {"xgboost", "xgboost-cpu"}
    assert {"xgboost", "xgboost-cpu"} <= set(listed) or "xgboost" not in imported


def test_a_changed_module_runs_few_stages_again() -> None:
    """Averaged over all modules of training/; an algorithm's stage counts each time."""
    times = {stage: len(algorithms()) if "foreach" in STAGES[stage] else 1 for stage in STAGES}
    files = [each for each in sorted((ROOT / "training").rglob("*.py")) if each.read_text().strip()]
    assert len(files) > 40
    runs = [
        sum(
            times[stage]
            for stage in STAGES
            if any(each.is_relative_to(ROOT / dependency) for dependency in definition(stage)["deps"])
        )
        for each in files
    ]
    assert sum(runs) / len(files) <= 3.5


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_outlive_a_run_that_fails(stage: str) -> None:
    for kind in ("outs", "metrics", "plots"):
        for each in definition(stage).get(kind, []):
            ((_, options),) = each.items()
            assert options["persist"] is True


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES, "track", "leaderboard", "draft", "packages", "storage"])
def test_every_module_runs_alone_and_explains_itself(stage: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"training.{stage}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"usage: python -m training.{stage}" in done.stdout
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES, "track"])
def test_a_stage_that_cannot_work_says_so_in_one_line(stage: str, tmp_path: Any) -> None:
    arguments = ["svm"] if stage == "train" else []
    done = subprocess.run(
        [sys.executable, "-m", f"training.{stage}", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
