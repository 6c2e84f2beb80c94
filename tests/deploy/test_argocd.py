"""What Argo CD is given: the applications it makes of it, and that each name in it leads somewhere."""

from __future__ import annotations

import re
import shutil
from base64 import b64decode, b64encode
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests import argocd, render, schema
from tests.deploy import rendered
from tests.deploy.project import MODEL
from tests.deploy.spoiling import REMOVE, spoil

Document = dict[str, Any]
ROLLOUTS, MONITORING = "ApplicationSet argo-rollouts", "ApplicationSet kube-prometheus-stack"
SET, SHARED = "ApplicationSet espalier-models", "ApplicationSet espalier"
CONFIG = "ConfigMap argocd-notifications-cm"
NOTES, MATRIX = "/spec/template/metadata/annotations", "/spec/generators/0/matrix/generators"
GIT = f"{MATRIX}/1/git"
WATCHED = f"{NOTES}/argocd.argoproj.io~1manifest-generate-paths"
SUBSCRIBE = f"{NOTES}/notifications.argoproj.io~1subscribe"
PROMETHEUS = "and Prometheus is at http://"
PROJECT, SPEC = "AppProject espalier", "/spec/template/spec"
WATCHING, WATCHED_BY = "AppProject espalier-monitoring", "ApplicationSet espalier-monitoring"
VALUES = f"{SPEC}/source/helm/valuesObject"


def _rendered() -> list[Document]:
    return rendered.documents("argocd")


def _problems(
    documents: list[Document],
    root: Path = render.FOLDER,
    listed: dict[str, str] | None = None,
    watching: list[Document] | None = None,
) -> list[str]:
    """With other text in files of the repository, or other manifests of monitoring."""
    environments = [rendered.documents(name) for name in render.environments()]
    platforms = [rendered.documents(f"platform.{name}") for name in render.PLATFORMS]
    with render.copied() as copy:
        for path, text in (listed or {}).items():
            (copy.parent / path).write_text(text)
        deployed = argocd.Deployed(
            [*environments, *rendered.variants()],
            platforms,
            watching or rendered.documents("monitoring"),
            copy,
        )
        return argocd.problems(documents, deployed, root)


def _get(documents: list[Document], which: str) -> Document:
    kind, name = which.split()
    return next(each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)


def _applications(
    documents: list[Document], released: Path | None = None, sets: tuple[str, ...] = (SHARED, SET)
) -> dict[str, Document]:
    """By name. Where no folder is given, every model that has an overlay is released."""
    if released is None:
        with render.copied() as copy:
            return _applications(documents, copy, sets)
    made = [each for name in sets for each in argocd.applications_of(_get(documents, name), released)]
    return {each["metadata"]["name"]: each for each in made}


@pytest.mark.slow
def test_there_is_an_application_for_each_overlay() -> None:
    overlays = {path.parent.name for path in render.FOLDER.glob("overlays/*/kustomization.yaml")}
    assert overlays == set(render.environments())
    expected = {f"espalier-{each}": each for each in overlays}
    expected |= {
        f"espalier-{each}.{name}": f"{each}/{name}" for each in overlays for name in render.deployed(each)
    }
    assert expected
    found = _applications(_rendered())
    assert found.keys() == expected.keys()
    for name, path in expected.items():
        spec = found[name]["spec"]
        assert spec["source"]["path"] == f"deploy/overlays/{path}"
        assert spec["destination"]["namespace"] == f"espalier-{path.partition('/')[0]}"
        assert spec["destination"]["name"] == "in-cluster"
        assert spec["project"] == "espalier"
        assert schema.problems(found[name]) == []


def test_a_model_that_was_never_released_is_deployed_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "deploy"
    shutil.copytree(render.FOLDER / "overlays", root / "overlays", ignore=shutil.ignore_patterns("release"))
    shutil.copy(render.FOLDER / "environments.yaml", root)
    environments = {f"espalier-{each}" for each in render.environments()}
    assert _applications(_rendered(), root).keys() == environments
    released = root / "overlays/staging" / MODEL / "release/kustomization.yaml"
    released.parent.mkdir()
    released.write_text(str(render.PLACEHOLDER))
    assert _applications(_rendered(), root).keys() == {*environments, f"espalier-staging.{MODEL}"}


