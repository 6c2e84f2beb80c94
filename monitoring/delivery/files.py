"""Reads the repository's files: the values that the release tool writes into overlays, and the leaderboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

OVERLAYS = "deploy/overlays"
LEADERBOARD = "reports/leaderboard.json"

# The exporter's image has no YAML library, so the values are found by their keys, in block or flow style.
_COMMENT = re.compile(r"(?<!\S)#.*")
_ITEM = re.compile(r"^ *- |[{}]", re.MULTILINE)


def _key(key: str) -> str:
    return rf"""(?<![\w./-])["']?{key}["']?\s*:"""


def _pair(key: str, value: str) -> re.Pattern[str]:
    return re.compile(rf"""{_key(key)}\s*(?:&\w+\s+)?["']?({value})["']?(?=[\s,}}\]]|\Z)""")


_SECTIONS = [re.compile(_key(key)) for key in ("images", "labels", "commonAnnotations")]
_IMAGE = _pair("name", "espalier")
_DIGEST = _pair("digest", "sha256:[0-9a-f]{64}")
_VERSION = _pair(r"app\.kubernetes\.io/version", r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_REVISION = _pair(r"espalier\.dev/revision", "[0-9a-f]{40}")


@dataclass(frozen=True)
class Release:
    """What an overlay says that its environment runs."""

    digest: str
    version: str
    revision: str

    @property
    def empty(self) -> bool:
        """Whether nothing was released yet."""
        return self.digest == "sha256:" + "0" * 64


def overlay(environment: str) -> str:
    return f"{OVERLAYS}/{environment}/kustomization.yaml"


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Names of environments, staging and production first."""
    return tuple(sorted(names, key=lambda name: (name != "staging", name != "production", name)))


def parse(text: str | None) -> Release | None:
    """The three values that the release tool writes; None where one is missing or is given twice."""
    said = _COMMENT.sub("", text or "")
    digests = [each for item in _ITEM.split(said) if _IMAGE.search(item) for each in _DIGEST.findall(item)]
    if not all(section.search(said) for section in _SECTIONS):
        return None
    found = [digests, _VERSION.findall(said), _REVISION.findall(said)]
    return Release(*(each[0] for each in found)) if all(len(each) == 1 for each in found) else None


def champion_scores(text: str | None) -> dict[tuple[str, str], float]:
    """The champion's metrics by split and name; nothing where the text is no leaderboard of the known form."""
    try:
        board = json.loads(text or "")
        row = next(each for each in board["rows"] if each["algorithm"] == board["champion"])
        scores = {("cv", str(board["score"])): float(row["cv_mean"])}
        scores |= {("test", str(name)): float(each["value"]) for name, each in row["test"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return scores
