"""Plays GitHub: the part of its REST API that delivery uses, on loopback and in memory.

GitHub cannot run on a laptop, so its end alone is played; the `gh` program is real. It talks plain HTTP to the host
`github.localhost` through an HTTP proxy, which is this server, so no name server is needed.

    with GitHub("espalier-ml/espalier", origin=bare) as github:
        subprocess.run(["gh", "api", "repos/{owner}/{repo}/pulls"], env={**os.environ, **github.environment()})
        github.merge(1, method="squash", by="Ada")
    assert github.errors == []

With `origin`, a bare repository, pull requests are as strict as GitHub's: the branch must exist and differ from its
base, and can be merged in all three ways. Requests that GitHub refuses get GitHub's answer (401, 404, 405, 422). A
request that no route plays gets 404 and is recorded in `errors`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from deploy.rehearsal.forge import Answer, Json, Played, Refused, Request, Route, by_id, stamp

HOST = "github.localhost"
API = f"http://api.{HOST}"
Method = Literal["merge", "squash", "rebase"]


@dataclass
class State:
    """What the server has been told, for tests to inspect and to prepare."""

    pulls: list[Json] = field(default_factory=list)
    comments: list[Json] = field(default_factory=list)
    """Of issues and pull requests; `issue` is the number."""
    check_runs: list[Json] = field(default_factory=list)


class GitHub(Played):
    """GitHub for one repository; see the module."""

    def __init__(
        self,
        repository: str = "espalier-ml/espalier",
        origin: Path | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        """`tokens` gives the login of each token that is let in; without it every token is espalier[bot]'s."""
        super().__init__(repository, origin, tokens)
        self.state = State()

    @property
    def proxy(self) -> str:
        return self.address

    def environment(self, token: str = "a-token", folder: Path | None = None) -> dict[str, str]:
        """What makes `gh` talk to this server, as a workflow's environment makes it talk to GitHub.

        `folder` is for gh's own settings, so that a person's are not read.
        """
        return {
            "GH_HOST": HOST,
            "GH_REPO": self.repository,
            "GITLAB_CI": "",  # where the job around it is one of GitLab's
            "GH_TOKEN": token,
            "HTTP_PROXY": self.proxy,
            "http_proxy": self.proxy,
            # Not `localhost`: that would cover every host below it, api.github.localhost included.
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_PROMPT_DISABLED": "1",
            **({"GH_CONFIG_DIR": str(folder)} if folder else {}),
        }

    @property
    def site(self) -> str:
        return f"https://github.com/{self.repository}"

    # What a person does on GitHub's pages.

    def merge(self, number: int, method: Method = "merge", by: str = "Reviewer") -> str:
        """Merge a pull request in the bare repository as GitHub's button does, and give the new commit."""
        with self._lock:
            pull = self._pull(number)
            if pull["state"] != "open":
                raise Refused(405, "Pull Request is not mergeable")
            commit = self._merge(pull, method, by)
            pull.update(state="closed", merged=True, merged_at=stamp(), merge_commit_sha=commit)
            return commit

    def close(self, number: int) -> None:
        with self._lock:
            self._pull(number).update(state="closed", closed_at=stamp())

    def add_check_run(self, commit: str, name: str, conclusion: str | None = "success") -> None:
        """Record what a check said of a commit; without a conclusion it still runs."""
        run = {
            "id": next(self._ids),
            "name": name,
            "head_sha": commit,
            "status": "completed" if conclusion else "in_progress",
            "conclusion": conclusion,
            "started_at": stamp(),
        }
        self.state.check_runs.append(run)

    def open_pulls(self) -> list[Json]:
        with self._lock:
            return [each for each in self.state.pulls if each["state"] == "open"]

    # The API.

    def _answer(self, method: str, target: str, token: str, payload: bytes) -> tuple[Answer, dict[str, str]]:
        address = urlsplit(target)
        self.requests.append(f"{method} {address.path}{'?' + address.query if address.query else ''}")
        if address.netloc != f"api.{HOST}":
            self.errors.append(f"{method} {target}")
            raise Refused(404, "Not Found")
        if not token or (self.tokens is not None and token not in self.tokens):
            raise Refused(401, "Bad credentials")
        login = self.tokens[token] if self.tokens else "espalier[bot]"
        prefix = f"/repos/{self.repository}"
        if address.path == "/user":
            return Answer({"login": login}), {}
        if address.path != prefix and not address.path.startswith(prefix + "/"):
            raise Refused(404, "Not Found")  # as GitHub does for a repository that the token may not see
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        body = json.loads(payload) if payload else {}
        path = address.path.removeprefix(prefix).removeprefix("/")
        for verb, pattern, route in self._routes():
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                request = Request(method, path, query, body, login)
                return self._page(route(request, *map(unquote, found.groups())), address.path, query)
        self.errors.append(f"{method} {target}")
        raise Refused(404, "Not Found")

    def _routes(self) -> list[tuple[str, str, Route]]:
        number, ref = r"(\d+)", r"(.+?)"
        return [
            ("GET", "", self._repository),
            ("GET", "pulls", self._list_pulls),
            ("POST", "pulls", self._create_pull),
            ("GET", f"pulls/{number}", self._get_pull),
            ("PATCH", f"pulls/{number}", self._update_pull),
            ("GET", f"issues/{number}/comments", self._list_comments),
            ("POST", f"issues/{number}/comments", self._create_comment),
            ("PATCH", f"issues/comments/{number}", self._update_comment),
            ("GET", f"commits/{ref}/check-runs", self._list_check_runs),
        ]

    def _page(self, answer: Answer, path: str, query: dict[str, str]) -> tuple[Answer, dict[str, str]]:
        if not answer.pages:
            return answer, {}
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        more = len(answer.body) > page * size
        rest = "".join(f"&{key}={value}" for key, value in query.items() if key not in ("page", "per_page"))
        link = {"Link": f'<{API}{path}?per_page={size}&page={page + 1}{rest}>; rel="next"'} if more else {}
        return Answer(answer.body[(page - 1) * size : page * size], answer.status), link

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
            "user": request.user,
            "html_url": f"http://{HOST}/{self.repository}/pull/{number}",
            "url": f"{API}/repos/{self.repository}/pulls/{number}",
            "head": {"ref": branch, "label": f"{owner}:{branch}", "repo": {"full_name": self.repository}},
            "base": {"ref": base, "label": f"{owner}:{base}", "repo": {"full_name": self.repository}},
            "merged": False,
            "merged_at": None,
            "merge_commit_sha": None,
            "created_at": stamp(),
            "updated_at": stamp(),
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
            # GitHub ignores a head without an owner, and lists every pull request.
            and (":" not in head or head == each["head"]["label"])
            and (base is None or base == each["base"]["ref"])
        ]
        return Answer(shown, pages=True)

    def _get_pull(self, request: Request, number: str) -> Answer:
        return Answer(self._shown(self._pull(int(number))))

    def _update_pull(self, request: Request, number: str) -> Answer:
        pull = self._pull(int(number))
        pull.update({key: request.body[key] for key in ("title", "body", "state") if key in request.body})
        pull["updated_at"] = stamp()
        return Answer(self._shown(pull))

    def _pull(self, number: int) -> Json:
        for each in self.state.pulls:
            if each["number"] == number:
                return each
        raise Refused(404, "Not Found")

    def _shown(self, pull: Json) -> Json:
        """With the commits of both branches as they are now; a closed one keeps those it was closed with."""
        if pull["state"] == "open":
            for side in ("head", "base"):
                pull[side]["sha"] = self._tip(pull[side]["ref"]) or "0" * 40
        return pull

    def _merge(self, pull: Json, method: Method, by: str) -> str:
        """The commit that each of GitHub's three buttons makes, with its message and its people."""
        base, head = pull["base"]["ref"], self._shown(pull)["head"]["sha"]
        tip = self._git("rev-parse", base)
        tree = self._git(
            "merge-tree", "--write-tree", "--no-messages", base, pull["head"]["ref"], check=False
        )
        if not re.fullmatch(r"[0-9a-f]{40}", tree):
            raise Refused(405, "Pull Request is not mergeable")
        commit = self._merged(pull, method, by, tree=tree, tip=tip, head=head)
        self._git("update-ref", f"refs/heads/{base}", commit, tip)
        return commit

    def _merged(self, pull: Json, method: Method, by: str, *, tree: str, tip: str, head: str) -> str:
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
            # The tip's files on the commit's parent, so that merge-tree compares both with that parent.
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

    # Comments and checks.

    def _list_comments(self, request: Request, number: str) -> Answer:
        return Answer([each for each in self.state.comments if each["issue"] == int(number)], pages=True)

    def _create_comment(self, request: Request, number: str) -> Answer:
        self._pull(int(number))
        comment = {
            "id": next(self._ids),
            "issue": int(number),
            "body": _comment_body(request),
            "user": request.user,
            "html_url": f"http://{HOST}/{self.repository}/pull/{number}#issuecomment-{len(self.state.comments)}",
            "created_at": stamp(),
            "updated_at": stamp(),
        }
        self.state.comments.append(comment)
        return Answer(comment, 201)

    def _update_comment(self, request: Request, number: str) -> Answer:
        comment = by_id(self.state.comments, number)
        comment.update(body=_comment_body(request), updated_at=stamp())
        return Answer(comment)

    def _list_check_runs(self, request: Request, ref: str) -> Answer:
        commit = self._commit(ref)
        runs = [each for each in self.state.check_runs if each["head_sha"] == commit]
        if "check_name" in request.query:
            runs = [each for each in runs if each["name"] == request.query["check_name"]]
        if request.query.get("filter", "latest") == "latest":
            runs = list({each["name"]: each for each in runs}.values())
        return Answer({"total_count": len(runs), "check_runs": runs[:100]})

    # The bare repository.

    def _commit(self, ref: str) -> str:
        if re.fullmatch(r"[0-9a-f]{40}", ref):
            return ref
        tip = self._tip(ref)
        if tip is None:
            raise Refused(422, f"No commit found for SHA: {ref}")
        return tip


def _invalid(resource: str, *errors: Json) -> Refused:
    return Refused(422, "Validation Failed", *({"resource": resource, **each} for each in errors))


def _comment_body(request: Request) -> str:
    body = str(request.body.get("body") or "")
    if not body:
        raise _invalid("IssueComment", {"code": "missing_field", "field": "body"})
    if len(body) > 65536:
        said = "body is too long (maximum is 65536 characters)"
        raise _invalid("IssueComment", {"code": "unprocessable", "field": "data", "message": said})
    return body
