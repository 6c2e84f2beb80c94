"""Copy dvc.yaml to every further model: the files in models/ differ from it in the path to the code and in nothing else."""

from __future__ import annotations

from pathlib import Path

from common import files, models
from training.base import cli
from training.base.errors import ConfigError

PIPELINE_FILE = Path("dvc.yaml")


def main() -> None:
    parser = cli.parser("training.pipelines", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a copy is not current")
    arguments = parser.parse_args()
    content = models.pipeline(PIPELINE_FILE.read_text(encoding="utf-8"))
    copies = [each / PIPELINE_FILE for each in models.find(Path()).values() if each != Path()]
    old = [each for each in copies if not each.is_file() or each.read_text(encoding="utf-8") != content]
    if not arguments.check:
        for each in old:
            files.write_text(each, content)
    elif old:
        raise ConfigError(
            f"{', '.join(map(str, old))} is no copy of {PIPELINE_FILE}: change that file and run `make packages`"
        )


if __name__ == "__main__":
    cli.run(main)
