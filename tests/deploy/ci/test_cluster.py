"""A run in a cluster comes to the same as one here, and leaves nothing behind however it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml

from common import models
from deploy.ci import cluster
from tests.app.processes import ROOT
from tests.app.test_supervisor import eventually
from tests.buckets import BUCKET, bucket
from tests.deploy.kubernetes import Cluster, serving
from tests.e2e.clone import Clone, clone
from tests.tools import free_port, require

REGISTRY = "registry.example.com/espalier"
IMAGE = re.compile(rf"{REGISTRY}:training-[0-9a-f]{{16}}")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with bucket(tmp_path_factory.mktemp("bucket")) as variables:
        yield {
            **variables,
            "AWS_ENDPOINT_URL": variables["AWS_ENDPOINT"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, storage: dict[str, str]) -> Clone:
    """The first model alone, with a DVC remote and a commit that changes a parameter."""
    require("kubectl")
    made = clone(tmp_path_factory.mktemp("project") / "clone")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for command in (
        ["git", "rm", "-rq", *(f"{models.FOLDER}/{name}" for name in list(models.find(made.root))[1:])],
        ["dvc", "remote", "add", "--force", "--default", "storage", f"s3://{BUCKET}/dvc"],
        ["dvc", "remote", "modify", "storage", "endpointurl", storage["AWS_ENDPOINT"]],
        [*git, "commit", "-qam", "A remote"],
    ):
        subprocess.run(command, cwd=made.root, env=made.environment(), check=True, capture_output=True)
    params = made.params()
    params["train"]["algorithms"] = {"logistic_regression": {"C": 3.0}}
    made.write_params(params)
    subprocess.run([*git, "commit", "-qam", "Another C"], cwd=made.root, check=True)
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Cluster, Path]]:
    require("kubectl")
    made = Cluster()
    with serving(made, tmp_path) as configuration:
        yield made, configuration


def reproduce(
    project: Clone,
    configuration: Path,
    storage: dict[str, str],
    output: Path,
    registry: str = REGISTRY,
    **more: str,
) -> subprocess.Popen[str]:
    """Start the command as the workflow does, with short waits."""
    short = (
        "from deploy.ci import cluster, reproduce; cluster.POLL_SECONDS = 0.2; cluster.START_SECONDS = 3; "
    )
    return subprocess.Popen(
        [
            *(sys.executable, "-c", f"{short}from common.command import run; run(reproduce.main)"),
            *("--engine", "cluster", "--base", "HEAD~1", "--output", str(output)),
        ],
        cwd=project.root,
        env=project.environment(
            **storage, KUBECONFIG=str(configuration), REGISTRY=registry, PYTHONPATH=".", **more
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    said, _ = process.communicate(timeout=seconds)
    assert "Traceback" not in said, said
    return process.returncode, said.strip().splitlines()[-1] if said.strip() else ""


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


def terminated(reason: str, status: int) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"terminated": {"reason": reason, "exitCode": status}}}]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("becomes", "said"),
    [
        (
            None,
            r"has not started within 0 minutes: nothing has made it, .* is the option cluster-training on\?",
        ),
        (
            ("Pending", {"conditions": [{"status": "False", "message": "0/3 nodes are available"}]}),
            r"has not started within 0 minutes: 0/3 nodes are available",
        ),
        (
            ("Pending", waiting("ImagePullBackOff", "no such tag")),
            r"ImagePullBackOff, no such tag: has the workflow release built it\?",
        ),
        (
            ("Failed", terminated("OOMKilled", 137)),
            r"-runner failed \(OOMKilled, status 137\): its log is above",
        ),
        (("Failed", {"reason": "DeadlineExceeded"}), r"-runner failed \(DeadlineExceeded\)"),
        (("Succeeded", {}), r"the DVC remote does not give s3://espalier/dvc/runs/run-local-\w+/result.tar"),
    ],
)
def test_a_run_without_a_result_is_one_line(
    project: Clone,
    storage: dict[str, str],
    world: tuple[Cluster, Path],
    tmp_path: Path,
    becomes: tuple[str, dict[str, Any]] | None,
    said: str,
) -> None:
    made, configuration = world
    if becomes:
        made.start = lambda job: made.phase(job, becomes[0], **becomes[1])

    status, line = ended(reproduce(project, configuration, storage, tmp_path / "out"))

    assert status == 1
    assert line.startswith("error: ")
    assert re.search(said, line), line
    assert len(made.deleted) == 1
    assert made.jobs == {}


PATCH = b"""\
diff --git a/Makefile b/Makefile
new file mode 100644
--- /dev/null
+++ b/evil
@@ -0,0 +1 @@
+evil
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("../evil", b"evil", "result.tar is no result of a run: "),
        ("lock.patch", PATCH, "the patch"),
        ("comment.md", b"nothing else", "result.tar is no result of a run: "),
    ],
)
def test_a_result_that_somebody_planted_is_refused(
    project: Clone,
    storage: dict[str, str],
    world: tuple[Cluster, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    said: str,
) -> None:
    made, configuration = world
    for key, value in storage.items():
        monkeypatch.setenv(key, value)

    def plant(job: dict[str, Any]) -> None:
        (container,) = job["spec"]["job"]["spec"]["containers"]
        folder = next(each["value"] for each in container["env"] if each["name"] == "RUN_FOLDER")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            files = {"outputs.json": b"{}", "summary.md": b""} if name == "lock.patch" else {}
            for path, data in {**files, name: content}.items():
                member = tarfile.TarInfo(path)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        client = botocore.session.get_session().create_client("s3")
        key = f"{folder.removeprefix(f's3://{BUCKET}/')}/result.tar"
        client.put_object(Bucket=BUCKET, Key=key, Body=packed.getvalue())
        made.phase(job, "Succeeded")

    made.start = plant

    status, line = ended(reproduce(project, configuration, storage, tmp_path / "out"))

    assert status == 1
    assert said in line
    assert line.startswith("error: ")
    assert not (tmp_path / "evil").exists()
    assert not (project.root / "evil").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_step_deletes_its_run(
    project: Clone,
    storage: dict[str, str],
    world: tuple[Cluster, Path],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    made, configuration = world
    made.start = lambda job: made.phase(job, "Running")
    process = reproduce(project, configuration, storage, tmp_path / "out")
    eventually(lambda: bool(made.pods))
    time.sleep(0.5)
    process.send_signal(number)
    process.communicate(timeout=30)

    assert process.returncode != 0
    assert len(made.deleted) == 1


@pytest.mark.slow
def test_a_node_that_goes_away_ends_the_run(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    made, configuration = world
    made.start = lambda job: made.phase(job, "Running")
    process = reproduce(project, configuration, storage, tmp_path / "out")
    eventually(lambda: bool(made.pods))
    time.sleep(1)
    made.pods.clear()

    status, line = ended(process)

    assert (status, made.jobs) == (1, {})
    assert line.endswith("is gone, most likely with its node: run this again")


@pytest.mark.slow
def test_answers_that_fail_now_and_then_do_not_end_a_run(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    made, configuration = world

    def run(job: dict[str, Any]) -> None:
        made.phase(job, "Running")
        time.sleep(1)
        made.refuse = 503
        time.sleep(1)
        made.refuse = None
        made.phase(job, "Failed", reason="Evicted")

    made.start = run

    status, line = ended(reproduce(project, configuration, storage, tmp_path / "out"))

    assert status == 1
    assert line.endswith("-runner failed (Evicted): its log is above")


@pytest.mark.slow
def test_a_log_goes_on_where_its_connection_ended(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    made, configuration = world
    made.follow = 2.5

    def run(job: dict[str, Any]) -> None:
        made.phase(job, "Running")
        for line in ("first", "second", "third"):
            time.sleep(1)
            made.say(f"{line}\n")
        time.sleep(3)
        made.phase(job, "Failed")

    made.start = run

    said, _ = reproduce(project, configuration, storage, tmp_path / "out").communicate(timeout=60)

    assert [said.count(each) for each in ("first\n", "second\n", "third\n")] == [1, 1, 1]


@pytest.mark.slow
def test_a_run_that_cannot_be_deleted_hides_nothing(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    made, configuration = world
    made.keep = True
    made.start = lambda job: made.phase(job, "Failed", **terminated("OOMKilled", 137))

    said, _ = reproduce(project, configuration, storage, tmp_path / "out").communicate(timeout=60)

    warning, error = said.splitlines()[-2:]
    assert re.match(
        r"warning: DaskJob run-local-\w+ is left for the next run to delete: .*no rights", warning
    )
    assert "OOMKilled" in error


@pytest.mark.slow
def test_what_others_left_is_deleted(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    made, configuration = world
    for name, hours in (("old", 7), ("young", 1)):
        made.create({"metadata": {"name": name}}, datetime.now(UTC) - timedelta(hours=hours))
    made.start = lambda job: made.phase(job, "Failed")

    ended(reproduce(project, configuration, storage, tmp_path / "out"))

    assert "old" in made.deleted
    assert [*made.jobs] == ["young"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made, _: setattr(made, "refuse", 403), r"the cluster does not get .*daskjobs: .*no rights"),
        (
            lambda _, file: file.write_text(re.sub(r":\d+\"", f':{free_port()}"', file.read_text())),
            r"the cluster does not get .*refused",
        ),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(
    project: Clone,
    storage: dict[str, str],
    world: tuple[Cluster, Path],
    tmp_path: Path,
    spoil: Callable[[Cluster, Path], object],
    said: str,
) -> None:
    spoil(*world)

    status, line = ended(reproduce(project, world[1], storage, tmp_path / "out"))

    assert status == 1
    assert re.match(f"error: {said}", line), line


@pytest.mark.slow
def test_a_registry_that_is_missing_is_named(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    status, line = ended(reproduce(project, world[1], storage, tmp_path / "out", registry=""))

    assert status == 1
    assert line == "error: REGISTRY is not set: the workflow has to give it in `env`"


def test_the_job_is_of_this_image_and_run() -> None:
    document = cluster.described(f"{REGISTRY}:training-1")
    name = document["metadata"]["name"]
    other = cluster.described(f"{REGISTRY}:training-1")["metadata"]["name"]
    spec = document["spec"]["cluster"]["spec"]

    assert name != other
    assert re.fullmatch(r"run-\w+-[0-9a-f]{8}", name)
    assert spec["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name
    assert yaml.safe_dump(document).count(f"image: {REGISTRY}:training-1") == 3


# ------------------------------------------------------------------------------------------- the whole way


@pytest.mark.long("deploy/ci", "deploy/training", "deploy/kubernetes.py", "training/train", "tests/deploy/ci")
def test_the_result_is_that_of_a_run_here(
    project: Clone, storage: dict[str, str], world: tuple[Cluster, Path], tmp_path: Path
) -> None:
    """The pod is a process here, with a real Dask scheduler and worker, and the storage is a real one."""
    require("dask")
    made, configuration = world
    scheduler = f"tcp://127.0.0.1:{free_port()}"
    image = tmp_path / "image"
    for name in ("common/__init__.py", "training/__init__.py", "deploy/training/start.py"):
        target = image / name.removeprefix("deploy/training/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    start = [sys.executable, "start.py"]
    environment = {
        key: value
        for key, value in project.environment(**storage).items()
        if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    } | {"PYTHONPATH": "", "HOME": str(tmp_path)}

    def run(job: dict[str, Any]) -> None:
        (container,) = job["spec"]["job"]["spec"]["containers"]
        given = {each["name"]: each["value"] for each in container["env"]}
        work = tmp_path / "work"
        work.mkdir()
        made.phase(job, "Running")
        with (tmp_path / "log").open("w") as log:
            done = subprocess.run(
                [*start, "run"],
                cwd=image,
                env={**environment, **given, "RUN_WORK": str(work), "DASK_SCHEDULER_ADDRESS": scheduler},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        made.say((tmp_path / "log").read_text())
        made.phase(job, "Failed" if done.returncode else "Succeeded")

    made.start = run
    processes = [
        subprocess.Popen(command, cwd=image, env=environment, stdout=log, stderr=log)
        for command, log in (
            (
                [
                    *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--no-show"),
                    f"--port={scheduler.rpartition(':')[2]}",
                ],
                (tmp_path / "scheduler.log").open("w"),
            ),
            ([*start, "worker", scheduler, "--name", "one"], (tmp_path / "worker.log").open("w")),
        )
    ]
    written = tmp_path / "outputs.txt"
    try:
        there = reproduce(project, configuration, storage, tmp_path / "there", GITHUB_OUTPUT=str(written))
        said, _ = there.communicate(timeout=300)
    finally:
        for each in processes:
            each.kill()
            each.wait()
    assert there.returncode == 0, said
    assert "Running stage 'train@logistic_regression'" in said
    assert "Receive client connection" in (tmp_path / "scheduler.log").read_text()
    assert made.jobs == {}
    after = subprocess.run(
        ["git", "status", "--short"], cwd=project.root, capture_output=True, text=True, check=True
    ).stdout
    assert " M dvc.lock" in after
    assert (project.root / "candidates/logistic_regression/report.json").exists()

    subprocess.run(["git", "checkout", "-q", "--", "."], cwd=project.root, check=True)
    here = subprocess.run(
        [
            *(sys.executable, "-m", "deploy.ci.reproduce", "--base", "HEAD~1"),
            *("--output", str(tmp_path / "here")),
        ],
        cwd=project.root,
        env=project.environment(**storage, GITHUB_OUTPUT=str(tmp_path / "here.txt")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert here.returncode == 0, here.stdout + here.stderr
    assert (tmp_path / "there/lock.patch").read_bytes() == (tmp_path / "here/lock.patch").read_bytes()
    assert (tmp_path / "there/comment.md").read_text() == (tmp_path / "here/comment.md").read_text()
    assert sorted(written.read_text().split()) == sorted((tmp_path / "here.txt").read_text().split())
    outputs = json.loads((tmp_path / "there/outputs.json").read_text())
    assert outputs == {"reproduced": True, "changed": True, "passed": outputs["passed"]}
    assert os.path.exists(project.root / "model")  # noqa: PTH110
