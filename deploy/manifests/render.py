"""Renders the kustomizations under deploy/ with kubectl, as they are and with other components."""

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

from deploy.errors import DeployError
from deploy.programs import find
from deploy.yaml_loader import LOADER

FOLDER = Path(__file__).parents[1]
ENVIRONMENTS = ("staging", "production")
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
"""The sets of components that an overlay may list, in their order."""


class RenderError(DeployError):
    """Kustomize refuses a kustomization."""


def overlay(environment: str, root: Path = FOLDER) -> Path:
    return root / "overlays" / environment


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
def variant(components: Sequence[str], root: Path = FOLDER) -> Iterator[Path]:
    """A copy of deploy/ whose overlays list these components instead of theirs."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for name in ("base", "components", "overlays"):
            shutil.copytree(root / name, copy / name)
        editor = YAML()
        for environment in ENVIRONMENTS:
            path = overlay(environment, copy) / "kustomization.yaml"
            content = editor.load(path.read_text(encoding="utf-8"))
            content["components"] = [f"../../components/{each}" for each in components]
            with path.open("w", encoding="utf-8") as stream:
                editor.dump(content, stream)
        yield copy
