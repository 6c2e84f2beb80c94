"""Pushing to a DVC remote and pulling from it: a small pipeline, and a real S3 server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from common.errors import EspalierError
from common.lock import Entry
from tests.buckets import BUCKET, bucket
from tests.tools import dvc, free_port
from training.remote import command
from training.remote.objects import MissingError, NoCredentialsError, Objects, RemoteError, ReplacedError

ROOT = Path(__file__).parents[3]
PIPELINE = """\
stages:
  a:
    cmd: mkdir -p data model && echo one > data/one && echo x > model/x && echo y > model/y
    outs: [data/one, model]
"""
CONTENT = {"data/one": "one\n", "model/x": "x\n", "model/y": "y\n"}

FETCHING = {
    "deploy/ci/cluster.py": "test_cluster.py: the result of a run",
    "deploy/ci/pipeline.py": "test_pipeline.py: bundle and reproduce",
    "deploy/schedulers/component.py": "test_component.py: the inputs of a stage",
    "training/production/command.py": "test_production.py: the gate's bundle and splits",
    "training/remote/command.py": "here: pull",
    "training/review/command.py": "test_review.py: the base's outputs",
    "training/track/past.py": "test_past.py: the results of earlier commits",
}
"""Every module that gets content from the remote, and where replaced bytes are planted for it."""
_FETCHES = re.compile(
    r"\bObjects\(|\bStore\(|\bremote\.pull\(|dvc[\"', ]+(pull|fetch|get|import)\b|repro.*--pull|dvc\.api|get_remote"
)
OBJECTS = {"training/remote/objects.py", "training/production/revisions.py", "deploy/ci/cluster_run.py"}
"""What these commands use, and a pod that only puts its result there."""


@dataclass(frozen=True)
class Remote:
    """An S3 server, and a place in its bucket."""

    address: str
    prefix: str

    @property
    def client(self) -> Any:
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(retries={"total_max_attempts": 2}),
        )

    def key(self, md5: str) -> str:
        return f"{self.prefix}/files/md5/{md5[:2]}/{md5[2:]}"

    def plant(self, md5: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=self.key(md5), Body=content)

    def read(self, md5: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=self.key(md5))["Body"].read()
        return content

    def names(self) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Contents", [])
        return {"".join(each["Key"].rsplit("/", 2)[1:]) for each in listed}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket(tmp_path_factory.mktemp("s3") / "s3") as environment:
        yield environment["AWS_ENDPOINT"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "work"
    folder.mkdir()
    dvc(folder, "init", "--quiet", "--no-scm")
    (folder / "dvc.yaml").write_text(PIPELINE)
    dvc(folder, "repro", "--quiet")
    return folder


@pytest.fixture
def clone(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without a remote."""
    shutil.copytree(template, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return tmp_path / "work"


def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "espalier")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "espalier")


def point(clone: Path, address: str, url: str) -> None:
    (clone / ".dvc/config").write_text(
        f"[core]\n    no_scm = true\n    remote = storage\n['remote \"storage\"']\n    url = {url}\n    endpointurl = {address}\n"
    )


