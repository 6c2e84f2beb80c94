"""The repository on GitHub is set up, as a dry run said, and a second run finds nothing to do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.adopt import __main__ as adopt
from deploy.adopt.apps import Waiting
from deploy.forge import github
from tests.deploy.conftest import Call
from tests.deploy.project import ROOT
from tests.deploy.settings import PEM, SettingsGitHub
from tests.tools import require

VARIABLES = {
    "AWS_REGION": "us-east-2",
    "AWS_ROLE_DATA": "arn:aws:iam::123456789012:role/espalier-us-east-2-data",
    "REGISTRY": "123456789012.dkr.ecr.us-east-2.amazonaws.com/espalier",
}
OUTPUTS = {
    "account_id": "123456789012",
    "region": "us-east-2",
    "compute": "auto",
    "load_balancer_cidr": "10.0.0.0/20",
    "cluster_name": "espalier-eu-central-1",
    "vpc_id": "vpc-1",
    "predictions": {},
    "github_variables": VARIABLES,
}
LONG = pytest.mark.long(".github", "deploy/adopt", "deploy/forge", "tests/deploy/test_adopt_github.py")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SettingsGitHub]:
    require("gh")
    with SettingsGitHub("ada/flowers") as server:
        for key, value in server.environment(folder=tmp_path / "gh").items():
            monkeypatch.setenv(key, value)
        for name in ("MLFLOW_TRACKING_TOKEN", "PROMETHEUS_TOKEN", "WANDB_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        yield server
    assert server.errors == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    for name in (
        "deploy/argocd/root.yaml",
        "deploy/argocd/notifications.yaml",
        "deploy/components",
        "deploy/overlays",
        "deploy/terraform/aws/terraform.tfvars.example",
        ".github",
    ):
        for path in [ROOT / name, *(ROOT / name).rglob("*")]:
            if path.is_file():
                (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                text = path.read_text().replace("espalier-ml/espalier", "ada/flowers")
                (folder / path.relative_to(ROOT)).write_text(text)
    outputs = {name: {"value": value, "sensitive": False} for name, value in OUTPUTS.items()}
    (folder / "outputs.json").write_text(json.dumps(outputs))
    for environment in ("pipeline", "release"):
        (folder / f"{environment}.pem").write_text(PEM.format(environment))
    return folder


APPS = [
    *("--pipeline-app", "ada-pipeline", "--pipeline-key", "pipeline.pem"),
    *("--release-app", "ada-release", "--release-key", "release.pem"),
]


@LONG
def test_all_is_set_once(call: Call, copy: Path, server: SettingsGitHub) -> None:
    server.add_app("ada-pipeline")
    release = server.add_app("ada-release")
    command = ["github", "--outputs", "outputs.json", *APPS, "--variable", "PROMETHEUS_URL=https://p.acme.io"]
    before = _state(server)
    planned = call(adopt.main, copy, *command, "--dry-run", WANDB_API_KEY="a-secret")
    assert planned.returncode == 0, planned.stderr
    assert _state(server) == before
    assert [each for each in server.requests if not each.startswith("GET ")] == []

    done = call(adopt.main, copy, *command, WANDB_API_KEY="a-secret")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == f"{len(said) - 1} changes"
    assert [f"would {line}" for line in said[:-1]] == planned.stdout.splitlines()[:-1]
    assert "nobody-may-see" not in done.stdout + done.stderr + str(server.requests)
    assert "a-secret" not in done.stdout + done.stderr + str(server.requests)

    assert server.workflow["default_workflow_permissions"] == "read"
    assert server.environments["release"]["deployment_branch_policy"]["custom_branch_policies"] is True
    assert [each["name"] for each in server.branches["release"]] == ["main"]
    assert server.environments["pipeline"]["deployment_branch_policy"] is None
    app_id = server.apps["ada-pipeline"]["client_id"]
    assert server.variables[""] == {**VARIABLES, "PROMETHEUS_URL": "https://p.acme.io", "APP_ID": app_id}
    assert server.variables["release"] == {"APP_ID": release["client_id"]}
    assert set(server.secrets["pipeline"]) == {"APP_PRIVATE_KEY", "WANDB_API_KEY"}
    assert set(server.secrets["release"]) == {"APP_PRIVATE_KEY"}
    (rules,) = server.rulesets
    assert rules["bypass_actors"] == [
        {"actor_id": release["id"], "actor_type": "Integration", "bypass_mode": "always"}
    ]
    reviewed = next(rule["parameters"] for rule in rules["rules"] if rule["type"] == "pull_request")
    assert (reviewed["require_code_owner_review"], reviewed["required_approving_review_count"]) == (True, 1)
    assert "@espalier-ml/maintainers" in (copy / ".github/CODEOWNERS").read_text()

    settled, server.requests = _state(server), []
    for options in (command, ["github", "--outputs", "none"]):
        again = call(adopt.main, copy, *options, WANDB_API_KEY="a-secret")
        assert (again.returncode, again.stdout) == (0, "nothing to do\n")
    assert _state(server) == settled
    assert [each for each in server.requests if not each.startswith("GET ")] == []


@LONG
def test_what_somebody_changed_is_set_again(call: Call, copy: Path, server: SettingsGitHub) -> None:
    command = ["github", "--outputs", "outputs.json"]
    assert call(adopt.main, copy, *command).returncode == 0
    settled = _state(server)
    server.variables[""]["REGISTRY"] = "elsewhere"
    server.variables[""].update({f"OTHER_{number}": "stays" for number in range(40)})
    server.branches["release"].append({"id": 5, "name": "*", "type": "branch"})
    server.rulesets[0]["enforcement"] = "disabled"
    server.actions["enabled"] = False
    done = call(adopt.main, copy, *command)
    assert done.stdout.splitlines() == [
        "enable Actions",
        "keep * out of the environment release",
        f"change the variable REGISTRY of the repository from elsewhere to {VARIABLES['REGISTRY']}",
        "change the rules of main",
        "4 changes",
    ]
    assert len(server.variables[""]) == 43
    for number in range(40):
        del server.variables[""][f"OTHER_{number}"]
    assert _state(server) == settled


@LONG
def test_secrets_are_replaced_on_request(call: Call, copy: Path, server: SettingsGitHub) -> None:
    server.add_app("ada-pipeline")
    server.add_app("ada-release")
    command = ["github", "--outputs", "none", *APPS]
    assert call(adopt.main, copy, *command).returncode == 0
    done = call(adopt.main, copy, *command, "--replace-secrets")
    assert done.stdout.splitlines() == [
        "set the secret APP_PRIVATE_KEY of pipeline",
        "set the secret APP_PRIVATE_KEY of release",
        "2 changes",
    ]


@LONG
@pytest.mark.parametrize("writers", [["ada"], ["ada", "grace"]])
def test_a_person_without_teams(call: Call, copy: Path, server: SettingsGitHub, writers: list[str]) -> None:
    server.owner_type, server.writers = "User", writers
    done = call(adopt.main, copy, "github", "--outputs", "none")
    assert done.returncode == 0, done.stderr
    lines = (copy / ".github/CODEOWNERS").read_text().splitlines()
    assert {line.split()[1] for line in lines if not line.startswith("#")} == {"@ada"}
    reviewed = next(
        rule["parameters"] for rule in server.rulesets[0]["rules"] if rule["type"] == "pull_request"
    )
    expected = (False, 0, False) if writers == ["ada"] else (True, 1, True)
    assert expected == tuple(
        reviewed[key]
        for key in (
            "require_code_owner_review",
            "required_approving_review_count",
            "require_last_push_approval",
        )
    )
    assert call(adopt.main, copy, "github", "--outputs", "none").stdout == "nothing to do\n"


@LONG
@pytest.mark.parametrize("owner", ["User", "Organization"])
def test_apps_are_created_with_a_browser(
    call: Call, copy: Path, server: SettingsGitHub, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    server.owner_type = owner
    opened: list[str] = []

    def browser(address: str) -> bool:
        opened.append(address)
        if address.startswith("http://127.0.0.1"):
            threading.Thread(target=server.create_app, args=[address]).start()
        return True

    monkeypatch.setattr("webbrowser.open", browser)
    command = ["github", "--outputs", "none", "--create-apps"]
    planned = call(adopt.main, copy, *command, "--dry-run")
    assert "would create the App of release" in planned.stdout
    assert opened == []
    done = call(adopt.main, copy, *command)
    assert done.returncode == 0, done.stderr
    assert sorted(server.apps) == ["ada-espalier-pipeline", "ada-espalier-release"]
    assert opened[1::2] == [
        f"https://github.localhost/apps/ada-espalier-{each}/installations/new"
        for each in ("pipeline", "release")
    ]
    pipeline, release = (server.apps[f"ada-espalier-{each}"] for each in ("pipeline", "release"))
    assert server.variables[""] == {"APP_ID": pipeline["client_id"]}
    assert server.variables["release"] == {"APP_ID": release["client_id"]}
    assert server.rulesets[0]["bypass_actors"][0]["actor_id"] == release["id"]
    assert "APP_PRIVATE_KEY" in server.secrets["pipeline"]
    assert "nobody-may-see" not in done.stdout + done.stderr
    assert call(adopt.main, copy, *command).stdout == "nothing to do\n"


def test_a_browser_of_another_page_is_refused() -> None:
    with Waiting() as served:
        assert served.answer("/?code=c&state=guessed")[0] == 400
        assert served.answer("/other")[0] == 404
        assert served.code == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variable", "REGISTRY"], "is not NAME=VALUE"),
        (["--variable", "REGISTRI=x"], "is not NAME=VALUE with one of ATTESTATIONS"),
        (["--outputs", "nowhere.json"], "No such file"),
        (["--outputs", "pipeline.pem"], "these are not the outputs of deploy/terraform/aws"),
        (["--pipeline-key", "outputs.json"], "is not a private key as GitHub gives it"),
        (["--pipeline-app", "unknown"], "the App unknown (the end of its address"),
        (["--pipeline-app", "weak"], "the App weak needs pull_requests: write"),
        (["--pipeline-app", "one", "--release-app", "one"], "are the same App"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    call: Call, copy: Path, server: SettingsGitHub, options: list[str], said: str
) -> None:
    server.add_app("weak", contents="write")
    server.add_app("one")
    done = call(
        adopt.main, copy, "github", *([] if "--outputs" in options else ["--outputs", "none"]), *options
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [each for each in server.requests if not each.startswith("GET ")] == []


def test_only_an_admin_can(call: Call, copy: Path, server: SettingsGitHub) -> None:
    server.admin = False
    done = call(adopt.main, copy, "github", "--outputs", "none")
    assert "you are not an admin of ada/flowers" in done.stderr


def test_somebody_who_is_not_signed_in(call: Call, copy: Path, server: SettingsGitHub) -> None:
    done = call(adopt.main, copy, "github", "--outputs", "none", GH_TOKEN="wrong")
    assert done.returncode == 1
    assert "gh auth login" in done.stderr


def test_without_gh(call: Call, copy: Path, server: SettingsGitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    done = call(adopt.main, copy, "github", "--outputs", "none")
    assert "gh is not installed" in done.stderr


def test_the_infrastructure_comes_first(call: Call, copy: Path, server: SettingsGitHub) -> None:
    done = call(adopt.main, copy, "github")
    assert "run `make infrastructure` first" in done.stderr or "terraform is not installed" in done.stderr


def test_the_variables_of_terraform_are_written_once(call: Call, copy: Path, server: SettingsGitHub) -> None:
    admin = "arn:aws:iam::123456789012:role/platform"
    command = ["--account-id", "123456789012", "--region", "us-east-1", "--host", "flowers.acme.io"]
    more = ["--admin", admin, "--api-cidr", "203.0.113.7/32", "--hosted-zone", "Z42"]
    done = call(adopt.main, copy, *command, *more)
    assert done.returncode == 0, done.stderr
    folder = copy / "deploy/terraform"
    text = (folder / "aws/terraform.tfvars").read_text()
    written = dict(re.findall(r"^(\w+) *= *(.*)$", text, re.MULTILINE))
    assert written == {
        "account_id": '"123456789012"',
        "region": '"us-east-1"',
        "github_repository": '"ada/flowers"',
        "github_owner_id": "4242",
        "github_repository_id": "777",
        "admins": f'["{admin}"]',
        "api_cidrs": '["203.0.113.7/32"]',
        "hosted_zone_id": '"Z42"',
        "domains": '["flowers.acme.io", "espalier.staging.example.com"]',
    }
    bootstrap = (folder / "bootstrap/terraform.tfvars").read_text()
    assert bootstrap == 'account_id = "123456789012"\nregion     = "us-east-1"\n'
    (folder / "aws/terraform.tfvars").write_text(text + "kms = true\n")
    again = call(adopt.main, copy, *command, *more)
    assert (again.returncode, again.stdout) == (0, "nothing to change\n")
    other = call(adopt.main, copy, "--api-cidr", "198.51.100.0/24")
    assert other.returncode == 0
    assert (folder / "aws/terraform.tfvars").read_text() == text.replace(
        "203.0.113.7/32", "198.51.100.0/24"
    ) + "kms = true\n"


def test_a_path_of_the_repository_has_no_slash_at_its_end(server: SettingsGitHub) -> None:
    assert github.get("")["full_name"] == "ada/flowers"


def _state(server: SettingsGitHub) -> Any:
    names = ("actions", "workflow", "environments", "branches", "variables", "secrets", "rulesets")
    return json.loads(json.dumps({name: getattr(server, name) for name in names}))
