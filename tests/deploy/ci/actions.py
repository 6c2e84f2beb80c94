"""Adds to the played GitHub what the steps of workflows ask besides: issues, runs with their jobs and artifacts."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import Message
from pathlib import Path

from deploy.rehearsal.forge import Answer, Json, Refused, Request, Response, Route, by_id
from deploy.rehearsal.github import HOST
from tests.deploy.github import FakeGitHub


class GitHubActions(FakeGitHub):
    """As its base, with issues, runs and artifacts."""

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

    def respond(self, method: str, target: str, headers: Message, payload: bytes) -> Response:
        for each in self.artifacts:
            if method == "GET" and target.endswith(f"/artifacts/{each['id']}/zip"):
                return Response(200, each["content"], {"Content-Type": "application/zip"})
        return super().respond(method, target, headers, payload)

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

    def add_ended_run(self, name: str, conclusion: str, event: str = "schedule", **jobs: str) -> int:
        """A run that has ended, with the conclusion of each job by its name; gives its id."""
        now = datetime.now(UTC)
        run = self.add_run(name, now, now, conclusion, name=name, event=event, jobs=jobs)
        run["html_url"] = f"https://{HOST}/{self.repository}/actions/runs/{run['id']}"
        return int(run["id"])

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
            ("GET", r"actions/runs/(\d+)", self._get_run),
            ("GET", r"actions/runs/(\d+)/jobs", self._list_jobs),
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
            "user": request.user,
            "html_url": f"http://{HOST}/{self.repository}/issues/{number}",
        }
        self.issues.append(issue)
        return Answer(issue, 201)

    def _update_issue(self, request: Request, number: str) -> Answer:
        issue = self._pull(int(number))
        issue.update(request.body)
        return Answer(issue)

    def _get_run(self, request: Request, run: str) -> Answer:
        return Answer({key: value for key, value in by_id(self.runs, run).items() if key != "jobs"})

    def _list_jobs(self, request: Request, run: str) -> Answer:
        found = by_id(self.runs, run)["jobs"]
        shown = [{"name": name, "conclusion": conclusion} for name, conclusion in found.items()]
        return Answer({"total_count": len(shown), "jobs": shown})

    def _list_artifacts(self, request: Request, run: str) -> Answer:
        shown = [
            {key: value for key, value in each.items() if key not in ("run", "content")}
            for each in self.artifacts
            if each["run"] == int(run) and request.query.get("name") in (None, each["name"])
        ]
        return Answer({"total_count": len(shown), "artifacts": shown})
