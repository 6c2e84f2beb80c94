"""Text is read and written as UTF-8 whatever the locale: each call says so.

ruff's PLW1514 sees only the calls whose type it can infer, and an EncodingWarning only those that a test reaches.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.training.project import Project

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "training", "deploy", "monitoring", "benchmarks")
CHILDREN = {"run", "Popen", "check_call", "check_output"}


def in_the_locales_encoding(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that open text without an encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {each.arg for each in node.keywords}
        text = (
            (name == "read_text" and not node.args)
            or (name == "write_text" and len(node.args) == 1)
            or (name in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile") and opens_text(node, name))
            or (name in CHILDREN and bool(given & {"text", "universal_newlines"}))
        )
        if text and "encoding" not in given:
            yield node


def opens_text(node: ast.Call, name: str) -> bool:
    values = [*node.args, *(each.value for each in node.keywords if each.arg == "mode")]
    modes = [
        each.value
        for each in values
        if isinstance(each, ast.Constant) and set(str(each.value)) <= set("rwabxt+")
    ]
    if name == "open" and isinstance(node.func, ast.Attribute) and node.args and not modes:
        return False  # of an archive, an image or an address
    return "b" not in (str(modes[0]) if modes else "w+b" if name.endswith("TemporaryFile") else "r")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_call_names_its_encoding(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if ".venv" not in path.parts  # of a tool with a project of its own
        for node in in_the_locales_encoding(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", 1),
        ("path.read_text('utf-8')", 0),
        ("path.write_text(text)", 1),
        ("path.write_text(text, encoding='utf-8')", 0),
        ("open(name)", 1),
        ("open(name, 'rb')", 0),
        ("path.open()", 1),
        ("path.open('a+')", 1),
        ("path.open(mode='wb')", 0),
        ("archive.open(member)", 0),
        ("os.fdopen(handle, 'w')", 1),
        ("tempfile.TemporaryFile()", 0),
        ("tempfile.NamedTemporaryFile('w')", 1),
        ("subprocess.run(command, text=True)", 1),
        ("subprocess.run(command, capture_output=True)", 0),
    ],
)
def test_the_check_sees_what_it_should(code: str, expected: int) -> None:
    assert len(list(in_the_locales_encoding(ast.parse(code)))) == expected


LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp1252": {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"},
}


@pytest.mark.long("common", "training", "tests/test_encodings.py")
@pytest.mark.parametrize("locale", LOCALES)
def test_names_beyond_ascii_pass_through_any_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    """From a file to a draft, a pipe and the reports: what leaves the process is UTF-8, too."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data/source").mkdir(parents=True)
    project = Project(tmp_path, monkeypatch)
    rows = [f"{number / 10},{'süß' if number % 2 else 'žluť 語'}" for number in range(120)]
    source = project.root / "data/source/größen.csv"
    source.write_text("\n".join(["größe,geschmack", *rows]) + "\n", encoding="utf-8")

    def run(*arguments: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=project.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), **LOCALES[locale]},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    drafted = yaml.safe_load(run("training.draft", "data/source/größen.csv", "--target", "geschmack"))
    assert drafted["schema"]["target"] == "geschmack"
    assert list(drafted["schema"]["features"]) == ["größe"]
    project.write({**project.params(), **drafted})
    for stage in ("fetch", "prepare"):
        run(f"training.{stage}")
    assert "žluť 語" in (project.root / "reports/data.md").read_text(encoding="utf-8")
