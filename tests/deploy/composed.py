"""Runs services of compose.yaml by podman-compose, or by docker compose with a daemon of its own, from stand-ins for images of others."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.image.__main__ import main as image_main
from deploy.rehearsal import containers
from monitoring.stack import __main__ as stack
from tests.bundles import number_row, write_number_bundle
from tests.e2e.clone import ROOT, clone
from tests.tools import missing, require, require_built, require_containers

FILE = ROOT / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
ENGINES = ("podman", "docker")
PATIENCE = 60
START_SECONDS = 180
GET = """#!/usr/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1], timeout=5)
"""
"""For health checks: what is left of `wget` and `curl` in a stand-in."""
START_POSTGRES = """#!/bin/sh
# Of the image's own start: a cluster with the user and the database, which admits the user by password over the network.
set -eu
if ! [ -f "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=trust
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl start --wait --options="-c listen_addresses="
  createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl stop --wait
fi
exec "$@" -c listen_addresses='*'
"""


IMAGE = "localhost/espalier:targets"
"""The service, with a small bundle."""
ROW = number_row((5.1, 3.5, 1.4, 0.2))


def configure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Do in a folder what `make compose` does, for IMAGE; it becomes the working directory."""
    write_number_bundle(folder / "model")
    monkeypatch.chdir(folder)
    stack.configure(stack._parser().parse_args(["configure", "--bundle=model", f"--image={IMAGE}"]))
    return folder


def wait_for(url: str) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)


def predicts(url: str) -> bool:
    body = json.dumps(ROW.values).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return bool(json.loads(answer.read())["label"] == ROW.label)


# ------------------------------------------------------------------------------------------------------- images


def service(folder: Path) -> None:
    """IMAGE, built as `make image` does in a clone, which the folder gets."""
    clone(folder)
    write_number_bundle(folder / "model")
    image_main(["build", "--tag", IMAGE], folder)


def watchers() -> None:
    """Prometheus and Alertmanager: this machine's programs."""
    for name, program, data in (
        ("prometheus", "prometheus", "/prometheus"),
        ("alertmanager", "prometheus-alertmanager", "/alertmanager"),
    ):
        files: dict[str, str | Path] = {"usr/bin/program": Path(require(program)), "usr/bin/wget": GET}
        if (templates := Path("/usr/share/prometheus")).exists():
            files["usr/share/prometheus"] = templates
        stand_in(
            name,
            files,
            f"RUN install -d -o nobody {data}",
            "USER nobody",
            'ENTRYPOINT ["/usr/bin/program"]',
        )


def postgres() -> None:
    """Debian's PostgreSQL, with the user, folders, variables and signal of the image."""
    version = SERVICES["postgres"]["image"].rpartition(":")[2].partition(".")[0]
    packages = "/var/cache/apt/archives"
    stand_in(
        "postgres",
        {"usr/local/bin/start": START_POSTGRES},
        # Unpacked without their scripts, which would make a cluster; and without the compiler of queries, which is large.
        "RUN apt-get update -q"
        f" && apt-get install -q -y --no-install-recommends --download-only postgresql-{version}"
        f" && rm -f {packages}/*llvm* {packages}/*clang* {packages}/*perl*"
        f" && for each in {packages}/*.deb; do dpkg -x $each /; done"
        f" && rm -rf {packages}/* /var/lib/apt/lists/*",
        "RUN groupadd -r -g 999 postgres && useradd -r -u 999 -g postgres postgres"
        " && install -d -o postgres -g postgres -m 3777 /run/postgresql"
        " && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data",
        f"ENV PATH=/usr/lib/postgresql/{version}/bin:/usr/local/bin:/usr/bin:/bin",
        "ENV PGDATA=/var/lib/postgresql/data",
        "STOPSIGNAL SIGINT",
        'ENTRYPOINT ["/usr/local/bin/start"]',
        'CMD ["postgres"]',
    )


def storage() -> None:
    """SeaweedFS from PyPI, with the options that the image adds and its folder of data."""
    stand_in(
        "storage",
        {
            "usr/bin/weed": Path(require("weed")),
            "usr/bin/curl": GET,
            "entrypoint.sh": "#!/bin/sh\nshift\nexec weed server -dir=/data -volume.max=0 -master.volumePreallocate "
            '-master.volumeSizeLimitMB=1024 "$@"\n',
        },
        "RUN install -d -o 1000 -g 1000 /data",
        "WORKDIR /data",
        'ENTRYPOINT ["/entrypoint.sh"]',
    )


def stand_in(service: str, files: Mapping[str, str | Path], *lines: str) -> None:
    """Build an image under the name that compose.yaml has for a service.

    Args:
        service: the service.
        files: text, or a file or folder of this machine, by path.
        lines: of the Dockerfile.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in files.items():
            target = folder / "files" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                target.write_text(content)
                target.chmod(0o755)
            elif content.is_dir():
                shutil.copytree(content, target)
            else:
                shutil.copy(content, target)
        (folder / "Dockerfile").write_text(
            "\n".join([f"FROM {containers.BASE}", "COPY files /", *lines]) + "\n"
        )
        command = ["build", *build_options(), "--quiet", f"--tag={SERVICES[service]['image']}"]
        containers.call("podman", *command, str(folder))


def mlflow() -> None:
    """The image of MLflow, built as compose.yaml says, on this machine's base."""
    options = " ".join([*build_options(), f"--from={containers.BASE}"])
    subprocess.run(
        [require("podman-compose"), f"--file={FILE}", f"--podman-build-args={options}", "build", "mlflow"],
        cwd=ROOT,
        env={**os.environ, "IMAGE": "unused", "COMPOSE_PROFILES": "mlflow"},
        check=True,
    )


