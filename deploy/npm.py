"""Installs programs of npm that a folder of this repository pins, with their digests, in its package-lock.json."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.errors import DeployError
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
    lock, installed = source / "package-lock.json", target / "package-lock.json"
    complete = (target / "node_modules").is_dir() and installed.exists()
    if complete and installed.read_bytes() == lock.read_bytes():
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    try:
        call([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=target)
    except DeployError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target
