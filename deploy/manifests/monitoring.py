"""Follows the names in the manifests of monitoring: from a program to its pod, Service, scrape, policy and Secret.

Nobody would notice these mistakes before something went unwatched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from deploy.manifests.documents import (
    Document,
    Documents,
    collect,
    first_container,
    own_selector_problems,
    policy_port_problems,
    probe_problems,
    scraped_port_problems,
    scraped_services,
    selects,
    target_port_problems,
    title,
)

SECRETS = ("espalier-delivery-github", "espalier-relay-github")
"""Secrets that a person makes once, as docs/operations.md says."""
STACK_SECRETS = ("alertmanager-slack", "grafana-admin")
"""Those of the Prometheus stack."""
_IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_CALLERS = {"espalier-delivery": {"prometheus"}, "espalier-relay": {"alertmanager", "prometheus"}}
"""The clients that each program's policy must let in, by the label app.kubernetes.io/name."""


def problems(documents: Sequence[Document]) -> list[str]:
    """One line for each mistake, which names the object."""
    checks = (_pods, _services, _scrapes, _network_policies, _dashboards, _rules)
    return collect(checks, Documents(documents))


def secret_problems(documents: Sequence[Document]) -> list[str]:
    """What is wrong with the secrets that an operator fetches."""
    return collect((_fetched,), Documents(documents))


def _fetched(it: Documents) -> Iterator[str]:
    """Each Secret that a person otherwise makes comes from a store that is there."""
    made = {each["spec"]["target"]["name"] for each in it.all("ExternalSecret")}
    for name in (*SECRETS, *STACK_SECRETS):
        if name not in made:
            yield f"nothing fetches the Secret {name}"
    for each in it.all("ExternalSecret"):
        store = each["spec"]["secretStoreRef"]
        if it.named(store["kind"], store["name"]) is None:
            yield f"{title(each)}: there is no {store['kind']} {store['name']}"


def _pods(it: Documents) -> Iterator[str]:
    for each in it.all("Deployment"):
        pod, container = each["spec"]["template"]["spec"], first_container(each)
        yield from own_selector_problems(each)
        account = it.named("ServiceAccount", pod.get("serviceAccountName", "default"))
        if account is None or account.get("automountServiceAccountToken", True):
            yield f"{title(each)}: it has no ServiceAccount of its own without a token"
        if not _IMAGE.fullmatch(container["image"]):
            yield f"{title(each)}: image {container['image']!r} is not NAME@sha256:DIGEST"
        yield from probe_problems(each, title(each), ("readinessProbe", "livenessProbe"))
        yield from _files(it, each, pod)


def _files(it: Documents, deployment: Document, pod: Document) -> Iterator[str]:
    """Every file that a program's arguments or variables name is mounted, and every mount has a source."""
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes.get(mount["name"]) for mount in container["volumeMounts"]}
    # An emptyDir is for files that the program writes.
    mounted = {path: volume for path, volume in mounted.items() if "emptyDir" not in (volume or {})}
    texts = [*container["args"], *(each.get("value", "") for each in container.get("env", []))]
    named = [found for text in texts for found in re.findall(r"(?:^|=)(/[\w./-]+)", text)]
    if "-m" in container["args"]:
        # A package, which Python looks for in the working directory.
        package = container["args"][container["args"].index("-m") + 1]
        named.append(f"{container['workingDir']}/{package}/__main__.py")
    for path in named:
        folder, _, file = path.rpartition("/")
        volume = mounted.get(folder)
        if volume is None:
            yield f"{title(deployment)}: nothing is mounted at {folder}, where {file} should be"
        elif "configMap" in volume:
            config = it.named("ConfigMap", volume["configMap"]["name"])
            if config is None or file not in config.get("data", {}):
                yield f"{title(deployment)}: there is no ConfigMap {volume['configMap']['name']} with {file}"
        elif volume["secret"]["secretName"] not in SECRETS:
            yield f"{title(deployment)}: nothing makes the Secret {volume['secret']['secretName']}"
    for folder in sorted(mounted.keys() - {path.rpartition("/")[0] for path in named}):
        yield f"{title(deployment)}: it is told of no file in {folder}"


