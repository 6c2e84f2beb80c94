"""The categories of many rows: a number for each cell, in a file, and each text once.

Rows are decoded when they are asked for, so a reader sees the array of texts that small splits have.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.contract import MISSING_CATEGORY
from training.data import memory

Texts = NDArray[np.object_]


AT_ONCE = 131_072
"""Rows that a model file may get in one piece; the smallest files have blocks of fewer."""


class Coded:
    """Texts of shape (rows, columns) that are kept as numbers.

    Attributes:
        codes: int32 of the same shape: places in the words of the column.
        words: the texts of each column.
    """

    def __init__(self, codes: NDArray[np.int32], words: Sequence[Texts]) -> None:
        self.codes = codes
        self.words = words

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, key: Any) -> Texts:
        """The texts of some rows, or of rows and columns."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        codes, words = self.codes[rows][..., columns], self.words[columns]
        if codes.ndim == np.ndim(self.codes[rows]) - 1:
            return np.asarray(words)[codes]
        found = np.empty(codes.shape, dtype=object)
        for place, each in enumerate(words):
            found[..., place] = each[codes[..., place]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Texts:
        return self[:]


def take(texts: Texts | Coded, rows: NDArray[Any]) -> Texts | Coded:
    """The rows at some positions, or where a mask is true; decoded if they are few."""
    if not isinstance(texts, Coded):
        few: Texts = texts[rows]
        return few
    codes = memory.take(texts.codes, rows)
    taken = Coded(codes, texts.words)
    return taken if is_many(*codes.shape) else taken[:]


def at_once(texts: Texts | Coded) -> Any:
    """For a reader that takes more rows than a block in pieces of its own: few rows are decoded."""
    return texts[:] if len(texts) <= AT_ONCE else texts


def is_many(rows: int, columns: int) -> bool:
    """Whether so many texts are kept as numbers."""
    return rows * columns * np.dtype(object).itemsize >= memory.LARGE


class Writer:
    """Fills texts block by block, in either form."""

    def __init__(self, rows: int, columns: int) -> None:
        self._coded = is_many(rows, columns)
        self._cells: NDArray[Any] = (
            memory.empty((rows, columns), np.int32)
            if self._coded
            else np.empty((rows, columns), dtype=object)
        )
        # The empty text of a missing value first.
        self._words: list[dict[str, int]] = [{MISSING_CATEGORY: 0} for _ in range(columns)]

    def write(self, block: slice, column: int, values: pd.Series[Any]) -> None:
        """Equal texts are one object: there may be millions of them."""
        codes, words = pd.factorize(values)
        found = [*(sys.intern(each) if isinstance(each, str) else each for each in words), MISSING_CATEGORY]
        if self._coded:
            known = self._words[column]
            places = np.array([known.setdefault(each, len(known)) for each in found], dtype=np.int32)
            self._cells[block, column] = places[codes]
        else:
            self._cells[block, column] = np.array(found, dtype=object)[codes]

    def result(self) -> Texts | Coded:
        if not self._coded:
            return self._cells
        return Coded(self._cells, [np.array([*known], dtype=object) for known in self._words])
