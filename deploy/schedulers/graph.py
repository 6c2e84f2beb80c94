"""The stages of each model and what they depend on, as DVC says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from common import models
from common.pipelines import PIPELINE_FILE
from deploy.errors import DeployError
from training import parallel

Graph = dict[str, dict[str, list[str]]]
"""For each model, and each of its stages, the stages that it directly depends on."""
_SAFE = re.compile(r"[\w.-]+(@[\w.-]+)?\Z", re.ASCII)
"""A stage that can be named in a shell and in a scheduler."""


def read() -> Graph:
    """The graph of all models around the working directory; the first model comes first.

    Raises:
        DeployError: a stage depends on another model's, or has a name that schedulers do not take.
        StagesError: DVC cannot read the pipelines.
    """
    return split(
        parallel.dependencies(), {name: address(folder) for name, folder in models.find(Path()).items()}
    )


def address(folder: Path) -> str:
    """What DVC's names of the stages of the model in a folder begin with."""
    return "" if folder == Path() else f"{(folder / PIPELINE_FILE).as_posix()}:"


def split(dependencies: Mapping[str, frozenset[str]], prefixes: Mapping[str, str]) -> Graph:
    """The graph of each model, from the stages of all as DVC names them. Raises DeployError as `read` does."""
    places = {each: place for place, each in enumerate(dependencies)}
    graph: Graph = {}
    for model, prefix in prefixes.items():
        graph[model] = {}
        for stage, needed in dependencies.items():
            if not _is_of(stage, prefix):
                continue
            if not _SAFE.match(stage.removeprefix(prefix)):
                raise DeployError(
                    f"the stage {stage} cannot be a task: use letters, digits, `_`, `-` and `.`"
                )
            if foreign := [each for each in needed if not _is_of(each, prefix)]:
                raise DeployError(
                    f"the stage {stage} depends on {foreign[0]} of another dvc.yaml: no task group can"
                )
            graph[model][stage.removeprefix(prefix)] = [
                each.removeprefix(prefix) for each in sorted(needed, key=places.__getitem__)
            ]
    return graph


def _is_of(stage: str, prefix: str) -> bool:
    """Whether a stage is of the model whose stages begin with a prefix; the first model's have none."""
    return stage.startswith(prefix) if prefix else ":" not in stage
