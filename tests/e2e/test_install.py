"""What is installed, and who may import whom."""

from __future__ import annotations

import ast
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clone import ROOT
from tests.tools import require

MEGABYTE = 1_000_000
SERVICE_LIMIT = 200 * MEGABYTE


def imported(folder: str) -> dict[str, set[str]]:
    """Top-level packages that each file of a folder imports, wherever in the file."""
    result = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {each.name.split(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
        result[str(path.relative_to(ROOT))] = names
    return result


def test_the_service_imports_no_training() -> None:
    forbidden = {
        "training",
        "tests",
        "sklearn",
        "pandas",
        "dvc",
        "wandb",
        "xgboost",
        "onnx",
        "matplotlib",
        "yaml",
    }
    found = {path: names & forbidden for path, names in imported("app").items() if names & forbidden}
    assert imported("app")
    assert found == {}


def test_training_imports_four_modules_of_the_service() -> None:
    for path in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "app":
                assert node.module in ("app.cells", "app.contract", "app.moments", "app.predictor"), path


def locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return packages


def test_no_accelerator_libraries_in_the_lock() -> None:
    names = {each["name"] for each in locked()}
    assert "xgboost-cpu" in names
    assert not {each for each in names if each.startswith(("nvidia", "cuda"))}


def test_every_python_trains_with_the_same_libraries() -> None:
    names = [each["name"] for each in locked()]
    for name in (
        "numpy",
        "scipy",
        "scikit-learn",
        "xgboost-cpu",
        "skl2onnx",
        "onnx",
        "onnxruntime",
        "pandas",
    ):
        assert names.count(name) == 1, f"{name} is locked in two versions"


@pytest.mark.slow
def test_the_service_alone_is_small_and_runs(tmp_path: Path) -> None:
    uv = require("uv")
    subprocess.run(
        [uv, "sync", "--locked", "--no-default-groups", "--quiet", "--project", str(ROOT)],
        cwd=tmp_path,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "environment"), "UV_LINK_MODE": "copy"},
        check=True,
    )
    files = [
        each for each in (tmp_path / "environment").rglob("*") if each.is_file() and not each.is_symlink()
    ]
    assert sum(each.stat().st_size for each in files) <= SERVICE_LIMIT
    done = subprocess.run(
        [str(tmp_path / "environment" / "bin" / "python"), "-m", "app", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ESPALIER_MODEL_DIR" in done.stdout
