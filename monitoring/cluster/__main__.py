"""Writes the rules as the cluster takes them: one PrometheusRule for each file of rules, into cluster/rules.yaml.

With `--check` nothing is written, and a difference is an error.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from common import files
from common.command import run
from monitoring.errors import MonitoringError

FOLDER = Path(__file__).parents[1]
RULES = FOLDER / "rules"
OUTPUT = FOLDER / "cluster" / "rules.yaml"
HEAD = """\
# Made by `python -m monitoring.cluster` from monitoring/rules; what is changed here is lost.
# yamllint disable rule:line-length
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.cluster", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file differs")
    options = parser.parse_args()
    text = generate()
    if OUTPUT.exists() and OUTPUT.read_text(encoding="utf-8") == text:
        return
    if options.check:
        raise MonitoringError(
            f"{OUTPUT.relative_to(FOLDER.parent)} differs from monitoring/rules: run python -m monitoring.cluster"
        )
    files.write_text(OUTPUT, text)
    print(f"wrote {OUTPUT.name}")


def generate(rules: Path = RULES) -> str:
    """The manifests of all files of rules, by their names.

    Raises:
        MonitoringError: there is no file, or one is no YAML with groups.
    """
    files = sorted(rules.glob("*.yaml"))
    if not files:
        raise MonitoringError(f"there are no rules in {rules}")
    editor = YAML()
    editor.indent(mapping=2, sequence=4, offset=2)
    # Where a line breaks must not hang on the length of a name that `deploy.adopt` puts in.
    editor.width = 1_000_000
    editor.representer.ignore_aliases = lambda *_: True
    stream = io.StringIO()
    editor.dump_all([_manifest(file) for file in files], stream)
    return HEAD + stream.getvalue()


def _manifest(file: Path) -> dict[str, Any]:
    try:
        groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise MonitoringError(f"{file.name} is no file of rules: {' '.join(str(error).split())}") from None
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"espalier-{file.stem}",
            # The kind may be installed by the same sync of the whole.
            "annotations": {"argocd.argoproj.io/sync-options": "SkipDryRunOnMissingResource=true"},
        },
        "spec": {"groups": _readable(groups)},
    }


def _readable(value: Any) -> Any:
    """The same with texts of several lines written as such."""
    if isinstance(value, dict):
        return {key: _readable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value


if __name__ == "__main__":
    run(main)
