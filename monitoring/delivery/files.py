"""Reads the repository's files: what the release tool writes for a model in an environment, and the leaderboard."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

OVERLAYS = "deploy/overlays"
RELEASE = "release/kustomization.yaml"
LEADERBOARD = "reports/leaderboard.json"

# The exporter's image has no YAML library. One program writes these lines (`common.overlays`), in one form.
_VALUES = (
    re.compile(r"^ +digest: (sha256:[0-9a-f]{64})$", re.MULTILINE),
    re.compile(r'^ +app\.kubernetes\.io/version: "([A-Za-z0-9._-]+)"$', re.MULTILINE),
    re.compile(r'^ +espalier\.dev/revision: "([0-9a-f]{40})"$', re.MULTILINE),
)


@dataclass(frozen=True)
class Release:
    """What a model runs in an environment."""

    digest: str
    version: str
    revision: str


@dataclass(frozen=True, order=True)
class Place:
    """A model in an environment."""

    environment: str
    model: str

    @property
    def path(self) -> str:
        """The file that says what runs there; there is none before the first release."""
        return f"{OVERLAYS}/{self.environment}/{self.model}/{RELEASE}"


def place(path: str) -> Place | None:
    """Whose release file this is; None for any other file."""
    found = re.fullmatch(rf"{OVERLAYS}/([^/]+)/([^/]+)/{RELEASE}", path)
    return Place(*found.groups()) if found else None


def parse(text: str | None) -> Release | None:
    """The three values that the release tool writes; None where one is missing or is there twice."""
    found = [value.findall((text or "").replace("\r\n", "\n")) for value in _VALUES]
    return Release(*(each[0] for each in found)) if all(len(each) == 1 for each in found) else None


def leaderboards(model: str) -> tuple[str, str]:
    """Where a model's leaderboard may be: in a further model's folder, or at the top, where the first model's is."""
    return f"models/{model}/{LEADERBOARD}", LEADERBOARD


def champion_scores(model: str, text: str | None) -> dict[tuple[str, str], float]:
    """The champion's metrics by split and name; nothing where the text is no leaderboard of this model."""
    try:
        board = json.loads(text or "")
        if board["name"] != model:
            return {}
        row = next(each for each in board["rows"] if each["algorithm"] == board["champion"])
        scores = {("cv", str(board["score"])): float(row["cv_mean"])}
        scores |= {("test", str(name)): float(each["value"]) for name, each in row["test"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return scores
