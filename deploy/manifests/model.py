"""Follows the names by which the manifests of a model in an environment refer to each other; reports those that lead nowhere.

It also compares times and limits that belong together, such as the grace period and the drain. Each check is a mistake
that was found in real clusters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO

from app.batch.__main__ import parser
from app.settings import PREFIX, Settings
from common.overlays import REVISION_ANNOTATION, VERSION_LABEL
from deploy.manifests.documents import (
    Document,
    Documents,
    collect,
    own_selector_problems,
    policy_port_problems,
    probe_problems,
    scraped_port_problems,
    scraped_services,
    selects,
    target_port_problems,
    title,
)

FINISH_SECONDS = 10
"""Time that the service gives to requests in flight after its drain."""
WORKLOADS = ("Rollout", "Deployment")
HASH = "rollouts-pod-template-hash"
"""The label that Argo Rollouts puts on its pods."""
INSTANCE_LABEL = "app.kubernetes.io/instance"
"""The label that has the model's name."""
# The colon before a port belongs to the registry; tags are refused.
_IMAGE = re.compile(r"[^\s:@/]+(:\d+(?=/))?(/[^\s:@/]+)*@sha256:[0-9a-f]{64}")
_ARGUMENT = re.compile(r"\{\{\s*args\.([\w-]+)\s*\}\}")


class Model(Documents):
    """The manifests of a model in an environment."""

    def __init__(self, documents: Sequence[Document], shared: Sequence[Document], name: str) -> None:
        super().__init__(documents)
        self.shared = Documents(shared)
        """What the models of the environment share."""
        self.name = name
        workloads = [each for each in documents if each["kind"] in WORKLOADS]
        if len(workloads) != 1:
            raise ValueError(f"{len(workloads)} workloads: there must be one, a Rollout or a Deployment")
        self.workload = workloads[0]
        self.template: Document = self.workload["spec"]["template"]
        self.pod: Document = self.template["spec"]
        self.container: Document = self.pod["containers"][0]
        self.labels: Mapping[str, str] = self.template["metadata"]["labels"]
        self.ports: set[str] = {each["name"] for each in self.container["ports"]}
        self.jobs: list[tuple[str, Document]] = [(title(each), each) for each in self.all("Job")]
        self.jobs += [(title(each), each["spec"]["jobTemplate"]) for each in self.all("CronJob")]
        """What scores in batches, with its name for people."""
        self.canary: Document = self.workload["spec"].get("strategy", {}).get("canary", {})

    def service_has(self, name: str, port: object) -> bool:
        service = self.named("Service", name)
        return service is not None and any(
            port in (each["port"], each["name"]) for each in service["spec"]["ports"]
        )

    @property
    def versions(self) -> dict[str, str]:
        """The Services of the stable version and of the canary, by the field of the Rollout that names them."""
        pair, names = ("stableService", "canaryService"), self.canary
        if "pingPong" in self.canary:
            pair, names = ("pingService", "pongService"), self.canary["pingPong"]
        return {role: names.get(role, "") for role in pair}

    @property
    def variables(self) -> dict[str, str]:
        return {each["name"]: each.get("value", "") for each in self.container.get("env", [])}

    def setting(self, name: str) -> float:
        """A number that the service will use: from its environment, or its default."""
        return float(self.variables.get(PREFIX + name.upper(), Settings.model_fields[name].default))


def problems(documents: Sequence[Document], shared: Sequence[Document], name: str) -> list[str]:
    """One line for each mistake, which names the object.

    Args:
        documents: the manifests of a model in an environment.
        shared: those of the environment itself.
        name: the model's name.
    """
    try:
        model = Model(documents, shared, name)
    except (ValueError, KeyError) as error:
        return [f"workload: {error}"]
    return collect(_CHECKS, model)


def hosts(documents: Sequence[Document]) -> list[str]:
    """Where a model answers."""
    it = Documents(documents)
    ingresses = [rule.get("host", "") for each in it.all("Ingress") for rule in each["spec"]["rules"]]
    return [*ingresses, *(host for each in it.all("HTTPRoute") for host in each["spec"].get("hostnames", []))]


def _images(it: Model) -> Iterator[str]:
    for container in it.pod["containers"]:
        if not _IMAGE.fullmatch(container["image"]):
            yield f"container {container['name']}: image {container['image']!r} is not NAME@sha256:DIGEST"


