"""The infrastructure: Terraform's own tests, and that it fits the workflows and the manifests."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.project import ROOT
from tests.deploy.spoiling import Plant
from tests.deploy.terraform import ROOTS, Program, copied
from tests.tools import require, require_built

TERRAFORM = ROOT / "deploy/terraform"
PEOPLE_SET = {
    *("APP_ID", "ATTESTATIONS", "JOBS", "MLFLOW_TRACKING_URI", "PROMETHEUS_URL", "RUNNER", "TRAINING_ENGINE")
}
"""Variables on GitHub that are not about AWS."""
LONG = pytest.mark.long("deploy/overlays", "deploy/terraform", "tests/deploy/test_terraform.py")


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Program:
    program = copied(tmp_path_factory.mktemp("terraform"))
    for root in ROOTS:
        program.done(root, "init", "-backend=false", "-input=false")
    return program


def test_it_is_formatted() -> None:
    done = subprocess.run(
        [require("terraform"), "fmt", "-check", "-diff", "-recursive", str(TERRAFORM)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@LONG
@pytest.mark.parametrize("root", ROOTS)
def test_it_is_valid(root: str, terraform: Program) -> None:
    terraform.done(root, "validate")


@LONG
@pytest.mark.parametrize("root", ROOTS)
def test_its_own_tests_pass(root: str, terraform: Program) -> None:
    said = terraform.done(root, "test")
    assert re.search(r"^Success! [1-9]\d* passed, 0 failed\.$", said, re.MULTILINE), said


@LONG
@pytest.mark.parametrize("root", ROOTS)
def test_opentofu_agrees(root: str, tmp_path: Path) -> None:
    tofu = copied(tmp_path, path=require_built("tofu", ".ci/build builds it"))
    tofu.done(root, "init", "-backend=false", "-input=false")
    tofu.done(root, "validate")
    assert re.search(r"^Success! [1-9]\d* passed, 0 failed\.$", tofu.done(root, "test"), re.MULTILINE)


ROLES = "deploy/terraform/modules/delivery/roles.tf"
WRITERS = '["kms:Decrypt", "kms:GenerateDataKey"]'
PLANTED = {
    2: Plant(
        "deploy/terraform/modules/identity/main.tf", WRITERS, '["kms:Decrypt"]', "cannot encrypt its pred"
    ),
    4: Plant(ROLES, '= "kms:Decrypt"', '= "kms:DescribeKey"', "A job that reads may encrypt"),
    5: Plant(ROLES, '"environment:release"]\n    data ', '"environment:*"]\n    data ', "trust other jobs"),
}
"""By the number in docs/first-deployment.md. 48 is in refused.tftest.hcl, 50 in test_applied.py."""
OTHERS = (
    Plant("deploy/terraform/modules/delivery/main.tf", '"IMMUTABLE"', '"MUTABLE"', "A tag of an image could move"),
    Plant("deploy/terraform/modules/bucket/main.tf", "? local.write_once : []", "? [] : []", "lets an object be"),
)  # fmt: skip


@LONG
def test_its_own_tests_can_fail(tmp_path: Path) -> None:
    """One run with all faults, because each run starts the provider many times."""
    spoilt = copied(tmp_path)
    plants = [*PLANTED.values(), *OTHERS]
    for plant in plants:
        plant.put(tmp_path)
    spoilt.done("aws", "init", "-backend=false", "-input=false")
    names = ("data", "delivery", "identity")
    done = spoilt("aws", "test", *(f"-filter=tests/{name}.tftest.hcl" for name in names))
    assert done.returncode == 1
    assert [plant.said for plant in plants if plant.said not in done.stdout] == []


def test_the_example_sets_what_has_no_default() -> None:
    text = (TERRAFORM / "aws/variables.tf").read_text()
    blocks = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.DOTALL | re.MULTILINE)
    needed = {name for name, block in blocks if not re.search(r"^  default\b", block, re.MULTILINE)}
    example = (TERRAFORM / "aws/terraform.tfvars.example").read_text()
    assert set(re.findall(r"^(\w+) +=", example, re.MULTILINE)) == needed
    assert set(re.findall(r"^# (\w+) += ", example, re.MULTILINE)) <= {name for name, _ in blocks}


def test_the_workflows_get_the_variables_that_they_read() -> None:
    text = (TERRAFORM / "aws/outputs.tf").read_text()
    _, _, block = text.partition('output "github_variables"')
    given = set(re.findall(r"^ +([A-Z_]+) +=", block.partition("\noutput ")[0], re.MULTILINE))
    read = {
        name
        for path in (ROOT / ".github").rglob("*.yml")
        for name in re.findall(r"\bvars\.([A-Z_]+)", path.read_text())
    }
    assert read - PEOPLE_SET <= given


def test_each_role_trusts_the_jobs_that_assume_it() -> None:
    text = (TERRAFORM / "modules/delivery/roles.tf").read_text()
    block = text.partition("  jobs = {")[2].partition("  }")[0]
    trusted = {
        role: set(re.findall(r'"([^"]+)"', jobs))
        for role, jobs in re.findall(r"^ +([\w-]+) += \[(.*)\]$", block, re.MULTILINE)
    }
    assumed: defaultdict[str, set[str]] = defaultdict(set)
    for _, _, role, subjects in _assumptions():
        assumed[role] |= subjects
    assert trusted == dict(assumed)


def test_the_page_lists_the_jobs_that_assume_a_role() -> None:
    page = (TERRAFORM / "README.md").read_text()
    listed = set(re.findall(r"^\| `([\w-]+)`, `([\w-]+)` \|.*\| `([\w-]+)` \|$", page, re.MULTILINE))
    assert listed == {(workflow, job, role) for workflow, job, role, _ in _assumptions()}


def _assumptions() -> list[tuple[str, str, str, set[str]]]:
    """Workflow, job and role of each job with an AWS identity, and the ends of its possible subjects."""
    found = []
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        # YAML reads the key `on` as a truth value.
        events = workflow.get("on") or workflow[True]
        for job, settings in workflow["jobs"].items():
            for step in settings["steps"]:
                given = step.get("with") or {}
                # Our own actions have a shorter name for it.
                role = given.get("role-to-assume") or given.get("role")
                if role is not None:
                    (name,) = re.findall(r"vars\.AWS_ROLE_(\w+)", role)
                    found.append(
                        (path.stem, job, name.lower().replace("_", "-"), _subjects(settings, events))
                    )
    return found


def _subjects(job: dict[str, Any], events: dict[str, Any]) -> set[str]:
    if environment := job.get("environment"):
        return {f"environment:{environment}"}
    return {
        *(["ref:refs/heads/main"] if "push" in events else []),
        *(["pull_request"] if "pull_request" in events else []),
    }


def test_servers_have_the_names_to_which_roles_are_bound() -> None:
    text = (TERRAFORM / "modules/identity/main.tf").read_text()
    assert '= "espalier-${server.environment}"' in text
    assert '= "${server.model}-server"' in text
    account = yaml.safe_load((ROOT / "deploy/base/serviceaccount.yaml").read_text())
    overlays = sorted((ROOT / "deploy/overlays").glob("*/*/kustomization.yaml"))
    assert overlays
    for path in overlays:
        overlay, environment, model = yaml.safe_load(path.read_text()), path.parts[-3], path.parts[-2]
        assert overlay["namespace"] == f"espalier-{environment}"
        assert overlay["namePrefix"] + account["metadata"]["name"] == f"{model}-server"
