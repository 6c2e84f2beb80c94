"""Write the locked versions of the packages that the stages import: uv.lock -> training/packages.yaml.

A stage names in dvc.yaml the packages that it imports, as parameters in this file. So it runs again when one of them,
or a package that this one needs, has another version, and not when a development tool has one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from app.contract import sha256
from common import files, models
from training.base import cli
from training.base.errors import ConfigError

LOCK_FILE = Path("uv.lock")
PIPELINE_FILE = Path("dvc.yaml")
PACKAGES_FILE = Path("training/packages.yaml")
PLOTTING = frozenset({"graphviz", "matplotlib", "plotly"})
"""CatBoost needs these to draw, and no stage lets it."""
HEADING = """# Locked versions of what the stages import, each with a digest of those that it needs. `make packages` writes them.
# yamllint disable rule:line-length
"""


def main() -> None:
    parser = cli.parser("training.packages", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is not current")
    arguments = parser.parse_args()
    pipelines = [folder / PIPELINE_FILE for folder in models.find(Path()).values()]
    names = set().union(
        *(named(_read(each)) for each in pipelines if each == PIPELINE_FILE or each.is_file())
    )
    content = render(names, _read(LOCK_FILE))
    if not arguments.check:
        files.write_text(PACKAGES_FILE, content)
    elif _read(PACKAGES_FILE) != content:
        raise ConfigError(f"{PACKAGES_FILE} does not say what {LOCK_FILE} says: run `make packages`")


def named(pipeline: str) -> set[str]:
    """The packages that the stages of dvc.yaml name."""
    stages = yaml.safe_load(pipeline)["stages"].values()
    listed = (each.get("do", each).get("params", ()) for each in stages)
    return {
        name
        for params in listed
        for each in params
        if isinstance(each, dict)
        for name in each.get(f"${{code}}{PACKAGES_FILE}", ())
    }


def render(names: Iterable[str], lock: str) -> str:
    """A line for each package: its version and a digest of the versions of all packages that it needs.

    Raises:
        ConfigError: a package is not in the lock.
    """
    locked = _Locked(tomllib.loads(lock)["package"])
    return HEADING + "".join(f"{name}: {locked.describe(name)}\n" for name in sorted(names))


class _Locked:
    def __init__(self, packages: Iterable[Mapping[str, Any]]) -> None:
        self.versions: dict[str, list[str]] = {}
        self.needs: dict[str, set[str]] = {}
        for each in packages:
            name = each["name"]
            # A package has two versions where supported Pythons or platforms need different ones.
            self.versions.setdefault(name, []).append(each.get("version", ""))
            needs = {one["name"] for one in each.get("dependencies", ())}
            self.needs.setdefault(name, set()).update(needs - PLOTTING)

    def describe(self, name: str) -> str:
        if name not in self.versions:
            raise ConfigError(
                f"{PIPELINE_FILE} names the package {name!r}, which is not in {LOCK_FILE}: run `uv add --group train {name}`"
            )
        needed: set[str] = set()
        new = {name}
        while new := set().union(*(self.needs[each] for each in new)) - needed:
            needed |= new
        if not needed:
            return self._version(name)
        versions = ", ".join(f"{each} {self._version(each)}" for each in sorted(needed - {name}))
        return f"{self._version(name)} with {sha256(versions.encode())[:8]}  # {versions}"

    def _version(self, name: str) -> str:
        return " or ".join(sorted(self.versions[name]))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


if __name__ == "__main__":
    cli.run(main)
