"""Decides what the target of a draft is: classes, or the quantity of a regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from app.cells import as_written
from app.contract import Task
from training.base import config
from training.base.errors import ConfigError, DataError
from training.base.section import Settings
from training.data.columns import as_numbers, as_text
from training.draft import infer
from training.draft.categories import are_codes, ordered, words_among
from training.draft.infer import Columns
from training.draft.numbers import Number, identifies
from training.prepare import split as division
from training.sections.evaluate import EvaluateSettings
from training.sections.split import SplitSettings

MOST_CLASSES = 100
MOST_CODES = 30
"""Distinct whole numbers that count as classes; more are a quantity."""
MOST_DECIMALS = 10
"""Distinct numbers with decimals that count as classes."""


@dataclass(frozen=True)
class Target:
    """What the target holds, and what the columns beside it are.

    Attributes:
        name: of its column.
        task: that its values make.
        reason: why it is this task, and how to get the other one; empty where there is no choice.
        columns: the others, judged on the rows that are kept.
        kept: which rows have a value, or a class with enough rows.
        missing: how many rows have neither.
        classes: in their order; empty for a regression, as the next three.
        counts: of the rows of each class.
        rare: classes with too few rows, and how many they have.
        unknown: words that mean that a row has no class.
    """

    name: str
    task: Task
    reason: str
    columns: Columns
    kept: pd.Series[bool]
    missing: int
    classes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    rare: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class Evaluation(Settings):
    """The settings that decide how many rows are needed."""

    split: SplitSettings = SplitSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def drawn(self) -> SplitSettings:
        """A random split of the same size."""
        return SplitSettings(test_share=self.split.test_share, seed=self.split.seed)


def evaluation() -> Evaluation:
    """Those of the params.yaml here, or the defaults."""
    try:
        return config.load(Evaluation)
    except ConfigError:
        return Evaluation()


def judge(frame: pd.DataFrame, name: str, delimiter: str, task: Task | None = None) -> Target:
    """Decide the task, and which rows can be used.

    Args:
        frame: the source.
        name: of the target.
        delimiter: of the source, if it is a CSV file.
        task: to draft for, whatever the target looks like.

    Raises:
        DataError: nothing can be learnt from the column; the message names the remedy.
    """
    text, wrong = as_text(frame[name])
    if wrong.any():
        raise DataError(
            f"{name} holds {frame[name].dtype}: a target has a class, as text or number, or a quantity in every row"
        )
    if task == "regression":
        return _of_values(frame, name, infer.judge(frame, delimiter, name))
    if task is None and text.nunique() > MOST_DECIMALS and not are_codes(frame[name]):
        whole = infer.judge(frame, delimiter, name)
        if whole.target and (count := _quantity(whole.target)):
            if identifies(name, whole.target.seen):
                raise DataError(
                    f"{name} numbers the rows: choose another target, or draft with --task regression if it is a quantity"
                )
            reason = f"{count:,} different numbers are a quantity; --task classification drafts classes"
            return _of_values(frame, name, whole, reason)
    return _of_classes(frame, name, delimiter, text, given=task is not None)


def _quantity(number: Number) -> int:
    """How many different numbers a column has, if they are too many for classes; otherwise 0."""
    distinct = np.unique(number.seen)
    most = MOST_CODES if (distinct == np.round(distinct)).all() else MOST_DECIMALS
    return len(distinct) if len(distinct) > most else 0


def _of_values(frame: pd.DataFrame, name: str, whole: Columns, reason: str = "") -> Target:
    """The target of a regression.

    Args:
        frame: the source.
        name: of the target.
        whole: its columns, judged on all rows.
        reason: for the task.
    """
    if whole.target is None:
        raise DataError(
            f"{name} cannot be the target of a regression, since {whole.left_out[name].partition('since ')[2]}: "
            "correct the source, choose another target, or draft with --task classification"
        )
    values, seen = whole.target.values, whole.target.seen
    if len(np.unique(seen)) < 2:
        raise DataError(
            f"{name}: only the value {as_written(float(seen[0]))} in {len(frame):,} rows; a regression needs values that "
            "differ: choose another target"
        )
    kept = values.notna()
    settings = evaluation()
    train, _ = division.split(values[kept].to_frame(name), name, settings.drawn)
    if len(train) < division.FEWEST_ROWS_PER_FOLD * settings.evaluate.folds:
        raise DataError(
            f"{name}: {len(seen)} rows have a value, which is too few for evaluate.folds ({settings.evaluate.folds}): "
            "use more data, or fewer folds in params.yaml"
        )
    columns = infer.beside(frame[kept], whole, name) if not kept.all() else whole
    return Target(name, "regression", reason, columns, kept, int((~kept).sum()))


def _of_classes(
    frame: pd.DataFrame, name: str, delimiter: str, text: pd.Series[Any], *, given: bool
) -> Target:
    """The target of a classification.

    Args:
        frame: the source.
        name: of the target.
        delimiter: of the source, if it is a CSV file.
        text: the target's cells.
        given: whether the task was given.
    """
    columns = infer.judge(frame.drop(columns=name), delimiter)
    words = words_among(text.dropna().unique(), columns.cells)
    unknown = sorted(words & set(text.dropna()))
    text = text.where(~text.isin(words), None)
    names = text.dropna().unique()
    numbers = not as_numbers(frame[name], columns.cells)[1].any()
    hint = "; if it is a quantity, draft with --task regression" if numbers else ""
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(
            f"{name} has {len(names):,} different values; a classifier takes 2 to {MOST_CLASSES} classes: "
            f"choose another target, or group the values in the source{hint if len(names) > 2 else ''}"
        )
    rare = _rare(text.dropna())
    if len(names) - len(rare) < 2:
        raise DataError(
            f"{name}: {len(rare)} of {len(names)} classes have too few rows to train and test on, such as "
            f"{next(iter(rare))!r} with {next(iter(rare.values()))}: a classifier needs two classes with more rows; "
            f"merge classes in the source, choose another target, or lower evaluate.folds in params.yaml{hint}"
        )
    kept = text.notna() & ~text.isin(rare)
    if not kept.all():
        columns = infer.judge(frame[kept].drop(columns=name), delimiter)
    return Target(
        name,
        "classification",
        f"{len(names)} different numbers are classes; --task regression drafts a quantity"
        if numbers and not given
        else "",
        columns,
        kept,
        int(text.isna().sum()),
        classes=ordered(text[kept].unique()),
        counts={str(each): int(count) for each, count in text.value_counts().items()},
        rare=rare,
        unknown=unknown,
    )


def _rare(labels: pd.Series[Any]) -> dict[str, int]:
    """The classes that `prepare` would refuse, with all their rows."""
    settings = evaluation()
    # A single row would be in the test split alone.
    rare = {str(name): 1 for name, count in labels.value_counts().items() if count == 1}
    while True:
        kept = labels[~labels.isin(rare)]
        if kept.empty:
            return rare
        train, _ = division.split(kept.to_frame("class"), "class", settings.drawn)
        found = division.too_rare(train["class"], kept.unique(), settings.evaluate.folds)
        if not found:
            return rare
        rare |= {name: int((kept == name).sum()) for name in found}
