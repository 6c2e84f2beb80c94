"""Tells how to log in to a registry: outputs `host` and `kind`, which is ecr, ghcr or other.

GIVEN is true if the secrets REGISTRY_USER and REGISTRY_PASSWORD are set. ECR takes a role instead, and ghcr.io the token of
the job.
"""

from __future__ import annotations

import argparse
import os

from common.command import run
from deploy.ci import steps
from deploy.errors import RegistryError
from deploy.registry import split_repository

GITHUB = "ghcr.io"
AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".on.aws", "public.ecr.aws")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.login", description=__doc__)
    parser.add_argument("registry", metavar="REGISTRY/NAME", help="the variable REGISTRY")
    host, _ = split_repository(parser.parse_args().registry)
    steps.output(host=host, kind=kind(host, given=os.environ.get("GIVEN") == "true"))


def kind(host: str, *, given: bool) -> str:
    """How to log in.

    Raises:
        RegistryError: the registry needs a user and a password, and they are not given.
    """
    if host.endswith(AMAZON):
        return "ecr"
    if given:
        return "other"
    if host == GITHUB:
        return "ghcr"
    raise RegistryError(
        f"{host} needs a user and a password: set the secrets REGISTRY_USER and REGISTRY_PASSWORD in the environment "
        "`release` (for Artifact Registry _json_key_base64 and the key of a service account)"
    )


if __name__ == "__main__":
    run(main)
