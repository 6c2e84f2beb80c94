"""The commands that start our server and each peer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.serving import environments, shapes
from benchmarks.serving.measure import Target
from benchmarks.serving.processes import ROOT, Server
from benchmarks.serving.subjects import Subject

ENVIRONMENTS = ROOT / "build" / "benchmarks"


def ours(subject: Subject) -> Server:
    """The service as users start it."""
    environment = {"ESPALIER_MODEL_DIR": str(subject.bundle), "ESPALIER_PORT": "{port}"}
    return Server([sys.executable, "-m", "app"], {**environment, "ESPALIER_DRAIN_SECONDS": "0"})


def bare(answer: bytes, folder: Path) -> Server:
    """A constant on uvicorn, with the settings that `app/server.py` gives it."""
    path = folder / "answer.json"
    path.write_bytes(answer)
    flags = (
        *("--http=httptools", "--loop=uvloop", "--ws=none", "--lifespan=off", "--no-access-log"),
        *("--no-server-header", "--no-proxy-headers", "--log-level=warning"),
    )
    return under_uvicorn("bare", *flags, ANSWER_FILE=path)


def under_uvicorn(peer: str, *flags: str, **environment: Path) -> Server:
    """A peer under uvicorn in the project's own environment."""
    module = f"benchmarks.serving.peers.{peer}:app"
    command = [sys.executable, "-m", "uvicorn", module, "--port={port}", *flags]
    return Server(command, {name: str(value) for name, value in environment.items()})


def kserve(forest: Subject) -> list[Target]:
    # A log line for each request and a second server would slow it down.
    quiet = ("--enable_grpc=false", "--configure_logging=false", "--enable_latency_logging=false")
    server = _script("kserve", "kserve_sdk", forest, "--http_port={port}", *quiet)
    name = f"KServe SDK {environments.version_of('kserve')}"
    return [
        Target(f"{name}, v1", server, shapes.lists("/v1/models/iris:predict", forest), least=6),
        Target(f"{name}, v2", server, shapes.one_tensor("/v2/models/iris/infer", forest), least=6),
    ]


def litserve(forest: Subject) -> list[Target]:
    name = f"LitServe {environments.version_of('litserve')}"
    return [Target(name, _script("litserve", "litserve_api", forest), shapes.single(forest))]


def mlserver(forest: Subject) -> list[Target]:
    exchange = shapes.one_tensor("/v2/models/iris/infer", forest)
    name = f"MLServer {environments.version_of('mlserver')}"
    return [Target(name, _script("mlserver", "mlserver_runtime", forest), exchange)]


FRAMEWORKS: Mapping[str, Callable[[Subject], Sequence[Target]]] = {
    "KServe SDK": kserve,
    "LitServe": litserve,
    "MLServer": mlserver,
}
"""Peers that need their own environment, which is created on demand."""


def _script(peer: str, script: str, subject: Subject, *flags: str) -> Server:
    python = environments.python_of(peer, ENVIRONMENTS)
    path = environments.PEERS / f"{script}.py"
    return Server([python, str(path), *flags], {"MODEL_FILE": str(subject.model), "PORT": "{port}"})
