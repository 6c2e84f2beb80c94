"""Where the overlays of models are, and the file in each that says what runs there.

`deploy/overlays/ENVIRONMENT/MODEL/release/kustomization.yaml` exists from a model's first release on. Only the release
tool writes it, so it has one form and is read without a YAML library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common import models
from common.errors import EspalierError

FOLDER = "deploy/overlays"
FILE = "release/kustomization.yaml"
"""In the overlay of a model."""
VERSION_LABEL = "app.kubernetes.io/version"
REVISION_ANNOTATION = "espalier.dev/revision"

_FORM = f"""\
# `python -m deploy.release` writes this file: the image that runs, its model's version, and the commit it was built from.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
  - name: espalier
    newName: "NAME"
    digest: DIGEST
labels:
  - pairs:
      {VERSION_LABEL}: "VERSION"
    includeTemplates: true
commonAnnotations:
  {REVISION_ANNOTATION}: "REVISION"
"""
_VALUES = {
    "name": r'[^\s"@\\]+',
    "digest": "sha256:[0-9a-f]{64}",
    # The form of a label's value in Kubernetes.
    "version": "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
    "revision": "[0-9a-f]{40}",
}


_PLACES = re.compile("|".join(name.upper() for name in _VALUES))
_WRITTEN = re.compile(
    _PLACES.sub(lambda found: f"(?P<{found[0].lower()}>{_VALUES[found[0].lower()]})", re.escape(_FORM))
)
DIGEST, VERSION, REVISION = (re.compile(_VALUES[name]) for name in ("digest", "version", "revision"))


class OverlayError(EspalierError):
    """A release file was changed by hand, or by a merge."""


@dataclass(frozen=True)
class Release:
    """What a model runs in an environment."""

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

    def __str__(self) -> str:
        """The text of the release file."""
        return _PLACES.sub(lambda found: str(getattr(self, found[0].lower())), _FORM)


def parse(text: str, where: str) -> Release:
    """What a release file says.

    Raises:
        OverlayError: it is not in the form that the release tool writes.
    """
    found = _WRITTEN.fullmatch(text.replace("\r\n", "\n"))
    if found is None:
        raise OverlayError(
            f"{where} is not as `python -m deploy.release` writes it: take a side of a conflict, or restore it from git"
        )
    return Release(**found.groupdict())


def folder(environment: str, model: str) -> str:
    """The overlay of a model, from the top of the repository."""
    return f"{FOLDER}/{environment}/{model}"


def path(environment: str, model: str) -> str:
    """The file that says what a model runs, from the top of the repository."""
    return f"{folder(environment, model)}/{FILE}"


def from_here(environment: str) -> Path:
    """The release file of the model in whose folder this process works, from that folder."""
    here = Path()
    return Path("../.." if models.further(here) else "") / path(environment, models.name(here))
