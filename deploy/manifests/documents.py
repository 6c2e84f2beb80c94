"""Finds manifests by kind and name, and checks what the manifests of every program have in common.

A schema cannot see that a Service selects no pod or that a probe asks a closed port. Every check yields one line a
mistake, which names the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]


class Documents:
    """Manifests by kind and name."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents

    def all(self, kind: str) -> list[Document]:
        return [each for each in self.documents if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Document | None:
        return next((each for each in self.all(kind) if each["metadata"]["name"] == name), None)


def title(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def collect(checks: Iterable[Callable[[Any], Iterator[str]]], subject: Documents) -> list[str]:
    """What the checks find; a check that lacks a field, or cannot read it, says so."""
    found: list[str] = []
    for check in checks:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            found += check(subject)
        except KeyError as error:
            # Its kind does not require the field, but without it the names cannot be followed.
            found.append(f"{name}: a field is missing that others refer to: {error}")
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            # The schema names the field; the other checks go on.
            found.append(f"{name}: a field is not of its kind's form: {error}")
    return found


def selects(selector: Mapping[str, str], workload: Document) -> bool:
    """Whether a selector matches the pods of a workload."""
    labels: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


def first_container(workload: Document) -> Document:
    container: Document = workload["spec"]["template"]["spec"]["containers"][0]
    return container


def port_names(workload: Document) -> set[str]:
    return {each["name"] for each in first_container(workload)["ports"]}


def probe_problems(workload: Document, subject: str, kinds: Sequence[str]) -> Iterator[str]:
    container = first_container(workload)
    for kind in kinds:
        if kind not in container:
            yield f"{subject}: it has no {kind}"
        elif container[kind].get("httpGet", {}).get("port") not in port_names(workload):
            yield f"{subject}: {kind} asks none of its ports"


def own_selector_problems(workload: Document) -> Iterator[str]:
    if not selects(workload["spec"]["selector"]["matchLabels"], workload):
        yield f"{title(workload)}: its selector does not match its own pods"


def target_port_problems(service: Document, workload: Document) -> Iterator[str]:
    for port in service["spec"]["ports"]:
        if port["targetPort"] not in port_names(workload):
            yield f"{title(service)}: target port {port['targetPort']} is none of the container's"


def policy_port_problems(policy: Document, workload: Document) -> Iterator[str]:
    for rule in policy["spec"].get("ingress", []):
        for port in rule.get("ports", []):
            if port["port"] not in port_names(workload):
                yield f"{title(policy)}: port {port['port']} is none of the container's"


def scraped_services(monitor: Document, it: Documents) -> list[Document]:
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    return [each for each in it.all("Service") if wanted <= each["metadata"].get("labels", {}).items()]


def scraped_port_problems(monitor: Document, services: Sequence[Document]) -> Iterator[str]:
    for endpoint in monitor["spec"]["endpoints"]:
        for service in services:
            if endpoint["port"] not in {port["name"] for port in service["spec"]["ports"]}:
                yield f"{title(monitor)}: port {endpoint['port']} is none of {title(service)}'s"
