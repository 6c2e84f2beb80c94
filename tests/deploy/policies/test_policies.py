"""The policies of deploy/terraform in use: each call of a job or a pod is made, and calls that must fail are tried.

Terraform renders the documents. Real clients speak to a real S3 server and a real registry through gates that ask them.
deploy/terraform/README.md lists the calls, and this compares the list with what ran.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from deploy.registry import Reference, Registry
from deploy.rehearsal import containers
from tests.app.conftest import number_model  # noqa: F401
from tests.app.processes import PATIENCE, running
from tests.buckets import bucket
from tests.bundles import number_row
from tests.deploy import registries
from tests.deploy.policies import gate
from tests.deploy.policies.gate import Policies
from tests.deploy.policies.iam import PolicyError, Request, refusal
from tests.deploy.project import ROOT
from tests.deploy.terraform import Program
from tests.deploy.test_terraform import terraform  # noqa: F401
from tests.tools import dvc, require
from training.remote import command
from training.remote.objects import RemoteError

pytestmark = pytest.mark.long(
    "app/predictionlog.py",
    "deploy/registry.py",
    "deploy/terraform",
    "tests/deploy/policies",
    "training/remote",
    "uv.lock",
)

PAGE = ROOT / "deploy/terraform/README.md"
ISSUER = "token.actions.githubusercontent.com"
REPOSITORY = "espalier-ml/espalier"
NUMBERED = "espalier-ml@1234567/espalier@7654321"
RENDERED = {
    False: ("test_plan", "first_region", ("output_changes", "policies", "after")),
    True: ("test_state", "everything", ("outputs", "policies", "value")),
}
"""By whether there is a key: which run of Terraform's own tests renders the documents, and where they are in its report."""


@dataclass
class Ledger:
    """What ran, by caller and call."""

    allowed: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Installation:
    policies: Policies
    s3: str
    plain: str
    """The same without TLS."""
    registry: str
    certificate: Path
    ledger: Ledger
    owner: Any
    """A client of the S3 server itself."""

    def client(self, role: str, *, plain: bool = False) -> Any:
        return client(self.plain if plain else self.s3, role.replace("/", "."), self.certificate)

    def seen(self, role: str) -> set[str]:
        """The operations of a role so far, all of which were allowed."""
        calls = [call for call in self.policies.calls if call.role == role]
        assert [call for call in calls if call.refusal] == []
        return {call.operation for call in calls}

    def allow(self, role: str, call: str) -> None:
        self.ledger.allowed.add((role, call))
        self.policies.calls.clear()

    def refuse(self, role: str, call: str, attempt: Callable[[], object]) -> None:
        """Try a call that must end with a refusal of the policies."""
        self.policies.calls.clear()
        with pytest.raises((ClientError, httpx.HTTPStatusError, RemoteError)) as caught:
            attempt()
        assert [each for each in self.policies.calls if each.refusal], f"{role}, {call}: {caught.value}"
        self.ledger.refused.add((role, call))

    def refuse_trust(
        self, role: str, call: str, action: str, principal: tuple[str, str], context: Mapping[str, str]
    ) -> None:
        assert self.policies.trusts(role, action, principal, context), call
        self.ledger.refused.add((role, call))


