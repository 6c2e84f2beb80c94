"""The documentation is complete: each key, setting and variable is described, and each link leads to something."""

from __future__ import annotations

import html
import importlib
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import cmarkgfm  # type: ignore[import-untyped]
import pytest
from pydantic import BaseModel

from app.settings import PREFIX
from app.settings import Settings as ServiceSettings
from tests.pages import anchors
from training import sections
from training.base.documents import parse_yaml
from training.base.section import Settings
from training.sections.algorithms import AlgorithmSettings, AlgorithmsSettings
from training.sections.card import CardSettings
from training.sections.data import DataSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.schema import SchemaSettings
from training.sections.select import SelectSettings
from training.sections.split import SplitSettings
from training.sections.track import TrackSettings
from training.settings import stage

ROOT = Path(__file__).parents[1]
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSettings,
    "schema": SchemaSettings,
    "split": SplitSettings,
    "evaluate": EvaluateSettings,
    "decision": DecisionSettings,
    "train": AlgorithmsSettings,
    "select": SelectSettings,
    "card": CardSettings,
    "track": TrackSettings,
}
SINGLE = {"name", "explain"}
"""Keys that are values themselves."""
PAGES = [
    path
    for folder in (".", ".github", "app", "benchmarks", "deploy", "docs", "examples", "monitoring")
    for path in sorted((ROOT / folder).glob("*.md" if folder == "." else "**/*.md"))
]
PROGRAMS = [
    path
    for folder in ("app", "training", "deploy", "monitoring", "tests/load")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ".venv" not in path.parts  # of a tool with a project of its own
]
NOT_FOR_USERS = {
    *("CAN_PUSH", "DRIFT", "GIVEN", "REASON", "RUN_URL", "TRIGGER"),  # from a workflow's step to its command
    *("DASK_SCHEDULER_ADDRESS", "RUN_ARGUMENTS", "RUN_FOLDER", "RUN_WORK"),  # from a job to its pod
    *("HOME", "PYTHONPATH", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),  # the system's own
}


def _keys(kind: type[BaseModel], prefix: str) -> Iterator[str]:
    """The keys that a class reads, in full; `*` stands for a name that the user chooses."""
    for name, field in kind.model_fields.items():
        if kind is AlgorithmSettings and name == "parameters":
            continue  # what stands beside `search`: the estimator's own
        if kind is DecisionSettings and name == "cost":
            yield f"{prefix}.cost"  # one row of the table has both of its forms
            continue
        path = f"{prefix}.{name}" + ".*" * ("dict[" in str(field.annotation))
        inner = list(_classes(field.annotation))
        for each in inner:
            yield from _keys(each, path)
        if not inner:
            yield f"{prefix}.{name}"


def _classes(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _classes(argument)


def _tables(page: str) -> Iterator[tuple[list[str], list[str]]]:
    """The words of the section's heading that are code, and the cells, of each row that begins with code."""
    for section in re.split(r"^## ", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        for row in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
            yield re.findall(r"`([\w.]+)`", heading), row.split(" | ")


def _documented_keys() -> set[str]:
    """Keys of the tables, in full: under `split`, `.seed` after `split.test_share` is `split.seed`."""
    found = set()
    for headings, cells in _tables("configuration.md"):
        former = ""
        for key in re.findall(r"`([\w.]+)`", cells[0]) if headings else []:
            if key.startswith("."):
                former = former.rpartition(".")[0] + key
            else:
                former = key if key.split(".")[0] in headings else f"{headings[0]}.{key}"
            found.add(re.sub(r"\.[A-Z]+\b", ".*", former))
    return found


DECLARED = sorted({key for section, kind in SECTIONS.items() for key in _keys(kind, section)})


def test_all_sections_are_looked_at() -> None:
    assert set(parse_yaml((ROOT / "params.yaml").read_bytes())) <= {*SINGLE, *SECTIONS}
    assert set(stage.Params.model_fields) - {"data_schema"} == {*SINGLE, *SECTIONS} - {"schema"}
    headings = re.findall(r"^## `(\w+)`$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert set(headings) >= SINGLE
    declared = {
        each
        for module in pkgutil.iter_modules(sections.__path__, f"{sections.__name__}.")
        for each in vars(importlib.import_module(module.name)).values()
        if isinstance(each, type) and issubclass(each, Settings) and each is not Settings
    }
    seen = set(SECTIONS.values())
    for _ in range(5):
        seen |= {
            each
            for kind in seen
            for field in kind.model_fields.values()
            for each in _classes(field.annotation)
        }
    assert seen == declared


@pytest.mark.parametrize("key", DECLARED)
def test_each_key_of_params_is_documented(key: str) -> None:
    assert key in _documented_keys(), f"no table of docs/configuration.md has {key}"


def test_each_documented_key_exists() -> None:
    spaces = {key.rpartition(".")[0] for key in DECLARED}
    assert _documented_keys() - {*DECLARED, *spaces} == set()


@pytest.mark.parametrize("name", ServiceSettings.model_fields)
def test_each_setting_of_the_service_is_documented_with_its_default(name: str) -> None:
    variable = PREFIX + name.upper()
    rows = {
        cells[0].strip("`"): cells[1].replace("`", "").removesuffix(" in each process")
        for page in ("configuration.md", "prediction-log.md", "feature-store.md")
        for _, cells in _tables(page)
    }
    assert variable in rows, f"no table of docs/configuration.md has {variable}"
    told, default = rows[variable], ServiceSettings.model_fields[name].default
    if told.endswith(" MiB"):
        assert int(told.removesuffix(" MiB")) * 2**20 == default
    elif default in (None, "", {}):
        assert told == ("not set" if default is None else "empty")
    else:
        assert told == (
            ",".join(default) if isinstance(default, tuple) else f"{default}".lower().removesuffix(".0")
        )


def _variables() -> Iterator[str]:
    for program in PROGRAMS:
        text = program.read_text()
        for name, constant in re.findall(
            r'environ(?:ment)?(?:\.get\(|\[)(?:"([A-Z]\w+)"|([A-Z][A-Z_]+)\b)(?!\] =)', text
        ):
            yield name or re.findall(rf'^{constant} = "([^"]*)"', text, re.MULTILINE)[0]


@pytest.mark.parametrize("name", sorted({*_variables()} - NOT_FOR_USERS))
def test_each_variable_that_a_program_reads_is_documented(name: str) -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert re.search(rf"`{name}(=[^`]*)?`", pages), f"no page of docs/ has {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    rendered = cmarkgfm.github_flavored_markdown_to_html(page.read_text())
    for link in re.findall(r'(?:href|src)="(?!\w+:)([^"]*)"', rendered):
        path, _, anchor = unquote(html.unescape(link)).partition("#")
        target = (page.parent / path).resolve() if path else page
        # GitHub's own pages, such as ../../security/advisories/new, are beside the files of a repository.
        if ROOT in target.parents or target == ROOT:
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text()), link


def test_anchors_are_made_as_github_makes_them() -> None:
    text = "# A `b`, (c) d-e_f!\n```sh\n# no heading\n```\n## Twice\n## Twice\n### Köln &\n"
    assert anchors(text) == {"a-b-c-d-e_f", "twice", "twice-1", "köln-"}
