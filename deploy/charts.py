"""Compares the pinned Helm charts with what their repositories publish.

It reads every chart that deploy/argocd names, options included. The status is 1 if one is older than the newest release, 2 if a
repository cannot be read. Nothing is changed: raise `targetRevision`, read the chart's notes, run `make manifests`.
"""

from __future__ import annotations

import argparse
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from common.command import run
from deploy.errors import DeployError
from deploy.yaml_loader import LOADER

FOLDER = Path("deploy/argocd")
TIMEOUT = 30
_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


class ChartError(DeployError):
    """A repository of charts cannot be read."""


@dataclass(frozen=True)
class Chart:
    repository: str
    name: str
    pinned: str
    newest: str

    @property
    def old(self) -> bool:
        return _number(self.newest) > _number(self.pinned)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.charts", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where applications are (default: %(default)s)"
    )
    charts = compare(parser.parse_args().folder)
    table = Table("chart", "pinned", "newest", "", box=None, pad_edge=False)
    for each in charts:
        table.add_row(each.name, each.pinned, each.newest, "old" if each.old else "")
    Console(width=100).print(table)
    sys.exit(1 if any(each.old for each in charts) else 0)


def compare(folder: Path) -> list[Chart]:
    """Each chart once, by name.

    Raises:
        ChartError: a repository cannot be read, lacks the chart, or there are no charts.
    """
    named = sorted(set(_named(folder)))
    if not named:
        raise ChartError(f"{folder} names no chart: run this in the top folder")
    indexes = {repository: _index(repository) for repository in {each[0] for each in named}}
    return [
        Chart(repository, name, pinned, _newest(repository, indexes[repository], name))
        for repository, name, pinned in sorted(named, key=lambda each: each[1])
    ]


def _named(folder: Path) -> Iterator[tuple[str, str, str]]:
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.load_all(path.read_text(encoding="utf-8"), LOADER):
            if document and document["kind"] in ("Application", "ApplicationSet"):
                specification = document["spec"].get("template", document)["spec"]
                source = specification["source"]
                if "chart" in source:
                    yield source["repoURL"], source["chart"], source["targetRevision"]


def _index(repository: str) -> dict[str, Any]:
    address = f"{repository.rstrip('/')}/index.yaml"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - from a file of this repository
            content = yaml.load(answer.read(), LOADER)  # noqa: S506 - a safe one
    except (OSError, urllib.error.URLError, yaml.YAMLError) as error:
        raise ChartError(f"{address} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("entries"), dict):
        raise ChartError(f"{address} is no index of charts")
    return dict(content["entries"])


def _newest(repository: str, entries: dict[str, Any], name: str) -> str:
    """The highest version that is a release."""
    versions = [str(each.get("version")) for each in entries.get(name, ())]
    releases = [each for each in versions if _RELEASE.fullmatch(each)]
    if not releases:
        raise ChartError(f"{repository} has no release of the chart {name}")
    return max(releases, key=_number)


def _number(version: str) -> tuple[int, ...]:
    found = _RELEASE.fullmatch(version)
    return tuple(int(each) for each in found.groups()) if found else ()


def start() -> None:
    """Run the tool and end the process."""
    # An old chart answers with 1, so errors need another status.
    run(main, status=2)


if __name__ == "__main__":
    start()
