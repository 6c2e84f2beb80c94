"""The image of training: one for each set of packages, with what a pod needs in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.errors import DeployError
from deploy.image.source import declared_base
from deploy.inputs import TRAINING_DOCKERFILE, training_image
from deploy.rehearsal import containers
from tests.deploy.project import ROOT
from tests.e2e.clone import clone
from tests.tools import require_containers

REPOSITORY = "registry.example.com/espalier"
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("project") / "clone").root


def commit(root: Path, path: str, text: str) -> None:
    with (root / path).open("a", encoding="utf-8") as file:
        file.write(text)
    subprocess.run([*GIT, "commit", "-qam", "Change"], cwd=root, check=True)


def test_commits_with_the_same_packages_share_an_image(project: Path) -> None:
    first = training_image(REPOSITORY, project)
    commit(project, "training/worker.py", "# more\n")
    assert training_image(REPOSITORY, project) == first

    commit(project, "uv.lock", "# more\n")
    assert training_image(REPOSITORY, project) != first


def test_what_is_not_committed_is_named(project: Path) -> None:
    file = project / "training/Dockerfile"
    before = file.read_text()
    file.write_text(before + "\n")
    with pytest.raises(DeployError, match="training/Dockerfile"):
        training_image(REPOSITORY, project)
    file.write_text(before)


def test_it_is_built_on_the_base_of_the_service() -> None:
    assert (ROOT / TRAINING_DOCKERFILE).read_text().split()[1] == declared_base(ROOT)


def test_runs_start_what_is_in_it() -> None:
    document = yaml.safe_load((ROOT / "deploy/training/job/daskjob.yaml").read_text())
    cluster = document["spec"]["cluster"]["spec"]
    for part in (document["spec"]["job"], cluster["worker"]):
        (container,) = part["spec"]["containers"]
        assert container["command"][:2] == ["/app/.venv/bin/python", "/app/start.py"]


@pytest.mark.long(
    "deploy/image",
    "deploy/training/start.py",
    "deploy/rehearsal/containers.py",
    "training/Dockerfile",
    "uv.lock",
)
def test_it_is_built_once_and_starts_in_a_strict_pod(project: Path, tmp_path: Path) -> None:
    require_containers()
    with (
        containers.storage(tmp_path / "storage") as variables,
        containers.registry(tmp_path / "registry") as address,
    ):
        environment = {**os.environ, **variables, "PYTHONPATH": str(project)}
        command = ["python", "-m", "deploy.image.training", f"{address}/espalier", "--push"]
        said = [
            subprocess.run(
                command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            for _ in range(2)
        ]
        name = training_image(f"{address}/espalier", project)
        assert "pushed it as sha256:" in said[0].stdout
        assert said[1].stdout.strip() == f"{name} is there already"

        # As in the manifests.
        strict = (
            "--network=host",
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--tmpfs=/work",
            "--tmpfs=/tmp",
        )
        for inside in (
            ["/app/start.py", "worker", "--help"],
            ["-m", "distributed.cli.dask_scheduler", "--help"],
            [
                "-c",
                "import subprocess, dvc, onnxruntime, xgboost; subprocess.run(['git', '--version'], check=True)",
            ],
        ):
            containers.call("podman", "run", "--rm", *strict, name, "/app/.venv/bin/python", *inside)
