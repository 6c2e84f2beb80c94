"""The exporters that are ours export what the list says that queries may rely upon: names, kinds and labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitoring import labels, scores
from monitoring.delivery import exposition
from monitoring.delivery.facts import Deployment, Facts, Run, Timeline
from monitoring.delivery.files import Place, Release
from tests.bundles import write_harvest_bundle, write_number_bundle
from tests.deploy.project import ROOT

Family = tuple[str, frozenset[str]]
"""Kind and labels."""


def test_delivery() -> None:
    release = Release("sha256:" + "a" * 64, "0123456789ab", "b" * 40)
    first = Deployment(release, "c" * 40, 100, "release")
    back = Deployment(release, "d" * 40, 200, "rollback")
    facts = Facts(
        {Place("production", "iris"): Timeline((first, back), 1, (first, back))},
        {release.revision: 50},
        {("iris", release.revision): {("test", "accuracy"): 0.9}},
        [Run("ci", 1, 600, 300)],
    )
    assert exported(exposition.text(facts, up=True, read_at=400)) == listed("espalier-delivery")


def test_labels(tmp_path: Path) -> None:
    found: dict[str, Family] = {}
    scorings = [
        (write_number_bundle(tmp_path), scores.Accuracy(7, 8, {"setosa": (3, 4)})),
        (write_harvest_bundle(tmp_path), scores.Errors(1.0, 2.0, 7, 8)),
    ]
    for manifest, figures in scorings:
        score = labels.Score("0123456789ab", 10, 8, figures)
        where, file = {"environment": "production", "model": manifest.name}, tmp_path / "live.prom"
        labels.publish([score], scores.scoring_of(manifest), where, textfile=file)
        found |= exported(file.read_text())
    assert found == listed("labels")


# In a process of its own: locust replaces parts of the standard library.
LOCUST = """
from locust.env import Environment
from prometheus_client import CollectorRegistry, generate_latest
from tests.load.exporter import Figures

environment = Environment()
environment.stats.log_request("POST", "predict: one row", 3, 100)
environment.stats.log_error("POST", "predict: one row", "wrong")
registry = CollectorRegistry()
registry.register(Figures(environment))
print(generate_latest(registry).decode())
"""


@pytest.mark.slow
def test_locust() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOCUST], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert exported(done.stdout) == listed("locust")


def exported(text: str) -> dict[str, Family]:
    families = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found = {label for sample in family.samples for label in sample.labels}
        families[name] = (family.type, frozenset(found - {"le"}))
    return families


def listed(exporter: str) -> dict[str, Family]:
    document = yaml.safe_load((ROOT / "monitoring/exporters.yaml").read_text())
    return {
        name: (about.get("type", "gauge"), frozenset(about["labels"]))
        for name, about in document[exporter]["metrics"].items()
    }
