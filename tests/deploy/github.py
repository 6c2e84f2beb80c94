"""Plays GitHub: the part of its REST API that delivery uses, on loopback, in memory.

GitHub itself cannot run on a laptop, and no test may need an account. So everything on our side is real, the `gh`
program included, and only the far end is played: `gh` talks plain HTTP to the host `github.localhost`, which needs no
name server when the requests go through an HTTP proxy, and this server is that proxy.

    with FakeGitHub("espalier-ml/espalier", origin=bare) as github:
        subprocess.run(["gh", "api", "repos/{owner}/{repo}/pulls"], env={**os.environ, **github.environment()})
        github.merge(1, method="squash", by="Ada")
    assert github.errors == []

With `origin`, a bare repository, pull requests are as strict as GitHub's: the branch must be there, must differ from
its base, and can be merged in any of the three ways. Git fetches from `http://github.localhost/OWNER/NAME`, which git's
own server program answers. An answer of the API has an ETag, and a client that names it hears 304. What a route does not know is answered as GitHub would (404, 422,
401), and a route that nobody has played yet lands in `errors`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

HOST = "github.localhost"
SERVER = f"http://{HOST}"
API = f"http://api.{HOST}"
Json = dict[str, Any]
Method = Literal["merge", "squash", "rebase"]


class Refused(Exception):  # noqa: N818 - it is an answer
    """What GitHub answers instead: a status, and its JSON."""

    def __init__(self, status: int, message: str, *errors: Json) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {
            "message": message,
            "status": str(status),
            **({"errors": errors} if errors else {}),
        }


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below repos/OWNER/NAME/."""
    query: dict[str, str]
    body: Json
    login: str


@dataclass(frozen=True)
class Answer:
    body: Any
    status: int = 200
    pages: bool = False
    """Whether `body` is a list to be cut by per_page and page."""


Route = Callable[..., Answer]


@dataclass
class State:
    """All that the server has been told, for tests to look at and to prepare."""

    pulls: list[Json] = field(default_factory=list)
    comments: list[Json] = field(default_factory=list)
    """Of issues and pull requests alike; `issue` is the number."""
    labels: dict[int, list[str]] = field(default_factory=dict)
    check_runs: list[Json] = field(default_factory=list)
    statuses: list[Json] = field(default_factory=list)
    workflows: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    """Of workflows."""


