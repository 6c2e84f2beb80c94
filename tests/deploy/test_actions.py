"""Our own actions, as act runs them in a job: how each kind of registry is logged in to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.rehearsal import containers, events, runner
from tests.deploy import registries
from tests.deploy.registries import PASSWORD, USER, Server, TokenServer
from tests.e2e.clone import ROOT
from tests.tools import require

pytestmark = pytest.mark.slow
WORKFLOW = """\
name: registry
on: push
jobs:
  log-in:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1
      - uses: ./.github/actions/registry
        with:
          registry: ${{ vars.REGISTRY }}
          role: ${{ vars.AWS_ROLE_RELEASE }}
          region: ${{ vars.AWS_REGION }}
          user: ${{ secrets.REGISTRY_USER }}
          password: ${{ secrets.REGISTRY_PASSWORD }}
      - if: env.IMAGE != ''
        run: |
          from deploy.registry import Reference, Registry
          import os
          with Registry() as registry:
              print(registry.inspect(Reference.parse(os.environ["IMAGE"])).labels)
        shell: python {0}
"""
ROLE = "arn:aws:iam::111122223333:role/release"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with our actions and what they call, whose only workflow is WORKFLOW."""
    for tool in ("act", "git", "podman", "docker-registry"):
        require(tool)
    folder = tmp_path_factory.mktemp("actions") / "origin"
    for name in (".github/actions", "common", "deploy/ci"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "deploy").glob("*.py"):
        shutil.copy(file, folder / "deploy")
    (folder / runner.WORKFLOWS).mkdir()
    (folder / runner.WORKFLOWS / "registry.yml").write_text(WORKFLOW)
    for command in (
        ("init", "-q", "-b", "main"),
        ("add", "-A"),
        ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "Start"),
        ("remote", "add", "origin", events.ADDRESS),
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def log_in(
    origin: Path, folder: Path, registry: str, image: str = "", secrets: dict[str, str] | None = None
) -> runner.Run:
    return runner.run(
        origin,
        "registry",
        "push",
        events.push("0" * 40, "1" * 40),
        variables={"REGISTRY": registry, "AWS_ROLE_RELEASE": ROLE, "AWS_REGION": "eu-central-1"},
        secrets={"GITHUB_TOKEN": "a-token", **(secrets or {})},
        environment={
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{origin}.insteadOf",
            "GIT_CONFIG_VALUE_0": events.ADDRESS,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": ".",
            "REGISTRY_AUTH_FILE": str(containers.new_logins(folder / "auth.json")),
            "REHEARSAL_RUN": str(folder),
            "IMAGE": image,
        },
        folder=folder / "run",
    )


@contextmanager
def with_tokens(folder: Path) -> Iterator[Server]:
    """As ghcr.io and Artifact Registry: a token for each repository, for a user and a password."""
    with (
        TokenServer(folder) as tokens,
        registries.serve(folder / "registry", tokens.settings()) as server,
    ):
        yield Server(server.host, server.folder, f"Bearer {tokens.token('repository:espalier:pull,push')}")


@pytest.mark.parametrize("serve", [registries.serve_with_password, with_tokens])
def test_any_registry_is_logged_in_to_with_the_secrets(origin: Path, tmp_path: Path, serve: object) -> None:
    with serve(tmp_path / "registry") as server:  # type: ignore[operator]
        image = f"{server.host}/espalier@{server.push({'a': 'label'})}"
        secrets = {"REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD}
        run = log_in(origin, tmp_path, f"{server.host}/espalier", image, secrets)
        assert run.succeeded, run.failed
        assert run.says("{'a': 'label'}")
        run = log_in(
            origin, tmp_path, f"{server.host}/espalier", image, {**secrets, "REGISTRY_PASSWORD": "no"}
        )
        assert not run.succeeded
        assert "invalid username/password" in "\n".join([*run.failed, *run.output])


def test_ecr_gets_a_role_and_no_user(origin: Path, tmp_path: Path) -> None:
    host = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
    run = log_in(
        origin,
        tmp_path,
        f"{host}/espalier",
        secrets={"REGISTRY_USER": "somebody", "REGISTRY_PASSWORD": "a-password"},
    )
    assert run.succeeded, run.failed
    assert run.says(f"would assume {ROLE} in eu-central-1")
    assert run.says(f"would log in to {host} as ''")


def test_ghcr_gets_the_token_of_the_job(origin: Path, tmp_path: Path) -> None:
    run = log_in(origin, tmp_path, "ghcr.io/espalier-ml/espalier")
    assert run.succeeded, run.failed
    assert run.says("would log in to ghcr.io as 'nektos/act'")
    assert not run.says("would assume")


def test_another_registry_without_secrets_is_refused(origin: Path, tmp_path: Path) -> None:
    run = log_in(origin, tmp_path, "europe-west3-docker.pkg.dev/project/images/espalier")
    assert not run.succeeded
    assert "set the secrets REGISTRY_USER and REGISTRY_PASSWORD" in "".join(run.failed)
