"""What an adopter may switch on: off by default, on by one line, and whole then."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from deploy.manifests import argocd, monitoring, render
from tests.deploy import rendered
from tests.deploy.spoiling import REMOVE, spoil

Document = dict[str, Any]
CHARTS = {
    "admission": "kyverno",
    "external-secrets": "external-secrets",
    "external-dns": "external-dns",
    "cluster-training": "dask-kubernetes-operator",
}


def _charts(documents: list[Document]) -> dict[str, Document]:
    sources = [
        each["spec"]["template"]["spec"]["source"] for each in documents if each["kind"] == "ApplicationSet"
    ]
    return {each["chart"]: each for each in sources if "chart" in each}


def test_all_are_off() -> None:
    assert not set(CHARTS.values()) & _charts(rendered.documents("argocd")).keys()
    assert set(CHARTS) == set(render.OPTIONS)
    assert set(CHARTS.values()) <= _charts(rendered.documents("argocd.options")).keys()


@pytest.mark.parametrize("option", render.OPTIONS)
def test_each_is_switched_on_by_one_line(option: str, tmp_path: Path) -> None:
    """Its chart and what it needs of this repository, allowed by their projects, and nothing of the others."""
    shutil.copytree(render.ARGOCD, tmp_path / "argocd")
    render.switch_on(tmp_path / "argocd", [f"options/{option}"])
    documents = render.parse(render.render(tmp_path / "argocd"))
    assert set(CHARTS.values()) & _charts(documents).keys() == {CHARTS[option]}
    platforms = [rendered.documents(f"platform.{name}") for name in render.PLATFORMS]
    with render.copied() as copy:
        deployed = argocd.Deployed(
            [*(rendered.documents(name) for name in render.environments()), *rendered.variants()],
            [*platforms, *([rendered.documents("admission")] if option == "admission" else [])],
            rendered.documents("monitoring"),
            copy,
            rendered.documents("secrets") if option == "external-secrets" else (),
            [rendered.documents(f"training.{name}") for name in render.TRAINING]
            if option == "cluster-training"
            else (),
        )
        assert argocd.problems(documents, deployed) == []


def test_an_option_that_is_not_there_is_named(tmp_path: Path) -> None:
    shutil.copytree(render.ARGOCD, tmp_path / "argocd")
    with pytest.raises(render.RenderError, match="has no line `# - options/vault`"):
        render.switch_on(tmp_path / "argocd", ["options/vault"])


def test_two_clusters_do_not_take_each_others_records() -> None:
    values = _charts(rendered.documents("argocd.options"))["external-dns"]["helm"]["valuesObject"]
    assert values["txtOwnerId"] == "{{ .cluster }}"
    assert values["policy"] == "upsert-only"


def test_the_secrets_are_those_that_a_person_makes() -> None:
    """With the keys of the documented commands."""
    documents = rendered.documents("secrets")
    documented = (render.FOLDER.parent / "docs/operations.md").read_text()
    found = {
        each["spec"]["target"]["name"]: [item["secretKey"] for item in each["spec"]["data"]]
        for each in documents
        if each["kind"] == "ExternalSecret"
    }
    assert found.keys() == {*monitoring.SECRETS, *monitoring.STACK_SECRETS}
    for name, keys in found.items():
        place = documented.index(f"kubectl create secret generic {name} -n monitoring")
        command = documented[place : documented.index("```", place)]
        assert all(f"--from-literal={key}=" in command for key in keys)


@pytest.mark.parametrize(
    ("which", "pointer", "value", "complaint"),
    [
        ("grafana-admin", "", REMOVE, "nothing fetches the Secret grafana-admin"),
        (
            "espalier-relay-github",
            "/spec/target/name",
            "relay",
            "nothing fetches the Secret espalier-relay-github",
        ),
        ("alertmanager-slack", "/spec/secretStoreRef/name", "vault", "there is no SecretStore vault"),
    ],
)
def test_a_mistake_in_the_secrets_is_found(which: str, pointer: str, value: object, complaint: str) -> None:
    documents = deepcopy(rendered.documents("secrets"))
    assert monitoring.secret_problems(documents) == []
    spoil(documents, next(each for each in documents if each["metadata"]["name"] == which), pointer, value)
    assert complaint in "\n".join(monitoring.secret_problems(documents))


def test_images_come_through_the_cache(tmp_path: Path) -> None:
    """The same digests, by another name."""
    shutil.copytree(render.MONITORING, tmp_path / "monitoring", ignore=shutil.ignore_patterns("__pycache__"))
    render.switch_on(tmp_path / "monitoring", ["pull-through"])
    documents = render.parse(render.render(tmp_path / "monitoring"))
    images, before = (
        {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"]
            for each in some
            if each["kind"] == "Deployment"
        }
        for some in (documents, rendered.documents("monitoring"))
    )
    assert len(images) == 2
    for name, image in images.items():
        assert image.startswith(
            "111122223333.dkr.ecr.eu-central-1.amazonaws.com/ecr-public/docker/library/python"
        )
        assert image.partition("@")[2] == before[name].partition("@")[2]
