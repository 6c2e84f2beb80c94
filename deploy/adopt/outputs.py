"""Reads what Terraform made: `terraform output -json`, run here, or from a file."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from deploy.adopt.errors import AdoptError
from deploy.adopt.variables import AWS
from deploy.programs import call

NONE = "none"


class Outputs(BaseModel):
    """Those of deploy/terraform/aws/outputs.tf that deploy/ and GitHub need."""

    account_id: str
    region: str
    compute: Literal["auto", "node_groups"]
    load_balancer_cidr: str
    cluster_name: str
    """In EKS."""
    vpc_id: str
    predictions: dict[str, str]
    """The prefix of each server's log, by ENVIRONMENT/MODEL."""
    github_variables: dict[str, str] | None = None
    """None in a further region."""
    dvc_remote: str | None = None
    """None in a further region."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--outputs",
        metavar="FILE",
        help=f"what `terraform output -json` printed, - for stdin; without it, it runs in {AWS}",
    )
    parser.add_argument(
        "--program", metavar="NAME", help="terraform or tofu; without it, whichever is installed"
    )


def read(options: argparse.Namespace) -> Outputs:
    """The outputs.

    Raises:
        AdoptError: there are none, or they are not those of deploy/terraform/aws.
    """
    file: str | None = options.outputs
    text = _run(options.program) if file is None else _read(file)
    try:
        values: dict[str, Any] = {name: each["value"] for name, each in json.loads(text).items()}
        if not values:
            raise AdoptError(f"Terraform made nothing yet: apply {AWS} first (`make infrastructure`)")
        return Outputs.model_validate(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        lacks = (
            f" ({', '.join(str(each['loc'][0]) for each in error.errors())})"
            if isinstance(error, ValidationError)
            else ""
        )
        raise AdoptError(
            f"{file or AWS}: these are not the outputs of deploy/terraform/aws{lacks}: name what"
            " `terraform output -json` prints there"
        ) from None


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AdoptError(f"--outputs {file}: {error}") from None


def _run(program: str | None) -> str:
    names = [program] if program else ["terraform", "tofu"]
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise AdoptError(f"{' or '.join(names)} is not installed: install it, or name --outputs FILE")
    if not (AWS / ".terraform").is_dir():
        raise AdoptError(f"{AWS} is not initialised: run `make infrastructure` first, or name --outputs FILE")
    return call([path, f"-chdir={AWS}", "output", "-json", "-no-color"], whole=True)
