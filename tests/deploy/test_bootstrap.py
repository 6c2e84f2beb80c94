"""What installs Argo CD is the reviewed release, and has what deploy/argocd relies upon.

The manifest is read at a commit of GitHub when it is applied. Here it comes from the Go module of that version, whose content
Go's checksum database vouches for.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deploy.manifests import render
from deploy.schemas.__main__ import PACKAGES
from tests.deploy import rendered
from tests.tools import require

Document = dict[str, Any]
FOLDER = render.ARGOCD / "bootstrap"
TEXT = (FOLDER / "kustomization.yaml").read_text()
MODULE = next(each.module for each in PACKAGES if each.name == "argo-cd")
URL = re.compile(r"https://raw\.githubusercontent\.com/argoproj/argo-cd/[0-9a-f]{40}/manifests/install\.yaml")


@cache
def _released() -> Path:
    """The release's manifest in Go's module cache."""
    told = subprocess.run(
        [require("go"), "mod", "download", "-json", MODULE],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    ).stdout
    return Path(json.loads(told)["Dir"]) / "manifests/install.yaml"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """What `kubectl apply -k` sends, with the manifest beside the kustomization instead of on GitHub."""
    folder = tmp_path_factory.mktemp("bootstrap")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    shutil.copy(_released(), folder / "install.yaml")
    text, number = URL.subn("install.yaml", TEXT)
    assert number == 1
    (folder / "kustomization.yaml").write_text(text)
    return render.parse(render.render(folder))


def _names(documents: list[Document], kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in documents if each["kind"] == kind}


@pytest.mark.slow
def test_what_is_applied_is_what_was_reviewed() -> None:
    """The version in the comment is the schemas' and its file has the digest; a commit's content cannot change."""
    version = MODULE.rpartition("@v")[2]
    assert f"# Version {version}." in TEXT
    (digest,) = re.findall(r"# sha256:([0-9a-f]{64})", TEXT)
    assert hashlib.sha256(_released().read_bytes()).hexdigest() == digest
    assert f"quay.io/argoproj/argocd:v{version}" in _released().read_text()


@pytest.mark.slow
def test_it_has_what_the_manifests_rely_upon(installed: list[Document]) -> None:
    """Controllers, kinds, excluded objects; health of Rollouts and ApplicationSets is in the release itself."""
    controllers = _names(installed, "Deployment") | _names(installed, "StatefulSet")
    assert {
        f"argocd-{name}-controller" for name in ("application", "applicationset", "notifications")
    } <= controllers
    group = "argoproj.io"
    defined = {
        each["spec"]["names"]["kind"] for each in installed if each["kind"] == "CustomResourceDefinition"
    }
    used = {each["kind"] for each in rendered.documents("argocd") if each["apiVersion"].startswith(group)}
    assert used <= defined
    settings = next(each for each in installed if each["metadata"]["name"] == "argocd-cm")["data"]
    assert "EndpointSlice" in settings["resource.exclusions"]
    # Ours fills it later, as another field manager, so it must come empty.
    notifications = next(each for each in installed if each["metadata"]["name"] == "argocd-notifications-cm")
    assert not notifications.get("data")
    customizations = _released().parents[1] / "resource_customizations"
    for name in (f"{group}/Rollout", f"{group}/ApplicationSet"):
        assert (customizations / name / "health.lua").is_file()


@pytest.mark.slow
def test_everything_is_in_the_namespace_that_the_root_names(installed: list[Document]) -> None:
    assert installed[0]["kind"] == "Namespace"
    root = next(each for each in rendered.documents("argocd") if each["metadata"]["name"] == "espalier-root")
    namespace = root["metadata"]["namespace"]
    assert installed[0]["metadata"]["name"] == namespace
    cluster = ("Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    for each in installed:
        if each["kind"] not in cluster:
            assert each["metadata"]["namespace"] == namespace
        if each["kind"] == "ClusterRoleBinding":
            assert {subject["namespace"] for subject in each["subjects"]} == {namespace}


@pytest.mark.slow
def test_its_pods_are_restricted_as_the_namespace_demands(installed: list[Document]) -> None:
    assert installed[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    workloads = [each for each in installed if each["kind"] in ("Deployment", "StatefulSet")]
    assert len(workloads) == 7
    for each in workloads:
        pod = each["spec"]["template"]["spec"]
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert context["runAsNonRoot"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_two_commands_are_all_that_a_person_types() -> None:
    documented = (render.FOLDER.parent / "docs/setup.md").read_text()
    for command in ("apply --server-side -k deploy/argocd/bootstrap", "apply -f deploy/argocd/root.yaml"):
        assert f"kubectl {command}" in documented


def test_one_name_of_a_cluster_and_one_namespace_are_stated() -> None:
    """Other values in root.yaml reach everything; no manifest has an address, which managed Argo CD would refuse."""
    with render.copied() as root:
        shutil.copytree(render.ARGOCD, root / "argocd")
        file = root / "argocd/root.yaml"
        text = file.read_text()
        assert "https://kubernetes.default.svc" not in (render.render(root / "argocd"))
        text = re.sub("(namespace|sourceNamespaces): (\\[?)argocd", r"\1: \2gitops", text)
        file.write_text(re.sub("name: in-cluster", "name: hub", text))
        documents = render.parse(render.render(root / "argocd"))
    assert {each["metadata"]["namespace"] for each in documents} == {"gitops"}
    projects = [each["spec"] for each in documents if each["kind"] == "AppProject"]
    assert all(each["sourceNamespaces"] == ["gitops"] for each in projects)
    assert {each["name"] for project in projects for each in project["destinations"]} == {"hub", "*"}
