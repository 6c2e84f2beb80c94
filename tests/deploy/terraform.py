"""Terraform for tests: in a copy of deploy/, because it writes beside what it reads, and with a provider that is on the machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.project import ROOT
from tests.tools import missing, require

ROOTS = ("aws", "bootstrap")
"""The configurations that are applied, with their tests."""
PROVIDER = Path("registry.terraform.io/hashicorp/aws")
OPENTOFU = Path("registry.opentofu.org/hashicorp/aws")
"""Under which OpenTofu looks for the same provider."""
MIRRORS = ("/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins", "/opt/*")
"""Where providers may lie on a machine without a registry, beside ~/.terraform.d/plugins."""


@dataclass(frozen=True)
class Program:
    path: str
    deploy: Path
    environment: dict[str, str]

    def __call__(self, root: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path, *arguments, "-no-color"],
            cwd=self.deploy / "terraform" / root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )

    def done(self, root: str, *arguments: str) -> str:
        """What it prints; the test fails if it fails."""
        done = self(root, *arguments)
        if done.returncode and arguments[0] == "init" and "provider" in done.stdout:
            missing("terraform's provider hashicorp/aws")
        assert done.returncode == 0, done.stdout
        return done.stdout


def copied(folder: Path, environment: Mapping[str, str] | None = None, path: str | None = None) -> Program:
    """Terraform, or the program at a path, in a copy, with nothing of this machine's settings."""
    path = path or require("terraform")
    for name in ("overlays", "terraform"):
        ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*")
        shutil.copytree(ROOT / "deploy" / name, folder / "deploy" / name, ignore=ignored)
    given = {"HOME": str(folder), "PATH": "/usr/bin:/bin", **providers(folder), **(environment or {})}
    return Program(path, folder / "deploy", given)


def providers(folder: Path) -> dict[str, str]:
    """The variable that has Terraform read its providers from a mirror, if the machine has one."""
    places = [Path.home() / ".terraform.d/plugins"]
    places += [found for mirror in MIRRORS for found in Path("/").glob(mirror[1:])]
    mirror = next((place for place in places if (place / PROVIDER).is_dir()), None)
    if mirror:
        mirror = _with_opentofus(mirror, folder / "mirror")
    configuration = folder / "terraformrc"
    configuration.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'
        if mirror
        else ""
    )
    return {"TF_CLI_CONFIG_FILE": str(configuration)}


def _with_opentofus(mirror: Path, folder: Path) -> Path:
    """A mirror that has the provider under both names. Only the last folder of a path may be a link."""
    for each in mirror.glob(f"{PROVIDER}/*/*"):
        for name in (PROVIDER, OPENTOFU):
            link = folder / name / each.relative_to(mirror / PROVIDER)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(each)
    return folder
