"""Reads history, commits without a working tree, and pushes without overwriting anybody's commit.

The release tool builds a commit from git's objects: the tip's tree with one file replaced. It checks out no branch,
touches no file and runs no hook of the user, and if it is killed, only objects stay that git collects by itself.
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

from common.git import NO_VARIABLES, GitError, PassingError, attempt, reason

REMOTE = "origin"
SECONDS = 120
"""For one command; only fetch and push can take long."""
FETCHES = 6
UNSHALLOW = "get all of it: `git fetch --unshallow`, or `fetch-depth: 0` for actions/checkout"
BOT = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "espalier[bot]", "EMAIL": "espalier[bot]@users.noreply.github.com"}.items()
}
# Git gives no codes for these, so its English messages are read.
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
    """Another push came first: read the branch again and retry."""


@dataclass(frozen=True)
class Git:
    """A clone, by its top folder; paths are relative to it."""

    top: Path

    @classmethod
    def around(cls, folder: Path) -> Git:
        """The clone that `folder` lies in."""
        return cls(Path(cls(folder).run("rev-parse", "--show-toplevel").removesuffix("\n")))

    # Reading.

    def commit(self, name: str) -> str | None:
        """The commit that a branch, hash or expression names, or None where this clone has none."""
        done = self._call("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def require(self, name: str) -> str:
        """As `commit`; where there is none, raises GitError with the remedy."""
        found = self.commit(name)
        if found is None:
            remedy = "the clone is shallow: " + UNSHALLOW if self.shallow else f"git fetch {REMOTE}"
            raise GitError(f"this clone has no commit {name}; {remedy}")
        return found

    @property
    def shallow(self) -> bool:
        return self.run("rev-parse", "--is-shallow-repository").strip() == "true"

    def require_history(self) -> None:
        """Refuse a shallow clone: it shows neither former releases nor which commit contains which."""
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
            raise GitError(reason(done.stderr))
        return done.returncode == 0

    def read(self, commit: str, path: str) -> str | None:
        """A file's text at a commit; None where it does not exist."""
        return self.read_many([(commit, path)])[0]

    def read_many(self, places: Sequence[tuple[str, str]]) -> list[str | None]:
        """As `read`, for many commits and paths, by one process."""
        asked = "".join(f"{commit}:{path}\n" for commit, path in places)
        answer = self._call("cat-file", "--batch", content=asked)
        if answer.returncode:
            raise GitError(f"git cat-file: {reason(answer.stderr)}")
        texts: list[str | None] = []
        said = io.BytesIO(answer.stdout)
        for _ in places:
            head = said.readline()  # HASH blob SIZE, or NAME missing
            found = b" blob " in head
            texts.append(said.read(int(head.split()[-1])).decode(errors="replace") if found else None)
            said.read(1 if found else 0)
        return texts

    def run(self, *arguments: str, content: str | None = None, **environment: str) -> str:
        """What git prints.

        Raises:
            GitError: it failed; the message says why.
        """
        done = self._call(*arguments, content=content, environment=environment)
        if done.returncode:
            raise GitError(f"git {arguments[0]}: {reason(done.stderr)}")
        return done.stdout.decode(errors="replace")

    # The remote.

    def fetch(self, branch: str) -> str:
        """Fetch origin's branch and give its commit.

        Raises:
            GitError: the remote cannot be reached, or has no such branch.
        """
        refspec = f"+refs/heads/{branch}:refs/remotes/{REMOTE}/{branch}"
        for number in range(FETCHES):
            done = self._call("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", REMOTE, refspec)
            if done.returncode == 0:
                return self.require(f"refs/remotes/{REMOTE}/{branch}")
            said = done.stderr.decode(errors="replace")
            if "couldn't find remote ref" in said:
                raise GitError(f"{REMOTE} has no branch {branch}")
            if _HOPELESS.search(said):
                break
            # Another process of this clone may hold the ref's lock, or the connection may have failed.
            pause(number)
        raise GitError(f"cannot fetch {branch} from {REMOTE}: {reason(done.stderr)}")

    def remote_tip(self, branch: str) -> str | None:
        """The present commit of origin's branch, which is fetched; None where there is no such branch."""
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
            PassingError: the remote cannot be reached.
            GitError: the remote refuses, and would again.
        """
        self._push(commit, branch)

    def replace(self, commit: str, branch: str, former: str | None) -> None:
        """Make `commit` the tip of origin's branch in place of `former`; with None the branch must not exist.

        Raises:
            LostRaceError, PassingError, GitError: as `push`.
        """
        self._push(commit, branch, f"--force-with-lease=refs/heads/{branch}:{former or ''}")

    def _push(self, commit: str, branch: str, *options: str) -> None:
        # The user's hooks would check the working tree, which is not what is pushed.
        command = ["push", "--porcelain", "--no-verify", *options, REMOTE, f"{commit}:refs/heads/{branch}"]
        done = self._call(*command)
        if done.returncode == 0:
            return
        said = [
            line for out in (done.stdout, done.stderr) for line in out.decode(errors="replace").splitlines()
        ]
        refusals = [line.split("\t")[-1] for line in said if line.startswith("!\t")]
        remote = [line.removeprefix("remote:").strip() for line in said if line.startswith("remote:")]
        reasons = [*refusals, *filter(None, remote)][:4] or [reason(done.stderr)]
        message = f"{REMOTE} does not take the push to {branch}: {'; '.join(reasons)}"
        if any(map(_LOST_RACE.search, refusals)):
            raise LostRaceError(message)
        if refusals or any(map(_HOPELESS.search, said)):
            raise GitError(message)
        raise PassingError(message)

    # Writing.

    def commit_file(self, parent: str, path: str, content: str, message: str) -> str:
        """A new commit on `parent` that differs from it in one file, which may be new; no branch points to it."""
        mode = (self.run("ls-tree", parent, "--", path).split() or ["100644"])[0]
        blob = self.run("hash-object", "-w", "--stdin", content=content).strip()
        with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.run("read-tree", parent, **index)
            self.run("update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", **index)
            tree = self.run("write-tree", **index).strip()
        # Unlike commit, commit-tree ignores this setting.
        signs = self._call("config", "--type=bool", "--get", "commit.gpgsign").stdout.strip() == b"true"
        sign = ["-S"] if signs else []
        done = self._call("commit-tree", *sign, tree, "-p", parent, "-F", "-", content=message)
        if done.returncode:
            said = done.stderr.decode(errors="replace")
            if "tell me who you are" in said or "ident name" in said:
                raise GitError(
                    "git does not know who commits: set user.name and user.email with `git config`, or "
                    "GIT_AUTHOR_NAME, GIT_AUTHOR_EMAIL, GIT_COMMITTER_NAME and GIT_COMMITTER_EMAIL"
                )
            raise GitError(f"git commit-tree: {reason(done.stderr)}")
        return done.stdout.decode().strip()

    def set_branch(self, branch: str, commit: str) -> None:
        """Make a local branch point to `commit`, unless it is checked out."""
        done = self._call("branch", "--force", "--no-track", branch, commit)
        if done.returncode:
            raise GitError(f"cannot write the branch {branch}: {reason(done.stderr)}")

    def commit_index(self, message: str) -> None:
        """Commit the index as the project's bot; none of the user's hooks run."""
        self.run("commit", "--quiet", "--no-verify", "--file=-", content=message, **BOT)

    def trailer(self, commit: str, key: str) -> str:
        """The value of a trailer in a commit's message; empty where it has none."""
        return self.run("log", "-1", f"--format=%(trailers:key={key},valueonly)", commit).strip()

    def _call(
        self, *arguments: str, content: str | None = None, environment: Mapping[str, str] = NO_VARIABLES
    ) -> subprocess.CompletedProcess[bytes]:
        stdin = (content or "").encode()
        return attempt(*arguments, cwd=self.top, stdin=stdin, seconds=SECONDS, environment=environment)


def pause(number: int) -> None:
    """Sleep for a random time that grows with the number of the try, so that two who collided do not do it again."""
    time.sleep(SystemRandom().uniform(0, min(4.0, 0.1 * 2**number)))
