"""Adopting the project: in a copy, whole, again, and with values that cannot be meant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.adopt import __main__ as adopt
from deploy.adopt import names
from deploy.adopt.errors import AdoptError
from deploy.adopt.names import Names, replaced
from deploy.manifests import render
from tests.deploy.conftest import Call

ROOT = render.FOLDER.parent
MINE = Names(
    repository="https://github.com/acme/flowers",
    account_id="123456789012",
    region="us-east-2",
    # One is part of the other.
    host="flowers.acme.io",
    staging_host="staging.flowers.acme.io",
    argocd_url="https://argocd.acme.io",
    load_balancer_cidr="172.21.0.0/20",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return _copy(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that no test changes."""
    return _copy(tmp_path_factory.mktemp("untouched"))


def _copy(folder: Path) -> Path:
    for name in ("app", "common", "deploy", "docs", "monitoring", ".github"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("compose.yaml", "params.yaml", "zensical.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def _start(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def _options(names: Names) -> list[str]:
    return [part for key, value in vars(names).items() for part in (f"--{key.replace('_', '-')}", value)]


def _contents(folder: Path) -> dict[Path, bytes]:
    paths = [path for place in names.PLACES for path in (folder / place, *(folder / place).rglob("*"))]
    files = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.mark.long(".github", "app", "deploy", "monitoring", "tests/deploy/test_adopt.py")
def test_nothing_of_ours_is_left_and_all_still_fits(copy: Path) -> None:
    former = names.current(copy)
    done = _start(copy, "deploy.adopt", *_options(MINE))
    assert (done.returncode, done.stderr) == (0, "")
    assert names.current(copy) == MINE
    for path, content in _contents(copy).items():
        # Tests have made-up names.
        if path.suffix not in (".py", ".tf") and "tests" not in path.parts:
            found = [name for name in MINE.replacements(former) if name.encode() in content]
            assert found == [], path
    checked = _start(copy, "deploy.manifests")
    assert (checked.returncode, checked.stderr) == (0, "")
    rendered = (copy / "build/manifests/production.iris.yaml").read_text()
    assert "host: iris.flowers.acme.io" in rendered
    manifests = [path.read_text() for path in (copy / "build/manifests").glob("*.yaml")]
    assert any("cidr: 172.21.0.0/20" in each for each in manifests)
    assert "host: iris.staging.flowers.acme.io" in (copy / "build/manifests/staging.iris.yaml").read_text()
    watching = (copy / "build/manifests/monitoring.yaml").read_text()
    assert "--repository=acme/flowers" in watching
    assert "runbook_url: https://github.com/acme/flowers/blob/main/docs/operations.md#" in watching
    assert _start(copy, "monitoring.generate", "--check").returncode == 0
    assert "argocdUrl: https://argocd.acme.io" in (copy / "build/manifests/argocd.yaml").read_text()
    assert 'repo_url = "https://github.com/acme/flowers"' in (copy / "zensical.toml").read_text()
    assert "@acme/production" in (copy / ".github/CODEOWNERS").read_text()


def test_again_it_changes_nothing_and_there_is_a_way_back(call: Call, copy: Path) -> None:
    original, former = _contents(copy), names.current(copy)
    call(adopt.main, copy, *_options(MINE))
    adopted = _contents(copy)
    done = call(adopt.main, copy, *_options(MINE))
    assert (done.returncode, done.stdout) == (0, "nothing to change\n")
    assert _contents(copy) == adopted != original
    call(adopt.main, copy, *_options(former))
    assert _contents(copy) == original


def test_options_are_adopted_although_they_are_off(call: Call, copy: Path) -> None:
    assert call(adopt.main, copy, *_options(MINE)).returncode == 0
    registry = "123456789012.dkr.ecr.us-east-2.amazonaws.com"
    policy = yaml.safe_load((copy / "deploy/admission/policy.yaml").read_text())["spec"]
    (attestor,) = policy["attestors"]
    assert attestor["cosign"]["source"] == {"repository": f"{registry}/espalier-signatures"}
    (identity,) = attestor["cosign"]["keyless"]["identities"]
    assert identity["subject"] == f"{MINE.repository}/.github/workflows/release.yml@refs/heads/main"
    (image,) = yaml.safe_load((copy / "monitoring/pull-through/kustomization.yaml").read_text())["images"]
    assert image["newName"] == f"{registry}/ecr-public/docker/library/python"
    store = yaml.safe_load((copy / "monitoring/secrets/store.yaml").read_text())
    assert store["spec"]["provider"]["aws"]["region"] == "us-east-2"


def test_what_terraform_keeps_is_left_alone(call: Call, copy: Path) -> None:
    terraform, region = copy / "deploy/terraform", names.current(copy).region.encode()
    kept = {
        terraform / "aws/.terraform/providers/aws": b"\xff " + region,
        terraform / "bootstrap/terraform.tfstate": region,
        terraform / "aws/tests/network.tftest.hcl": (terraform / "aws/tests/network.tftest.hcl").read_bytes(),
    }
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert call(adopt.main, copy, *_options(MINE)).returncode == 0
    assert {path: path.read_bytes() for path in kept} == kept
    example = (terraform / "aws/terraform.tfvars.example").read_text()
    assert 'region     = "us-east-2"' in example
    assert 'github_repository    = "acme/flowers"' in example


def test_one_name_alone(call: Call, copy: Path) -> None:
    former = names.current(copy)
    done = call(adopt.main, copy, "--host", "flowers.acme.io")
    assert done.returncode == 0
    assert names.current(copy) == Names(**{**vars(former), "host": "flowers.acme.io"})
    assert "deploy/overlays/production/iris/kustomization.yaml" in done.stdout
    assert "deploy/overlays/staging" not in done.stdout


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--repository", "git@github.com:acme/flowers.git", "is not https://github.com/OWNER/NAME"),
        ("--repository", "https://github.com/acme/flowers.git", "is not https://github.com/OWNER/NAME"),
        ("--repository", "https://github.com/acme", "is not https://github.com/OWNER/NAME"),
        ("--region", "Frankfurt", "a region such as"),
        ("--host", "https://flowers.acme.io", "a host's full name"),
        ("--host", "flowers", "a host's full name"),
        ("--host", "Flowers.acme.io", "a host's full name"),
        ("--host", "flowers..acme.io", "a host's full name"),
        ("--host", "a\nb.c", "a host's full name"),
        ("--host", "", "a host's full name"),
        ("--argocd-url", "argocd.acme.io", "is not https://HOST of Argo CD"),
        ("--argocd-url", "https://argocd.acme.io/", "is not https://HOST of Argo CD"),
        ("--account-id", "12345678901", "an account's number of twelve digits"),
        ("--account-id", "1234-5678-9012", "an account's number of twelve digits"),
        ("--load-balancer-cidr", "10.0.0.1/16", "has host bits set"),
        ("--load-balancer-cidr", "everywhere", "not a network with a mask"),
        ("--load-balancer-cidr", "10.0.0.0", "not a network with a mask"),
        ("--load-balancer-cidr", "10.0.0.0/255.255.240.0", "not a network with a mask"),
        ("--load-balancer-cidr", "10.0.0.0/33", "is not a valid netmask"),
        ("--vpc-cidr", "0.0.0.0/0", "is too wide: the mask must have at least /16"),
        ("--vpc-cidr", "10.0.0.0/8", "is too wide"),
        ("--admin", "arn:aws:sts::123456789012:assumed-role/a/b", "is not arn:aws:iam::ACCOUNT:role/NAME"),
        ("--admin", "arn:aws:iam::123456789012:role/platform", "--account-id is missing"),
        ("--hosted-zone", "acme.io", "is not the number of a zone"),
        ("--api-cidr", "0.0.0.0/0", "is too wide: the mask must have at least /8"),
        ("--api-cidr", "0.0.0.0/1", "is too wide"),
        ("--api-cidr", "10.0.0.0/8", "is private"),
        ("--api-cidr", "172.31.0.0/16", "is private"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    call: Call, untouched: Path, option: str, value: str, said: str
) -> None:
    before = _contents(untouched)
    done = call(adopt.main, untouched, option, value)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert _contents(untouched) == before


def test_a_name_that_is_nowhere_is_said(call: Call, copy: Path) -> None:
    owners = copy / ".github/CODEOWNERS"
    owners.write_text(owners.read_text().replace("@espalier-ml/", "@others/"))
    done = call(adopt.main, copy, "--repository", "https://github.com/acme/flowers")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("note: ")] == [
        "note: nothing names @espalier-ml"
    ]
    assert 'image.source="https://github.com/acme/flowers"' in (copy / "app/Dockerfile").read_text()
    assert "git clone https://github.com/acme/flowers" in (copy / "docs/tutorial.md").read_text()


def test_the_environments_have_hosts_of_their_own(call: Call, untouched: Path) -> None:
    done = call(adopt.main, untouched, "--host", names.current(untouched).staging_host)
    assert done.returncode == 1
    assert "each environment has its own" in done.stderr


def test_outside_the_project_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(AdoptError, match="run this in the top folder"):
        names.current(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at a.b.", "at x.y."),
        ("https://a.b/c", "https://x.y/c"),
        ("c.a.b", "c.a.b"),
        ("a.b.c", "a.b.c"),
        ("a.b-c", "a.b-c"),
        ("x.y a.b", "z.z x.y"),
    ],
)
def test_only_whole_names_are_replaced_and_once(text: str, expected: str) -> None:
    assert replaced(text, {"a.b": "x.y", "x.y": "z.z"})[0] == expected
