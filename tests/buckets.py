"""A real S3 server, SeaweedFS, with a bucket in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.app.processes import ROOT
from tests.tools import free_port, require
from training.storage import PORTS

BUCKET = "espalier"


@contextmanager
def bucket(folder: Path) -> Iterator[dict[str, str]]:
    """A server that keeps its data in a folder; gives the environment by which it is reached."""
    require("weed")
    (folder / ".dvc").mkdir(parents=True)
    # Servers that start at the same moment would choose the same usual ports; those of the last time come first.
    (folder / ".storage").mkdir()
    ports = {name: free_port() for name in PORTS}
    (folder / ".storage/state.json").write_text(json.dumps({"pid": 0, "ports": ports}))

    def storage(command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "training.storage", command],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent), "HOME": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    storage("start")
    try:
        found = re.search(r"http://\S+:\d+", storage("status"))
        assert found is not None
        yield {
            "AWS_ENDPOINT": found[0],
            "AWS_ACCESS_KEY_ID": "espalier",
            "AWS_SECRET_ACCESS_KEY": "espalier",
            "AWS_REGION": "us-east-1",
        }
    finally:
        storage("stop")
