"""Texts kept as numbers are read like the array of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.data import memory, texts

tables = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.lists(st.sampled_from(["", "red", "löss & loam", "0", None]), min_size=columns, max_size=columns),
        min_size=1,
        max_size=40,
    )
)


def both(rows: list[list[str | None]], folder: Path) -> tuple[texts.Texts, texts.Coded]:
    """The same texts in memory, and as numbers in a file, written in blocks of three rows."""
    frame = pd.DataFrame(rows, dtype=object)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for large in (memory.LARGE, 0):
            patch.setattr(memory, "LARGE", large)
            writer = texts.Writer(*frame.shape)
            for block in memory.blocks(len(frame), 3):
                for column in range(frame.shape[1]):
                    writer.write(block, column, frame[column].iloc[block])
            found.append(writer.result())
    plain, coded = found
    assert isinstance(plain, np.ndarray)
    assert isinstance(coded, texts.Coded)
    return plain, coded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@given(tables, st.data())
def test_any_rows_and_columns_are_the_same(
    folder: Path, rows: list[list[str | None]], data: st.DataObject
) -> None:
    plain, coded = both(rows, folder)
    some = data.draw(arrays(np.int64, st.integers(0, 9), elements=st.integers(0, len(rows) - 1)))
    column = data.draw(st.integers(0, plain.shape[1] - 1))

    assert (coded.shape, len(coded)) == (plain.shape, len(plain))
    for key in (
        slice(1, 5),
        some,
        0,
        (slice(None), slice(0, 0)),
        (slice(None), column),
        (some, column),
        (slice(None), slice(column, None)),
    ):
        np.testing.assert_array_equal(coded[key], plain[key])
        assert np.asarray(coded[key]).dtype == object
    np.testing.assert_array_equal(np.asarray(coded), plain)
    np.testing.assert_array_equal(texts.take(coded, some), plain[some])
    assert pd.DataFrame(coded[:]).equals(pd.DataFrame(plain))


def test_few_of_many_rows_are_texts_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    plain, coded = both([["red", ""], ["blue", "x"]] * 200, folder)
    monkeypatch.setattr(memory, "LARGE", 1_000)

    many, few = (texts.take(coded, np.arange(count)) for count in (300, 10))

    assert isinstance(many, texts.Coded)
    assert memory.is_large(many.codes)
    assert isinstance(few, np.ndarray)
    np.testing.assert_array_equal(np.asarray(many), plain[:300])
