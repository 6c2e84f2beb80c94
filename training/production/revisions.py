"""Reads files and DVC outputs of another git revision, without touching the working tree.

A file in git comes from `git show`. An output of DVC is found by the hash in the revision's own
`dvc.lock`: in this clone's cache, or else in the remote that this clone uses today, because a bucket may have moved.
Nothing is checked out, locked or written, so `dvc repro` may run at the same time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import EspalierError
from common.git import attempt, trust_command
from common.lock import LOCK_FILE, Entry, outputs
from training.base.documents import parse_yaml

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?\Z")


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
    """The content that DVC keeps, by hash: this clone's cache, then its remote."""

    def read(self, output: Entry) -> bytes:
        """The content of a file.

        Raises:
            UnreachableError: neither cache nor remote has it, or their content does not match the hash.
        """
        return self._object(output.md5, output.path)

    def read_folder(self, output: Entry) -> dict[str, Entry]:
        """The files in a folder, by path below it."""
        listing = json.loads(self._object(output.md5, output.path))
        return {each["relpath"]: Entry(f"{output.path}/{each['relpath']}", each["md5"]) for each in listing}

    def _object(self, md5: str, path: str) -> bytes:
        if not _MD5.match(md5):
            raise UnreachableError(f"{path}: {md5!r} is not a hash that DVC writes")
        cache = self._repo.cache.local
        try:
            content = Path(cache.oid_to_path(md5)).read_bytes()
        except FileNotFoundError:
            return self._from_remote(md5, path)
        except OSError as error:
            raise UnreachableError(f"cannot read {path} from DVC's cache: {error}") from None
        if not _is(content, md5):
            # The cached file is corrupt, and DVC would remove it; the remote may have the right one.
            return self._from_remote(md5, path)
        return content

    def _from_remote(self, md5: str, path: str) -> bytes:
        from dvc.config import NoRemoteError

        try:
            remote = self._repo.cloud.get_remote_odb(command="fetch")
            with remote.fs.open(remote.oid_to_path(md5), "rb") as stream:
                content: bytes = stream.read()
        except NoRemoteError:
            raise UnreachableError(
                f"{path} ({md5[:10]}…) is not in DVC's cache and there is no remote to fetch it from: "
                "`dvc remote add --default storage URL`, see docs/architecture.md"
            ) from None
        except FileNotFoundError:
            raise UnreachableError(
                f"{path} ({md5[:10]}…) is neither in DVC's cache nor in the remote: run `dvc push` where that "
                "revision was reproduced, or check it out and run `dvc repro`"
            ) from None
        except Exception as error:
            # Each kind of storage has exceptions of its own: no key, no permission, no such bucket, no network.
            said = " ".join(str(error).split()) or type(error).__name__
            raise UnreachableError(
                f"{path} ({md5[:10]}…) is not in DVC's cache and the remote does not give it ({said[:200]}): "
                "check its address and your credentials with `dvc fetch`"
            ) from None
        if not _is(content, md5):
            raise UnreachableError(
                f"{path}: the remote's object {md5[:10]}… has other content than its name says: run `dvc push` where "
                "that revision was reproduced"
            )
        return content

    @cached_property
    def _repo(self) -> Any:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            return Repo()
        except NotDvcRepoError:
            raise UnreachableError(
                "there is no .dvc folder here; run this from the project's top folder"
            ) from None


def _is(content: bytes, md5: str) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")


def _remedy() -> str:
    asked = attempt("rev-parse", "--git-dir")
    if trust := trust_command(asked.stderr):
        return f"the clone belongs to another user; trust it with `{trust}`"
    if asked.returncode:
        return "this is not a git repository; run this from a clone's top folder"
    shallow = attempt("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    return "the clone is shallow, run `git fetch --unshallow`" if shallow else "run `git fetch origin`"