def test_each_environment_has_its_sync_policy() -> None:
    found = _applications(_rendered())
    policies = {name: each["spec"]["syncPolicy"] for name, each in found.items() if name.endswith(MODEL)}
    assert policies[f"espalier-staging.{MODEL}"]["automated"] == {"prune": True, "selfHeal": True}
    assert policies[f"espalier-production.{MODEL}"]["automated"] == {"prune": False, "selfHeal": True}
    for each in policies.values():
        # The patch adds to what the template has.
        assert "RespectIgnoreDifferences=true" in each["syncOptions"]
        assert each["retry"]["limit"] > 0


def test_nothing_that_runs_goes_with_its_description() -> None:
    for name in (SHARED, SET):
        policy = _get(_rendered(), name)["spec"]["syncPolicy"]
        assert policy == {"applicationsSync": "create-update", "preserveResourcesOnDeletion": True}
    for each in _rendered():
        assert "finalizers" not in each["metadata"]
    for environment in render.environments():
        namespace = next(each for each in rendered.documents(environment) if each["kind"] == "Namespace")
        options = namespace["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
        assert options == "Prune=false,Delete=false"


def test_what_is_needed_comes_first() -> None:
    """Projects before the applications in them, and the platform before what stands on it."""
    wave = {
        f"{each['kind']} {each['metadata']['name']}": int(
            each["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0)
        )
        for each in _rendered()
    }
    assert wave["AppProject platform"] < wave[ROLLOUTS] < wave[SET]
    assert wave[PROJECT] < wave[SET]
    assert wave[MONITORING] < wave[SET]


@pytest.mark.parametrize("components", render.VARIANTS, ids="+".join)
def test_kinds_that_another_application_brings_need_no_dry_run(components: tuple[str, ...]) -> None:
    documents = rendered.variants()[render.VARIANTS.index(components) * len(render.environments())]
    for each in documents:
        group = each["apiVersion"].rpartition("/")[0]
        options = each["metadata"]["annotations"].get("argocd.argoproj.io/sync-options", "")
        brought = group.endswith((".coreos.com", "argoproj.io", "gateway.networking.k8s.io"))
        assert ("SkipDryRunOnMissingResource=true" in options) == brought, each["kind"]


def test_what_argo_rollouts_writes_is_left_alone() -> None:
    """Each field that it writes into an object of ours, by what the Rollouts say of routing."""
    ignored = _applications(_rendered())[f"espalier-production.{MODEL}"]["spec"]["ignoreDifferences"]
    paths = {
        (each["kind"], path)
        for each in ignored
        for path in [*each.get("jsonPointers", []), *each.get("jqPathExpressions", [])]
    }
    written = {("Service", "/spec/selector/rollouts-pod-template-hash")}
    for documents in rendered.variants():
        for each in documents:
            if each["kind"] == "Rollout":
                routing = each["spec"]["strategy"]["canary"].get("trafficRouting", {})
                if "alb" in routing:
                    # Its own list of the annotations that it manages, and each of them.
                    action = f"alb.ingress.kubernetes.io~1actions.{routing['alb']['rootService']}"
                    for name in (action, "rollouts.argoproj.io~1managed-alb-annotations"):
                        written.add(("Ingress", f"/metadata/annotations/{name}"))
                for managed in routing.get("managedRoutes", []):
                    written.add(("HTTPRoute", f'.spec.rules[] | select(.name == "{managed["name"]}")'))
    assert len(written) == 4
    # And nothing is ignored that nobody writes, but for weights: those are not in a Rollout.
    assert paths == written | {("HTTPRoute", ".spec.rules[].backendRefs[]?.weight")}


def test_the_root_deploys_this_folder_and_is_part_of_it() -> None:
    root = _get(_rendered(), "Application espalier-root")
    assert render.FOLDER.parent / root["spec"]["source"]["path"] == render.ARGOCD
    # `kubectl apply -f root.yaml` must do before there is anything else.
    alone = render.parse((render.ARGOCD / "root.yaml").read_text())
    assert {each["kind"] for each in alone} == {"AppProject", "Application"}
    assert alone == [_get(_rendered(), f"{each['kind']} {each['metadata']['name']}") for each in alone]
    allowed = {each["kind"] for each in alone[0]["spec"]["namespaceResourceWhitelist"]}
    assert {each["kind"] for each in _rendered()} == allowed
    assert {each["metadata"]["namespace"] for each in _rendered()} == {"argocd"}


def test_everything_in_git_comes_from_one_repository_and_branch() -> None:
    sources = [each["spec"]["source"] for each in _applications(_rendered()).values()]
    sources += [each["spec"]["source"] for each in _rendered() if each["kind"] == "Application"]
    own = [each for each in sources if "chart" not in each]
    assert len({(each["repoURL"], each["targetRevision"]) for each in own}) == 1


def test_runbooks_that_notifications_point_at_exist() -> None:
    text = (render.FOLDER.parent / "docs" / "operations.md").read_text()
    anchors = {
        "".join(c for c in line.lstrip("# ").lower().replace(" ", "-") if c.isalnum() or c == "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    linked = [
        word.split("operations.md#")[1]
        for template in _get(_rendered(), CONFIG)["data"].values()
        for word in template.split()
        if "operations.md#" in word
    ]
    assert linked
    assert set(linked) <= anchors


class Seen:
    """An application as a trigger sees it: a field that is not there is nil, and so is every field of that."""

    def __init__(self, value: object = None) -> None:
        self.value = value

    def __getattr__(self, name: str) -> object:
        found = self.value.get(name) if isinstance(self.value, dict) else None
        return Seen(found) if found is None or isinstance(found, dict) else found

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(str(self.value))

    def __bool__(self) -> bool:
        return self.value is not None


def _evaluated(expression: str, application: Document) -> Any:
    """An expression of a trigger; of its language, what is Python with other words."""
    python = expression.replace("?.", ".").replace("??", "or").replace("nil", "None")
    return eval(python, {"__builtins__": {}}, {"app": Seen(application)})


def _application(health: str, since: str, revision: str, **operation: object) -> Document:
    state = {"phase": "Succeeded", "finishedAt": since, "syncResult": {"revision": revision}} | operation
    return {
        "metadata": {"name": "espalier-production"},
        "status": {
            "health": {"status": health, "lastTransitionTime": since},
            "operationState": {key: value for key, value in state.items() if value is not None},
        },
    }


def _messages(*states: Document) -> list[str]:
    """What is sent while an application goes through states: each trigger once for each value of `oncePer`."""
    data = _get(_rendered(), CONFIG)["data"]
    context = yaml.safe_load(data["context"])
    told: set[tuple[str, str]] = set()
    sent = []
    for state in states:
        for key in sorted(data):
            for condition in yaml.safe_load(data[key]) if key.startswith("trigger.") else []:
                mark = key, str(_evaluated(condition["oncePer"], state))
                if not _evaluated(condition["when"], state) or mark in told:
                    continue
                told.add(mark)
                for name in condition["send"]:
                    message = yaml.safe_load(data[f"template.{name}"])["message"]
                    sent.append(_filled(message, {"app": state, "context": context}))
    return sent


def _filled(template: str, given: Document) -> str:
    def value(found: re.Match[str]) -> str:
        node: Any = given
        for part in found[1].split("."):
            node = node[part]
        return str(node)

    return re.sub(r"\{\{ \.([\w.]+) \}\}", value, template)


def test_a_deployment_is_told_once_with_a_link_that_leads_somewhere() -> None:
    (message,) = _messages(
        _application("Progressing", "1", "abc"), _application("Healthy", "2", "abc"), _application("Healthy", "2", "abc")
    )  # fmt: skip
    assert message == (
        ":white_check_mark: espalier-production runs commit abc."
        " https://argocd.example.com/applications/espalier-production"
    )


def test_each_wait_is_told_and_its_rollback_is_no_other() -> None:
    first = _application("Suspended", "1", "abc")
    going = _application("Progressing", "2", "abc")
    second = _application("Suspended", "3", "abc")
    rolled_back = _application("Suspended", "3", "def")
    sent = _messages(first, first, going, second, rolled_back)
    assert len(sent) == 2
    assert all("is paused" in message for message in sent)


def test_each_abort_is_told() -> None:
    sent = _messages(
        _application("Degraded", "1", "abc"), _application("Progressing", "2", "abc"), _application("Degraded", "3", "abc")
    )  # fmt: skip
    assert len(sent) == 2


def test_a_sync_that_fails_is_told_while_it_is_tried_again() -> None:
    """At the third attempt, and not again at the last; another commit that fails is told by itself."""

    def attempt(revision: str, number: int, phase: str = "Running") -> Document:
        said = f"no. Retrying attempt #{number} at 3:04PM."
        return _application("Progressing", "1", revision, phase=phase, retryCount=number, message=said)

    runs = _application(
        "Progressing", "1", "", phase="Running", finishedAt=None, syncResult=None, retryCount=2
    )
    assert _messages(attempt("abc", 1), runs, attempt("abc", 2), runs) == []
    (message,) = _messages(attempt("abc", 3), runs, attempt("abc", 4), attempt("abc", 10, "Failed"))
    assert "could not be synced: no. Retrying attempt #3" in message
    assert len(_messages(attempt("abc", 3), runs, attempt("def", 4))) == 2
    assert len(_messages(_application("Healthy", "1", "abc", phase="Error", message="no"))) == 1


def test_alertmanager_is_given_what_is_tested() -> None:
    tested = (render.MONITORING / "alertmanager/alertmanager.yml").read_bytes()
    values = _get(_rendered(), MONITORING)["spec"]["template"]["spec"]["source"]["helm"]["valuesObject"]
    specification = values["alertmanager"]["alertmanagerSpec"]
    secret = _get(rendered.documents("monitoring"), f"Secret {specification['configSecret']}")
    assert b64decode(secret["data"]["alertmanager.yaml"]) == tested
    documented = (render.FOLDER.parent / "docs" / "operations.md").read_text()
    for name in specification["secrets"]:
        assert f"kubectl create secret generic {name} -n monitoring" in documented


MISTAKES: list[tuple[str, str, object, str]] = [
    (SET, "/spec/goTemplateOptions", REMOVE, "set missingkey=error"),
    (SHARED, f"{SPEC}/source/path", "deploy/overlays", "there is no deploy/overlays/kustomization"),
    (SET, f"{GIT}/values/model", "{{ .path.name }}", "no field path.name"),
    (
        SET,
        f"{GIT}/values/model",
        "{{ index .path.segments 2 }}",
        "there is no deploy/overlays/staging/staging",
    ),
    (SET, f"{SPEC}/source/path", "deploy/overlays/{{ .env }}", "no field env"),
    (SET, f"{SPEC}/source/path", "deploy/overlays/{{ .environment | lower }}", "more template than"),
    (SET, "/spec/templatePatch", "spec: {syncPolicy: {automated: {prun: true}}}", "'prun' was unexpected"),
    (
        SET,
        f"{SPEC}/destination/namespace",
        "qa-{{ .environment }}",
        "does not allow qa-staging on in-cluster",
    ),
    (SET, f"{SPEC}/destination/namespace", "espalier-qa", "no overlay makes the namespace espalier-qa"),
    (SHARED, "/spec/template/metadata/name", "espalier", "2 Applications are called espalier"),
    (PROJECT, "/spec/destinations/0/name", "other", "does not allow espalier-staging on in-cluster"),
    (SET, f"{SPEC}/project", "default", "there is no AppProject default"),
    (SET, f"{SPEC}/source/repoURL", "https://github.com/a/b", "does not allow https://github.com/a/b"),
    (SET, WATCHED, "/deploy/base", "components/ingress-alb would go unnoticed"),
    (SET, WATCHED, "/deploy/bases", "there is no /deploy/bases"),
    (SET, f"{SUBSCRIBE}.on-sync.slack", "x", "there is no trigger on-sync"),
    (SET, f"{SUBSCRIBE}.on-deployed.teams", "x", "there is no notification service teams"),
    (ROLLOUTS, f"{SPEC}/source/targetRevision", "2.*", "chart argo-rollouts is not pinned"),
    (ROLLOUTS, f"{SPEC}/destination/namespace", "default", "does not allow default"),
    (
        ROLLOUTS,
        f"{SPEC}/source/repoURL",
        "https://charts.example.com",
        "does not allow https://charts.example.com",
    ),
    (
        MONITORING,
        f"{SPEC}/destination/namespace",
        "kube-system",
        f"{PROMETHEUS}kube-prometheus-stack-prometheus.kube-",
    ),
    (MONITORING, f"{SPEC}/destination/namespace", "kube-system", "it keeps Prometheus out"),
    (
        MONITORING,
        f"{SPEC}/source/helm/releaseName",
        "prometheus",
        f"{PROMETHEUS}prometheus-prometheus.monitoring",
    ),
    (MONITORING, "", REMOVE, "no Application deploys kube-prometheus-stack"),
    (PROJECT, "/spec/namespaceResourceWhitelist/0", REMOVE, "it does not allow Service"),
    (
        PROJECT,
        "/spec/namespaceResourceWhitelist/0/kind",
        "Secret",
        "it allows Secret, which is deployed nowhere",
    ),
    (PROJECT, "/spec/clusterResourceWhitelist/0", REMOVE, "it does not allow Namespace espalier-production"),
    (PROJECT, "/spec/clusterResourceWhitelist/0/name", "*", "it allows Namespace *, which are all there are"),
    (PROJECT, "", REMOVE, "there is no AppProject espalier"),
    (
        WATCHING,
        "/spec/namespaceResourceWhitelist/0",
        REMOVE,
        "AppProject espalier-monitoring: it does not allow",
    ),
    (
        WATCHING,
        "/spec/namespaceResourceWhitelist/0/kind",
        "Pod",
        "it allows Pod, which is deployed nowhere",
    ),
    (
        WATCHING,
        "/spec/destinations/0/namespace",
        "default",
        "espalier-monitoring does not allow monitoring on",
    ),
    (WATCHING, "", REMOVE, "there is no AppProject espalier-monitoring"),
    (WATCHED_BY, f"{SPEC}/source/path", "watching", "there is no watching/kustomization.yaml"),
    (
        WATCHED_BY,
        "/spec/template/metadata/annotations/argocd.argoproj.io~1manifest-generate-paths",
        "/deploy",
        "a change of /monitoring would go unnoticed",
    ),
    (
        MONITORING,
        f"{VALUES}/grafana/sidecar/dashboards/label",
        "dashboard",
        "Grafana does not see it without dashb",
    ),
    (MONITORING, f"{VALUES}/grafana/sidecar/dashboards/labelValue", "2", "Grafana does not see it without"),
    (
        MONITORING,
        f"{VALUES}/grafana/sidecar/dashboards/folderAnnotation",
        "folder",
        "it is in no folder without the annotation folder",
    ),
    (
        MONITORING,
        f"{SPEC}/destination/namespace",
        "kube-system",
        "it is not in kube-system, where the stack is",
    ),
    (
        MONITORING,
        f"{VALUES}/alertmanager/alertmanagerSpec/secrets",
        REMOVE,
        "alertmanager-slack, which is not mounted",
    ),
    (
        MONITORING,
        f"{VALUES}/alertmanager/alertmanagerSpec/secrets/0",
        "pager",
        "Secret pager is mounted, and nothing",
    ),
    (MONITORING, f"{VALUES}/alertmanager/alertmanagerSpec/useExistingSecret", REMOVE, "from no Secret of"),
    (
        MONITORING,
        f"{VALUES}/alertmanager/alertmanagerSpec/configSecret",
        "other",
        "from no Secret of monitoring/",
    ),
    (CONFIG, "/data/context", REMOVE, "template deployed would say <no value>: no argocdUrl in context"),
    (CONFIG, "/data/context", "argocdURL: x", "template sync-failed would say <no value>: no argocdUrl"),
    (CONFIG, "/data/template.deployed", REMOVE, "there is no template deployed"),
    (CONFIG, "/data/trigger.on-deployed", REMOVE, "there is no trigger on-deployed"),
    (CONFIG, "/data/trigger.on-deployed", REMOVE, "nothing sends deployed"),
    (CONFIG, "/data/trigger.on-deployed", "- when: [", "trigger.on-deployed is not YAML"),
    (CONFIG, "", REMOVE, "there is no ConfigMap"),
]


@pytest.mark.parametrize(
    ("which", "pointer", "value", "complaint"),
    MISTAKES,
    ids=[f"{n}-{each[-1]}" for n, each in enumerate(MISTAKES)],
)
def test_a_mistake_is_found(which: str, pointer: str, value: object, complaint: str) -> None:
    documents = deepcopy(_rendered())
    assert _problems(documents) == []
    spoil(documents, _get(documents, which), pointer, value)
    assert complaint in "\n".join(_problems(documents))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("espalier-relay.monitoring:9099", "espalier-relay.monitoring:80"),
        ("espalier-relay.monitoring:9099", "relay.monitoring:9099"),
        ("espalier-relay.monitoring:9099", "espalier-relay.default:9099"),
    ],
)
def test_a_webhook_that_leads_nowhere_is_found(old: str, new: str) -> None:
    watching = deepcopy(rendered.documents("monitoring"))
    secret = _get(watching, "Secret espalier-alertmanager")
    text = b64decode(secret["data"]["alertmanager.yaml"]).decode()
    assert old in text
    secret["data"]["alertmanager.yaml"] = b64encode(text.replace(old, new).encode()).decode()
    assert f"there is no Service at http://{new}/" in "\n".join(_problems(_rendered(), watching=watching))


LISTED: list[tuple[str, str, str]] = [
    (
        "deploy/environments.yaml",
        "[{environment: production, cluster: in-cluster, wave: 0, prune: false}]",
        "no Application deploys espalier-staging",
    ),
    (
        "deploy/environments.yaml",
        "[{environment: qa, cluster: in-cluster, wave: 0, prune: true}]",
        "there is no deploy/overlays/qa/kustomization",
    ),
    ("deploy/environments.yaml", "[{environment: staging, wave: 0, prune: true}]", "no field cluster"),
    ("deploy/clusters.yaml", "[{cluster: a, region: b, platform: kind}, {cluster: a, region: c, platform: kind}]", "2 Applications are called argo-rollouts.a"),
    ("deploy/clusters.yaml", "[{cluster: a, region: b, platform: kind}]", "nothing deploys kube-prometheus-stack to in-cluster"),
    ("deploy/clusters.yaml", "[{cluster: a, platform: eks}]", "no field region"),
    ("deploy/clusters.yaml", "[{cluster: a, region: b, platform: eks}]", "no field eks"),
    ("deploy/clusters.yaml", "[{cluster: in-cluster, region: b, platform: aks}]", "nothing deploys argo-rollouts to in-cluster"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "complaint"), LISTED, ids=[each[-1] for each in LISTED])
def test_a_mistake_in_a_list_is_found(path: str, text: str, complaint: str) -> None:
    assert complaint in "\n".join(_problems(_rendered(), listed={path: text}))


def test_classes_of_load_balancers_need_a_controller() -> None:
    listed = {"deploy/clusters.yaml": "[{cluster: in-cluster, region: b, platform: eks, eks: c, vpc: v}]"}
    documents = deepcopy(_rendered())
    assert _problems(documents, listed=listed) == []
    documents.remove(_get(documents, "ApplicationSet aws-load-balancer-controller"))
    (found,) = _problems(documents, listed=listed)
    assert found.startswith(
        "nothing deploys aws-load-balancer-controller to in-cluster: deploy/platforms/eks "
    )


def test_a_component_outside_the_watched_folders_is_found(tmp_path: Path) -> None:
    """An overlay that draws from elsewhere, from which Argo CD would not hear of changes."""
    root = tmp_path / "deploy"
    shutil.copytree(render.FOLDER, root, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    shutil.copytree(root / "components" / "deployment", tmp_path / "shared")
    overlay = root / "overlays/staging" / MODEL / "kustomization.yaml"
    content = yaml.safe_load(overlay.read_text())
    content["components"].append("../../../../shared")
    overlay.write_text(yaml.safe_dump(content))
    (tmp_path / "monitoring").mkdir()
    shutil.copy(render.MONITORING / "kustomization.yaml", tmp_path / "monitoring")
    found = _problems(_rendered(), root)
    assert found == [
        f"Application espalier-staging.{MODEL}: argocd.argoproj.io/manifest-generate-paths: "
        "a change of /shared would go unnoticed"
    ]
