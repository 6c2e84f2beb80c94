"""Reads the facts from a clone on this machine."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .facts import Change, Facts, Run, Timeline, fold
from .files import OVERLAYS, RELEASE, Place, champion_scores, leaderboards, parse, place

SECONDS = 120
"""A command of git that takes longer has failed."""


class DeliveryError(Exception):
    """The clone or GitHub cannot be read; the message is one line with what to do."""


class Clone:
    """A clone on this machine. Its branch is origin's if the clone has that, else the local one, else HEAD."""

    def __init__(self, folder: Path, branch: str = "main", name: str = "") -> None:
        """Check that it can be read.

        Args:
            folder: of the clone.
            branch: the branch that environments are deployed from.
            name: the clone's name in messages; its folder if empty.

        Raises:
            DeliveryError: it is no clone, or a shallow one.
        """
        self.name = name or str(folder)
        self._folder = folder
        self._branch = branch
        self._tip = ""
        self._prepare()

    def read(self) -> Facts:
        """All facts, as of one commit.

        Raises:
            DeliveryError: the clone cannot be read, or a release file says nothing.
        """
        self._refresh()
        listed = self._git("ls-tree", "-r", "--name-only", "-z", self._tip, f"{OVERLAYS}/").split("\0")
        if not any(listed):
            raise DeliveryError(f"{self.name} has no environments under {OVERLAYS}")
        history = self._history()
        timelines: dict[Place, Timeline] = {}
        # A model that was removed from an environment has a history and no file.
        for each in sorted(found for path in listed if (found := place(path))):
            changes = history[each]
            if not changes or changes[-1].release is None:
                raise DeliveryError(f"{self.name}: {each.path} does not say what runs; mend it by a commit")
            timelines[each] = fold(each.environment, changes)
        deployed = {
            (at.model, each.release.revision)
            for at, line in timelines.items()
            for each in (line.current, line.forward)
            if each
        }
        revisions = sorted({revision for _, revision in deployed})
        return Facts(
            timelines,
            {each: at for each in revisions if (at := self._committed(each)) is not None},
            self._scores(sorted(deployed)),
            self._runs(),
        )

    def _refresh(self) -> None:
        """Find the branch's commit; everything read afterwards is as of that commit."""
        for name in (f"refs/remotes/origin/{self._branch}", f"refs/heads/{self._branch}", "HEAD"):
            found = self._call("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            if found.returncode == 0:
                self._tip = found.stdout.decode().strip()
                return
        raise DeliveryError(f"{self.name} has no commits")

    def _history(self) -> Mapping[Place, Sequence[Change]]:
        """Each release file's content at each commit of the branch's own line that changed it, oldest first."""
        form = "--format=%x1e%H %ct"
        files = f":(glob){OVERLAYS}/*/*/{RELEASE}"
        said = self._git(
            *(
                "log",
                "--first-parent",
                "--reverse",
                "--name-only",
                "--no-renames",
                form,
                self._tip,
                "--",
                files,
            )
        )
        changes = []
        for entry in said.split("\x1e")[1:]:
            head, *paths = entry.split("\n")
            commit, at = head.split(" ")
            changes += [(commit, int(at), found) for path in paths if (found := place(path))]
        texts = self._texts((commit, each.path) for commit, _, each in changes)
        history: defaultdict[Place, list[Change]] = defaultdict(list)
        for (commit, seconds, each), text in zip(changes, texts, strict=True):
            history[each].append(Change(commit, seconds, parse(text)))
        return history

    def _scores(
        self, deployed: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Mapping[tuple[str, str], float]]:
        """Of each model at each revision."""
        asked = [(model, revision, path) for model, revision in deployed for path in leaderboards(model)]
        texts = self._texts((revision, path) for _, revision, path in asked)
        return {
            (model, revision): scores
            for (model, revision, _), text in zip(asked, texts, strict=True)
            if (scores := champion_scores(model, text))
        }

    def _committed(self, revision: str) -> int | None:
        found = self._call("log", "-1", "--no-walk", "--format=%ct", revision, "--")
        said = found.stdout.decode().strip()
        return int(said) if found.returncode == 0 and said else None

    def _runs(self) -> Sequence[Run]:
        """None: git has no record of workflows."""
        return ()

    def _prepare(self) -> None:
        if not self._folder.is_dir():
            raise DeliveryError(f"--git {self.name}: there is no such folder")
        if self._git("rev-parse", "--is-shallow-repository").strip() == "true":
            raise DeliveryError(
                f"--git {self.name}: the clone is shallow, and the history says what was delivered; "
                "get all of it: `git fetch --unshallow`"
            )

    def _environment(self) -> Mapping[str, str]:
        """Variables for git."""
        return {}

    def _texts(self, files: Iterable[tuple[str, str]]) -> list[str | None]:
        """The texts of many files, each by its commit and path, read by one process."""
        asked = [f"{commit}:{path}\n" for commit, path in files]
        said = self._call("cat-file", "--batch", content="".join(asked))
        if said.returncode:
            raise DeliveryError(f"git cat-file in {self.name}: {_last(said.stderr)}")
        texts: list[str | None] = []
        rest = said.stdout
        for _ in asked:
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

    def _call(
        self, *arguments: str, content: str = "", seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["git", *arguments],
                cwd=self._folder,
                env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **self._environment()},
                input=content.encode(),
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError:
            raise DeliveryError("git is not installed") from None
        except subprocess.TimeoutExpired:
            raise DeliveryError(
                f"git {arguments[0]} in {self.name} does not end within {seconds:.0f} s"
            ) from None


def _last(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    if lines and lines[-1].startswith("git config --global --add safe.directory "):
        return f"the clone belongs to another user; trust it with `{lines[-1]}`"
    return lines[-1].removeprefix("fatal: ") if lines else "git said nothing"
