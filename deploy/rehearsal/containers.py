"""Real images and containers: a separate storage, a base image, a registry, the service in a container.

podman, buildah and Debian's tools do it, without a daemon, as root. The base image that the Dockerfile names is not
available everywhere, so debootstrap makes one with the same contents, once for a machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from common.ports import free_port

TOOLS = {
    "podman": "apt install podman",
    "buildah": "apt install buildah",
    "runc": "apt install runc",
    "debootstrap": "apt install debootstrap",
    "docker-registry": "apt install docker-registry",
}
"""The programs that this module needs, and how to get them."""

PATIENCE = 30
"""Seconds until something that does not start or end has failed."""
BASE = "localhost/espalier-base:trixie"
USER, PASSWORD = "rehearsal", "rehearsal"
_HASH = "$2b$05$abcdefghijklmnopqrstuuJJJe5RxCDT7k6nKby9oXQblnVsj3UvG"
"""PASSWORD by bcrypt."""
SUITE, PACKAGES = "trixie", ("ca-certificates", "python3", "python3-venv")
# As in the official image, the standard library has no byte code and pip is installed.
_PREPARE = r"""
find usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} +
rm -rf var/lib/apt/lists/* var/cache/apt/* var/log/*
for library in usr/lib/python3.*; do
  mkdir -p "$library/site-packages/pip"
  touch "$library/site-packages/pip/__init__.py"
done
printf '#!/usr/bin/python3\n' > usr/local/bin/pip
chmod +x usr/local/bin/pip
"""


class ContainerError(Exception):
    """A program failed; the message holds its output."""


@contextmanager
def storage(folder: Path) -> Iterator[dict[str, str]]:
    """Give podman and buildah a storage in a folder that holds the base alone, and remove it at the end.

    Yields the variables that do it. Until the end they are set in this process and so in every child, with those that
    `python -m deploy.image` needs to build here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # It holds sockets, whose paths must be short: with longer ones podman never notices the end of a container.
    volatile = tempfile.mkdtemp(prefix="pods-")
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{volatile}"\n'
        # Otherwise the folder stays a mount that cannot be removed.
        '[storage.options.overlay]\nskip_mount_home = "true"\n',
        encoding="utf-8",
    )
    # Without systemd, runc makes control groups itself.
    engine = "" if Path("/run/systemd/system").exists() else 'cgroup_manager = "cgroupfs"\nruntime = "runc"\n'
    # podman's default limits may be more than this machine grants.
    limits = 'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]'
    (folder / "containers.conf").write_text(
        f'[containers]\n{limits}\n[engine]\nevents_logger = "none"\n{engine}', encoding="utf-8"
    )
    variables = {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "BUILDAH_ISOLATION": "chroot",
        "REGISTRY_AUTH_FILE": str(new_logins(folder / "auth.json")),
        "IMAGE_BASE": BASE,
        "IMAGE_BUILD_ARGS": _certificates(),
    }
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        if call("podman", "image", "exists", BASE, check=False) is None:
            call("podman", "import", str(_base_archive()), BASE)
        yield variables
    finally:
        call("podman", "rm", "--all", "--force", "--time=0", check=False)
        # A container that could not start leaves mounts behind, with which the folder cannot be removed.
        for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
            if (mounted := line.split()[1]).startswith(f"{folder}/"):
                call("umount", mounted, check=False)
        shutil.rmtree(folder / "graph", ignore_errors=True)
        shutil.rmtree(volatile, ignore_errors=True)
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def registry(folder: Path, *, closed: bool = False) -> Iterator[str]:
    """A registry on loopback that keeps its images in a folder; yields HOST:PORT.

    A closed one admits USER alone, as whom podman is logged in: use it inside of `storage`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    if closed:
        (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n", encoding="utf-8")
        config["auth"] = {"htpasswd": {"realm": "rehearsal", "path": str(folder / "htpasswd")}}
    # JSON is YAML too.
    (folder / "config.yml").write_text(json.dumps(config), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log, env=environment
        )
    try:
        _wait_for(f"http://{address}/v2/", lambda: process.poll() is None, (folder / "log").read_text)
        if closed:
            call(
                "podman",
                "login",
                "--tls-verify=false",
                f"--username={USER}",
                f"--password={PASSWORD}",
                address,
            )
        yield address
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def new_logins(file: Path) -> Path:
    """A file for REGISTRY_AUTH_FILE without a login; podman does not accept one that is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"auths": {}}', encoding="utf-8")
    return file


@dataclass(frozen=True)
class Container:
    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return _run(["podman", "exec", self.name, *command])

    def signal(self, name: str) -> None:
        call("podman", "kill", f"--signal={name}", self.name)

    def wait(self) -> int:
        """The exit status, once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while (state := self.inspect()["State"])["Status"] != "exited":
            if time.monotonic() > deadline:
                raise ContainerError(f"{self.name} does not end: {self.log()}")
            time.sleep(0.1)
        return int(state["ExitCode"])

    def log(self) -> str:
        done = _run(["podman", "logs", self.name])
        return done.stdout + done.stderr

    def inspect(self) -> dict[str, Any]:
        shown: list[dict[str, Any]] = json.loads(call("podman", "inspect", self.name))
        return shown[0]


@contextmanager
def container(image: str, *, options: Sequence[str] = (), **settings: object) -> Iterator[Container]:
    """The service in a container as strict as the manifests: a read-only root, no capabilities, no new privileges.

    Args:
        image: a name or `REGISTRY/NAME@sha256:…`, which is pulled.
        options: for podman, in addition.
        settings: of the service, such as `drain_seconds`.
    """
    started = Container(f"espalier-{uuid.uuid4().hex[:12]}", free_port())
    variables = {"host": "127.0.0.1", "port": started.port, **settings}
    call(
        "podman",
        "run",
        "--detach",
        f"--name={started.name}",
        "--network=host",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--log-driver=k8s-file",
        "--tls-verify=false",
        *options,
        *(f"--env=ESPALIER_{name.upper()}={value}" for name, value in variables.items()),
        image,
    )
    try:
        _wait_for(f"{started.url}/health/ready", lambda: started.inspect()["State"]["Running"], started.log)
        yield started
    finally:
        call("podman", "rm", "--force", "--time=0", started.name, check=False)


def call(program: str, *arguments: str, check: bool = True) -> Any:
    """What a program printed; None if it failed and `check` is false."""
    done = _run([program, *arguments])
    if done.returncode == 0:
        return done.stdout.strip()
    said = f"{program} {' '.join(arguments)}: {done.stdout}{done.stderr}"
    if check:
        raise ContainerError(said)
    return None


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _certificates() -> str:
    """The option that gives a build the network's own certificate authority, where there is one."""
    bundle = os.environ.get("SSL_CERT_FILE")
    return f"--volume={bundle}:/etc/ssl/certs/ca-certificates.crt:ro" if bundle else ""


def _base_archive() -> Path:
    """The base as a tar file outside the repository; made once for a machine, and again when the recipe changes."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, _PREPARE)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "espalier"
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / f"base-{SUITE}-{recipe}.tar"
    with (cache / "base.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            with tempfile.TemporaryDirectory(prefix="espalier-base-", dir=cache) as name:
                folder = Path(name) / "root"
                call(
                    "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(folder)
                )
                subprocess.run(["sh", "-euc", _PREPARE], cwd=folder, check=True)
                packed = Path(name) / "base.tar"
                call(
                    "tar",
                    "-C",
                    str(folder),
                    "--exclude=./dev/*",
                    "--exclude=./proc/*",
                    "-cf",
                    str(packed),
                    ".",
                )
                packed.replace(archive)
    return archive


def _wait_for(url: str, alive: Callable[[], bool], log: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.UNAUTHORIZED:
                return
            if not alive():
                raise ContainerError(f"{url}: it ended: {log()}") from None
            if time.monotonic() > deadline:
                raise ContainerError(f"{url} does not answer: {error}: {log()}") from None
            time.sleep(0.1)
        else:
            return
