"""Where the overlays of the environments are, and under which keys they name the running version and revision."""

from __future__ import annotations

from pathlib import Path

from common import models

FOLDER = "deploy/overlays"
VERSION_LABEL = "app.kubernetes.io/version"
REVISION_ANNOTATION = "espalier.dev/revision"


def path(environment: str, model: str | None = None) -> str:
    """The overlay of an environment, or of a further model in it, from the top of the repository."""
    return "/".join(filter(None, (FOLDER, environment, model, "kustomization.yaml")))


def from_here(environment: str) -> Path:
    """The overlay of the model in whose folder this process works, from that folder."""
    name = models.further(Path())
    return Path("../.." if name else "") / path(environment, name)
