"""What a platform brings to a cluster, that the checks find each mistake in it, and that others use its names."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml

from deploy.manifests import platform, render
from tests.deploy import rendered
from tests.deploy.project import MODEL
from tests.deploy.spoiling import REMOVE, spoil

Document = dict[str, Any]
CLASS, PARAMETERS = "IngressClass espalier-staging", "IngressClassParams espalier-staging"
STORAGE = "StorageClass espalier"
DEFAULT = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class"


def _get(documents: list[Document], which: str) -> Document:
    kind, name = which.split()
    return next(each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)


MISTAKES: list[tuple[str, str, object, str]] = [
    (PARAMETERS, "", REMOVE, "there are no IngressClassParams espalier-staging"),
    (CLASS, "/spec/parameters/apiGroup", "k8s.aws", "IngressClassParams espalier-staging in k8s.aws"),
    (CLASS, "", REMOVE, "no IngressClass has them"),
    (PARAMETERS, "/spec/group/name", "espalier-production", "its group is not espalier-staging"),
    (STORAGE, "", REMOVE, "0 default StorageClasses"),
    (STORAGE, DEFAULT, "false", "0 default StorageClasses"),
    (STORAGE, "/parameters/encrypted", "false", "its volumes are not encrypted"),
]


@pytest.mark.parametrize("name", render.PLATFORMS)
@pytest.mark.parametrize(
    ("which", "pointer", "value", "complaint"), MISTAKES, ids=[each[-1] for each in MISTAKES]
)
def test_a_mistake_is_found(name: str, which: str, pointer: str, value: object, complaint: str) -> None:
    documents = deepcopy(rendered.documents(f"platform.{name}"))
    assert platform.problems(documents) == []
    spoil(documents, _get(documents, which), pointer, value)
    assert complaint in "\n".join(platform.problems(documents))


@pytest.mark.parametrize(
    ("name", "controller", "group", "provisioner"),
    [
        ("eks-auto", "eks.amazonaws.com/alb", "eks.amazonaws.com", "ebs.csi.eks.amazonaws.com"),
        ("eks", "ingress.k8s.aws/alb", "elbv2.k8s.aws", "ebs.csi.aws.com"),
    ],
)
def test_each_platform_names_its_own_controllers(
    name: str, controller: str, group: str, provisioner: str
) -> None:
    documents = rendered.documents(f"platform.{name}")
    for each in (each for each in documents if each["kind"] == "IngressClass"):
        assert each["spec"]["controller"] == controller
        assert each["spec"]["parameters"]["apiGroup"] == group
    assert _get(documents, STORAGE)["provisioner"] == provisioner
    charts = yaml.safe_load((render.FOLDER / "platforms" / name / "platform.yaml").read_text())
    assert charts["verifyTargetGroups"] is True
    assert charts["targetGroupBinding"].startswith(f"{group}/")


def test_auto_mode_enforces_network_policies() -> None:
    documents = rendered.documents("platform.eks-auto")
    config = _get(documents, "ConfigMap amazon-vpc-cni")
    assert config["metadata"]["namespace"] == "kube-system"
    assert config["data"] == {"enable-network-policy-controller": "true"}


@pytest.mark.parametrize("name", render.PLATFORMS)
@pytest.mark.parametrize("environment", render.environments())
def test_models_use_a_class_that_the_platform_makes(name: str, environment: str) -> None:
    made = {
        each["metadata"]["name"]
        for each in rendered.documents(f"platform.{name}")
        if each["kind"] == "IngressClass"
    }
    ingress = next(each for each in rendered.documents(f"{environment}.{MODEL}") if each["kind"] == "Ingress")
    assert ingress["spec"]["ingressClassName"] in made
    # Auto Mode refuses a group in the Ingress itself.
    assert "alb.ingress.kubernetes.io/group.name" not in ingress["metadata"]["annotations"]


def test_argo_rollouts_is_told_of_each_class() -> None:
    stated = next(
        each
        for each in rendered.documents("argocd")
        if each["kind"] == "ApplicationSet" and each["metadata"]["name"] == "argo-rollouts"
    )
    arguments = stated["spec"]["template"]["spec"]["source"]["helm"]["valuesObject"]["controller"][
        "extraArgs"
    ]
    made = {
        each["metadata"]["name"]
        for each in rendered.documents("platform.eks")
        if each["kind"] == "IngressClass"
    }
    assert {each.partition("=")[2] for each in arguments if each.startswith("--alb-ingress-classes")} == made


def test_names_are_resolved_where_dns_is_no_pod() -> None:
    """Every policy that lets DNS out names its pods and the addresses that stand for it elsewhere."""
    policies = [
        each
        for document in rendered.everything()
        for each in document.documents
        if each["kind"] == "NetworkPolicy"
    ]
    resolving = [
        rule["to"]
        for each in policies
        for rule in each["spec"].get("egress", [])
        if rule.get("ports", [{}])[0].get("port") == 53
    ]
    assert resolving
    for peers in resolving:
        blocks = {each["ipBlock"]["cidr"] for each in peers if "ipBlock" in each}
        # The Service's address in the two networks that EKS may choose, and that of node-local caches.
        assert blocks == {"172.20.0.10/32", "10.100.0.10/32", "169.254.20.10/32"}
        assert any("kube-dns" in str(each.get("podSelector")) for each in peers)
