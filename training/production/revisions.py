"""Reads files and DVC outputs of another git revision, without touching the working tree.

A file in git comes from `git show`. An output of DVC is found by the hash in the revision's own
`dvc.lock`: in this clone's cache, or else in the remote that this clone uses today, because a bucket may have moved.
Nothing is checked out, locked or written, so `dvc repro` may run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO

from common.errors import EspalierError
from common.git import attempt, trust_command
from common.lock import LOCK_FILE, Entry, outputs
from training.base.documents import parse_yaml
from training.remote.objects import Objects, RemoteError


class UnreachableError(EspalierError):
    """A revision, or one of its DVC outputs, is neither in this clone nor in the remote."""


@dataclass(frozen=True)
class Revision:
    """A commit of this repository."""

    commit: str

    @classmethod
    def find(cls, name: str) -> Revision:
        """The commit that a branch, tag, hash or expression such as HEAD~2 names.

        Raises:
            UnreachableError: this clone does not have it.
        """
        done = attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if done.returncode:
            raise UnreachableError(f"this clone has no revision {name!r}: {_remedy()}")
        return cls(done.stdout.decode().strip())

    @property
    def short(self) -> str:
        return self.commit[:10]

    def merge_base(self, other: Revision) -> Revision:
        """The newest common ancestor."""
        done = attempt("merge-base", self.commit, other.commit)
        if done.returncode:
            raise UnreachableError(
                f"{self.short} and {other.short} have no common commit in this clone: {_remedy()}"
            )
        return Revision(done.stdout.decode().strip())

    def file(self, path: str) -> bytes | None:
        """A file as it was committed, by its path from the working directory; None if there was none."""
        done = attempt("cat-file", "blob", f"{self.commit}:./{path}")
        return None if done.returncode else done.stdout

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, sorted by name."""
        done = attempt("ls-tree", "-z", "--name-only", self.commit, f"{folder}/")
        return sorted(each.rpartition("/")[2] for each in done.stdout.decode().split("\0") if each)

    @cached_property
    def outputs(self) -> Mapping[str, Entry]:
        """The outputs that its dvc.lock records, by path."""
        lock = self.file(LOCK_FILE)
        if lock is None:
            raise UnreachableError(
                f"revision {self.short} has no {LOCK_FILE}, so nothing says what its data was"
            )
        return outputs_of(lock, f"{LOCK_FILE} of revision {self.short}")


def outputs_of(lock: bytes, where: str = LOCK_FILE) -> dict[str, Entry]:
    """The outputs that a dvc.lock records, by path.

    Raises:
        UnreachableError: DVC did not write it.
    """
    try:
        return outputs(parse_yaml(lock))
    except ValueError:
        raise UnreachableError(f"{where} cannot be read: run `dvc repro` to write it again") from None


class Store:
    """The content that DVC keeps, by hash: this clone's cache, then its remote.

    Its methods raise UnreachableError where neither has the content, and ReplacedError where the remote has another one.
    """

    def __init__(self) -> None:
        self._objects = Objects()

    def read(self, output: Entry) -> bytes:
        """The content of a file."""
        with _reaching():
            return self._objects.read(output)

    @contextmanager
    def opened(self, output: Entry) -> Iterator[IO[bytes]]:
        """A file, which may be larger than memory."""
        with ExitStack() as files:
            with _reaching():
                file = files.enter_context(self._objects.opened(output))
            yield file

    def read_folder(self, output: Entry) -> dict[str, Entry]:
        """The files in a folder, by path below it."""
        with _reaching():
            return self._objects.members(output)


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise UnreachableError(str(error)) from None


def _remedy() -> str:
    asked = attempt("rev-parse", "--git-dir")
    if trust := trust_command(asked.stderr):
        return f"the clone belongs to another user; trust it with `{trust}`"
    if asked.returncode:
        return "this is not a git repository; run this from a clone's top folder"
    shallow = attempt("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    return "the clone is shallow, run `git fetch --unshallow`" if shallow else "run `git fetch origin`"
