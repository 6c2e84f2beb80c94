"""Tells Prometheus what was delivered: what runs where and since when, lead times, changes that failed, CI's last runs.

Everything is read from git's history, the only place that says it, and nothing is stored: a restart knows as much as
before. There are two sources of the same facts: a clone (`--git PATH`), or GitHub's REST API (`--repository
OWNER/NAME`), which also knows the workflows' runs. A deployment is a commit on the branch's own line (first parents)
that gave an overlay another digest; merges, squashes and rebases are alike, and no message is relied upon. It is dated
by that commit, which the merge made. `deploy.release.history` reads the same history for the release tool.

One file and the standard library alone: in the cluster it runs in a plain Python image, from a ConfigMap.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.message import Message
from http.client import HTTPException, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Protocol

OVERLAYS = "deploy/overlays"
IMAGE = "espalier"
VERSION = "app.kubernetes.io/version"
REVISION = "espalier.dev/revision"
LEADERBOARD = "reports/leaderboard.json"
ACTIONS = ("release", "promote", "rollback")
PAGE = 100
"""Commits in one answer; GitHub gives no more."""
PORT = 9101
INTERVAL = 300
LONGEST_WAIT = 3600
SECONDS = 30
"""Then a request to GitHub has failed."""
RESERVE = 50
"""Requests that are left to others who use the same token."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_VERDICTS = {"success": 1, "failure": 0, "timed_out": 0, "startup_failure": 0}
"""What a run's conclusion says of its workflow; one that was skipped or cancelled says nothing."""


class DeliveryError(Exception):
    """A source cannot be read; the message is one line with what to do."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait
        """Seconds before which asking again is no use."""


# Facts.


@dataclass(frozen=True)
class Release:
    """What an overlay says that its environment runs."""

    digest: str
    version: str
    revision: str

    @property
    def empty(self) -> bool:
        """Whether nothing was released yet."""
        return self.digest == "sha256:" + "0" * 64


@dataclass(frozen=True)
class Deployment:
    """A commit by which an environment began to run something else."""

    release: Release
    commit: str
    time: int
    """Seconds since 1970."""
    action: str
    """One of `ACTIONS`."""


@dataclass(frozen=True)
class Timeline:
    """The deployments of an environment, oldest first."""

    deployments: tuple[Deployment, ...] = ()
    failed: int = 0
    """Changes that were gone back from."""
    restored: tuple[Deployment, Deployment] | None = None
    """The last change that was gone back from, and the deployment that did it."""

    @property
    def current(self) -> Deployment | None:
        return self.deployments[-1] if self.deployments else None

    @property
    def forward(self) -> Deployment | None:
        """The last one that was no way back."""
        return next((each for each in reversed(self.deployments) if each.action != "rollback"), None)


@dataclass(frozen=True)
class Run:
    """The last run of a workflow on the branch that came to a verdict."""

    workflow: str
    """The stem of its file's name."""
    success: int
    seconds: float
    completed: int


@dataclass(frozen=True)
class Facts:
    """All that is told, as of one commit."""

    timelines: Mapping[str, Timeline]
    """By environment."""
    revised: Mapping[str, int]
    """When each revision that is needed was committed, where that is known."""
    scores: Mapping[str, Mapping[tuple[str, str], float]]
    """Of the champion at a revision, by split and metric."""
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Change:
    """A commit of the branch's own line that changed a file, and the file's text (None: it is gone)."""

    commit: str
    time: int
    release: Release | None


class Source(Protocol):
    """Where facts come from."""

    name: str

    def refresh(self) -> None:
        """Look at the branch again; what is asked afterwards is as of the same commit."""

    def environments(self) -> Sequence[str]: ...

    def changes(self, environment: str) -> Sequence[Change]:
        """What the overlay said, oldest first: at least every commit at which it said something else."""

    def committed(self, revision: str) -> int | None: ...

    def scores(self, revision: str) -> Mapping[tuple[str, str], float]: ...

    def runs(self) -> Sequence[Run]: ...


