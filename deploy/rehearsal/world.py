"""The surroundings of the repository on one machine: git's server, S3, a registry and GitHub or GitLab.

The git repository, the S3 server (SeaweedFS), the registry (Docker's) and the builder are real. GitHub is played: its
runners by act, its API by `github`, actions of other repositories by the stand-ins in `actions/`. So is GitLab's API, by `gitlab`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import models
from deploy.rehearsal import containers, events, runner
from deploy.rehearsal.clone import ROOT, commit_working_tree
from deploy.rehearsal.forge import Played
from deploy.rehearsal.github import GitHub
from deploy.rehearsal.gitlab import GitLab
from deploy.rehearsal.runner import Run
from training import storage

BIN = Path(sys.executable).parent
REMOTE = "storage"
"""The name of the DVC remote in docs/setup.md."""
IDENTITY = {
    "GIT_AUTHOR_NAME": "engineer",
    "GIT_AUTHOR_EMAIL": "engineer@example.com",
    "GIT_COMMITTER_NAME": "engineer",
    "GIT_COMMITTER_EMAIL": "engineer@example.com",
}


class CommandError(Exception):
    """A command of the rehearsal failed; the message holds its output."""


@dataclass
class World:
    folder: Path
    forge: Played
    registry: str
    """HOST:PORT"""
    containers: Mapping[str, str]
    """Variables that give builders and podman a storage of the rehearsal's own."""
    s3: str = ""
    """Address of the S3 server."""
    runs: int = 0

    @property
    def github(self) -> GitHub:
        if not isinstance(self.forge, GitHub):
            raise TypeError("this world has GitLab")
        return self.forge

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    @property
    def engineer(self) -> Path:
        """The clone of the person who changes things."""
        return self.folder / "engineer"

    @property
    def image(self) -> str:
        return f"{self.registry}/espalier"

    def environment(self) -> dict[str, str]:
        """Of every command: the forge's addresses lead here, and no tracker is contacted."""
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.origin}.insteadOf",
            "GIT_CONFIG_VALUE_0": self.forge.site,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PAGER": "cat",
            "GIT_TERMINAL_PROMPT": "0",
            **self.forge.environment("rehearsal", self.folder / "gh"),
            **self.containers,
            # podman's default limits may be more than this machine grants.
            "IMAGE_RUN_ARGS": "--network=host --ulimit=nofile=1024:1024 --ulimit=nproc=1000:1000",
            "WANDB_MODE": "disabled",
            "REHEARSAL_FOLDER": str(self.folder),
            "REHEARSAL_VENV": str(ROOT / ".venv"),
        }

    def call(self, *command: str, cwd: Path | None = None, check: bool = True) -> str:
        """What a command printed.

        Raises:
            CommandError: it did not exit with 0.
        """
        done = subprocess.run(
            command,
            cwd=cwd or self.engineer,
            env={**os.environ, **IDENTITY, **self.environment(), "PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if check and done.returncode != 0:
            raise CommandError(
                f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout.strip() or done.stderr.strip()

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        return self.call("git", *arguments, cwd=cwd)

    def main(self) -> str:
        """The commit of the default branch."""
        return self.git("rev-parse", events.DEFAULT_BRANCH, cwd=self.origin)

    def read(self, path: str) -> str:
        """A file of the default branch."""
        return self.git("show", f"{events.DEFAULT_BRANCH}:{path}", cwd=self.origin)

    def workflow(
        self,
        name: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        at: str,
        inputs: Mapping[str, str] | None = None,
    ) -> Run:
        """Run a workflow file as it is at a branch or commit."""
        self.runs += 1
        folder = self.folder / "runs" / f"{self.runs:02d}-{name}"
        checkout = folder / "repository"
        self.git("clone", "--quiet", self.forge.site, str(checkout), cwd=self.folder)
        self.git("checkout", "--quiet", at, cwd=checkout)
        return runner.run(
            checkout,
            name,
            event,
            payload,
            variables=self.variables(),
            secrets={
                "APP_PRIVATE_KEY": "rehearsal",
                "GITHUB_TOKEN": "rehearsal",
                "REGISTRY_USER": containers.USER,
                "REGISTRY_PASSWORD": containers.PASSWORD,
            },
            environment={
                **self.environment(),
                "REHEARSAL_RUN": str(folder),
                # A run has its own logins.
                "REGISTRY_AUTH_FILE": str(containers.new_logins(folder / "auth.json")),
            },
            folder=folder,
            inputs=inputs,
        )

    def variables(self) -> dict[str, str]:
        """The repository's variables, as docs/setup.md has people set them."""
        role = "arn:aws:iam::111122223333:role/"
        return {
            "APP_ID": "1",
            "AWS_REGION": "eu-central-1",
            "AWS_ROLE_DATA": role + "data",
            "AWS_ROLE_DATA_READ": role + "data-read",
            "AWS_ROLE_RELEASE": role + "release",
            "COSIGN_REPOSITORY": f"{self.image}-signatures",
            "REGISTRY": self.image,
        }


@contextmanager
def world(folder: Path, play: type[GitHub] | type[GitLab] = GitHub) -> Iterator[World]:
    """Build it, and take it down at the end."""
    with ExitStack() as stack:
        forge: Played = stack.enter_context(play(events.REPOSITORY, origin=folder / "origin.git"))
        variables = stack.enter_context(containers.storage(folder / "containers"))
        registry = stack.enter_context(containers.registry(folder / "registry", closed=True))
        made = World(folder, forge, registry, variables)
        branch = events.DEFAULT_BRANCH
        made.git("init", "--quiet", "--bare", "--initial-branch", branch, str(made.origin), cwd=folder)
        commit_working_tree(made.engineer)
        # Further models would be trained, and the story is about the first one.
        made.git("rm", "-rq", *(f"{models.FOLDER}/{name}" for name in list(models.find(made.engineer))[1:]))
        made.call("python", "-m", "training.storage", "start")
        stack.callback(made.call, "python", "-m", "training.storage", "stop", check=False)
        _commit_remote(made)
        made.git("commit", "--quiet", "--amend", "--no-edit")
        made.git("remote", "add", "origin", forge.site)
        made.git("push", "--quiet", "--set-upstream", "origin", branch)
        yield made


def _commit_remote(made: World) -> None:
    """Have .dvc/config name the remote, and only the engineer's clone have keys for it."""
    made.s3 = made.call("dvc", "config", "--local", f"remote.{storage.REMOTE}.endpointurl")
    made.call("dvc", "config", "--local", "--unset", "core.remote")
    made.call("dvc", "remote", "add", "--force", "--default", REMOTE, f"s3://{storage.BUCKET}/dvc")
    for name, value in (("endpointurl", made.s3), ("verify", "true")):
        made.call("dvc", "remote", "modify", REMOTE, name, value)
    for name in ("access_key_id", "secret_access_key"):
        made.call("dvc", "remote", "modify", "--local", REMOTE, name, storage.KEY)
    made.git("add", ".dvc/config")


def fill_storage(made: World) -> str:
    """Bring the outputs that dvc.lock names to the S3 server, from this repository's cache or by computing them."""
    cache = ROOT / ".dvc" / "cache"
    how = "computed"
    if (cache / "files").is_dir():
        shutil.copytree(cache / "files", made.engineer / ".dvc" / "cache" / "files", dirs_exist_ok=True)
        how = "from this repository's cache"
    try:
        made.call("dvc", "checkout", "--quiet")
    except CommandError:
        how = "computed"
    made.call("dvc", "repro", "--quiet")
    made.call("python", "-m", "training.remote", "push")
    return how