def client(address: str, key: str, certificate: Path | None = None) -> Any:
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=address,
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key="x",
        verify=str(certificate) if certificate else None,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def documents(terraform: Program) -> dict[bool, Any]:  # noqa: F811
    done = terraform(
        "aws",
        "test",
        "-json",
        "-verbose",
        "-filter=tests/installation.tftest.hcl",
        "-filter=tests/applied.tftest.hcl",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    found = {}
    for kms, (kind, run, place) in RENDERED.items():
        (line,) = (
            line
            for line in done.stdout.splitlines()
            if f'"type":"{kind}"' in line and f'"@testrun":"{run}"' in line
        )
        found[kms] = reduce(getitem, place, json.loads(line)[kind])
    return found


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture(scope="module", params=[False, True], ids=["S3's key", "own key"])
def installation(
    request: pytest.FixtureRequest,
    documents: dict[bool, Any],
    ledger: Ledger,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    policies, folder = Policies(documents[request.param]), tmp_path_factory.mktemp("installation")

    def run(program: str, *arguments: str) -> None:
        subprocess.run([require(program), *arguments], capture_output=True, check=True)

    assert (policies.key is not None) is request.param
    context, certificate = gate.tls(folder, run)
    with ExitStack() as stack:
        server = stack.enter_context(bucket(folder / "s3"))["AWS_ENDPOINT"]
        owner = client(server, "owner")
        for kind in ("dvc", "predictions"):
            owner.create_bucket(Bucket=policies.bucket(kind))
            owner.put_bucket_versioning(
                Bucket=policies.bucket(kind), VersioningConfiguration={"Status": "Enabled"}
            )
        images = stack.enter_context(registries.serve(folder / "registry"))
        yield Installation(
            policies,
            stack.enter_context(gate.s3(policies, server, context)),
            stack.enter_context(gate.s3(policies, server, None)),
            stack.enter_context(gate.registry(policies, f"http://{images.host}")),
            certificate,
            ledger,
            owner,
        )


@pytest.fixture
def clone(installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline with outputs of all kinds, and the bucket as its committed remote."""
    folder = tmp_path / "clone"
    folder.mkdir()
    dvc(folder, "init", "--quiet", "--no-scm")
    (folder / "dvc.yaml").write_text(
        "stages: {a: {cmd: mkdir -p data model && truncate -s 110MB data/large && echo x > model/x && "
        "echo y > model/y, outs: [data/large, model]}}"
    )
    dvc(folder, "repro", "--quiet")
    for name, value in (
        ("url", f"s3://{installation.policies.bucket('dvc')}/dvc"),
        ("endpointurl", installation.s3),
        ("region", "eu-central-1"),
        ("ssl_verify", str(installation.certificate)),
        ("verify", "true"),
    ):
        dvc(folder, "config", "--quiet", f"remote.storage.{name}", value)
    dvc(folder, "config", "--quiet", "core.remote", "storage")
    monkeypatch.chdir(folder)
    return folder


def remote(monkeypatch: pytest.MonkeyPatch, role: str, *arguments: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", role)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr(sys, "argv", ["remote", *arguments])
    command.main()


def lose() -> None:
    for name in (".dvc/cache", ".dvc/tmp", "data", "model"):
        shutil.rmtree(name, ignore_errors=True)


def test_dvc(installation: Installation, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote(monkeypatch, "data", "push")
    assert {
        "ListObjectsV2",
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
    } <= installation.seen("data")
    installation.allow("data", "`make push` of small files and of one that is uploaded in parts")

    from training.remote.objects import Objects

    objects = Objects()
    (large,) = objects.outputs(["data/large"])
    objects.add(large, Path("data/large"))
    assert "AbortMultipartUpload" in installation.seen("data")
    installation.allow(
        "data", "`make push` of what another job pushed at the same time, whose upload is aborted"
    )

    lose()
    remote(monkeypatch, "data", "pull")
    assert Path("data/large").stat().st_size == 110_000_000
    assert "GetObject" in installation.seen("data")
    installation.allow("data", "`make pull`")
    lose()
    remote(monkeypatch, "data-read", "pull", "model")
    assert Path("model/x").read_text() == "x\n"
    assert "GetObject" in installation.seen("data-read")
    installation.allow("data-read", "the bundle of a release")

    (folder,) = objects.outputs(["model"])
    key = f"dvc/files/md5/{folder.md5[:2]}/{folder.md5[2:]}"
    installation.owner.put_object(Bucket=installation.policies.bucket("dvc"), Key=key, Body=b"[]")
    dvc(clone, "repro", "--quiet")
    with pytest.raises(RemoteError, match=r"run this with the right to delete objects \(s3:DeleteObject\)"):
        remote(monkeypatch, "data", "repair")
    installation.refuse(
        "data", "`python -m training.remote repair`", lambda: remote(monkeypatch, "data", "repair")
    )
    for role, call in (("data-read", "`make push`"), ("release", "`make pull`")):
        name = call.strip("`").removeprefix("make ")
        lose()
        if name == "push":
            dvc(clone, "repro", "--quiet")
            Path("dvc.lock").write_text(Path("dvc.lock").read_text())
            (clone / "dvc.yaml").write_text((clone / "dvc.yaml").read_text().replace("echo y", "echo z"))
            dvc(clone, "repro", "--quiet")
        installation.refuse(role, call, partial(remote, monkeypatch, role, name))


def test_a_source_in_a_bucket(installation: Installation) -> None:
    if installation.policies.key is None:
        return  # only the other installation has a source in a bucket
    installation.owner.create_bucket(Bucket="warehouse")
    for name in ("churn", "salaries"):
        installation.owner.put_object(Bucket="warehouse", Key=f"exports/{name}.parquet", Body=b"x")
    data = installation.client("data")
    assert data.get_object(Bucket="warehouse", Key="exports/churn.parquet")["Body"].read() == b"x"
    installation.allow("data", "a source that `data_sources` names")
    installation.refuse(
        "data",
        "another object of that bucket",
        lambda: data.get_object(Bucket="warehouse", Key="exports/salaries.parquet"),
    )


def test_calls_of_s3_that_no_job_makes(installation: Installation) -> None:
    policies, owner = installation.policies, installation.owner
    dvc_, log = policies.bucket("dvc"), policies.bucket("predictions")
    key, other = "dvc/files/md5/00/1", "staging/other/1.jsonl"
    version = owner.put_object(Bucket=dvc_, Key=key, Body=b"first")["VersionId"]
    owner.put_object(Bucket=dvc_, Key="elsewhere", Body=b"x")
    for name in (other, "staging/iris/1.jsonl"):
        owner.put_object(Bucket=log, Key=name, Body=b"first")
    data, read = installation.client("data"), installation.client("data-read")
    upload = data.create_multipart_upload(Bucket=dvc_, Key=key)["UploadId"]
    part = data.upload_part(Bucket=dvc_, Key=key, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}
    once = {"IfNoneMatch": "*"}
    foreign = f"arn:aws:kms:eu-central-1:{policies.account}:key/other"
    encryption = {"ServerSideEncryption": "aws:kms" if policies.key is None else "AES256"}
    calls: dict[str, Callable[[], object]] = {
        "overwrite an object": lambda: data.put_object(Bucket=dvc_, Key=key, Body=b"x"),
        "overwrite an object in parts": lambda: data.complete_multipart_upload(
            Bucket=dvc_, Key=key, UploadId=upload, MultipartUpload=parts
        ),
        "copy over an object": lambda: data.copy_object(
            Bucket=dvc_, Key=key, CopySource={"Bucket": dvc_, "Key": "dvc/x"}
        ),
        "delete an object": lambda: data.delete_object(Bucket=dvc_, Key=key),
        "delete several objects": lambda: data.delete_objects(
            Bucket=dvc_, Delete={"Objects": [{"Key": key}]}
        ),
        "delete a version": lambda: data.delete_object(Bucket=dvc_, Key=key, VersionId=version),
        "read an old version": lambda: data.get_object(Bucket=dvc_, Key=key, VersionId=version),
        "read outside of `dvc/`": lambda: data.get_object(Bucket=dvc_, Key="elsewhere"),
        "write outside of `dvc/`": lambda: data.put_object(Bucket=dvc_, Key="dvc-2/x", Body=b"x", **once),
        "list the whole bucket": lambda: data.list_objects_v2(Bucket=dvc_),
        "list another prefix": lambda: data.list_objects_v2(Bucket=dvc_, Prefix="dvc-2/"),
        "read the prediction log": lambda: data.get_object(Bucket=log, Key=other),
        "change the bucket's policy": lambda: data.put_bucket_policy(Bucket=dvc_, Policy="{}"),
        "read over plain HTTP": lambda: installation.client("data", plain=True).get_object(
            Bucket=dvc_, Key=key
        ),
        "write with another encryption": lambda: data.put_object(
            Bucket=dvc_, Key="dvc/new", Body=b"x", **once, **encryption
        ),
        "write with a foreign key": lambda: data.put_object(
            Bucket=dvc_,
            Key="dvc/new",
            Body=b"x",
            **once,
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId=foreign,
        ),
    }
    for call, attempt in calls.items():
        installation.refuse("data", call, attempt)
    assert owner.get_object(Bucket=dvc_, Key=key)["Body"].read() == b"first"
    with pytest.raises(ClientError, match="PreconditionFailed"):
        data.put_object(Bucket=dvc_, Key=key, Body=b"x", **once)
    installation.ledger.refused.add(
        ("data", "write an object that exists, with the condition: S3 refuses it")
    )
    installation.refuse(
        "data-read", "add an object", lambda: read.put_object(Bucket=dvc_, Key="dvc/new", Body=b"x", **once)
    )
    server = installation.client("staging/iris")
    for call, attempt in {
        "write predictions of another model": lambda: server.put_object(
            Bucket=log, Key="staging/other/2.jsonl", Body=b"x", **once
        ),
        "write predictions of production": lambda: server.put_object(
            Bucket=log, Key="production/iris/2.jsonl", Body=b"x", **once
        ),
        "overwrite predictions": lambda: server.put_object(Bucket=log, Key="staging/iris/1.jsonl", Body=b"x"),
        "read its own predictions": lambda: server.get_object(Bucket=log, Key="staging/iris/1.jsonl"),
        "add an object of DVC": lambda: server.put_object(Bucket=dvc_, Key="dvc/new", Body=b"x", **once),
    }.items():
        installation.refuse("staging/iris", call, attempt)
    stranger = installation.client("stranger")
    installation.refuse("(anonymous)", "read an object", lambda: stranger.get_object(Bucket=dvc_, Key=key))


def test_the_prediction_log(
    installation: Installation,
    number_model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first answer is lost, so it tries again and finds the file."""
    policies, lost = installation.policies, []

    def lose_first(call: gate.Call) -> bool:
        lost.append(call)
        return len(lost) == 1

    with ExitStack() as stack:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(installation.certificate, installation.certificate.with_name("key.pem"))
        address = installation.owner.meta.endpoint_url
        through = stack.enter_context(gate.s3(policies, address, context, lose_first))
        for name, value in {
            "AWS_ENDPOINT": through,
            "AWS_ACCESS_KEY_ID": "staging.iris",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "eu-central-1",
            "SSL_CERT_FILE": str(installation.certificate),
        }.items():
            monkeypatch.setenv(name, value)
        target = f"s3://{policies.bucket('predictions')}/staging/iris"
        service = stack.enter_context(
            running(number_model, prediction_log=target, prediction_log_rows_per_file=1)
        )
        row = number_row((5.1, 3.5, 1.4, 0.2)).values
        answer = httpx.post(f"{service.url}/predict", json=row)
        assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + PATIENCE
        while len(lost) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        said = service.process.communicate(timeout=PATIENCE)[1]
    assert "failed" not in said
    assert [(call.operation, call.refusal) for call in lost] == [("PutObject", "")] * 2
    listed = installation.owner.list_objects_v2(
        Bucket=policies.bucket("predictions"), Prefix="staging/iris/date="
    )
    assert listed["KeyCount"] == 1
    installation.allow(
        "staging/iris", "a file of the prediction log, and a second attempt after a lost answer"
    )


def test_the_registry(installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies, host = installation.policies, installation.registry
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))

    def log_in(role: str) -> None:
        login = base64.b64encode(f"AWS:{role}".encode()).decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))

    log_in("release")
    with containers.storage(tmp_path / "containers") as environment:

        def buildah(*arguments: str) -> str:
            done = subprocess.run(
                [require("buildah"), *arguments],
                env={**os.environ, **environment, "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")},
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout.strip()

        container = buildah("from", "scratch")
        (tmp_path / "file").write_text("x")
        buildah("copy", container, str(tmp_path / "file"))
        image = buildah("commit", container, "small")
        for name in ("espalier", "espalier-signatures"):
            file = tmp_path / "digest"
            buildah("push", "--tls-verify=false", f"--digestfile={file}", image, f"{host}/{name}:iris-1")
    digest = file.read_text()
    with Registry() as known:
        assert known.digest_of(host, "espalier", "iris-1") == digest
        known.inspect(Reference.parse(f"{host}/espalier@{digest}"))
    assert installation.seen("release") == {
        "BatchCheckLayerAvailability",
        "BatchGetImage",
        "CompleteLayerUpload",
        "GetDownloadUrlForLayer",
        "InitiateLayerUpload",
        "PutImage",
        "UploadLayerPart",
    }
    installation.allow("release", "pushes an image and a signature, asks for a tag, reads labels")
    policies_of = policies.documents["roles"]["release"]["policy"]
    assert not refusal(Request("ecr:GetAuthorizationToken", "*", {}), [policies_of])
    installation.allow("release", "logs in to the registry")

    def ask(role: str, method: str, place: str) -> None:
        with httpx.Client(auth=("AWS", role)) as asking:
            asking.request(method, f"http://{host}/v2/{place}").raise_for_status()

    for role, call, method, place in (
        ("release", "push to another repository", "POST", "other/blobs/uploads/"),
        ("release", "read another repository", "GET", "other/manifests/1"),
        ("release", "delete an image", "DELETE", f"espalier/manifests/{digest}"),
        ("data", "read an image", "GET", f"espalier/manifests/{digest}"),
        ("data-read", "push an image", "POST", "espalier/blobs/uploads/"),
    ):
        installation.refuse(role, call, partial(ask, role, method, place))
    arn = f"arn:aws:ecr:eu-central-1:{policies.account}:repository/espalier"
    everything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}],
    }
    for call, action in (
        ("delete an image", "ecr:BatchDeleteImage"),
        ("let tags move", "ecr:PutImageTagMutability"),
        ("add a lifecycle policy", "ecr:PutLifecyclePolicy"),
        ("delete the repository", "ecr:DeleteRepository"),
    ):
        reason = refusal(Request(action, arn, {}), [everything], [policies.documents["repositories"]])
        assert reason == "NothingIsRemoved denies it"
        installation.ledger.refused.add(("(administrator)", call))


