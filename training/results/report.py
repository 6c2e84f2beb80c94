"""What a training stage reports about its model: `candidates/<algorithm>/report.json`, read by select and track."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from app.contract import (
    Approximated,
    Decision,
    Explanation,
    Frozen,
    Interval,
    ModelFile,
    Partitioned,
    Score,
    Task,
)
from common import files
from training.base.errors import DataError
from training.sections.metrics import Metric

CANDIDATES = Path("candidates")
METRICS = Path("metrics")
PLOTS: dict[Task, tuple[str, ...]] = {
    "classification": ("confusion", "roc", "precision_recall", "calibration", "importance"),
    "regression": ("predicted", "residuals", "importance"),
}
"""Names of the CSV files under `candidates/<algorithm>/plots/`."""


class FoldScores(Frozen):
    folds: tuple[float, ...]
    mean: float
    std: float
    """Sample standard deviation over the folds."""


class ClassScores(Frozen):
    precision: float
    recall: float
    f1: float
    roc_auc: float
    """One class against the rest."""
    support: int


class Importance(Frozen):
    """Loss of the selection score on the test split when a feature's values are shuffled."""

    mean: float
    std: float


class Parity(Frozen):
    """Agreement of the ONNX file with the fitted estimator, checked in the stage."""

    data_rows: int
    generated_rows: int
    label_differences: int
    largest_difference: float
    """Of a probability, or of a value in standard deviations of the target."""


class Explained(Frozen):
    """The explanation of a model, and how it was checked: base and contributions add up to the estimator's score."""

    explanation: Explanation
    rows: int
    largest_difference: float
    """In the unit of the contributions."""


class SearchOutcome(Frozen):
    method: str
    candidates: int
    best: dict[str, Any]
    score: float
    """Mean inner score of the best candidate; flattering, so never used to compare algorithms."""


class Baseline(Frozen):
    """What an answer that ignores the features reaches, on the same folds and test rows."""

    name: str
    """majority, mean, or last value."""
    cv: dict[str, FoldScores]
    test: dict[str, Score]


class Slice(Frozen):
    """The rows of the test split with one value of a column."""

    rows: int
    test: dict[str, Score]


FEWEST_ROWS_OF_A_SLICE = 20
"""For the gate; the figures of a smaller one say nothing."""


class Report(Frozen):
    # Without a penalty, C is infinite; JSON has no number for it, and pydantic would write null.
    model_config = ConfigDict(ser_json_inf_nan="strings")

    algorithm: str
    parameters: dict[str, Any]
    """As configured, with what the search found in place, and the names of the model's own functions."""
    search: SearchOutcome | None
    score: Metric
    """The metric that selection goes by."""
    cv: dict[str, FoldScores]
    train: dict[str, Score]
    test: dict[str, Score]
    """With a bootstrap interval."""
    per_class: dict[str, ClassScores] = Field(default_factory=dict)
    """On the test split; empty for a regression, as the next."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Counts on the test split: row = actual class, column = predicted."""
    interval: Interval | None = None
    """Of a regression, as the next."""
    predicted: tuple[float, ...] = ()
    """Shares of the cross-validated predictions in the bins of the target."""
    decision: Decision | None = None
    """Of a classification, if the answer is not always the most probable class."""
    explained: Explained | None = None
    unexplained: str = ""
    """Why there is no explanation, if `explain` asks for one."""
    slices: dict[str, dict[str, Slice]] = Field(default_factory=dict)
    """By column, then by value."""
    baseline: Baseline
    importance: dict[str, Importance]
    samples: dict[str, int] = Field(default_factory=dict)
    """Figures that come from a random sample because there are too many rows, with its size."""
    model: ModelFile
    partitioned: Partitioned | None = Field(default=None, exclude_if=lambda value: value is None)
    """None if one process fitted the model."""
    approximated: Approximated | None = Field(default=None, exclude_if=lambda value: value is None)
    """None if the model is exactly what its algorithm is called."""
    complexity: int
    """How many numbers the ONNX graph holds: coefficients, thresholds, support vectors."""
    parity: Parity


def directory(algorithm: str) -> Path:
    return CANDIDATES / algorithm


def metrics_file(algorithm: str) -> Path:
    """The headline figures, in git; apart from `candidates/`, which as a whole is DVC's.

    A folder that is there in part is changed for DVC, not missing, and a clone without data could not tell
    whether its lock is current.
    """
    return METRICS / f"{algorithm}.json"


def write(report: Report) -> None:
    files.write_text(directory(report.algorithm) / "report.json", report.model_dump_json(indent=2) + "\n")


def read(algorithm: str) -> Report:
    path = directory(algorithm) / "report.json"
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot use {path}: {error}; run `dvc repro train@{algorithm}`") from None
