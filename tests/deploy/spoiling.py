"""Files and rendered manifests, made wrong in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

REMOVE = object()
"""Instead of a value: take away what the pointer leads to."""


def spoil(documents: list[dict[str, Any]], document: dict[str, Any], pointer: str, value: object) -> None:
    """Set or remove what a JSON pointer leads to in one of the documents.

    Args:
        documents: all of them.
        document: the one to spoil; it is itself removed if the pointer is empty.
        pointer: as RFC 6901 has it, without `~0`.
        value: what to put there, or `REMOVE`.
    """
    if not pointer:
        documents.remove(document)
        return
    *parents, last = (each.replace("~1", "/") for each in pointer[1:].split("/"))
    inside: Any = document
    for each in parents:
        inside = inside[int(each) if isinstance(inside, list) else each]
    key: Any = int(last) if isinstance(inside, list) else last
    if value is REMOVE:
        del inside[key]
    else:
        inside[key] = value


class Plant(NamedTuple):
    """A text in a file, what stands there instead, and what the check says then."""

    file: str
    old: str
    new: str
    said: str

    def put(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        assert self.old in text, f"{self.file} has no {self.old!r}"
        path.write_text(text.replace(self.old, self.new, 1), encoding="utf-8")
