"""Where the rows of a split are stored, so that another process reads them itself instead of receiving them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Stored:
    """Rows of a file in the model's folder.

    Attributes:
        path: of the file, from the folder.
        rows: their positions in the file; None for all.
    """

    path: Path
    rows: Rows | None = None

    def take(self, rows: Rows) -> Stored:
        return Stored(self.path, rows if self.rows is None else self.rows[rows])


def packed(rows: Rows | None) -> tuple[int, bytes] | Rows | None:
    """Positions as short as they can be sent: those that ascend as a bit for each row."""
    if rows is None or not len(rows) or (np.diff(rows) <= 0).any():
        return rows
    bits = np.zeros(int(rows[-1]) + 1, dtype=bool)
    bits[rows] = True
    return len(bits), np.packbits(bits).tobytes()


def unpacked(rows: tuple[int, bytes] | Rows | None) -> Rows | None:
    if not isinstance(rows, tuple):
        return rows
    count, bits = rows
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count))


def digest(path: Path) -> str:
    """Of a file; read again only when its size or time has changed."""
    status = path.stat()
    return _digest(path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _digest(path: Path, _time: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_row_groups(path: Path, rows: Rows) -> pd.DataFrame:
    """Rows of a Parquet file by position, ascending, read without holding the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        found, start = [], 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)]
            if len(inside):
                found.append(file.read_row_group(group).take(inside - start))
            start = end
        frame: pd.DataFrame = pa.concat_tables(found).to_pandas()
        return frame
