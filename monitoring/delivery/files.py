"""What is read of the repository's files, whichever the source: overlays and the leaderboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .documents import Value, load

OVERLAYS = "deploy/overlays"
IMAGE = "espalier"
VERSION = "app.kubernetes.io/version"
REVISION = "espalier.dev/revision"
LEADERBOARD = "reports/leaderboard.json"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


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
    found = set(names)
    first = [name for name in ("staging", "production") if name in found]
    return (*first, *sorted(found - set(first)))


def parse(text: str | None) -> Release | None:
    """The three values that the release tool writes; None where one is missing, or the text cannot be read."""
    try:
        document = load(text or "")
    except (ValueError, RecursionError):
        return None
    digests = [
        _get(each, "digest") for each in _items(_get(document, "images")) if _get(each, "name") == IMAGE
    ]
    pairs = [_get(each, "pairs") for each in _items(_get(document, "labels"))]
    versions = [each[VERSION] for each in pairs if isinstance(each, dict) and VERSION in each]
    revisions = [_get(_get(document, "commonAnnotations"), REVISION)]
    found = [
        values[0]
        for values, form in ((digests, _DIGEST), (versions, _LABEL), (revisions, _COMMIT))
        if len(values) == 1 and isinstance(values[0], str) and form.fullmatch(values[0])
    ]
    return Release(*found) if len(found) == 3 else None


def _get(value: Value, key: str) -> Value:
    return value.get(key) if isinstance(value, dict) else None


def _items(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []


def champion_scores(text: str | None) -> dict[tuple[str, str], float]:
    """The champion's metrics by split and name; nothing where the leaderboard is none, or of another form."""
    try:
        board = json.loads(text or "")
        row = next(each for each in board["rows"] if each["algorithm"] == board["champion"])
        scores = {("cv", str(board["score"])): float(row["cv_mean"])}
        scores |= {("test", str(name)): float(each["value"]) for name, each in row["test"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return scores
