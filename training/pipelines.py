"""Write the dvc.yaml of every model: further models get the repository's, and each the plots of its task and its own code."""

from __future__ import annotations

from pathlib import Path

from common import files, models, pipelines
from common.pipelines import PIPELINE_FILE
from training.base import cli, config
from training.base.errors import ConfigError
from training.custom import sources


def main() -> None:
    parser = cli.parser("training.pipelines", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    arguments = parser.parse_args()
    text = PIPELINE_FILE.read_text(encoding="utf-8")
    contents = {folder / PIPELINE_FILE: _fitting(text, folder) for folder in models.find(Path()).values()}
    old = {
        file: content
        for file, content in contents.items()
        if not file.is_file() or file.read_text(encoding="utf-8") != content
    }
    if not arguments.check:
        for file, content in old.items():
            files.write_text(file, content)
    elif old:
        raise ConfigError(
            f"not current: {', '.join(map(str, old))}, which follow from {PIPELINE_FILE}, the task of each model and its own "
            f"code: change {PIPELINE_FILE} and run `make packages`"
        )


def _fitting(text: str, folder: Path) -> str:
    """The dvc.yaml of a model; of an unknown task, which the stage `settings` refuses, that of a classification."""
    document = config.read(folder / config.PARAMS_FILE)
    section = document.get("schema")
    task = section.get("task") if isinstance(section, dict) else None
    own = sources.of_model(document, folder)
    return pipelines.render(
        text,
        str(task) if task in pipelines.PLOTS else pipelines.TASK,
        own.places,
        own.packages,
        further=folder != Path(),
    )


if __name__ == "__main__":
    cli.run(main)
