"""Checks what the models of an environment share: its namespace, its network policy and its scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from deploy.manifests.documents import Document, Documents, collect, title


def problems(documents: Sequence[Document]) -> list[str]:
    """One line for each mistake, which names the object."""
    return collect(_CHECKS, Documents(documents))


def _namespace(it: Documents) -> Iterator[str]:
    namespaces = it.all("Namespace")
    if len(namespaces) != 1:
        yield f"{len(namespaces)} Namespaces: there must be one"
        return
    name = namespaces[0]["metadata"]["name"]
    if namespaces[0]["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
        yield f"Namespace {name}: it does not enforce restricted pods"
    if int(namespaces[0]["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0)) >= 0:
        yield f"Namespace {name}: it must come before what is in it, in a negative sync-wave"
    for each in it.documents:
        if each["kind"] != "Namespace" and each["metadata"].get("namespace") != name:
            yield f"{title(each)}: namespace {each['metadata'].get('namespace')}, and not {name}"


def _network_policies(it: Documents) -> Iterator[str]:
    if not any(
        not each["spec"]["podSelector"] and len(each["spec"]["policyTypes"]) == 2
        for each in it.all("NetworkPolicy")
    ):
        yield "NetworkPolicy: none denies everything that no other allows"


def _scrape(it: Documents) -> Iterator[str]:
    found = len(it.all("ServiceMonitor"))
    if found != 1:
        yield f"{found} ServiceMonitors: there must be one, or models are scraped never or twice"


_CHECKS: tuple[Callable[[Documents], Iterator[str]], ...] = (_namespace, _network_policies, _scrape)