def read(source: Source) -> Facts:
    """Everything there is to tell.

    Raises:
        DeliveryError: the source cannot be read, or an environment's overlay says nothing.
    """
    source.refresh()
    environments = source.environments()
    if not environments:
        raise DeliveryError(f"{source.name} has no environments under {OVERLAYS}")
    timelines: dict[str, Timeline] = {}
    for name in environments:
        changes = source.changes(name)
        if not changes or changes[-1].release is None:
            raise DeliveryError(f"{source.name}: {overlay(name)} does not say what runs; mend it by a commit")
        timelines[name] = fold(name, changes)
    deployed = [each for line in timelines.values() for each in (line.current, line.forward) if each]
    revisions = {each.release.revision for each in deployed}
    return Facts(
        timelines,
        {each: at for each in sorted(revisions) if (at := source.committed(each)) is not None},
        {each: source.scores(each) for each in sorted(revisions)},
        source.runs(),
    )


def fold(environment: str, changes: Sequence[Change]) -> Timeline:
    """Read changes of an overlay as steps forth and back.

    A digest that is still among the good ones is a step back to it, and all that came after it has failed. Any other
    digest is a step forth, one that failed before too. The same digest under another label is no step.
    """
    forth = "release" if environment == "staging" else "promote"
    every: list[Deployment] = []
    good: list[Deployment] = []
    failed, restored = 0, None
    for change in changes:
        release = change.release
        if release is None or release.empty:
            continue
        if good and good[-1].release.digest == release.digest:
            good[-1], every[-1] = (replace(known, release=release) for known in (good[-1], every[-1]))
            continue
        places = [place for place, known in enumerate(good) if known.release.digest == release.digest]
        made = Deployment(release, change.commit, change.time, "rollback" if places else forth)
        every.append(made)
        if places:
            failed += len(good) - places[0] - 1
            restored = good[-1], made
            del good[places[0] + 1 :]
        else:
            good.append(made)
    return Timeline(tuple(every), failed, restored)


def overlay(environment: str) -> str:
    return f"{OVERLAYS}/{environment}/kustomization.yaml"


def parse(text: str | None) -> Release | None:
    """The three values that the release tool writes, by the lines that they stand on; None where one is missing."""
    digests: list[str] = []
    versions: list[str] = []
    revisions: list[str] = []
    block, image = "", {"name": "", "digest": ""}
    for line in [*(text or "").splitlines(), "end:"]:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A list may begin in the column of its key.
        top = not line[0].isspace() and not line.startswith("-")
        if block == "images" and (top or line.lstrip().startswith("-")):
            if image["name"] == IMAGE:
                digests.append(image["digest"])
            image = {"name": "", "digest": ""}
        key, value = _pair(line)
        if top:
            block = key
        elif block == "images" and key in image:
            image[key] = value
        elif block == "labels" and key == VERSION:
            versions.append(value)
        elif block == "commonAnnotations" and key == REVISION:
            revisions.append(value)
    found = [
        values[0]
        for values, form in ((digests, _DIGEST), (versions, _LABEL), (revisions, _COMMIT))
        if len(values) == 1 and form.fullmatch(values[0])
    ]
    return Release(*found) if len(found) == 3 else None


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.strip().removeprefix("- ").strip().partition(":")
    value = value.strip()
    if value[:1] in ("'", '"'):
        value = value[1:].partition(value[0])[0]
    else:
        value = re.split(r"\s#", value, maxsplit=1)[0].strip()
    return key.strip("'\" "), value


