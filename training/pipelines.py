"""Write the dvc.yaml of every model: further models get the repository's, and each the plots of its task."""

from __future__ import annotations

from pathlib import Path

from common import files, models, pipelines
from common.pipelines import PIPELINE_FILE
from training.base import cli, config
from training.base.errors import ConfigError


def main() -> None:
    parser = cli.parser("training.pipelines", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    arguments = parser.parse_args()
    text = PIPELINE_FILE.read_text(encoding="utf-8")
    contents = {
        folder / PIPELINE_FILE: pipelines.render(text, _task(folder), further=folder != Path())
        for folder in models.find(Path()).values()
    }
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
            f"not current: {', '.join(map(str, old))}, which follow from {PIPELINE_FILE} and the task of each model: "
            f"change {PIPELINE_FILE} and run `make packages`"
        )


def _task(folder: Path) -> str:
    """The task that a model's params.yaml declares; the stage `settings` refuses an unknown one."""
    section = config.read(folder / config.PARAMS_FILE).get("schema")
    task = section.get("task") if isinstance(section, dict) else None
    return str(task) if task in pipelines.PLOTS else pipelines.TASK


if __name__ == "__main__":
    cli.run(main)
