"""What is read of the repository's files, whichever the source: overlays and the leaderboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

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
    """The three values that the release tool writes, by the lines that they stand on; None where one is missing."""
    digests: list[str] = []
    versions: list[str] = []
    revisions: list[str] = []
    block, image = "", {"name": "", "digest": ""}
    for line in [*(text or "").splitlines(), "end:"]:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A list may begin in the column of its key.
        top = not line[0].isspace() and not line.startswith("-")
        if block == "images" and (top or line.lstrip().startswith("-")):
            if image["name"] == IMAGE:
                digests.append(image["digest"])
            image = {"name": "", "digest": ""}
        key, value = _pair(line)
        if top:
            block = key
        elif block == "images" and key in image:
            image[key] = value
        elif block == "labels" and key == VERSION:
            versions.append(value)
        elif block == "commonAnnotations" and key == REVISION:
            revisions.append(value)
    found = [
        values[0]
        for values, form in ((digests, _DIGEST), (versions, _LABEL), (revisions, _COMMIT))
        if len(values) == 1 and form.fullmatch(values[0])
    ]
    return Release(*found) if len(found) == 3 else None


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.strip().removeprefix("- ").strip().partition(":")
    value = value.strip()
    if value[:1] in ("'", '"'):
        value = value[1:].partition(value[0])[0]
    else:
        value = re.split(r"\s#", value, maxsplit=1)[0].strip()
    return key.strip("'\" "), value


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