def champion_scores(text: str | None) -> dict[tuple[str, str], float]:
    """The champion's metrics by split and name; nothing where the leaderboard is none, or of another form."""
    try:
        board = json.loads(text or "")
        row = next(each for each in board["rows"] if each["algorithm"] == board["champion"])
        scores = {("cv", str(board["score"])): float(row["cv_mean"])}
        scores |= {("test", str(name)): float(each["value"]) for name, each in row["test"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return scores


# A clone.


class Clone:
    """A clone on this machine. The branch is origin's, as far as the clone knows it, else the local one, else HEAD."""

    def __init__(self, folder: Path, branch: str = "main") -> None:
        """Look whether it can be read.

        Raises:
            DeliveryError: it is no clone, or a shallow one.
        """
        self.name = str(folder)
        self._folder = folder
        self._branch = branch
        self._tip = ""
        if not folder.is_dir():
            raise DeliveryError(f"--git {folder}: there is no such folder")
        if self._git("rev-parse", "--is-shallow-repository").strip() == "true":
            raise DeliveryError(
                f"--git {folder}: the clone is shallow, and the history says what was delivered; "
                "get all of it: `git fetch --unshallow`"
            )

    def refresh(self) -> None:
        for name in (f"refs/remotes/origin/{self._branch}", f"refs/heads/{self._branch}", "HEAD"):
            found = self._call("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            if found.returncode == 0:
                self._tip = found.stdout.decode().strip()
                return
        raise DeliveryError(f"{self.name} has no commits")

    def environments(self) -> Sequence[str]:
        listed = self._git("ls-tree", "-d", "--name-only", "-z", self._tip, f"{OVERLAYS}/").split("\0")
        return _ordered(each.rpartition("/")[2] for each in listed if each)

    def changes(self, environment: str) -> Sequence[Change]:
        path = overlay(environment)
        listed = self._git(
            "log", "--first-parent", "--reverse", "--format=%H %ct", self._tip, "--", path
        ).splitlines()
        commits = [line.split(" ") for line in listed]
        texts = self._texts(path, [commit for commit, _ in commits])
        return [
            Change(commit, int(at), parse(text)) for (commit, at), text in zip(commits, texts, strict=True)
        ]

    def committed(self, revision: str) -> int | None:
        found = self._call("log", "-1", "--no-walk", "--format=%ct", revision, "--")
        said = found.stdout.decode().strip()
        return int(said) if found.returncode == 0 and said else None

    def scores(self, revision: str) -> Mapping[tuple[str, str], float]:
        return champion_scores(self._texts(LEADERBOARD, [revision])[0])

    def runs(self) -> Sequence[Run]:
        """Git knows no workflows."""
        return ()

    def _texts(self, path: str, commits: Sequence[str]) -> list[str | None]:
        """A file's text at each of many commits, by one process."""
        asked = "".join(f"{commit}:{path}\n" for commit in commits)
        said = self._call("cat-file", "--batch", content=asked)
        if said.returncode:
            raise DeliveryError(f"git cat-file in {self.name}: {_last(said.stderr)}")
        texts: list[str | None] = []
        rest = said.stdout
        for _ in commits:
            head, _, rest = rest.partition(b"\n")  # HASH blob SIZE, or NAME missing
            if b" blob " not in head:
                texts.append(None)
                continue
            size = int(head.split()[-1])
            texts.append(rest[:size].decode(errors="replace"))
            rest = rest[size + 1 :]
        return texts

    def _git(self, *arguments: str) -> str:
        done = self._call(*arguments)
        if done.returncode:
            raise DeliveryError(f"git {arguments[0]} in {self.name}: {_last(done.stderr)}")
        return done.stdout.decode(errors="replace")

    def _call(self, *arguments: str, content: str = "") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["git", *arguments],
                cwd=self._folder,
                env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
                input=content.encode(),
                capture_output=True,
                timeout=120,
                check=False,
            )
        except FileNotFoundError:
            raise DeliveryError("git is not installed") from None
        except subprocess.TimeoutExpired:
            raise DeliveryError(f"git {arguments[0]} in {self.name} does not end within 120 s") from None


# GitHub.


@dataclass(frozen=True)
class _Commit:
    parents: tuple[str, ...]
    time: int


@dataclass
class GitHub:
    """GitHub's REST API. What cannot change is asked once; what can, with the ETag of the last answer.

    GitHub lists commits, not the line of first parents, and lists a path's commits only as far as they explain the
    present state. So the line is put together from all commits and their parents; each commit of the path is ascribed
    to the commit that brought it to the line; and where the file's text does not fit from one to the next, the one in
    between that changed it is searched for.
    """

    repository: str
    token: Callable[[], str]
    """Asked for each request: a mounted secret may be renewed."""
    branch: str = "main"
    api: str = "https://api.github.com"
    clock: Callable[[], float] = time.time

    name: str = field(init=False)
    _commits: dict[str, _Commit] = field(init=False, default_factory=dict)
    _line: list[str] = field(init=False, default_factory=list)
    """The branch's own commits, oldest first."""
    _brought: dict[str, int] = field(init=False, default_factory=dict)
    """By which place of the line each commit came to the branch."""
    _touching: dict[str, set[str]] = field(init=False, default_factory=dict)
    """By environment, commits that are known to change its overlay."""
    _listed: dict[str, str] = field(init=False, default_factory=dict)
    """By environment, the tip that its commits were listed for."""
    _folders: tuple[str, Sequence[str]] = field(init=False, default=("", ()))
    _said: dict[tuple[str, str], Release | None] = field(init=False, default_factory=dict)
    """By commit and environment, what the overlay said."""
    _scores: dict[str, Mapping[tuple[str, str], float]] = field(init=False, default_factory=dict)
    _times: dict[str, int | None] = field(init=False, default_factory=dict)
    _tagged: dict[str, tuple[str, Any]] = field(init=False, default_factory=dict)
    """By address, the last answer and its ETag."""
    _closed_until: float = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.name = f"{self.api}/repos/{self.repository}"
        self._opener = urllib.request.build_opener(_SameHost())

    # The source.

    def refresh(self) -> None:
        newest = self._get("commits", _commits, sha=self.branch, per_page=PAGE, tagged=True)
        if not newest:
            raise DeliveryError(f"{self.name} has no commits on {self.branch}")
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
            listed = self._get("commits", _commits, sha=tip, per_page=PAGE, page=page)
        self._follow(tip)

    def environments(self) -> Sequence[str]:
        tip = self._line[-1]
        if self._folders[0] != tip:
            found = self._get(f"contents/{OVERLAYS}", _folders, ref=tip, missing=())
            self._folders = tip, found
        return self._folders[1]

    def changes(self, environment: str) -> Sequence[Change]:
        self._list(environment)
        brought = {self._brought[each] for each in self._touching[environment] if each in self._brought}
        places = sorted(brought)
        # Between two of them nothing should have changed, nor before the first, nor after the last.
        for before, after in zip([-1, *places], [*places, len(self._line)], strict=True):
            brought.update(self._changed(environment, before, after - 1))
        return [
            Change(commit, self._commits[commit].time, self._release(environment, place))
            for place in sorted(brought)
            for commit in (self._line[place],)
        ]

    def committed(self, revision: str) -> int | None:
        if revision in self._commits:
            return self._commits[revision].time
        if revision not in self._times:
            found = self._get(f"commits/{revision}", lambda answer: _commit(answer)[1].time, missing=None)
            self._times[revision] = found
        return self._times[revision]

    def scores(self, revision: str) -> Mapping[tuple[str, str], float]:
        if revision not in self._scores:
            self._scores[revision] = champion_scores(self._text(LEADERBOARD, revision))
        return self._scores[revision]

    def runs(self) -> Sequence[Run]:
        workflows = self._get("actions/workflows", _workflows, per_page=PAGE, tagged=True)
        asked: dict[str, str | int] = {"branch": self.branch, "status": "completed", "per_page": 20}
        found = []
        for number, name in workflows:
            last = self._get(f"actions/workflows/{number}/runs", self._last_run, tagged=True, **asked)
            found += [Run(name, *last)] if last else []
        return tuple(sorted(found, key=lambda run: run.workflow))

    def _last_run(self, answer: Any) -> tuple[int, int, int] | None:
        """Verdict, seconds and end of the newest run with a verdict."""
        for each in answer["workflow_runs"]:
            # A fork may call its branch main, too.
            own = (each["head_repository"] or {}).get("full_name") == self.repository
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
            listed = self._get(
                "commits", _commits, sha=tip, path=overlay(environment), per_page=PAGE, page=page
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
        found: str | None = self._get(
            f"contents/{urllib.parse.quote(path)}",
            lambda answer: base64.b64decode(answer["content"]).decode(errors="replace"),
            ref=commit,
            missing=None,
        )
        return found

    # Requests.

    _DEMANDED = object()

    def _get(
        self,
        where: str,
        pick: Callable[[Any], Any],
        *,
        tagged: bool = False,
        missing: Any = _DEMANDED,
        **query: str | int,
    ) -> Any:
        """What `pick` takes of the JSON at a path of the repository: answers are large, and few fields are needed.

        Args:
            where: the path below repos/OWNER/NAME/.
            pick: given the JSON.
            tagged: ask by the last answer's ETag, which costs nothing of the limit while nothing changed.
            missing: what the answer that there is none stands for; an error if not given.
            **query: parameters of the address.
        """
        if self.clock() < self._closed_until:
            raise self._limited()
        address = f"{self.name}/{where}?{urllib.parse.urlencode(query)}".rstrip("?")
        headers = {
            "Accept": "application/vnd.github+json",
            "User-Agent": "espalier-delivery",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        if token := self.token():
            headers["Authorization"] = f"Bearer {token}"
        if tagged and address in self._tagged:
            headers["If-None-Match"] = self._tagged[address][0]
        request = urllib.request.Request(address, headers=headers)  # noqa: S310  --api is http or https
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                self._heed(answer.headers)
                content, tag = json.load(answer), answer.headers.get("ETag")
        except urllib.error.HTTPError as error:
            with error:
                self._heed(error.headers)
                if error.code == 304:
                    return self._tagged[address][1]
                # A commit that is not there is 422, everything else 404.
                if error.code in (404, 422) and missing is not self._DEMANDED:
                    return missing
                raise self._refusal(error, where) from None
        except (OSError, HTTPException, ValueError) as error:
            # URLError is an OSError, and JSON's error a ValueError.
            reason = getattr(error, "reason", None) or error
            raise DeliveryError(f"{self.name}/{where}: {reason or type(error).__name__}") from None
        try:
            picked = pick(content)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DeliveryError(f"{self.name}/{where}: the answer is not what it was: {error!r}") from None
        if tagged and tag:
            self._tagged[address] = tag, picked
        return picked

    def _heed(self, headers: Message) -> None:
        """Ask nothing more until the limit is renewed, once it is nearly used up."""
        remaining, reset = headers.get("X-RateLimit-Remaining", ""), headers.get("X-RateLimit-Reset", "")
        limit = headers.get("X-RateLimit-Limit", "")
        if remaining.isdecimal() and reset.isdecimal():
            reserve = min(RESERVE, int(limit) // 10) if limit.isdecimal() else 0
            if int(remaining) <= reserve:
                self._closed_until = max(self._closed_until, float(reset))

    def _refusal(self, error: urllib.error.HTTPError, where: str) -> DeliveryError:
        try:
            said = str(json.load(error)["message"])
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            said = str(error.reason)
        after = error.headers.get("Retry-After", "")
        if error.code in (403, 429) and (after.isdecimal() or "rate limit" in said):
            # GitHub asks for a minute where it does not say for how long.
            wait = int(after) if after.isdecimal() else 60
            self._closed_until = max(self._closed_until, self.clock() + wait)
        if error.code in (403, 429) and self.clock() < self._closed_until:
            return self._limited()
        remedy = {
            401: "; the token is not valid: make a new one",
            403: "; the token must be allowed to read contents and actions of this repository",
            404: "; the repository's name must be right, and the token must be allowed to read it",
        }.get(error.code, "")
        return DeliveryError(f"{self.name}/{where}: {error.code} {said}{remedy}")

    def _limited(self) -> DeliveryError:
        wait = max(0.0, self._closed_until - self.clock())
        return DeliveryError(f"{self.name}: the limit of requests is used up for {wait:.0f} s", wait)


def _commit(answer: Any) -> tuple[str, _Commit]:
    parents = tuple(str(each["sha"]) for each in answer["parents"])
    return str(answer["sha"]), _Commit(parents, _seconds(answer["commit"]["committer"]["date"]))


def _commits(answer: Any) -> list[tuple[str, _Commit]]:
    return [_commit(each) for each in answer]


def _folders(answer: Any) -> tuple[str, ...]:
    return _ordered(each["name"] for each in answer if each["type"] == "dir")


def _workflows(answer: Any) -> list[tuple[int, str]]:
    """Numbers and names; GitHub's own, such as Dependabot's, have no file here."""
    files = [(int(each["id"]), Path(each["path"])) for each in answer["workflows"]]
    return [(number, file.stem) for number, file in files if file.parent == Path(".github/workflows")]


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows GitHub to a renamed repository, and carries the token to nobody else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        here, there = (urllib.parse.urlsplit(each)[:2] for each in (req.full_url, newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl) if here == there else None


# What Prometheus reads.


def exposition(facts: Facts | None, up: bool, read_at: float | None) -> str:
    """The text of Prometheus' format.

    Args:
        facts: what was read last; None before the first time.
        up: whether the last reading worked.
        read_at: seconds since 1970 of the last one that worked.
    """
    families: dict[str, tuple[str, str, list[tuple[dict[str, str], float]]]] = {
        name: (kind, text, []) for name, (kind, text) in _FAMILIES.items()
    }

    def add(name: str, value: float, **labels: str) -> None:
        families[name][2].append((labels, value))

    for environment, timeline in facts.timelines.items() if facts else ():
        for action in ACTIONS:
            count = sum(each.action == action for each in timeline.deployments)
            add("espalier_deployments_total", count, environment=environment, action=action)
        add("espalier_failed_changes_total", timeline.failed, environment=environment)
        if timeline.restored:
            broken, mended = timeline.restored
            add("espalier_restore_seconds", mended.time - broken.time, environment=environment)
    for environment, timeline in facts.timelines.items() if facts else ():
        current, forward = timeline.current, timeline.forward
        if not facts or not current:
            continue
        release = current.release
        add(
            "espalier_deployment_info",
            1,
            environment=environment,
            version=release.version,
            digest=release.digest,
            revision=release.revision,
            action=current.action,
        )
        add("espalier_deployed_timestamp_seconds", current.time, environment=environment)
        if forward and forward.release.revision in facts.revised:
            lead = forward.time - facts.revised[forward.release.revision]
            add("espalier_lead_time_seconds", lead, environment=environment)
        for (split, metric), value in facts.scores.get(release.revision, {}).items():
            labels = {"environment": environment, "version": release.version}
            add("espalier_release_metric", value, **labels, split=split, metric=metric)
    for run in facts.runs if facts else ():
        add("espalier_workflow_run_seconds", run.seconds, workflow=run.workflow)
        add("espalier_workflow_success", run.success, workflow=run.workflow)
        add("espalier_workflow_completed_timestamp_seconds", run.completed, workflow=run.workflow)
    add("espalier_delivery_up", int(up))
    if read_at is not None:
        add("espalier_delivery_read_timestamp_seconds", read_at)
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        + "".join(f"{name}{_labels(labels)} {_number(value)}\n" for labels, value in samples)
        for name, (kind, text, samples) in families.items()
        if samples
    )


_FAMILIES = {
    "espalier_deployment_info": ("gauge", "What git says that an environment runs, and how it came there."),
    "espalier_deployed_timestamp_seconds": ("gauge", "When what runs was deployed."),
    "espalier_deployments_total": ("counter", "Deployments in the whole history, by what they were."),
    "espalier_failed_changes_total": ("counter", "Deployed changes that were gone back from."),
    "espalier_lead_time_seconds": (
        "gauge",
        "From the commit of the revision to its deployment, for the last one that was no rollback.",
    ),
    "espalier_restore_seconds": (
        "gauge",
        "From the deployment of the last change that failed to the rollback.",
    ),
    "espalier_release_metric": ("gauge", "Metrics of the champion at the revision that runs, from training."),
    "espalier_workflow_run_seconds": ("gauge", "How long the last completed run on the branch took."),
    "espalier_workflow_success": ("gauge", "1 if the last completed run on the branch succeeded, else 0."),
    "espalier_workflow_completed_timestamp_seconds": ("gauge", "When the last run on the branch completed."),
    "espalier_delivery_up": ("gauge", "1 if the last reading of git or GitHub worked, else 0."),
    "espalier_delivery_read_timestamp_seconds": ("gauge", "When the last reading that worked was done."),
}


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    return repr(int(value)) if value == int(value) else repr(float(value))


# The program.


class Exporter:
    """Reads the source again and again; keeps the last facts while it cannot be read."""

    def __init__(self, source: Source, interval: float, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self._interval = interval
        self._clock = clock
        self._facts: Facts | None = None
        self._read_at: float | None = None
        self._failures = 0
        self._up = False
        self.stopping = threading.Event()

    def text(self) -> str:
        """What `/metrics` answers."""
        return exposition(self._facts, self._up, self._read_at)

    def refresh(self) -> float:
        """Read once, and say how many seconds to wait before the next time."""
        try:
            self._facts = read(self.source)
        except DeliveryError as error:
            self._failed(str(error))
            return max(self._patience(), error.wait or 0)
        except Exception as error:
            # GitHub may answer something nobody thought of; what is known stays true, and the next answer may be right.
            self._failed(f"{self.source.name}: an answer is not what it was: {error!r}")
            return self._patience()
        self._read_at, self._up = self._clock(), True
        if self._failures:
            log("info", f"{self.source.name} can be read again")
        self._failures = 0
        return self._interval

    def run(self) -> None:
        """Until `stopping` is set."""
        while not self.stopping.is_set():
            self.stopping.wait(self.refresh())

    def _patience(self) -> float:
        """Twice as long after each failure, and an hour at most."""
        return max(self._interval, min(LONGEST_WAIT, self._interval * 2.0 ** min(self._failures - 1, 10)))

    def _failed(self, reason: str) -> None:
        self._up = False
        self._failures += 1
        log("error", reason)


def log(level: str, message: str) -> None:
    """One line of JSON on stderr, as the service's."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"time": now, "level": level, "message": message}), file=sys.stderr, flush=True)


def server(exporter: Exporter, host: str, port: int) -> ThreadingHTTPServer:
    """Answers `/metrics` and `/health`; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "espalier-delivery"
        timeout = 20

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, exporter.text(), CONTENT_TYPE)
            elif path == "/health":
                self._answer(200, "ok\n")
            else:
                self._answer(404, "here are /metrics and /health\n")

        def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """A scrape is nothing to tell."""

    ThreadingHTTPServer.daemon_threads = True
    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    options = _options()
    if options.once:
        print(exposition(read(_source(options)), up=True, read_at=time.time()), end="")
        return
    exporter = Exporter(_source(options), options.interval)
    try:
        serving = server(exporter, options.host, options.port)
    except OSError as error:
        raise DeliveryError(f"--port {options.port}: {error.strerror}; choose another") from None

    def stop(*_: object) -> None:
        exporter.stopping.set()
        threading.Thread(target=serving.shutdown).start()

    # Process 1 of a container is not ended by signals that it has not asked for.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    threading.Thread(target=exporter.run, daemon=True).start()
    log("info", f"{exporter.source.name}: metrics at {options.host}:{serving.server_address[1]}/metrics")
    with serving:
        serving.serve_forever()


def _source(options: argparse.Namespace) -> Source:
    if options.git is not None:
        return Clone(options.git, options.branch)
    file: Path | None = options.token_file

    def token() -> str:
        if file is None:
            return ""
        try:
            found = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryError(f"--token-file {file}: {error}") from None
        # A header with a line break in it would be two.
        if not re.fullmatch(r"[!-~]+", found):
            raise DeliveryError(f"--token-file {file}: it must hold a token and nothing else")
        return found

    token()
    return GitHub(options.repository, token, options.branch, options.api.rstrip("/"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m monitoring.delivery", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--git", type=Path, metavar="PATH", help="read a clone on this machine")
    source.add_argument("--repository", metavar="OWNER/NAME", help="read GitHub")
    parser.add_argument(
        "--token-file", type=Path, help="file with GitHub's token; without, only 60 requests an hour"
    )
    parser.add_argument("--branch", default="main", help="(default: %(default)s)")
    parser.add_argument("--api", default="https://api.github.com", help="(default: %(default)s)")
    parser.add_argument(
        "--interval", type=float, default=INTERVAL, help="seconds from one reading to the next (%(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="(default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="print the metrics once, instead of serving them")
    options = parser.parse_args()
    if options.repository is not None and not _REPOSITORY.fullmatch(options.repository):
        parser.error(f"--repository {options.repository!r} is not OWNER/NAME")
    if urllib.parse.urlsplit(options.api).scheme not in ("http", "https"):
        parser.error(f"--api {options.api!r} is not the address of an API, such as https://api.github.com")
    if not options.interval >= 1:
        parser.error("--interval must be at least 1 second")
    if not 0 <= options.port <= 65535:
        parser.error("--port must be between 0 and 65535")
    return options


def _ordered(names: Iterator[str]) -> tuple[str, ...]:
    """Staging and production first."""
    found = set(names)
    first = [name for name in ("staging", "production") if name in found]
    return (*first, *sorted(found - set(first)))


def _seconds(text: str) -> int:
    """Seconds since 1970 of GitHub's times, as 2026-11-21T12:00:00Z."""
    return int(datetime.fromisoformat(text).timestamp())


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ") if lines else "git said nothing"


if __name__ == "__main__":
    try:
        main()
    except DeliveryError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