@pytest.fixture
def remote(server: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """Empty, with credentials for it."""
    keys(monkeypatch)
    made = Remote(server, f"clone-{clone.parent.name}")
    point(clone, server, f"s3://{BUCKET}/{made.prefix}")
    return made


@pytest.fixture
def pushed(remote: Remote) -> Remote:
    run("push")
    return remote


def run(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["remote", *arguments])
        command.main()


def lose() -> None:
    """As in a fresh clone."""
    for name in (".dvc/cache", ".dvc/tmp", "data", "model"):
        shutil.rmtree(name, ignore_errors=True)


def found() -> dict[str, str]:
    """The outputs in the working directory."""
    return {name: Path(name).read_text() for name in CONTENT if Path(name).exists()}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def listing() -> str:
    """The name of the object that lists the folder."""
    return next(each.md5 for each in Objects().outputs(["model"]))


@pytest.mark.slow
def test_what_one_pushes_another_pulls(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run("push")
    assert "4 objects pushed" in caplog.text
    assert remote.names() == {md5(text.encode()) for text in CONTENT.values()} | {listing()}
    run("push")
    assert "0 objects pushed" in caplog.text
    lose()
    run("pull", "model")
    assert found() == {"model/x": "x\n", "model/y": "y\n"}
    run("pull", "dvc.yaml")
    assert found() == CONTENT
    assert "2 outputs are as dvc.lock says" in caplog.text
    run("check")
    with pytest.raises(MissingError, match="nothing: DVC keeps no output there"):
        run("pull", "nothing")


@pytest.mark.slow
def test_an_object_is_written_once(pushed: Remote) -> None:
    """As for a job that another one overtook between its question and its upload."""
    name = md5(b"one\n")
    pushed.plant(name, b"first")
    Objects().add(Entry("data/one", name), Path("data/one"))
    assert pushed.read(name) == b"first"


@pytest.mark.slow
def test_a_large_object_is_written_once(remote: Remote) -> None:
    """s3fs uploads what is larger than 100 MB in parts."""
    with Path("large").open("wb") as file:
        file.truncate(110_000_000)
    entry = Entry("large", "0" * 32)
    objects = Objects()
    objects.add(entry, Path("large"))
    head = remote.client.head_object(Bucket=BUCKET, Key=remote.key(entry.md5))
    assert head["ContentLength"] == 110_000_000
    assert "-" in head["ETag"], "it came in parts"
    remote.plant(entry.md5, b"first")
    objects.add(entry, Path("large"))
    assert remote.read(entry.md5) == b"first"
    assert "Uploads" not in remote.client.list_multipart_uploads(Bucket=BUCKET)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted", "named"),
    [("data/one", "data/one"), ("model/x", "model/x"), ("listing", "model")],
)
def test_replaced_bytes_fail_and_leave_nothing(pushed: Remote, planted: str, named: str) -> None:
    name = listing() if planted == "listing" else md5(CONTENT[planted].encode())
    # A listing that would have DVC write outside of the clone.
    evil = json.dumps([{"md5": md5(b"one\n"), "relpath": "../../evil"}]).encode()
    pushed.plant(name, evil)
    lose()
    with pytest.raises(ReplacedError, match=rf"{named} \(s3://.*/{name[2:]}\): nothing of it was kept"):
        run("pull")
    assert found() == {}
    assert not Path("../evil").exists()
    assert evil not in [file.read_bytes() for file in Path(".dvc/cache").rglob("*") if file.is_file()]
    with pytest.raises(ReplacedError, match=rf"(?s)^1 objects .*{name[2:]}  {named}"):
        run("check")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["../../evil", "/evil", "x/../../evil"])
def test_a_listing_that_leaves_its_folder_is_refused(clone: Path, path: str) -> None:
    """Its hash may be right: whoever wrote dvc.lock chose it."""
    content = json.dumps([{"md5": md5(b"one\n"), "relpath": path}]).encode()
    name = f"{md5(content)}.dir"
    cached = clone / ".dvc/cache/files/md5" / name[:2] / name[2:]
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(content)
    with pytest.raises(RemoteError, match=rf"model lists '{path}', which is not below it"):
        Objects().members(Entry("model", name))


def test_every_module_that_fetches_is_tested_with_replaced_bytes() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("app", "common", "training", "deploy", "monitoring")
        for path in (ROOT / folder).rglob("*.py")
        if _FETCHES.search(path.read_text())
    }
    assert found - OBJECTS == FETCHING.keys()
    scripts = [ROOT / "Makefile", *(ROOT / ".github").rglob("*.yml")]
    assert not [path for path in scripts if re.search(r"dvc (pull|fetch)|repro.*--pull", path.read_text())]


