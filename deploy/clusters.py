"""The clusters and the environments in them: deploy/clusters.yaml and deploy/environments.yaml, which Argo CD reads too.

Environments roll out in waves. What is built runs in wave 0 first, and is promoted from each wave to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.errors import DeployError
from deploy.yaml_loader import LOADER

CLUSTERS, ENVIRONMENTS = "deploy/clusters.yaml", "deploy/environments.yaml"


class ClusterError(DeployError):
    """A list of clusters or environments cannot be used."""


@dataclass(frozen=True)
class Cluster:
    name: str
    """In Argo CD."""
    region: str
    platform: str
    """A folder of deploy/platforms."""


@dataclass(frozen=True)
class Environment:
    name: str
    """Its folder in deploy/overlays."""
    cluster: Cluster
    wave: int


def read(text_of: Callable[[str], str | None]) -> tuple[Environment, ...]:
    """All environments, by wave, and within a wave in the order of the file.

    Args:
        text_of: the text of a file by its path from the top of the repository; None if there is none.

    Raises:
        ClusterError: names the file, the entry and what is wrong with it.
    """
    clusters: dict[str, Cluster] = {}
    for number, entry in _entries(CLUSTERS, text_of):
        cluster = Cluster(*(_text(CLUSTERS, number, entry, key) for key in ("cluster", "region", "platform")))
        if cluster.name in clusters:
            raise ClusterError(f"{CLUSTERS}, entry {number}: {cluster.name} is listed twice")
        clusters[cluster.name] = cluster
    found: dict[str, Environment] = {}
    for number, entry in _entries(ENVIRONMENTS, text_of):
        name, cluster_name = (_text(ENVIRONMENTS, number, entry, key) for key in ("environment", "cluster"))
        wave = entry.get("wave")
        if not isinstance(wave, int) or isinstance(wave, bool) or wave < 0:
            raise ClusterError(f"{ENVIRONMENTS}, {name}: wave must be a number from 0 on, and is {wave!r}")
        if not isinstance(entry.get("prune"), bool):
            raise ClusterError(
                f"{ENVIRONMENTS}, {name}: prune must be true or false, and is {entry.get('prune')!r}"
            )
        if cluster_name not in clusters:
            raise ClusterError(
                f"{ENVIRONMENTS}, {name}: {CLUSTERS} has no cluster {cluster_name} ({', '.join(clusters)})"
            )
        if name in found:
            raise ClusterError(f"{ENVIRONMENTS}: {name} is listed twice")
        found[name] = Environment(name, clusters[cluster_name], wave)
    waves = sorted({each.wave for each in found.values()})
    if waves != list(range(len(waves))):
        raise ClusterError(f"{ENVIRONMENTS}: the waves are {waves}, and must be 0, 1, … without a gap")
    first = [each.name for each in found.values() if each.wave == 0]
    if len(first) != 1:
        raise ClusterError(
            f"{ENVIRONMENTS}: releases go to the one environment of wave 0, which are {', '.join(first)}"
        )
    return tuple(sorted(found.values(), key=lambda each: each.wave))


def _entries(path: str, text_of: Callable[[str], str | None]) -> list[tuple[int, dict[str, Any]]]:
    text = text_of(path)
    if text is None:
        raise ClusterError(f"there is no {path}")
    try:
        content = yaml.load(text, LOADER)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise ClusterError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, list) or not content or not all(isinstance(each, dict) for each in content):
        raise ClusterError(f"{path} must be a list with an entry for each, as `- cluster: NAME`")
    return list(enumerate(content, start=1))


def _text(path: str, number: int, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ClusterError(f"{path}, entry {number}: {key} must be a name, and is {value!r}")
    return value
