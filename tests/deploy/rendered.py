"""All that deploy/ renders to, made once for each process of tests."""

from __future__ import annotations

from functools import cache
from typing import Any

from deploy.manifests import __main__ as manifests
from deploy.manifests import render
from tests.deploy.project import MODEL

Document = dict[str, Any]


@cache
def everything() -> list[manifests.Rendered]:
    """Not to be changed: take a copy."""
    return list(manifests.render_all())


def documents(name: str) -> list[Document]:
    """Of `staging`, of a model in it as `staging.iris.gateway-api+deployment`, of `monitoring` or of `argocd`."""
    return next(list(each.documents) for each in everything() if each.name == name)


def variants() -> list[list[Document]]:
    """A model in both environments with each set of components, in the order of `render.VARIANTS`."""
    return [
        documents(f"{environment}.{MODEL}.{'+'.join(components) or 'plain'}")
        for components in render.VARIANTS
        for environment in render.environments()
    ]