@pytest.mark.slow
def test_repair_from_the_cache_and_by_computing(
    pushed: Remote, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    pushed.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    one, x = md5(b"one\n"), md5(b"x\n")
    for name in (one, x, listing()):
        pushed.plant(name, b"other")
    run("repair")
    assert pushed.read(one) == b"one\n"
    assert f"{x[2:]}  model/x" in caplog.text
    kept = pushed.client.list_object_versions(Bucket=BUCKET, Prefix=pushed.key(one))["Versions"]
    assert len(kept) == 3, "the bucket keeps what was there"
    run("check")
    pushed.plant(x, b"other")
    pushed.plant(listing(), b"other")
    lose()
    run("repair")
    assert "the right content is not here: computing it" in caplog.text
    assert pushed.read(x) == b"x\n"
    run("check")


@pytest.mark.slow
def test_what_this_commit_does_not_compute_is_named(pushed: Remote) -> None:
    name = md5(b"of another commit")
    pushed.plant(name, b"other")
    with pytest.raises(RemoteError, match=rf"(?s)Check out a commit whose dvc\.lock names them.*{name[2:]}"):
        run("repair")
    assert pushed.read(name) == b"other", "nothing is removed without something better"


@pytest.mark.slow
def test_a_damaged_cache_is_not_pushed(remote: Remote) -> None:
    file = Path(Objects().cache.oid_to_path(md5(b"x\n")))
    file.chmod(0o644)
    file.write_text("damaged")
    with pytest.raises(
        RemoteError, match=rf"model/x: DVC's cache holds other content.*delete \.dvc/cache/.*{file.name}"
    ):
        run("push")
    assert remote.names() == set()


@pytest.mark.slow
def test_a_folder_without_all_its_files_is_not_pushed(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    Path(Objects().cache.oid_to_path(md5(b"x\n"))).unlink()
    run("push")
    assert "neither here nor in the remote: model/x" in caplog.text
    assert remote.names() == {md5(b"one\n"), md5(b"y\n")}
    lose()
    with pytest.raises(MissingError, match="the remote lacks model: run `make push`"):
        run("pull")
    assert found() == {"data/one": "one\n"}


@pytest.mark.slow
class TestWithoutAccess:
    def test_no_remote(self, clone: Path) -> None:
        lose()
        for name in ("pull", "push", "check", "repair"):
            with pytest.raises(EspalierError, match="there is no remote: `dvc remote add --default"):
                run(name)

    def test_no_credentials(self, server: str, clone: Path) -> None:
        point(clone, server, f"s3://{BUCKET}/x")
        lose()
        for name in ("pull", "check"):
            with pytest.raises(
                NoCredentialsError, match=r"^there are no credentials for the remote s3://espalier/x"
            ):
                run(name)

    def test_no_bucket(self, server: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else a misspelt name would have everything computed."""
        keys(monkeypatch)
        point(clone, server, "s3://misspelt/x")
        lose()
        with pytest.raises(RemoteError, match=r"s3://misspelt/x.* does not exist") as caught:
            run("pull")
        assert not isinstance(caught.value, MissingError)

    def test_no_server(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys(monkeypatch)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        point(clone, f"http://127.0.0.1:{free_port()}", "s3://bucket/x")
        lose()
        with pytest.raises(RemoteError, match=r"s3://bucket/x.* does not give .*Could not connect"):
            run("pull")


@pytest.mark.slow
def test_a_folder_can_be_the_remote(clone: Path, tmp_path: Path) -> None:
    (clone / ".dvc/config").write_text(
        f"[core]\n    no_scm = true\n    remote = storage\n['remote \"storage\"']\n    url = {tmp_path / 'remote'}\n"
    )
    run("push")
    lose()
    run("pull")
    assert found() == CONTENT


def test_a_mistake_is_one_line(clone: Path) -> None:
    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "training.remote", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode
        return done.stderr

    assert "check takes no targets" in said("check", "model")
    (clone / ".dvc/config").write_text("[[[")
    assert said("pull").startswith("error: DVC's configuration is broken: ")
    shutil.rmtree(".dvc")
    assert said("pull") == "error: there is no .dvc folder here; run this from the project's top folder\n"
