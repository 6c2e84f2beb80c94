"""Lets MLflow's registry show what git says: a version for each released bundle, and an alias for each environment.

Git always wins: an alias that was moved by hand is moved back. Aliases with other names stay as they are.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from common import models
from common.overlays import Release
from deploy.errors import ReleaseError
from deploy.git import REMOTE, Git
from deploy.release import deployments, waves
from training.base import config
from training.production import command as production
from training.production.revisions import Revision
from training.track.command import TrackStageSettings, make_recorder
from training.track.mlflow_recorder import MlflowRecorder
from training.track.plan import release_run
from training.track.recorder import TrackingError, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
"""The alias of what runs in the last wave."""


def mirror(git: Git, model: str, base: str | None = None, fetch: bool = True) -> None:
    """Bring the registry up to date with origin's branch.

    Args:
        git: the clone.
        model: a name, or `all`.
        base: the branch that deploys; None for origin's default branch.
        fetch: ask origin for the branch; False for what this clone has of it.

    Raises:
        ReleaseError: the registry did not accept it.
    """
    git.require_history()
    branch = base or git.default_branch()
    tip = git.fetch(branch) if fetch else git.require(f"refs/remotes/{REMOTE}/{branch}")
    selected = models.select(model, git.top)
    failed = []
    for name, folder in selected.items():
        with chdir(folder):
            settings = config.load(TrackStageSettings)
            recorder = make_recorder(MlflowRecorder, name, settings.track)
            try:
                lines = _mirror(recorder, running(git, tip, name))
            except Exception as error:  # MLflow raises what its backends raise
                if len(selected) == 1:
                    raise ReleaseError(f"{name} is not mirrored: {reason_of(error)}") from error
                print(f"error: {name} is not mirrored: {reason_of(error)}", file=sys.stderr)
                failed.append(name)
            else:
                print("\n".join(lines) or f"{recorder.registered}: nothing to change")
    if failed:
        raise ReleaseError(f"{', '.join(failed)}: not mirrored, see above")


def running(git: Git, tip: str, model: str) -> dict[str, Release]:
    """What a model runs, by alias: each environment by its name, and `champion` if the last wave runs one image."""
    environments = waves.read(git, tip).environments
    owners = deployments.owners(git, tip)
    found: dict[str, Release] = {}
    last: set[Release | None] = set()
    for each in environments:
        release = (
            deployments.current(git, tip, each.name, model) if model in owners.get(each.name, ()) else None
        )
        if release is not None:
            found[each.name] = release
        if each.wave == environments[-1].wave:
            last.add(release)
    if len(last) == 1 and (champion := last.pop()) is not None:
        found[CHAMPION] = champion
    return found


def _mirror(recorder: MlflowRecorder, wanted: Mapping[str, Release]) -> list[str]:
    """Register what is missing in the registry and set the aliases; return what changed, a line each."""
    with tempfile.TemporaryDirectory() as cache:
        for name, value in recorder.settings(cache).items():
            os.environ.setdefault(name, value)
    recorder.check_reachable(os.environ)
    client = recorder.client(recorder.server(os.environ) or None)
    from training.track import mlflow_models

    versions = {release: _version(recorder, client, release) for release in set(wanted.values())}
    mlflow_models.ensure_registered(client, recorder.registered)
    return mlflow_models.point(
        client, recorder.registered, {alias: versions[release] for alias, release in wanted.items()}
    )


def _version(recorder: MlflowRecorder, client: MlflowClient, release: Release) -> str:
    """The number of a release's version. If its training was not tracked, its bundle is registered from DVC."""
    from training.track.mlflow_models import find_version

    found = find_version(client, recorder.registered, "version", release.version)
    if found is None:
        with tempfile.TemporaryDirectory() as folder:
            bundle = production.download(Revision.find(release.revision), release, Path(folder))
            run = release_run(recorder.name, bundle.manifest, Path(folder))
            recorder.record(f"{recorder.name}-releases", [asdict(run)], recorder.mode(os.environ))
        found = find_version(client, recorder.registered, "version", release.version)
    if found is None:
        raise TrackingError(f"the registry did not keep version {release.version} of {recorder.registered}")
    return str(found.version)
