from __future__ import annotations

from pathlib import Path

import pytest

from deploy.ci import login
from tests.deploy.conftest import Call


@pytest.mark.parametrize(
    ("registry", "given", "said"),
    [
        ("111122223333.dkr.ecr.eu-central-1.amazonaws.com/espalier", "false", "111122223333.dkr.ecr.eu-central-1.amazonaws.com ecr"),
        ("111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/team/espalier", "true", "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn ecr"),
        ("public.ecr.aws/abc/espalier", "false", "public.ecr.aws ecr"),
        ("ghcr.io/espalier-ml/espalier", "false", "ghcr.io ghcr"),
        ("ghcr.io/espalier-ml/espalier", "true", "ghcr.io other"),
        ("europe-west3-docker.pkg.dev/project/images/espalier", "true", "europe-west3-docker.pkg.dev other"),
        ("registry.example.com:5000/espalier", "true", "registry.example.com:5000 other"),
    ],
)  # fmt: skip
def test_the_host_decides_how_to_log_in(
    call: Call, tmp_path: Path, registry: str, given: str, said: str
) -> None:
    done = call(login.main, tmp_path, registry, GIVEN=given)
    host, kind = said.split()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"host={host}\nkind={kind}\n")


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ("europe-west3-docker.pkg.dev/project/images/espalier", "set the secrets REGISTRY_USER and REGISTRY_PASSWORD"),
        ("notamazonaws.com/espalier", "needs a user and a password"),
        ("ghcr.io.example.com/espalier", "needs a user and a password"),
        ("ghcr.io/Espalier-ML/espalier", "in lower case"),
        ("ghcr.io/espalier:latest", "without tag"),
        ("https://ghcr.io/espalier", "must be REGISTRY/NAME"),
        ("espalier", "must be REGISTRY/NAME"),
        ("", "must be REGISTRY/NAME"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_remedy(
    call: Call, tmp_path: Path, registry: str, said: str
) -> None:
    done = call(login.main, tmp_path, registry, GIVEN="false")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
