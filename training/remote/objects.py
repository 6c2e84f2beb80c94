"""The content that DVC keeps, by hash: in this clone's cache, and in its remote.

DVC gives a file the name of its content and then trusts the name. Here content is compared with its name whenever it is
read, fetched or pushed. An object of the remote is written once: S3, Google Cloud Storage and Azure refuse to replace it,
and so equal names keep equal content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from common.errors import EspalierError
from common.lock import Entry

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?\Z")
_ATTEMPTS = 3
_PIECE = 2**20
"""Bytes that are copied at once."""
_CREATING = ("s3", "gs", "azure")
"""The storage that can refuse to replace an object: by `If-None-Match: *`, or Google's `ifGenerationMatch=0`."""
_NO_CREDENTIALS = {"NoCredentialsError", "DefaultCredentialsError", "CredentialUnavailableError"}
"""The exceptions of botocore, google-auth and azure-identity where there are none."""


class RemoteError(EspalierError):
    """The remote cannot be used, or does not give what it has."""


class NoRemoteError(RemoteError):
    """There is no remote."""


class NoCredentialsError(RemoteError):
    """There are no credentials at all for the remote."""


class MissingError(RemoteError):
    """Neither the cache nor the remote has an object."""


class ReplacedError(EspalierError):
    """An object of the remote has other content than its name says."""


