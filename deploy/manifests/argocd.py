"""Follows the names in Argo CD's manifests: from an application to its project, folder and namespace."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from deploy.clusters import CLUSTERS
from deploy.manifests import render, schema
from deploy.manifests.documents import Document, Documents, title
from deploy.yaml_loader import LOADER

_SUBSCRIPTION = re.compile(r"notifications\.argoproj\.io/subscribe\.(?P<trigger>[\w-]+)\.(?P<service>\w+)")
_PATHS = "argocd.argoproj.io/manifest-generate-paths"
_FIELD = re.compile(
    r"\{\{\s*(?P<json>toJson\s+)?(?P<index>index\s+)?\.(?P<name>\w+(\.\w+)*)(?(index)\s+(?P<place>\d+))\s*\}\}"
)
_CONTEXT = re.compile(r"\.context\.(\w+)")
_CHART_VERSION = re.compile(r"\d+\.\d+\.\d+")
_STACK = "kube-prometheus-stack"
_CONTROLLER = "aws-load-balancer-controller"
_CLUSTER_KINDS = ("Namespace",)
"""The kinds that environments have and that belong to no namespace."""


@dataclass(frozen=True)
class Deployed:
    """What the applications deploy, rendered."""

    environments: Sequence[Sequence[Document]]
    """Of every environment, and of every model with every set of components."""
    platforms: Sequence[Sequence[Document]]
    monitoring: Sequence[Document]
    released: Path
    """A copy of the folder deploy/, in which every overlay has a release."""
    secrets: Sequence[Document] = ()
    """Where the secrets of monitoring come from, with the option external-secrets."""
    training: Sequence[Sequence[Document]] = ()
    """Where training runs on each platform, with the option cluster-training."""


def problems(documents: Sequence[Document], deployed: Deployed, root: Path = render.FOLDER) -> list[str]:
    """One line for each mistake, which names the object.

    Args:
        documents: the manifests of Argo CD.
        deployed: what its applications deploy.
        root: the folder deploy/.
    """
    environments, monitoring = deployed.environments, deployed.monitoring
    try:
        applications = list(_applications(documents, deployed.released))
    except (KeyError, ValueError) as error:
        return [f"ApplicationSet: {error}"]
    found = [
        f"{title(each)}: {problem}"
        for each in applications
        for problem in (
            *schema.problems(each),
            *_project_problems(each, documents),
            *_source_problems(each, root),
            *_subscription_problems(each, documents),
            *_namespace_problems(each, environments),
        )
    ]
    return [
        *found,
        *_name_problems(applications),
        *_cluster_problems(applications),
        *_controller_problems(applications, root),
        *_environment_problems(applications, environments),
        *_whitelist_problems(documents, "espalier", environments),
        *_whitelist_problems(documents, "espalier-monitoring", [monitoring]),
        *_whitelist_problems(documents, "espalier-platform", deployed.platforms),
        *(_whitelist_problems(documents, "espalier-secrets", [deployed.secrets]) if deployed.secrets else ()),
        *(
            _whitelist_problems(documents, "espalier-training", deployed.training)
            if deployed.training
            else ()
        ),
        *_notification_problems(documents),
        *_address_problems(applications, environments),
        *_stack_problems(applications, monitoring),
    ]


def applications_of(application_set: Document, released: Path) -> Iterator[dict[str, Any]]:
    """The applications that a generator of files in this repository makes, or two that are combined.

    Raises:
        KeyError: a template names a field that an element lacks; Argo CD would refuse too, by missingkey=error.
        ValueError: the template has more in braces than fields, `toJson` and `index`.
    """
    spec = application_set["spec"]
    generator = spec["generators"][0]
    combined = generator["matrix"]["generators"] if "matrix" in generator else [generator]
    for element in _elements(combined, {}, released.parent):
        made = _load(_filled(yaml.safe_dump(spec["template"], width=10_000), element))
        patch = _load(_filled(spec.get("templatePatch", "{}"), element))
        yield {"apiVersion": application_set["apiVersion"], "kind": "Application", **_merged(made, patch)}


def _elements(generators: Sequence[Document], known: dict[str, Any], root: Path) -> Iterator[dict[str, Any]]:
    """What the templates are filled with: each entry of the first generator's files, with each of the next one's."""
    if not generators:
        yield known
        return
    git = generators[0]["git"]
    for pattern in git["files"]:
        for file in sorted(root.glob(_filled(pattern["path"], known))):
            segments = file.parent.relative_to(root).parts
            path = {"path": "/".join(segments), "basename": segments[-1], "segments": list(segments)}
            place = {git["pathParamPrefix"]: {"path": path}} if "pathParamPrefix" in git else {"path": path}
            content = _load(file.read_text(encoding="utf-8"))
            for entry in content if isinstance(content, list) else [content]:
                own = {**known, **entry, **place}
                values = {name: _filled(value, own) for name, value in git.get("values", {}).items()}
                # Of fields with one name, the first generator's stays.
                yield from _elements(
                    generators[1:],
                    {**entry, **place, **({"values": values} if values else {}), **known},
                    root,
                )


def _applications(documents: Sequence[Document], released: Path) -> Iterator[Document]:
    for each in documents:
        if each["kind"] == "Application":
            yield each
        elif each["kind"] == "ApplicationSet":
            if each["spec"].get("goTemplateOptions") != ["missingkey=error"]:
                raise ValueError("a field that is missing would become '<no value>': set missingkey=error")
            yield from applications_of(each, released)


def _project_problems(application: Document, documents: Sequence[Document]) -> Iterator[str]:
    spec = application["spec"]
    project = Documents(documents).named("AppProject", spec["project"])
    if project is None:
        yield f"there is no AppProject {spec['project']}"
        return
    if spec["source"]["repoURL"] not in project["spec"]["sourceRepos"]:
        yield f"project {spec['project']} does not allow {spec['source']['repoURL']}"
    destination = spec["destination"]
    if not any(
        fnmatchcase(destination["name"], each["name"])
        and fnmatchcase(destination["namespace"], each["namespace"])
        for each in project["spec"]["destinations"]
    ):
        yield f"project {spec['project']} does not allow {destination['namespace']} on {destination['name']}"


def _source_problems(application: Document, root: Path) -> Iterator[str]:
    source = application["spec"]["source"]
    if "chart" in source:
        if not _CHART_VERSION.fullmatch(source["targetRevision"]):
            yield f"chart {source['chart']} is not pinned: {source['targetRevision']}"
        return
    if not (root.parent / source["path"] / "kustomization.yaml").is_file():
        yield f"there is no {source['path']}/kustomization.yaml"
    watched = application["metadata"]["annotations"].get(_PATHS, "").split(";")
    for path in watched:
        if not (root.parent / path.lstrip("/")).is_dir():
            yield f"{_PATHS}: there is no {path}"
    for used in _folders(root.parent / source["path"]):
        relative = "/" + str(used.relative_to(root.parent.resolve()))
        if not any(relative == path or relative.startswith(f"{path}/") for path in watched):
            yield f"{_PATHS}: a change of {relative} would go unnoticed"


def _folders(folder: Path) -> Iterator[Path]:
    """A kustomization's folder and all folders that it includes."""
    yield folder.resolve()
    kustomization = folder / "kustomization.yaml"
    if kustomization.is_file():
        content = _load(kustomization.read_text(encoding="utf-8"))
        for each in [*(content.get("resources") or ()), *(content.get("components") or ())]:
            if (folder / each).is_dir():
                yield from _folders(folder / each)


