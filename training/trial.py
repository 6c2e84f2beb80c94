"""Tries a model's parameters on a random sample of its rows: every stage but the pictures, in a copy of the model's folder.

The copy is build/try, which git and DVC ignore. So dvc.lock, the model and the reports stay those of all rows. The
sample is drawn over the whole source, because the first rows of a sorted file would be of one kind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import models
from training.base import cli, config
from training.base.errors import ConfigError, DataError
from training.custom import sources as code
from training.data.dataset import ORIGIN_FILE, Origin
from training.fetch import sources
from training.fetch.stage import LIMIT_ROWS, WATCHED

FOLDER = Path("build/try")
FILES = (config.PARAMS_FILE, Path("dvc.yaml"))


def main() -> None:
    parser = cli.parser("training.trial", __doc__)
    parser.add_argument("--rows", metavar="N", default="10000", help="of the sample (10000)")
    arguments = parser.parse_args()
    document = config.read()
    folder = copy(document)
    for stage in ("settings", "fetch", "prepare"):
        _run(folder, stage, rows=arguments.rows)
    for algorithm in document.get("train", {}).get("algorithms", {}):
        _run(folder, "train", algorithm, rows=arguments.rows)
    passed = _run(folder, "select", rows=arguments.rows, check=False)
    _run(folder, "leaderboard", rows=arguments.rows)
    origin = Origin.model_validate_json((folder / ORIGIN_FILE).read_bytes())
    print(
        f"\nThis was a trial on {origin.rows:,} rows in {folder}: no result of the model has changed."
        + ("" if passed else " The gate refused it; scores on so few rows are rough.")
    )


def copy(document: Mapping[str, Any]) -> Path:
    """A new folder with what the stages read: parameters, pipeline, the model's own code, and links to its data.

    Args:
        document: the completed parameters.
    """
    top = FOLDER
    shutil.rmtree(top, ignore_errors=True)
    name = models.further(Path.cwd())
    # A further model is called as its folder, below a first one.
    folder = top / models.FOLDER / name if name else top
    folder.mkdir(parents=True)
    if name:
        (top / models.PARAMS_FILE).symlink_to(Path(models.PARAMS_FILE).resolve())
    for each in (*FILES, *map(Path, code.of_model(document).places)):
        if each.is_dir():
            shutil.copytree(each, folder / each)
        elif each.exists():
            shutil.copy(each, folder / each)
    (folder / WATCHED.parent).mkdir(exist_ok=True)
    if WATCHED.is_dir():
        (folder / WATCHED).symlink_to(WATCHED.resolve())
    data = document.get("data", {})
    named = {"source": data.get("source", "")}
    named |= {
        f"feast.{key}": data["feast"].get(key, "") for key in ("repository", "entities") if data.get("feast")
    }
    for key, text in named.items():
        _link(folder, key, str(text))
    return folder


def _link(folder: Path, key: str, text: str) -> None:
    """Let the trial's folder have a path that the section `data` names."""
    source = Path(text)
    if not sources.is_file(text) or source.is_absolute() or source.is_relative_to(WATCHED):
        return
    if ".." in source.parts:
        raise ConfigError(
            f"data.{key}: {source} leaves the model's folder, and a trial has a copy of that: write the whole path"
        )
    if not source.parts:
        return
    place = folder / source.parts[0]
    if not place.exists() and Path(source.parts[0]).exists():
        place.symlink_to(Path(source.parts[0]).resolve())


def _run(folder: Path, stage: str, *arguments: str, rows: str, check: bool = True) -> bool:
    """Run a stage; say whether it succeeded.

    Raises:
        DataError: it failed. It has said why.
    """
    environment = {**os.environ, "PYTHONPATH": str(models.ROOT), LIMIT_ROWS: rows}
    done = subprocess.run(
        [sys.executable, "-m", f"training.{stage}", *arguments], cwd=folder, env=environment, check=False
    )
    if check and done.returncode:
        raise DataError(
            f"the trial ends at {' '.join((stage, *arguments))}; with more rows it may go on: ROWS=100000"
        )
    return not done.returncode


if __name__ == "__main__":
    cli.run(main)
