"""What is rendered, that it is checked strictly, and that the command says what is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from app.batch.__main__ import parser
from app.settings import PREFIX, Settings
from common import overlays
from common.overlays import Release
from deploy.manifests import __main__ as manifests
from deploy.manifests import render, schema
from deploy.schemas.__main__ import COMPOSE, COMPOSE_MODULE, DEFINITIONS, HANDWRITTEN, PACKAGES, file_name
from tests.deploy import rendered
from tests.deploy.conftest import Call
from tests.deploy.project import MODEL, ROOT, copy_manifests
from tests.deploy.spoiling import Plant
from tests.tools import require

Document = dict[str, Any]
VERSION, REVISION = "app.kubernetes.io/version", "espalier.dev/revision"


def _one(name: str, kind: str) -> Document:
    return deepcopy(next(each for each in rendered.documents(name) if each["kind"] == kind))


def test_everything_is_as_it_should_be() -> None:
    assert {each.name: list(each.problems) for each in rendered.everything() if each.problems} == {}
    models = len(render.deployed("staging"))
    each_environment = 1 + models + len(render.VARIANTS)
    platforms = len(render.PLATFORMS) + len(render.TRAINING)
    assert len(rendered.everything()) == len(render.environments()) * each_environment + platforms + 6


@pytest.mark.parametrize("environment", render.environments())
@pytest.mark.parametrize("components", [(), ("deployment",)], ids=["rollout", "deployment"])
# All digits, and with an e between them: YAML would take these for numbers.
@pytest.mark.parametrize("version", ["01dddd8b7714", "123456789012", "1234567e8901"])
def test_a_release_reaches_the_pods(environment: str, components: tuple[str, ...], version: str) -> None:
    revision, digest = "1234567890" * 3 + "123456789e", "sha256:" + "ab" * 32
    release = Release("localhost:5000/espalier", digest, version, revision)
    with render.copied() as root:
        folder = root / "overlays" / environment / MODEL
        render.choose(folder, components)
        (folder / overlays.FILE).write_text(str(release))
        documents = render.parse(render.render(folder))
    workload = next(each for each in documents if each["kind"] in {"Rollout", "Deployment"})
    template = workload["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == release.image
    for each in [*documents, template]:
        assert each["metadata"]["labels"][VERSION] == version
        assert each["metadata"]["annotations"][REVISION] == revision
    assert VERSION not in workload["spec"]["selector"]["matchLabels"]
    assert [problem for each in documents for problem in schema.problems(each)] == []


def _with_documented_patch(page: str, component: str) -> list[Document]:
    """The manifests of production with the components and patches that a page shows."""
    text = (ROOT / "docs" / page).read_text()
    (documented,) = re.findall(r"```yaml\n(components:.*?)```", text, re.DOTALL)
    with render.copied() as root:
        path = root / "overlays/production" / MODEL / "kustomization.yaml"
        editor = YAML()
        content, added = editor.load(path.read_text()), editor.load(documented)
        assert set(added["components"]) - set(content["components"]) == {f"../../../components/{component}"}
        content["components"] = added["components"]
        content["patches"].extend(added["patches"])
        with path.open("w") as stream:
            editor.dump(content, stream)
        return render.parse(render.render(path.parent))


def test_the_documented_patch_names_the_bucket_of_the_prediction_log() -> None:
    documents = _with_documented_patch("prediction-log.md", "prediction-log")
    workload = next(each for each in documents if each["kind"] == "Rollout")
    variables = {
        each["name"]: each["value"] for each in workload["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["ESPALIER_PREDICTION_LOG"] == "s3://YOUR-BUCKET/iris"
    settings = Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in variables.items()})
    assert settings.prediction_log_sample == 0.1


def test_the_documented_patch_names_the_keys_of_an_entity() -> None:
    documents = _with_documented_patch("feature-store.md", "feature-store")
    workload = next(each for each in documents if each["kind"] == "Rollout")
    variables = {
        each["name"]: each["value"] for each in workload["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["ESPALIER_FEATURE_STORE_KEYS"] == "driver_id:int"
    assert variables["ESPALIER_FEATURE_STORE"] == "http://feast.feast.svc.cluster.local:6566"
    (policy,) = (each["spec"] for each in documents if each["kind"] == "NetworkPolicy")
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53, 6566]


def test_the_documented_patch_says_what_is_scored() -> None:
    documents = _with_documented_patch("batch-scoring.md", "batch-scoring")
    (cron,) = (each for each in documents if each["kind"] == "CronJob")
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    options = parser().parse_args(container["args"])
    assert (options.input, options.keep) == (["s3://YOUR-BUCKET/in/*.parquet"], ("id",))
    assert cron["spec"]["schedule"] == "30 3 * * *"


def test_batch_scoring_is_the_same_by_the_clock_and_after_a_release() -> None:
    documents = rendered.documents(
        "production.iris.ingress-alb+batch-scoring+batch-scoring-release+deployment"
    )
    jobs = {each["kind"]: each["spec"] for each in documents if each["kind"] in {"Job", "CronJob"}}
    assert jobs["CronJob"]["jobTemplate"]["spec"] == jobs["Job"]
    _assert_restricted(jobs["Job"]["template"]["spec"])


def test_the_overlays_read_as_one_diff() -> None:
    """What differs between the overlays of a model is the environment's name and the hosts."""
    staging, production = (
        (render.FOLDER / "overlays" / each / MODEL / "kustomization.yaml").read_text()
        for each in render.environments()
    )
    assert (
        staging.replace("espalier.staging.example", "espalier.example").replace("staging", "production")
        == production
    )