def build_options() -> list[str]:
    return ["--isolation=chroot", "--network=host", *os.environ["IMAGE_BUILD_ARGS"].split()]


# ------------------------------------------------------------------------------------------------------ engines


class Composed(ABC):
    """Services of a project."""

    def __init__(self, project: Path) -> None:
        self.project = project
        # A network of podman is the machine's and not the storage's, so another run must not have the same.
        self.name = f"espalier-{uuid.uuid4().hex[:8]}"
        self.environment = {**os.environ, "COMPOSE_PROFILES": "mlflow"}

    @property
    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def up(self, *services: str) -> None:
        """Start services and what they depend on, and wait until each is healthy."""

    def call(self, *arguments: str, check: bool = True, input: str | None = None) -> str:
        """What the compose program printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL if input is None else None,
            input=input,
            timeout=START_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def execute(self, service: str, *command: str, input: str | None = None) -> str:
        """What a command in a service's container printed."""
        return self.call("exec", "-T", service, *command, input=input)

    def logs(self) -> str:
        done = subprocess.run(
            [*self.command, "logs"],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout.decode(errors="replace")


class _Podman(Composed):
    @property
    def command(self) -> list[str]:
        return [require("podman-compose"), f"--project-name={self.name}"]

    def up(self, *services: str) -> None:
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                [*self.command, "up", "--detach", *services],
                cwd=self.project,
                env=self.environment,
                stdout=said,
                stderr=said,
            )
            # Without systemd there is no timer for health checks, and podman before 4.6 waits for no dependency.
            deadline = time.monotonic() + START_SECONDS
            needed = {
                *services,
                *(other for each in services for other in SERVICES[each].get("depends_on", ())),
            }
            while process.poll() is None or not all(map(self._is_healthy, needed)):
                if process.poll() or time.monotonic() > deadline:
                    process.kill()
                    said.seek(0)
                    raise AssertionError(f"{services} do not become healthy: {said.read()}{self.logs()}")
                time.sleep(0.5)

    def _is_healthy(self, service: str) -> bool:
        healthy = containers.call("podman", "healthcheck", "run", f"{self.name}_{service}_1", check=False)
        return healthy is not None


class _Docker(Composed):
    @property
    def command(self) -> list[str]:
        return [require("docker-compose"), f"--project-name={self.name}"]

    def up(self, *services: str) -> None:
        self.call("up", "--wait", *services)


@contextmanager
def compose(engine: str, project: Path, images: Sequence[str]) -> Iterator[Composed]:
    """Services of a folder with compose.yaml by an engine that has these images of podman's storage; removed at the end."""
    if engine == "docker":
        require_built("docker-compose", "`.ci/build FOLDER` builds it")
        with _daemon(images):
            yield from _until_down(_Docker(project))
    else:
        # Another run, or what a killed one left, must not have the same addresses.
        subnet = f"10.{random.randrange(100, 250)}.{random.randrange(256)}.0/24"
        (project / "compose.override.yaml").write_text(
            f"networks: {{default: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}}}\n"
        )
        yield from _until_down(_Podman(project))


def _until_down(composed: Composed) -> Iterator[Composed]:
    try:
        yield composed
    finally:
        composed.call("down", "--volumes", check=False)


# It has namespaces of its own: networks, rules of the firewall, mounts and processes, all of which end with it. With /run it has
# a containerd of its own, too.
_START_DAEMON = 'mount -t tmpfs tmpfs /run; ip link set lo up; exec "$@"'


@contextmanager
def _daemon(images: Sequence[str]) -> Iterator[None]:
    """Docker's daemon with images of podman's storage; this thread is in its network, and DOCKER_HOST names it."""
    with tempfile.TemporaryDirectory(prefix="docker-") as name:
        folder = Path(name)
        socket = folder / "socket"
        command = [
            *(require("unshare"), "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("sh", "-euc", _START_DAEMON, "sh", require("dockerd"), f"--host=unix://{socket}"),
            *(f"--data-root={folder / 'data'}", f"--exec-root={folder / 'state'}"),
            f"--pidfile={folder / 'pid'}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        former = os.environ.get("DOCKER_HOST")
        try:
            client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://docker")
            _wait_for_daemon(client, process, folder / "log")
            containers.call(
                "podman", "save", "--multi-image-archive", f"--output={folder / 'images'}", *images
            )
            with (folder / "images").open("rb") as file:
                client.post("/images/load", content=file, timeout=START_SECONDS).raise_for_status()
            (folder / "images").unlink()
            os.environ["DOCKER_HOST"] = f"unix://{socket}"
            with _network_of(process.pid):
                yield
        finally:
            if former is None:
                os.environ.pop("DOCKER_HOST", None)
            else:
                os.environ["DOCKER_HOST"] = former
            # Not unshare, which ignores the signal and ends with its child.
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
            process.wait(timeout=PATIENCE)


def _wait_for_daemon(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.get("/_ping").raise_for_status()
        except httpx.HTTPError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return


@contextmanager
def _network_of(process: int) -> Iterator[None]:
    """Let this thread, and the processes that it starts, use the network of a process."""
    # os.setns is in Python since 3.12.
    enter = ctypes.CDLL(None, use_errno=True).setns
    with Path("/proc/thread-self/ns/net").open() as before, Path(f"/proc/{process}/ns/net").open() as there:
        if enter(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            enter(before.fileno(), 0)


def require_engines() -> None:
    """Skip without what starts containers here; docker is asked for where it is used."""
    require_containers()
    if not any(Path(each).exists() for each in ("/usr/lib/cni/dnsname", "/usr/lib/podman/aardvark-dns")):
        missing("a resolver for podman's networks")
