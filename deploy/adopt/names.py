"""Puts your names in place of the present ones: repository, account, region, hosts, Argo CD, the load balancers' network.

It reads the present names from deploy/ and replaces them in configuration and documentation.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from common import files, overlays
from deploy.adopt import variables
from deploy.adopt.errors import AdoptError
from deploy.adopt.networks import check_network

PLACES = ("deploy", "monitoring", ".github", "app/Dockerfile", "docs", "README.md", "zensical.toml")
_SKIPPED = ("__pycache__", "schemas", "tests", ".terraform")
_OTHER = (".py", ".tf", ".tfstate", ".png", ".jpg", ".gif", ".webp", ".ico")
_NETWORK = "deploy/components/load-balancer/networkpolicy.yaml"
"""Where requests of load balancers are let in."""
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_PATTERNS = {
    "repository": (r"https://[\w.-]+/[\w.-]+/[\w.-]+(?<!\.git)", "https://github.com/OWNER/NAME"),
    "account_id": (r"[0-9]{12}", "an account's number of twelve digits"),
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-central-1"),
    "host": (rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+", "a host's full name in small letters"),
    "staging_host": (rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+", "a host's full name in small letters"),
    "argocd_url": (rf"https://{_LABEL}(\.{_LABEL})+(:\d+)?(/[\w.-]+)*", "https://HOST of Argo CD"),
}


@dataclass(frozen=True)
class Names:
    """The names that every adopter has to choose."""

    repository: str
    account_id: str
    region: str
    host: str
    """Production's; a model answers at MODEL.HOST."""
    staging_host: str
    argocd_url: str
    load_balancer_cidr: str

    @property
    def path(self) -> str:
        """OWNER/NAME."""
        return urlsplit(self.repository).path.strip("/")

    @property
    def registry(self) -> str:
        """Of the account in the region."""
        suffix = ".cn" if self.region.startswith("cn-") else ""
        return f"{self.account_id}.dkr.ecr.{self.region}.amazonaws.com{suffix}"

    def check(self) -> None:
        """Refuse malformed values.

        Raises:
            AdoptError: names the option and the expected form.
        """
        for name, (pattern, meant) in _PATTERNS.items():
            value = getattr(self, name)
            if not re.fullmatch(pattern, value):
                raise AdoptError(f"{option(name)} {value!r} is not {meant}")
        # A VPC has at most a /16.
        check_network(option("load_balancer_cidr"), self.load_balancer_cidr, widest=16)
        if self.host == self.staging_host:
            raise AdoptError(f"--host and --staging-host are both {self.host}: each environment has its own")

    def replacements(self, former: Names) -> dict[str, str]:
        """The new text for each former name or part of a name."""
        here, there = former.parts(), self.parts()
        return {here[key]: there[key] for key in here if here[key] != there[key]}

    def parts(self) -> dict[str, str]:
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "path": self.path,
            # Teams, as CODEOWNERS has them.
            "teams": f"@{self.path.split('/')[0]}",
            "registry": self.registry,
        }


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repository", help="https://github.com/OWNER/NAME, from which Argo CD reads")
    parser.add_argument("--account-id", help="the AWS account, twelve digits")
    parser.add_argument("--region", help="the AWS region of the cluster")
    parser.add_argument("--host", help="the domain of production; the model iris answers at iris.HOST")
    parser.add_argument("--staging-host", help="the domain of staging")
    parser.add_argument("--argocd-url", help="where Argo CD's own page is, for links in messages")
    parser.add_argument(
        "--load-balancer-cidr",
        "--vpc-cidr",
        metavar="NETWORK",
        help="the network from which the load balancers' requests come; `terraform` sets it",
    )
    variables.add_options(parser)


def main(options: argparse.Namespace) -> None:
    given = {
        field.name: getattr(options, field.name)
        for field in fields(Names)
        if getattr(options, field.name) is not None
    }
    root = Path()
    former = current(root)
    wanted = Names(**{**vars(former), **given})
    wanted.check()
    written = variables.write(root, wanted.account_id, wanted.path, options)
    changed, counts = adopt(root, former, wanted)
    report(root, written, changed)
    # Only options name images of ECR.
    for name in sorted(wanted.replacements(former).keys() - counts.keys() - {former.registry}):
        print(f"note: nothing names {name}")


def report(root: Path, written: list[Path], changed: Mapping[Path, int]) -> None:
    for path in written:
        print(f"{path.relative_to(root)}: written")
    for path, number in changed.items():
        print(f"{path}: {number} replaced")
    print("read it with git diff, then: make manifests" if written or changed else "nothing to change")


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
        network = (root / _NETWORK).read_text(encoding="utf-8")
        log = (root / "deploy/components/prediction-log/kustomization.yaml").read_text(encoding="utf-8")
        return Names(
            repository=project["spec"]["sourceRepos"][0],
            account_id=variables.current(root)["account_id"],
            region=re.findall(r"name: AWS_REGION, value: ([a-z0-9-]+)", log)[0],
            host=_host(root, "production"),
            staging_host=_host(root, "staging"),
            argocd_url=yaml.safe_load(messages["context"])["argocdUrl"],
            load_balancer_cidr=re.findall(r"cidr: ([0-9./]+)", network)[0],
        )
    except (OSError, KeyError, IndexError, StopIteration, TypeError) as error:
        raise AdoptError(
            f"deploy/ does not say what it is called now ({error!r}); run this in the top folder"
        ) from None


def adopt(root: Path, former: Names, wanted: Names) -> tuple[dict[Path, int], Counter[str]]:
    """Replace the former names by the wanted ones, in all files or, if one cannot be read, in none.

    Returns:
        The number of replacements by file, and by former name.
    """
    replacements = wanted.replacements(former)
    counts: Counter[str] = Counter()
    if not replacements:
        return {}, counts
    models = {path.parent.name for path in _overlays(root, "*")}
    hosts = {former.host, former.staging_host} & replacements.keys()
    below = {f"{model}.{host}": host for model in models for host in hosts}
    texts: dict[Path, str] = {}
    changed: dict[Path, int] = {}
    more = {name: f"{name.removesuffix(host)}{replacements[host]}" for name, host in below.items()}
    for path in _files(root):
        its = {**replacements, **more}
        if path.is_relative_to(root / "deploy/terraform"):
            # There it may be the network of something else.
            its.pop(former.load_balancer_cidr, None)
        texts[path], found = replaced(path.read_text(encoding="utf-8"), its)
        counts.update(below.get(name, name) for name in found.elements())
        if found:
            changed[path.relative_to(root)] = found.total()
    for relative in changed:
        files.write_text(root / relative, texts[root / relative])
    return changed, counts


def replaced(text: str, replacements: Mapping[str, str]) -> tuple[str, Counter[str]]:
    """The text with each whole name replaced, and the number of replacements of each.

    One pass with the longest names first, so that no replacement is replaced again.
    """
    names = sorted(replacements, key=len, reverse=True)
    if not names:
        return text, Counter()
    # A longer name that contains this one is another name; a full stop after the name ends a sentence.
    pattern = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, names))})(?![\w-]|\.\w)")
    counts: Counter[str] = Counter()

    def new(found: re.Match[str]) -> str:
        counts[found[1]] += 1
        return replacements[found[1]]

    return pattern.sub(new, text), counts


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
    """Configuration and documentation: no code, no tests, no pictures, nothing generated."""
    for place in PLACES:
        for path in sorted([root / place, *(root / place).rglob("*")]):
            inside = path.relative_to(root).parts
            if path.is_file() and path.suffix not in _OTHER and not set(_SKIPPED) & set(inside):
                yield path
