"""Where parts are read from and results written to: folders, and buckets through obstore.

A file becomes visible only when it is complete: a folder gets a temporary file that is renamed, a bucket an upload that it shows
once it is finished.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from app.batch.errors import BatchError

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ObjectStore

_URL = re.compile(r"(?P<bucket>(?P<scheme>[a-z0-9]+)://[^/]+)(?:/(?P<key>.*))?", re.DOTALL)
_SCHEMES = ("s3", "gs", "az")
_WILDCARD = re.compile(r"[*?]")
_EVERY_PART = "**/*.parquet"
_UNFINISHED = ".unfinished"
_UPLOAD_BYTES = 8 * 2**20
"""Sent at once: S3 allows 10,000 of these in a file."""
_UPLOADS = 2
"""Sent at the same time."""

Range = tuple[int, int]
"""The first byte, and the one after the last."""


@dataclass(frozen=True)
class File:
    path: str
    """From the place, with slashes."""
    size: int
    tag: str
    """Another one if the content changes: the entity tag of an object, or the number and time of a file."""


@dataclass(frozen=True)
class Source:
    """An open file.

    Attributes:
        stream: what pyarrow reads.
        ranges: the file if it is in a bucket, where each read is a request.
    """

    stream: Any
    ranges: Ranges | None = None


class Place(ABC):
    """A folder or a prefix of a bucket.

    Attributes:
        name: as in the command line, without a slash at the end.
        address: the same for all names of the place.
    """

    name: str
    address: str

    @abstractmethod
    def files(self) -> Iterator[File]:
        """All files below it, in any order."""

    @abstractmethod
    def file(self, path: str) -> File:
        """A file as it is now.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    def open(self, file: File) -> AbstractContextManager[Source]: ...

    @abstractmethod
    def writing(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """A file that replaces the former one at the end of the block, unless the block fails."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def clean(self) -> None:
        """Delete what killed runs left, but nothing of a run that is going on."""


def place_of(name: str, option: str) -> Place:
    """The place of a folder or URL.

    Raises:
        BatchError: the URL is invalid.
    """
    found = _URL.fullmatch(name)
    if found is None:
        return _Folder(Path(name))
    if found["scheme"] not in _SCHEMES:
        known = ", ".join(f"{each}://BUCKET/PREFIX" for each in _SCHEMES)
        raise BatchError(f"{option} {name}: it must be a folder, {known}")
    return _Bucket(found["bucket"], (found["key"] or "").strip("/"), option)


def split_pattern(given: str) -> tuple[str, str]:
    """The place of an input, and the pattern of its files in it: `s3://b/in/day=*/*.parquet` is in `s3://b/in`.

    In a pattern, `*` and `?` match within a name and `**/` matches any folders. A file is its own pattern. A folder means all
    its `*.parquet`.
    """
    found = _URL.fullmatch(given)
    start, key = (found["bucket"] + "/", found["key"] or "") if found else ("", given)
    if not _WILDCARD.search(key) and not key.endswith(".parquet"):
        return given, _EVERY_PART
    wild = _WILDCARD.search(key)
    before = key.rfind("/", 0, wild.start() if wild else len(key)) + 1
    return start + key[:before] or ".", key[before:]


def matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression for the paths that a pattern means.

    No wildcard means a name that begins with `_` or `.`: by convention these are no data.
    """
    pieces = re.split(r"(\*\*/|\*|\?)", pattern)
    return re.compile("".join(_MEANINGS.get(each, re.escape(each)) for each in pieces), re.DOTALL)


_MEANINGS = {
    "**/": r"(?:(?![_.])[^/]+/)*",
    "*": r"(?:(?<![^/])(?![_.])|(?<=[^/]))[^/]*",
    "?": r"(?:(?<![^/])(?![_.])|(?<=[^/]))[^/]",
}


class _Folder(Place):
    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.address = str(folder.absolute())
        self._folder = folder

    def files(self) -> Iterator[File]:
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = (Path(folder) / name).relative_to(self._folder).as_posix()
                if not name.endswith(_UNFINISHED):
                    with contextlib.suppress(FileNotFoundError):
                        yield self.file(path)

    def file(self, path: str) -> File:
        state = (self._folder / path).stat()
        return File(path, state.st_size, f"{state.st_ino}-{state.st_mtime_ns}")

    @contextmanager
    def open(self, file: File) -> Iterator[Source]:
        import pyarrow as pa

        with pa.OSFile(str(self._folder / file.path)) as stream:
            yield Source(stream)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=_UNFINISHED, delete=False
        ) as file:
            try:
                _lock(file)
                yield file
                file.flush()
                os.fsync(file.fileno())
                # The permissions of temporary files are for their owner alone.
                os.chmod(file.name, 0o666 & ~_umask())  # noqa: PTH101
                os.replace(file.name, target)  # noqa: PTH105
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def delete(self, path: str) -> None:
        (self._folder / path).unlink(missing_ok=True)

    def clean(self) -> None:
        for path in self._folder.rglob(f".*{_UNFINISHED}"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                _lock(file)
                path.unlink()


class _Bucket(Place):
    def __init__(self, bucket: str, prefix: str, option: str) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.name = self.address = f"{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            # The configured endpoint decides whether the connection is encrypted.
            self._store: ObjectStore = from_url(bucket, client_options={"allow_http": True, "timeout": "5m"})
        except (BaseError, ValueError) as error:
            raise BatchError(f"{option} {self.name}: {first_line(error)}") from None

    def files(self) -> Iterator[File]:
        import obstore

        for chunk in obstore.list(self._store, prefix=self._prefix or None):
            yield from (self._described(each) for each in chunk)

    def file(self, path: str) -> File:
        import obstore

        return self._described(obstore.head(self._store, self._prefix + path))

    def _described(self, meta: Any) -> File:
        # Azure lists tags without the quotes that they have in an object's own header.
        tag = (meta["e_tag"] or meta["last_modified"].isoformat()).strip('"')
        return File(meta["path"].removeprefix(self._prefix), meta["size"], tag)

    @contextmanager
    def open(self, file: File) -> Iterator[Source]:
        import pyarrow as pa

        ranges = Ranges(self._store, self._prefix + file.path, file.size)
        with pa.PythonFile(ranges, mode="r") as stream:
            yield Source(stream, ranges)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        import obstore

        key = self._prefix + path
        writer = obstore.open_writer(self._store, key, buffer_size=_UPLOAD_BYTES, max_concurrency=_UPLOADS)
        yield _Upload(writer)  # type: ignore[misc]
        # Without this the bucket shows nothing.
        writer.close()

    def delete(self, path: str) -> None:
        import obstore

        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, self._prefix + path)

    def clean(self) -> None:
        """Uploads that were not finished are not in sight; a lifecycle rule of the bucket deletes them."""


