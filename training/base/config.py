"""Reads a model's `params.yaml`, completed with the repository's defaults.

Each stage asks for the sections it needs as a frozen settings class (training/sections has one per section), and
`dvc.yaml` lists the same sections as that stage's parameters (a test compares the two), so DVC reruns a stage exactly
when its settings change.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from training.base.defaults import complete
from training.base.documents import parse_yaml
from training.base.errors import ConfigError
from training.base.section import Settings

PARAMS_FILE = Path("params.yaml")
SETTINGS_FILE = Path("reports/settings.json")
"""The parameters with the defaults, which the stage `settings` writes and DVC compares."""
DEFAULTS_FILE = Path(__file__).parents[1] / "defaults.yaml"
S = TypeVar("S", bound=Settings)
_WITH_TEXTS = ("data", "schema")
"""Sections with values that stand for cells of the source, whatever type YAML gives them."""


def load(kind: type[S], path: Path = PARAMS_FILE) -> S:
    """Read the sections that `kind` declares as fields; other sections are ignored.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key is unknown, missing or wrong. Names each key.
    """
    document = read(path)
    return validate(kind, {key: value for key, value in document.items() if key in sections(kind)}, path)


def read(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The parameters in a file, with the repository's defaults for what it leaves out.

    Raises:
        ConfigError: the file is missing, or is not YAML that holds sections.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; run this from the folder of a model, such as the project's top folder"
        ) from None
    return completed(content, str(path))


def completed(content: bytes, name: str) -> dict[str, Any]:
    """The parameters in the content of a file of this name, with the repository's defaults for what it leaves out.

    Raises:
        ConfigError: it is not YAML that holds sections.
    """
    try:
        document = parse_yaml(content)
        if not isinstance(document, dict):
            raise ConfigError(f"{name} must be a mapping of sections such as data and schema")
        if not {*document}.isdisjoint(_WITH_TEXTS):
            spelled = parse_yaml(content, spelling=True)
            document |= {key: spelled[key] for key in _WITH_TEXTS if key in document}
    except ValueError as error:
        raise ConfigError(f"{name} is not YAML: {error}") from None
    return complete(document, defaults())


def as_json(document: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them: keys are text, and so are numbers that are not finite.

    Raises:
        ConfigError: a value is none that JSON has.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(document), parse_constant=str)
    except TypeError as error:
        raise ConfigError(f"{PARAMS_FILE}: a value is no text, number, list or mapping: {error}") from None
    return found


@cache
def defaults() -> dict[str, Any]:
    """The repository's defaults."""
    try:
        document = parse_yaml(DEFAULTS_FILE.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {DEFAULTS_FILE}: {error}") from None
    return document or {}


def validate(kind: type[S], document: dict[str, Any], path: Path = PARAMS_FILE) -> S:
    """Parameters as settings.

    Raises:
        ConfigError: a key is unknown, missing or wrong. Names each key.
    """
    mixed = _mixed_keys(document)
    if mixed:
        raise ConfigError(f"{path}: {mixed}")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_complaints(error))}") from None


def sections(kind: type[Settings]) -> list[str]:
    """The top-level sections of `params.yaml` that a settings class reads."""
    return [field.alias or name for name, field in kind.model_fields.items()]


def _mixed_keys(value: Any, where: str = "") -> str | None:
    """Where a mapping has both text and number keys: DVC sorts them, and ends in a traceback."""
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str)]
        if 0 < len(odd) < len(value):
            key = getattr(odd[0], "spelling", odd[0])
            return f"{where}: the key {key} is not a text as the others are: put it in quotes"
        found = (_mixed_keys(each, f"{where}.{key}".lstrip(".")) for key, each in value.items())
        return next(filter(None, found), None)
    return None


_TAGS = ("number", "category", "datetime", "<list>", "<distribution>")
"""Names that pydantic gives members of unions; they are not keys of the file."""


def _complaints(error: ValidationError) -> list[str]:
    lines = []
    for each in error.errors(include_url=False):
        where = ".".join(str(part) for part in each["loc"] if part not in _TAGS)
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "unknown key"
        elif each["type"] == "missing":
            message = "is missing"
        lines.append(f"{where}: {message}")
    return lines
