"""Draw the training rows: the target, the features against it, a scatter matrix and the correlation.

Reads  data/train.parquet, data/profile.json
Writes reports/explore/*.png

The same rows give the same bytes: the files hold no date and no version, random numbers have a seed, and a
matplotlibrc on this machine has no effect.

When there are too many features to look at, the pictures show those that say most about the target. A picture that
fails is replaced by one that gives the reason; the pipeline continues.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from app.contract import Task
from common import files
from training.base import cli
from training.data import dataset
from training.data.table import ParquetTable
from training.explore import classes, matrix, values
from training.explore.canvas import blank, png
from training.explore.table import Table, tabulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS, MOST_CELLS = 100_000, 10_000_000
"""Of more rows, or of rows with more cells together, so many at random are drawn; the classes are counted in all."""

log = logging.getLogger(__name__)

PICTURES: Mapping[Task, Mapping[str, Callable[[Table], Figure]]] = {
    "classification": {
        "class_balance.png": classes.class_balance,
        "distributions.png": classes.distributions,
        "scatter_matrix.png": matrix.scatter_matrix,
        "correlation.png": matrix.correlation,
    },
    "regression": {
        "target.png": values.target,
        "against_target.png": values.against_target,
        "scatter_matrix.png": matrix.scatter_matrix,
        "correlation.png": matrix.correlation,
    },
}


def main() -> None:
    cli.parser("training.explore", __doc__).parse_args()
    profile = dataset.read_profile()
    train = ParquetTable(dataset.TRAIN_FILE)
    sample = train.sample(min(MOST_ROWS, MOST_CELLS // len(train.columns)))
    table = tabulate(sample, profile, train[profile.target] if len(sample) < len(train) else None)
    with files.replacing(dataset.EXPLORE) as folder:
        folder.mkdir()
        for name, picture in PICTURES[table.task].items():
            (folder / name).write_bytes(_drawn(name, picture, table))


def draw(table: Table) -> dict[str, bytes]:
    """PNG files by name."""
    return {name: png(partial(picture, table)) for name, picture in PICTURES[table.task].items()}


def _drawn(name: str, picture: Callable[[Table], Figure], table: Table) -> bytes:
    """A picture, or one that gives the reason why there is none."""
    try:
        return png(partial(picture, table))
    except Exception as error:
        log.warning("%s could not be drawn; the pipeline goes on without it", name, exc_info=True)
        reason = f"{name} could not be drawn: {type(error).__name__}: {error}"
        return png(partial(_sign, reason))


def _sign(text: str) -> Figure:
    figure = blank(7.5, 1)
    figure.text(0, 0, textwrap.fill(text, 90, max_lines=6))
    return figure
