"""Adds to the played GitHub what the workflows' steps ask besides: issues, and the artifacts of runs."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.deploy.github import HOST, Answer, FakeGitHub, Json, Refused, Request, Route


class GitHubActions(FakeGitHub):
    """As its base, with issues and artifacts."""

    def __init__(
        self,
        repository: str = "espalier-ml/espalier",
        origin: Path | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        super().__init__(repository, origin, tokens)
        self.issues: list[Json] = []
        self.artifacts: list[Json] = []
        """`run` is the run's id, `content` the archive."""
        self._server.RequestHandlerClass = _with_downloads(self, self._server.RequestHandlerClass)

    def __enter__(self) -> GitHubActions:
        super().__enter__()
        return self

    def add_artifact(self, run: int, name: str, content: bytes, size: int | None = None) -> None:
        self.artifacts.append(
            {
                "id": next(self._ids),
                "run": run,
                "name": name,
                "expired": False,
                "size_in_bytes": len(content) if size is None else size,
                "content": content,
            }
        )

    def open_fork_pull(self, number: int, owner: str, branch: str, commit: str) -> None:
        """A pull request from a fork, whose branch this repository does not have."""
        self.state.pulls.append(
            {
                "number": number,
                "state": "open",
                "title": "From afar",
                "body": None,
                "merged": False,
                "merge_commit_sha": None,
                "html_url": f"http://{HOST}/{self.repository}/pull/{number}",
                "head": {"ref": branch, "label": f"{owner}:{branch}", "sha": commit},
                "base": {"ref": "main", "label": "espalier-ml:main"},
            }
        )

    def _shown(self, pull: Json) -> Json:
        if "repo" in pull["head"]:
            return super()._shown(pull)
        return pull

    def _routes(self) -> list[tuple[str, str, Route]]:
        return [
            *super()._routes(),
            ("GET", "issues", self._list_issues),
            ("POST", "issues", self._create_issue),
            ("PATCH", r"issues/(\d+)", self._update_issue),
            ("GET", r"actions/runs/(\d+)/artifacts", self._list_artifacts),
        ]

    def _pull(self, number: int) -> Json:
        # To GitHub a pull request is an issue: both are commented on in the same place.
        found = [each for each in self.issues if each["number"] == number]
        return found[0] if found else super()._pull(number)

    def _list_issues(self, request: Request) -> Answer:
        state, label = request.query.get("state", "open"), request.query.get("labels")
        shown = [each for each in self.issues if each["state"] == state and label in (None, *each["labels"])]
        return Answer(shown, pages=True)

    def _create_issue(self, request: Request) -> Answer:
        if not request.body.get("title"):
            raise Refused(422, "Validation Failed")
        number = 100 + len(self.issues)
        issue: Json = {
            "number": number,
            "state": "open",
            "labels": [],
            **request.body,
            "user": {"login": request.login, "type": "Bot" if request.login.endswith("[bot]") else "User"},
            "html_url": f"http://{HOST}/{self.repository}/issues/{number}",
        }
        self.issues.append(issue)
        return Answer(issue, 201)

    def _update_issue(self, request: Request, number: str) -> Answer:
        issue = self._pull(int(number))
        issue.update(request.body)
        return Answer(issue)

    def _list_artifacts(self, request: Request, run: str) -> Answer:
        shown = [
            {key: value for key, value in each.items() if key not in ("run", "content")}
            for each in self.artifacts
            if each["run"] == int(run) and request.query.get("name") in (None, each["name"])
        ]
        return Answer({"total_count": len(shown), "artifacts": shown})


def _with_downloads(github: GitHubActions, base: Any) -> Any:
    """Downloads are no JSON, so they go past the base."""

    class Handler(base):  # type: ignore[misc]
        def do_GET(self: BaseHTTPRequestHandler) -> None:  # noqa: N802 - its base calls it so
            wanted = [each for each in github.artifacts if self.path.endswith(f"/artifacts/{each['id']}/zip")]
            if not wanted or self.command != "GET":
                base.do_GET(self)
                return
            content = wanted[0]["content"]
            self.send_response(200)
            self.send_header("Content-Type", "application/zip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
