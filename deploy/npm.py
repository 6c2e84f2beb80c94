"""Installs programs of npm that a folder of this repository pins, with their digests, in its package-lock.json."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from deploy.programs import call, find


def install(folder: Path, root: Path = Path()) -> Path:
    """Install what the lock names into build/, unless it is there; npm checks its digests, and no script of a package runs.

    Args:
        folder: what holds package.json and package-lock.json, below the root.
        root: the clone.

    Returns:
        The folder with `node_modules`.

    Raises:
        MissingProgramError: npm is not installed.
        DeployError: npm fails.
    """
    source, target, npm = root / folder, root / "build" / folder.name, find("npm")
    if _is_complete(source, target):
        return target
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=target.parent) as name:
        made = Path(name) / "installed"
        shutil.copytree(source, made)
        call([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=made)
        # Another process may have been faster, and may be using it.
        if not _is_complete(source, target):
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    return target


def _is_complete(source: Path, target: Path) -> bool:
    lock, installed = source / "package-lock.json", target / "package-lock.json"
    return (
        (target / "node_modules").is_dir()
        and installed.exists()
        and installed.read_bytes() == lock.read_bytes()
    )
