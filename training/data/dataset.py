"""The prepared data as later stages read it: two splits and the resolved schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from app.cells import PLAIN, Cells
from app.contract import Feature, Frozen, Layout, NumberFeature, Task, columns_of
from common import files
from training.base.errors import DataError
from training.data import memory, stored, texts
from training.data.columns import moment_parts
from training.data.stored import Stored
from training.data.table import ParquetTable, frames, take

RAW_FILE = Path("data/raw.parquet")
ORIGIN_FILE = Path("data/raw.json")
TRAIN_FILE = Path("data/train.parquet")
TEST_FILE = Path("data/test.parquet")
PROFILE_FILE = Path("data/profile.json")
DATA_REPORT_FILE = Path("reports/data.md")
EXPLORE = Path("reports/explore")

TIME, GROUP = "split.time", "split.group"
"""Columns of the prepared files that keep rows apart, if split.by asks for it."""

WEIGHT = "row.weight"
"""Column of the prepared files that says how much a row counts, if schema.weight names one."""
SLICE = "slice."
"""What the names of the columns begin with that say to which slice of the test split a row belongs."""

LARGEST_SILENT_LOSS = 0.01
"""Share of the rows that a step may drop before the leaderboard and the model card say so."""


class Origin(Frozen):
    """`data/raw.json`: the source of the raw data, and its columns and rows."""

    source: str
    sha256: str
    """Of `data/raw.parquet`."""
    rows: int
    columns: tuple[str, ...]


class Division(Frozen):
    """How training and test split are kept apart."""

    by: Literal["random", "time", "group", "group_time"] = "random"
    train_until: str = ""
    """The last moment of the training rows, as text; the test rows are later."""
    test_from: str = ""
    train_groups: int = 0
    test_groups: int = 0
    """No group is in both."""
    left_out: int = 0
    """Rows after `train_until` of groups that are in the training split."""


class Profile(Frozen):
    """`data/profile.json`: the schema, completed from the data."""

    origin: Origin
    target: str
    classes: tuple[str, ...]
    """Empty for a regression."""
    class_shares: tuple[float, ...]
    value: NumberFeature | None = None
    """The target of a regression, described as the features are."""
    out_of_range: Literal["reject", "accept"]
    features: tuple[Feature, ...]
    rows: int
    """Rows that were split, without those that were dropped."""
    duplicates_dropped: int
    equal_rows: int = 0
    """Rows that are equal to an earlier one in all features and the target, whether or not they were dropped."""
    without_target: int = 0
    """Rows dropped because they have no class or value."""
    classes_dropped: dict[str, int] = Field(default_factory=dict)
    """Rows dropped with each class under `schema.drop_classes`."""
    cells: Cells = PLAIN
    """How the source's cells are read."""
    train_rows: int
    test_rows: int
    division: Division = Division()
    leakage: tuple[str, ...] = ()
    """One sentence for each sign that the score will be better than the model."""
    missing: dict[str, int]
    """Missing values by feature, over both splits."""

    @property
    def task(self) -> Task:
        return "classification" if self.value is None else "regression"

    @property
    def layout(self) -> Layout:
        return Layout.of(self.features)

    def losses(self) -> tuple[str, ...]:
        """One sentence for each class that was dropped, and for each step that lost more than 1 % of the rows."""
        rows = self.origin.rows
        steps = [
            (self.without_target, f"have no {self.target} and were dropped (schema.missing_target)"),
            (self.duplicates_dropped, "equal an earlier one and were dropped (schema.duplicates)"),
            (
                self.division.left_out,
                "are in neither split: they are newer than training, and of groups that it has (split.by)",
            ),
        ]
        lines = [
            f"{count:,} of {rows:,} rows ({count / rows:.1%}) are of the class {name!r}, "
            "which the model does not know (schema.drop_classes)"
            for name, count in self.classes_dropped.items()
        ]
        return (
            *lines,
            *(
                f"{count:,} of {rows:,} rows ({count / rows:.1%}) {what}"
                for count, what in steps
                if count > LARGEST_SILENT_LOSS * rows
            ),
        )


@dataclass(frozen=True)
class Split:
    """Rows as a model takes them.

    Rows of a file are pickled as their positions, and the process that unpickles them reads the file in its own folder.

    Attributes:
        numbers: float64 of shape (rows, columns of `Layout.numbers`), NaN where missing.
        categories: strings as objects of shape (rows, categorical features), "" where missing; of many rows an object
            that decodes the rows that are asked for.
        target: of shape (rows,): indices into the profile's classes as int64, or values as float64.
        frame: the same rows as in the file: a `pandas.DataFrame`, or of a large file a table that reads a column at a time.
        times: int64 or float64 of shape (rows,), later is larger; None unless time keeps rows apart.
        groups: int64 of shape (rows,); None unless groups keep rows apart.
        stored: where a process finds the same rows; None for rows that no file has.
    """

    numbers: NDArray[np.float64]
    categories: Any
    target: NDArray[Any]
    frame: Any
    # No argument, so that `replace` forgets it.
    stored: Stored | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def is_large(self) -> bool:
        """Whether the rows are kept in files, because memory may not hold them several times."""
        return memory.is_large(self.numbers) or isinstance(self.categories, texts.Coded)

    def __len__(self) -> int:
        return len(self.target)

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.stored is None:
            return Split, (self.numbers, self.categories, self.target, self.frame)
        path = self.stored.path
        return _read_again, (path, _digests(path), stored.packed(self.stored.rows))

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """How much each row counts; None if all count alike."""
        if WEIGHT not in self.frame:
            return None
        weights: NDArray[np.float64] = self.frame[WEIGHT].to_numpy()
        return weights

    @property
    def times(self) -> NDArray[Any] | None:
        if TIME not in self.frame:
            return None
        column = self.frame[TIME]
        times: NDArray[Any] = (column if column.dtype == np.float64 else column.astype("int64")).to_numpy()
        return times

    @property
    def groups(self) -> NDArray[np.int64] | None:
        return pd.factorize(self.frame[GROUP])[0].astype(np.int64) if GROUP in self.frame else None

    def take(self, rows: NDArray[np.integer[Any]]) -> Split:
        """The rows at the given positions."""
        taken = Split(
            memory.take(self.numbers, rows),
            texts.take(self.categories, rows),
            self.target[rows],
            take(self.frame, rows),
        )
        return taken if self.stored is None else _found_in(self.stored.take(rows), taken)

    def answers_only(self) -> Split:
        """The rows without their features, which may take much memory."""
        return replace(self, numbers=self.numbers[:, :0].copy(), categories=self.categories[:, :0])

    def sample(self, most: int, seed: int) -> Split:
        """All rows if there are at most so many, else so many at random, in their order."""
        return self if len(self) <= most else self.take(sampled(len(self), most, seed))


