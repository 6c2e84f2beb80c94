"""GitLab: calls its REST API with the token in GITLAB_TOKEN, which may be a project's, a group's or a person's.

In a job of GitLab CI the variables of the job name API and project; elsewhere the address of `origin` does. A text that comes to
GitLab can be a command to it: a line that begins with `/close` or `/merge` is a quick action, with the rights of the token.
So no line of ours begins with a slash.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from common.git import attempt
from deploy.errors import GitLabError
from deploy.forge.base import ENDED, EndedRun, Forge, Json

SECONDS = 60
PAGE = 100
_QUICK_ACTION = re.compile(r"^(\s*)/(?=\w)", re.MULTILINE)
_SCP = re.compile(r"(?:[^/@]+@)?([^/:]+):(?!//)(.+)")
"""git@gitlab.com:group/project.git"""


def origin_of() -> tuple[str, str]:
    """The host of `origin` and the path of the repository there; two empty texts if the clone has no such address."""
    said = attempt("config", "--get", "remote.origin.url")
    address = said.stdout.decode(errors="replace").strip()
    short = _SCP.fullmatch(address)
    if short:
        host, path = short[1], short[2]
    else:
        parts = urlsplit(address)
        host, path = parts.hostname or "", parts.path
    return host, path.strip("/").removesuffix(".git")


class GitLab(Forge):
    """A project on GitLab."""

    pusher = ("oauth2", "GITLAB_TOKEN")
    without_token = "there is no token to do it (the variable GITLAB_TOKEN of the environment pipeline)"  # noqa: S105

    def propose(self, branch: str, base: str, title: str, body: str) -> tuple[str, bool]:
        body = harmless(body)
        found = self._open(branch, base)
        if found is None:
            fields = {"source_branch": branch, "target_branch": base, "title": title, "description": body}
            try:
                made = self._send("POST", "merge_requests", **fields, remove_source_branch=True)
            except GitLabError:
                # Another job may have opened it since; GitLab then answers 409.
                found = self._open(branch, base)
                if found is None:
                    raise
            else:
                return str(made["web_url"]), True
        if (found["title"], found["description"]) != (title, body):
            found = self._send("PUT", f"merge_requests/{int(found['iid'])}", title=title, description=body)
        return str(found["web_url"]), False

    def comment(self, number: int, marker: str, body: str) -> str:
        body, notes = harmless(body), f"merge_requests/{number}/notes"
        ours = self._get("/user")["id"]
        former = next(
            (
                each
                for each in self._all(notes)
                if each["author"]["id"] == ours
                and not each["system"]
                and str(each["body"]).startswith(marker)
            ),
            None,
        )
        if former is None:
            former = self._send("POST", notes, body=body)
        elif former["body"] != body:
            former = self._send("PUT", f"{notes}/{int(former['id'])}", body=body)
        address = self._get(f"merge_requests/{number}")["web_url"]
        return f"{address}#note_{former['id']}"

    def check(self, commit: str, name: str) -> list[str]:
        # A job is a status of its commit under its name, and so is what another CI system reports.
        return [str(each["status"]) for each in self._all(f"repository/commits/{commit}/statuses", name=name)]

    def ended_run(self, number: int) -> EndedRun:
        run = self._get(f"pipelines/{number}")
        jobs = list(self._all(f"pipelines/{number}/jobs"))
        failed = sorted(
            str(each["name"]) for each in jobs if each["status"] == "failed" and not each["allow_failure"]
        )
        # The job that asks is one of the pipeline, which therefore still runs.
        status = str(run["status"])
        said = ("failed" if failed else "success") if status == "running" else status
        return EndedRun(
            name=str(run.get("name") or run["source"]),
            after_push=run["source"] == "push",
            conclusion=ENDED.get(said, "other"),
            said=said,
            address=str(run["web_url"]),
            failed=tuple(failed),
        )

    def find_issue(self, title: str, label: str) -> Json | None:
        ours = self._get("/user")["id"]
        for each in self._all("issues", state="opened", labels=label):
            if each["title"] == title and each["author"]["id"] == ours:
                return {**each, "number": each["iid"], "address": each["web_url"]}
        return None

    def open_issue(self, title: str, body: str, label: str) -> str:
        return str(
            self._send("POST", "issues", title=title, description=harmless(body), labels=label)["web_url"]
        )

    def comment_issue(self, number: int, body: str) -> None:
        self._send("POST", f"issues/{number}/notes", body=harmless(body))

    def close_issue(self, number: int) -> None:
        self._send("PUT", f"issues/{number}", state_event="close")

    def _open(self, branch: str, base: str) -> Json | None:
        """The open merge request of a branch of this project."""
        found = self._all("merge_requests", state="opened", source_branch=branch, target_branch=base)
        return next((each for each in found if each["source_project_id"] == each["target_project_id"]), None)

    def _get(self, path: str, **parameters: str | int) -> Any:
        return self._request("GET", path, parameters)[0]

    def _all(self, path: str, **parameters: str | int) -> Iterator[Json]:
        """All pages of a list."""
        page = "1"
        while page:
            found, page = self._request("GET", path, {**parameters, "per_page": PAGE, "page": page})
            yield from found

    def _send(self, method: Literal["POST", "PUT"], path: str, **body: Any) -> Any:
        return self._request(method, path, {}, json.dumps(body).encode())[0]

    def _request(
        self, method: str, path: str, parameters: dict[str, Any], content: bytes | None = None
    ) -> tuple[Any, str]:
        """The answer, and the number of the next page if there is one."""
        token = os.environ.get("GITLAB_TOKEN")
        if not token:
            raise GitLabError(f"GitLab: no token ({method} {path}); set GITLAB_TOKEN (docs/ci-systems.md)")
        api, project = _place()
        address = api + (path if path.startswith("/") else f"/projects/{project}/{path}".rstrip("/"))
        if parameters:
            address += "?" + urlencode(parameters, quote_via=quote, safe="")
        headers = {"PRIVATE-TOKEN": token, "Content-Type": "application/json"}
        request = urllib.request.Request(address, content, headers, method=method)  # noqa: S310 - checked below
        if request.type not in ("http", "https"):
            raise GitLabError(f"GitLab: {api} is no address of its API; set CI_API_V4_URL")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                return json.loads(answer.read()), answer.headers.get("X-Next-Page") or ""
        except urllib.error.HTTPError as error:
            with error:
                raise GitLabError(_reason(method, path, error.code, error.read())) from None
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise GitLabError(f"GitLab cannot be reached: {reason} ({method} {path})") from None
        except ValueError:
            raise GitLabError(f"GitLab did not answer with JSON ({method} {path})") from None


def harmless(text: str) -> str:
    """The text without quick actions: what looks like one is shown, and does nothing."""
    return _QUICK_ACTION.sub(r"\1\\/", text)


def _place() -> tuple[str, str]:
    """The address of the API and the project's name in it."""
    host, path = origin_of()
    api = os.environ.get("CI_API_V4_URL") or (f"https://{host}/api/v4" if host else "")
    project = os.environ.get("CI_PROJECT_ID") or quote(path, safe="")
    if not api or not project:
        raise GitLabError(
            "GitLab: `origin` is no address of a project; set CI_API_V4_URL and CI_PROJECT_ID, or the address"
        )
    return api.rstrip("/"), project


def _reason(method: str, path: str, status: int, content: bytes) -> str:
    """One line: what GitLab said, and the remedy."""
    try:
        document = json.loads(content)
        said = document.get("message") or document.get("error_description") or document.get("error")
    except (ValueError, AttributeError):
        said = None
    remedies = {
        401: "; GITLAB_TOKEN must be a token that is valid",
        403: "; the token needs the scope api and the role Developer or higher",
        404: "; CI_PROJECT_ID or `origin` must be right, and the token must see the project",
    }
    return f"GitLab: {_flat(said) or f'HTTP {status}'} ({method} {path}){remedies.get(status, '')}"


def _flat(said: Any) -> str:
    """GitLab's messages are texts, lists, or lists by field."""
    if isinstance(said, dict):
        return "; ".join(f"{key}: {_flat(value)}" for key, value in said.items())
    if isinstance(said, list):
        return "; ".join(map(_flat, said))
    return " ".join(str(said or "").split())