def _subscription_problems(application: Document, documents: Sequence[Document]) -> Iterator[str]:
    config = Documents(documents).named("ConfigMap", "argocd-notifications-cm")
    known = config["data"] if config else {}
    for key in application["metadata"].get("annotations", {}):
        matched = _SUBSCRIPTION.fullmatch(key)
        if matched and f"trigger.{matched['trigger']}" not in known:
            yield f"there is no trigger {matched['trigger']}"
        if matched and f"service.{matched['service']}" not in known:
            yield f"there is no notification service {matched['service']}"


def _namespace_problems(application: Document, environments: Sequence[Sequence[Document]]) -> Iterator[str]:
    """An environment's application deploys to the namespace that its overlay makes."""
    if "/overlays/" not in application["spec"]["source"].get("path", ""):
        return
    made = {
        each["metadata"]["name"]
        for documents in environments
        for each in documents
        if each["kind"] == "Namespace"
    }
    if application["spec"]["destination"]["namespace"] not in made:
        yield f"no overlay makes the namespace {application['spec']['destination']['namespace']}"


def _name_problems(applications: Sequence[Document]) -> Iterator[str]:
    """Two applications of one name would take each other's place."""
    names = [each["metadata"]["name"] for each in applications]
    for name in sorted({each for each in names if names.count(each) > 1}):
        yield f"{names.count(name)} Applications are called {name}"


def _cluster_problems(applications: Sequence[Document]) -> Iterator[str]:
    """A cluster with an environment has what environments stand on."""
    used = {
        each["spec"]["destination"]["name"]
        for each in applications
        if "/overlays/" in each["spec"]["source"].get("path", "")
    }
    for chart in ("argo-rollouts", _STACK):
        there = {
            each["spec"]["destination"]["name"]
            for each in applications
            if each["spec"]["source"].get("chart") == chart
        }
        for name in sorted(used - there):
            yield f"nothing deploys {chart} to {name}: look at its entry in {CLUSTERS}"


