"""Follows the names in what a platform brings to a cluster: from a class of load balancers to its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deploy.manifests.documents import Document, Documents, collect, title

DEFAULT = "storageclass.kubernetes.io/is-default-class"


def problems(documents: Sequence[Document]) -> list[str]:
    """One line for each mistake, which names the object."""
    return collect((_classes, _storage), Documents(documents))


def _classes(it: Documents) -> Iterator[str]:
    used = set()
    for each in it.all("IngressClass"):
        named = each["spec"]["parameters"]
        parameters = it.named(named["kind"], named["name"])
        if parameters is None or not parameters["apiVersion"].startswith(f"{named['apiGroup']}/"):
            yield f"{title(each)}: there are no {named['kind']} {named['name']} in {named['apiGroup']}"
        elif parameters["spec"].get("group", {}).get("name") != each["metadata"]["name"]:
            yield f"{title(parameters)}: its group is not {each['metadata']['name']}, so that models share no load balancer"
        used.add(named["name"])
    for each in it.all("IngressClassParams"):
        if each["metadata"]["name"] not in used:
            yield f"{title(each)}: no IngressClass has them"


def _storage(it: Documents) -> Iterator[str]:
    classes = it.all("StorageClass")
    default = [each for each in classes if each["metadata"].get("annotations", {}).get(DEFAULT) == "true"]
    if len(default) != 1:
        yield f"{len(default)} default StorageClasses: Prometheus' volumes need one"
    for each in classes:
        if each.get("parameters", {}).get("encrypted") != "true":
            yield f"{title(each)}: its volumes are not encrypted"
