"""Each check of the manifests of a model and of its environment finds the mistake that it is for."""

from __future__ import annotations

import json
import subprocess
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from app import server
from app.main import create_app
from app.settings import Settings
from common.overlays import VERSION_LABEL
from deploy.manifests import environment, render
from deploy.manifests import model as checks
from tests.bundles import write_number_bundle
from tests.deploy.project import MODEL
from tests.deploy.spoiling import REMOVE, spoil
from tests.tools import require

Document = dict[str, Any]
Manifests = list[Document]


@cache
def _rendered(components: tuple[str, ...]) -> Manifests:
    with render.copied() as root:
        folder = root / "overlays/production"
        render.choose(folder / MODEL, components)
        return [each for place in (folder, folder / MODEL) for each in render.parse(render.render(place))]


def _manifests(*components: str) -> Manifests:
    """Those of production and of its first model."""
    return deepcopy(_rendered(components))


def _is_shared(document: Document) -> bool:
    """A mistake may have taken the label of a release away."""
    metadata = document["metadata"]
    return VERSION_LABEL not in metadata.get("labels", {}) and not metadata["name"].startswith(f"{MODEL}-")


def _problems(manifests: Manifests) -> list[str]:
    shared = [each for each in manifests if _is_shared(each)]
    own = [each for each in manifests if each not in shared]
    return [*environment.problems(shared), *checks.problems(own, shared, MODEL)]


def _get(manifests: Manifests, kind: str, name: str | None = None) -> Document:
    return next(d for d in manifests if d["kind"] == kind and name in {None, d["metadata"]["name"]})


POD = "/spec/template/spec"
CONTAINER = f"{POD}/containers/0"
CANARY = "/spec/strategy/canary"
NOTES = "/metadata/annotations/alb.ingress.kubernetes.io~1"
PATHS = "/spec/rules/0/http/paths"
BATCH = ("ingress-alb", "batch-scoring")
JOB = "/spec/jobTemplate/spec/template/spec"
ALB, GATEWAY, PLAIN = ("ingress-alb",), ("gateway-api",), ()
ALB_DEPLOYMENT = ("ingress-alb", "deployment")
VERSION, REVISION = "app.kubernetes.io~1version", "espalier.dev~1revision"
INSTANCE = "app.kubernetes.io~1instance"

