"""A copy of the project with production in three regions, made as docs/operations.md says."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from deploy import clusters

REGIONS = {"production-us": "us-east-1", "production-ap": "ap-southeast-1"}
"""The further environments of production, in wave 2, and their regions."""


def lists(root: Path) -> dict[str, str]:
    """The texts of both lists with a cluster and an environment more for each region."""
    listed_clusters = yaml.safe_load((root / clusters.CLUSTERS).read_text())
    environments = yaml.safe_load((root / clusters.ENVIRONMENTS).read_text())
    for name, region in REGIONS.items():
        listed_clusters.append(
            {
                "cluster": region,
                "region": region,
                "platform": "eks",
                "eks": f"espalier-{region}",
                "vpc": "vpc-1",
            }
        )
        environments.append({"environment": name, "cluster": region, "wave": 2, "prune": False})
    return {
        clusters.CLUSTERS: yaml.safe_dump(listed_clusters),
        clusters.ENVIRONMENTS: yaml.safe_dump(environments),
    }


def add(root: Path) -> None:
    """Add the regions to a copy of the project: entries in both lists, and copies of production's overlays."""
    for path, text in lists(root).items():
        (root / path).write_text(text)
    production = root / "deploy/overlays/production"
    for name, region in REGIONS.items():
        copy = production.parent / name
        shutil.copytree(production, copy, ignore=shutil.ignore_patterns("release"))
        for file in copy.rglob("kustomization.yaml"):
            text = file.read_text().replace("namespace: espalier-production", f"namespace: espalier-{name}")
            file.write_text(text.replace("espalier.example.com", f"{region}.espalier.example.com"))