def test_who_can_assume_a_role(installation: Installation) -> None:
    policies, provider = (
        installation.policies,
        ("Federated", f"arn:aws:iam::111122223333:oidc-provider/{ISSUER}"),
    )
    web, audience = "sts:AssumeRoleWithWebIdentity", "sts.amazonaws.com"

    def token(subject: str, of: str = REPOSITORY, to: str = audience) -> dict[str, str]:
        return {f"{ISSUER}:sub": f"repo:{of}:{subject}", f"{ISSUER}:aud": to}

    for role, subject in (
        ("release", "environment:release"),
        ("data", "environment:pipeline"),
        ("data-read", "ref:refs/heads/main"),
        ("data-read", "pull_request"),
        ("data-read", "environment:release"),
    ):
        for of in (REPOSITORY, NUMBERED):
            assert not policies.trusts(role, web, provider, token(subject, of))
        installation.allow(role, f"assumed with the subject `{subject}`, in both forms")
    for role, call, claims in (
        (
            "release",
            "a foreign repository's `environment:release`",
            token("environment:release", "mallory/espalier"),
        ),
        ("release", "a repository whose name begins alike", token("environment:release", f"{REPOSITORY}-2")),
        (
            "release",
            "the numbers of another repository",
            token("environment:release", NUMBERED.replace("7654321", "1")),
        ),
        ("release", "`pull_request`", token("pull_request")),
        ("release", "another environment", token("environment:pipeline")),
        ("release", "another audience", token("environment:release", to="https://github.com/espalier-ml")),
        (
            "release",
            "a token without an audience",
            {f"{ISSUER}:sub": f"repo:{REPOSITORY}:environment:release"},
        ),
        ("data", "`ref:refs/heads/main`", token("ref:refs/heads/main")),
        ("data", "`pull_request`", token("pull_request")),
        ("data-read", "another branch", token("ref:refs/heads/feature")),
        ("data-read", "the merge queue", token("ref:refs/heads/gh-readonly-queue/main/pr-1-0")),
    ):
        installation.refuse_trust(role, f"assumed with {call}", web, provider, claims)
    installation.refuse_trust(
        "release",
        "assumed with another identity provider",
        web,
        ("Federated", "arn:aws:iam::111122223333:oidc-provider/gitlab.com"),
        token("environment:release"),
    )
    pods = ("Service", "pods.eks.amazonaws.com")
    cluster = "arn:aws:eks:eu-central-1:111122223333:cluster/espalier-eu-central-1"
    right = {
        "eks-cluster-arn": cluster,
        "kubernetes-namespace": "espalier-staging",
        "kubernetes-service-account": "iris-server",
    }

    def tags(**changed: str) -> dict[str, str]:
        return {f"aws:RequestTag/{key}": value for key, value in {**right, **changed}.items()}

    for action in ("sts:AssumeRole", "sts:TagSession"):
        assert not policies.trusts("staging/iris", action, pods, tags())
    installation.allow("staging/iris", "assumed by its pod")
    for call, changed in (
        ("a pod of another namespace", {"kubernetes-namespace": "espalier-production"}),
        ("a pod of another cluster", {"eks-cluster-arn": f"{cluster}-2"}),
        ("another service account", {"kubernetes-service-account": "wine-server"}),
    ):
        installation.refuse_trust(
            "staging/iris", f"assumed by {call}", "sts:AssumeRole", pods, tags(**changed)
        )
    installation.refuse_trust(
        "staging/iris", "assumed by a node", "sts:AssumeRole", ("Service", "ec2.amazonaws.com"), {}
    )


