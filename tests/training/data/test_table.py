"""Tables that are read a column at a time, and arrays in files."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.base.errors import DataError
from training.data import memory, table
from training.data.table import Collector, Columns, ParquetTable, row_hashes

pytestmark = pytest.mark.hypothesis


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where arrays of a kilobyte are large, and a block has seven rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "LARGE", 1000)
    monkeypatch.setattr(memory, "BLOCK", 7)
    monkeypatch.setattr(table, "CHUNK", 21)
    return tmp_path


def rows(count: int) -> pd.DataFrame:
    places = np.arange(count)
    seen = pd.Series(pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")).dt.as_unit("us")
    return pd.DataFrame(
        {
            "number": np.where(places % 5 == 0, np.nan, places * 0.1),
            "text": pd.Series([None if each % 7 == 0 else f"t{each % 11}" for each in places], dtype="str"),
            "seen": seen.mask(places % 9 == 0),
        }
    )


def kept(frame: pd.DataFrame) -> Columns:
    columns = {}
    for name in map(str, frame):
        collector = Collector(len(frame))
        for _, piece in table.chunks(frame, name):
            collector.add(piece)
        columns[name] = collector.column()
    return Columns(columns, np.arange(len(frame)) + 1)


def test_a_large_array_is_in_a_file_that_disappears_with_it(folder: Path) -> None:
    array = memory.empty((300, 2), np.float64)
    assert memory.is_large(array)
    assert not memory.is_large(memory.empty((3, 2), np.float64))
    assert list((folder / "build").iterdir()) == []
    array[:] = 1.5
    assert array.sum() == 900
    del array
    gc.collect()


def test_a_full_disk_is_an_error_and_no_crash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"cannot keep 0\.0 GB in build/: No space left on device; make room"):
        memory.empty((300, 2), np.float64)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 50, 300])
def test_columns_come_back_as_they_were(folder: Path, count: int) -> None:
    frame = rows(count)
    columns = kept(frame)
    for name in map(str, frame):
        pd.testing.assert_series_equal(columns[name], frame[name])
    columns.write(folder / "all.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "all.parquet"), frame)
    again = ParquetTable(folder / "all.parquet")
    assert (len(again), again.columns) == (count, list(frame.columns))
    for name in map(str, frame):
        pd.testing.assert_series_equal(again[name], frame[name])


def test_some_rows_and_a_further_column(folder: Path) -> None:
    frame = rows(100)
    mask = np.arange(100) % 3 == 1
    some = kept(frame).where(mask)
    weights = pd.Series(np.arange(33.0))
    some = some.assign(weight=weights).where(np.arange(33) >= 10)
    expected = frame[mask].reset_index(drop=True).assign(weight=weights)[10:].reset_index(drop=True)
    some.write(folder / "some.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "some.parquet"), expected)
    assert some.index.tolist() == (np.flatnonzero(mask)[10:] + 1).tolist()


def test_the_bytes_do_not_depend_on_where_the_values_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(rows(300)).write(folder / "files.parquet")
    monkeypatch.setattr(memory, "LARGE", 10**9)
    monkeypatch.setattr(table, "CHUNK", 1000)
    kept(rows(300)).write(folder / "memory.parquet")
    assert (folder / "files.parquet").read_bytes() == (folder / "memory.parquet").read_bytes()


def test_a_sample_has_its_rows_in_order_and_is_the_same_each_time(folder: Path) -> None:
    rows(300).to_parquet("all.parquet", index=False)
    source = ParquetTable(Path("all.parquet"))
    sample = source.sample(40)
    pd.testing.assert_frame_equal(sample, source.sample(40))
    assert len(sample) == 40
    assert sample["seen"].dropna().is_monotonic_increasing
    assert len(source.sample(300)) == 300


cells = st.sampled_from([0.0, -0.0, 1.0, np.nan, 1e-300])
words = st.sampled_from(["", "a", "b", None])


@given(st.lists(st.tuples(cells, cells, words), max_size=30))
@settings(deadline=None)
def test_rows_have_the_same_hashes_where_pandas_calls_them_duplicates(
    values: list[tuple[float, float, str | None]],
) -> None:
    frame = pd.DataFrame(values, columns=["x", "y", "z"]).astype({"x": float, "y": float, "z": "str"})
    hashes = table.RowHashes(len(frame))
    for name in map(str, frame):
        hashes.add(frame[name], 0)
    assert hashes.repeats().tolist() == frame.duplicated().tolist()


def test_columns_are_not_interchangeable() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [2.0, 1.0]})
    first: NDArray[np.uint64] = row_hashes(frame, ["x", "y"])
    assert (first[:, 0] != first[:, 1]).all()
