"""Makes a Dask worker work in the model's folder: the client's own, or a copy where the worker does not see it.

A worker may have other code than the client, or none. So this module imports nothing of the project, and is itself sent.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

NAME = "espalier-workspace"


class Workspace(WorkerPlugin):  # type: ignore[misc]
    """Enters a folder and imports from it; a worker that joins later does so, too.

    Attributes:
        root: of the repository.
        folder: of the model, from the root.
        packages: of the repository and of the model, which a worker forgets before it imports them from here.
        content: a ZIP file of the root's files that workers need; empty if they see the client's.
    """

    name = NAME

    def __init__(self, root: Path, folder: Path, packages: Sequence[str], content: bytes = b"") -> None:
        self.root = root
        self.folder = folder
        self.packages = packages
        self.content = content

    def setup(self, worker: Any) -> None:
        self._before = Path.cwd(), list(sys.path)
        root = self.root
        if self.content:
            self._copy = tempfile.TemporaryDirectory(prefix="espalier-", dir=worker.local_directory)
            root = Path(self._copy.name)
            with zipfile.ZipFile(io.BytesIO(self.content)) as file:
                file.extractall(root)
        os.chdir(root / self.folder)
        sys.path[:0] = [str(root / self.folder), str(root)]
        self._forget()

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        os.chdir(self._before[0])
        sys.path[:] = self._before[1]
        self._forget()
        if self.content:
            self._copy.cleanup()

    def _forget(self) -> None:
        for name in [each for each in sys.modules if each.partition(".")[0] in self.packages]:
            del sys.modules[name]


def sees(file: Path, content: str) -> bool:
    """Whether a worker sees a file of the client with the same content."""
    try:
        return file.read_text(encoding="utf-8") == content
    except OSError:
        return False


def environment(names: Sequence[str]) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}
