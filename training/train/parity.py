"""Compares a model file with the fitted estimator, on the data and on generated rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from app.contract import MISSING_CATEGORY, CategoryFeature, DatetimeFeature, Feature
from app.moments import EPOCH, clock, maker
from training.base.errors import ParityError
from training.data.dataset import NO_COLUMNS, Profile, Split, joined
from training.results.figures import Answers
from training.results.report import Parity
from training.train.algorithms import inputs
from training.train.folds import is_classes

TOLERANCE = 1e-6
"""Largest difference between a probability of the file and of the estimator, or between values in standard deviations of
the target."""

MOST_ROWS = 200_000
"""Of each split, which are compared; of a larger one, so many at random."""
PARITY_BLOCK = 10_000
"""Rows that are compared at once."""
EARLIEST, LATEST = EPOCH.replace(year=2), EPOCH.replace(year=9999)
"""Of generated moments; every time zone has them."""
MOST_CELLS = 8_000_000
"""Generated values that are held at once (64 MB)."""


def compared_rows(train: Split, test: Split, seed: int) -> Split:
    """The rows of both splits, as far as they are compared."""
    return joined(train.sample(MOST_ROWS, seed), test.sample(MOST_ROWS, seed))


def check_parity(
    fitted: Pipeline, answers: Callable[[Split], Answers], data: Split, generated: Iterable[Split]
) -> Parity:
    """Compare the model file with the fitted estimator on the data and on generated rows.

    Args:
        fitted: the pipeline that was exported.
        answers: runs the file.
        data: rows whose target gives the unit of the tolerance for values.
        generated: rows in blocks; their targets do not count.

    Raises:
        ParityError: a class differs, or a probability or value by more than `TOLERANCE`.
    """
    compare = _compare_classes if is_classes(data.target) else _compare_values
    unit = 1.0 if is_classes(data.target) else float(data.target.std()) or 1.0
    largest, rows = 0.0, 0
    for split in chain([data], generated):
        rows += len(split)
        for block in blocks(split):
            wrong, gaps = compare(fitted, block, answers(block))
            gaps = gaps / unit
            # `not <=` instead of `>`, so that NaN fails too.
            if wrong.any() or not gaps.max() <= TOLERANCE:
                row = int(wrong.argmax() if wrong.any() else gaps.argmax())
                raise ParityError(_disagreement(block, row, int(wrong.sum()), float(gaps.max())))
            largest = max(largest, float(gaps.max()))
    return Parity(
        data_rows=len(data),
        generated_rows=rows - len(data),
        label_differences=0,
        largest_difference=float(f"{largest:.1e}"),
    )


def _compare_classes(
    fitted: Pipeline, block: Split, answers: Answers
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which classes differ, and the largest difference of each row's probabilities."""
    X = inputs(block)
    label, probabilities = answers
    return label != fitted.predict(X), np.abs(fitted.predict_proba(X) - probabilities).max(axis=1)


