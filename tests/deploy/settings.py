"""Adds the settings of a repository to the GitHub that tests play: environments, variables, secrets, rules and Apps.

A person's browser is `create_app`. Answers have fields that GitHub adds, as far as a comparison could stumble over them.
"""

from __future__ import annotations

import html
import json
import re
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deploy.rehearsal.forge import Answer, Json, Refused, Request, Route, by_id
from tests.deploy.github import FakeGitHub

PUBLIC_KEY = "jJSUXMMkqjcXu2cvDwIWGxGxY7lHLJq9GGYN3wWxYgE="
PEM = "-----BEGIN RSA PRIVATE KEY-----\nnobody-may-see-{}\n-----END RSA PRIVATE KEY-----\n"
NUMBERS = {"owner": 4242, "repository": 777}


class SettingsGitHub(FakeGitHub):
    """GitHub for one repository, as its admin sees it."""

    def __init__(self, repository: str, origin: Path | None = None, *, owner: str = "Organization") -> None:
        super().__init__(repository, origin, {"a-token": repository.partition("/")[0]})
        self.owner_type = owner
        self.admin = True
        self.actions: Json = {"enabled": True, "allowed_actions": "all"}
        self.workflow: Json = {
            "default_workflow_permissions": "write",
            "can_approve_pull_request_reviews": False,
        }
        self.environments: dict[str, Json] = {}
        self.branches: dict[str, list[Json]] = {}
        self.variables: dict[str, dict[str, str]] = {"": {}}
        """By environment; the repository's under no name."""
        self.secrets: dict[str, dict[str, str]] = {}
        """What was sent, encrypted."""
        self.rulesets: list[Json] = []
        self.writers = ["ada"]
        self.apps: dict[str, Json] = {}
        self._codes: dict[str, str] = {}

    def add_app(self, slug: str, **permissions: str) -> Json:
        allowed = permissions or {"contents": "write", "pull_requests": "write", "metadata": "read"}
        app: Json = {"id": next(self._ids), "slug": slug, "permissions": allowed}
        self.apps[slug] = app | {"client_id": f"Iv23{app['id']}"}
        return self.apps[slug]

    def create_app(self, address: str) -> None:
        """What a browser does at the address, and a person with one click."""
        page = urllib.request.urlopen(address, timeout=10).read().decode()
        action = urlsplit(html.unescape(re.findall(r'action="([^"]+)"', page)[0]))
        manifest = json.loads(html.unescape(re.findall(r'name="manifest" value="([^"]+)"', page)[0]))
        owner = self.repository.split("/")[0]
        place = "" if self.owner_type == "User" else f"/organizations/{owner}"
        assert action.path == f"{place}/settings/apps/new"
        assert manifest["default_permissions"] == {"contents": "write", "pull_requests": "write"}
        assert "hook_attributes" not in manifest
        self.add_app(manifest["name"], **manifest["default_permissions"])
        code = f"code-{len(self._codes)}"
        self._codes[code] = manifest["name"]
        (state,) = parse_qs(action.query)["state"]
        urllib.request.urlopen(f"{manifest['redirect_url']}?code={code}&state={state}", timeout=10).read()

    def _answer(
        self, method: str, target: str, authorization: str, payload: bytes
    ) -> tuple[Answer, dict[str, str]]:
        path = urlsplit(target).path
        if found := re.fullmatch(r"/apps/([\w-]+)", path):
            if found[1] not in self.apps:
                raise Refused(404, "Not Found")
            return Answer(self.apps[found[1]]), {}
        if method == "POST" and (found := re.fullmatch(r"/app-manifests/([\w-]+)/conversions", path)):
            slug = self._codes.pop(found[1])
            return Answer({**self.apps[slug], "pem": PEM.format(slug)}, 201), {}
        return super()._answer(method, target, authorization, payload)

    def _routes(self) -> list[tuple[str, str, Route]]:
        named, inside = r"([\w-]+)", r"(?:environments/)?([\w-]+)"
        policies = rf"environments/{named}/deployment-branch-policies"
        return [
            ("GET", "actions/permissions", lambda _: Answer(self.actions)),
            ("PUT", "actions/permissions", lambda request: self._put(self.actions, request)),
            ("GET", "actions/permissions/workflow", lambda _: Answer(self.workflow)),
            ("PUT", "actions/permissions/workflow", lambda request: self._put(self.workflow, request)),
            ("GET", "environments", lambda _: _many("environments", list(self.environments.values()))),
            ("PUT", f"environments/{named}", self._put_environment),
            ("GET", policies, lambda _, name: _many("branch_policies", self.branches[name])),
            ("POST", policies, self._add_branch),
            ("DELETE", rf"{policies}/(\d+)", self._delete_branch),
            ("GET", f"{inside}/variables", self._list_variables),
            ("POST", f"{inside}/variables", self._add_variable),
            ("PATCH", f"{inside}/variables/{named}", self._change_variable),
            ("GET", f"environments/{named}/secrets", self._list_secrets),
            ("GET", f"environments/{named}/secrets/public-key", self._public_key),
            ("PUT", f"environments/{named}/secrets/{named}", self._put_secret),
            ("GET", "collaborators", lambda _: Answer(self._collaborators(), pages=True)),
            ("GET", "rulesets", lambda _: Answer([_short(each) for each in self.rulesets], pages=True)),
            ("POST", "rulesets", self._add_ruleset),
            ("GET", r"rulesets/(\d+)", lambda _, number: Answer(by_id(self.rulesets, number))),
            ("PUT", r"rulesets/(\d+)", self._put_ruleset),
            *super()._routes(),
        ]

    def _repository(self, request: Request) -> Answer:
        login = self.repository.split("/")[0]
        owner = {"login": login, "id": NUMBERS["owner"], "type": self.owner_type}
        known = {"full_name": self.repository, "id": NUMBERS["repository"], "default_branch": "main"}
        return Answer(known | {"owner": owner, "permissions": {"admin": self.admin, "push": True}})

    def _put(self, kept: Json, request: Request) -> Answer:
        kept.update(request.body)
        return Answer(None, 204)

    def _put_environment(self, request: Request, name: str) -> Answer:
        policy = request.body.get("deployment_branch_policy")
        self.environments[name] = {"name": name, "deployment_branch_policy": policy}
        self.variables.setdefault(name, {})
        self.secrets.setdefault(name, {})
        self.branches.setdefault(name, [])
        return Answer(self.environments[name])

    def _add_branch(self, request: Request, name: str) -> Answer:
        policy = self.environments[name]["deployment_branch_policy"]
        if not (policy or {}).get("custom_branch_policies"):
            raise Refused(404, "Not Found")
        self.branches[name].append({"id": next(self._ids), "name": request.body["name"], "type": "branch"})
        return Answer(self.branches[name][-1])

    def _delete_branch(self, request: Request, name: str, number: str) -> Answer:
        self.branches[name].remove(by_id(self.branches[name], number))
        return Answer(None, 204)

    def _inside(self, place: str) -> dict[str, str]:
        found = self.variables.get("" if place == "actions" else place)
        if found is None:
            raise Refused(404, "Not Found")
        return found

    def _list_variables(self, request: Request, place: str) -> Answer:
        found = [{"name": name, "value": value} for name, value in self._inside(place).items()]
        return _many("variables", found, request)

    def _add_variable(self, request: Request, place: str) -> Answer:
        if request.body["name"] in self._inside(place):
            raise Refused(409, "Already exists - Variable already exists")
        self._inside(place)[request.body["name"]] = request.body["value"]
        return Answer({}, 201)

    def _change_variable(self, request: Request, place: str, name: str) -> Answer:
        if name not in self._inside(place):
            raise Refused(404, "Not Found")
        self._inside(place)[name] = request.body["value"]
        return Answer(None, 204)

    def _list_secrets(self, request: Request, place: str) -> Answer:
        return _many("secrets", [{"name": name} for name in self.secrets[place]])

    def _public_key(self, request: Request, place: str) -> Answer:
        return Answer({"key_id": "1", "key": PUBLIC_KEY})

    def _put_secret(self, request: Request, place: str, name: str) -> Answer:
        self.secrets[place][name] = request.body["encrypted_value"]
        return Answer(None, 201)

    def _collaborators(self) -> list[Json]:
        return [{"login": each, "permissions": {"push": True}} for each in self.writers]

    def _add_ruleset(self, request: Request) -> Answer:
        if any(each["name"] == request.body["name"] for each in self.rulesets):
            raise Refused(422, "Name must be unique")
        self.rulesets.append({"id": next(self._ids), **_completed(request.body)})
        return Answer(self.rulesets[-1], 201)

    def _put_ruleset(self, request: Request, number: str) -> Answer:
        by_id(self.rulesets, number).update(_completed(request.body))
        return Answer(by_id(self.rulesets, number))


def _completed(ruleset: Json) -> Json:
    """With what GitHub adds, in another order."""
    rules = [
        {**rule, "parameters": {**rule["parameters"], "required_reviewers": []}}
        if "parameters" in rule
        else rule
        for rule in reversed(ruleset["rules"])
    ]
    return {**ruleset, "rules": rules, "source_type": "Repository", "current_user_can_bypass": "never"}


def _short(ruleset: Json) -> Json:
    return {key: ruleset[key] for key in ("id", "name", "target", "enforcement")}


def _many(key: str, found: list[Any], request: Request | None = None) -> Answer:
    size = int(request.query["per_page"]) if request else 30
    page = int(request.query["page"]) if request else 1
    assert size <= 30
    return Answer({"total_count": len(found), key: found[(page - 1) * size : page * size]})
