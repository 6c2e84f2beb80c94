"""What Terraform made is put into deploy/: in a copy, again, and from outputs that cannot be meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config

from deploy.adopt import __main__ as adopt
from deploy.adopt import names
from tests.deploy.conftest import Call
from tests.deploy.project import ROOT

FILES = (
    ".dvc/config",
    "deploy/admission",
    "deploy/argocd/root.yaml",
    "deploy/argocd/notifications.yaml",
    "deploy/clusters.yaml",
    "deploy/components",
    "deploy/overlays",
    "deploy/terraform/aws/terraform.tfvars.example",
)
OUTPUTS = {
    "account_id": "123456789012",
    "region": "us-east-2",
    "compute": "node_groups",
    "load_balancer_cidr": "10.7.0.0/20",
    "cluster_name": "espalier-us-east-2",
    "vpc_id": "vpc-0123456789abcdef0",
    "predictions": {
        "production/iris": "s3://predictions/production/iris",
        "staging/iris": "s3://predictions/staging/iris",
    },
    "github_variables": {},
    "dvc_remote": "s3://objects/dvc",
    "vpc_cidr": "10.7.0.0/16",
}
LOG = """  - target: {kind: Rollout}
    patch: |-
      - {op: test, path: /spec/template/spec/containers/0/env/4/name, value: ESPALIER_PREDICTION_LOG}
      - {op: replace, path: /spec/template/spec/containers/0/env/4/value, value: "s3://YOUR-BUCKET/iris"}
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in FILES:
        for path in [ROOT / name, *(ROOT / name).rglob("*")]:
            if path.is_file():
                target = tmp_path / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    with (tmp_path / "deploy/overlays/production/iris/kustomization.yaml").open("a") as overlay:
        overlay.write(LOG)
    (tmp_path / "deploy/clusters.yaml").write_text(
        "# Both.\n- cluster: in-cluster\n  region: eu-central-1\n  platform: eks-auto\n  eks: YOUR-CLUSTER\n  vpc: YOUR-VPC\n"
        "- cluster: other\n  region: europe-west1\n  platform: gke\n"
    )
    (tmp_path / "outputs.json").write_text(_printed(OUTPUTS))
    registry = f"{names.current(tmp_path).account_id}.dkr.ecr.{names.current(tmp_path).region}.amazonaws.com"
    (tmp_path / "deploy/components/copies.yaml").write_text(f"newName: {registry}/ecr-public/python\n")
    return tmp_path


def _printed(outputs: dict[str, Any]) -> str:
    return json.dumps({name: {"sensitive": False, "value": value} for name, value in outputs.items()})


