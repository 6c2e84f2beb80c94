"""Runs git, and makes commits without a working tree.

A commit is built from git's objects: the tip's tree with one file exchanged. No branch is checked out, no file of the
person's is touched, no hook of theirs runs, and a process that is killed leaves nothing behind but objects that
git collects by itself.
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import SystemRandom

from common import git
from common.git import GitError, GitTimeoutError
from common.git import reason as git_reason

REMOTE = "origin"
SECONDS = 120
"""For one command; only fetch and push can take long."""
_LOST_RACE = re.compile(
    r"\[rejected\]|cannot lock ref|failed to update ref|incorrect old value|reference already exists|"
    r"Unable to create .*\.lock|is at [0-9a-f]+ but expected",
    re.IGNORECASE,
)
_HOPELESS = re.compile(
    r"authentication failed|permission denied|permission to .* denied|could not read (username|password)|"
    r"returned error: 40[0-9]|does not appear to be a git repository|repository .* not found|does not exist",
    re.IGNORECASE,
)


class LostRaceError(GitError):
    """Somebody else's push was first: look again and try once more."""


class PassingError(GitError):
    """The remote could not be talked to: it may be better in a moment."""


@dataclass(frozen=True)
class Git:
    """A clone, by its top folder; paths that methods take begin there."""

    top: Path

    @classmethod
    def around(cls, folder: Path) -> Git:
        """The clone that `folder` is anywhere inside of."""
        return cls(Path(cls(folder).run("rev-parse", "--show-toplevel").removesuffix("\n")))

    # Reading.

    def commit(self, name: str) -> str | None:
        """The commit that a branch, hash or expression names, or None where this clone has none."""
        done = self._call("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def require(self, name: str) -> str:
        """As `commit`, but raises, with the remedy, where there is none."""
        found = self.commit(name)
        if found is None:
            remedy = "the clone is shallow: " + UNSHALLOW if self.shallow else f"git fetch {REMOTE}"
            raise GitError(f"this clone has no commit {name}; {remedy}")
        return found

    @property
    def shallow(self) -> bool:
        return self.run("rev-parse", "--is-shallow-repository").strip() == "true"

    def require_history(self) -> None:
        """Refuse a shallow clone: what was released before, and what contains what, cannot be seen in it."""
        if self.shallow:
            raise GitError(f"this clone is shallow, and the history says what was released; {UNSHALLOW}")

    def branch(self) -> str | None:
        """The branch that is checked out; None on a detached HEAD."""
        done = self._call("symbolic-ref", "--quiet", "--short", "HEAD")
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def default_branch(self) -> str:
        """What the remote's HEAD points to as far as this clone knows, else `main`."""
        done = self._call("symbolic-ref", "--quiet", "--short", f"refs/remotes/{REMOTE}/HEAD")
        return done.stdout.decode().strip().removeprefix(f"{REMOTE}/") if done.returncode == 0 else "main"

    def contains(self, newer: str, older: str) -> bool:
        """Whether `older` is `newer` or one of its ancestors."""
        done = self._call("merge-base", "--is-ancestor", older, newer)
        if done.returncode not in (0, 1):
            raise GitError(git_reason(done.stderr))
        return done.returncode == 0

    def read(self, commit: str, path: str) -> str | None:
        """A file's text at a commit; None where it is not there (or is no UTF-8)."""
        done = self._call("cat-file", "blob", f"{commit}:{path}")
        if done.returncode:
            return None
        try:
            return done.stdout.decode()
        except UnicodeDecodeError:
            return None

    def read_many(self, path: str, commits: Sequence[str]) -> list[str | None]:
        """A file's text at each of many commits, by one process."""
        asked = "".join(f"{commit}:{path}\n" for commit in commits)
        answer = self._call("cat-file", "--batch", content=asked)
        if answer.returncode:
            raise GitError(f"git cat-file: {git_reason(answer.stderr)}")
        texts: list[str | None] = []
        said = io.BytesIO(answer.stdout)
        for _ in commits:
            head = said.readline()  # HASH blob SIZE, or NAME missing
            found = b" blob " in head
            texts.append(said.read(int(head.split()[-1])).decode(errors="replace") if found else None)
            said.read(1 if found else 0)
        return texts

    def run(self, *arguments: str, content: str | None = None, **environment: str) -> str:
        """What git prints; raises with git's own last line where it fails."""
        done = self._call(*arguments, content=content, environment=environment)
        if done.returncode:
            raise GitError(f"git {arguments[0]}: {git_reason(done.stderr)}")
        return done.stdout.decode(errors="replace")

    # The remote.

    def fetch(self, branch: str) -> str:
        """Bring origin's branch here and give its commit.

        Raises:
            GitError: the remote cannot be reached, or has no such branch.
        """
        refspec = f"+refs/heads/{branch}:refs/remotes/{REMOTE}/{branch}"
        for attempt in range(FETCHES):
            done = self._call("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", REMOTE, refspec)
            if done.returncode == 0:
                return self.require(f"refs/remotes/{REMOTE}/{branch}")
            said = done.stderr.decode(errors="replace")
            if "couldn't find remote ref" in said:
                raise GitError(f"{REMOTE} has no branch {branch}")
            if _HOPELESS.search(said):
                break
            # Another process of this clone may hold the ref's lock, or the network may have hiccuped.
            pause(attempt)
        raise GitError(f"cannot fetch {branch} from {REMOTE}: {git_reason(done.stderr)}")

    def remote_tip(self, branch: str) -> str | None:
        """The commit that a branch has at origin this moment; None where there is no such branch.

        The commit is brought here too.
        """
        said = self.run("ls-remote", REMOTE, f"refs/heads/{branch}")
        if not said:
            return None
        try:
            return self.fetch(branch)
        except GitError:
            if self.run("ls-remote", REMOTE, f"refs/heads/{branch}"):
                raise
            return None

    def push(self, commit: str, branch: str) -> None:
        """Make `commit` the tip of origin's branch, which must be one of its ancestors.

        Raises:
            LostRaceError: the branch has moved on.
            PassingError: the remote cannot be talked to.
            GitError: the remote refuses, and would again.
        """
        self._push(commit, branch)

    def replace(self, commit: str, branch: str, former: str | None) -> None:
        """Make `commit` the tip of origin's branch instead of `former`; None where there must be no such branch.

        Raises:
            GitError: as `push`.
        """
        self._push(commit, branch, f"--force-with-lease=refs/heads/{branch}:{former or ''}")

    def _push(self, commit: str, branch: str, *options: str) -> None:
        # A hook of the person's would check their working tree, which is not what is pushed.
        command = ["push", "--porcelain", "--no-verify", *options, REMOTE, f"{commit}:refs/heads/{branch}"]
        done = self._call(*command)
        if done.returncode == 0:
            return
        said = [
            line for out in (done.stdout, done.stderr) for line in out.decode(errors="replace").splitlines()
        ]
        refusals = [line.split("\t")[-1] for line in said if line.startswith("!\t")]
        remote = [line.removeprefix("remote:").strip() for line in said if line.startswith("remote:")]
        reasons = [*refusals, *filter(None, remote)][:4] or [git_reason(done.stderr)]
        message = f"{REMOTE} does not take the push to {branch}: {'; '.join(reasons)}"
        if any(map(_LOST_RACE.search, refusals)):
            raise LostRaceError(message)
        if refusals or any(map(_HOPELESS.search, said)):
            raise GitError(message)
        raise PassingError(message)

    # Writing.

    def commit_file(self, parent: str, path: str, content: str, message: str) -> str:
        """A new commit on `parent` that differs from it in one existing file; no branch points to it yet."""
        listed = self.run("ls-tree", parent, "--", path).split()
        if not listed:
            raise GitError(f"{path} is not in {parent[:12]}")
        blob = self.run("hash-object", "-w", "--stdin", content=content).strip()
        with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.run("read-tree", parent, **index)
            self.run("update-index", "--cacheinfo", f"{listed[0]},{blob},{path}", **index)
            tree = self.run("write-tree", **index).strip()
        # commit-tree, unlike commit, heeds this setting only when told.
        sign = ["-S"] if self._setting("commit.gpgsign") == "true" else []
        done = self._call("commit-tree", *sign, tree, "-p", parent, "-F", "-", content=message)
        if done.returncode:
            said = done.stderr.decode(errors="replace")
            if "tell me who you are" in said or "ident name" in said:
                raise GitError(
                    "git does not know who commits: set user.name and user.email with `git config`, or "
                    "GIT_AUTHOR_NAME, GIT_AUTHOR_EMAIL, GIT_COMMITTER_NAME and GIT_COMMITTER_EMAIL"
                )
            raise GitError(f"git commit-tree: {git_reason(done.stderr)}")
        return done.stdout.decode().strip()

    def set_branch(self, branch: str, commit: str) -> None:
        """Make a local branch point to `commit`, unless somebody has it checked out."""
        done = self._call("branch", "--force", "--no-track", branch, commit)
        if done.returncode:
            raise GitError(f"cannot write the branch {branch}: {git_reason(done.stderr)}")

    def _setting(self, name: str) -> str | None:
        done = self._call("config", "--type=bool", "--get", name)
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def _call(
        self, *arguments: str, content: str | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        stdin = content.encode() if content is not None else b""
        try:
            return git.attempt(
                *arguments, cwd=self.top, stdin=stdin, seconds=SECONDS, environment=environment or {}
            )
        except GitTimeoutError as error:
            raise PassingError(str(error)) from None


FETCHES = 6
UNSHALLOW = "get all of it: `git fetch --unshallow`, or `fetch-depth: 0` for actions/checkout"


def pause(attempt: int) -> None:
    """Sleep for a random time that grows with the attempt: two who collided must not collide again."""
    time.sleep(SystemRandom().uniform(0, min(4.0, 0.1 * 2**attempt)))