class Objects:
    """The objects of the DVC repository around the working directory.

    Args:
        remote: the name of a remote; DVC's default one without.
    """

    def __init__(self, remote: str | None = None) -> None:
        self._name = remote

    def outputs(self, targets: Collection[str] = ()) -> list[Entry]:
        """The outputs that DVC keeps: all below the working directory, or those of these targets.

        Args:
            targets: an output, a folder, or the dvc.yaml of a pipeline.

        Raises:
            MissingError: a target has no output.
        """
        kept = [
            (Path(out.fs_path), Path(out.stage.path), out.hash_info.value)
            for out in self.repo.index.outs
            if out.use_cache and out.hash_info
        ]
        found: dict[str, Entry] = {}
        for target in targets or ["."]:
            asked = Path.cwd() / target
            some = [(path, md5) for path, file, md5 in kept if path.is_relative_to(asked) or file == asked]
            if not some and targets:
                raise MissingError(
                    f"{target}: DVC keeps no output there; `dvc list . -R --dvc-only` shows them"
                )
            found |= {md5 + _from_here(path): Entry(_from_here(path), md5) for path, md5 in some}
        return list(found.values())

    def read(self, entry: Entry) -> bytes:
        """The content of an object; nothing is kept. Raises as `opened` does."""
        with self.opened(entry) as file:
            return file.read()

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[IO[bytes]]:
        """An object's file: that of the cache, or a copy of the remote's without a name.

        Raises:
            MissingError: neither the cache nor the remote has it.
            ReplacedError: the remote has other content.
            RemoteError: the remote does not give it.
        """
        if not _MD5.match(entry.md5):
            raise MissingError(f"{entry.path}: {entry.md5!r} is not a hash that DVC writes")
        # DVC would remove a corrupt file of the cache; the remote may have the right one.
        with ExitStack() as files:
            try:
                file: IO[bytes] | None = files.enter_context(self._cached(entry.md5).open("rb"))
                if file is not None and not _holds(entry.md5, file):
                    file = None
            except FileNotFoundError:
                file = None
            except OSError as error:
                raise RemoteError(f"cannot read {entry.path} from DVC's cache: {error}") from None
            if file is None:
                file = files.enter_context(tempfile.TemporaryFile())
                self._copy_from_remote(entry, file)
            file.seek(0)
            yield file

    def members(self, entry: Entry) -> dict[str, Entry]:
        """The files of a folder, by their path below it. Raises as `read` does, and RemoteError for a path that leaves it."""
        listed = json.loads(self.read(entry))
        for each in listed:
            path = PurePosixPath(each["relpath"])
            if path.is_absolute() or ".." in path.parts:
                raise RemoteError(f"{entry.path} lists {each['relpath']!r}, which is not below it")
        return {each["relpath"]: Entry(f"{entry.path}/{each['relpath']}", each["md5"]) for each in listed}

    def fetch(self, entries: Iterable[Entry]) -> list[Entry]:
        """Bring objects, and the files of folders, into the cache; returns those that the remote lacks.

        Raises:
            ReplacedError: the remote has other content. It is not kept.
            NoRemoteError, NoCredentialsError, RemoteError: the remote does not give them.
        """
        wanted = list(entries)
        missing = self._fetch([each for each in wanted if each.md5.endswith(".dir")])
        lacking = {each.md5 for each in missing}
        files = [each for each in wanted if not each.md5.endswith(".dir")]
        for each in wanted:
            if each.md5.endswith(".dir") and each.md5 not in lacking:
                files += self.members(each).values()
        return missing + self._fetch(files)

    def push(self, entries: Iterable[Entry]) -> tuple[int, list[Entry]]:
        """Add to the remote what it lacks of these; returns how many objects, and those that are not here either.

        Raises:
            RemoteError: the cache has other content than a name says, or the remote takes an object not.
        """
        folders: dict[str, list[Entry]] = {}
        named: dict[str, Entry] = {}
        for each in entries:
            named[each.md5] = each
            if each.md5.endswith(".dir") and self.cache.exists(each.md5):
                folders[each.md5] = list(self.members(each).values())
                named |= {member.md5: member for member in folders[each.md5]}
        there = self._existing(named)
        new = [each for md5, each in named.items() if md5 not in there and self.cache.exists(md5)]
        absent = {md5 for md5 in named if md5 not in there and not self.cache.exists(md5)}
        for each in new:
            if not self.sound(each):
                raise RemoteError(
                    f"{each.path}: DVC's cache holds other content than {each.md5} says, so nothing is pushed: delete "
                    f"{_from_here(self._cached(each.md5))} and run `dvc repro`"
                )
        # A folder is there when all its files are.
        whole = [
            each
            for each in new
            if each.md5 in folders and absent.isdisjoint(file.md5 for file in folders[each.md5])
        ]
        for some in ([each for each in new if not each.md5.endswith(".dir")], whole):
            self._each(some, lambda each: self.add(each, self._cached(each.md5)), "Pushing")
        return len(new), [named[md5] for md5 in sorted(absent)]

    def add(self, entry: Entry, file: Path) -> None:
        """Add an object to the remote, unless it is there."""
        target = self.remote.oid_to_path(entry.md5)
        for attempt in range(_ATTEMPTS):
            try:
                if self.remote.fs.protocol in _CREATING:
                    # The request that ends an upload of several parts has the condition, too.
                    self.remote.fs.put_file(str(file), target, mode="create")
                else:
                    self.remote.add(str(file), self.cache.fs, entry.md5)
            except Exception as error:
                code = _code(error)
                if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
                    # Another job was first. Equal names have equal content.
                    return
                # Several requests for one object were under way, and S3 wants one of them again.
                if code != "ConditionalRequestConflict" or attempt == _ATTEMPTS - 1:
                    raise self._error(error, f"does not take {entry.path} ({entry.md5})") from error
            else:
                return

    def sound(self, entry: Entry) -> Path | None:
        """The cached file of an object, if it has the content that the name says."""
        file = self._cached(entry.md5)
        try:
            return file if _is_sound(entry.md5, file) else None
        except FileNotFoundError:
            return None

    def remove(self, entry: Entry) -> None:
        """Remove an object from the remote; a bucket with versions keeps it as an old one."""
        try:
            self.remote.delete(entry.md5)
        except Exception as error:
            raise self._error(error, f"does not remove {entry.md5}") from error

    def replaced(self) -> list[str]:
        """The names of the remote's objects whose content is another, after reading all of them."""
        found: list[str] = []

        def compare(entry: Entry) -> None:
            with self.remote.fs.open(self.remote.oid_to_path(entry.md5), "rb") as stream:
                if not _holds(entry.md5, stream):
                    found.append(entry.md5)

        with self._reaching("does not list its objects"):
            names = [name for name in self.remote.all() if _MD5.match(name)]
        self._each([Entry(self.address(name), name) for name in names], compare, "Comparing")
        return sorted(found)

    def address(self, md5: str) -> str:
        """Where the remote has an object."""
        address: str = self.remote.fs.unstrip_protocol(self.remote.oid_to_path(md5))
        return address

    @cached_property
    def cache(self) -> Any:
        return self.repo.cache.local

    @cached_property
    def remote(self) -> Any:
        from dvc.config import NoRemoteError as DvcNoRemoteError
        from dvc.exceptions import DvcException

        try:
            return self.repo.cloud.get_remote_odb(self._name, "fetch")
        except DvcNoRemoteError:
            raise NoRemoteError(
                "there is no remote: `dvc remote add --default storage URL`, see docs/architecture.md"
            ) from None
        except ImportError as error:
            # "gs is supported, but requires 'dvc-gs' to be installed"
            package = re.search(r"'(dvc-\w+)'", str(error))
            if package is None:
                raise
            raise RemoteError(
                f"DVC's remote needs a package: `uv add --group train {package[1]}` adds it"
            ) from None
        except DvcException as error:
            raise RemoteError(f"DVC's remote cannot be used: {_line(error)}") from None

    @cached_property
    def repo(self) -> Any:
        from dvc.exceptions import DvcException, NotDvcRepoError
        from dvc.repo import Repo

        try:
            return Repo()
        except NotDvcRepoError:
            raise MissingError(
                "there is no .dvc folder here; run this from the project's top folder"
            ) from None
        except DvcException as error:
            raise RemoteError(f"DVC's configuration is broken: {_line(error)}") from None

    def _cached(self, md5: str) -> Path:
        return Path(self.cache.oid_to_path(md5))

    def _existing(self, names: Collection[str]) -> set[str]:
        with self._reaching("does not say what it has"):
            return set(self.remote.oids_exist(names))

    def _copy_from_remote(self, entry: Entry, file: IO[bytes]) -> None:
        try:
            with self.remote.fs.open(self.remote.oid_to_path(entry.md5), "rb") as stream:
                shutil.copyfileobj(stream, file, _PIECE)
        except NoRemoteError as error:
            raise NoRemoteError(
                f"{entry.path} ({entry.md5[:10]}…) is not in DVC's cache and {error}"
            ) from None
        except RemoteError:
            raise
        except FileNotFoundError as error:
            self._check_bucket(error)
            raise MissingError(
                f"{entry.path} ({entry.md5[:10]}…) is neither in DVC's cache nor in the remote: run `make push` where "
                "that revision was reproduced, or check it out and run `dvc repro`"
            ) from None
        except Exception as error:
            # Each kind of storage has exceptions of its own: no key, no permission, no network.
            raise self._error(error, f"does not give {entry.path} ({entry.md5})") from None
        file.seek(0)
        if not _holds(entry.md5, file):
            raise self._replaced([entry])

    def _fetch(self, entries: Iterable[Entry]) -> list[Entry]:
        wanted = {each.md5: each for each in entries if not self.cache.exists(each.md5)}
        missing: list[Entry] = []
        replaced: list[Entry] = []

        def fetch(entry: Entry) -> None:
            file = self._cached(entry.md5)
            temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
            self.cache.makedirs(str(file.parent))
            try:
                self.remote.fs.get_file(self.remote.oid_to_path(entry.md5), str(temporary))
                if _is_sound(entry.md5, temporary):
                    self.cache.protect(str(temporary))
                    temporary.replace(file)
                else:
                    replaced.append(entry)
            except FileNotFoundError as error:
                self._check_bucket(error)
                missing.append(entry)
            except Exception as error:
                raise self._error(error, f"does not give {entry.path} ({entry.md5})") from None
            finally:
                temporary.unlink(missing_ok=True)

        self._each(wanted.values(), fetch, "Fetching")
        if replaced:
            raise self._replaced(replaced)
        return missing

    def _each(self, entries: Collection[Entry], call: Callable[[Entry], None], what: str) -> None:
        if not entries:
            return
        with _progress(what, len(entries)) as callback, ThreadPoolExecutor(self.remote.fs.jobs) as pool:
            try:
                for _ in pool.map(call, entries):
                    callback.relative_update()
            except BaseException:
                # The others would fail alike, each after several attempts.
                pool.shutdown(cancel_futures=True)
                raise

    def _replaced(self, entries: Collection[Entry]) -> ReplacedError:
        named = "; ".join(f"{each.path} ({self.address(each.md5)})" for each in entries)
        return ReplacedError(
            f"the remote has other content than the name says for {named}: nothing of it was kept. "
            "`python -m training.remote repair` puts it right"
        )

    def _check_bucket(self, error: BaseException) -> None:
        """Raise if nothing is found because there is no bucket."""
        if _code(error) == "NoSuchBucket" or self._lacks_bucket():
            raise self._error(error, "does not exist")
        if self.remote.fs.protocol == "s3":
            with self._reaching("does not exist"):
                try:
                    self.remote.fs.info(self.remote.path)
                except FileNotFoundError as found:
                    if _code(found) == "NoSuchBucket":
                        raise

    def _lacks_bucket(self) -> bool:
        """Whether Google or Azure have no such bucket; False if this identity cannot tell."""
        fs = self.remote.fs
        try:
            if fs.protocol == "gs":
                # Listing is a right that the remote needs anyway; to read a bucket's own properties is another.
                list(fs.find(fs.join(self.remote.path, "none"), prefix=True))
            return fs.protocol == "azure" and not fs.fs.exists(self.remote.path.partition("/")[0])
        except FileNotFoundError:
            return True
        except Exception:
            return False

    def _lacks_credentials(self, error: BaseException) -> bool:
        names = {type(each).__name__ for each in _causes(error)}
        if self.remote.fs.protocol == "gs":
            # gcsfs goes on without an identity if it finds none.
            anonymous = getattr(getattr(self.remote.fs.fs, "credentials", None), "method", None) == "anon"
            if anonymous and self.remote.fs.fs_args["token"] is None:
                return True
        return bool(names & _NO_CREDENTIALS)

    @contextmanager
    def _reaching(self, failure: str) -> Iterator[None]:
        try:
            yield
        except EspalierError:
            raise
        except Exception as error:
            raise self._error(error, failure) from error

    def _error(self, error: BaseException, failure: str) -> RemoteError:
        name = self.remote.fs.unstrip_protocol(self.remote.path).removesuffix("/files/md5")
        if self._lacks_credentials(error):
            return NoCredentialsError(f"there are no credentials for the remote {name}")
        return RemoteError(
            f"the remote {name} {failure}: {_line(error)[:200]}; check its address and your credentials"
        )


def _is_sound(md5: str, file: Path) -> bool:
    with file.open("rb") as stream:
        return _holds(md5, stream)


def _holds(md5: str, stream: IO[bytes]) -> bool:
    digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))  # type: ignore[arg-type]
    return digest.hexdigest() == md5.removesuffix(".dir")


def _causes(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def _code(error: BaseException) -> str:
    """S3's code of an error; empty if there is none."""
    for each in _causes(error):
        response = getattr(each, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


@contextmanager
def _progress(what: str, size: int) -> Iterator[Any]:
    from dvc.fs.callbacks import TqdmCallback

    with TqdmCallback(desc=what, unit="file", size=size) as callback:
        yield callback
