"""The service as processes of its own, as it runs in production."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tools import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 30
"""Seconds after which something that should happen is taken not to happen; machines may be slow."""


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"


def start(model: Path, **settings: object) -> subprocess.Popen[str]:
    """`python -m app` with the given settings; its log can be read from `stderr`."""
    values = {"model_dir": model, "drain_seconds": 0, **settings}
    environment = {f"ESPALIER_{name.upper()}": str(value) for name, value in values.items()}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ESPALIER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=inherited | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(model: Path, **settings: object) -> Iterator[Running]:
    """A service that answers; stopped at the end if it still runs."""
    port = settings.pop("port", None) or free_port()
    assert isinstance(port, int)
    process = start(model, port=port, **settings)
    service = Running(process, port)
    try:
        wait_until_ready(service)
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def wait_until_ready(service: Running) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{service.url}/health/ready", timeout=PATIENCE).close()
        except OSError:
            assert service.process.poll() is None, service.process.communicate()[1]
            assert time.monotonic() < deadline, "the service does not become ready"
            time.sleep(0.02)
        else:
            return
