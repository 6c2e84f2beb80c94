"""Puts your names in place of the present ones: repository, region, hosts, Argo CD, the VPC's network.

It reads the present names from deploy/ and replaces them everywhere in deploy/, monitoring/, .github/ and zensical.toml.
A second run changes nothing, and other values are replaced again. Review the changes with git diff and commit them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from common import files, overlays
from common.command import run
from deploy.errors import DeployError

PLACES = ("deploy", "monitoring", ".github", "zensical.toml")
_SKIPPED = ("__pycache__", "schemas", "tests", ".terraform")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_PATTERNS = {
    "repository": (r"https://[\w.-]+/[\w.-]+/[\w.-]+(?<!\.git)", "https://github.com/OWNER/NAME"),
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-central-1"),
    "host": (rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+", "a host's full name in small letters"),
    "staging_host": (rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+", "a host's full name in small letters"),
    "argocd_url": (rf"https://{_LABEL}(\.{_LABEL})+(:\d+)?(/[\w.-]+)*", "https://HOST of Argo CD"),
    "vpc_cidr": (r"[0-9./]+", "a network such as 10.0.0.0/16"),
}


class AdoptError(DeployError):
    """A value has the wrong form."""


@dataclass(frozen=True)
class Names:
    """The names that every adopter has to choose."""

    repository: str
    region: str
    host: str
    """Production's; a model answers at MODEL.HOST."""
    staging_host: str
    argocd_url: str
    vpc_cidr: str

    def check(self) -> None:
        """Refuse malformed values.

        Raises:
            AdoptError: names the option and the expected form.
        """
        for field in fields(self):
            value, (pattern, meant) = getattr(self, field.name), _PATTERNS[field.name]
            if not re.fullmatch(pattern, value):
                raise AdoptError(f"--{field.name.replace('_', '-')} {value!r} is not {meant}")
        try:
            ip_network(self.vpc_cidr)
        except ValueError as error:
            raise AdoptError(f"--vpc-cidr: {error}") from None
        if self.host == self.staging_host:
            raise AdoptError(f"--host and --staging-host are both {self.host}: each environment has its own")

    def replacements(self, former: Names) -> dict[str, str]:
        """The new text for each former name or part of a name."""
        here, there = (_parts(each) for each in (former, self))
        return {here[key]: there[key] for key in here if here[key] != there[key]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.adopt", description=__doc__)
    parser.add_argument("--repository", help="https://github.com/OWNER/NAME, from which Argo CD reads")
    parser.add_argument("--region", help="the AWS region of the cluster")
    parser.add_argument("--host", help="the domain of production; the model iris answers at iris.HOST")
    parser.add_argument("--staging-host", help="the domain of staging")
    parser.add_argument("--argocd-url", help="where Argo CD's own page is, for links in messages")
    parser.add_argument("--vpc-cidr", help="the VPC's network, from which the load balancer's requests come")
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    root = Path()
    former = current(root)
    wanted = Names(**{**vars(former), **given})
    wanted.check()
    changed = adopt(root, former, wanted)
    for path, number in changed.items():
        print(f"{path}: {number} replaced")
    print("read it with git diff, then: make manifests" if changed else "nothing to change")


def current(root: Path) -> Names:
    """The present names, each read from the file that defines it.

    Raises:
        AdoptError: a file is missing, or does not have the name.
    """
    try:
        project = next(yaml.safe_load_all((root / "deploy/argocd/root.yaml").read_text(encoding="utf-8")))
        messages = yaml.safe_load((root / "deploy/argocd/notifications.yaml").read_text(encoding="utf-8"))[
            "data"
        ]
        ingress = (root / "deploy/components/ingress-alb/kustomization.yaml").read_text(encoding="utf-8")
        log = (root / "deploy/components/prediction-log/kustomization.yaml").read_text(encoding="utf-8")
        return Names(
            repository=project["spec"]["sourceRepos"][0],
            region=re.findall(r"name: AWS_REGION, value: ([a-z0-9-]+)", log)[0],
            host=_host(root, "production"),
            staging_host=_host(root, "staging"),
            argocd_url=yaml.safe_load(messages["context"])["argocdUrl"],
            vpc_cidr=re.findall(r"cidr: ([0-9./]+)", ingress)[0],
        )
    except (OSError, KeyError, IndexError, StopIteration, TypeError) as error:
        raise AdoptError(
            f"deploy/ does not say what it is called now ({error!r}); run this in the top folder"
        ) from None


def adopt(root: Path, former: Names, wanted: Names) -> dict[Path, int]:
    """Replace the former names by the wanted ones, in all files or, if one cannot be read, in none.

    Returns:
        The number of replacements, by file.
    """
    replacements = wanted.replacements(former)
    if not replacements:
        return {}
    for host in {former.host, former.staging_host} & replacements.keys():
        for overlay in _overlays(root, "*"):
            model = overlay.parent.name
            replacements[f"{model}.{host}"] = f"{model}.{replacements[host]}"
    texts: dict[Path, str] = {}
    changed: dict[Path, int] = {}
    for path in _files(root):
        texts[path], number = replaced(path.read_text(encoding="utf-8"), replacements)
        if number:
            changed[path.relative_to(root)] = number
    for relative in changed:
        files.write_text(root / relative, texts[root / relative])
    return changed


def replaced(text: str, replacements: Mapping[str, str]) -> tuple[str, int]:
    """The text with each whole name replaced, and the number of replacements.

    One pass with the longest names first, so that no replacement is replaced again.
    """
    names = sorted(replacements, key=len, reverse=True)
    # A longer name that contains this one is another name; a full stop after the name ends a sentence.
    pattern = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, names))})(?![\w-]|\.\w)")
    return pattern.subn(lambda found: replacements[found[1]], text)


def _parts(names: Names) -> dict[str, str]:
    address = urlsplit(names.repository)
    path = address.path.strip("/")
    return {
        **vars(names),
        "path": path,
        # Teams, as CODEOWNERS has them.
        "teams": f"@{path.split('/')[0]}",
    }


def _overlays(root: Path, environment: str) -> list[Path]:
    """The overlays of models."""
    return sorted(root.glob(f"{overlays.FOLDER}/{environment}/*/kustomization.yaml"))


def _host(root: Path, environment: str) -> str:
    """The domain of an environment, according to the first of its models that answers below one."""
    for path in _overlays(root, environment):
        overlay = yaml.safe_load(path.read_text(encoding="utf-8"))
        patch = next(each["patch"] for each in overlay["patches"] if each["target"]["kind"] == "Ingress")
        host: str = next(each["value"] for each in yaml.safe_load(patch) if each["path"].endswith("/host"))
        model, _, domain = host.partition(".")
        if model == path.parent.name:
            return domain
    raise KeyError(f"a host of {environment}")


def _files(root: Path) -> Iterator[Path]:
    """Configuration and documentation: no code, no tests, nothing generated."""
    for place in PLACES:
        for path in sorted([root / place, *(root / place).rglob("*")]):
            inside = path.relative_to(root).parts
            if path.is_file() and path.suffix not in (".py", ".tfstate") and not set(_SKIPPED) & set(inside):
                yield path


if __name__ == "__main__":
    run(main)
