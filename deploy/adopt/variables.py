"""Writes the variables files of Terraform from the example, once; a file that exists is yours and keeps its values."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from common import files
from deploy.adopt.errors import AdoptError
from deploy.adopt.networks import check_network
from deploy.forge import github

EXAMPLE = "111122223333"
"""The account of the example."""
AWS = Path("deploy/terraform/aws")
BOOTSTRAP = Path("deploy/terraform/bootstrap/terraform.tfvars")
_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[^*]+")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        action="append",
        metavar="ARN",
        help="a role or user of AWS that may do everything in the cluster; may be repeated",
    )
    parser.add_argument(
        "--api-cidr",
        action="append",
        metavar="NETWORK",
        help="a network from which the cluster's API is reachable, such as 203.0.113.7/32; may be repeated",
    )
    parser.add_argument(
        "--hosted-zone",
        metavar="ID",
        help="the zone of Route 53 that has both domains: they get certificates, and external-dns a role",
    )


def current(root: Path) -> dict[str, str]:
    """The strings of the variables file, or of the example while there is no file."""
    return dict(re.findall(r'^(\w+) *= *"(.*)"$', _text(root), re.MULTILINE))


def write(root: Path, account: str, repository: str, options: argparse.Namespace) -> list[Path]:
    """Write those of the two files that are missing or change; names of the example stay, for the caller to replace.

    Raises:
        AdoptError: a value has the wrong form, or is for an account that is not named.
        GitHubError: GitHub does not say the numbers of the repository.
    """
    for arn in options.admin or []:
        if not _ARN.fullmatch(arn):
            raise AdoptError(f"--admin {arn!r} is not arn:aws:iam::ACCOUNT:role/NAME or …:user/NAME")
    for cidr in options.api_cidr or []:
        check_network("--api-cidr", cidr, widest=8, public=True)
    if options.hosted_zone and not re.fullmatch(r"Z[A-Z0-9]+", options.hosted_zone):
        raise AdoptError(
            f"--hosted-zone {options.hosted_zone!r} is not the number of a zone, such as Z0123456789ABC"
        )
    before, values = _text(root), _given(options)
    if account == EXAMPLE:
        if values:
            raise AdoptError(
                "--account-id is missing: --admin, --api-cidr and --hosted-zone are for an account"
            )
        return []
    path, exists = root / AWS / "terraform.tfvars", (root / AWS / "terraform.tfvars").exists()
    if not exists:
        if not options.admin:
            if current(root)["account_id"] == EXAMPLE:
                print(f"note: {AWS}/terraform.tfvars is written once you name an --admin of the cluster")
            return []
        values = {"api_cidrs": [], **values, **_numbers(repository)}
    text = before.replace("Copy to terraform.tfvars and fill in. ", "")
    for name, value in values.items():
        lines = text.splitlines(keepends=True)
        # The example has optional ones as comments.
        pattern, new = rf"^(?:# )?({name} *= *).*", rf"\g<1>{json.dumps(value)}"
        text = "".join(re.sub(pattern, new, line) for line in lines)
    if options.hosted_zone:
        text = re.sub(r"^# (domains *= )", r"\1", text, flags=re.MULTILINE)
    written = []
    if not exists or text != before:
        files.write_text(path, text)
        written.append(path)
    if not (root / BOOTSTRAP).exists():
        strings = dict(re.findall(r'^(\w+) *= *"(.*)"$', text, re.MULTILINE))
        lines = [f'{name:10} = "{strings[name]}"\n' for name in ("account_id", "region")]
        files.write_text(root / BOOTSTRAP, "".join(lines))
        written.append(root / BOOTSTRAP)
    return written


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {
        name: value
        for name, value in (
            ("admins", options.admin),
            ("api_cidrs", options.api_cidr),
            ("hosted_zone_id", options.hosted_zone),
        )
        if value is not None
    }


def _numbers(repository: str) -> dict[str, int]:
    """GitHub's numbers of owner and repository, which new repositories have in their identities."""
    os.environ["GH_REPO"] = repository
    found = github.get("")
    return {"github_owner_id": found["owner"]["id"], "github_repository_id": found["id"]}


def _text(root: Path) -> str:
    path = root / AWS / "terraform.tfvars"
    return (path if path.exists() else path.with_name("terraform.tfvars.example")).read_text(encoding="utf-8")
