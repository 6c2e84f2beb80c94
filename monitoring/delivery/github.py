"""A clone of a repository on GitHub, and the last runs of its workflows, which git does not know."""

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

from .clone import Clone
from .errors import DeliveryError
from .facts import Run

SERVER = "https://github.com"
API = "https://api.github.com"
FETCH_SECONDS = 900
STALLED_SECONDS = 60
"""Without data for so long, git ends a transfer itself and leaves no lock behind."""
REQUEST_SECONDS = 30
"""Then a request to the API has failed."""

_VERDICTS = {"success": 1, "failure": 0, "timed_out": 0, "startup_failure": 0}
"""What a run's conclusion says of its workflow; one that was skipped or cancelled says nothing."""


_REMEDIES = {
    401: "; the token is not valid: make a new one",
    403: "; the token must be allowed to read contents and actions of this repository",
    404: "; the repository's name must be right, and the token must be allowed to read it",
}


class GitHub(Clone):
    """A clone that every reading fetches. Only the workflows' runs come from GitHub's REST API."""

    def __init__(
        self,
        repository: str,
        token: Callable[[], str],
        branch: str = "main",
        server: str = SERVER,
        api: str = API,
    ) -> None:
        """Make an empty clone in a temporary folder, and fetch nothing yet.

        Args:
            repository: OWNER/NAME.
            token: asked for each request, as a mounted secret may be renewed; empty if there is no token.
            branch: what environments are deployed from.
            server: where git fetches from.
            api: the REST API's address.
        """
        self._server, self._token, self._repository = server, token, repository
        self._api = f"{api}/repos/{repository}/actions/workflows"
        self._opener = urllib.request.build_opener()
        self._answers: dict[str, tuple[str, Any]] = {}
        """By address, the ETag of the last answer and what was picked of it."""
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
        """What `pick` takes of the API's answer. While nothing changed, the ETag makes the answer empty and free.

        Raises:
            DeliveryError: GitHub cannot be asked, refuses, or answers something else than `pick` takes.
        """
        address = self._api + where
        request = urllib.request.Request(address, headers={"Accept": "application/vnd.github+json"})  # noqa: S310  --api is http or https
        if token := self._token():
            # A redirect may lead to another host, which must not get the token.
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
        """Settings of git by its environment: arguments can be read by other processes, and files stay behind."""
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
            # A fork may call its branch main, too.
            own = (each["head_repository"] or {}).get("full_name") == self._repository
            if own and each["event"] != "pull_request" and each["conclusion"] in _VERDICTS:
                began, ended = _seconds(each["run_started_at"]), _seconds(each["updated_at"])
                return _VERDICTS[each["conclusion"]], max(0, ended - began), ended
        return None


def _reason(fetched: subprocess.CompletedProcess[bytes]) -> str:
    """Git's reason in one line, with the remedy where git only says that it would ask for a password."""
    said = fetched.stderr.decode(errors="replace").strip()
    if re.search(r"could not read Username|Authentication failed|returned error: 40[134]|not found", said):
        return "it was refused; the repository's name must be right, and the token valid and allowed to read contents"
    # The line with the cause comes first; what follows is advice.
    lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
    return (lines or said.splitlines() or ["git said nothing"])[0].removeprefix("fatal: ")


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return str(error.reason)


def _pick_workflows(answer: Any) -> list[tuple[int, str]]:
    """Numbers and names; GitHub's own, such as Dependabot's, have no file here."""
    files = [(int(each["id"]), Path(each["path"])) for each in answer["workflows"]]
    return [(number, file.stem) for number, file in files if file.parent == Path(".github/workflows")]


def _seconds(text: str) -> int:
    """Seconds since 1970 of GitHub's times, as 2026-11-21T12:00:00Z."""
    return int(datetime.fromisoformat(text).timestamp())