def _namespaces(it: Model) -> Iterator[str]:
    if it.all("Namespace"):
        yield "Namespace: every model would bring it; it belongs to the environment"
    name = next((each["metadata"]["name"] for each in it.shared.all("Namespace")), None)
    for each in it.documents:
        if each["metadata"].get("namespace") != name:
            yield f"{title(each)}: namespace {each['metadata'].get('namespace')}, and not {name}"


def _names(it: Model) -> Iterator[str]:
    """Names and selectors are the model's own: another model's objects are in the same namespace."""
    for each in it.documents:
        if not each["metadata"]["name"].startswith(f"{it.name}-"):
            yield f"{title(each)}: its name does not begin with {it.name}-"
    if it.labels.get(INSTANCE_LABEL) != it.name:
        yield f"{title(it.workload)}: its pods' label {INSTANCE_LABEL} is not {it.name}"
    selectors = [(it.workload, it.workload["spec"]["selector"]["matchLabels"])]
    selectors += [(each, each["spec"]["selector"]) for each in it.all("Service")]
    selectors += [(each, each["spec"]["selector"]["matchLabels"]) for each in it.all("PodDisruptionBudget")]
    policies = it.all("NetworkPolicy")
    selectors += [(each, each["spec"]["podSelector"].get("matchLabels", {})) for each in policies]
    for each, selector in selectors:
        if selector.get(INSTANCE_LABEL) != it.name:
            yield f"{title(each)}: its selector matches the pods of other models"
    for each in policies:
        rules = [*each["spec"].get("ingress", []), *each["spec"].get("egress", [])]
        peers = [peer for rule in rules for peer in (*rule.get("from", []), *rule.get("to", []))]
        if any(INSTANCE_LABEL in peer.get("podSelector", {}).get("matchLabels", {}) for peer in peers):
            yield f"{title(each)}: its peers would need the model's name; write matchExpressions, which stay as they are"


def _release_labels(it: Model) -> Iterator[str]:
    """Version and revision are the same everywhere, and part of no selector: selectors cannot change."""
    version = it.labels.get(VERSION_LABEL)
    revision = it.template["metadata"].get("annotations", {}).get(REVISION_ANNOTATION)
    if not version:
        yield f"{title(it.workload)}: its pods have no label {VERSION_LABEL}"
    if not re.fullmatch("[0-9a-f]{40}", str(revision)):
        yield f"{title(it.workload)}: its pods' annotation {REVISION_ANNOTATION} is {revision!r}, and not a commit"
    for each in it.documents:
        if each["metadata"].get("labels", {}).get(VERSION_LABEL) != version:
            yield f"{title(each)}: label {VERSION_LABEL} differs from its pods'"
        if each["metadata"].get("annotations", {}).get(REVISION_ANNOTATION) != revision:
            yield f"{title(each)}: annotation {REVISION_ANNOTATION} differs from its pods'"
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector") or {}
        if VERSION_LABEL in selector or VERSION_LABEL in selector.get("matchLabels", {}):
            yield f"{title(each)}: its selector has {VERSION_LABEL}, which changes with every release"


def _settings(it: Model) -> Iterator[str]:
    for name in it.variables:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            yield f"container {it.container['name']}: the service knows no variable {name}"
    port = it.setting("port")
    if port not in {each["containerPort"] for each in it.container["ports"]}:
        yield f"container {it.container['name']}: the service listens on {port:g}, which is none of its ports"
    # The pod's network is its own.
    if it.variables.get("ESPALIER_HOST", "127.0.0.1") not in ("0.0.0.0", "::"):  # noqa: S104
        yield f"container {it.container['name']}: without ESPALIER_HOST=0.0.0.0 or :: nothing reaches the service"


def _probes(it: Model) -> Iterator[str]:
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    yield from probe_problems(it.workload, f"container {it.container['name']}", kinds)


def _shutdown_order(it: Model) -> Iterator[str]:
    """Endpoints forget the pod, it drains, it finishes requests in flight, and only then it may be killed."""
    sleep = it.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if sleep < 5:
        yield f"container {it.container['name']}: {sleep} s of preStop are not enough for endpoints to forget it"
    needed = sleep + it.setting("drain_seconds") + FINISH_SECONDS
    grace = it.pod.get("terminationGracePeriodSeconds", 30)
    if grace <= needed:
        yield f"{title(it.workload)}: a grace of {grace} s is over before the shutdown is ({needed:g} s)"
    for ingress in it.all("Ingress"):
        attributes = _alb(ingress, "load-balancer-attributes")
        idle = int(attributes.get("idle_timeout.timeout_seconds", 60))
        if it.setting("keep_alive_seconds") <= idle:
            yield f"{title(ingress)}: connections idle for {idle} s, longer than the service keeps them"
        delay = int(_alb(ingress, "target-group-attributes").get("deregistration_delay.timeout_seconds", 300))
        if delay > grace:
            yield f"{title(ingress)}: it sends requests in flight for {delay} s, and the pod is gone after {grace} s"


