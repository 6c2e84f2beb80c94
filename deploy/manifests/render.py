"""Renders the kustomizations under deploy/ with kubectl, as they are and with other components.

A model that was never released has no release file, and kustomize refuses its overlay. Everything is rendered from a copy
in which such a model has a placeholder.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from common import models, overlays
from common.overlays import Release
from deploy.errors import DeployError
from deploy.programs import find
from deploy.yaml_loader import LOADER

FOLDER = Path(__file__).parents[1]
ENVIRONMENTS = ("staging", "production")
PLACEHOLDER = Release("registry.example.com/espalier", f"sha256:{'0' * 64}", "none", "0" * 40)
WAYS = ("ingress-alb", "gateway-api", "deployment", "prediction-log")
"""The components that an overlay may list, beside its environment's and its release."""
ARGOCD = FOLDER / "argocd"
MONITORING = FOLDER.parent / "monitoring"
VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("ingress-alb",),
    ("gateway-api",),
    ("deployment",),
    ("ingress-alb", "deployment"),
    ("gateway-api", "deployment"),
    ("ingress-alb", "prediction-log"),
    ("ingress-alb", "prediction-log", "deployment"),
)
"""The sets of these, in their order."""


class RenderError(DeployError):
    """Kustomize refuses a kustomization."""


def deployed(environment: str, root: Path = FOLDER) -> list[str]:
    """The models that have an overlay in an environment: the repository's first model, and the others sorted."""
    first = models.name(FOLDER.parent)
    found = (each.parent.name for each in (root / "overlays" / environment).glob("*/kustomization.yaml"))
    return sorted(found, key=lambda model: (model != first, model))


def render(folder: Path) -> str:
    """The manifests of a kustomization, as one text."""
    kubectl = find("kubectl", "run make setup")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise RenderError(f"{folder}: {done.stderr.strip().removeprefix('error: ')}")
    return done.stdout


def parse(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(text, LOADER) if each is not None]


@contextmanager
def copied(root: Path = FOLDER) -> Iterator[Path]:
    """A copy of deploy/ in which every overlay has a release."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "deploy"
        for name in ("base", "components", "environment", "overlays"):
            shutil.copytree(root / name, copy / name)
        for overlay in copy.glob("overlays/*/*/kustomization.yaml"):
            release = overlay.parent / overlays.FILE
            if not release.exists():
                release.parent.mkdir(exist_ok=True)
                release.write_text(str(PLACEHOLDER), encoding="utf-8")
        yield copy


def choose(overlay: Path, components: Sequence[str]) -> None:
    """Have an overlay list these components in place of those that it has of WAYS."""
    editor = YAML()
    path = overlay / "kustomization.yaml"
    content = editor.load(path.read_text(encoding="utf-8"))
    known = {f"../../../components/{each}" for each in WAYS}
    others = [each for each in content["components"] if each not in known]
    content["components"] = [*(f"../../../components/{each}" for each in components), *others]
    with path.open("w", encoding="utf-8") as stream:
        editor.dump(content, stream)
