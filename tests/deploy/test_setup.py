"""The commands of docs/setup.md, read from the page and run in a fresh clone against AWS and GitHub on loopback.

`aws` and `kubectl` are stand-ins that check what they are given, because there is no cluster.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.rehearsal.clone import commit_working_tree
from tests.deploy import aws, terraform
from tests.deploy.aws import ACCOUNT, Account
from tests.deploy.project import ROOT
from tests.deploy.settings import SettingsGitHub
from tests.tools import require

PAGE = ROOT / "docs/setup.md"
NAMES = {
    "OWNER/NAME": "ada/flowers",
    "YOUR.DOMAIN": "flowers.acme.io",
    "ACCOUNT": ACCOUNT,
    # S3 refuses to be told this one.
    "REGION": "us-east-1",
    "ROLE": "platform",
}
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >> "{log}"
"""


def commands() -> list[str]:
    """Those of the section `Eight commands`, in order, with names for the placeholders."""
    section = PAGE.read_text().partition("\n## Eight commands\n")[2].partition("\n## ")[0]
    found = []
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE):
        found += re.split(r"^ *\$ ", block, flags=re.MULTILINE)[1:]
    for placeholder, name in NAMES.items():
        found = [command.replace(placeholder, name) for command in found]
    return found


def test_there_are_eight_commands() -> None:
    assert len(commands()) == 8


@pytest.fixture
def github(tmp_path: Path) -> Iterator[SettingsGitHub]:
    require("gh")
    origin = tmp_path / "origin.git"
    with SettingsGitHub("ada/flowers", origin, owner="User") as server:
        yield server
    assert server.errors == []


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with aws.serve(tmp_path) as account:
        yield account


@pytest.mark.long("Makefile", "deploy", "docs/setup.md", "tests/deploy/test_setup.py")
def test_the_page_leads_from_a_clone_to_a_release(
    tmp_path: Path, github: SettingsGitHub, account: Account
) -> None:
    clone, log = _clone(tmp_path), tmp_path / "log"
    browser = tmp_path / "bin/browser"
    for name in ("aws", "kubectl", "browser"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN.format(log=log))
        path.chmod(0o755)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:{Path(require('terraform')).parent}:/usr/bin:/bin",
        "PYTHONUTF8": "1",
        "BROWSER": str(browser),
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@acme.io",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@acme.io",
        # Terraform asks a person for a yes.
        "TF_CLI_ARGS_apply": "-auto-approve -no-color",
        **terraform.providers(tmp_path),
        **account.environment(),
        **github.environment(folder=tmp_path / "gh"),
    }
    # A fork has no variable that says which repository is meant.
    del environment["GH_REPO"]
    clicking = threading.Thread(target=_click, args=[github, log], daemon=True)
    clicking.start()
    said = [_run(command, clone, environment) for command in commands()]

    assert "Apply complete! Resources: 7 added" in said[1]
    assert "Apply complete! Resources: 80 added" in said[1]
    assert github.variables[""]["REGISTRY"] == f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/espalier"
    assert set(github.variables["release"]) == {"APP_ID"}
    assert set(github.secrets["pipeline"]) == set(github.secrets["release"]) == {"APP_PRIVATE_KEY"}
    assert github.rulesets[0]["bypass_actors"][0]["actor_id"] == github.apps["ada-espalier-release"]["id"]
    assert said[2].splitlines()[-1].endswith("changes")
    again = {
        commands()[1]: "nothing to change",
        commands()[2]: "nothing to do",
    }
    for command, last in again.items():
        assert _run(command, clone, environment).splitlines()[-1] == last

    github.merge(1, "squash", "Ada")
    _run("git fetch -q && git switch -q --detach origin/main", clone, environment)
    assert (clone / "deploy/terraform/aws/backend.hcl").read_text().count("us-east-1") == 3
    assert "@ada" in (clone / ".github/CODEOWNERS").read_text()
    _run("! git grep -q nobody-may-see -- ':!tests'", clone, environment)
    _run("python -m deploy.manifests", clone, environment)
    rendered = (clone / "build/manifests/production.iris.yaml").read_text()
    assert "host: iris.espalier.flowers.acme.io" in rendered

    given = [shlex.split(line) for line in log.read_text().splitlines()]
    (updated,) = [each[1:] for each in given if each[0] == "aws"]
    assert updated[:2] == ["eks", "update-kubeconfig"]
    name, region = updated[updated.index("--name") + 1], updated[updated.index("--region") + 1]
    assert ("clusters", name) in account.eks[region].objects
    cluster = yaml.safe_load((clone / "deploy/clusters.yaml").read_text())[0]
    assert (cluster["eks"], cluster["region"]) == (name, region)
    assert cluster["vpc"].startswith("vpc-")
    applied = [each[1:] for each in given if each[0] == "kubectl"]
    assert [each[0] for each in applied] == ["apply", "apply"]
    assert (clone / applied[0][applied[0].index("-k") + 1] / "kustomization.yaml").is_file()
    root = yaml.safe_load_all((clone / applied[1][applied[1].index("-f") + 1]).read_text())
    sources = {each["spec"]["source"]["repoURL"] for each in root if each["kind"] == "Application"}
    assert sources == {"https://github.com/ada/flowers"}


def _clone(folder: Path) -> Path:
    """A clone of a fork that has this working tree."""
    (folder / "tree").mkdir()
    commit_working_tree(folder / "tree")
    subprocess.run(["git", "clone", "-q", "--bare", "tree", "origin.git"], cwd=folder, check=True)
    subprocess.run(["git", "clone", "-q", "origin.git", "clone"], cwd=folder, check=True)
    return folder / "clone"


def _run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def _click(github: SettingsGitHub, log: Path) -> None:
    """The person at the browser, who creates each App that a page asks for."""
    seen = 0
    while True:
        addresses = re.findall(
            r"^browser (http://127\.0\.0\.1\S+)$", log.read_text() if log.exists() else "", re.M
        )
        for address in addresses[seen:]:
            github.create_app(address)
        seen = len(addresses)
        time.sleep(0.2)
