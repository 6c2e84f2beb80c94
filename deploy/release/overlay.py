"""Reads and edits the four values of an overlay: image, digest, model version and revision.

Loading and dumping YAML loses comments or changes the layout. So the parser only tells where the four values are, and
they are replaced in the text: the diff of a release is their four lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from common.overlays import REVISION_ANNOTATION, VERSION_LABEL
from deploy.errors import ReleaseError
from deploy.yaml_loader import LOADER

IMAGE = "espalier"
"""The image's name in the manifests, which the overlay replaces."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
VERSION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""The form of a label's value in Kubernetes."""

Field = Literal["name", "digest", "version", "revision"]


@dataclass(frozen=True)
class Release:
    """What an environment runs, according to its overlay."""

    name: str
    """REGISTRY/NAME, without tag and digest."""
    digest: str
    version: str
    """Of the model's bundle."""
    revision: str
    """The commit that the image was built from."""

    @property
    def image(self) -> str:
        return f"{self.name}@{self.digest}"

    @property
    def empty(self) -> bool:
        """Whether this is the placeholder from before the first release."""
        return self.digest == "sha256:" + "0" * 64


def parse(text: str, where: str) -> Release:
    """What an overlay says.

    Raises:
        ReleaseError: it is not YAML, or one of the four values is missing or malformed.
    """
    found = {field: node.value for field, node in _nodes(text, where).items()}
    release = Release(**found)
    for name, value, form in (
        ("digest of the image", release.digest, DIGEST),
        (f"annotation {REVISION_ANNOTATION}", release.revision, COMMIT),
        (f"label {VERSION_LABEL}", release.version, VERSION),
    ):
        if not form.fullmatch(value):
            raise ReleaseError(f"{where}: the {name} is {value!r}, which is none")
    return release


def edit(text: str, release: Release, where: str) -> str:
    """The overlay's text with other values and nothing else changed.

    Raises:
        ReleaseError: as `parse`, or the YAML uses anchors or other forms that cannot be edited this way.
    """
    nodes = _nodes(text, where)
    expected, result = _load(text, where), text
    for field in sorted(nodes, key=lambda field: nodes[field].start_mark.index, reverse=True):
        node, value = nodes[field], str(getattr(release, field))
        start, end = node.start_mark.index, node.end_mark.index
        # YAML reads some hex digits as a number (123456789012, 12e4567…), so versions and revisions are quoted.
        quoted = field in ("version", "revision") or node.style in ('"', "'") or not value[0].isalnum()
        result = result[:start] + (f'"{value}"' if quoted else value) + result[end:]
    for each in expected["images"]:
        if each["name"] == IMAGE:
            each.update(newName=release.name, digest=release.digest)
    for each in expected["labels"]:
        if VERSION_LABEL in each.get("pairs", {}):
            each["pairs"][VERSION_LABEL] = release.version
    expected["commonAnnotations"][REVISION_ANNOTATION] = release.revision
    try:
        as_meant = _load(result, where) == expected
    except ReleaseError:
        as_meant = False
    if not as_meant:
        raise ReleaseError(
            f"{where} is written in a way that cannot be edited: keep the four values plain, without anchors"
        )
    return result


def _nodes(text: str, where: str) -> dict[Field, ScalarNode]:
    try:
        document = yaml.compose(text, LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ReleaseError(f"{where}{line} is not YAML: {getattr(error, 'problem', error)}") from None
    if document is not None:
        _check_keys(document, where)
    images = [
        each
        for each in _items(_get(document, "images"))
        if isinstance(name := _get(each, "name"), ScalarNode) and name.value == IMAGE
    ]
    labels = [
        found
        for each in _items(_get(document, "labels"))
        if (found := _get(_get(each, "pairs"), VERSION_LABEL))
    ]
    wanted: dict[Field, tuple[list[Node | None], str]] = {
        "name": ([_get(each, "newName") for each in images], f"newName of the image {IMAGE} under images"),
        "digest": ([_get(each, "digest") for each in images], f"digest of the image {IMAGE} under images"),
        "version": (list(labels), f"label {VERSION_LABEL} in the pairs of labels"),
        "revision": (
            [_get(_get(document, "commonAnnotations"), REVISION_ANNOTATION)],
            f"annotation {REVISION_ANNOTATION} in commonAnnotations",
        ),
    }
    result: dict[Field, ScalarNode] = {}
    for field, (candidates, title) in wanted.items():
        scalars = [each for each in candidates if isinstance(each, ScalarNode)]
        if len(scalars) != 1:
            raise ReleaseError(f"{where} must have one {title}, and has {len(scalars)}")
        result[field] = scalars[0]
    return result


def _check_keys(root: Node, where: str) -> None:
    """Refuse a key that stands twice in a mapping: PyYAML and kustomize take one of the two without a word."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        # An anchor may stand in itself.
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, ScalarNode) and key.value in keys:
                    line = key.start_mark.line + 1
                    raise ReleaseError(f"{where} line {line} is not YAML: the key {key.value!r} stands twice")
                keys |= {key.value} if isinstance(key, ScalarNode) else set()
                waiting.append(value)
        elif isinstance(node, SequenceNode):
            waiting += node.value


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError) as error:
        raise ReleaseError(f"{where} is not YAML: {getattr(error, 'problem', error)}") from None


def _get(node: Node | None, key: str) -> Node | None:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            if isinstance(name, ScalarNode) and name.value == key:
                return value  # type: ignore[no-any-return]
    return None


def _items(node: Node | None) -> list[Node]:
    return list(node.value) if isinstance(node, SequenceNode) else []