# Components, object, JSON pointer into it ("" is the object itself), value, what is said of it.
MISTAKES: list[tuple[tuple[str, ...], str, str, object, str]] = [
    (PLAIN, "Rollout", f"{CONTAINER}/image", "espalier:latest", "is not NAME@sha256:DIGEST"),
    (PLAIN, "Rollout", f"{CONTAINER}/image", "a/b:1@sha256:" + "0" * 64, "is not NAME@sha256:DIGEST"),
    (PLAIN, "Rollout", f"{CONTAINER}/image", "a/b@sha256:" + "0" * 63, "is not NAME@sha256:DIGEST"),
    (PLAIN, "Service", "/metadata/namespace", "espalier-staging", "namespace espalier-staging, and not"),
    (PLAIN, "Namespace", "", REMOVE, "0 Namespaces"),
    (PLAIN, "Namespace", "/metadata/labels", {}, "does not enforce restricted"),
    (PLAIN, "Service", f"/metadata/labels/{VERSION}", "1", "label app.kubernetes.io/version differs"),
    (PLAIN, "Service", "/metadata/annotations", {}, "annotation espalier.dev/revision differs"),
    (PLAIN, "Rollout", f"/spec/template/metadata/annotations/{REVISION}", 0, "is 0, and not a commit"),
    (PLAIN, "Rollout", f"/spec/template/metadata/labels/{VERSION}", REMOVE, "its pods have no label"),
    (PLAIN, "Service", f"/spec/selector/{VERSION}", "none", "changes with every release"),
    (PLAIN, "Rollout", f"{CONTAINER}/env/2/name", "ESPALIER_DRAIN", "knows no variable ESPALIER_DRAIN"),
    (PLAIN, "Rollout", f"{CONTAINER}/env/1/value", "9000", "listens on 9000"),
    (PLAIN, "Rollout", f"{CONTAINER}/env/0/value", "127.0.0.1", "without ESPALIER_HOST"),
    (PLAIN, "Rollout", f"{CONTAINER}/livenessProbe", REMOVE, "it has no livenessProbe"),
    (
        PLAIN,
        "Rollout",
        f"{CONTAINER}/startupProbe/httpGet/port",
        "web",
        "startupProbe asks none of its ports",
    ),
    (PLAIN, "Rollout", f"{CONTAINER}/lifecycle", REMOVE, "0 s of preStop"),
    (PLAIN, "Rollout", f"{CONTAINER}/env/2/value", "30", "a grace of 40 s is over"),
    (PLAIN, "Rollout", f"{CONTAINER}/lifecycle/preStop/sleep/seconds", 25, "a grace of 40 s is over"),
    (PLAIN, "Rollout", f"{POD}/terminationGracePeriodSeconds", 20, "a grace of 20 s is over"),
    (ALB, "Rollout", f"{CONTAINER}/env/3/value", "60", "connections idle for 60 s"),
    (ALB, "Ingress", f"{NOTES}load-balancer-attributes", "idle_timeout.timeout_seconds=99", "idle for 99 s"),
    (ALB, "Ingress", f"{NOTES}target-group-attributes", REMOVE, "in flight for 300 s"),
    (PLAIN, "Rollout", "/spec/selector/matchLabels/app", "x", "does not match its own pods"),
    (
        PLAIN,
        "Service iris-server",
        "/spec/selector",
        {"a": "b"},
        "Service iris-server: its selector matches no pod",
    ),
    (PLAIN, "Service iris-server", "/spec/ports/0/targetPort", "web", "target port web"),
    (
        PLAIN,
        "PodDisruptionBudget",
        "/spec/selector/matchLabels/a",
        "b",
        "iris-server: its selector matches no pod",
    ),
    (
        PLAIN,
        "Rollout",
        f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels/a",
        "b",
        "counts no pod",
    ),
    (PLAIN, "ServiceAccount", "", REMOVE, "there is no ServiceAccount"),
    (PLAIN, "ServiceAccount", "/automountServiceAccountToken", REMOVE, "its token is mounted"),
    (
        PLAIN,
        "HorizontalPodAutoscaler",
        "/spec/scaleTargetRef/kind",
        "Deployment",
        "it scales Deployment iris-server",
    ),
    (PLAIN, "HorizontalPodAutoscaler", "/spec/minReplicas", 20, "at least 20 and at most"),
    (PLAIN, "Rollout", "/spec/replicas", 3, "replicas beside"),
    (PLAIN, "PodDisruptionBudget", "/spec/minAvailable", 3, "no node can be drained"),
    (PLAIN, "Service iris-server", "/metadata/labels/espalier.dev~1scrape", REMOVE, "never or twice: none"),
    (PLAIN, "ServiceMonitor", "/spec/selector/matchLabels/espalier.dev~1scrape", REMOVE, "twice: iris-"),
    (PLAIN, "ServiceMonitor", "/spec/endpoints/0/port", "metrics", "port metrics is none"),
    (PLAIN, "ServiceMonitor", "/spec/podTargetLabels/0", "team", "pods have no label team"),
    (PLAIN, "ServiceMonitor", "", REMOVE, "0 ServiceMonitors"),
    (PLAIN, "ServiceMonitor", "/spec/endpoints/0/relabelings", REMOVE, "label environment=''"),
    (PLAIN, "ServiceMonitor", "/spec/endpoints/0/relabelings/0/regex", "(.+)", "environment='espalier-prod"),
    (PLAIN, "ServiceMonitor", "/spec/endpoints/0/relabelings/0/regex", "x-(.+)", "label environment=''"),
    (PLAIN, "ServiceMonitor", "/spec/endpoints/0/relabelings/2/targetLabel", "version", "model_version=''"),
    (
        PLAIN,
        "ServiceMonitor",
        "/spec/endpoints/0/relabelings/2/sourceLabels/0",
        "__meta_kubernetes_pod_label_version",
        "label model_version=''",
    ),
    (
        PLAIN,
        "ServiceMonitor",
        "/spec/endpoints/0/relabelings/1/action",
        "labelmap",
        "labelmap makes cannot be checked",
    ),
    (PLAIN, "ServiceMonitor", "/spec/endpoints/0/relabelings/1/targetLabel", "name", "label model=''"),
    (PLAIN, "Service", "/metadata/name", "server", "its name does not begin with iris-"),
    (PLAIN, "Rollout", f"/spec/template/metadata/labels/{INSTANCE}", "iris2", "instance is not iris"),
    (PLAIN, "Rollout", f"/spec/selector/matchLabels/{INSTANCE}", REMOVE, "matches the pods of other models"),
    (PLAIN, "Service iris-canary", f"/spec/selector/{INSTANCE}", REMOVE, "matches the pods of other models"),
    (PLAIN, "PodDisruptionBudget", f"/spec/selector/matchLabels/{INSTANCE}", REMOVE, "pods of other models"),
    (PLAIN, "NetworkPolicy iris-server", "/spec/podSelector", {}, "matches the pods of other models"),
    (
        PLAIN,
        "NetworkPolicy iris-server",
        "/spec/ingress/0/from/0/podSelector",
        {"matchLabels": {"app.kubernetes.io/instance": "iris"}},
        "its peers would need the model's name",
    ),
    (PLAIN, "NetworkPolicy default-deny", "", REMOVE, "none denies everything"),
    (PLAIN, "NetworkPolicy iris-server", "", REMOVE, "none lets a request in"),
    (
        PLAIN,
        "NetworkPolicy iris-server",
        "/spec/podSelector/matchLabels/a",
        "b",
        "its selector matches no pod",
    ),
    (PLAIN, "NetworkPolicy iris-server", "/spec/ingress/0/ports/0/port", 80, "iris-server: port 80 is none"),
    (ALB, "Ingress", "/spec/rules/0/host", "espalier.invalid", "no overlay has set its host"),
    (GATEWAY, "HTTPRoute", "/spec/hostnames/0", "espalier.invalid", "no overlay has set its host"),
    (ALB, "Rollout", f"{CANARY}/trafficRouting", REMOVE, "nothing writes the annotation for iris-server"),
    (ALB, "Ingress", f"{NOTES}actions.not-found", REMOVE, "nothing writes the annotation for not-found"),
    (ALB, "Ingress", f"{NOTES}healthcheck-path", "/healthz", "looks for health at /healthz"),
    (ALB_DEPLOYMENT, "Ingress", f"{PATHS}/1/backend/service/name", "web", "there is no Service web"),
    (
        ALB_DEPLOYMENT,
        "Ingress",
        f"{PATHS}/1/backend/service/port/name",
        "use-annotation",
        "nothing writes the",
    ),
    (
        GATEWAY,
        "HTTPRoute",
        "/spec/rules/0/backendRefs/0/port",
        8080,
        "no Service iris-stable with port 8080",
    ),
    (GATEWAY, "HTTPRoute", "/spec/rules/0/backendRefs/1", REMOVE, "no HTTPRoute iris-server to both"),
    (GATEWAY, "HTTPRoute", "", REMOVE, "no HTTPRoute iris-server to both"),
    (GATEWAY, "Rollout", f"{CANARY}/trafficRouting/managedRoutes", [], "canary-by-header is not among"),
    (PLAIN, "Service iris-canary", "", REMOVE, "there is no canaryService"),
    (ALB, "Service iris-pong", "", REMOVE, "there is no pongService iris-pong"),
    (ALB, "Rollout", f"{CANARY}/pingPong/pingService", "iris-stable", "there is no pingService iris-stable"),
    (ALB, "Rollout", f"{CANARY}/pingPong", REMOVE, "answers 503 when a Service changes its pods"),
    (ALB, "Ingress", "/spec/ingressClassName", "invalid", "no component has set its class"),
    (ALB, "NetworkPolicy load-balancer", "", REMOVE, "the environment lets no load balancer in"),
    (ALB, "NetworkPolicy load-balancer", "/spec/ingress/0/ports/0/port", "web", "port web is none of"),
    (
        ALB,
        "NetworkPolicy load-balancer",
        "/spec/podSelector/matchLabels/a",
        "b",
        "balancer: its selector matches no",
    ),
    (PLAIN, "Rollout", f"{CANARY}/stableService", REMOVE, "there is no stableService"),
    (ALB, "Ingress", "", REMOVE, "there is no Ingress iris-server"),
    (
        ALB,
        "Rollout",
        f"{CANARY}/trafficRouting/alb/servicePort",
        8080,
        "no Service iris-ping with port 8080",
    ),
    (PLAIN, "Rollout", f"{CANARY}/steps", [{"setWeight": 10}], "no step of its canary is judged"),
    (PLAIN, "AnalysisTemplate", "", REMOVE, "there is no AnalysisTemplate"),
    (PLAIN, "AnalysisTemplate", "/metadata/name", "another", "AnalysisTemplate another: nothing uses it"),
    (PLAIN, "Rollout", f"{CANARY}/steps/1/analysis/args/2", REMOVE, "wants stable"),
    (PLAIN, "Rollout", f"{CANARY}/steps/1/analysis/args/2/name", "team", "knows no team"),
    (PLAIN, "AnalysisTemplate", "/spec/args/5/name", "windows", "argument window is not declared"),
    (PLAIN, "AnalysisTemplate", "/spec/args/5/name", "windows", "argument windows is used nowhere"),
    (BATCH, "CronJob", "/spec/concurrencyPolicy", "Allow", "a run may start while another is at work"),
    (BATCH, "CronJob", f"{JOB}/containers/0/image", "a/b@sha256:" + "1" * 64, "is not the release's"),
    (BATCH, "CronJob", f"{JOB}/containers/0/args/2", "--worker=x", "argument --workers: invalid"),
    (BATCH, "CronJob", f"{JOB}/containers/0/args/2", "--fast", "unrecognized arguments: --fast"),
    (BATCH, "CronJob", f"{JOB}/serviceAccountName", "x", "it has no ServiceAccount of its own"),
    (BATCH, "NetworkPolicy iris-batch", "/spec/egress", REMOVE, "no NetworkPolicy lets it reach a bucket"),
    (
        BATCH,
        "CronJob",
        "/spec/jobTemplate/spec/template/metadata/labels/app.kubernetes.io~1name",
        "espalier",
        "Service iris-server takes its pods for the service's",
    ),
    (PLAIN, "Rollout", "", REMOVE, "0 workloads"),
    (PLAIN, "Service", "/spec/ports/0/targetPort", REMOVE, "that others refer to: 'targetPort'"),
]