def _controller_problems(applications: Sequence[Document], root: Path) -> Iterator[str]:
    """Something makes the load balancers of the platform's classes."""
    there = {
        each["spec"]["destination"]["name"]
        for each in applications
        if each["spec"]["source"].get("chart") == _CONTROLLER
    }
    for each in applications:
        name, path = each["spec"]["destination"]["name"], each["spec"]["source"].get("path", "")
        if path.startswith(f"{root.name}/platforms/") and name not in there:
            classes = root.parent / path / "load-balancers.yaml"
            if classes.is_file() and "controller: ingress.k8s.aws/alb" in classes.read_text(encoding="utf-8"):
                yield f"nothing deploys {_CONTROLLER} to {name}: {path} has no load-balancer-controller.yaml"


def _environment_problems(
    applications: Sequence[Document], environments: Sequence[Sequence[Document]]
) -> Iterator[str]:
    """Something makes the namespace that models are deployed to."""
    deployed = {each["spec"]["source"].get("path", "").rpartition("/")[2] for each in applications}
    for each in (each for documents in environments for each in documents if each["kind"] == "Namespace"):
        name = each["metadata"]["name"]
        if name.removeprefix("espalier-") not in deployed:
            yield f"no Application deploys {name}"


_OF_OPTIONS = {("batch", "CronJob", ""), ("batch", "Job", "")}
"""Kinds that a component brings if a model's overlay has it: batch scoring."""


def _whitelist_problems(
    documents: Sequence[Document], name: str, deployed: Sequence[Sequence[Document]]
) -> Iterator[str]:
    """A project allows the kinds that are deployed by it: all of them, and no other."""
    project = Documents(documents).named("AppProject", name)
    if project is None:
        yield f"there is no AppProject {name}"
        return
    used: set[tuple[str, str, str]] = set()
    for each in (each for manifests in deployed for each in manifests):
        group = each["apiVersion"].rpartition("/")[0]
        used.add((group, each["kind"], each["metadata"]["name"] if each["kind"] in _CLUSTER_KINDS else ""))
    spec = project["spec"]
    allowed = {
        (each["group"], each["kind"], each.get("name", ""))
        for each in [*spec["clusterResourceWhitelist"], *spec["namespaceResourceWhitelist"]]
    }
    for kind in sorted(used):
        if not any(_covers(pattern, kind) for pattern in allowed):
            yield f"AppProject {name}: it does not allow {_kind(*kind)}"
    for pattern in sorted(allowed):
        if pattern not in _OF_OPTIONS and not any(_covers(pattern, kind) for kind in used):
            yield f"AppProject {name}: it allows {_kind(*pattern)}, which is deployed nowhere"
    for pattern in allowed:
        if pattern[2].startswith("*"):
            yield f"AppProject {name}: it allows {_kind(*pattern)}, which are all there are"


def _covers(pattern: tuple[str, str, str], each: tuple[str, str, str]) -> bool:
    return pattern[:2] == each[:2] and fnmatchcase(each[2], pattern[2])


def _kind(group: str, kind: str, name: str) -> str:
    return " ".join(each for each in (kind, name or group) if each)


def _notification_problems(documents: Sequence[Document]) -> Iterator[str]:
    config = Documents(documents).named("ConfigMap", "argocd-notifications-cm")
    if config is None:
        yield "there is no ConfigMap argocd-notifications-cm"
        return
    sent = set()
    for key, text in config["data"].items():
        try:
            content = _load(text)
        except yaml.YAMLError as error:
            yield f"ConfigMap argocd-notifications-cm: {key} is not YAML: {error}"
            continue
        if key.startswith("trigger."):
            sent |= {name for condition in content for name in condition["send"]}
    templates = {key.removeprefix("template.") for key in config["data"] if key.startswith("template.")}
    context = _load(config["data"].get("context", "{}"))
    for name in sorted(templates):
        for key in sorted(set(_CONTEXT.findall(config["data"][f"template.{name}"])) - context.keys()):
            yield f"ConfigMap argocd-notifications-cm: template {name} would say <no value>: no {key} in context"
    for name in sorted(sent - templates):
        yield f"ConfigMap argocd-notifications-cm: there is no template {name}"
    for name in sorted(templates - sent):
        yield f"ConfigMap argocd-notifications-cm: nothing sends {name}"