def _selectors(it: Model) -> Iterator[str]:
    yield from own_selector_problems(it.workload)
    for each in it.all("Service"):
        if not selects(each["spec"]["selector"], it.workload):
            yield f"{title(each)}: its selector matches no pod"
        yield from target_port_problems(each, it.workload)
    for each in it.all("PodDisruptionBudget"):
        if not selects(each["spec"]["selector"]["matchLabels"], it.workload):
            yield f"{title(each)}: its selector matches no pod"
    for constraint in it.pod.get("topologySpreadConstraints", []):
        if not selects(constraint["labelSelector"]["matchLabels"], it.workload):
            yield f"{title(it.workload)}: the spread over {constraint['topologyKey']} counts no pod"


def _identity(it: Model) -> Iterator[str]:
    name = it.pod.get("serviceAccountName", "default")
    account = it.named("ServiceAccount", name)
    if account is None:
        yield f"{title(it.workload)}: there is no ServiceAccount {name}"
    elif any(each.get("automountServiceAccountToken", True) for each in (account, it.pod)):
        yield f"{title(account)}: its token is mounted, and the service needs none"


def _scale(it: Model) -> Iterator[str]:
    scalers = it.all("HorizontalPodAutoscaler")
    for each in scalers:
        target = each["spec"]["scaleTargetRef"]
        scaled = {key: it.workload[key] for key in ("apiVersion", "kind")}
        if target != {**scaled, "name": it.workload["metadata"]["name"]}:
            yield f"{title(each)}: it scales {target['kind']} {target['name']}, which there is not"
        if each["spec"]["minReplicas"] > each["spec"]["maxReplicas"]:
            yield f"{title(each)}: at least {each['spec']['minReplicas']} and at most {each['spec']['maxReplicas']}"
    if scalers and "replicas" in it.workload["spec"]:
        yield f"{title(it.workload)}: replicas beside a HorizontalPodAutoscaler; each would undo the other"
    replicas = min(
        (each["spec"]["minReplicas"] for each in scalers), default=it.workload["spec"].get("replicas", 1)
    )
    for each in it.all("PodDisruptionBudget"):
        least = each["spec"].get("minAvailable", 0)
        if isinstance(least, int) and least >= replicas:
            yield f"{title(each)}: with {replicas} pods none may go, so that no node can be drained"


def _scrapes(it: Model) -> Iterator[str]:
    for monitor in it.shared.all("ServiceMonitor"):
        services = scraped_services(monitor, it)
        if len(services) != 1:
            names = ", ".join(s["metadata"]["name"] for s in services) or "none"
            yield f"{title(monitor)}: it must match one Service, or pods are scraped never or twice: {names}"
        yield from scraped_port_problems(monitor, services)
        for label in monitor["spec"].get("podTargetLabels", []):
            # A plain Deployment's pods lack it, and then series do, too.
            if label not in it.labels and label != HASH:
                yield f"{title(monitor)}: pods have no label {label}"
        for endpoint in monitor["spec"]["endpoints"]:
            actions = {rule.get("action", "replace") for rule in endpoint.get("relabelings", [])}
            for action in sorted(actions - {"replace"}):
                yield f"{title(monitor)}: what the relabeling {action} makes cannot be checked here"
            made = relabelled(endpoint.get("relabelings", []), _discovered(it))
            for label, value in _target_labels(it).items():
                if made.get(label) != value:
                    yield (
                        f"{title(monitor)}: series have the label {label}={made.get(label, '')!r}, and rules "
                        f"and dashboards expect {value!r}"
                    )


def relabelled(rules: Sequence[Document], discovered: Mapping[str, str]) -> dict[str, str]:
    """The labels of a target after rules that replace; no other action is used here.

    Args:
        rules: `relabelings` of an endpoint.
        discovered: its labels before, meta labels included.
    """
    labels = dict(discovered)
    for rule in rules:
        joined = rule.get("separator", ";").join(labels.get(each, "") for each in rule["sourceLabels"])
        found = re.fullmatch(rule.get("regex", "(.*)"), joined)
        if found:
            labels[rule["targetLabel"]] = found.expand(rule.get("replacement", "$1").replace("$", "\\"))
    return {name: value for name, value in labels.items() if value and not name.startswith("__")}


