"""Finds what a model's own functions consist of, without running them: files of the model's folder, and packages.

A function consists of its module, of the modules in the folder that this one imports, of all files beside them that are
no modules, such as weights, and of the installed packages that these modules import.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from app.contract import sha256
from training.base.documents import parse_yaml
from training.base.errors import ConfigError

PACKAGES_FILE = Path(__file__).parents[1] / "packages.yaml"
KEY = "code"
"""Of a block in reports/settings.json: what its functions consist of."""
_IGNORED = re.compile(r"(^|/)[.]|(^|/)__pycache__/|[.]py[co]$|[.]tmp$|[.]swp$|~$")
"""What git or DVC ignores, too."""
_TWINS = {"xgboost", "xgboost-cpu"}
"""Which of them brings the module depends on the platform."""


@dataclass(frozen=True)
class Sources:
    """What functions consist of.

    Attributes:
        files: paths from the model's folder, sorted.
        packages: as uv.lock calls them, sorted.
    """

    files: tuple[Path, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The files and folders beside params.yaml that hold the files."""
        return tuple(sorted({each.parts[0] for each in self.files}))


def functions(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """The functions that each block of completed parameters names; what is no such name is left to the settings' check."""
    train = document.get("train")
    blocks = train.get("algorithms") if isinstance(train, Mapping) else None
    found = {}
    for name, block in blocks.items() if isinstance(blocks, Mapping) else ():
        values = [block.get(key) for key in ("estimator", "features")] if isinstance(block, Mapping) else []
        if named := [each for each in values if isinstance(each, str)]:
            found[name] = named
    return found


def of_model(document: Mapping[str, Any], folder: Path = Path()) -> Sources:
    """What all functions in a model's completed parameters consist of."""
    return of([name for each in functions(document).values() for name in each], folder)


def of(names: Iterable[str], folder: Path = Path()) -> Sources:
    """What functions of the model in a folder consist of."""
    files: set[Path] = set()
    packages: set[str] = set()
    seen: set[str] = set()
    pending = [each.partition(":")[0] for each in names]
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        found = files_of(module, folder)
        if not found:
            packages |= distributions(module)
        for file in {*found} - files:
            files.add(file)
            pending += _imports(folder / file, file)
    tops = {each.parts[0] for each in files if len(each.parts) > 1}
    return Sources(
        tuple(sorted(files | {each for top in tops for each in _beside(folder, top)})),
        tuple(sorted(packages)),
    )


def files_of(module: str, folder: Path = Path()) -> list[Path]:
    """The files of a module and of the packages around it, as far as the folder has them; paths from the folder."""
    found, place = [], Path()
    for name in module.split("."):
        place /= name
        if (folder / place).is_dir():
            found += [place / "__init__.py"] if (folder / place / "__init__.py").is_file() else []
        elif (folder / place).with_suffix(".py").is_file():
            return [*found, place.with_suffix(".py")]
        else:
            break
    return found


def distributions(module: str) -> set[str]:
    """The installed packages that bring a module to import, as uv.lock calls them."""
    found = {re.sub(r"[-_.]+", "-", each).lower() for each in _installed().get(module.partition(".")[0], ())}
    return found | _TWINS if found & _TWINS else found


def recorded(document: dict[str, Any], folder: Path = Path()) -> dict[str, Any]:
    """Parameters in which each block with functions says what these consist of.

    DVC compares the parameters, so a changed file or package runs the stages of exactly those blocks that use it.

    Args:
        document: completed, as reports/settings.json has it.
        folder: of the model.

    Raises:
        ConfigError: the version of a package is not known.
    """
    named = functions(document)
    if not named:
        return document
    blocks = dict(document["train"]["algorithms"])
    for name, each in named.items():
        blocks[name] = {**blocks[name], KEY: contents(of(each, folder), folder)}
    return {**document, "train": {**document["train"], "algorithms": blocks}}


def contents(sources: Sources, folder: Path = Path()) -> dict[str, str]:
    """A digest of each file and the locked version of each package.

    Raises:
        ConfigError: the version of a package is not known.
    """
    versions = parse_yaml(PACKAGES_FILE.read_bytes()) if sources.packages else {}
    if absent := sorted({*sources.packages} - {*versions}):
        raise ConfigError(f"training/{PACKAGES_FILE.name} lacks {absent[0]}: run `make packages`")
    return {
        **{each.as_posix(): sha256((folder / each).read_bytes())[:16] for each in sources.files},
        **{each: versions[each] for each in sources.packages},
    }


@cache
def _installed() -> Mapping[str, list[str]]:
    return packages_distributions()


def _imports(file: Path, place: Path) -> Iterator[str]:
    """The modules that a file imports anywhere in it; a name that is imported from one may be a module, too."""
    try:
        tree = ast.parse((file).read_bytes())
    except (OSError, ValueError, SyntaxError):
        return  # Python says so when it is imported
    package = place.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{each.name}".lstrip(".") for each in node.names)


def _beside(folder: Path, top: str) -> Iterator[Path]:
    for path in (folder / top).rglob("*"):
        each = path.relative_to(folder)
        if path.is_file() and path.suffix != ".py" and not _IGNORED.search(each.as_posix()):
            yield each


def is_standard(module: str) -> bool:
    """Whether a module is of Python itself."""
    return module.partition(".")[0] in sys.stdlib_module_names
