"""Measure how much disk each optional part takes beside the default environment: `python -m benchmarks.extras`.

Dependency groups of pyproject.toml are measured as what they add to the default groups. Tools with a project of their own
below deploy/ are measured whole. Bytecode is not counted. Needs uv, and 3 GB of space in the folder for temporary files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("mlflow", "schedulers/airflow", "schedulers/kubeflow", "feast")
NOT_FOR_USERS = {"batch", "datasets", "docs", "fakesnow"}
"""Of tests, or part of the default environment."""
RESULTS = ROOT / "benchmarks/results/extras.md"
HEADING = (
    "# What optional parts add to the disk",
    "",
    "`python -m benchmarks.extras`: groups of pyproject.toml beside the default environment, and tools with a lock of their own, whole.",
    "",
)


def main() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    usual = document["tool"]["uv"]["default-groups"]
    default = _locked(ROOT, usual)
    groups = sorted(document["dependency-groups"].keys() - set(usual) - NOT_FOR_USERS)
    lines = [f"| the default environment | {_row(default)} |"]
    lines += [f"| group `{group}` | {_row(_locked(ROOT, [*usual, group]) - default)} |" for group in groups]
    lines += [f"| `deploy/{tool}` | {_row(_locked(ROOT / 'deploy' / tool, []))} |" for tool in TOOLS]
    text = "\n".join([*HEADING, "| part | packages | MB |", "|---|--:|--:|", *lines, ""])
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


def _locked(project: Path, groups: Iterable[str]) -> frozenset[str]:
    """What the lock of a project has for these groups on this machine, as requirements without hashes."""
    options = [option for group in groups for option in ("--group", group)]
    done = subprocess.run(
        [
            *("uv", "export", "--quiet", "--frozen", "--no-default-groups", "--no-hashes", "--no-header"),
            *("--no-annotate", "--no-emit-project", "--project", str(project), *options),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return frozenset(line for line in done.stdout.splitlines() if re.match(r"[A-Za-z0-9]", line))


def _row(packages: frozenset[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", sys.executable]
        subprocess.run(
            [*command, "--target", folder, "-r", "-"],
            input="\n".join(sorted(packages)),
            text=True,
            encoding="utf-8",
            check=True,
        )
        files = [each for each in Path(folder).rglob("*") if each.is_file() and not each.is_symlink()]
        installed = len(list(Path(folder).glob("*.dist-info")))
        size = sum(each.stat().st_size for each in files if "__pycache__" not in each.parts)
    return f"{installed} | {size / 1e6:,.0f}"


if __name__ == "__main__":
    main()