def _discovered(it: Model) -> dict[str, str]:
    """The meta labels that Prometheus gives a pod, as far as they are used here."""
    pod = {f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', k)}": v for k, v in it.labels.items()}
    return {"__meta_kubernetes_namespace": it.workload["metadata"]["namespace"], **pod}


def _target_labels(it: Model) -> dict[str, str]:
    """The labels that rules and dashboards select by, beside those that the operator adds to all series."""
    namespace: str = it.workload["metadata"]["namespace"]
    return {
        "environment": namespace.removeprefix("espalier-"),
        "model": it.name,
        "model_version": it.labels.get(VERSION_LABEL, ""),
    }


def _network_policies(it: Model) -> Iterator[str]:
    policies = it.all("NetworkPolicy")
    if not any(each["spec"].get("ingress") for each in policies):
        yield "NetworkPolicy: none lets a request in"
    shared = [each for each in it.shared.all("NetworkPolicy") if each["spec"].get("ingress")]
    pods = [it.workload, *(job for _, job in it.jobs)]
    for each in [*policies, *shared]:
        if not any(selects(each["spec"]["podSelector"].get("matchLabels", {}), pod) for pod in pods):
            yield f"{title(each)}: its selector matches no pod"
        yield from policy_port_problems(each, it.workload)
    if it.all("Ingress") and not any(
        "ipBlock" in source for each in shared for rule in each["spec"]["ingress"] for source in rule["from"]
    ):
        yield "NetworkPolicy: the environment lets no load balancer in; add the component load-balancer to it"


def _routes(it: Model) -> Iterator[str]:
    for ingress in it.all("Ingress"):
        actions = {
            key.removeprefix("alb.ingress.kubernetes.io/actions.")
            for key in ingress["metadata"].get("annotations", {})
            if key.startswith("alb.ingress.kubernetes.io/actions.")
        }
        # Argo Rollouts writes this one.
        routed = it.canary.get("trafficRouting", {}).get("alb", {})
        if routed.get("ingress") == ingress["metadata"]["name"]:
            actions.add(routed["rootService"])
        if ingress["spec"].get("ingressClassName", "invalid") == "invalid":
            yield f"{title(ingress)}: no component has set its class, so no controller makes a load balancer"
        for rule in ingress["spec"]["rules"]:
            yield from _host(ingress, rule["host"])
            for path in rule["http"]["paths"]:
                service, port = path["backend"]["service"]["name"], path["backend"]["service"]["port"]
                if port.get("name") == "use-annotation":
                    if service not in actions:
                        yield f"{title(ingress)}: nothing writes the annotation for {service}"
                elif not it.service_has(service, port.get("name", port.get("number"))):
                    yield f"{title(ingress)}: there is no Service {service} with such a port"
        probed = ingress["metadata"]["annotations"].get("alb.ingress.kubernetes.io/healthcheck-path")
        if probed != it.container.get("readinessProbe", {}).get("httpGet", {}).get("path"):
            yield f"{title(ingress)}: it looks for health at {probed}, and the pods' readiness is elsewhere"
    for route in it.all("HTTPRoute"):
        for host in route["spec"]["hostnames"]:
            yield from _host(route, host)
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                if not it.service_has(backend["name"], backend["port"]):
                    yield f"{title(route)}: there is no Service {backend['name']} with port {backend['port']}"


def _canaries(it: Model) -> Iterator[str]:
    if it.workload["kind"] != "Rollout":
        return
    for role, name in it.versions.items():
        if it.named("Service", name) is None:
            yield f"{title(it.workload)}: there is no {role} {name}"
    routing = it.canary.get("trafficRouting", {})
    if "alb" in routing:
        alb = routing["alb"]
        if it.named("Ingress", alb["ingress"]) is None:
            yield f"{title(it.workload)}: there is no Ingress {alb['ingress']}"
        if "pingPong" not in it.canary:
            yield f"{title(it.workload)}: the load balancer answers 503 when a Service changes its pods; use pingPong"
        for service in (alb["rootService"], *it.versions.values()):
            if not it.service_has(service, alb["servicePort"]):
                yield f"{title(it.workload)}: there is no Service {service} with port {alb['servicePort']}"
    for each in routing.get("plugins", {}).get("argoproj-labs/gatewayAPI", {}).get("httpRoutes", []):
        route = it.named("HTTPRoute", each["name"])
        rules = route["spec"]["rules"] if route else []
        backends = {backend["name"] for rule in rules for backend in rule.get("backendRefs", [])}
        if not set(it.versions.values()) <= backends:
            yield f"{title(it.workload)}: there is no HTTPRoute {each['name']} to both of its Services"
    managed = {each["name"] for each in routing.get("managedRoutes", [])}
    for step in it.canary["steps"]:
        if "setHeaderRoute" in step and step["setHeaderRoute"]["name"] not in managed:
            yield f"{title(it.workload)}: route {step['setHeaderRoute']['name']} is not among the managed ones"


def _analyses(it: Model) -> Iterator[str]:
    used: set[str] = set()
    steps = it.canary.get("steps", [])
    analyses = [step["analysis"] for step in steps if "analysis" in step]
    if it.workload["kind"] == "Rollout" and not analyses:
        yield f"{title(it.workload)}: no step of its canary is judged"
    for analysis in analyses:
        given = {each["name"] for each in analysis.get("args", [])}
        for reference in analysis["templates"]:
            used.add(reference["templateName"])
            template = it.named("AnalysisTemplate", reference["templateName"])
            if template is None:
                yield f"{title(it.workload)}: there is no AnalysisTemplate {reference['templateName']}"
                continue
            declared = {each["name"]: "value" in each for each in template["spec"].get("args", [])}
            for name in sorted(declared.keys() - given):
                if not declared[name]:
                    yield f"{title(it.workload)}: {title(template)} wants {name}"
            for name in sorted(given - declared.keys()):
                yield f"{title(it.workload)}: {title(template)} knows no {name}"
    for template in it.all("AnalysisTemplate"):
        if template["metadata"]["name"] not in used:
            yield f"{title(template)}: nothing uses it"
        declared_names = {each["name"] for each in template["spec"].get("args", [])}
        mentioned = set(_ARGUMENT.findall(str(template["spec"]["metrics"])))
        for name in sorted(mentioned - declared_names):
            yield f"{title(template)}: argument {name} is not declared"
        for name in sorted(declared_names - mentioned):
            yield f"{title(template)}: argument {name} is used nowhere"


def _jobs(it: Model) -> Iterator[str]:
    """What scores in batches runs the release, gets out, and is no pod of the service."""
    for each in it.all("CronJob"):
        if each["spec"].get("concurrencyPolicy") != "Forbid":
            yield f"{title(each)}: a run may start while another is at work; set concurrencyPolicy: Forbid"
    for name, job in it.jobs:
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        if container["image"] != it.container["image"]:
            yield f"{name}: image {container['image']} is not the release's"
        account = it.named("ServiceAccount", pod.get("serviceAccountName", "default"))
        if account is None or any(each.get("automountServiceAccountToken", True) for each in (account, pod)):
            yield f"{name}: it has no ServiceAccount of its own, or the token of one is mounted"
        if not any(
            selects(each["spec"]["podSelector"].get("matchLabels", {}), job) and each["spec"].get("egress")
            for each in it.all("NetworkPolicy")
        ):
            yield f"{name}: no NetworkPolicy lets it reach a bucket"
        others = [(each, each["spec"]["selector"]) for each in it.all("Service")]
        others += [(each, each["spec"]["selector"]["matchLabels"]) for each in it.all("PodDisruptionBudget")]
        others.append((it.workload, it.workload["spec"]["selector"]["matchLabels"]))
        for other, selector in others:
            if selects(selector, job):
                yield f"{name}: {title(other)} takes its pods for the service's"
        try:
            with redirect_stderr(StringIO()) as said:
                parser().parse_args(container["args"])
        except SystemExit:
            yield f"{name}: {said.getvalue().strip().splitlines()[-1]}"


_CHECKS: tuple[Callable[[Model], Iterator[str]], ...] = (
    _images,
    _namespaces,
    _names,
    _release_labels,
    _settings,
    _probes,
    _shutdown_order,
    _selectors,
    _identity,
    _scale,
    _scrapes,
    _network_policies,
    _jobs,
    _routes,
    _canaries,
    _analyses,
)


def _alb(ingress: Document, name: str) -> dict[str, str]:
    given = ingress["metadata"].get("annotations", {}).get(f"alb.ingress.kubernetes.io/{name}", "")
    return dict(each.split("=", 1) for each in given.split(",") if "=" in each)


def _host(document: Document, host: str) -> Iterator[str]:
    if host.endswith(".invalid"):
        yield f"{title(document)}: no overlay has set its host"