def _compare_values(
    fitted: Pipeline, block: Split, answers: Answers
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    gaps = np.abs(np.asarray(fitted.predict(inputs(block)), dtype=np.float64).ravel() - answers[0])
    return np.zeros(len(gaps), dtype=bool), gaps


def _disagreement(block: Split, row: int, wrong: int, gap: float) -> str:
    if is_classes(block.target):
        found = f"{wrong:,} of {len(block):,} labels differ, probabilities by up to {gap:.2g}"
    else:
        found = f"values differ by up to {gap:.2g} standard deviations of the target"
    return (
        f"the exported model disagrees with the fitted one: {found} (allowed {TOLERANCE:g}); first at numbers "
        f"{block.numbers[row].tolist()} categories {block.categories[row].tolist()}"
    )


def blocks(split: Split) -> Iterator[Split]:
    """Pieces of a split, because the encoder of wide categories needs memory for all rows at once."""
    for start in range(0, len(split), PARITY_BLOCK):
        rows = slice(start, start + PARITY_BLOCK)
        yield Split(split.numbers[rows], split.categories[rows], split.target[rows], NO_COLUMNS)


def generated_rows(profile: Profile, seen: Split, rows: int, seed: int) -> Iterator[Split]:
    """So many rows on the features' grid and as many half a step beside it, in blocks that fit in memory."""
    block = max(1, MOST_CELLS // (len(profile.layout.numbers) + len(profile.layout.categories)))
    for fraction in (1, 2):
        for number, start in enumerate(range(0, rows, block)):
            size = min(block, rows - start)
            yield grid_rows(profile, seen, size, fraction=fraction, seed=[seed, number] if number else seed)


def grid_rows(profile: Profile, seen: Split, rows: int, *, fraction: int, seed: int | Sequence[int]) -> Split:
    """Generate rows on the features' natural grid, where thresholds of trees lie.

    Args:
        profile: gives each number's step and declared range, and each category's values.
        seen: rows whose extremes bound the first half; the second half spans the declared ranges.
        rows: how many.
        fraction: 1 for the grid of the step; 2 for half steps, the midpoints where trees split.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)
    layout = profile.layout
    features = {each.name: each for each in profile.features}
    numbers = np.empty((rows, len(layout.numbers)))
    for feature in profile.features:
        if feature.type == "category":
            continue
        places = layout.places(feature)
        if feature.type == "datetime":
            numbers[:, places] = _moments(random, feature, rows, fraction)
            continue
        column = places.start
        values = seen.numbers[:, column]
        low, high = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 1.0)
        half = rows // 2
        numbers[:half, column] = _on_grid(random, low, high, feature.step / fraction, half)
        numbers[half:, column] = _on_grid(
            random, feature.minimum, feature.maximum, feature.step / fraction, rows - half
        )
        if feature.missing:
            numbers[random.random(rows) < 0.1, column] = np.nan
    categories = np.empty((rows, len(layout.categories)), dtype=object)
    for column, name in enumerate(layout.categories):
        choices = _choices(features[name])
        categories[:, column] = choices[random.integers(0, len(choices), rows)]
    return Split(numbers, categories, np.zeros(rows, dtype=seen.target.dtype), NO_COLUMNS)


def _moments(
    random: np.random.Generator, feature: DatetimeFeature, rows: int, fraction: int
) -> NDArray[np.float64]:
    """The parts of moments: the first half as in training, the second up to the same span before and after."""
    local, make = clock(feature.timezone), maker(feature.parts)
    first, step, count = feature.grid(fraction)
    steps = random.integers(0, count + 1, rows)
    steps[rows // 2 :] += random.integers(-1, 2, rows - rows // 2) * (count + 1)
    gaps = random.random(rows) < 0.1 if feature.missing else np.zeros(rows, dtype=bool)
    # A step beyond the calendar is one within it.
    lowest, highest = (EARLIEST - first) // step, (LATEST - first) // step
    steps = np.clip(steps, lowest, highest)
    made = np.array([make(local.at(first + int(each) * step)) for each in steps], dtype=np.float64)
    made[gaps] = np.nan
    return made


def _choices(feature: Feature) -> NDArray[np.object_]:
    assert isinstance(feature, CategoryFeature)  # noqa: S101 - the layout says so
    return np.array([*feature.categories, *([MISSING_CATEGORY] if feature.missing else [])], dtype=object)


def _on_grid(
    random: np.random.Generator, low: float, high: float, step: float, rows: int
) -> NDArray[np.float64]:
    # Far from zero, floats are further apart than a small step.
    step = max(step, max(abs(low), abs(high)) / 2**53)
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    multiples = random.integers(first, max(first, last) + 1, rows)
    # Rounded to the decimals of the step, because requests contain 0.3 and not 3 * 0.1.
    return np.round(multiples * step, max(0, int(np.ceil(-np.log10(step))) + 2))
