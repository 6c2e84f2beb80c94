"""Follows the names by which the manifests of training in a cluster refer to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from deploy.manifests.documents import Document, Documents


def problems(documents: Sequence[Document]) -> list[str]:
    """One line for each mistake in what Argo CD applies on a platform."""
    found = Documents(documents)
    return [
        f"RoleBinding {each['metadata']['name']}: there is no Role {each['roleRef']['name']}"
        for each in documents
        if each["kind"] == "RoleBinding" and found.named("Role", each["roleRef"]["name"]) is None
    ]


def job_problems(jobs: Sequence[Document], platforms: Sequence[Sequence[Document]]) -> list[str]:
    """One line for each mistake in a run: it is allowed where it runs, and fits the nodes that are made for it."""
    (job,) = jobs
    return list(_job_problems(job, platforms))


def _job_problems(job: Document, platforms: Sequence[Sequence[Document]]) -> Iterator[str]:
    namespace = job["metadata"]["namespace"]
    spec: dict[str, Any] = job["spec"]["job"]["spec"]
    worker: dict[str, Any] = job["spec"]["cluster"]["spec"]["worker"]["spec"]
    for documents in platforms:
        found = Documents(documents)
        if found.named("Namespace", namespace) is None:
            yield f"there is no Namespace {namespace}"
        if found.named("ServiceAccount", spec["serviceAccountName"]) is None:
            yield f"there is no ServiceAccount {spec['serviceAccountName']}"
        for each in (each for each in documents if each["kind"] == "NodePool"):
            for taint in each["spec"]["template"]["spec"]["taints"]:
                wanted = {"key": taint["key"], "value": taint["value"], "effect": taint["effect"]}
                if not any(wanted.items() <= toleration.items() for toleration in worker["tolerations"]):
                    yield f"workers do not tolerate {taint['key']} of NodePool {each['metadata']['name']}"
    for part in (spec, worker, job["spec"]["cluster"]["spec"]["scheduler"]["spec"]):
        for container in part["containers"]:
            for mount in container["volumeMounts"]:
                if mount["name"] not in {each["name"] for each in part["volumes"]}:
                    yield f"container {container['name']}: there is no volume {mount['name']}"