@pytest.mark.parametrize(
    ("components", "which", "pointer", "value", "complaint"),
    MISTAKES,
    ids=[f"{number}-{each[-1]}" for number, each in enumerate(MISTAKES)],
)
def test_a_mistake_is_found(
    components: tuple[str, ...], which: str, pointer: str, value: object, complaint: str
) -> None:
    manifests = _manifests(*components)
    assert _problems(manifests) == []
    spoil(manifests, _get(manifests, *which.split()), pointer, value)
    assert complaint in "\n".join(_problems(manifests))


@pytest.mark.parametrize("name", render.environments())
def test_prometheus_makes_the_labels_of_the_relabeling(name: str, tmp_path: Path) -> None:
    """Prometheus itself, given what it would discover, against the reading that the check relies upon."""
    relabelings = _get(_manifests(), "ServiceMonitor")["spec"]["endpoints"][0]["relabelings"]
    discovered = {
        "__address__": "10.0.0.1:8000",
        "__meta_kubernetes_namespace": f"espalier-{name}",
        "__meta_kubernetes_pod_label_app_kubernetes_io_version": "01dddd8b7714",
        "__meta_kubernetes_pod_label_app_kubernetes_io_instance": "churn",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "espalier",
    }
    rules = [
        {"source_labels": r["sourceLabels"], "target_label": r["targetLabel"], "action": r["action"]}
        | ({"regex": r["regex"]} if "regex" in r else {})
        for r in relabelings
    ]
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps([{"targets": [discovered["__address__"]], "labels": discovered}]))
    scrape = {
        "job_name": "espalier",
        "file_sd_configs": [{"files": [str(targets)]}],
        "relabel_configs": rules,
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    command = [require("promtool"), "check", "service-discovery", "--timeout=1s"]
    said = subprocess.run(
        [*command, str(tmp_path / "prometheus.yml"), "espalier"], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(said[said.index("[") :])
    made = {name: value for name, value in found[0]["labels"].items() if not name.startswith("__")}
    assert made == {"environment": name, "model": "churn", "model_version": "01dddd8b7714"} | {
        key: made[key] for key in ("instance", "job")
    }
    assert checks.relabelled(relabelings, discovered).items() <= made.items()


def test_components_in_the_wrong_order_are_found() -> None:
    """A Deployment has nobody to write the weights, so its Ingress must name a port."""
    found = "\n".join(_problems(_manifests("deployment", "ingress-alb")))
    assert "nothing writes the annotation for iris-server" in found


@pytest.mark.parametrize("components", render.VARIANTS, ids="+".join)
def test_only_load_balancers_and_those_inside_who_ask_get_in(components: tuple[str, ...]) -> None:
    """No policy lets a whole network in that pods have addresses of: their block is Terraform's `load_balancer_cidr`."""
    blocks = [
        source["ipBlock"]["cidr"]
        for policy in _manifests(*components)
        if policy["kind"] == "NetworkPolicy"
        for rule in policy["spec"].get("ingress", [])
        for source in rule["from"]
        if "ipBlock" in source
    ]
    assert blocks == ["10.0.0.0/20"]


def test_on_gke_its_load_balancers_get_in() -> None:
    with render.copied() as root:
        overlay = root / "overlays/production/kustomization.yaml"
        overlay.write_text(overlay.read_text().replace("components/load-balancer", "components/gke"))
        shared = render.parse(render.render(overlay.parent))
    policy = _get(shared, "NetworkPolicy", "load-balancer")
    sources = policy["spec"]["ingress"][0]["from"]
    assert [each["ipBlock"]["cidr"] for each in sources] == ["35.191.0.0/16", "130.211.0.0/22"]
    own = [each for each in _manifests("gateway-api") if not _is_shared(each)]
    assert [*environment.problems(shared), *checks.problems(own, shared, MODEL)] == []


def test_stable_pods_keep_their_service_behind_a_load_balancer() -> None:
    """A Service whose selector changes loses its targets: argo-rollouts#2864, #4433."""
    canary = _get(_manifests("ingress-alb"), "Rollout")["spec"]["strategy"]["canary"]
    assert canary["pingPong"] == {"pingService": "iris-ping", "pongService": "iris-pong"}
    assert not {"stableService", "canaryService"} & canary.keys()
    # Pods get a gate for the load balancer when they are created, in both forms.
    labels = _get(_manifests("ingress-alb"), "Namespace")["metadata"]["labels"]
    for group in ("elbv2.k8s.aws", "eks.amazonaws.com"):
        assert labels[f"{group}/pod-readiness-gate-inject"] == "enabled"


def test_two_ways_in_at_once_are_refused() -> None:
    """Argo Rollouts can only be told of one; the second would overwrite what the first said."""
    with pytest.raises(render.RenderError, match="gateway-api"):
        _manifests("ingress-alb", "gateway-api")


@pytest.mark.parametrize("components", render.VARIANTS, ids="+".join)
def test_paths_that_manifests_name_are_served(components: tuple[str, ...], tmp_path: Path) -> None:
    manifests = _manifests(*components)
    workload = next(each for each in manifests if each["kind"] in checks.WORKLOADS)
    container = workload["spec"]["template"]["spec"]["containers"][0]
    probed = {
        container[each]["httpGet"]["path"] for each in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    scraped = {endpoint["path"] for endpoint in _get(manifests, "ServiceMonitor")["spec"]["endpoints"]}
    asked = {
        d["metadata"]["annotations"]["alb.ingress.kubernetes.io/healthcheck-path"]
        for d in manifests
        if d["kind"] == "Ingress"
    }
    write_number_bundle(tmp_path)
    application = create_app(Settings(model_dir=tmp_path))
    with TestClient(application) as client:
        assert {path: client.get(path).status_code for path in probed | scraped | asked} == dict.fromkeys(
            probed | scraped | asked, 200
        )
        # While it drains, it is not ready, and must not be restarted.
        application.state.draining = True
        assert client.get(container["readinessProbe"]["httpGet"]["path"]).status_code == 503
        assert client.get(container["livenessProbe"]["httpGet"]["path"]).status_code == 200


def test_metrics_are_kept_from_the_outside() -> None:
    paths = _get(_manifests("ingress-alb"), "Ingress")["spec"]["rules"][0]["http"]["paths"]
    assert (paths[0]["path"], paths[0]["pathType"]) == ("/metrics", "Exact")
    assert paths[0]["backend"]["service"]["name"] == "not-found"
    hidden = [
        rule
        for rule in _get(_manifests("gateway-api"), "HTTPRoute")["spec"]["rules"]
        if "backendRefs" not in rule
    ]
    assert [match["path"] for rule in hidden for match in rule["matches"]] == [
        {"type": "Exact", "value": "/metrics"}
    ]


def test_the_time_for_requests_in_flight_is_the_services_own() -> None:
    assert checks.FINISH_SECONDS == server._FINISH_SECONDS


def test_the_deployment_has_the_rollouts_pods() -> None:
    rollout = _get(_manifests(), "Rollout")["spec"]["template"]
    deployment = _get(_manifests("deployment"), "Deployment")["spec"]["template"]
    for template in (rollout, deployment):
        for constraint in template["spec"]["topologySpreadConstraints"]:
            constraint.pop("matchLabelKeys")
    assert rollout == deployment
