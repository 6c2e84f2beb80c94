"""A bundle as MLflow's logged model in ONNX flavour, and as a version of its registered model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.contract import MANIFEST_FILE, MISSING_CATEGORY, MODEL_FILE, Manifest
from app.predictor import CATEGORIES, NUMBERS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model, ModelSignature

ALIASES = "espalier.aliases"
"""The tag of a registered model that lists the aliases which follow git."""
ROWS = 5
"""Of the input example."""
NEEDED = ("numpy", "onnx", "onnxruntime")
"""What it takes to load the model."""


def log_bundle(client: MlflowClient, run: Run, registered: str, artifact: Mapping[str, Any]) -> None:
    """Log a bundle as the run's model and register it, unless the registry has a version of this digest.

    Args:
        client: of the store that has the run.
        run: the run.
        registered: name of the registered model.
        artifact: as `training.track.plan.bundle_artifact` describes the bundle.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    described = artifact["metadata"]
    if find_version(client, registered, "digest", described["digest"]):
        return
    tags = {key: str(value) for key, value in described.items()}
    model = client.create_logged_model(
        run.info.experiment_id,
        name=artifact["name"],
        source_run_id=run.info.run_id,
        tags=tags,
        model_type=described["algorithm"],
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        save(
            [Path(each) for each in artifact["files"]],
            folder,
            Model(run_id=run.info.run_id, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    ensure_registered(client, registered)
    client.create_model_version(
        registered,
        # By its place: `models:/` would be looked up at the server of MLflow's own settings, and not this client's.
        source=model.artifact_location,
        run_id=run.info.run_id,
        tags=tags,
        model_id=model.model_id,
    )


def find_version(client: MlflowClient, registered: str, tag: str, value: str) -> ModelVersion | None:
    """The oldest version with this tag; None if there is no such version or no such model."""
    found = client.search_model_versions(f"name = '{registered}' and tags.`{tag}` = '{value}'")
    return min(found, key=lambda each: int(each.version), default=None)


def point(client: MlflowClient, registered: str, aliases: Mapping[str, str]) -> list[str]:
    """Let aliases point at versions, and remove those that an earlier call set and that are not given.

    Args:
        client: of the registry.
        registered: name of the registered model.
        aliases: the number of a version by alias.

    Returns:
        What changed, a line each. Aliases that somebody else made stay.
    """
    found = client.get_registered_model(registered)
    ours = json.loads(found.tags.get(ALIASES, "[]"))
    lines = []
    for alias in ours:
        if alias not in aliases and alias in found.aliases:
            client.delete_registered_model_alias(registered, alias)
            lines.append(f"{registered}: removed {alias}")
    for alias, version in aliases.items():
        if str(found.aliases.get(alias)) != version:
            client.set_registered_model_alias(registered, alias, version)
            lines.append(f"{registered}: {alias} is version {version}")
    if sorted(ours) != sorted(aliases):
        client.set_registered_model_tag(registered, ALIASES, json.dumps(sorted(aliases)))
    return lines


def ensure_registered(client: MlflowClient, registered: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(registered)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def save(files: list[Path], folder: Path, model: Model) -> None:
    """Write a bundle as a model folder of MLflow: the bytes of its files, with a signature and an example.

    Args:
        files: of the bundle.
        folder: is created.
        model: what `MLmodel` says of its origin.
    """
    import mlflow.onnx
    import onnx

    paths = {each.name: each for each in files}
    manifest = Manifest.model_validate_json(paths[MANIFEST_FILE].read_bytes())
    proto = onnx.load(str(paths[MODEL_FILE]))
    mlflow.onnx.save_model(
        proto,
        str(folder),
        mlflow_model=model,
        signature=signature(proto),
        input_example=example(manifest),
        pip_requirements=[f"{each}=={metadata.version(each)}" for each in NEEDED],
        metadata={"digest": manifest.digest, "version": manifest.version},
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    # MLflow writes the same graph in other bytes, and their digest would be another one.
    for each in files:
        shutil.copyfile(each, folder / each.name)


def signature(proto: Any) -> ModelSignature:
    """The tensors that a model takes and gives, as the file declares them."""
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def described(values: Any) -> Schema:
        specs = []
        for each in values:
            tensor = each.type.tensor_type
            text = tensor.elem_type == onnx.TensorProto.STRING
            kind = np.dtype("object") if text else onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            sizes = [one.dim_value or -1 for one in tensor.shape.dim]
            specs.append(TensorSpec(kind, tuple(sizes), each.name))
        return Schema(specs)

    return ModelSignature(described(proto.graph.input), described(proto.graph.output))


def example(manifest: Manifest) -> dict[str, Any] | None:
    """A few rows of the test split as the model's tensors; None if the bundle has no rows."""
    import numpy as np
    import pandas as pd

    from training.data.columns import as_moments, moment_parts

    if not manifest.examples:
        return None
    rows = pd.DataFrame([each.values for each in manifest.examples[:ROWS]])
    numbers: list[Any] = []
    categories: list[Any] = []
    for each in manifest.features:
        if each.type == "category":
            categories.append(rows[each.name].astype(object).where(rows[each.name].notna(), MISSING_CATEGORY))
        elif each.type == "datetime":
            moments, _ = as_moments(rows[each.name], timezone=each.timezone)
            numbers.extend(moment_parts(moments, each.parts, each.timezone).T)
        else:
            numbers.append(rows[each.name].to_numpy(np.float64))
    tensors: dict[str, Any] = {}
    if numbers:
        tensors[NUMBERS] = np.stack(numbers, axis=1)
    if categories:
        tensors[CATEGORIES] = np.stack(categories, axis=1)
    return tensors
