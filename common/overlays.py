"""Where the overlays of the environments are, and under which keys they name the running version and revision."""

from __future__ import annotations

FOLDER = "deploy/overlays"
VERSION_LABEL = "app.kubernetes.io/version"
REVISION_ANNOTATION = "espalier.dev/revision"


def path(environment: str) -> str:
    """The overlay of an environment, from the top of the repository."""
    return f"{FOLDER}/{environment}/kustomization.yaml"
