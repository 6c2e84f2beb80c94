"""MLflow's registry follows what git says; `tests/training/track` registers bundles that the registry lacks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from common import overlays
from common.ports import free_port
from tests.deploy.project import MODEL, Project, version

REGISTERED = f"espalier-{MODEL}"


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def store(project: Project, *numbers: int) -> MlflowClient:
    """The registry with versions of these bundles."""
    folder = project.me.root / "mlruns"
    folder.mkdir()
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model(REGISTERED)
    for number in numbers:
        client.create_model_version(REGISTERED, str(folder / str(number)), tags={"version": version(number)})
    return client


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(number) for alias, number in client.get_registered_model(REGISTERED).aliases.items()}


@pytest.mark.slow
def test_aliases_follow_git(project: Project) -> None:
    client = store(project, 1, 2)
    done = project.me.release("mirror")
    assert (done.status, done.out) == (0, f"{REGISTERED}: nothing to change\n")
    first = project.staged(1)
    done = project.me.release("mirror")
    assert (done.status, done.out, done.err) == (0, f"{REGISTERED}: staging is version 1\n", "")
    project.staged(2)
    done = project.me.release("set", "production", "--image", first, "--push", "--force")
    assert done.status == 0, done.err
    assert project.me.release("mirror", "--model", MODEL).status == 0
    assert aliases(client) == {"staging": "2", "production": "1", "champion": "1"}

    client.set_registered_model_alias(REGISTERED, "champion", "2")
    client.set_registered_model_alias(REGISTERED, "challenger", "2")
    done = project.me.release("mirror")
    assert done.out == f"{REGISTERED}: champion is version 1\n"
    assert aliases(client) == {"staging": "2", "production": "1", "champion": "1", "challenger": "2"}
    assert project.me.release("mirror").out == f"{REGISTERED}: nothing to change\n"

    # Without asking origin, what this clone has of it counts, and git wins.
    tip = project.me.git("rev-parse", "origin/main")
    project.me.git("update-ref", "refs/remotes/origin/main", f"{tip}~1")
    assert project.me.release("mirror", "--no-fetch").status == 0
    assert aliases(client) == {"staging": "2", "challenger": "2"}
    assert project.me.release("mirror").status == 0
    assert aliases(client) == {"staging": "2", "production": "1", "champion": "1", "challenger": "2"}

    project.me.git("pull", "-q", "--rebase", "origin", "main")
    project.me.git("rm", "-q", overlays.path("production", MODEL))
    project.me.git("commit", "-q", "-m", "Take it out of production")
    project.me.git("push", "-q", "origin", "HEAD:main")
    assert project.me.release("mirror").status == 0
    assert aliases(client) == {"staging": "2", "challenger": "2"}


def test_registry_that_cannot_be_reached_is_one_clear_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    done = project.me.release("mirror")
    assert done.status == 1
    assert done.err.startswith(f"error: iris is not mirrored: cannot reach 127.0.0.1:{port}: ")
    assert done.err.count("\n") == 1


def test_one_model_that_cannot_be_mirrored_does_not_stop_the_others(project: Project) -> None:
    project.add_model("wine")
    project.staged(1)
    project.staged(3, model="wine")
    client = store(project, 1)
    done = project.me.release("mirror")
    assert done.status == 1
    assert f"{REGISTERED}: staging is version 1" in done.out
    first, last = done.err.splitlines()
    assert first.startswith("error: wine is not mirrored: ")
    assert last == "error: wine: not mirrored, see above"
    assert aliases(client) == {"staging": "1"}
    assert not Path(project.me.root / "models/wine/mlruns").exists()