class Ranges(io.RawIOBase):
    """An object as a file, of which some ranges can be in memory."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        super().__init__()
        self._store, self._path, self._size = store, path, size
        self._held: list[tuple[int, Any]] = []
        self._at = 0

    def fetch(self, ranges: Sequence[Range]) -> None:
        """Hold these ranges instead of the former ones."""
        import obstore

        starts, ends = zip(*ranges, strict=True)
        self._held = []
        found = obstore.get_ranges(self._store, self._path, starts=starts, ends=ends)
        self._held = [(start, memoryview(each)) for start, each in zip(starts, found, strict=True)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> Any:
        import obstore

        start = self._at
        end = self._size if size < 0 else min(self._size, start + size)
        if start >= end:
            return b""
        self._at = end
        for first, content in self._held:
            if first <= start and end <= first + len(content):
                return content[start - first : end - first]
        return obstore.get_range(self._store, self._path, start=start, end=end)


class _Upload(io.RawIOBase):
    """A writer of obstore as a file."""

    def __init__(self, writer: WritableFile) -> None:
        super().__init__()
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._writer.write(content)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lock(file: IO[bytes]) -> None:
    """Mark a file as being written; the operating system takes the mark away when the process ends.

    Raises:
        OSError: another process writes it.
    """
    try:
        import fcntl
    except ImportError:  # Windows refuses to delete files that are open.
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
