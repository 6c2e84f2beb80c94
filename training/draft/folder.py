"""The folder of a further model: its source, its pipeline and the parameters that no data decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from common import files, models
from training.base import config
from training.base.errors import ConfigError
from training.fetch import sources

HEAD = """# What this model does otherwise than training/defaults.yaml. docs/configuration.md explains each key.
"""
SOURCE = Path("data/source")
PIPELINE = Path("dvc.yaml")
DRAFTED = ("logistic_regression", "decision_tree", "random_forest", "svm", "xgboost")
"""The algorithms of a draft: of different kinds, and each of them installed."""


def algorithms() -> str:
    """The section train, with a choice of algorithms and no parameters."""
    return "\n".join(
        [
            "train:",
            "  # The algorithms to compare, each with the parameters that differ from the defaults.",
            "  algorithms:",
            *(f"    {name}:" for name in DRAFTED),
            "",
        ]
    )


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
        pipeline = (root / PIPELINE).read_text(encoding="utf-8")
        (temporary / PIPELINE).write_text(models.pipeline(pipeline), encoding="utf-8")
        (temporary / config.PARAMS_FILE).write_text(HEAD + algorithms(), encoding="utf-8")
        with chdir(temporary):
            yield source


def _check_name(name: str, root: Path) -> None:
    models.check_name(name)
    if folder := models.find(root).get(name):
        raise ConfigError(
            f"there is a model {name} in {folder}: choose another NAME, or remove that one first"
        )
