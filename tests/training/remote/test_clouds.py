"""The same remote on Google Cloud Storage and Azure, played by fake-gcs-server and Azurite."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from common.lock import Entry
from tests.clouds import Cloud, azure, google
from tests.tools import dvc, http_server, require_group
from training.remote import command
from training.remote.objects import NoCredentialsError, Objects, RemoteError, ReplacedError

LONG = pytest.mark.long("tests/training/remote/test_clouds.py", "training/remote", "uv.lock")
PIPELINE = """\
stages:
  a:
    cmd: mkdir -p data model && echo one > data/one && echo x > model/x && seq 2000000 > model/large
    outs: [data/one, model]
"""
ONE = hashlib.md5(b"one\n").hexdigest()


@pytest.fixture(scope="module", params=[google, azure], ids=["gs", "azure"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as patch:
        # Otherwise gcsfs asks Google's gRPC interface of what kind a bucket is.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with request.param(tmp_path_factory.mktemp("cloud")) as started:
            yield started


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    dvc(folder, "init", "--quiet", "--no-scm")
    (folder / "dvc.yaml").write_text(PIPELINE)
    dvc(folder, "repro", "--quiet")
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["training.remote", *arguments])
        command.main()


def stored(md5: str) -> tuple[Any, str]:
    """The file system of the remote, and the path of an object."""
    remote = Objects().remote
    return remote.fs, remote.oid_to_path(md5)


def forget(clone: Path) -> None:
    """Remove the cache and all outputs."""
    for name in ("data", "model", ".dvc/cache"):
        subprocess.run(["rm", "-rf", name], cwd=clone, check=True)


@LONG
def test_what_is_pushed_is_pulled_compared_and_repaired(
    cloud: Cloud, clone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cloud.point(clone, "espalier/whole")
    run("push")
    run("push")
    assert [each.message for each in caplog.records if "pushed" in each.message] == [
        "4 objects pushed",
        "0 objects pushed",
    ]
    run("check")
    forget(clone)
    run("pull")
    assert (clone / "data/one").read_text() == "one\n"
    assert len((clone / "model/large").read_text().splitlines()) == 2_000_000

    fs, path = stored(ONE)
    fs.fs.rm_file(path)
    fs.fs.pipe_file(path, b"other\n")
    with pytest.raises(ReplacedError, match="1 objects of the remote have other content") as caught:
        run("check")
    assert f"{cloud.scheme}://espalier/whole/files/md5/{ONE[:2]}/{ONE[2:]}  data/one" in str(caught.value)
    run("repair")
    run("check")
    fs.fs.rm_file(path)
    fs.fs.pipe_file(path, b"other\n")
    forget(clone)
    with pytest.raises(ReplacedError, match="other content than the name says for data/one"):
        run("pull")
    assert not (clone / "data/one").exists()


@LONG
def test_an_object_is_written_once(cloud: Cloud, clone: Path) -> None:
    """Small ones, and large ones that are sent in parts."""
    cloud.point(clone, "espalier/once")
    run("push")
    objects = Objects()
    (large,) = [
        each["md5"]
        for output in objects.outputs(["model"])
        for each in json.loads(objects.read(output))
        if each["relpath"] == "large"
    ]
    other = clone / "other"
    for md5, content in ((ONE, b"other\n"), (large, b"o" * 12_000_000)):
        other.write_bytes(content)
        objects.add(Entry("other", md5), other)
    run("check")


@LONG
def test_a_bucket_that_is_not_there_is_one_line(cloud: Cloud, clone: Path) -> None:
    cloud.point(clone, "missing/dvc")
    with pytest.raises(RemoteError, match=r"missing/dvc does not (take|say)"):
        run("push")
    forget(clone)
    with pytest.raises(RemoteError, match="missing/dvc does not exist"):
        run("pull")


@pytest.mark.parametrize("scheme", ["gs", "azure"])
def test_a_missing_package_is_named_with_its_remedy(
    scheme: str, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"dvc_{scheme}", None)
    Cloud(scheme, {}).point(clone, "bucket/dvc")
    with pytest.raises(RemoteError, match=rf"needs a package: `uv add --group train dvc-{scheme}` adds it"):
        run("push")


def test_google_without_credentials_has_none(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs goes on without an identity, and is refused."""
    require_group("dvc-gs", "--group gs")

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"error": {"code": 401, "message": "Anonymous caller has no access"}}')

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setenv("HOME", str(clone))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with http_server(Refusing) as address:
        Cloud("gs", {"endpointurl": address}).point(clone, "bucket/dvc")
        with pytest.raises(NoCredentialsError, match="no credentials for the remote gs://bucket/dvc"):
            run("push")
