"""The folder of a further model: its source, its pipeline and the parameters that no data decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from app.contract import Task
from common import files, models, pipelines
from common.pipelines import PIPELINE_FILE
from training.base import config
from training.base.errors import ConfigError
from training.draft import document
from training.fetch import sources

HEAD = """# What this model does otherwise than training/defaults.yaml. docs/configuration.md explains each key.
"""
SOURCE = Path("data/source")


@contextmanager
def created(name: str, source: str, root: Path | None = None) -> Iterator[str]:
    """Work in the folder of a new model, which appears at the end, and not at all after an error.

    Args:
        name: of the model and its folder.
        source: a file is copied into the folder, where DVC watches it.
        root: of the repository; this code's if None.

    Yields:
        The source as the model's params.yaml calls it.

    Raises:
        ConfigError: a model cannot have this name, or one has it.
    """
    root = root or models.ROOT
    _check_name(name, root)
    with files.replacing(root / models.FOLDER / name) as temporary:
        (temporary / SOURCE).mkdir(parents=True)
        # Git keeps no empty folder, and the stage fetch needs it.
        (temporary / SOURCE / ".gitkeep").touch()
        # A shell may leave the tilde of `SOURCE=~/churn.csv` to the command.
        file = Path(source).expanduser()
        if sources.is_file(source) and file.is_file():
            shutil.copy(file, temporary / SOURCE)
            source = (SOURCE / file.name).as_posix()
        pipeline = (root / PIPELINE_FILE).read_text(encoding="utf-8")
        further = pipelines.render(pipeline, pipelines.TASK, further=True)
        (temporary / PIPELINE_FILE).write_text(further, encoding="utf-8")
        (temporary / config.PARAMS_FILE).write_text(
            HEAD + document.algorithms(pipelines.TASK), encoding="utf-8"
        )
        with chdir(temporary):
            yield source


def write_plots(task: Task) -> bool:
    """Give the dvc.yaml in this folder the plots of a task; say whether it changed."""
    if not PIPELINE_FILE.is_file():
        return False
    text = PIPELINE_FILE.read_text(encoding="utf-8")
    fitting = pipelines.render(text, task)
    if fitting != text:
        files.write_text(PIPELINE_FILE, fitting)
    return fitting != text


def _check_name(name: str, root: Path) -> None:
    models.check_name(name)
    if folder := models.find(root).get(name):
        raise ConfigError(
            f"there is a model {name} in {folder}: choose another NAME, or remove that one first"
        )