def sampled(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    """The ascending positions of the rows that `Split.sample` takes: all, or so many at random."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


NO_COLUMNS = pd.DataFrame()
"""The frame of rows of which only features and target are known."""


def write_profile(profile: Profile) -> None:
    files.write_text(PROFILE_FILE, profile.model_dump_json(indent=2) + "\n")


def read_profile() -> Profile:
    try:
        return Profile.model_validate_json(PROFILE_FILE.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot use {PROFILE_FILE}: {error}; run `dvc repro prepare`") from None


def read_split(path: Path, profile: Profile) -> Split:
    try:
        table = ParquetTable(path)
        split = as_split(table, profile)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; run `dvc repro prepare`") from None
    return _found_in(Stored(path), split if split.is_large else replace(split, frame=table.whole()))


def _found_in(where: Stored, split: Split) -> Split:
    object.__setattr__(split, "stored", where)
    return split


@dataclass(frozen=True)
class Taken:
    """Rows of a split that are not taken before they are needed, in this process or in one that reads the file itself."""

    split: Split
    rows: NDArray[np.integer[Any]]

    def __call__(self) -> Split:
        return self.split.take(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.split.stored is None:
            return Taken, (self.split, self.rows)
        where = self.split.stored.take(self.rows)
        return partial, (_read_again, where.path, _digests(where.path), stored.packed(where.rows))

    def alone(self) -> Callable[[], Split]:
        """The same for a process that shall not hold the other rows; they ascend."""
        if self.split.stored is None:
            return self
        where = self.split.stored.take(self.rows)
        return partial(_read_part, where.path, _digests(where.path), stored.packed(where.rows))


def _digests(path: Path) -> tuple[str, str]:
    return stored.digest(path), stored.digest(PROFILE_FILE)


def _check_same(path: Path, digests: tuple[str, str]) -> None:
    for each, known in zip((path, PROFILE_FILE), digests, strict=True):
        if not each.is_file() or stored.digest(each) != known:
            raise DataError(
                f"{each.resolve()} is another file than the one that this run began with: start it again"
            )


def _read_again(path: Path, digests: tuple[str, str], rows: Any) -> Split:
    """The rows of a pickled split. Raises DataError if this process has other data."""
    _check_same(path, digests)
    whole, found = _whole(path, Path.cwd(), digests), stored.unpacked(rows)
    return whole if found is None else whole.take(found)


def _read_part(path: Path, digests: tuple[str, str], rows: Any) -> Split:
    _check_same(path, digests)
    found = stored.unpacked(rows)
    assert found is not None  # noqa: S101 - a part has rows
    return _found_in(Stored(path, found), as_split(stored.read_row_groups(path, found), read_profile()))


@lru_cache(maxsize=2)
def _whole(path: Path, _folder: Path, _digests: tuple[str, str]) -> Split:
    """A file, read once for all the tasks of a process."""
    return read_split(path, read_profile())


def as_split(table: Any, profile: Profile) -> Split:
    """Convert a frame or a file of raw values (features and target by name) to tensors."""
    layout, rows = profile.layout, len(table)
    numbers = memory.empty((rows, len(layout.numbers)), np.float64)
    categories = texts.Writer(rows, len(layout.categories))
    target = np.empty(rows, dtype=np.int64 if profile.task == "classification" else np.float64)
    for block, frame in frames(table):
        parts: dict[str, NDArray[np.float64]] = {}
        for each in profile.features:
            if each.type == "datetime":
                made = moment_parts(frame[each.name], each.parts, each.timezone)
                parts |= dict(zip(columns_of(each), made.T, strict=True))
        for column, name in enumerate(layout.numbers):
            numbers[block, column] = parts[name] if name in parts else frame[name].to_numpy(np.float64)
        for column, name in enumerate(layout.categories):
            categories.write(block, column, frame[name])
        target[block] = _target(frame[profile.target], profile)
    return Split(numbers, categories.result(), target, table)


def _target(column: pd.Series[Any], profile: Profile) -> NDArray[Any]:
    if profile.task == "regression":
        return column.to_numpy(dtype=np.float64)
    places = pd.Index(profile.classes, dtype=object).get_indexer(pd.Index(column.astype(object)))
    if (places < 0).any():
        raise KeyError(column[places < 0].iloc[0])
    return places.astype(np.int64)


def joined(first: Split, second: Split) -> Split:
    """The features and targets of both, which memory must hold."""
    return Split(
        np.concatenate([first.numbers, second.numbers]),
        np.concatenate([first.categories, second.categories]),
        np.concatenate([first.target, second.target]),
        NO_COLUMNS,
    )
