"""The infrastructure in an account on loopback: applied, unchanged by a second plan, and destroyed unless it holds data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import aws
from tests.deploy.aws import ACCOUNT, Account
from tests.deploy.terraform import Program, copied

REGION = "eu-central-1"
SETTINGS = {
    "account_id": ACCOUNT,
    "region": REGION,
    "github_repository": "acme/flowers",
    "github_owner_id": 1,
    "github_repository_id": 2,
    "admins": [f"arn:aws:iam::{ACCOUNT}:role/platform"],
    "api_cidrs": ["203.0.113.0/24"],
}
STATES = f"espalier-terraform-{ACCOUNT}-{REGION}"
STATE = f"{STATES}/espalier/{REGION}.tfstate"
PREDICTIONS = f"espalier-predictions-{ACCOUNT}-{REGION}"
BOOTSTRAP = (f"-var=account_id={ACCOUNT}", f"-var=region={REGION}")


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with aws.serve(tmp_path) as account:
        yield account


@pytest.fixture
def terraform(tmp_path: Path, account: Account) -> Program:
    return copied(tmp_path / "project", account.environment())


@pytest.mark.long(
    "deploy/terraform", "tests/deploy/aws.py", "tests/deploy/eks.py", "tests/deploy/test_applied.py"
)
def test_an_installation_lives_and_is_destroyed_only_without_data(
    terraform: Program, account: Account
) -> None:
    folder = terraform.deploy / "terraform/aws"
    (folder / "terraform.tfvars.json").write_text(json.dumps(SETTINGS))
    terraform.done("bootstrap", "init", "-input=false")
    assert "7 added" in terraform.done("bootstrap", "apply", "-auto-approve", *BOOTSTRAP)
    (folder / "backend.hcl").write_text(terraform.done("bootstrap", "output", "-raw", "backend"))
    terraform.done("aws", "init", "-input=false", "-backend-config=backend.hcl")

    # The state is in S3, and whoever plans first locks it.
    terraform.done("aws", "plan", "-input=false", "-out=planned")
    account.put(f"{STATE}.tflock", json.dumps({"ID": "1", "Who": "a colleague"}).encode())
    refused = terraform("aws", "apply", "planned")
    assert refused.returncode == 1
    assert "Error acquiring the state lock" in refused.stdout
    assert "a colleague" in refused.stdout
    account.delete(f"{STATE}.tflock")

    applied = terraform.done("aws", "apply", "planned")
    state = json.loads(account.get(STATE))
    managed = [each for each in state["resources"] if each["mode"] == "managed"]
    assert sum(len(each["instances"]) for each in managed) == 80
    assert "80 added, 0 changed, 0 destroyed" in applied
    second = terraform("aws", "plan", "-detailed-exitcode")
    assert second.returncode == 0, second.stdout

    # Another region of the account is another variables file and another state.
    (folder / "us.tfvars").write_text('region = "us-east-1"\ndelivery = false\n')
    terraform.done(
        "aws", "init", "-reconfigure", "-backend-config=backend.hcl", "-backend-config=key=us.tfstate"
    )
    planned = terraform.done("aws", "plan", "-var-file=us.tfvars")
    created = set(re.findall(r"^  # (\S+) will be created", planned, re.MULTILINE))
    assert f"Plan: {len(created)} to add, 0 to change, 0 to destroy." in planned
    assert {"module.network.aws_vpc.this", "module.data.module.predictions.aws_s3_bucket.this"} <= created
    assert [name for name in created if name.startswith(("module.delivery", "module.data.module.dvc"))] == []
    terraform.done("aws", "init", "-reconfigure", "-backend-config=backend.hcl")

    account.put(f"{PREDICTIONS}/production/iris/one.parquet", b"predictions")
    refused = terraform("aws", "destroy", "-auto-approve")
    assert refused.returncode == 1
    assert re.findall(r"deleting S3 Bucket \((.*?)\)", refused.stdout) == [PREDICTIONS]
    assert "BucketNotEmpty" in refused.stdout
    account.delete(f"{PREDICTIONS}/production/iris/one.parquet")
    terraform.done("aws", "destroy", "-auto-approve")
    assert json.loads(account.get(STATE))["resources"] == []

    # The history of the state is data, too.
    refused = terraform("bootstrap", "destroy", "-auto-approve", *BOOTSTRAP)
    assert "BucketNotEmpty" in refused.stdout
    account.delete(STATES)
    terraform.done("bootstrap", "destroy", "-auto-approve", *BOOTSTRAP)
    assert account.buckets() == []
