"""Checks one manifest against the schema of its kind; unknown fields are errors.

Kubernetes' own kinds are checked with the schemas of kubernetes-validate for every version in `VERSIONS`, custom
resources with those in deploy/schemas/. Lists in custom resources must contain every field that the server would fill
in: Argo CD compares such lists as a whole, and would apply them again and again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource

Document = Mapping[str, Any]

SCHEMAS = Path(__file__).parents[1] / "schemas"
DEFAULTS = SCHEMAS / "defaults.json"
VERSIONS = ("1.33", "1.37")
"""The oldest supported Kubernetes and the newest."""
_KNOWN: dict[str, list[str]] = {}
"""Problems by content: most manifests are the same with every set of components."""


def problems(document: Document) -> list[str]:
    """What is wrong with a manifest, each as `path: what`."""
    if not isinstance(document.get("apiVersion"), str) or not isinstance(document.get("kind"), str):
        return ["it has no apiVersion and kind"]
    content = repr(document)
    if content not in _KNOWN:
        # Both versions find the same mistake.
        _KNOWN[content] = list(dict.fromkeys(_problems(document)))
    return list(_KNOWN[content])


def _problems(document: Document) -> Iterator[str]:
    api_version, kind = document["apiVersion"], document["kind"]
    for version in VERSIONS:
        validator = _validator(api_version, kind, version)
        if validator is None:
            yield f"no schema for {kind} {api_version}: add the kind to deploy/schemas, or mend its name"
            return
        for error in validator.iter_errors(document):
            yield from _lines(error)
    for path, value in _defaults().get(_name(api_version, kind), {}).items():
        for where in _without(document, path.split("."), ""):
            yield f"{where}: the server would add {json.dumps(value)}: write it"


def _without(node: Any, path: Sequence[str], where: str) -> Iterator[str]:
    """Every place where the last field of a path is missing and the fields above it exist."""
    name, rest = path[0].removesuffix("[]"), path[1:]
    if not isinstance(node, Mapping):
        return
    where = f"{where}.{name}".lstrip(".")
    if not rest:
        if name not in node:
            yield where
        return
    below = node.get(name)
    if not path[0].endswith("[]"):
        yield from _without(below, rest, where)
    elif isinstance(below, list):
        for number, each in enumerate(below):
            yield from _without(each, rest, f"{where}.{number}")


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    return read


def _name(api_version: str, kind: str) -> str:
    return f"{api_version.replace('/', '_')}_{kind}"


def _lines(error: ValidationError) -> Iterator[str]:
    where = ".".join(map(str, error.absolute_path)) or "the document"
    # Of a field with several allowed shapes, each shape's complaint says more than "not valid under any".
    if error.context:
        for each in error.context:
            yield from _lines(each)
    else:
        yield f"{where}: {error.message[:300]}"


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator | None:
    folder = _kubernetes(version)
    custom = SCHEMAS / f"{_name(api_version, kind)}.json"
    if custom.is_file():
        schema = json.loads(custom.read_text(encoding="utf-8"))
    else:
        # kubernetes-validate calls rbac.authorization.k8s.io/v1 rbac-v1.
        group, _, name = api_version.rpartition("/")
        prefix = f"{group.split('.')[0]}-" if group else ""
        known = folder / f"{kind.lower()}-{prefix}{name}.json"
        if not known.is_file():
            return None
        schema = json.loads(known.read_text(encoding="utf-8"))
        # Another group may begin with the same word.
        if api_version not in schema["properties"]["apiVersion"].get("enum", [api_version]):
            return None
    return Draft202012Validator(schema, registry=_definitions(version))


def _kubernetes(version: str) -> Traversable:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"


@cache
def _definitions(version: str) -> Registry[Any]:
    """Kubernetes' definitions, under the name by which the schemas refer to them."""
    text = (_kubernetes(version) / "_definitions.json").read_text(encoding="utf-8")
    return Resource.from_contents(json.loads(text)) @ Registry()
