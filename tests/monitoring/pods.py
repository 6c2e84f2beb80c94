"""The cluster's manifests of what watches the service, and its programs run as their containers would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from deploy.manifests import render

Document = dict[str, Any]


@cache
def rendered() -> list[Document]:
    return render.parse(render.render(render.MONITORING))


def get(documents: list[Document], which: str) -> Document:
    """The object of a kind and name, as "Service espalier-relay"; names of programs' ConfigMaps end with a hash."""
    kind, name = which.split()
    return next(
        each
        for each in documents
        if each["kind"] == kind and re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", each["metadata"]["name"])
    )


def pod(program: str) -> Document:
    found: Document = get(rendered(), f"Deployment espalier-{program}")["spec"]["template"]["spec"]
    return found


def container(program: str) -> Document:
    found: Document = pod(program)["containers"][0]
    return found


def run(program: str, root: Path, token: str | None, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a program's command on what is mounted for it, with a Python that has no packages.

    Args:
        program: its name without "espalier-".
        root: a folder that stands for the container's root.
        token: what the Secret holds; None for an empty one.
        *more: arguments after the container's own.
    """
    volumes = {each["name"]: each for each in pod(program)["volumes"]}
    given = container(program)
    places = {}
    for mount in given["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "emptyDir" in volume:
            continue
        data = {} if token is None else {"token": token}
        if "configMap" in volume:
            data = get(rendered(), f"ConfigMap {volume['configMap']['name']}")["data"]
        places[mount["mountPath"]] = _mount(root / mount["mountPath"].lstrip("/"), data)

    def here(text: str) -> str:
        for path, place in places.items():
            text = text.replace(path, str(place))
        return text

    return subprocess.run(
        [sys.executable, "-S", *map(here, given["args"]), *more],
        cwd=root / given.get("workingDir", "/").lstrip("/"),
        env=os.environ | {each["name"]: here(each["value"]) for each in given.get("env", [])},
        capture_output=True,
        text=True,
        check=False,
    )


def _mount(place: Path, data: dict[str, str]) -> Path:
    """As the kubelet does it: the files are links into a folder that is exchanged as a whole."""
    (place / "..1").mkdir(parents=True)
    (place / "..data").symlink_to("..1")
    for name, text in data.items():
        (place / "..1" / name).write_text(text)
        (place / name).symlink_to(f"..data/{name}")
    return place
