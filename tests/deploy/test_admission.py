"""Which images environments admit, decided by the policy's own engine with a registry and a Sigstore of our own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from deploy.manifests import render
from tests.deploy import registries
from tests.deploy.registries import Server
from tests.deploy.sigstore import ISSUER, Sigstore
from tests.tools import require_built, require_package

Document = dict[str, Any]
POLICY: Document = yaml.safe_load((render.FOLDER / "admission/policy.yaml").read_text())
COSIGN = POLICY["spec"]["attestors"][0]["cosign"]
SUBJECT: str = COSIGN["keyless"]["identities"][0]["subject"]
REFUSED = "the image is not signed by the workflow release on main"


@dataclass(frozen=True)
class Case:
    name: str
    admitted: bool
    namespace: str = "espalier-staging"
    subject: str = SUBJECT
    issuer: str = ISSUER
    signed: bool = True
    image: str = "espalier"
    signatures: str = "espalier-signatures"
    certified: bool = True
    recorded: bool = True
    by: str = "digest"
    beside: str | None = None
    """Another container of the pod, with an image that nobody signed."""


def _other(old: str, new: str) -> str:
    assert old in SUBJECT
    return SUBJECT.replace(old, new)


CASES = (
    Case("signed", admitted=True),
    Case("in-another-environment", admitted=True, namespace="espalier-production-us"),
    Case("unsigned-elsewhere", admitted=True, namespace="monitoring", signed=False),
    Case("unsigned", admitted=False, signed=False),
    Case("in-production", admitted=False, namespace="espalier-production", signed=False),
    Case("another-branch", admitted=False, subject=_other("refs/heads/main", "refs/heads/fix")),
    Case("a-longer-branch", admitted=False, subject=f"{SUBJECT}-2"),
    Case("a-pull-request", admitted=False, subject=_other("refs/heads/main", "refs/pull/7/merge")),
    Case("a-tag", admitted=False, subject=_other("refs/heads/main", "refs/tags/main")),
    Case("another-workflow", admitted=False, subject=_other("release.yml", "ci.yml")),
    Case("a-fork", admitted=False, subject=_other("espalier-ml/", "somebody/")),
    Case("another-host", admitted=False, subject=_other("github.com", "github.com.example.com")),
    Case("another-issuer", admitted=False, issuer="https://gitlab.com"),
    Case("certificate-not-recorded", admitted=False, certified=False),
    Case("signature-not-recorded", admitted=False, recorded=False),
    Case("signature-beside-the-image", admitted=False, signatures="espalier"),
    Case("another-image", admitted=False, image="busybox", signed=False),
    Case("a-tag-for-an-image", admitted=False, by="tag"),
    Case("unsigned-second-container", admitted=False, beside="containers"),
    Case("unsigned-init-container", admitted=False, beside="initContainers"),
    Case("unsigned-ephemeral-container", admitted=False, beside="ephemeralContainers"),
)


def _pod(case: Case, registry: Server, sigstore: Sigstore, unsigned: str) -> Document:
    digest = registry.push({"case": case.name}, case.image, "latest" if case.by == "tag" else None)
    if case.by == "tag":
        # Of the tag's own manifest, which the registry also has by its digest.
        digest = registry.push({"case": case.name}, case.image)
    if case.signed:
        sigstore.sign(
            registry,
            digest,
            case.subject,
            case.issuer,
            case.image,
            case.signatures,
            certified=case.certified,
            recorded=case.recorded,
        )
    reference = ":latest" if case.by == "tag" else f"@{digest}"
    spec = {"containers": [{"name": "served", "image": f"{registry.host}/{case.image}{reference}"}]}
    if case.beside:
        spec.setdefault(case.beside, []).append({"name": "beside", "image": unsigned})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": case.name, "namespace": case.namespace},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Result and message by the name of a pod; the engine says nothing of pods that it is not asked about."""
    kyverno, folder = require_built("kyverno", ".ci/build builds it"), tmp_path_factory.mktemp("admission")
    require_package("cryptography")
    (folder / "registry").mkdir()
    sigstore = Sigstore()
    with registries.serve(folder / "registry") as registry, sigstore.published(folder / "tuf") as tuf:
        unsigned = f"{registry.host}/espalier@{registry.push({'case': 'beside'})}"
        pods = [_pod(each, registry, sigstore, unsigned) for each in CASES]
        policy = yaml.safe_load(yaml.safe_dump(POLICY))
        cosign = policy["spec"]["attestors"][0]["cosign"]
        # What differs from the cluster: whose keys are trusted, and where the registry is.
        cosign |= {"tuf": tuf, "source": {"repository": f"{registry.host}/espalier-signatures"}}
        policy["spec"]["credentials"] = {"allowInsecureRegistry": True}
        (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
        (folder / "pods.yaml").write_text(yaml.safe_dump_all(pods))
        options = ["--registry", "--policy-report", "--output-format", "json"]
        done = subprocess.run(
            [
                kyverno,
                "apply",
                str(folder / "policy.yaml"),
                "--resource",
                str(folder / "pods.yaml"),
                *options,
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(folder / "home")},
            check=False,
        )
    assert done.returncode == 1, done.stderr
    results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
    return {each["resources"][0]["name"]: (each["result"], each["message"]) for each in results}


@pytest.mark.long("deploy/admission", "tests/deploy/test_admission.py", "tests/deploy/sigstore.py")
@pytest.mark.parametrize("case", CASES, ids=[each.name for each in CASES])
def test_only_images_of_the_release_are_admitted(case: Case, verdicts: dict[str, tuple[str, str]]) -> None:
    result, message = verdicts.get(case.name, ("skip", ""))
    if case.admitted:
        assert result == ("pass" if case.signed else "skip"), message
        return
    assert result == "fail"
    if case.by == "digest":
        assert "is not signed by the workflow release on main" in message


def test_the_identity_is_that_of_the_workflow_that_signs() -> None:
    """Exactly one, without patterns; the workflow has this name and runs on main."""
    (identity,) = COSIGN["keyless"]["identities"]
    assert identity.keys() == {"issuer", "subject"}
    assert identity["issuer"] == ISSUER
    repository, path, branch = re.fullmatch(
        r"(https://github\.com/[\w-]+/[\w-]+)/(\.github/workflows/[\w-]+\.yml)@refs/heads/(\w+)", SUBJECT
    ).groups()  # type: ignore[union-attr]
    root = next(
        each
        for each in yaml.safe_load_all((render.ARGOCD / "root.yaml").read_text())
        if each["kind"] == "Application"
    )
    assert repository == root["spec"]["source"]["repoURL"]
    assert branch == root["spec"]["source"]["targetRevision"]
    text = (render.FOLDER.parent / path).read_text()
    assert "cosign sign" in text
    assert f"branches: [{branch}]" in text


def test_nothing_is_admitted_unseen() -> None:
    """Neither a pod that cannot be judged, nor one that is changed later, nor an image that no glob names."""
    specification = POLICY["spec"]
    assert specification["failurePolicy"] == "Fail"
    assert specification["validationActions"] == ["Deny"]
    (rule,) = specification["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["CREATE", "UPDATE"]
    assert {"pods", "pods/ephemeralcontainers"} == set(rule["resources"])
    assert specification["matchImageReferences"] == [{"glob": "*"}]
    assert specification["validationConfigurations"] == {
        "mutateDigest": False,
        "verifyDigest": True,
        "required": True,
    }
    assert not {"ctlog", "trustedRoot", "tuf"} & COSIGN.keys(), "Sigstore's public logs and keys are asked"