def _address_problems(
    applications: Sequence[Document], environments: Sequence[Sequence[Document]]
) -> Iterator[str]:
    """Analyses ask the Prometheus that the chart makes, and the service lets exactly that one in."""
    stack = _stack(applications)
    if stack is None:
        yield f"no Application deploys {_STACK}"
        return
    release = stack["spec"]["source"]["helm"]["releaseName"]
    namespace = stack["spec"]["destination"]["namespace"]
    address = f"http://{release}-prometheus.{namespace}.svc:9090"
    for each in {id(each): each for documents in environments for each in documents}.values():
        if each["kind"] == "AnalysisTemplate":
            given = {argument["name"]: argument.get("value") for argument in each["spec"]["args"]}
            if given.get("prometheus") != address:
                yield f"{title(each)}: it asks {given.get('prometheus')}, and Prometheus is at {address}"
        if each["kind"] == "NetworkPolicy" and each["spec"].get("ingress"):
            allowed = {
                source["namespaceSelector"]["matchLabels"].get("kubernetes.io/metadata.name")
                for rule in each["spec"]["ingress"]
                for source in rule["from"]
                if "namespaceSelector" in source
            }
            # A policy for load balancers alone adds to the others.
            if allowed and namespace not in allowed:
                yield f"{title(each)}: it keeps Prometheus out, which is in {namespace}"


def _stack_problems(applications: Sequence[Document], monitoring: Sequence[Document]) -> Iterator[str]:
    """The stack finds what is deployed for it, and Alertmanager's messages arrive."""
    stack = _stack(applications)
    if stack is None:
        return
    values, namespace = (
        stack["spec"]["source"]["helm"]["valuesObject"],
        stack["spec"]["destination"]["namespace"],
    )
    for each in monitoring:
        if each["metadata"].get("namespace") != namespace:
            yield f"{title(each)}: it is not in {namespace}, where the stack is"
    sidecar = values["grafana"]["sidecar"]["dashboards"]
    for each in monitoring:
        if each["kind"] != "ConfigMap" or not any(name.endswith(".json") for name in each.get("data", {})):
            continue
        if each["metadata"].get("labels", {}).get(sidecar["label"]) != sidecar["labelValue"]:
            yield f"{title(each)}: Grafana does not see it without {sidecar['label']}: {sidecar['labelValue']}"
        if sidecar["folderAnnotation"] not in each["metadata"].get("annotations", {}):
            yield f"{title(each)}: it is in no folder without the annotation {sidecar['folderAnnotation']}"
    if not values["grafana"].get("admin", {}).get("existingSecret"):
        yield f"{title(stack)}: the chart gives Grafana a known password; name a Secret in grafana.admin.existingSecret"
    if '"storageClassName": ""' in json.dumps(values):
        yield f"{title(stack)}: an empty storageClassName is no class at all; leave it out for the default class"
    alertmanager = values.get("alertmanager", {}).get("alertmanagerSpec", {})
    secret = Documents(monitoring).named("Secret", alertmanager.get("configSecret", ""))
    if secret is None or not alertmanager.get("useExistingSecret"):
        yield f"{title(stack)}: Alertmanager takes its configuration from no Secret of monitoring/"
        return
    text = b64decode(secret["data"].get("alertmanager.yaml", "")).decode()
    config = _load(text) or {}
    services = {each["metadata"]["name"]: each for each in monitoring if each["kind"] == "Service"}
    for receiver in config.get("receivers", []):
        for webhook in receiver.get("webhook_configs", []):
            address = urlsplit(webhook.get("url", ""))
            name, _, where = (address.hostname or "").partition(".")
            service = services.get(name)
            ports = {port["port"] for port in service["spec"]["ports"]} if service else set()
            if where.split(".")[0] != namespace or address.port not in ports:
                yield f"{title(stack)}: receiver {receiver['name']}: there is no Service at {webhook.get('url')}"
    mounted = set(alertmanager.get("secrets", []))
    named = set(re.findall(r"/etc/alertmanager/secrets/([^/']+)/", str(config)))
    for name in sorted(named - mounted):
        yield f"{title(stack)}: Alertmanager's configuration names the Secret {name}, which is not mounted"
    for name in sorted(mounted - named):
        yield f"{title(stack)}: the Secret {name} is mounted, and nothing names it"


def _stack(applications: Sequence[Document]) -> Document | None:
    return next((a for a in applications if a["spec"]["source"].get("chart") == _STACK), None)


def _filled(template: str, element: Document) -> str:
    def value(found: re.Match[str]) -> str:
        given: Any = element
        for name in found["name"].split("."):
            if name not in given:
                raise KeyError(f"no field {found['name']} in {dict(element)}")
            given = given[name]
        if found["place"]:
            given = given[int(found["place"])]
        return json.dumps(given) if found["json"] else str(given)

    filled = _FIELD.sub(value, template)
    if "{{" in filled:
        raise ValueError(
            f"this is more template than can be checked here: {filled[filled.index('{{') :][:60]}"
        )
    return filled


def _merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _merged(one.get(key), other[key]) if key in other else one[key] for key in {**one, **other}
        }
    return other


def _load(text: str) -> Any:
    return yaml.load(text, LOADER)  # noqa: S506 - a safe one
