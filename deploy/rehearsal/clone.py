"""Copies this working tree into a repository of its own, so that a rehearsal or a test can change everything."""

from __future__ import annotations

import shutil
from pathlib import Path

from common.git import git

ROOT = Path(__file__).parents[2]


def commit_working_tree(destination: Path) -> None:
    """Make a repository whose one commit is the working tree as it stands, uncommitted files included."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, destination / name)
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    git("init", "-q", "-b", "main", cwd=destination)
    git("add", "-A", cwd=destination)
    git(*identity, "commit", "-qm", "as it stands", cwd=destination)
