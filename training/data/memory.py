"""Arrays that are kept in a file where they are large, so that memory does not limit the number of rows.

The kernel writes the pages of such a file to disk when memory is short, and reads them again. The file has no name: it
disappears with the array, however the process ends.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from training.base.errors import DataError

FOLDER = Path("build")
LARGE = 64 * 2**20
"""Bytes from which an array is kept in a file."""
BESIDE = 4
"""Of many arrays at once, smaller ones by this factor are kept in files."""
BLOCK = 131_072
"""Rows that are computed or copied at once, and the rows of a row group of Parquet."""


def empty(shape: tuple[int, ...], dtype: DTypeLike, *, beside: bool = False) -> NDArray[Any]:
    """An array without values yet, in memory or in a file.

    Args:
        shape: of the array.
        dtype: of the array.
        beside: whether there are many such arrays at once, so that smaller ones are large.

    Raises:
        DataError: the disk has no room for it.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size < (LARGE // BESIDE if beside else LARGE) or np.dtype(dtype).hasobject:
        return np.empty(shape, dtype)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=FOLDER) as file:
        _reserve(file.fileno(), size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def take(array: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """The rows at some positions, or where a mask is true, as a new array."""
    positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    taken = empty((len(positions), *array.shape[1:]), array.dtype)
    for block in blocks(len(positions)):
        taken[block] = array[positions[block]]
    return taken


def blocks(rows: int, size: int | None = None) -> Iterator[slice]:
    """So many rows in pieces; of `BLOCK` rows unless a size is given."""
    size = size or BLOCK
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def is_large(array: NDArray[Any]) -> bool:
    """Whether an array is kept in a file."""
    return isinstance(array, np.memmap)


def _reserve(file: int, size: int) -> None:
    """Give a file its size on disk. Without room, a write into the array would kill the process."""
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:  # macOS and Windows
        os.truncate(file, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise DataError(
                f"cannot keep {size / 2**30:.1f} GB in {FOLDER}/: {error.strerror}; make room on that disk"
            ) from None
        os.truncate(file, size)
