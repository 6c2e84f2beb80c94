"""The source that is GitHub."""

from __future__ import annotations

import base64
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .api import Api
from .errors import DeliveryError
from .facts import Change, Run
from .files import LEADERBOARD, OVERLAYS, Release, champion_scores, ordered, overlay, parse

PAGE = 100
"""Commits in one answer; GitHub gives no more."""

_VERDICTS = {"success": 1, "failure": 0, "timed_out": 0, "startup_failure": 0}
"""What a run's conclusion says of its workflow; one that was skipped or cancelled says nothing."""


@dataclass(frozen=True)
class _Commit:
    parents: tuple[str, ...]
    time: int


class GitHub:
    """GitHub's REST API. What cannot change is asked once; what can, with the ETag of the last answer.

    GitHub lists commits, not the line of first parents, and lists a path's commits only as far as they explain the
    present state. So the line is put together from all commits and their parents; each commit of the path is ascribed
    to the commit that brought it to the line; and where the file's text does not fit from one to the next, the one in
    between that changed it is searched for.
    """

    def __init__(
        self,
        repository: str,
        token: Callable[[], str],
        branch: str = "main",
        api: str = "https://api.github.com",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{api}/repos/{repository}"
        self._api = Api(self.name, token, clock)
        self._repository = repository
        self._branch = branch

        self._commits: dict[str, _Commit] = {}
        self._line: list[str] = []
        """The branch's own commits, oldest first."""
        self._brought: dict[str, int] = {}
        """By which place of the line each commit came to the branch."""
        self._touching: dict[str, set[str]] = {}
        """By environment, commits that are known to change its overlay."""
        self._listed: dict[str, str] = {}
        """By environment, the tip that its commits were listed for."""
        self._environments: tuple[str, Sequence[str]] = "", ()
        """A tip, and those that it has."""
        self._said: dict[tuple[str, str], Release | None] = {}
        """By commit and environment, what the overlay said."""
        self._scores: dict[str, Mapping[tuple[str, str], float]] = {}
        self._times: dict[str, int | None] = {}
        """Of commits that are not on the branch; None for those that are not there."""

    def refresh(self) -> None:
        newest = self._api.get("commits", _pick_commits, sha=self._branch, per_page=PAGE, tagged=True)
        if not newest:
            raise DeliveryError(f"{self.name} has no commits on {self._branch}")
        tip = newest[0][0]
        if self._line and self._line[-1] == tip:
            return
        page, listed = 1, newest
        while True:
            self._commits.update(listed)
            if len(listed) < PAGE or self._closed(tip):
                break
            page += 1
            # By the commit, not the branch: pages must not shift while they are read.
            listed = self._api.get("commits", _pick_commits, sha=tip, per_page=PAGE, page=page)
        self._follow(tip)

    def environments(self) -> Sequence[str]:
        tip = self._line[-1]
        if self._environments[0] != tip:
            found = self._api.get(f"contents/{OVERLAYS}", _pick_environments, ref=tip, missing=())
            self._environments = tip, found
        return self._environments[1]

    def changes(self, environment: str) -> Sequence[Change]:
        self._list(environment)
        brought = {self._brought[each] for each in self._touching[environment] if each in self._brought}
        places = sorted(brought)
        # Between two of them nothing should have changed, nor before the first, nor after the last.
        for before, after in zip([-1, *places], [*places, len(self._line)], strict=True):
            brought.update(self._changed(environment, before, after - 1))
        return [
            Change(
                self._line[place], self._commits[self._line[place]].time, self._release(environment, place)
            )
            for place in sorted(brought)
        ]

    def committed(self, revision: str) -> int | None:
        if revision in self._commits:
            return self._commits[revision].time
        if revision not in self._times:
            found = self._api.get(
                f"commits/{revision}", lambda answer: _pick_commit(answer)[1].time, missing=None
            )
            self._times[revision] = found
        return self._times[revision]

    def scores(self, revision: str) -> Mapping[tuple[str, str], float]:
        if revision not in self._scores:
            self._scores[revision] = champion_scores(self._text(LEADERBOARD, revision))
        return self._scores[revision]

    def runs(self) -> Sequence[Run]:
        workflows = self._api.get("actions/workflows", _pick_workflows, per_page=PAGE, tagged=True)
        asked: dict[str, str | int] = {"branch": self._branch, "status": "completed", "per_page": 20}
        found = []
        for number, name in workflows:
            last = self._api.get(f"actions/workflows/{number}/runs", self._pick_run, tagged=True, **asked)
            found += [Run(name, *last)] if last else []
        return tuple(sorted(found, key=lambda run: run.workflow))

    def _pick_run(self, answer: Any) -> tuple[int, int, int] | None:
        """Verdict, seconds and end of the newest run with a verdict."""
        for each in answer["workflow_runs"]:
            # A fork may call its branch main, too.
            own = (each["head_repository"] or {}).get("full_name") == self._repository
            if own and each["event"] != "pull_request" and each["conclusion"] in _VERDICTS:
                began, ended = _seconds(each["run_started_at"]), _seconds(each["updated_at"])
                return _VERDICTS[each["conclusion"]], max(0, ended - began), ended
        return None

    # The history.

    def _closed(self, tip: str) -> bool:
        """Whether every ancestor of a commit is known."""
        seen, waiting = set(self._brought), [tip]
        while waiting:
            each = waiting.pop()
            if each in seen:
                continue
            if each not in self._commits:
                return False
            seen.add(each)
            waiting += self._commits[each].parents
        return True

    def _follow(self, tip: str) -> None:
        """Put the branch's own line together, and say of each commit which of the line brought it."""
        line, each = [], tip
        while each:
            if each not in self._commits:
                raise DeliveryError(f"{self.name} does not list the commit {each}, a parent of others")
            line.append(each)
            each = next(iter(self._commits[each].parents), "")
        line.reverse()
        brought: dict[str, int] = {}
        for place, commit in enumerate(line):
            waiting = [commit]
            while waiting:
                each = waiting.pop()
                if each not in brought and each in self._commits:
                    brought[each] = place
                    waiting += self._commits[each].parents
        self._line, self._brought = line, brought

    def _list(self, environment: str) -> None:
        """Learn which commits change an overlay; older ones than those known are asked for once."""
        tip, known = self._line[-1], self._touching.setdefault(environment, set())
        if self._listed.get(environment) == tip:
            return
        page = 1
        while True:
            listed = self._api.get(
                "commits", _pick_commits, sha=tip, path=overlay(environment), per_page=PAGE, page=page
            )
            found = {commit for commit, _ in listed}
            complete = len(listed) < PAGE or (environment in self._listed and found <= known)
            known |= found
            if complete:
                break
            page += 1
        self._listed[environment] = tip

    def _changed(self, environment: str, before: int, after: int) -> Iterator[int]:
        """The places after `before` and up to `after` at which the overlay changed, by halving."""
        if self._release(environment, before) == self._release(environment, after):
            return
        if after - before == 1:
            yield after
            return
        middle = (before + after) // 2
        yield from self._changed(environment, before, middle)
        yield from self._changed(environment, middle, after)

    def _release(self, environment: str, place: int) -> Release | None:
        if place < 0:
            return None
        key = self._line[place], environment
        if key not in self._said:
            self._said[key] = parse(self._text(overlay(environment), key[0]))
        return self._said[key]

    def _text(self, path: str, commit: str) -> str | None:
        found: str | None = self._api.get(
            f"contents/{urllib.parse.quote(path)}",
            lambda answer: base64.b64decode(answer["content"]).decode(errors="replace"),
            ref=commit,
            missing=None,
        )
        return found


def _pick_commit(answer: Any) -> tuple[str, _Commit]:
    parents = tuple(str(each["sha"]) for each in answer["parents"])
    return str(answer["sha"]), _Commit(parents, _seconds(answer["commit"]["committer"]["date"]))


def _pick_commits(answer: Any) -> list[tuple[str, _Commit]]:
    return [_pick_commit(each) for each in answer]


def _pick_environments(answer: Any) -> tuple[str, ...]:
    return ordered(each["name"] for each in answer if each["type"] == "dir")


def _pick_workflows(answer: Any) -> list[tuple[int, str]]:
    """Numbers and names; GitHub's own, such as Dependabot's, have no file here."""
    files = [(int(each["id"]), Path(each["path"])) for each in answer["workflows"]]
    return [(number, file.stem) for number, file in files if file.parent == Path(".github/workflows")]


def _seconds(text: str) -> int:
    """Seconds since 1970 of GitHub's times, as 2026-11-21T12:00:00Z."""
    return int(datetime.fromisoformat(text).timestamp())