def _services(it: Documents) -> Iterator[str]:
    for each in it.all("Service"):
        selected = [d for d in it.all("Deployment") if selects(each["spec"]["selector"], d)]
        if len(selected) != 1:
            yield f"{title(each)}: its selector matches the pods of {len(selected)} Deployments"
        for deployment in selected:
            yield from target_port_problems(each, deployment)
            numbers = {port["containerPort"] for port in first_container(deployment)["ports"]}
            for port in each["spec"]["ports"]:
                if port["port"] not in numbers:
                    yield f"{title(each)}: port {port['port']} is not the one that the program is asked at"


def _scrapes(it: Documents) -> Iterator[str]:
    scraped = set()
    for each in it.all("ServiceMonitor"):
        if "namespaceSelector" in each["spec"]:
            # It scrapes programs of others, which label series with a namespace that is not their own.
            if not all(endpoint.get("honorLabels") for endpoint in each["spec"]["endpoints"]):
                yield f"{title(each)}: without honorLabels its series lose their namespace"
            continue
        services = scraped_services(each, it)
        if len(services) != 1:
            yield f"{title(each)}: it must match one Service, and matches {len(services)}"
        yield from scraped_port_problems(each, services)
        for service in services:
            name = service["metadata"]["name"]
            scraped.add(name)
            job = service["metadata"]["labels"].get(each["spec"].get("jobLabel", ""))
            if job != name:
                yield f"{title(each)}: its job is {job}, and rules expect {name}"
    for each in it.all("Service"):
        if each["metadata"]["name"] not in scraped:
            yield f"{title(each)}: nothing scrapes it"


def _network_policies(it: Documents) -> Iterator[str]:
    for deployment in it.all("Deployment"):
        policies = [each for each in it.all("NetworkPolicy") if _guards(each, deployment)]
        if len(policies) != 1 or set(policies[0]["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
            yield f"{title(deployment)}: there must be one NetworkPolicy of its own, for both ways"
            continue
        spec = policies[0]["spec"]
        callers = {
            source["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
            for rule in spec["ingress"]
            for source in rule["from"]
        }
        expected = _CALLERS.get(deployment["metadata"]["name"])
        if callers != expected:
            yield f"{title(policies[0])}: it lets {', '.join(sorted(callers))} in, and not {expected}"
        yield from policy_port_problems(policies[0], deployment)
        out = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
        if out != {53, 443}:
            yield f"{title(policies[0])}: it lets requests out to {sorted(out)}, and not to DNS and HTTPS alone"
    for each in it.all("NetworkPolicy"):
        if not any(_guards(each, deployment) for deployment in it.all("Deployment")):
            yield f"{title(each)}: its selector matches no pod of ours, or everybody's"


def _guards(policy: Document, deployment: Document) -> bool:
    """Whether a policy is about the pods of a deployment, and not about all pods."""
    selector = policy["spec"]["podSelector"].get("matchLabels", {})
    return bool(selector) and selects(selector, deployment)


def _dashboards(it: Documents) -> Iterator[str]:
    uids: dict[str, str] = {}
    for each in it.all("ConfigMap"):
        for name, text in each.get("data", {}).items():
            if not name.endswith(".json"):
                continue
            try:
                uid = json.loads(text)["uid"]
            except (ValueError, KeyError, TypeError):
                yield f"{title(each)}: {name} is no dashboard with a uid"
                continue
            if uid in uids:
                yield f"{title(each)}: {uids[uid]} has the uid {uid} too"
            uids[uid] = title(each)


def _rules(it: Documents) -> Iterator[str]:
    groups: set[str] = set()
    for each in it.all("PrometheusRule"):
        for group in each["spec"]["groups"]:
            if group["name"] in groups:
                yield f"{title(each)}: another group is called {group['name']}"
            groups.add(group["name"])
    if not groups:
        yield "there are no rules"
