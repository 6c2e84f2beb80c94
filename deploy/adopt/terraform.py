"""Puts what Terraform made into deploy/ and .dvc/config: region, network, platform, cluster, and the places of data,
predictions and signatures.

PLACES says what goes where. A server's log is set in overlays that have the component prediction-log.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from common import files
from deploy.adopt import names, outputs, variables
from deploy.adopt.errors import AdoptError
from deploy.adopt.names import Names
from deploy.adopt.outputs import Outputs

PLATFORMS = {"auto": "eks-auto", "node_groups": "eks"}
"""Folders of deploy/platforms, by the output `compute`."""
REMOTE = "storage"
"""The name of the DVC remote."""
_FIRST = r"\A(?:#.*\n)*- .*\n(?: .*\n)*?"
"""Into the first entry of a list."""


@dataclass(frozen=True)
class Place:
    """Values in files that are not names which stand in many files."""

    glob: str
    pattern: str
    """Its first group is the value."""
    value: Callable[[Outputs, Path], str | None]
    """None: leave it."""


PLACES = (
    Place("deploy/clusters.yaml", r"^ +platform: (eks\S*)$", lambda made, _: PLATFORMS[made.compute]),
    Place("deploy/clusters.yaml", rf"{_FIRST} +eks: (\S+)$", lambda made, _: made.cluster_name),
    Place("deploy/clusters.yaml", rf"{_FIRST} +vpc: (\S+)$", lambda made, _: made.vpc_id),
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
    wanted = replace(former, **_names(made))
    wanted.check()
    if former.account_id not in (made.account_id, variables.EXAMPLE):
        raise AdoptError(
            f"the outputs are of account {made.account_id}, and deploy/ is adopted for {former.account_id}"
        )
    changed, _ = names.adopt(root, former, wanted)
    for path, number in (*_fill(root, made).items(), *_name_remote(root, made).items()):
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