def test_each_value_goes_to_its_place(call: Call, copy: Path) -> None:
    staging = (copy / "deploy/overlays/staging/iris/kustomization.yaml").read_text()
    done = call(adopt.main, copy, "terraform", "--outputs", "outputs.json")
    assert done.returncode == 0, done.stderr
    now = names.current(copy)
    assert (now.account_id, now.region, now.load_balancer_cidr) == (
        "123456789012",
        "us-east-2",
        "10.7.0.0/20",
    )
    overlay = (copy / "deploy/overlays/production/iris/kustomization.yaml").read_text()
    assert 'value: "s3://predictions/production/iris"}' in overlay
    assert (copy / "deploy/overlays/staging/iris/kustomization.yaml").read_text() == staging
    copies = (copy / "deploy/components/copies.yaml").read_text()
    assert copies == "newName: 123456789012.dkr.ecr.us-east-2.amazonaws.com/ecr-public/python\n"
    clusters = (copy / "deploy/clusters.yaml").read_text()
    assert clusters.splitlines()[2:] == [
        "  region: us-east-2",
        "  platform: eks",
        "  eks: espalier-us-east-2",
        "  vpc: vpc-0123456789abcdef0",
        "- cluster: other",
        "  region: europe-west1",
        "  platform: gke",
    ]
    remote = Config(dvc_dir=str(copy / ".dvc"), local_dvc_dir=str(copy / ".dvc"))
    assert remote["core"]["remote"] == "storage"
    expected = {"url": "s3://objects/dvc", "region": "us-east-2", "verify": True}
    assert remote["remote"]["storage"].items() >= expected.items()
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    again = call(adopt.main, copy, "terraform", "--outputs", "outputs.json")
    assert (again.returncode, again.stdout) == (0, "nothing to change\n")
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_signatures_are_looked_for_where_the_workflow_keeps_them(call: Call, copy: Path) -> None:
    """The repository's name is a variable of Terraform. Elsewhere than in the first region it stays."""
    policy = copy / "deploy/admission/policy.yaml"
    assert call(adopt.main, copy, "terraform", "--outputs", "outputs.json").returncode == 0
    assert (
        "repository: 123456789012.dkr.ecr.us-east-2.amazonaws.com/espalier-signatures\n" in policy.read_text()
    )
    kept = "123456789012.dkr.ecr.us-east-2.amazonaws.com/flowers-signatures"
    outputs = {**OUTPUTS, "github_variables": {"COSIGN_REPOSITORY": kept}}
    (copy / "outputs.json").write_text(_printed(outputs))
    done = call(adopt.main, copy, "terraform", "--outputs", "outputs.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert policy.read_text().count(f"repository: {kept}\n") == 1


def test_a_further_region_changes_its_own_cluster_alone(call: Call, copy: Path) -> None:
    assert call(adopt.main, copy, "terraform", "--outputs", "outputs.json").returncode == 0
    before = {path: path.read_text() for path in copy.rglob("*") if path.is_file()}
    further: dict[str, Any] = {
        **OUTPUTS,
        "region": "us-west-2",
        "cluster_name": "espalier-us-west-2",
        "predictions": {},
    }
    further |= {"compute": "auto", "load_balancer_cidr": "10.9.0.0/20"}
    further |= {"github_variables": None, "dvc_remote": None}
    (copy / "further.json").write_text(_printed(further))
    done = call(adopt.main, copy, "terraform", "--outputs", "further.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "deploy/clusters.yaml has no further cluster in us-west-2: add an entry" in done.stderr
    clusters = copy / "deploy/clusters.yaml"
    clusters.write_text(clusters.read_text() + "- cluster: west\n  region: us-west-2\n  platform: eks\n")
    assert call(adopt.main, copy, "terraform", "--outputs", "further.json").returncode == 0
    after = clusters.read_text()
    assert after.startswith(before.pop(clusters))
    assert after.endswith(
        "- cluster: west\n  region: us-west-2\n  platform: eks-auto\n  eks: espalier-us-west-2\n"
        "  vpc: vpc-0123456789abcdef0\n"
    )
    assert {path: path.read_text() for path in before} == before


def test_a_network_of_terraform_stays(call: Call, copy: Path) -> None:
    """The VPC's may have the same text as that of the load balancers."""
    variables = copy / "deploy/terraform/aws/terraform.tfvars"
    now = names.current(copy).load_balancer_cidr
    example = variables.with_name("terraform.tfvars.example").read_text()
    variables.write_text(f'{example}\nvpc_cidr = "{now}"\n')
    assert call(adopt.main, copy, "terraform", "--outputs", "outputs.json").returncode == 0
    assert f'vpc_cidr = "{now}"' in variables.read_text()
    assert 'account_id = "123456789012"' in variables.read_text()


def test_outputs_come_from_a_pipe(copy: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from deploy.adopt.__main__ import main; main()",
            "terraform",
            "--outputs",
            "-",
        ],
        cwd=copy,
        input=_printed(OUTPUTS),
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert names.current(copy).region == "us-east-2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "these are not the outputs of deploy/terraform/aws"),
        ("[]", "these are not the outputs of deploy/terraform/aws"),
        ("{}", "Terraform made nothing yet"),
        (
            '{"bucket": {"value": "b"}}',
            "aws (account_id, region, compute, load_balancer_cidr, cluster_name, vpc_id, predictions)",
        ),
        (_printed({**OUTPUTS, "load_balancer_cidr": "0.0.0.0/0"}), "is too wide"),
        (_printed({**OUTPUTS, "compute": "fargate"}), "(compute)"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Call, copy: Path, text: str, said: str) -> None:
    (copy / "outputs.json").write_text(text)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    done = call(adopt.main, copy, "terraform", "--outputs", "outputs.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_the_outputs_of_another_account_are_refused(call: Call, copy: Path) -> None:
    assert call(adopt.main, copy, "--account-id", "210987654321").returncode == 0
    done = call(adopt.main, copy, "terraform", "--outputs", "outputs.json")
    assert "the outputs are of account 123456789012, and deploy/ is adopted for 210987654321" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--program", "nowhere"], "nowhere is not installed"),
        (["--program", "true"], "run `make infrastructure` first"),
        (["--outputs", "missing.json"], "No such file"),
    ],
)
def test_without_terraform_or_its_state(call: Call, copy: Path, options: list[str], said: str) -> None:
    done = call(adopt.main, copy, "terraform", *options)
    assert done.returncode == 1
    assert said in done.stderr
