"""What watches the service in a cluster: made of the files that are tested, restricted, and every name leads somewhere."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from common.errors import EspalierError
from deploy.manifests import monitoring, render
from monitoring import generate
from monitoring.objectives import objectives
from monitoring.queries import panel_queries, rule_queries
from tests.deploy.project import ROOT
from tests.deploy.spoiling import REMOVE, spoil
from tests.monitoring import pods
from tests.monitoring.pods import Document
from tests.tools import require

PROGRAMS = tuple(
    each["name"].removeprefix("espalier-")
    for each in yaml.safe_load((render.MONITORING / "kustomization.yaml").read_text())["configMapGenerator"]
    if any(file.endswith(".py") for file in each["files"])
)


def _all(kind: str) -> list[Document]:
    return [each for each in pods.rendered() if each["kind"] == kind]


# Rules.


def test_the_clusters_rules_are_those_that_are_tested(tmp_path: Path) -> None:
    """Prometheus' own tool finds as many in them, and they say the same."""
    files = sorted(generate.RULES.glob("*.yaml"))
    assert [each["metadata"]["name"] for each in _all("PrometheusRule")] == [
        f"espalier-{f.stem}" for f in files
    ]
    for file, manifest in zip(files, _all("PrometheusRule"), strict=True):
        assert manifest["spec"] == yaml.safe_load(file.read_text())
        (tmp_path / file.name).write_text(yaml.safe_dump(manifest["spec"]))
        checks = [
            subprocess.run(
                [require("promtool"), "check", "rules", str(each)],
                capture_output=True,
                text=True,
                check=False,
            )
            for each in (file, tmp_path / file.name)
        ]
        assert [each.returncode for each in checks] == [0, 0], checks[1].stderr
        found = [re.findall(r"\d+ rules found", each.stdout) for each in checks]
        assert found[0] == found[1] != []


@pytest.mark.parametrize("text", ["groups: [", "- a", "rules: []"])
def test_what_is_no_file_of_rules_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(EspalierError, match=r"^broken\.yaml is no file of rules: [^\n]*$"):
        generate.cluster_rules(generate.rule_files(objectives(), tmp_path))


# Labels.


def test_rules_and_dashboards_ask_for_labels_that_the_services_series_have() -> None:
    """Of a target: what the ServiceMonitor makes, and what the Prometheus operator gives every series."""
    monitor = next(
        each
        for each in render.parse(render.render(render.FOLDER / "overlays/production"))
        if each["kind"] == "ServiceMonitor"
    )
    made = {rule["targetLabel"] for rule in monitor["spec"]["endpoints"][0]["relabelings"]}
    made |= {re.sub(r"\W", "_", label) for label in monitor["spec"]["podTargetLabels"]}
    made |= {"job", "instance", "namespace", "pod", "service", "container", "endpoint"}
    # Those by which models, versions and environments are told apart, under whatever name somebody might ask for them.
    target = re.compile(r"pod|env\w*|namespace|model|\w*version\w*|\w*hash\w*|job|instance")
    asked: dict[str, str] = {}
    for query in [*panel_queries(), *rule_queries()]:
        for name, labels in _selected(query.expression):
            if name.startswith(("http_", "model_", "process_", "prediction_log_")) and name != "model_info":
                asked |= {label: query.title for label in labels if target.fullmatch(label)}
    assert {"environment", "job"} <= asked.keys()
    assert {label: title for label, title in asked.items() if label not in made} == {}


def _selected(expression: str) -> list[tuple[str, set[str]]]:
    """Every selector in an expression: the metric's name and the labels that are matched."""
    found: list[tuple[str, set[str]]] = []

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name or "", {each.name for each in node.matchers.matchers}))
        for name in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
            below = getattr(node, name, None)
            for each in below if isinstance(below, list) else [below]:
                if each is not None and not isinstance(each, (str, int, float)):
                    walk(each)

    walk(promql_parser.parse(expression))
    return found