def test_production_is_what_it_should_be() -> None:
    staging, production = (
        {each["kind"]: each["spec"] for each in rendered.documents(name) if "spec" in each}
        for name in (f"{each}.{MODEL}" for each in render.environments())
    )
    scaler = production["HorizontalPodAutoscaler"]
    assert scaler["minReplicas"] >= 3
    assert scaler["maxReplicas"] > staging["HorizontalPodAutoscaler"]["maxReplicas"]
    quiet = [
        each["value"] for each in production["AnalysisTemplate"]["args"] if each["name"] == "quiet-passes"
    ]
    assert quiet == ["false"]


def test_pods_are_restricted() -> None:
    """Each rule of Kubernetes' restricted standard that can be broken here."""
    for each in rendered.everything():
        if f".{MODEL}" in each.name:
            (workload,) = (it for it in each.documents if it["kind"] in {"Rollout", "Deployment"})
            _assert_restricted(workload["spec"]["template"]["spec"])


def _assert_restricted(pod: Document) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (10001, 10001)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} == container["resources"][kind].keys()


def _set(*path: str | int, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        inside: Any = document
        for each in path[:-1]:
            inside = inside[each]
        inside[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("name", "kind", "change", "complaint"),
    [
        ("staging", "Namespace", _set("metadata", "lables", value={}), "'lables' was unexpected"),
        (
            "staging.iris",
            "ServiceAccount",
            _set("automountToken", value=False),
            "'automountToken' was unexpected",
        ),
        (
            "staging.iris",
            "Service",
            _set("spec", "ports", 0, "targetport", value=1),
            "'targetport' was unexpected",
        ),
        (
            "staging.iris",
            "HorizontalPodAutoscaler",
            _set("spec", "minReplicas", value="two"),
            "is not of type",
        ),
        (
            "staging.iris",
            "PodDisruptionBudget",
            _set("spec", "maxUnavailible", value=1),
            "'maxUnavailible' was",
        ),
        (
            "staging.iris",
            "NetworkPolicy",
            _set("spec", "policyType", value=[]),
            "'policyType' was unexpected",
        ),
        (
            "staging.iris",
            "Ingress",
            _set("spec", "rules", 0, "hostname", value="x"),
            "'hostname' was unexpected",
        ),
        (
            "staging",
            "ServiceMonitor",
            _set("spec", "endpoints", 0, "ports", value="http"),
            "'ports' was unexpected",
        ),
        (
            "staging",
            "ServiceMonitor",
            _set("spec", "selector", "matchLabel", value={}),
            "'matchLabel' was unexpected",
        ),
        (
            "staging.iris",
            "Rollout",
            _set("spec", "strategy", "canary", "step", value=[]),
            "'step' was unexpected",
        ),
        (
            "staging.iris",
            "Rollout",
            _set("spec", "strategy", "canary", "steps", 0, value={"weight": 1}),
            "'weight' was",
        ),
        # In a pod template, which Kubernetes defines and a custom resource contains.
        (
            "staging.iris",
            "Rollout",
            _set("spec", "template", "spec", "containers", 0, "readinesProbe", value={}),
            "'readinesProbe' was unexpected",
        ),
        (
            "staging.iris",
            "Rollout",
            _set(
                "spec",
                "template",
                "spec",
                "containers",
                0,
                "lifecycle",
                "preStop",
                "sleep",
                value={"second": 1},
            ),
            "'seconds' is a required property",
        ),
        (
            "staging.iris",
            "AnalysisTemplate",
            _set("spec", "metrics", 0, "query", value="up"),
            "'query' was unexpected",
        ),
        (
            "staging.iris",
            "AnalysisTemplate",
            _set("spec", "metrics", 0, "name", value=1),
            "is not of type 'string'",
        ),
        (
            "staging.iris.deployment",
            "Deployment",
            _set("spec", "strategy", "rollingUpdate", "maxSurges", value=1),
            "'maxSurges' was unexpected",
        ),
        ("staging.iris.gateway-api", "HTTPRoute", _set("spec", "hosts", value=[]), "'hosts' was unexpected"),
        (
            "staging.iris.gateway-api",
            "HTTPRoute",
            _set("spec", "rules", 0, "backendRefs", 0, "wieght", value=1),
            "'wieght' was unexpected",
        ),
        (
            "argocd",
            "Application",
            _set("spec", "syncPolicy", "automatic", value={}),
            "'automatic' was unexpected",
        ),
        ("argocd", "Application", _set("spec", "source", "repoUrl", value="x"), "'repoUrl' was unexpected"),
        ("argocd", "ApplicationSet", _set("spec", "preserveResources", value=1), "'preserveResources' was"),
        (
            "argocd",
            "ApplicationSet",
            _set("spec", "template", "spec", "destination", "cluster", value="x"),
            "'cluster' was unexpected",
        ),
        ("argocd", "AppProject", _set("spec", "sourceRepo", value=[]), "'sourceRepo' was unexpected"),
        ("argocd", "ConfigMap", _set("data", "number", value=5), "is not of type"),
        (
            "admission",
            "ImageValidatingPolicy",
            _set("spec", "attestors", 0, "cosign", "keyles", value={}),
            "'keyles' was unexpected",
        ),
        ("secrets", "ExternalSecret", _set("spec", "secretStore", value={}), "'secretStore' was unexpected"),
        ("secrets", "SecretStore", _set("spec", "provider", "vault", value={}), "'vault' was unexpected"),
        ("platform.eks", "IngressClassParams", _set("spec", "groups", value={}), "'groups' was unexpected"),
        (
            "platform.eks-auto",
            "IngressClassParams",
            _set("spec", "certificateArn", value=[]),
            "'certificateArn' was unexpected",
        ),
        ("platform.eks", "StorageClass", _set("provisoner", value="x"), "'provisoner' was unexpected"),
        ("staging.iris", "Rollout", _set("kind", value="Rolout"), "no schema for Rolout"),
        ("staging.iris", "Service", _set("apiVersion", value="v2"), "no schema for Service v2"),
        (
            "staging.iris",
            "Ingress",
            _set("apiVersion", value="networking.example.com/v1"),
            "no schema for Ingress",
        ),
    ],
)
def test_what_a_kind_does_not_know_is_refused(
    name: str, kind: str, change: Callable[[Document], None], complaint: str
) -> None:
    document = _one(name, kind)
    assert schema.problems(document) == []
    change(document)
    assert complaint in "\n".join(schema.problems(document))


@pytest.mark.parametrize(
    ("name", "kind", "path", "value"),
    [
        ("staging.iris.gateway-api", "HTTPRoute", "spec.parentRefs.0.group", "gateway.networking.k8s.io"),
        ("staging.iris.gateway-api", "HTTPRoute", "spec.rules.0.backendRefs.1.kind", "Service"),
        ("staging.iris.gateway-api", "HTTPRoute", "spec.rules.0.backendRefs.1.weight", 1),
        ("staging.iris.gateway-api", "HTTPRoute", "spec.rules.0.matches.0.path.type", "PathPrefix"),
        ("staging.iris.gateway-api", "HTTPRoute", "spec.rules.0.matches", [{"path": {"type": "PathPrefix", "value": "/"}}]),
        ("staging.iris.gateway-api+deployment", "HTTPRoute", "spec.rules.0.backendRefs.0.weight", 1),
        ("staging.iris", "Rollout", "spec.template.spec.containers.0.ports.0.protocol", "TCP"),
        ("staging", "ServiceMonitor", "spec.endpoints.0.relabelings.0.action", "replace"),
    ],
)  # fmt: skip
def test_what_the_server_would_add_to_a_list_is_written(
    name: str, kind: str, path: str, value: object
) -> None:
    """Of every object that is rendered: test_everything_is_as_it_should_be holds them to the same check."""
    document = _one(name, kind)
    assert schema.problems(document) == []
    *above, field = [int(part) if part.isdigit() else part for part in path.split(".")]
    node: Any = document
    for part in above:
        node = node[part]
    del node[field]
    assert f"{path}: the server would add {json.dumps(value)}: write it" in schema.problems(document)


def test_a_document_without_a_kind_is_refused() -> None:
    assert schema.problems({"metadata": {"name": "x"}}) == ["it has no apiVersion and kind"]


def test_every_schema_is_of_a_package_that_is_pinned() -> None:
    expected = {file_name(p.group, p.api_version, kind): p for p in PACKAGES for kind in p.kinds}
    found = {path.name: path.read_text() for path in schema.SCHEMAS.glob("*.json")}
    defaults = json.loads(found.pop(schema.DEFAULTS.name))
    assert f"from {COMPOSE_MODULE.replace('@', ' ')} (" in found.pop(COMPOSE.name)
    defined = {file_name(d.group, d.api_version, kind): d for d in DEFINITIONS for kind in d.kinds}
    handwritten = {f"{name}.json" for name in HANDWRITTEN}
    assert found.keys() == expected.keys() | defined.keys() | handwritten
    assert expected.keys() | defined.keys() == {f"{name}.json" for name in defaults}
    for name, package in expected.items():
        assert f"from {package.npm} {package.version} (MIT)" in found[name]
    for name, source in defined.items():
        assert f"from {re.sub('@|==', ' ', source.module)} (" in found[name]


def test_a_missing_component_is_one_line() -> None:
    with render.copied() as root:
        shutil.rmtree(root / "components" / "ingress-alb")
        with pytest.raises(render.RenderError, match="ingress-alb") as caught:
            render.render(root / "overlays/staging" / MODEL)
    assert "\n" not in str(caught.value)


def test_the_command_writes_what_it_rendered(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "manifests"
    output.mkdir()
    (output / "stale.yaml").write_text("{}")
    monkeypatch.setattr(manifests, "render_all", rendered.everything)
    done = call(manifests.main, render.FOLDER.parent, "--output", str(output))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.stem for path in output.iterdir()} == {each.name for each in rendered.everything()}
    for each in rendered.everything():
        assert (output / f"{each.name}.yaml").read_text() == each.text
    assert "all as they should be" in done.stdout


@pytest.mark.long("deploy", "tests/deploy/test_manifests.py")
@pytest.mark.parametrize("new", ["grafanas:", "grafana: on", "grafana: {sidecar: {dashboards: []}}"])
def test_a_value_of_another_form_is_named(new: str, tmp_path: Path) -> None:
    """Here of a chart, whose values have no schema."""
    copy_manifests(tmp_path)
    file = tmp_path / "deploy/argocd/monitoring.yaml"
    before, _, after = file.read_text().partition("            grafana:\n")
    rest = after.partition("            kubeControllerManager:")[2]
    file.write_text(f"{before}            {new}\n            kubeControllerManager:{rest}")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.manifests"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "argocd: the checks end at a field that is missing or of another form" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long("deploy", "tests/deploy/test_manifests.py")
def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    """A copy of the project in which the readiness probe is misspelt."""
    copy_manifests(tmp_path)
    rollout = tmp_path / "deploy" / "base" / "rollout.yaml"
    rollout.write_text(rollout.read_text().replace("readinessProbe:", "readyProbe:"))
    done = subprocess.run(
        [sys.executable, "-m", "deploy.manifests"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "staging.iris: Rollout iris-server: spec.template.spec.containers.0" in done.stderr
    assert "'readyProbe' was unexpected" in done.stderr
    assert "container espalier: it has no readinessProbe" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


SCANNED = {
    29: Plant("deploy/base/rollout.yaml", 'cpu: "2"\n', "", "CKV_K8S_11"),
    33: Plant("deploy/base/rollout.yaml", "drop: [ALL]", "add: [SYS_ADMIN]", "CKV_K8S_28"),
}
"""By the number in docs/first-deployment.md."""
INFRASTRUCTURE = Plant(
    "deploy/terraform/modules/cluster/main.tf", "= true\n  deletion", "= false\n  deletion", "CKV_AWS_7"
)


# The job `manifests` of the workflow `ci` scans at every push; here it is shown that a scan can fail.
@pytest.mark.long(
    ".checkov.yaml",
    "deploy/base",
    "deploy/components",
    "deploy/manifests",
    "deploy/overlays",
    "deploy/terraform",
)
@pytest.mark.parametrize("plants", [(), (*SCANNED.values(), INFRASTRUCTURE)], ids=["clean", "broken"])
def test_checkov_looks_at_what_is_rendered(plants: Sequence[Plant], tmp_path: Path) -> None:
    require("uv")
    copy_manifests(tmp_path)
    shutil.copy(ROOT / ".checkov.yaml", tmp_path)
    for plant in plants:
        plant.put(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.manifests", "--scan"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if plants else 0), done.stdout + done.stderr
    assert [each for each in plants if each.said not in done.stdout] == []
    assert plants or "checkov finds no fault" in done.stdout
