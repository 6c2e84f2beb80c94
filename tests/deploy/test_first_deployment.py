"""docs/first-deployment.md: what broke in somebody's first deployment is planted here, and the check that it names finds it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.deploy import test_image, test_manifests, test_terraform
from tests.deploy.project import ROOT, copy_manifests
from tests.deploy.spoiling import Plant

PAGE = ROOT / "docs/first-deployment.md"


AUTOSCALER = "deploy/base/hpa.yaml"
DELIVERY = "monitoring/cluster/delivery.yaml"
NAMESPACE = "deploy/environment/namespace.yaml"
RELAY = "monitoring/cluster/relay.yaml"
ROLLOUT = "deploy/base/rollout.yaml"
STACK = "deploy/argocd/monitoring.yaml"
VERTICAL = """\
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {name: server}
spec: {targetRef: {apiVersion: apps/v1, kind: Deployment, name: server}}
---
"""
GRAPHICS = """\
apiVersion: v1
kind: LimitRange
metadata: {name: graphics}
spec: {limits: [{type: Container, max: {nvidia.com/gpu: "1"}}]}
---
"""
IMAGE = "image: docker.io/library/python:3.13-"

MANIFESTS = {
    1: Plant(ROLLOUT, "AccountName: server", "AccountName: predictor", "there is no ServiceAccount predictor"),
    3: Plant(RELAY, "AccountName: espalier-relay", "AccountName: other", "has no ServiceAccount of its own"),
    9: Plant(DELIVERY, "configMap:\n            name: ", "configMap:\n            name: other-", "no ConfigMap other"),
    10: Plant(DELIVERY, "secretName: espalier", "secretName: other", "nothing makes the Secret other"),
    11: Plant(AUTOSCALER, "api", f"{VERTICAL}api", "no schema for VerticalPodAutoscaler"),
    12: Plant(RELAY, f"{IMAGE}slim-trixie@", f"{IMAGE}absent # ", "3.13-absent' is not NAME@sha256"),
    13: Plant(DELIVERY, f"{IMAGE}trixie@", "image: docker.io/library/python:main # ", "python:main' is not NAME@"),
    15: Plant(STACK, "targetRevision: 88.5.3", 'targetRevision: "^88"', "is not pinned: ^88"),
    17: Plant("deploy/environment/servicemonitor.yaml", "podTargetLabels:", "podTargetLabels:\n    - experiment", "pods have no label experiment"),
    18: Plant("deploy/overlays/production/iris/kustomization.yaml", "{kind: Ingress}", "{kind: Ingress, name: absent}", "no overlay has set its host"),
    20: Plant(ROLLOUT, "ESPALIER_DRAIN_SECONDS", "ESPALIER_DRAIN", "knows no variable ESPALIER_DRAIN"),
    21: Plant(ROLLOUT, "revisionHistoryLimit: 3", "revisionHistory: 3", "'revisionHistory' was unexpected"),
    22: Plant(AUTOSCALER, "maxReplicas: 4", 'maxReplicas: "4"', "is not of type 'integer'"),
    26: Plant(STACK, "accessModes: [", 'storageClassName: ""\n                      accessModes: [', "an empty storageClassName"),
    27: Plant(STACK, "existingSecret: grafana-admin", "password: admin", "known password"),
    28: Plant(NAMESPACE, "apiVersion", f"{GRAPHICS}apiVersion", "does not allow LimitRange"),
    42: Plant(NAMESPACE, 'sync-wave: "-1"', 'sync-wave: "1"', "it must come before what is in it"),
}  # fmt: skip


BY_OTHERS = {*test_image.PLANTED, 40, *test_manifests.SCANNED, *test_terraform.PLANTED, 48, 50}
"""Planted in tests that need more than Python, beside what they test anyway."""


def test_the_checks_of_manifests_find_what_is_planted(tmp_path: Path) -> None:
    copy_manifests(tmp_path)
    for plant in MANIFESTS.values():
        plant.put(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.manifests"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert {number: plant.said for number, plant in MANIFESTS.items() if plant.said not in done.stderr} == {}


def test_the_page_marks_what_is_planted() -> None:
    rows = re.findall(r"^\| (\*\*)?(\d+)(?:\*\*)? \| ", PAGE.read_text(), re.MULTILINE)
    assert [int(number) for _, number in rows] == [*range(1, len(rows) + 1)]
    marked = {int(number) for mark, number in rows if mark}
    assert marked == {*MANIFESTS, *BY_OTHERS}
    assert len(marked) >= 20
