"""Sets up the repository on GitHub: environments, variables, secrets, the rules of main, and the rights of workflows.

Run it as an admin of the repository (`gh auth login`). What is as it should be stays, so a second run does nothing. Secrets
cannot be read, so one that exists stays, unless you ask to replace it. The tokens MLFLOW_TRACKING_TOKEN,
PROMETHEUS_TOKEN and WANDB_API_KEY are taken from variables of the shell.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common import files
from deploy.adopt import apps, names, outputs, owners
from deploy.adopt.apps import App
from deploy.adopt.errors import AdoptError
from deploy.forge import github

Json = dict[str, Any]
RULESET = Path(".github/rulesets/main.json")
ENVIRONMENTS = ("pipeline", "release")
TOKENS = {
    "MLFLOW_TRACKING_TOKEN": ENVIRONMENTS,
    "PROMETHEUS_TOKEN": ENVIRONMENTS,
    "WANDB_API_KEY": ("pipeline",),
}
"""Secrets that come from variables of the shell, and the environments whose jobs read them."""
KEY = "APP_PRIVATE_KEY"
MAIN_ONLY = {"protected_branches": False, "custom_branch_policies": True}


@dataclass(frozen=True)
class Change:
    what: str
    make: Callable[[], object]


@dataclass(frozen=True)
class Wanted:
    """What the repository should have."""

    variables: dict[str, str]
    apps: dict[str, App] = field(default_factory=dict)
    """By environment."""
    secrets: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)
    """By environment and name."""
    create_apps: bool = False
    replace_secrets: bool = False

    def keep(self, environment: str, app: App) -> None:
        """Take an App with its key, which GitHub gives once."""
        self.apps[environment] = app
        self.secrets[environment, KEY] = app.key


def add_options(parser: argparse.ArgumentParser) -> None:
    outputs.add_options(parser)
    parser.add_argument(
        "--variable",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable that Terraform does not know, such as PROMETHEUS_URL=https://…; may be repeated",
    )
    for environment in ENVIRONMENTS:
        parser.add_argument(f"--{environment}-app", metavar="SLUG", help=f"the GitHub App of `{environment}`")
        parser.add_argument(
            f"--{environment}-key", metavar="FILE", type=Path, help="its private key, as GitHub gave it"
        )
    parser.add_argument(
        "--create-apps",
        action="store_true",
        help="create both Apps with a browser: GitHub asks for a click to create and one to install each",
    )
    parser.add_argument("--replace-secrets", action="store_true", help="send secrets that exist again")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")


def main(options: argparse.Namespace) -> None:
    root = Path()
    os.environ["GH_REPO"] = names.current(root).path
    wanted = _wanted(options)
    repository = github.get("")
    if not repository.get("permissions", {}).get("admin"):
        raise AdoptError(
            f"you are not an admin of {repository['full_name']}: sign in as one with `gh auth login`, or adopt your own name first"
        )
    made = _make(changes(root, repository, wanted), dry=options.dry_run)
    number = f"{made} change{'s' if made > 1 else ''}" + (" to make" if options.dry_run else "")
    print(number if made else "nothing to do")


def changes(root: Path, repository: Json, wanted: Wanted) -> Iterator[Change]:
    """What is not as it should be, in order; each is found after those before it were made."""
    owner = repository["owner"]
    yield from _actions()
    existing = {each["name"]: each for each in _listed("environments", "environments")}
    yield from _environments(existing)
    yield from _variables("actions/variables", wanted.variables, "of the repository")
    for environment in ENVIRONMENTS:
        exists = environment in existing
        if wanted.create_apps and not _has_app(environment, exists or environment == "pipeline"):
            yield Change(
                f"create the App of {environment}",
                partial(_create_app, environment, owner, wanted),
            )
        yield from _app(environment, wanted, exists=exists)
    alone = owner["type"] == "User"
    if alone:
        yield from _owners(root, owner["login"])
    yield from _rules(root, wanted.apps.get("release"), alone and _has_one_writer())


def _make(found: Iterator[Change], *, dry: bool = False) -> int:
    made = 0
    for change in found:
        if not dry:
            change.make()
        print(("would " if dry else "") + change.what, flush=True)
        made += 1
    return made


def _wanted(options: argparse.Namespace) -> Wanted:
    variables = {}
    if options.outputs != outputs.NONE:
        variables = outputs.read(options).github_variables or {}
    read = {
        name
        for path in Path(".github").rglob("*.yml")
        for name in re.findall(r"\bvars\.([A-Z_]+)", path.read_text(encoding="utf-8"))
    }
    for each in options.variable:
        name, _, value = each.partition("=")
        if not value or name not in read - {"APP_ID"}:
            raise AdoptError(
                f"--variable {each!r} is not NAME=VALUE with one of {', '.join(sorted(read - {'APP_ID'}))}"
            )
        variables[name] = value
    wanted = Wanted(variables, create_apps=options.create_apps, replace_secrets=options.replace_secrets)
    for environment in ENVIRONMENTS:
        slug, key = getattr(options, f"{environment}_app"), getattr(options, f"{environment}_key")
        if slug:
            wanted.apps[environment] = apps.find(slug)
        if key:
            wanted.secrets[environment, KEY] = _private_key(key, f"--{environment}-key")
    if len({app.number for app in wanted.apps.values()}) < len(wanted.apps):
        raise AdoptError(
            "--pipeline-app and --release-app are the same App: a pull request could use the one that bypasses the rules"
        )
    for name, environments in TOKENS.items():
        if value := os.environ.get(name):
            wanted.secrets.update({(environment, name): value for environment in environments})
    return wanted


def _private_key(file: Path, option: str) -> str:
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise AdoptError(f"{option} {file}: {error}") from None
    if not re.match(r"-----BEGIN (RSA )?PRIVATE KEY-----\n", text):
        raise AdoptError(f"{option} {file} is not a private key as GitHub gives it (.pem)")
    return text


def _actions() -> Iterator[Change]:
    if not github.get("actions/permissions")["enabled"]:
        yield Change(
            "enable Actions",
            partial(github.send, "PUT", "actions/permissions", enabled=True, allowed_actions="all"),
        )
    read = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}
    found = github.get("actions/permissions/workflow")
    if {key: found[key] for key in read} != read:
        yield Change(
            "let workflows only read, unless a job says more",
            partial(github.send, "PUT", "actions/permissions/workflow", **read),
        )


def _create_app(environment: str, owner: Json, wanted: Wanted) -> None:
    wanted.keep(environment, apps.create(environment, owner))


def _environments(existing: dict[str, Json]) -> Iterator[Change]:
    if "pipeline" not in existing:
        yield Change("create the environment pipeline", partial(github.send, "PUT", "environments/pipeline"))
    policies = "environments/release/deployment-branch-policies"
    restricted = existing.get("release", {}).get("deployment_branch_policy") == MAIN_ONLY
    if not restricted:
        yield Change(
            "restrict the environment release to chosen branches"
            if "release" in existing
            else "create the environment release",
            partial(github.send, "PUT", "environments/release", deployment_branch_policy=MAIN_ONLY),
        )
    branches = _listed(policies, "branch_policies") if restricted else []
    if not any(each["name"] == "main" for each in branches):
        yield Change(
            "let main use the environment release", partial(github.send, "POST", policies, name="main")
        )
    for each in branches:
        if each["name"] != "main":
            yield Change(
                f"keep {each['name']} out of the environment release",
                partial(github.send, "DELETE", f"{policies}/{each['id']}"),
            )


def _place(environment: str) -> tuple[str, str]:
    """Where an environment's APP_ID is: that of `pipeline` is the repository's, for jobs without an environment."""
    if environment == "pipeline":
        return "actions/variables", "of the repository"
    return f"environments/{environment}/variables", f"of {environment}"


def _has_app(environment: str, exists: bool) -> bool:
    found = _listed(_place(environment)[0], "variables") if exists else []
    return any(each["name"] == "APP_ID" for each in found)


def _app(environment: str, wanted: Wanted, *, exists: bool) -> Iterator[Change]:
    """The variable and the secrets of an environment."""
    app, secrets = wanted.apps.get(environment), f"environments/{environment}/secrets"
    if app:
        path, whose = _place(environment)
        # That of the repository exists in any case.
        yield from _variables(
            path, {"APP_ID": app.client_id}, whose, exists=exists or environment == "pipeline"
        )
    found = {each["name"] for each in _listed(secrets, "secrets")} if exists else set()
    for (where, name), value in wanted.secrets.items():
        new = name not in found or wanted.replace_secrets or (name == KEY and app is not None and app.key)
        if where == environment and new:
            yield Change(
                f"set the secret {name} of {environment}",
                partial(github.set_secret, environment, name, value),
            )


def _variables(path: str, values: dict[str, str], whose: str, *, exists: bool = True) -> Iterator[Change]:
    found = {each["name"]: each["value"] for each in _listed(path, "variables")} if exists else {}
    for name, value in sorted(values.items()):
        if name not in found:
            yield Change(
                f"set the variable {name} {whose} to {value}",
                partial(github.send, "POST", path, name=name, value=value),
            )
        elif found[name] != value:
            yield Change(
                f"change the variable {name} {whose} from {found[name]} to {value}",
                partial(github.send, "PATCH", f"{path}/{name}", name=name, value=value),
            )


def _owners(root: Path, login: str) -> Iterator[Change]:
    path = root / owners.FILE
    text = path.read_text(encoding="utf-8")
    if (new := owners.without_teams(text, login)) != text:
        yield Change(
            f"write {owners.FILE}: @{login} in place of teams, which a user does not have",
            partial(files.write_text, path, new),
        )


def _has_one_writer() -> bool:
    """Whether the owner alone could review."""
    writers = [each for each in github.get_all("collaborators") if each["permissions"]["push"]]
    return len(writers) <= 1


def _rules(root: Path, release: App | None, alone: bool) -> Iterator[Change]:
    rules: Json = json.loads((root / RULESET).read_text(encoding="utf-8"))
    if alone:
        rules = owners.for_one_person(rules)
    known = next(
        (
            each
            for each in github.get_all("rulesets", includes_parents="false")
            if each["name"] == rules["name"]
        ),
        None,
    )
    found = github.get(f"rulesets/{known['id']}") if known else {}
    if release:
        rules["bypass_actors"] = [
            {"actor_id": release.number, "actor_type": "Integration", "bypass_mode": "always"}
        ]
    else:
        rules["bypass_actors"] = found.get("bypass_actors", [])
    named = f"the rules of {rules['name']}" + (", for one person" if alone else "")
    if not known:
        yield Change(f"set {named}", partial(github.send, "POST", "rulesets", **rules))
    elif not _covers(found, rules) or len(found["rules"]) != len(rules["rules"]):
        yield Change(f"change {named}", partial(github.send, "PUT", f"rulesets/{known['id']}", **rules))


def _covers(found: Any, wanted: Any) -> bool:
    """Whether it has all that is wanted. GitHub adds fields of its own, and may order rules otherwise."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and _covers(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(any(_covers(it, each) for it in found) for each in wanted)
    return bool(found == wanted)


def _listed(path: str, key: str) -> list[Json]:
    """All of a list that GitHub puts into an object."""
    found: list[Json] = []
    while True:
        answer = github.get(path, per_page=30, page=len(found) // 30 + 1)
        found += answer[key]
        if not answer[key] or len(found) >= answer["total_count"]:
            return found