# Programs.


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_is_all_of_its_files_and_its_python_is_the_services(program: str) -> None:
    """One file, or every module of a package: kustomize lists them, and knows no patterns."""
    config = pods.get(pods.rendered(), f"ConfigMap espalier-{program}")
    package = ROOT / "monitoring" / program
    files = sorted(package.glob("**/*.py")) or [package.with_suffix(".py")]
    assert config["data"] == {file.name: file.read_text() for file in files}
    assert config["metadata"]["name"] != f"espalier-{program}", "a new program must be a new pod"
    base = re.search(r"^FROM (\S+) AS base$", (ROOT / "app/Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    tag, digest = base[1].split("@")
    if program == "delivery":
        # The full image, which has git.
        tag, digest = tag.replace("-slim", ""), pods.container(program)["image"].partition("@")[2]
    assert pods.container(program)["image"] == f"{tag}@{digest}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_needs_no_packages(program: str) -> None:
    """The image has Python, one of them git, and nothing else."""
    names = {
        name.partition(".")[0]
        for text in pods.get(pods.rendered(), f"ConfigMap espalier-{program}")["data"].values()
        for node in ast.walk(ast.parse(text))
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("program", PROGRAMS)
def test_pods_are_restricted(program: str) -> None:
    pod = pods.pod(program)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} == container["resources"][kind].keys()
    assert "secretKeyRef" not in json.dumps(pod), (
        "tokens are files, which can be renewed and are not inherited"
    )


def test_the_exporter_has_room_for_its_clone() -> None:
    (tmp,) = (each for each in pods.container("delivery")["volumeMounts"] if each["mountPath"] == "/tmp")
    assert not tmp.get("readOnly", False)
    volumes = {each["name"]: each for each in pods.pod("delivery")["volumes"]}
    assert volumes[tmp["name"]]["emptyDir"]["sizeLimit"]


def test_the_exporter_takes_the_arguments_that_it_is_given(tmp_path: Path) -> None:
    """As the container runs it: it reads the token, then refuses what is no token."""
    done = pods.run("delivery", tmp_path, "two words")
    assert (done.returncode, done.stdout) == (1, "")
    token = tmp_path / "run/secrets/github/token"
    assert done.stderr == f"error: --token-file {token}: it must hold a token and nothing else\n"
    container = pods.container("delivery")
    (port,) = container["ports"]
    assert f"--port={port['containerPort']}" in container["args"]
    assert "--host=0.0.0.0" in container["args"]


def test_the_relay_takes_the_environment_that_it_is_given(tmp_path: Path) -> None:
    """As the container runs it; it refuses where its token is not."""
    done = pods.run("relay", tmp_path, None)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"RELAY_TOKEN_FILE is '{tmp_path}/run/secrets/github/token'" in done.stderr
    container = pods.container("relay")
    source = (ROOT / "monitoring/relay.py").read_text()
    assert f'"{container["ports"][0]["containerPort"]}"' in source, "the port is its default"
    assert {each["name"] for each in container["env"]} <= {*re.findall(r"RELAY_\w+", source)}


def test_what_a_person_makes_is_documented() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    used = {
        volume["secret"]["secretName"]
        for each in _all("Deployment")
        for volume in each["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    assert used <= set(monitoring.SECRETS)
    for name in used:
        assert f"kubectl create secret generic {name} -n monitoring" in text, name


# Dashboards.


def test_prometheus_keeps_what_the_rules_look_back_over() -> None:
    documents = yaml.safe_load_all((ROOT / "deploy/argocd/monitoring.yaml").read_text())
    values = next(each for each in documents if each["kind"] == "ApplicationSet")["spec"]["template"]["spec"][
        "source"
    ]["helm"]["valuesObject"]
    kept = int(values["prometheus"]["prometheusSpec"]["retention"].removesuffix("d"))
    windows = [
        int(number) * {"w": 7, "d": 1}[unit]
        for query in (*rule_queries(), *panel_queries())
        for number, unit in re.findall(r"\[(\d+)([dw])[]:]", query.expression)
    ]
    assert kept > max(windows) == objectives().period_days


def test_there_is_a_configmap_for_each_dashboard() -> None:
    files = {path.name: path.read_text() for path in (ROOT / "monitoring/dashboards").glob("*.json")}
    assert len(files) == 5
    given: dict[str, str] = {}
    for each in _all("ConfigMap"):
        data = {name: text for name, text in each["data"].items() if name.endswith(".json")}
        if data:
            assert len(data) == 1
            assert each["metadata"]["name"] == f"espalier-dashboard-{next(iter(data)).removesuffix('.json')}"
            assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
            assert each["metadata"]["annotations"] == {"grafana_folder": "Espalier"}
            given |= data
    assert given == files
    # More would not fit into one object of Kubernetes.
    assert max(len(text.encode()) for text in files.values()) < 900_000


# Names that lead nowhere.

DEPLOYMENT, SERVICE = "Deployment espalier-delivery", "Service espalier-delivery"
MONITOR, POLICY = "ServiceMonitor espalier-delivery", "NetworkPolicy espalier-delivery"
POD = "/spec/template/spec"
CONTAINER = f"{POD}/containers/0"
FROM = "/spec/ingress/0/from/0/podSelector/matchLabels"
MISTAKES: list[tuple[str, str, object, str]] = [
    (DEPLOYMENT, "/spec/selector/matchLabels/a", "b", "does not match its own pods"),
    (DEPLOYMENT, f"{POD}/serviceAccountName", "other", "no ServiceAccount of its own"),
    ("ServiceAccount espalier-delivery", "/automountServiceAccountToken", True, "without a token"),
    (DEPLOYMENT, f"{CONTAINER}/image", "python:3.13", "is not NAME@sha256:DIGEST"),
    (DEPLOYMENT, f"{CONTAINER}/livenessProbe", REMOVE, "it has no livenessProbe"),
    (DEPLOYMENT, f"{CONTAINER}/readinessProbe/httpGet/port", "web", "readinessProbe asks none"),
    (DEPLOYMENT, f"{CONTAINER}/workingDir", "/srv", "nothing is mounted at /srv/delivery"),
    (DEPLOYMENT, f"{CONTAINER}/workingDir", REMOVE, "refer to: 'workingDir'"),
    (DEPLOYMENT, f"{CONTAINER}/args/2", "deliver", "nothing is mounted at /app/deliver,"),
    ("ConfigMap espalier-delivery", "/data/__main__.py", REMOVE, "with __main__.py"),
    ("Deployment espalier-relay", f"{CONTAINER}/args/1", "/srv/relay.py", "nothing is mounted at /srv"),
    ("Deployment espalier-relay", f"{CONTAINER}/args/1", "/app/rely.py", "with rely.py"),
    (DEPLOYMENT, f"{CONTAINER}/args/4", "--branch=main", "it is told of no file in /run/secrets/github"),
    (DEPLOYMENT, f"{POD}/volumes/0/configMap/name", "other", "there is no ConfigMap other"),
    (DEPLOYMENT, f"{POD}/volumes/1/secret/secretName", "other", "nothing makes the Secret other"),
    (DEPLOYMENT, f"{POD}/volumes", REMOVE, "refer to: 'volumes'"),
    (SERVICE, "/spec/selector", {"a": "b"}, "matches the pods of 0 Deployments"),
    (SERVICE, "/spec/ports/0/targetPort", "web", "target port web is none"),
    (SERVICE, "/spec/ports/0/port", 80, "port 80 is not the one"),
    (
        SERVICE,
        "/metadata/labels/app.kubernetes.io~1name",
        "exporter",
        "it must match one Service, and matches 0",
    ),
    (SERVICE, "/metadata/labels/app.kubernetes.io~1name", "exporter", "nothing scrapes it"),
    (MONITOR, "", REMOVE, "Service espalier-delivery: nothing scrapes it"),
    (MONITOR, "/spec/jobLabel", "job", "its job is None"),
    (MONITOR, "/spec/endpoints/0/port", "metrics", "port metrics is none"),
    ("ServiceMonitor argo-rollouts", "/spec/endpoints/0/honorLabels", REMOVE, "series lose their namespace"),
    (POLICY, "", REMOVE, "there must be one NetworkPolicy"),
    (POLICY, "/spec/policyTypes", ["Ingress"], "for both ways"),
    (POLICY, "/spec/podSelector", {}, "matches no pod of ours, or everybody's"),
    (POLICY, f"{FROM}/app.kubernetes.io~1name", "grafana", "it lets grafana in"),
    (POLICY, "/spec/ingress/0/ports/0/port", "web", "port web is none"),
    (POLICY, "/spec/egress/1/ports/0/port", 80, "not to DNS and HTTPS alone"),
    ("ConfigMap espalier-dashboard-model", "/data/model.json", "{}", "is no dashboard with a uid"),
    (
        "ConfigMap espalier-dashboard-model",
        "/data/model.json",
        '{"uid": "espalier-load"}',
        "the uid espalier-load",
    ),
    ("PrometheusRule espalier-drift", "/spec/groups/0/name", "espalier-platform", "another group is called"),
]


@pytest.mark.parametrize(
    ("which", "pointer", "value", "complaint"),
    MISTAKES,
    ids=[f"{n}-{each[-1]}" for n, each in enumerate(MISTAKES)],
)
def test_a_mistake_is_found(which: str, pointer: str, value: object, complaint: str) -> None:
    documents = deepcopy(pods.rendered())
    assert monitoring.problems(documents) == []
    spoil(documents, pods.get(documents, which), pointer, value)
    assert complaint in "\n".join(monitoring.problems(documents))
