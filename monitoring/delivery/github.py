"""Reads a repository on GitHub: a clone, and the last runs of its workflows from the REST API."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .clone import Clone, DeliveryError
from .facts import Run

SERVER = "https://github.com"
API = "https://api.github.com"
FETCH_SECONDS = 900
STALLED_SECONDS = 60
"""Git ends a transfer that brings no data for so long, and leaves no lock behind."""
REQUEST_SECONDS = 30
"""A request to the API that takes longer has failed."""

_VERDICTS = {"success": 1, "failure": 0, "timed_out": 0, "startup_failure": 0}
"""Conclusions that count as success or failure; a run that was skipped or cancelled is ignored."""
_REMEDIES = {
    401: "; the token is not valid: make a new one",
    403: "; the token must be allowed to read contents and actions of this repository",
    404: "; the repository's name must be right, and the token must be allowed to read it",
}


class GitHub(Clone):
    """A clone that each reading fetches; only workflow runs come from GitHub's REST API."""

    def __init__(
        self,
        repository: str,
        token: Callable[[], str],
        branch: str = "main",
        server: str = SERVER,
        api: str = API,
    ) -> None:
        """Make an empty clone in a temporary folder; `read` fetches.

        Args:
            repository: OWNER/NAME.
            token: called for each request, because a mounted secret may be renewed; empty if there is no token.
            branch: the branch that environments are deployed from.
            server: where git fetches from.
            api: the REST API's address.
        """
        self._server, self._token, self._repository = server, token, repository
        self._api = f"{api}/repos/{repository}/actions/workflows"
        self._opener = urllib.request.build_opener()
        self._answers: dict[str, tuple[str, Any]] = {}
        """By address, the ETag of the last answer and what was picked from it."""
        self._folder_kept = TemporaryDirectory(prefix="espalier-delivery-", ignore_cleanup_errors=True)
        super().__init__(Path(self._folder_kept.name), branch, f"{server}/{repository}")

    def _refresh(self) -> None:
        fetched = self._call(
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "origin",
            "+refs/heads/*:refs/heads/*",
            seconds=FETCH_SECONDS,
        )
        if fetched.returncode:
            raise DeliveryError(f"git fetch of {self.name}: {_reason(fetched)}")
        super()._refresh()

    def _runs(self) -> Sequence[Run]:
        asked = urllib.parse.urlencode({"branch": self._branch, "status": "completed", "per_page": 20})
        found = []
        for number, name in self._ask("?per_page=100", _pick_workflows):
            last = self._ask(f"/{number}/runs?{asked}", self._pick_run)
            found += [Run(name, *last)] if last else []
        return tuple(sorted(found, key=lambda run: run.workflow))

    def _ask(self, where: str, pick: Callable[[Any], Any]) -> Any:
        """What `pick` takes from the API's answer. The ETag makes an unchanged answer empty, and free of GitHub's limit.

        Raises:
            DeliveryError: GitHub cannot be reached, refuses, or its answer has another form.
        """
        address = self._api + where
        request = urllib.request.Request(address, headers={"Accept": "application/vnd.github+json"})  # noqa: S310  --api is http or https
        if token := self._token():
            # A redirect to another host must not carry the token.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        tag, picked = self._answers.get(address, ("", None))
        if tag:
            request.add_header("If-None-Match", tag)
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                content, tag = json.load(answer), answer.headers.get("ETag", "")
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 304:
                    return picked
                said = f"{error.code} {_message(error)}{_REMEDIES.get(error.code, '')}"
            raise DeliveryError(f"{address}: {said}") from None
        except (OSError, HTTPException, ValueError) as error:
            # URLError is an OSError, and JSON's error a ValueError.
            reason = getattr(error, "reason", None) or error
            raise DeliveryError(f"{address}: {reason or type(error).__name__}") from None
        try:
            picked = pick(content)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DeliveryError(f"{address}: the answer is not what it was: {error!r}") from None
        self._answers[address] = tag, picked
        return picked

    def _prepare(self) -> None:
        self._git("init", "--quiet", "--bare", "--template=", f"--initial-branch={self._branch}")
        self._git("config", "remote.origin.url", self.name)

    def _environment(self) -> Mapping[str, str]:
        """Git's settings as variables: other processes can read arguments, and files would stay behind."""
        settings = {
            "gc.autoDetach": "false",
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": str(STALLED_SECONDS),
        }
        if token := self._token():
            given = base64.b64encode(f"x-access-token:{token}".encode()).decode()
            settings[f"http.{self._server}/.extraHeader"] = f"Authorization: Basic {given}"
        numbered = {
            f"GIT_CONFIG_{what}_{number}": text
            for number, pair in enumerate(settings.items())
            for what, text in zip(("KEY", "VALUE"), pair, strict=True)
        }
        return {"GIT_CONFIG_COUNT": str(len(settings)), **numbered}

    def _pick_run(self, answer: Any) -> tuple[int, int, int] | None:
        """Verdict, seconds and end of the newest run with a verdict."""
        for each in answer["workflow_runs"]:
            # A fork may also call its branch main.
            own = (each["head_repository"] or {}).get("full_name") == self._repository
            if own and each["event"] != "pull_request" and each["conclusion"] in _VERDICTS:
                began, ended = _seconds(each["run_started_at"]), _seconds(each["updated_at"])
                return _VERDICTS[each["conclusion"]], max(0, ended - began), ended
        return None


def _reason(fetched: subprocess.CompletedProcess[bytes]) -> str:
    """Git's reason in one line, with a remedy where git only says that it wants a password."""
    said = fetched.stderr.decode(errors="replace").strip()
    if re.search(r"could not read Username|Authentication failed|returned error: 40[134]|not found", said):
        return "it was refused; the repository's name must be right, and the token valid and allowed to read contents"
    # Git gives the cause first, then advice.
    lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
    return (lines or said.splitlines() or ["git said nothing"])[0].removeprefix("fatal: ")


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return str(error.reason)


def _pick_workflows(answer: Any) -> list[tuple[int, str]]:
    """Numbers and names; GitHub's own workflows, such as Dependabot's, have no file in the repository."""
    files = [(int(each["id"]), Path(each["path"])) for each in answer["workflows"]]
    return [(number, file.stem) for number, file in files if file.parent == Path(".github/workflows")]


def _seconds(text: str) -> int:
    """Seconds since 1970 of a time in GitHub's form, such as 2026-11-21T12:00:00Z."""
    return int(datetime.fromisoformat(text).timestamp())
