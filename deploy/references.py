"""Follows the names by which one environment's manifests refer to each other; says where one leads nowhere.

A schema cannot see that a Service selects no pod, that a probe asks a port that is not open, or that the grace
period is over before the drain is. Each check here is one such mistake, found in real clusters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.settings import PREFIX, Settings

Document = Mapping[str, Any]

VERSION = "app.kubernetes.io/version"
REVISION = "espalier.dev/revision"
FINISH_SECONDS = 10
"""What the service gives to requests in flight after its drain."""
WORKLOADS = ("Rollout", "Deployment")
HASH = "rollouts-pod-template-hash"
"""Argo Rollouts puts it on its pods itself."""
# A colon is a registry's port, and a tag is none of it.
_IMAGE = re.compile(r"[^\s:@/]+(:\d+(?=/))?(/[^\s:@/]+)*@sha256:[0-9a-f]{64}")
_ARGUMENT = re.compile(r"\{\{\s*args\.([\w-]+)\s*\}\}")


class Environment:
    """The manifests of one environment, by kind and name."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        workloads = [each for each in documents if each["kind"] in WORKLOADS]
        if len(workloads) != 1:
            raise ValueError(f"{len(workloads)} workloads: there must be one, a Rollout or a Deployment")
        self.workload = workloads[0]
        self.template: Document = self.workload["spec"]["template"]
        self.pod: Document = self.template["spec"]
        self.container: Document = self.pod["containers"][0]
        self.labels: Mapping[str, str] = self.template["metadata"]["labels"]
        self.ports: set[str] = {each["name"] for each in self.container["ports"]}
        self.canary: Document = self.workload["spec"].get("strategy", {}).get("canary", {})

    def all(self, kind: str) -> list[Document]:
        return [each for each in self.documents if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Document | None:
        return next((each for each in self.all(kind) if each["metadata"]["name"] == name), None)

    def selects_pods(self, selector: Document) -> bool:
        return selector.items() <= self.labels.items()

    def service_has(self, name: str, port: object) -> bool:
        service = self.named("Service", name)
        return service is not None and any(
            port in (each["port"], each["name"]) for each in service["spec"]["ports"]
        )


Check = Callable[[Environment], Iterator[str]]


def problems(documents: Sequence[Document]) -> list[str]:
    """What leads nowhere, one line each that names the object."""
    try:
        environment = Environment(documents)
    except (ValueError, KeyError) as error:
        return [f"workload: {error}"]
    return [problem for check in _CHECKS for problem in _found(check, environment)]


def _found(check: Check, environment: Environment) -> Iterator[str]:
    try:
        yield from check(environment)
    except KeyError as error:
        # A field that its kind does not demand, and that the names cannot be followed without.
        yield f"{check.__name__.strip('_').replace('_', ' ')}: a field is missing that others refer to: {error}"


def _images(it: Environment) -> Iterator[str]:
    for container in it.pod["containers"]:
        if not _IMAGE.fullmatch(container["image"]):
            yield f"container {container['name']}: image {container['image']!r} is not NAME@sha256:DIGEST"


def _namespaces(it: Environment) -> Iterator[str]:
    namespaces = it.all("Namespace")
    if len(namespaces) != 1:
        yield f"{len(namespaces)} Namespaces: there must be one"
        return
    name = namespaces[0]["metadata"]["name"]
    if namespaces[0]["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
        yield f"Namespace {name}: it does not enforce restricted pods"
    for each in it.documents:
        if each["kind"] != "Namespace" and each["metadata"].get("namespace") != name:
            yield f"{_name(each)}: namespace {each['metadata'].get('namespace')}, and not {name}"


def _marks(it: Environment) -> Iterator[str]:
    """Version and revision are the same everywhere, and select nothing: selectors cannot change."""
    version, revision = it.labels.get(VERSION), it.template["metadata"].get("annotations", {}).get(REVISION)
    if not version:
        yield f"{_name(it.workload)}: its pods have no label {VERSION}"
    if not re.fullmatch("[0-9a-f]{40}", str(revision)):
        yield f"{_name(it.workload)}: its pods' annotation {REVISION} is {revision!r}, and not a commit"
    for each in it.documents:
        if each["metadata"].get("labels", {}).get(VERSION) != version:
            yield f"{_name(each)}: label {VERSION} differs from its pods'"
        if each["metadata"].get("annotations", {}).get(REVISION) != revision:
            yield f"{_name(each)}: annotation {REVISION} differs from its pods'"
    for each in it.documents:
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector") or {}
        if VERSION in selector or VERSION in selector.get("matchLabels", {}):
            yield f"{_name(each)}: its selector has {VERSION}, which changes with every release"


def _settings(it: Environment) -> Iterator[str]:
    for name in _variables(it):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            yield f"container {it.container['name']}: the service knows no variable {name}"
    port = _setting(it, "port")
    if port not in {each["containerPort"] for each in it.container["ports"]}:
        yield f"container {it.container['name']}: the service listens on {port:g}, which is none of its ports"
    # The pod's network is its own.
    if _variables(it).get("ESPALIER_HOST", "127.0.0.1") not in ("0.0.0.0", "::"):  # noqa: S104
        yield f"container {it.container['name']}: without ESPALIER_HOST=0.0.0.0 or :: nothing reaches the service"


def _probes(it: Environment) -> Iterator[str]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = it.container.get(kind)
        if probe is None:
            yield f"container {it.container['name']}: it has no {kind}"
        elif probe.get("httpGet", {}).get("port") not in it.ports:
            yield f"container {it.container['name']}: {kind} asks none of its ports"


def _goodbye(it: Environment) -> Iterator[str]:
    """A pod that goes: everybody forgets it, it drains, it finishes, and only then it would be killed."""
    sleep = it.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if sleep < 5:
        yield f"container {it.container['name']}: {sleep} s of preStop are not enough for endpoints to forget it"
    needed = sleep + _setting(it, "drain_seconds") + FINISH_SECONDS
    grace = it.pod.get("terminationGracePeriodSeconds", 30)
    if grace <= needed:
        yield f"{_name(it.workload)}: a grace of {grace} s is over before the goodbye is ({needed:g} s)"
    for ingress in it.all("Ingress"):
        attributes = _alb(ingress, "load-balancer-attributes")
        idle = int(attributes.get("idle_timeout.timeout_seconds", 60))
        if _setting(it, "keep_alive_seconds") <= idle:
            yield f"{_name(ingress)}: connections idle for {idle} s, longer than the service keeps them"
        delay = int(_alb(ingress, "target-group-attributes").get("deregistration_delay.timeout_seconds", 300))
        if delay > grace:
            yield f"{_name(ingress)}: it sends requests in flight for {delay} s, and the pod is gone after {grace} s"


def _selectors(it: Environment) -> Iterator[str]:
    if not it.selects_pods(it.workload["spec"]["selector"]["matchLabels"]):
        yield f"{_name(it.workload)}: its selector does not match its own pods"
    for each in it.all("Service"):
        if not it.selects_pods(each["spec"]["selector"]):
            yield f"{_name(each)}: its selector matches no pod"
        for port in each["spec"]["ports"]:
            if port["targetPort"] not in it.ports:
                yield f"{_name(each)}: target port {port['targetPort']} is none of the container's"
    for each in it.all("PodDisruptionBudget"):
        if not it.selects_pods(each["spec"]["selector"]["matchLabels"]):
            yield f"{_name(each)}: its selector matches no pod"
    for constraint in it.pod.get("topologySpreadConstraints", []):
        if not it.selects_pods(constraint["labelSelector"]["matchLabels"]):
            yield f"{_name(it.workload)}: the spread over {constraint['topologyKey']} counts no pod"


def _identity(it: Environment) -> Iterator[str]:
    name = it.pod.get("serviceAccountName", "default")
    account = it.named("ServiceAccount", name)
    if account is None:
        yield f"{_name(it.workload)}: there is no ServiceAccount {name}"
    elif account.get("automountServiceAccountToken", True) or it.pod.get(
        "automountServiceAccountToken", True
    ):
        yield f"{_name(account)}: its token is mounted, and the service needs none"


def _scale(it: Environment) -> Iterator[str]:
    scalers = it.all("HorizontalPodAutoscaler")
    for each in scalers:
        target = each["spec"]["scaleTargetRef"]
        if (target["apiVersion"], target["kind"], target["name"]) != (
            it.workload["apiVersion"],
            it.workload["kind"],
            it.workload["metadata"]["name"],
        ):
            yield f"{_name(each)}: it scales {target['kind']} {target['name']}, which there is not"
        if each["spec"]["minReplicas"] > each["spec"]["maxReplicas"]:
            yield f"{_name(each)}: at least {each['spec']['minReplicas']} and at most {each['spec']['maxReplicas']}"
    if scalers and "replicas" in it.workload["spec"]:
        yield f"{_name(it.workload)}: replicas beside a HorizontalPodAutoscaler; each would undo the other"
    replicas = min(
        (each["spec"]["minReplicas"] for each in scalers), default=it.workload["spec"].get("replicas", 1)
    )
    for each in it.all("PodDisruptionBudget"):
        least = each["spec"].get("minAvailable", 0)
        if isinstance(least, int) and least >= replicas:
            yield f"{_name(each)}: with {replicas} pods none may go, so that no node can be drained"


def _scrapes(it: Environment) -> Iterator[str]:
    for monitor in it.all("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [s for s in it.all("Service") if wanted <= s["metadata"].get("labels", {}).items()]
        if len(services) != 1:
            names = ", ".join(s["metadata"]["name"] for s in services) or "none"
            yield f"{_name(monitor)}: it must match one Service, or pods are scraped never or twice: {names}"
        for endpoint in monitor["spec"]["endpoints"]:
            for service in services:
                if endpoint["port"] not in {port["name"] for port in service["spec"]["ports"]}:
                    yield f"{_name(monitor)}: port {endpoint['port']} is none of {_name(service)}'s"
        for label in monitor["spec"].get("podTargetLabels", []):
            if label not in it.labels and not (label == HASH and it.workload["kind"] == "Rollout"):
                yield f"{_name(monitor)}: pods have no label {label}"
        for endpoint in monitor["spec"]["endpoints"]:
            actions = {rule.get("action", "replace") for rule in endpoint.get("relabelings", [])}
            for action in sorted(actions - {"replace"}):
                yield f"{_name(monitor)}: what the relabeling {action} makes cannot be checked here"
            made = relabelled(endpoint.get("relabelings", []), _discovered(it))
            for label, value in _target_labels(it).items():
                if made.get(label) != value:
                    yield (
                        f"{_name(monitor)}: series have the label {label}={made.get(label, '')!r}, and rules "
                        f"and dashboards expect {value!r}"
                    )


def relabelled(rules: Sequence[Document], discovered: Mapping[str, str]) -> dict[str, str]:
    """The labels that a target is left with by rules that replace, which are all that is used here.

    Args:
        rules: `relabelings` of an endpoint.
        discovered: what the target is known by, meta labels included.
    """
    labels = dict(discovered)
    for rule in rules:
        joined = rule.get("separator", ";").join(labels.get(each, "") for each in rule["sourceLabels"])
        found = re.fullmatch(rule.get("regex", "(.*)"), joined)
        if found:
            labels[rule["targetLabel"]] = found.expand(rule.get("replacement", "$1").replace("$", "\\"))
    return {name: value for name, value in labels.items() if value and not name.startswith("__")}


def _discovered(it: Environment) -> dict[str, str]:
    """The meta labels by which Prometheus knows a pod, as far as they are used here."""
    pod = {f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', k)}": v for k, v in it.labels.items()}
    return {"__meta_kubernetes_namespace": it.workload["metadata"]["namespace"], **pod}


def _target_labels(it: Environment) -> dict[str, str]:
    """What rules and dashboards tell series apart by, beside what the operator gives them all."""
    namespace: str = it.workload["metadata"]["namespace"]
    return {"environment": namespace.removeprefix("espalier-"), "model_version": it.labels.get(VERSION, "")}


def _walls(it: Environment) -> Iterator[str]:
    policies = it.all("NetworkPolicy")
    if not any(
        not each["spec"]["podSelector"] and len(each["spec"]["policyTypes"]) == 2 for each in policies
    ):
        yield "NetworkPolicy: none denies everything that no other allows"
    if not any(each["spec"].get("ingress") for each in policies):
        yield "NetworkPolicy: none lets a request in"
    for each in policies:
        if not it.selects_pods(each["spec"]["podSelector"].get("matchLabels", {})):
            yield f"{_name(each)}: its selector matches no pod"
        for rule in each["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                if port["port"] not in it.ports:
                    yield f"{_name(each)}: port {port['port']} is none of the container's"


def _ways_in(it: Environment) -> Iterator[str]:
    for ingress in it.all("Ingress"):
        actions = {
            key.removeprefix("alb.ingress.kubernetes.io/actions.")
            for key in ingress["metadata"].get("annotations", {})
            if key.startswith("alb.ingress.kubernetes.io/actions.")
        }
        # Argo Rollouts writes this one.
        routed = it.canary.get("trafficRouting", {}).get("alb", {})
        if routed.get("ingress") == ingress["metadata"]["name"]:
            actions.add(routed.get("rootService", it.canary.get("stableService")))
        for rule in ingress["spec"]["rules"]:
            yield from _host(ingress, rule["host"])
            for path in rule["http"]["paths"]:
                service, port = path["backend"]["service"]["name"], path["backend"]["service"]["port"]
                if port.get("name") == "use-annotation":
                    if service not in actions:
                        yield f"{_name(ingress)}: nothing writes the annotation for {service}"
                elif not it.service_has(service, port.get("name", port.get("number"))):
                    yield f"{_name(ingress)}: there is no Service {service} with such a port"
        probed = ingress["metadata"]["annotations"].get("alb.ingress.kubernetes.io/healthcheck-path")
        if probed != it.container.get("readinessProbe", {}).get("httpGet", {}).get("path"):
            yield f"{_name(ingress)}: it looks for health at {probed}, and the pods' readiness is elsewhere"
    for route in it.all("HTTPRoute"):
        for host in route["spec"]["hostnames"]:
            yield from _host(route, host)
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                if not it.service_has(backend["name"], backend["port"]):
                    yield f"{_name(route)}: there is no Service {backend['name']} with port {backend['port']}"


def _canaries(it: Environment) -> Iterator[str]:
    if it.workload["kind"] != "Rollout":
        return
    for role in ("stableService", "canaryService"):
        if it.named("Service", it.canary.get(role, "")) is None:
            yield f"{_name(it.workload)}: there is no {role} {it.canary.get(role)}"
    routing = it.canary.get("trafficRouting", {})
    if "alb" in routing:
        alb = routing["alb"]
        if it.named("Ingress", alb["ingress"]) is None:
            yield f"{_name(it.workload)}: there is no Ingress {alb['ingress']}"
        for service in (alb["rootService"], it.canary["stableService"], it.canary["canaryService"]):
            if not it.service_has(service, alb["servicePort"]):
                yield f"{_name(it.workload)}: there is no Service {service} with port {alb['servicePort']}"
    for each in routing.get("plugins", {}).get("argoproj-labs/gatewayAPI", {}).get("httpRoutes", []):
        route = it.named("HTTPRoute", each["name"])
        rules = route["spec"]["rules"] if route else []
        backends = {backend["name"] for rule in rules for backend in rule.get("backendRefs", [])}
        if not {it.canary["stableService"], it.canary["canaryService"]} <= backends:
            yield f"{_name(it.workload)}: there is no HTTPRoute {each['name']} to both of its Services"
    managed = {each["name"] for each in routing.get("managedRoutes", [])}
    for step in it.canary["steps"]:
        if "setHeaderRoute" in step and step["setHeaderRoute"]["name"] not in managed:
            yield f"{_name(it.workload)}: route {step['setHeaderRoute']['name']} is not among the managed ones"


def _analyses(it: Environment) -> Iterator[str]:
    used: set[str] = set()
    steps = it.canary.get("steps", [])
    analyses = [step["analysis"] for step in steps if "analysis" in step]
    if it.workload["kind"] == "Rollout" and not analyses:
        yield f"{_name(it.workload)}: no step of its canary is judged"
    for analysis in analyses:
        given = {each["name"] for each in analysis.get("args", [])}
        for reference in analysis["templates"]:
            used.add(reference["templateName"])
            template = it.named("AnalysisTemplate", reference["templateName"])
            if template is None:
                yield f"{_name(it.workload)}: there is no AnalysisTemplate {reference['templateName']}"
                continue
            declared = {each["name"]: "value" in each for each in template["spec"].get("args", [])}
            for name in sorted(declared.keys() - given):
                if not declared[name]:
                    yield f"{_name(it.workload)}: {_name(template)} wants {name}"
            for name in sorted(given - declared.keys()):
                yield f"{_name(it.workload)}: {_name(template)} knows no {name}"
    for template in it.all("AnalysisTemplate"):
        if template["metadata"]["name"] not in used:
            yield f"{_name(template)}: nothing uses it"
        declared_names = {each["name"] for each in template["spec"].get("args", [])}
        mentioned = set(_ARGUMENT.findall(str(template["spec"]["metrics"])))
        for name in sorted(mentioned - declared_names):
            yield f"{_name(template)}: argument {name} is not declared"
        for name in sorted(declared_names - mentioned):
            yield f"{_name(template)}: argument {name} is used nowhere"


_CHECKS: tuple[Check, ...] = (
    _images,
    _namespaces,
    _marks,
    _settings,
    _probes,
    _goodbye,
    _selectors,
    _identity,
    _scale,
    _scrapes,
    _walls,
    _ways_in,
    _canaries,
    _analyses,
)


def _name(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def _variables(it: Environment) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in it.container.get("env", [])}


def _setting(it: Environment, name: str) -> float:
    """A number that the service will use: from its environment, or its default."""
    given = _variables(it).get(PREFIX + name.upper())
    return float(given if given is not None else Settings.model_fields[name].default)


def _alb(ingress: Document, name: str) -> dict[str, str]:
    given = ingress["metadata"].get("annotations", {}).get(f"alb.ingress.kubernetes.io/{name}", "")
    return dict(each.split("=", 1) for each in given.split(",") if "=" in each)


def _host(document: Document, host: str) -> Iterator[str]:
    if host.endswith(".invalid"):
        yield f"{_name(document)}: no overlay has set its host"