class FakeGitHub:
    """Plays GitHub for one repository, because GitHub cannot run here; see the module."""

    def __init__(
        self,
        repository: str = "espalier-ml/espalier",
        origin: Path | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        """`tokens` gives the login of each token that is let in; without it every token is espalier[bot]'s."""
        self.repository = repository
        self.origin = origin
        self.tokens = tokens
        self.state = State()
        self.requests: list[str] = []
        """METHOD PATH of every request, in order."""
        self.errors: list[str] = []
        """Requests that no route is played for, and faults of this server: must be empty at the end."""
        self.fail_next: list[tuple[int, str]] = []
        """Statuses and messages to answer the next requests with, as GitHub in trouble would."""
        self.fail_fetches: list[int] = []
        """Statuses to answer git's next requests with."""
        self.fetches = 0
        """Requests of git."""
        self.unmodified = 0
        """How many requests were answered by 304; GitHub does not count those."""
        self._lock = threading.RLock()
        self._ids = iter(range(1001, 10**9))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FakeGitHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, token: str = "a-token", folder: Path | None = None) -> dict[str, str]:
        """What makes `gh` talk to this server, as a workflow's environment makes it talk to GitHub.

        `folder` is for gh's own settings, so that a person's are not read.
        """
        return {
            "GH_HOST": HOST,
            "GH_REPO": self.repository,
            "GH_TOKEN": token,
            "HTTP_PROXY": self.proxy,
            "http_proxy": self.proxy,
            # Not `localhost`: that would mean every host below it, api.github.localhost too.
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_PROMPT_DISABLED": "1",
            **({"GH_CONFIG_DIR": str(folder)} if folder else {}),
        }

    # What a person does on GitHub's pages.

    def merge(self, number: int, method: Method = "merge", by: str = "Reviewer") -> str:
        """Merge a pull request in the bare repository as GitHub's button does, and give the new commit."""
        with self._lock:
            return self._merge(self._pull(number), method, by)

    def close(self, number: int) -> None:
        with self._lock:
            self._pull(number).update(state="closed", closed_at=_now())

    def add_check_run(self, commit: str, name: str, conclusion: str | None = "success") -> Json:
        """Record what a check said of a commit; without a conclusion it still runs."""
        with self._lock:
            run = {
                "id": next(self._ids),
                "name": name,
                "head_sha": commit,
                "status": "completed" if conclusion else "in_progress",
                "conclusion": conclusion,
                "started_at": _now(),
            }
            self.state.check_runs.append(run)
            return run

    def add_run(self, workflow: str, began: datetime, ended: datetime, conclusion: str, **more: Any) -> Json:
        """Record a run of a workflow on main that is over; the workflow is known from then on."""
        with self._lock:
            path = workflow if "/" in workflow else f".github/workflows/{workflow}.yml"
            known = next((each for each in self.state.workflows if each["path"] == path), None)
            if known is None:
                known = {"id": next(self._ids), "name": workflow, "path": path, "state": "active"}
                self.state.workflows.append(known)
            run = {
                "id": next(self._ids),
                "workflow_id": known["id"],
                "event": "push",
                "head_branch": "main",
                "head_repository": {"full_name": self.repository},
                "status": "completed",
                "conclusion": conclusion,
                "created_at": _stamp(began),
                "run_started_at": _stamp(began),
                "updated_at": _stamp(ended),
                **more,
            }
            self.state.runs.append(run)
            return run

    def open_pulls(self) -> list[Json]:
        with self._lock:
            return [each for each in self.state.pulls if each["state"] == "open"]

    # The API.

    def answer(
        self, method: str, target: str, authorization: str, payload: bytes
    ) -> tuple[Answer, dict[str, str]]:
        """Answer one request; the target is an absolute address, because the client takes us for a proxy."""
        address = urlsplit(target)
        with self._lock:
            self.requests.append(f"{method} {address.path}{'?' + address.query if address.query else ''}")
            if self.fail_next:
                raise Refused(*self.fail_next.pop(0))
            if address.netloc != f"api.{HOST}":
                self.errors.append(f"{method} {target}")
                raise Refused(404, "Not Found")
            token = authorization.partition(" ")[2]
            if not token or (self.tokens is not None and token not in self.tokens):
                raise Refused(401, "Bad credentials")
            prefix = f"/repos/{self.repository}"
            if address.path == "/user":
                return Answer({"login": self._login(token)}), {}
            if address.path != prefix and not address.path.startswith(prefix + "/"):
                raise Refused(404, "Not Found")  # as GitHub does for a repository that the token may not see
            query = {key: values[-1] for key, values in parse_qs(address.query).items()}
            body = json.loads(payload) if payload else {}
            path = address.path.removeprefix(prefix).removeprefix("/")
            for verb, pattern, route in self._routes():
                found = re.fullmatch(pattern, path)
                if verb == method and found:
                    request = Request(method, path, query, body, self._login(token))
                    return self._page(route(request, *map(unquote, found.groups())), address.path, query)
            self.errors.append(f"{method} {target}")
            raise Refused(404, "Not Found")

    def fetch(self, method: str, target: str, headers: Message, payload: bytes) -> tuple[int, Message, bytes]:
        """What git's own program for web servers answers to a fetch: status, headers and content."""
        address = urlsplit(target)
        with self._lock:
            self.fetches += 1
            status = self.fail_fetches.pop(0) if self.fail_fetches else 200
        given = base64.b64decode(headers.get("Authorization", "").partition("Basic ")[2]).decode()
        user, _, token = given.partition(":")
        if user != "x-access-token" or (self.tokens is not None and token not in self.tokens):
            status = 401
        if status != 200:
            refused = Message()
            if status == 401:
                refused["WWW-Authenticate"] = 'Basic realm="GitHub"'
            return status, refused, b""
        said = subprocess.run(
            ["git", "http-backend"],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "GIT_PROJECT_ROOT": str(self.origin),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": method,
                "PATH_INFO": address.path.removeprefix(f"/{self.repository}"),
                "QUERY_STRING": address.query,
                "CONTENT_TYPE": headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
            },
            input=payload,
            capture_output=True,
            check=True,
        ).stdout
        head, _, content = said.partition(b"\r\n\r\n")
        answered = message_from_bytes(head)
        status = int(answered.get("Status", "200").split()[0])
        del answered["Status"]
        return status, answered, content

    def _routes(self) -> list[tuple[str, str, Route]]:
        number, sha, ref = r"(\d+)", r"([0-9a-f]{40})", r"(.+?)"
        return [
            ("GET", "", self._repository),
            ("GET", "pulls", self._list_pulls),
            ("POST", "pulls", self._create_pull),
            ("GET", f"pulls/{number}", self._get_pull),
            ("PATCH", f"pulls/{number}", self._update_pull),
            ("GET", f"pulls/{number}/merge", self._is_merged),
            ("PUT", f"pulls/{number}/merge", self._put_merge),
            ("GET", f"commits/{sha}/pulls", self._pulls_of_commit),
            ("GET", f"issues/{number}/comments", self._list_comments),
            ("POST", f"issues/{number}/comments", self._create_comment),
            ("GET", f"issues/comments/{number}", self._get_comment),
            ("PATCH", f"issues/comments/{number}", self._update_comment),
            ("DELETE", f"issues/comments/{number}", self._delete_comment),
            ("GET", f"issues/{number}/labels", self._list_labels),
            ("POST", f"issues/{number}/labels", self._add_labels),
            ("GET", f"commits/{ref}/check-runs", self._list_check_runs),
            ("POST", "check-runs", self._create_check_run),
            ("PATCH", f"check-runs/{number}", self._update_check_run),
            ("POST", f"statuses/{sha}", self._create_status),
            ("GET", f"commits/{ref}/statuses", self._list_statuses),
            ("GET", f"commits/{ref}/status", self._combined_status),
            ("GET", f"git/ref/heads/{ref}", self._get_ref),
            ("GET", "actions/workflows", self._list_workflows),
            ("GET", f"actions/workflows/{number}/runs", self._list_runs),
        ]

    def _page(self, answer: Answer, path: str, query: dict[str, str]) -> tuple[Answer, dict[str, str]]:
        if not answer.pages:
            return answer, {}
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        more = len(answer.body) > page * size
        rest = "".join(f"&{key}={value}" for key, value in query.items() if key not in ("page", "per_page"))
        link = {"Link": f'<{API}{path}?per_page={size}&page={page + 1}{rest}>; rel="next"'} if more else {}
        return Answer(answer.body[(page - 1) * size : page * size], answer.status), link

    def _login(self, token: str) -> str:
        return self.tokens[token] if self.tokens else "espalier[bot]"

    def _repository(self, request: Request) -> Answer:
        return Answer({"full_name": self.repository, "default_branch": "main"})

    # Pull requests.

    def _create_pull(self, request: Request) -> Answer:
        missing = [name for name in ("head", "base", "title") if not request.body.get(name)]
        if missing:
            raise _invalid("PullRequest", *({"code": "missing_field", "field": name} for name in missing))
        owner, _, branch = str(request.body["head"]).rpartition(":")
        owner, base = owner or self.repository.split("/")[0], str(request.body["base"])
        for name, key in ((base, "base"), (branch, "head")):
            if self.origin is not None and self._tip(name) is None:
                raise _invalid("PullRequest", {"code": "invalid", "field": key})
        if any(each["head"]["ref"] == branch and each["base"]["ref"] == base for each in self.open_pulls()):
            said = f"A pull request already exists for {owner}:{branch}."
            raise _invalid("PullRequest", {"code": "custom", "message": said})
        if self.origin is not None and not self._git("rev-list", f"{base}..{branch}"):
            said = f"No commits between {base} and {branch}"
            raise _invalid("PullRequest", {"code": "custom", "message": said})
        number = len(self.state.pulls) + 1
        pull: Json = {
            "number": number,
            "id": next(self._ids),
            "state": "open",
            "title": request.body["title"],
            "body": request.body.get("body"),
            "draft": bool(request.body.get("draft")),
            "user": {"login": request.login, "type": "Bot" if request.login.endswith("[bot]") else "User"},
            "html_url": f"http://{HOST}/{self.repository}/pull/{number}",
            "url": f"{API}/repos/{self.repository}/pulls/{number}",
            "head": {"ref": branch, "label": f"{owner}:{branch}", "repo": {"full_name": self.repository}},
            "base": {"ref": base, "label": f"{owner}:{base}", "repo": {"full_name": self.repository}},
            "merged": False,
            "merged_at": None,
            "merge_commit_sha": None,
            "created_at": _now(),
            "updated_at": _now(),
        }
        self.state.pulls.append(pull)
        return Answer(self._shown(pull), 201)

    def _list_pulls(self, request: Request) -> Answer:
        state = request.query.get("state", "open")
        head, base = request.query.get("head", ""), request.query.get("base")
        shown = [
            self._shown(each)
            for each in reversed(self.state.pulls)
            if state in ("all", each["state"])
            # GitHub leaves a head without an owner unheeded, and so lists every pull request.
            and (":" not in head or head == each["head"]["label"])
            and (base is None or base == each["base"]["ref"])
        ]
        return Answer(shown, pages=True)

    def _get_pull(self, request: Request, number: str) -> Answer:
        return Answer(self._shown(self._pull(int(number))))

    def _update_pull(self, request: Request, number: str) -> Answer:
        pull = self._pull(int(number))
        pull.update({key: request.body[key] for key in ("title", "body", "state") if key in request.body})
        if "base" in request.body:
            pull["base"]["ref"] = request.body["base"]
        pull["updated_at"] = _now()
        return Answer(self._shown(pull))

    def _is_merged(self, request: Request, number: str) -> Answer:
        if not self._pull(int(number))["merged"]:
            raise Refused(404, "Not Found")
        return Answer(None, 204)

    def _put_merge(self, request: Request, number: str) -> Answer:
        pull = self._pull(int(number))
        if request.body.get("sha") not in (None, self._shown(pull)["head"]["sha"]):
            raise Refused(409, "Head branch was modified. Review and try the merge again.")
        commit = self._merge(pull, request.body.get("merge_method", "merge"), request.login)
        return Answer({"sha": commit, "merged": True, "message": "Pull Request successfully merged"})

    def _pulls_of_commit(self, request: Request, sha: str) -> Answer:
        shown = [self._shown(each) for each in self.state.pulls]
        return Answer(
            [each for each in shown if sha in (each["head"]["sha"], each["merge_commit_sha"])], pages=True
        )

    def _pull(self, number: int) -> Json:
        for each in self.state.pulls:
            if each["number"] == number:
                return each
        raise Refused(404, "Not Found")

    def _shown(self, pull: Json) -> Json:
        """With the commits of both branches as they are now; those of a closed one stay as they were."""
        if pull["state"] == "open":
            for side in ("head", "base"):
                pull[side]["sha"] = self._tip(pull[side]["ref"]) or "0" * 40
        return {**pull, "mergeable": self._mergeable(pull)}

    def _mergeable(self, pull: Json) -> bool | None:
        if pull["merged"] or self.origin is None:
            return None
        return self._tree(pull["base"]["ref"], pull["head"]["ref"]) is not None

    def _merge(self, pull: Json, method: Method, by: str) -> str:
        shown = self._shown(pull)
        if pull["state"] != "open":
            raise Refused(405, "Pull Request is not mergeable")
        base, head = pull["base"]["ref"], shown["head"]["sha"]
        if self.origin is None:
            commit = f"{pull['number']:040x}"
        else:
            tree, tip = self._tree(base, head), self._git("rev-parse", base)
            if tree is None:
                raise Refused(405, "Pull Request is not mergeable")
            commit = self._merged(pull, method, by, tree=tree, tip=tip, head=head)
            self._git("update-ref", f"refs/heads/{base}", commit, tip)
        pull.update(state="closed", merged=True, merged_at=_now(), merge_commit_sha=commit)
        return commit

    def _merged(self, pull: Json, method: Method, by: str, *, tree: str, tip: str, head: str) -> str:
        """The commit that each of GitHub's three buttons makes, with its message and its people."""
        person = {"NAME": by, "EMAIL": f"{by.lower().replace(' ', '.')}@users.noreply.{HOST}"}
        presser = {f"GIT_AUTHOR_{key}": value for key, value in person.items()}
        # GitHub commits what its buttons make, whoever presses them.
        server = {"GIT_COMMITTER_NAME": "GitHub", "GIT_COMMITTER_EMAIL": "noreply@github.com"}
        title, number = pull["title"], pull["number"]
        if method == "merge":
            message = (
                f"Merge pull request #{number} from {pull['head']['label'].replace(':', '/')}\n\n{title}"
            )
            return self._git(
                "commit-tree", tree, "-p", tip, "-p", head, "-m", message, people={**presser, **server}
            )
        commits = self._git("rev-list", "--reverse", f"{tip}..{head}").split()
        first = self._git("show", "-s", "--format=%an%x00%ae", commits[0]).split("\0")
        author = {"GIT_AUTHOR_NAME": first[0], "GIT_AUTHOR_EMAIL": first[1]}
        if method == "squash":
            message = f"{title} (#{number})\n\n{pull['body'] or ''}"
            return self._git("commit-tree", tree, "-p", tip, "-m", message, people={**author, **server})
        committer = {f"GIT_COMMITTER_{key}": value for key, value in person.items()}
        for each in commits:
            # The tip's files with the commit's parent as their past: so that parent is what both are compared with.
            beside = self._git(
                "commit-tree",
                f"{tip}^{{tree}}",
                "-p",
                f"{each}^",
                "-m",
                "beside",
                people={**presser, **server},
            )
            rebased = self._git("merge-tree", "--write-tree", beside, each)
            message = self._git("show", "-s", "--format=%B", each)
            tip = self._git("commit-tree", rebased, "-p", tip, "-m", message, people={**author, **committer})
        return tip

    # Comments and labels.

    def _list_comments(self, request: Request, number: str) -> Answer:
        return Answer([each for each in self.state.comments if each["issue"] == int(number)], pages=True)

    def _create_comment(self, request: Request, number: str) -> Answer:
        self._pull(int(number))
        comment = {
            "id": next(self._ids),
            "issue": int(number),
            "body": _comment_body(request),
            "user": {"login": request.login, "type": "Bot" if request.login.endswith("[bot]") else "User"},
            "html_url": f"http://{HOST}/{self.repository}/pull/{number}#issuecomment-{len(self.state.comments)}",
            "created_at": _now(),
            "updated_at": _now(),
        }
        self.state.comments.append(comment)
        return Answer(comment, 201)

    def _get_comment(self, request: Request, number: str) -> Answer:
        return Answer(_by_id(self.state.comments, number))

    def _update_comment(self, request: Request, number: str) -> Answer:
        comment = _by_id(self.state.comments, number)
        comment.update(body=_comment_body(request), updated_at=_now())
        return Answer(comment)

    def _delete_comment(self, request: Request, number: str) -> Answer:
        self.state.comments.remove(_by_id(self.state.comments, number))
        return Answer(None, 204)

    def _list_labels(self, request: Request, number: str) -> Answer:
        return Answer([{"name": name} for name in self.state.labels.get(int(number), [])], pages=True)

    def _add_labels(self, request: Request, number: str) -> Answer:
        self._pull(int(number))
        labels = self.state.labels.setdefault(int(number), [])
        labels += [name for name in request.body.get("labels", []) if name not in labels]
        return Answer([{"name": name} for name in labels])

    # Checks and statuses.

    def _list_check_runs(self, request: Request, ref: str) -> Answer:
        commit = self._commit(ref)
        runs = [each for each in self.state.check_runs if each["head_sha"] == commit]
        if "check_name" in request.query:
            runs = [each for each in runs if each["name"] == request.query["check_name"]]
        if request.query.get("filter", "latest") == "latest":
            runs = list({each["name"]: each for each in runs}.values())
        return Answer({"total_count": len(runs), "check_runs": runs[:100]})

    def _create_check_run(self, request: Request) -> Answer:
        run = self.add_check_run(request.body["head_sha"], request.body["name"], None)
        run.update(request.body)
        return Answer(run, 201)

    def _update_check_run(self, request: Request, number: str) -> Answer:
        run = _by_id(self.state.check_runs, number)
        run.update(request.body)
        return Answer(run)

    def _create_status(self, request: Request, sha: str) -> Answer:
        if request.body.get("state") not in ("error", "failure", "pending", "success"):
            raise _invalid("Status", {"code": "custom", "field": "state"})
        status = {
            "id": next(self._ids),
            "sha": sha,
            "context": "default",
            **request.body,
            "created_at": _now(),
        }
        self.state.statuses.append(status)
        return Answer(status, 201)

    def _list_statuses(self, request: Request, ref: str) -> Answer:
        commit = self._commit(ref)
        return Answer([each for each in reversed(self.state.statuses) if each["sha"] == commit], pages=True)

    def _combined_status(self, request: Request, ref: str) -> Answer:
        commit = self._commit(ref)
        latest = {each["context"]: each for each in self.state.statuses if each["sha"] == commit}
        states = {each["state"] for each in latest.values()}
        state = (
            "failure" if states & {"error", "failure"} else "success" if states == {"success"} else "pending"
        )
        return Answer({"state": state, "sha": commit, "statuses": list(latest.values())})

    def _get_ref(self, request: Request, ref: str) -> Answer:
        tip = self._tip(ref)
        if tip is None:
            raise Refused(404, "Not Found")
        return Answer({"ref": f"refs/heads/{ref}", "object": {"type": "commit", "sha": tip}})

    # Workflows.

    def _list_workflows(self, request: Request) -> Answer:
        return Answer({"total_count": len(self.state.workflows), "workflows": self.state.workflows[:100]})

    def _list_runs(self, request: Request, number: str) -> Answer:
        runs = [each for each in reversed(self.state.runs) if each["workflow_id"] == int(number)]
        for key, name in (("branch", "head_branch"), ("status", "status"), ("event", "event")):
            if key in request.query:
                runs = [each for each in runs if each[name] == request.query[key]]
        size = min(int(request.query.get("per_page", 30)), 100)
        return Answer({"total_count": len(runs), "workflow_runs": runs[:size]})

    # The bare repository.

    def _commit(self, ref: str) -> str:
        if re.fullmatch(r"[0-9a-f]{40}", ref):
            return ref
        tip = self._tip(ref)
        if tip is None:
            raise Refused(422, f"No commit found for SHA: {ref}")
        return tip

    def _tip(self, branch: str) -> str | None:
        if self.origin is None:
            return None
        return self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False) or None

    def _tree(self, base: str, head: str) -> str | None:
        """The tree of a merge of the two; None where they conflict or a branch is gone."""
        said = self._git("merge-tree", "--write-tree", "--no-messages", base, head, check=False)
        return said if re.fullmatch(r"[0-9a-f]{40}", said) else None

    def _git(self, *arguments: str, check: bool = True, people: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", f"--git-dir={self.origin}", *arguments],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", **(people or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()


def _invalid(resource: str, *errors: Json) -> Refused:
    return Refused(422, "Validation Failed", *({"resource": resource, **each} for each in errors))


def _by_id(records: list[Json], number: str) -> Json:
    for each in records:
        if each["id"] == int(number):
            return each
    raise Refused(404, "Not Found")


def _comment_body(request: Request) -> str:
    body = str(request.body.get("body") or "")
    if not body:
        raise _invalid("IssueComment", {"code": "missing_field", "field": "body"})
    if len(body) > 65536:
        said = "body is too long (maximum is 65536 characters)"
        raise _invalid("IssueComment", {"code": "unprocessable", "field": "data", "message": said})
    return body


def _now() -> str:
    return _stamp(datetime.now(UTC))


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _handler(github: FakeGitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            payload = self._read()
            if urlsplit(self.path).netloc == HOST and re.search(
                r"/(info/refs|git-upload-pack)$", urlsplit(self.path).path
            ):
                self._write(*github.fetch(self.command, self.path, self.headers, payload))
                return
            more: dict[str, str] = {}
            try:
                answer, more = github.answer(
                    self.command, self.path, self.headers.get("Authorization", ""), payload
                )
            except Refused as refused:
                answer = Answer(refused.body, refused.status)
            except Exception as error:
                github.errors.append(f"{self.command} {self.path}: {error!r}")
                answer = Answer({"message": repr(error)}, 500)
            content = b"" if answer.status == 204 else json.dumps(answer.body).encode()
            if self.command == "GET" and answer.status == 200:
                more["ETag"] = f'W/"{hashlib.sha256(content).hexdigest()}"'
                if self.headers.get("If-None-Match") == more["ETag"]:
                    answer, content = Answer(None, 304), b""
            github.unmodified += answer.status == 304
            self.send_response(answer.status)
            if answer.status not in (204, 304):
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
            for key, value in more.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        def _write(self, status: int, headers: Message, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = do_GET  # noqa: N815

        def _read(self) -> bytes:
            """The body; `gh api --input -` does not know its length and sends it in chunks."""
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while length := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests look at `requests` instead."""

    return Handler
