"""Follows the names in what watches the service: from a program to its pod, Service, scrape, policy and Secret.

Each check is a mistake that no schema sees and that would only be noticed when something was not watched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]

SECRETS = ("espalier-delivery-github", "espalier-relay-github")
"""What a person makes once, as docs/operations.md says."""
_IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_CALLERS = {"espalier-delivery": {"prometheus"}, "espalier-relay": {"alertmanager", "prometheus"}}
"""Who must be let in to each, by the label app.kubernetes.io/name."""


def problems(documents: Sequence[Document]) -> list[str]:
    """What leads nowhere, one line each that names the object."""
    found: list[str] = []
    for check in (_pods, _services, _scrapes, _walls, _dashboards, _rules):
        try:
            found += check(documents)
        except KeyError as error:
            # A field that its kind does not demand, and that the names cannot be followed without.
            found.append(f"{check.__name__.strip('_')}: a field is missing that others refer to: {error}")
    return found


def _pods(documents: Sequence[Document]) -> Iterator[str]:
    for each in _all(documents, "Deployment"):
        template, pod = each["spec"]["template"], each["spec"]["template"]["spec"]
        labels = template["metadata"]["labels"]
        if not each["spec"]["selector"]["matchLabels"].items() <= labels.items():
            yield f"{_name(each)}: its selector does not match its own pods"
        account = _named(documents, "ServiceAccount", pod.get("serviceAccountName", "default"))
        if account is None or account.get("automountServiceAccountToken", True):
            yield f"{_name(each)}: it has no ServiceAccount of its own without a token"
        container = pod["containers"][0]
        if not _IMAGE.fullmatch(container["image"]):
            yield f"{_name(each)}: image {container['image']!r} is not NAME@sha256:DIGEST"
        ports = {port["name"] for port in container["ports"]}
        for kind in ("readinessProbe", "livenessProbe"):
            if container.get(kind, {}).get("httpGet", {}).get("port") not in ports:
                yield f"{_name(each)}: {kind} asks none of its ports"
        yield from _files(documents, each, pod)


def _files(documents: Sequence[Document], deployment: Document, pod: Document) -> Iterator[str]:
    """Every file that a program is told of is mounted, and every mount has its source."""
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes.get(mount["name"]) for mount in container["volumeMounts"]}
    # Room for a program's own files.
    mounted = {path: volume for path, volume in mounted.items() if "emptyDir" not in (volume or {})}
    texts = [*container["args"], *(each.get("value", "") for each in container.get("env", []))]
    told = [found for text in texts for found in re.findall(r"(?:^|=)(/[\w./-]+)", text)]
    if "-m" in container["args"]:
        # A package, which Python looks for in the working directory.
        package = container["args"][container["args"].index("-m") + 1]
        told.append(f"{container['workingDir']}/{package}/__main__.py")
    for path in told:
        folder, _, file = path.rpartition("/")
        volume = mounted.get(folder)
        if volume is None:
            yield f"{_name(deployment)}: nothing is mounted at {folder}, where {file} should be"
        elif "configMap" in volume:
            config = _named(documents, "ConfigMap", volume["configMap"]["name"])
            if config is None or file not in config.get("data", {}):
                yield f"{_name(deployment)}: there is no ConfigMap {volume['configMap']['name']} with {file}"
        elif volume["secret"]["secretName"] not in SECRETS:
            yield f"{_name(deployment)}: nothing makes the Secret {volume['secret']['secretName']}"
    for folder in sorted(mounted.keys() - {path.rpartition("/")[0] for path in told}):
        yield f"{_name(deployment)}: it is told of no file in {folder}"


def _services(documents: Sequence[Document]) -> Iterator[str]:
    for each in _all(documents, "Service"):
        selected = [d for d in _all(documents, "Deployment") if _selects(each["spec"]["selector"], d)]
        if len(selected) != 1:
            yield f"{_name(each)}: its selector matches the pods of {len(selected)} Deployments"
        for deployment in selected:
            ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
            for port in each["spec"]["ports"]:
                if port["targetPort"] not in {known["name"] for known in ports}:
                    yield f"{_name(each)}: target port {port['targetPort']} is none of the container's"
                if port["port"] not in {known["containerPort"] for known in ports}:
                    yield f"{_name(each)}: port {port['port']} is not the one that the program is asked at"


def _scrapes(documents: Sequence[Document]) -> Iterator[str]:
    scraped = set()
    for each in _all(documents, "ServiceMonitor"):
        if "namespaceSelector" in each["spec"]:
            # Of others, who label series with a namespace that is not their own.
            if not all(endpoint.get("honorLabels") for endpoint in each["spec"]["endpoints"]):
                yield f"{_name(each)}: without honorLabels its series lose their namespace"
            continue
        wanted = each["spec"]["selector"]["matchLabels"].items()
        services = [s for s in _all(documents, "Service") if wanted <= s["metadata"]["labels"].items()]
        if len(services) != 1:
            yield f"{_name(each)}: it must match one Service, and matches {len(services)}"
        for service in services:
            scraped.add(service["metadata"]["name"])
            job = service["metadata"]["labels"].get(each["spec"].get("jobLabel", ""))
            if job != service["metadata"]["name"]:
                yield f"{_name(each)}: its job is {job}, and rules expect {service['metadata']['name']}"
            for endpoint in each["spec"]["endpoints"]:
                if endpoint["port"] not in {port["name"] for port in service["spec"]["ports"]}:
                    yield f"{_name(each)}: port {endpoint['port']} is none of {_name(service)}'s"
    for each in _all(documents, "Service"):
        if each["metadata"]["name"] not in scraped:
            yield f"{_name(each)}: nothing scrapes it"


def _walls(documents: Sequence[Document]) -> Iterator[str]:
    for deployment in _all(documents, "Deployment"):
        name = deployment["metadata"]["name"]
        policies = [
            each
            for each in _all(documents, "NetworkPolicy")
            if each["spec"]["podSelector"].get("matchLabels")
            and _selects(each["spec"]["podSelector"]["matchLabels"], deployment)
        ]
        if len(policies) != 1 or set(policies[0]["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
            yield f"{_name(deployment)}: there must be one NetworkPolicy of its own, for both ways"
            continue
        ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
        rules = policies[0]["spec"]["ingress"]
        callers = {
            source["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
            for rule in rules
            for source in rule["from"]
        }
        if callers != _CALLERS.get(name):
            yield f"{_name(policies[0])}: it lets {', '.join(sorted(callers))} in, and not {_CALLERS.get(name)}"
        for port in (port["port"] for rule in rules for port in rule["ports"]):
            if port not in ports:
                yield f"{_name(policies[0])}: port {port} is none of the container's"
        out = {port["port"] for rule in policies[0]["spec"]["egress"] for port in rule["ports"]}
        if out != {53, 443}:
            yield f"{_name(policies[0])}: it lets requests out to {sorted(out)}, and not to DNS and HTTPS alone"
    for each in _all(documents, "NetworkPolicy"):
        selector = each["spec"]["podSelector"].get("matchLabels", {})
        if not any(selector and _selects(selector, d) for d in _all(documents, "Deployment")):
            yield f"{_name(each)}: its selector matches no pod of ours, or everybody's"


def _dashboards(documents: Sequence[Document]) -> Iterator[str]:
    uids: dict[str, str] = {}
    for each in _all(documents, "ConfigMap"):
        for name, text in each.get("data", {}).items():
            if not name.endswith(".json"):
                continue
            try:
                uid = json.loads(text)["uid"]
            except (ValueError, KeyError, TypeError):
                yield f"{_name(each)}: {name} is no dashboard with a uid"
                continue
            if uid in uids:
                yield f"{_name(each)}: {uids[uid]} has the uid {uid} too"
            uids[uid] = _name(each)


def _rules(documents: Sequence[Document]) -> Iterator[str]:
    groups: set[str] = set()
    for each in _all(documents, "PrometheusRule"):
        for group in each["spec"]["groups"]:
            if group["name"] in groups:
                yield f"{_name(each)}: another group is called {group['name']}"
            groups.add(group["name"])
    if not groups:
        yield "there are no rules"


def _all(documents: Sequence[Document], kind: str) -> list[Document]:
    return [each for each in documents if each["kind"] == kind]


def _named(documents: Sequence[Document], kind: str, name: str) -> Document | None:
    return next((each for each in _all(documents, kind) if each["metadata"]["name"] == name), None)


def _selects(selector: Mapping[str, str], deployment: Document) -> bool:
    labels: Mapping[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


def _name(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"
