"""Puts what Terraform made into deploy/ and .dvc/config.

That is region, network, platform, cluster, and the places of data, predictions and signatures. PLACES says what goes where. A server's log is set in overlays that have the component prediction-log.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from common import files
from deploy.adopt import names, outputs, variables
from deploy.adopt.errors import AdoptError
from deploy.adopt.names import Names
from deploy.adopt.outputs import Outputs
from deploy.clusters import CLUSTERS

PLATFORMS = {"auto": "eks-auto", "node_groups": "eks"}
"""Folders of deploy/platforms, by the output `compute`."""
REMOTE = "storage"
"""The name of the DVC remote."""


@dataclass(frozen=True)
class Place:
    """Values in files that are not names which stand in many files."""

    glob: str
    pattern: str
    """Its first group is the value."""
    value: Callable[[Outputs, Path], str | None]
    """None: leave it."""


PLACES = (
    Place(
        "deploy/admission/policy.yaml",
        r"^ +repository: (\S+)$",
        lambda made, _: (made.github_variables or {}).get("COSIGN_REPOSITORY"),
    ),
    Place(
        "deploy/overlays/*/*/kustomization.yaml",
        r"/value, value: [\"']?(s3://[^\s\"'}]+)",
        lambda made, path: made.predictions.get("/".join(path.parts[-3:-1])),
    ),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    outputs.add_options(parser)


def main(options: argparse.Namespace) -> None:
    root, made = Path(), outputs.read(options)
    former = names.current(root)
    # In a further region nothing is called after it but its own cluster.
    wanted = former if made.github_variables is None else replace(former, **_names(made))
    wanted.check()
    if former.account_id not in (made.account_id, variables.EXAMPLE):
        raise AdoptError(
            f"the outputs are of account {made.account_id}, and deploy/ is adopted for {former.account_id}"
        )
    changed, _ = names.adopt(root, former, wanted)
    for part in (_fill, _describe_cluster, _name_remote):
        for path, number in part(root, made).items():
            changed[path] = changed.get(path, 0) + number
    names.report(root, [], changed)


def _names(made: Outputs) -> dict[str, str]:
    return {name: getattr(made, name) for name in Names.__dataclass_fields__ if name in Outputs.model_fields}


def _fill(root: Path, made: Outputs) -> dict[Path, int]:
    changed: dict[Path, int] = {}
    for place in PLACES:
        for path in sorted(root.glob(place.glob)):
            value = place.value(made, path)
            text = path.read_text(encoding="utf-8")
            spans = [found.span(1) for found in re.finditer(place.pattern, text, re.MULTILINE)]
            stale = [span for span in spans if value is not None and text[slice(*span)] != value]
            for start, end in reversed(stale):
                text = text[:start] + (value or "") + text[end:]
            if stale:
                files.write_text(path, text)
                changed[path.relative_to(root)] = len(stale)
    return changed


def _describe_cluster(root: Path, made: Outputs) -> dict[Path, int]:
    """Fill in the entry of the cluster: the first one, or for a further region the one that is there."""
    editor, file = YAML(), Path(CLUSTERS)
    editor.width = 10_000
    try:
        entries = editor.load((root / file).read_text(encoding="utf-8"))
        further = [each for each in entries[1:] if each["region"] == made.region]
    except (OSError, YAMLError, TypeError, KeyError) as error:
        raise AdoptError(f"{file} is no list of clusters with their regions: {error!r}") from None
    if made.github_variables is None and not further:
        raise AdoptError(
            f"{file} has no further cluster in {made.region}: add an entry for it, as docs/operations.md says"
        )
    entry = entries[0] if made.github_variables is not None else further[0]
    described = {
        "region": made.region,
        "platform": PLATFORMS[made.compute],
        "eks": made.cluster_name,
        "vpc": made.vpc_id,
    }
    stale = {key: value for key, value in described.items() if entry.get(key) != value}
    if not stale:
        return {}
    entry.update(stale)
    text = io.StringIO()
    editor.dump(entries, text)
    files.write_text(root / file, text.getvalue())
    return {file: len(stale)}


def _name_remote(root: Path, made: Outputs) -> dict[Path, int]:
    """Have .dvc/config name the remote for everybody."""
    from dvc.config import Config, ConfigError

    if made.dvc_remote is None:
        return {}
    file = Path(".dvc/config")
    before = (root / file).read_bytes()
    try:
        with Config(dvc_dir=str(root / ".dvc")).edit("repo") as config:
            config["core"]["remote"] = REMOTE
            config["remote"][REMOTE] = {"url": made.dvc_remote, "region": made.region, "verify": True}
    except ConfigError as error:
        raise AdoptError(f"{file}: {' '.join(str(error).split())}") from None
    return {} if (root / file).read_bytes() == before else {file: 1}
