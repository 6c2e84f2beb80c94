"""What the jobs of GitLab CI and Jenkins get in a rehearsal: the settings that docs/ci-systems.md has people make, and programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

from common import models, overlays
from common.overlays import Release
from deploy.rehearsal import containers
from deploy.rehearsal.runner import STAND_INS
from deploy.rehearsal.world import World

PROGRAMS = Path(__file__).parent / "programs"
NO_CLUSTER = "a rehearsal has no cluster that Prometheus could watch"


def prepare(world: World) -> None:
    """Have main train two algorithms instead of five, which takes less time, and track them in MLflow.

    It runs no tests, which may be running this, and installs and builds no programs.
    """
    file = world.engineer / models.PARAMS_FILE
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params["train"]["algorithms"] = {"logistic_regression": {}, "decision_tree": {}}
    params["track"]["to"] = "mlflow"
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    for name in ("build", "run", "tools"):
        (world.engineer / ".ci" / name).write_text(f"#!/bin/sh\necho NOT RUN: .ci/{name}\n", encoding="utf-8")
    world.call("dvc", "repro", "--quiet")
    world.call("python", "-m", "training.remote", "push")
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "Train two algorithms")
    world.git("push", "--quiet", "origin", "main")


def variables(world: World) -> dict[str, str]:
    """Variables and secrets of the project."""
    return {
        **{name: value for name, value in world.variables().items() if name != "APP_ID"},
        "AWS_ID_TOKEN": "not-exchanged",
        "MLFLOW_TRACKING_URI": mlflow(world),
        "REGISTRY_USER": containers.USER,
        "REGISTRY_PASSWORD": containers.PASSWORD,
    }


def mlflow(world: World) -> str:
    """The address of MLflow's store, which is a file."""
    return f"sqlite:///{world.folder}/mlflow.db"


def environment(world: World, folder: Path) -> dict[str, str]:
    """What else a run needs on this machine, in a folder of its own: programs, logins, keys of the played AWS."""
    folder.mkdir(parents=True)
    login = f"machine 127.0.0.1 login {containers.USER} password {containers.PASSWORD}\n"
    (folder / "netrc").write_text(login, encoding="utf-8")
    # Registries on loopback speak plain HTTP.
    plain = folder / "registries.conf"
    plain.write_text(f'[[registry]]\nlocation = "{world.registry}"\ninsecure = true\n', encoding="utf-8")
    first = (PROGRAMS, STAND_INS / "sigstore/cosign-installer")
    return {
        **world.environment(),
        "PATH": os.pathsep.join([*map(str, first), os.environ["PATH"]]),
        "REHEARSAL_RUN": str(folder),
        "REGISTRY_AUTH_FILE": str(containers.new_logins(folder / "auth.json")),
        "CONTAINERS_REGISTRIES_CONF": str(plain),
        # A role is asked for and not taken: with keys in the environment, the token is not exchanged.
        "AWS_ACCESS_KEY_ID": "espalier",
        "AWS_SECRET_ACCESS_KEY": "espalier",
        "DVC_NO_ANALYTICS": "1",
    }


def checkout(world: World, folder: Path, at: str) -> Path:
    """A clone of the repository as a runner makes one: on a commit, and on no branch."""
    world.git("clone", "--quiet", world.forge.site, str(folder), cwd=world.folder)
    world.git("checkout", "--quiet", "--detach", f"origin/{at}", cwd=folder)
    return folder


def running(world: World, environment_: str, model: str) -> Release | None:
    """What main lets an environment run of a model."""
    path = overlays.path(environment_, model)
    shown = subprocess.run(
        ["git", "show", f"main:{path}"], cwd=world.origin, capture_output=True, encoding="utf-8", check=False
    )
    return overlays.parse(shown.stdout, path) if shown.returncode == 0 else None


def break_production(world: World, model: str) -> None:
    """Commit to main by hand that production runs an image of the model that is nowhere."""
    path = overlays.path("production", model)
    world.git("fetch", "--quiet", "origin")
    world.git("checkout", "--quiet", "-B", "main", "origin/main")
    file = world.engineer / path
    text = re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8")
    world.git("commit", "--quiet", "--all", "--message", "Break production")
    world.git("push", "--quiet", "origin", "main")


def regularise(world: World, branch: str) -> None:
    """Push a branch that changes a parameter of the regression."""
    world.git("fetch", "--quiet", "origin")
    world.git("checkout", "--quiet", "-B", branch, "origin/main")
    file = world.engineer / models.PARAMS_FILE
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params["train"]["algorithms"]["logistic_regression"] = {"C": 0.7}
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    world.git("commit", "--quiet", "--all", "--message", "Regularise the regression more")
    world.git("push", "--quiet", "origin", branch)


def has_image(release: Release) -> bool:
    """Whether the registry holds what a release names."""
    host, _, name = release.name.partition("/")
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    address = f"http://{host}/v2/{name}/manifests/{release.digest}"
    login = f"{containers.USER}:{containers.PASSWORD}"
    said = subprocess.run(
        ["curl", "-sSf", "--noproxy", "*", "-u", login, "-H", accept, address],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return said.returncode == 0 and "layers" in json.loads(said.stdout)
