"""What MLflow's store holds after the jobs of a CI system."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from common import models
from deploy.rehearsal import jobs
from deploy.rehearsal.world import World


def _client(world: World) -> MlflowClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        return MlflowClient(jobs.mlflow(world))


def aliases(world: World) -> dict[str, str]:
    """The version of the first model's bundle that each alias points to."""
    client, name = _client(world), f"espalier-{models.name(world.engineer)}"
    pointed = client.get_registered_model(name).aliases
    return {
        alias: client.get_model_version(name, str(number)).tags["version"]
        for alias, number in pointed.items()
    }


def runs(world: World) -> set[str]:
    """The names of the first model's runs that are complete, without the model's."""
    client, model = _client(world), models.name(world.engineer)
    experiment = client.get_experiment_by_name(f"espalier/{model}")
    if experiment is None:
        return set()
    found = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    return {str(each.info.run_name).removeprefix(f"{model} ") for each in found}
