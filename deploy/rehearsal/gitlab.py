"""Plays GitLab: the part of its REST API that delivery uses, on loopback and in memory.

    with GitLab("espalier-ml/espalier", origin=bare) as gitlab:
        subprocess.run(["python", "-m", "deploy.ci.comment", …], env={**os.environ, **gitlab.environment()})
        gitlab.merge(1, by="Ada")
    assert gitlab.errors == []

As strict as GitLab's documentation says: a token is needed and read from its header (401), a project that the token does not see
is unknown (404), a field that is missing is named (400), a branch has one open merge request to a target (409). What the
documentation leaves open, the source of GitLab has (lib/api). A request that no route plays gets 404 and is recorded.
A job's own token is refused: it opens no merge request and writes no note.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from deploy.rehearsal.forge import Answer, Json, Played, Refused, Request, Route, stamp

PROJECT = 7
LONGEST_NOTE = 1_000_000


class GitLabRefused(Refused):
    """What GitLab answers instead: `message` or, of parameters, `error`."""

    def __init__(self, status: int, said: str | list[str] | Json, key: str = "message") -> None:
        super().__init__(status, str(said))
        self.body = {key: said}


@dataclass
class State:
    """What the server has been told, for tests to inspect and to prepare."""

    merge_requests: list[Json] = field(default_factory=list)
    notes: list[Json] = field(default_factory=list)
    """Of merge requests and issues; `place` is the path below the project."""
    issues: list[Json] = field(default_factory=list)
    statuses: list[Json] = field(default_factory=list)
    """Of commits: jobs, by their names."""
    pipelines: list[Json] = field(default_factory=list)
    """With their `jobs`."""


class GitLab(Played):
    """GitLab with one project; see the module."""

    def __init__(
        self,
        repository: str = "espalier-ml/espalier",
        origin: Path | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        super().__init__(repository, origin, tokens)
        self.state = State()

    def environment(self, token: str = "a-token", folder: Path | None = None) -> dict[str, str]:
        """What a job of GitLab CI has, and the token that it is given; nothing is kept in `folder`."""
        return {
            "GITLAB_CI": "true",
            "GITHUB_ACTIONS": "",  # where the job around it is one of GitHub's
            "CI_API_V4_URL": f"{self.address}/api/v4",
            "CI_PROJECT_ID": str(PROJECT),
            "GITLAB_TOKEN": token,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    @property
    def site(self) -> str:
        return f"https://gitlab.localhost/{self.repository}"

    # What a person does on GitLab's pages, and its runners.

    def merge(self, number: int, by: str = "Reviewer") -> str:
        """Squash a merge request in the bare repository, as the template in docs/ci-systems.md says, and give the commit."""
        with self._lock:
            found = self._merge_request(number)
            if found["state"] != "opened":
                raise GitLabRefused(405, "405 Method Not Allowed")
            base, branch = found["target_branch"], found["source_branch"]
            tree = self._git("merge-tree", "--write-tree", "--no-messages", base, branch, check=False)
            if not re.fullmatch(r"[0-9a-f]{40}", tree):
                raise GitLabRefused(406, "Branch cannot be merged")
            email = f"{by.lower().replace(' ', '.')}@users.noreply.gitlab.localhost"
            person = {
                f"GIT_{role}_{key}": value
                for role in ("AUTHOR", "COMMITTER")
                for key, value in {"NAME": by, "EMAIL": email}.items()
            }
            message, tip = f"{found['title']} (!{number})", self._git("rev-parse", base)
            commit = self._git("commit-tree", tree, "-p", tip, "-m", message, people=person)
            self._git("update-ref", f"refs/heads/{base}", commit, tip)
            found.update(state="merged", merged_at=stamp(), squash_commit_sha=commit)
            return commit

    def open_merge_requests(self) -> list[Json]:
        with self._lock:
            return [each for each in self.state.merge_requests if each["state"] == "opened"]

    def add_status(self, commit: str, name: str, status: str = "success") -> None:
        """Record what a job said of a commit; a newer one of the same name takes its place."""
        record = {"id": next(self._ids), "sha": commit, "name": name, "status": status, "ref": "main"}
        self.state.statuses.append({**record, "allow_failure": False})

    def add_pipeline(
        self, status: str, source: str = "schedule", name: str | None = None, **jobs: str
    ) -> int:
        """A pipeline with the status of each job by its name; gives its id."""
        number = next(self._ids)
        listed = [
            {"id": next(self._ids), "name": job, "status": said, "allow_failure": said == "allowed"}
            for job, said in jobs.items()
        ]
        for each in listed:
            each["status"] = "failed" if each["allow_failure"] else each["status"]
        pipeline = {"id": number, "status": status, "source": source, "name": name, "ref": "main"}
        address = f"{self.site}/-/pipelines/{number}"
        self.state.pipelines.append({**pipeline, "web_url": address, "jobs": listed})
        return number

    # The API.

    def _token(self, headers: Message) -> str:
        return headers.get("PRIVATE-TOKEN") or super()._token(headers)

    def _answer(self, method: str, target: str, token: str, payload: bytes) -> tuple[Answer, dict[str, str]]:
        address = urlsplit(target)
        self.requests.append(f"{method} {target}")
        if not token or (self.tokens is not None and token not in self.tokens):
            raise GitLabRefused(401, "401 Unauthorized")
        login = self.tokens[token] if self.tokens else f"project_{PROJECT}_bot"
        path = address.path.removeprefix("/api/v4")
        if path == address.path:
            raise GitLabRefused(404, "404 Not Found", "error")
        if path == "/user":
            return Answer(_user(login)), {}
        projects = (f"/projects/{PROJECT}", f"/projects/{quote(self.repository, safe='')}")
        prefix = next((each for each in projects if f"{path}/".startswith(f"{each}/")), None)
        if prefix is None:
            raise GitLabRefused(404, "404 Project Not Found")
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        body = json.loads(payload) if payload else {}
        rest = path.removeprefix(prefix).removeprefix("/")
        for verb, pattern, route in self._routes():
            found = re.fullmatch(pattern, rest)
            if verb == method and found:
                request = Request(method, rest, query, body, login)
                return _page(route(request, *map(unquote, found.groups())), query)
        self.errors.append(f"{method} {target}")
        raise GitLabRefused(404, "404 Not Found", "error")

    def _routes(self) -> list[tuple[str, str, Route]]:
        number = r"(\d+)"
        place = r"((?:merge_requests|issues)/\d+)/notes"
        return [
            ("GET", "merge_requests", self._list_merge_requests),
            ("POST", "merge_requests", self._create_merge_request),
            ("GET", f"merge_requests/{number}", self._get_merge_request),
            ("PUT", f"merge_requests/{number}", self._update_merge_request),
            ("GET", place, self._list_notes),
            ("POST", place, self._create_note),
            ("PUT", f"{place}/{number}", self._update_note),
            ("GET", "repository/commits/([^/]+)/statuses", self._list_statuses),
            ("GET", f"pipelines/{number}", self._get_pipeline),
            ("GET", f"pipelines/{number}/jobs", self._list_jobs),
            ("GET", "issues", self._list_issues),
            ("POST", "issues", self._create_issue),
            ("PUT", f"issues/{number}", self._update_issue),
        ]

    # Merge requests.

    def _create_merge_request(self, request: Request) -> Answer:
        _required(request.body, "title", "source_branch", "target_branch")
        branch, base = request.body["source_branch"], request.body["target_branch"]
        if branch == base:
            raise GitLabRefused(422, ["You can't use same project/branch for source and target"])
        for each in self.open_merge_requests():
            if (each["source_branch"], each["target_branch"]) == (branch, base):
                said = f"Another open merge request already exists for this source branch: !{each['iid']}"
                raise GitLabRefused(409, [said])
        for key, name in (("source_branch", branch), ("target_branch", base)):
            # Neither documentation nor source says it in so many words; no job of ours should come to it.
            if self.origin is not None and self._tip(name) is None:
                raise GitLabRefused(400, {key: ["does not exist"]})
        number = len(self.state.merge_requests) + 1
        made: Json = {
            "id": next(self._ids),
            "iid": number,
            "project_id": PROJECT,
            "source_project_id": PROJECT,
            "target_project_id": PROJECT,
            "state": "opened",
            "title": request.body["title"],
            "description": request.body.get("description"),
            "source_branch": branch,
            "target_branch": base,
            "author": _user(request.login),
            "web_url": f"{self.site}/-/merge_requests/{number}",
            "created_at": stamp(),
        }
        self.state.merge_requests.append(made)
        return Answer(self._shown(made), 201)

    def _list_merge_requests(self, request: Request) -> Answer:
        wanted = {
            key: request.query[key] for key in ("source_branch", "target_branch") if key in request.query
        }
        state = request.query.get("state", "all")
        shown = [
            self._shown(each)
            for each in reversed(self.state.merge_requests)
            if state in ("all", each["state"]) and all(each[key] == value for key, value in wanted.items())
        ]
        return Answer(shown, pages=True)

    def _get_merge_request(self, request: Request, number: str) -> Answer:
        return Answer(self._shown(self._merge_request(int(number))))

    def _update_merge_request(self, request: Request, number: str) -> Answer:
        found = self._merge_request(int(number))
        changed: Json = {key: value for key, value in request.body.items() if key in ("title", "description")}
        if not changed and "state_event" not in request.body:
            raise GitLabRefused(400, "title, description, state_event are missing, at least one", "error")
        if request.body.get("title") == "":
            raise GitLabRefused(400, "title is empty", "error")
        found.update(changed)
        if "state_event" in request.body:
            found["state"] = {"close": "closed", "reopen": "opened"}[request.body["state_event"]]
        return Answer(self._shown(found))

    def _merge_request(self, number: int) -> Json:
        for each in self.state.merge_requests:
            if each["iid"] == number:
                return each
        raise GitLabRefused(404, "404 Not found")

    def _shown(self, found: Json) -> Json:
        """With the commit of its branch as it is now."""
        if found["state"] == "opened":
            found["sha"] = self._tip(found["source_branch"])
        return found

    # Notes.

    def _list_notes(self, request: Request, place: str) -> Answer:
        self._noteable(place)
        shown = [each for each in reversed(self.state.notes) if each["place"] == place]
        return Answer([_note(each) for each in shown], pages=True)

    def _create_note(self, request: Request, place: str) -> Answer:
        self._noteable(place)
        note = {
            "id": next(self._ids),
            "place": place,
            "body": _note_body(request),
            "author": _user(request.login),
            "system": False,
        }
        self.state.notes.append(note)
        return Answer(_note(note), 201)

    def _update_note(self, request: Request, place: str, number: str) -> Answer:
        found = next(
            (each for each in self.state.notes if each["id"] == int(number) and each["place"] == place), None
        )
        if found is None:
            raise GitLabRefused(404, "404 Not found")
        if found["author"]["username"] != request.login:
            raise GitLabRefused(403, "403 Forbidden")
        found["body"] = _note_body(request)
        return Answer(_note(found))

    def _noteable(self, place: str) -> None:
        kind, _, number = place.partition("/")
        (self._merge_request if kind == "merge_requests" else self._issue)(int(number))

    # Commits and pipelines.

    def _list_statuses(self, request: Request, commit: str) -> Answer:
        if self.origin is not None and not self._git("cat-file", "-t", commit, check=False):
            raise GitLabRefused(404, "404 Commit Not Found")
        found = [each for each in self.state.statuses if each["sha"] == commit]
        if "name" in request.query:
            found = [each for each in found if each["name"] == request.query["name"]]
        if request.query.get("all") != "true":
            found = list({each["name"]: each for each in found}.values())
        return Answer(found, pages=True)

    def _pipeline(self, number: str) -> Json:
        for each in self.state.pipelines:
            if each["id"] == int(number):
                return each
        raise GitLabRefused(404, "404 Not found")

    def _get_pipeline(self, request: Request, number: str) -> Answer:
        return Answer({key: value for key, value in self._pipeline(number).items() if key != "jobs"})

    def _list_jobs(self, request: Request, number: str) -> Answer:
        return Answer(self._pipeline(number)["jobs"], pages=True)

    # Issues.

    def _list_issues(self, request: Request) -> Answer:
        state, labels = request.query.get("state", "all"), request.query.get("labels")
        shown = [
            each
            for each in reversed(self.state.issues)
            if state in ("all", each["state"]) and (labels is None or labels in each["labels"])
        ]
        return Answer(shown, pages=True)

    def _create_issue(self, request: Request) -> Answer:
        _required(request.body, "title")
        number = len(self.state.issues) + 1
        issue: Json = {
            "id": next(self._ids),
            "iid": number,
            "state": "opened",
            "title": request.body["title"],
            "description": request.body.get("description"),
            "labels": [each for each in str(request.body.get("labels", "")).split(",") if each],
            "author": _user(request.login),
            "web_url": f"{self.site}/-/issues/{number}",
        }
        self.state.issues.append(issue)
        return Answer(issue, 201)

    def _update_issue(self, request: Request, number: str) -> Answer:
        issue = self._issue(int(number))
        if "state_event" in request.body:
            issue["state"] = {"close": "closed", "reopen": "opened"}[request.body["state_event"]]
        return Answer(issue)

    def _issue(self, number: int) -> Json:
        for each in self.state.issues:
            if each["iid"] == number:
                return each
        raise GitLabRefused(404, "404 Not found")


def _page(answer: Answer, query: dict[str, str]) -> tuple[Answer, dict[str, str]]:
    """GitLab gives twenty of a list, at most a hundred, and the number of the next page; an empty one at the end."""
    if not answer.pages:
        return answer, {}
    size, page = min(int(query.get("per_page", 20)), 100), int(query.get("page", 1))
    more = len(answer.body) > page * size
    shown = answer.body[(page - 1) * size : page * size]
    return Answer(shown, answer.status), {"X-Next-Page": str(page + 1) if more else ""}


def _required(body: Json, *names: str) -> None:
    if missing := [f"{name} is missing" for name in names if not body.get(name)]:
        raise GitLabRefused(400, ", ".join(missing), "error")


def _note_body(request: Request) -> str:
    _required(request.body, "body")
    body = str(request.body["body"])
    if len(body) > LONGEST_NOTE:
        raise GitLabRefused(400, {"note": ["is too long (maximum is 1000000 characters)"]})
    if action := re.search(r"^/\w+", body, re.MULTILINE):
        raise RuntimeError(f"a note has the quick action {action[0]}")
    return body


def _note(note: Json) -> Json:
    return {key: value for key, value in note.items() if key != "place"}


def _user(login: str) -> Json:
    """The number of a user follows from the name."""
    return {"id": sum(login.encode()), "username": login, "state": "active"}
