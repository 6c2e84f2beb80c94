"""Reads `dvc.lock`: the only module that knows its keys. Callers parse the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOCK_FILE = "dvc.lock"


@dataclass(frozen=True)
class Entry:
    """A file or folder that a stage reads or writes, and the hash of its content (ending in .dir for a folder)."""

    path: str
    md5: str


@dataclass(frozen=True)
class Stage:
    params: Mapping[str, Mapping[str, Any]]
    """Values by file and key."""
    deps: tuple[Entry, ...]
    outs: tuple[Entry, ...]


def stages(document: Any) -> dict[str, Stage]:
    """The stages of a parsed `dvc.lock`, by name.

    Raises:
        ValueError: DVC did not write it.
    """
    try:
        return {
            name: Stage(dict(stage.get("params", {})), _entries(stage, "deps"), _entries(stage, "outs"))
            for name, stage in document["stages"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("it is not a dvc.lock that DVC wrote") from None


def outputs(document: Any) -> dict[str, Entry]:
    """The outputs of all stages, by path. Raises ValueError, as `stages` does."""
    return {each.path: each for stage in stages(document).values() for each in stage.outs}


def _entries(stage: Mapping[str, Any], kind: str) -> tuple[Entry, ...]:
    return tuple(Entry(each["path"], each["md5"]) for each in stage.get(kind, ()))
