"""Divides rows into folds, for cross-validation and for the search within it.

The folds keep rows apart as the test split does: at random, by time, by group, or by both.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from training.base.errors import ConfigError
from training.data.dataset import Split

Rows = NDArray[np.intp]


def folds(split: Split, count: int, seed: int, where: str) -> Iterator[tuple[Rows, Rows]]:
    """Positions of the rows to fit on and of those to measure on, for each fold.

    By time, the rows are cut into one block more than there are folds; each fold measures on a block and fits on all
    earlier ones. Rows of one moment are in one block. Otherwise classes keep their shares as far as groups allow.

    Args:
        split: the rows.
        count: of the folds.
        seed: of the random order.
        where: the setting that asks for so many folds, for messages.

    Raises:
        ConfigError: there are too few rows, moments or groups, or a fold would fit without a class.
    """
    least, what = _most_folds(split)
    if least < count:
        raise ConfigError(f"{where} is {count}, but {what}: use fewer folds or more data")
    for number, (inner, outer) in enumerate(_divided(split, count, seed), 1):
        if not len(inner) or not len(outer):
            raise ConfigError(
                f"{where} is {count}, but fold {number} has no rows on one side: use fewer folds"
            )
        if is_classes(split.target) and (absent := _absent(split.target, inner)):
            raise ConfigError(
                f"{where} is {count}, but fold {number} has no row of {absent} of the classes to fit on: use fewer "
                "folds, or leave rare classes out (schema.drop_classes)"
            )
        yield inner, outer


def cross_fitting(split: Split, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Positions of the rows to compute statistics from and of those to use them for, which are kept apart like folds.

    No row is used for itself, its group, or earlier rows. By time, the rows of the earliest block are on no second side.

    Args:
        split: the rows.
        count: of the folds; if there cannot be so many, there are fewer.
        seed: of the random order.

    Raises:
        ConfigError: there are fewer than two groups or moments.
    """
    groups = len(np.unique(split.groups)) if split.groups is not None else len(split)
    if groups < 2 or (split.times is not None and len(np.unique(split.times)) < 2):
        raise ConfigError(
            "there are fewer than two groups or moments to keep apart, and categories: target needs two"
        )
    if split.times is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fewer rows of a class than folds
            return list(_divided(split, max(2, min(count, _most_folds(split)[0])), seed))
    everything = np.arange(len(split))
    apart = [(everything, everything)]
    if split.groups is not None:
        folder = GroupKFold(min(count, groups), shuffle=True, random_state=seed)
        apart = list(folder.split(everything, groups=split.groups))
    count = min(count, len(np.unique(split.times)) - 1)
    block = _blocks(split.times, count)
    pairs = [
        (inner[block[inner] < number], outer[block[outer] == number])
        for inner, outer in apart
        for number in range(1, count + 1)
    ]
    return [(inner, outer) for inner, outer in pairs if len(inner) and len(outer)]


def held_out(split: Split, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Positions of the rows to fit on and of those to hold out, each row once, for a calibration within a fit.

    Rows of a group are on one side; by time alone, those of a block are, and others are earlier and later.

    Raises:
        ConfigError: without the rows of a part, a class has none.
    """
    everything = np.arange(len(split))
    if split.groups is not None:
        count = max(2, min(count, len(np.unique(split.groups))))
        folder = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fewer rows of a class than folds
            divided = list(folder.split(everything, split.target, split.groups))
        found = [(inner, outer) for inner, outer in divided if len(outer)]
    else:
        assert split.times is not None  # noqa: S101 - for splits that keep rows apart
        block = _blocks(split.times, min(count, len(np.unique(split.times))) - 1)
        found = [
            (np.flatnonzero(block != each), np.flatnonzero(block == each)) for each in range(block.max() + 1)
        ]
    if absent := max(_absent(split.target, inner) for inner, _ in found):
        raise ConfigError(
            f"it is calibrated on {len(found)} parts of the rows that are kept apart as split.by says, and without one of "
            f"them {absent} of the classes has no rows: use another algorithm, or leave rare classes out "
            "(schema.drop_classes)"
        )
    return found


def is_classes(target: NDArray[Any]) -> bool:
    """Whether a split's target has classes, and not values."""
    return target.dtype == np.int64


def _divided(split: Split, count: int, seed: int) -> Iterator[tuple[Rows, Rows]]:
    if split.times is not None:
        yield from _by_time(split.times, split.groups, count)
    elif split.groups is not None:
        kind: Any = StratifiedGroupKFold if is_classes(split.target) else GroupKFold
        folder = kind(count, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # Fewer rows of a class than folds; a class without rows to fit on is an error above.
            warnings.simplefilter("ignore", UserWarning)
            divided = list(folder.split(split.target, split.target, split.groups))
        yield from divided
    else:
        kind = StratifiedKFold if is_classes(split.target) else KFold
        yield from kind(count, shuffle=True, random_state=seed).split(split.target, split.target)


def _by_time(
    times: NDArray[Any], groups: NDArray[np.int64] | None, count: int
) -> Iterator[tuple[Rows, Rows]]:
    block = _blocks(times, count)
    for number in range(1, count + 1):
        inner, outer = np.flatnonzero(block < number), np.flatnonzero(block == number)
        if groups is not None:
            outer = outer[~np.isin(groups[outer], groups[inner])]
        yield inner, outer


def _blocks(times: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The block of each row, from 0 to the count."""
    _, moment, rows = np.unique(times, return_inverse=True, return_counts=True)
    # A moment belongs to the block in which the middle of its rows lies, but every block has one at least.
    middle = (np.cumsum(rows) - rows / 2) / len(times)
    block = np.minimum((middle * (count + 1)).astype(int), count)
    block[0] = 0
    for number in range(1, len(block)):
        left = len(block) - 1 - number
        block[number] = min(max(block[number], count - left), block[number - 1] + 1)
    found: NDArray[np.int64] = block[moment]
    return found


def _most_folds(split: Split) -> tuple[int, str]:
    """How many folds there can be, and why not more."""
    if split.times is not None:
        moments = len(np.unique(split.times))
        return moments - 1, f"there are {moments} different moments"
    if split.groups is not None:
        groups = len(np.unique(split.groups))
        if not is_classes(split.target) or groups <= np.bincount(split.target).max():
            return groups, f"there are {groups} groups"
        return int(np.bincount(split.target).max()), "no class has as many rows"
    if is_classes(split.target):
        rarest = int(np.bincount(split.target).min())
        return rarest, f"the rarest class has {rarest} rows"
    return len(split) // 2, f"there are {len(split):,} rows"


def _absent(target: NDArray[np.int64], inner: Rows) -> int:
    """How many classes have no row to fit on."""
    return len(np.unique(target)) - len(np.unique(target[inner]))
