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
from deploy import clusters
from deploy.errors import DeployError
from deploy.programs import find
from deploy.yaml_loader import LOADER

FOLDER = Path(__file__).parents[1]
PLACEHOLDER = Release("registry.example.com/espalier", f"sha256:{'0' * 64}", "none", "0" * 40)
WAYS = (
    "ingress-alb",
    "gateway-api",
    "deployment",
    "prediction-log",
    "feature-store",
    "batch-scoring",
    "batch-scoring-release",
)
"""The components that an overlay may list, beside its environment's and its release."""
ARGOCD = FOLDER / "argocd"
MONITORING = FOLDER.parent / "monitoring"
OPTIONS = ("admission", "external-secrets", "external-dns", "cluster-training")
"""What may be switched on in Argo CD's kustomization."""
PLATFORMS = ("eks", "eks-auto")
"""Those that need something in a cluster."""
TRAINING = ("eks", "eks-auto", "gke", "kind")
"""The platforms where training can run: all there are."""
VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("ingress-alb",),
    ("gateway-api",),
    ("deployment",),
    ("ingress-alb", "deployment"),
    ("gateway-api", "deployment"),
    ("ingress-alb", "prediction-log"),
    ("ingress-alb", "prediction-log", "deployment"),
    ("ingress-alb", "feature-store"),
    ("ingress-alb", "batch-scoring"),
    ("ingress-alb", "batch-scoring", "batch-scoring-release", "deployment"),
)
"""The sets of these, in their order."""


class RenderError(DeployError):
    """Kustomize refuses a kustomization."""


def environments(root: Path = FOLDER) -> list[str]:
    """The names of the environments, by wave."""

    def text_of(path: str) -> str | None:
        file = root.parent / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return [each.name for each in clusters.read(text_of)]


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
        for name in ("base", "components", "environment", "overlays", "platforms"):
            shutil.copytree(root / name, copy / name)
        for path in (clusters.CLUSTERS, clusters.ENVIRONMENTS):
            shutil.copy(root.parent / path, copy.parent / path)
        for overlay in copy.glob("overlays/*/*/kustomization.yaml"):
            release = overlay.parent / overlays.FILE
            if not release.exists():
                release.parent.mkdir(exist_ok=True)
                release.write_text(str(PLACEHOLDER), encoding="utf-8")
        yield copy


def choose(overlay: Path, components: Sequence[str]) -> None:
    """Have an overlay list these components in place of those that it, or a component of it, has of WAYS."""
    chosen = [f"../../../components/{each}" for each in components]
    for each in _replace_components(overlay, chosen):
        if each.startswith("../../../components/") and each not in chosen:
            _replace_components(overlay / each, [])


def switch_on(folder: Path, options: Sequence[str]) -> None:
    """Have a kustomization list these components too, by taking the mark of a comment away.

    Raises:
        RenderError: it has no such line.
    """
    path = folder / "kustomization.yaml"
    text = path.read_text(encoding="utf-8")
    for each in options:
        text = text.replace(f"\n# - {each}\n", f"\n- {each}\n")
        if f"\n- {each}\n" not in text:
            raise RenderError(f"{path} has no line `# - {each}`")
    path.write_text(text, encoding="utf-8")


def _replace_components(folder: Path, chosen: Sequence[str]) -> list[str]:
    editor = YAML()
    path = folder / "kustomization.yaml"
    content = editor.load(path.read_text(encoding="utf-8"))
    if "components" not in content:
        return []
    others = [each for each in content["components"] if each.rpartition("/")[2] not in WAYS]
    content["components"] = [*chosen, *others]
    with path.open("w", encoding="utf-8") as stream:
        editor.dump(content, stream)
    return list(content["components"])