def test_the_page_lists_every_call(ledger: Ledger) -> None:
    """Runs last, after both installations."""
    rows = re.findall(r"^\| (allowed|refused) \| `?(.+?)`? \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    ran = {("allowed", *each) for each in ledger.allowed} | {("refused", *each) for each in ledger.refused}
    assert set(rows) == ran, "\n".join(f"| {kind} | `{role}` | {call} |" for kind, role, call in sorted(ran))
    assert len(ledger.refused) >= 20


class TestEvaluator:
    """What it does not know fails a test instead of passing for a condition that never holds."""

    @pytest.mark.parametrize(
        "change",
        [
            {"NotAction": "s3:*"},
            {"Action": "s3:GetObjekt"},
            {"Condition": {"StringEqual": {"aws:SecureTransport": "true"}}},
            {"Condition": {"Bool": {"aws:SecureTransprt": "true"}}},
            {"Condition": {"StringEqualsIfExists": {"s3:prefix": "x"}}},
            {"Effect": "allow"},
            {"Principal": "*"},
        ],
    )
    def test_the_unknown_fails(self, change: dict[str, Any]) -> None:
        statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", **change}
        with pytest.raises(PolicyError):
            refusal(
                Request("s3:GetObject", "arn:aws:s3:::b/k", {}),
                [{"Version": "2012-10-17", "Statement": [statement]}],
            )

    def test_a_denial_comes_before_a_right(self) -> None:
        allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}
        deny = {
            "Sid": "No",
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": "*",
            "Condition": {"Null": {"s3:if-none-match": "true"}},
        }
        documents = [{"Version": "2012-10-17", "Statement": [allow, deny]}]
        target = "arn:aws:s3:::b/k"
        assert refusal(Request("s3:PutObject", target, {}), documents) == "No denies it"
        assert refusal(Request("s3:PutObject", target, {"s3:if-none-match": "*"}), documents) == ""
        assert refusal(Request("s3:GetObject", "arn:aws:s3:::c/k", {}), documents) == "nothing allows it"
