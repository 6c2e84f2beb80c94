"""How right were the predictions whose truth became known? The live figures of a classification and of a regression."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Gauge

from app.contract import Manifest

ACCURACY = "model_live_accuracy_ratio"
RECALL = "model_live_recall_ratio"
ABSOLUTE_ERROR = "model_live_mean_absolute_error"
SQUARED_ERROR = "model_live_root_mean_squared_error"
COVERAGE = "model_live_interval_coverage_ratio"

_Z = 1.959963984540054
"""95 % of a normal distribution lie within so many standard deviations."""

T = TypeVar("T", str, float)


@dataclass(frozen=True)
class Logged(Generic[T]):
    """A line of the log."""

    time: str
    """As in the log, where the order of texts is the order of times; empty if the log has none."""
    version: str
    answer: T
    features: Mapping[str, Any]
    interval: tuple[float, float] | None = None
    """Of a regression, if the log has it."""


Pairs = Sequence[tuple[Logged[T], T]]
"""Lines of the log with the truth."""


class Figures(ABC):
    """The figures of some rows."""

    @abstractmethod
    def cells(self) -> list[str]:
        """For the table's columns."""


@dataclass(frozen=True)
class Accuracy(Figures):
    right: int
    rows: int
    recall: Mapping[str, tuple[int, int]]
    """By class that occurred: the number of its rows that were recognised, and of all its rows."""

    @property
    def share(self) -> float:
        return self.right / self.rows

    def cells(self) -> list[str]:
        recall = (f"{name} {hit / number:.1%} of {number}" for name, (hit, number) in self.recall.items())
        return [_share(self.right, self.rows), "\n".join(recall)]


@dataclass(frozen=True)
class Errors(Figures):
    absolute: float
    """The mean of the absolute errors."""
    squared: float
    """The root of the mean of the squared errors."""
    covered: int
    """Rows whose truth is within the interval."""
    intervals: int
    """Rows whose interval is in the log."""
    unit: str | None = None

    def cells(self) -> list[str]:
        errors = [f"{each:.4g} {self.unit or ''}".rstrip() for each in (self.absolute, self.squared)]
        return [*errors, _share(self.covered, self.intervals) if self.intervals else "not in the log"]


class Scoring(ABC, Generic[T]):
    """What depends on the model's task.

    Attributes:
        column: of the truth and, as the prediction, of the log.
        type: of the column in Arrow.
        heads: of the columns of `Figures.cells`.
        refusal: what is said of values that are not `known`.
    """

    column: str
    type: str
    heads: tuple[str, ...]
    refusal: str

    @abstractmethod
    def prediction(self, logged: Any) -> T:
        """The prediction in a line of the log; raises TypeError or ValueError if it is not one."""

    @abstractmethod
    def known(self, truth: T) -> bool:
        """Whether this can be the truth."""

    @abstractmethod
    def score(self, pairs: Pairs[T]) -> Figures:
        """The figures of one row or more."""

    @abstractmethod
    def gauges(
        self, registry: CollectorRegistry, by: Sequence[str]
    ) -> Callable[[Mapping[str, str], Any], None]:
        """Register gauges with these labels; returns a function that sets them to the figures of one combination."""


class Classes(Scoring[str]):
    column = "label"
    type = "string"
    heads = ("accuracy (95 % interval)", "recall by class")
    refusal = "labels are no class of the model and do not count"

    def __init__(self, manifest: Manifest) -> None:
        self._classes = frozenset(manifest.classes)

    def prediction(self, logged: Any) -> str:
        return str(logged)

    def known(self, truth: str) -> bool:
        return truth in self._classes

    def score(self, pairs: Pairs[str]) -> Accuracy:
        support = Counter(truth for _, truth in pairs)
        hits = Counter(truth for logged, truth in pairs if logged.answer == truth)
        recall = {name: (hits[name], number) for name, number in sorted(support.items())}
        return Accuracy(hits.total(), len(pairs), recall)

    def gauges(
        self, registry: CollectorRegistry, by: Sequence[str]
    ) -> Callable[[Mapping[str, str], Accuracy], None]:
        accuracy = Gauge(
            ACCURACY, "Share of the labelled rows that were predicted right.", by, registry=registry
        )
        about = "Share of the labelled rows of a class that were recognised."
        recall = Gauge(RECALL, about, [*by, "class"], registry=registry)

        def show(labels: Mapping[str, str], figures: Accuracy) -> None:
            accuracy.labels(**labels).set(figures.share)
            for name, (hits, number) in figures.recall.items():
                recall.labels(**labels, **{"class": name}).set(hits / number)

        return show


class Values(Scoring[float]):
    column = "value"
    type = "float64"
    heads = ("mean absolute error", "root mean squared error", "truth in interval (95 % interval)")
    refusal = "values are not finite and do not count"

    def __init__(self, manifest: Manifest) -> None:
        self._unit = manifest.value.unit if manifest.value else None

    def prediction(self, logged: Any) -> float:
        return float(logged)

    def known(self, truth: float) -> bool:
        return math.isfinite(truth)

    def score(self, pairs: Pairs[float]) -> Errors:
        errors = [logged.answer - truth for logged, truth in pairs]
        within = [
            logged.interval[0] <= truth <= logged.interval[1] for logged, truth in pairs if logged.interval
        ]
        return Errors(
            absolute=math.fsum(map(abs, errors)) / len(errors),
            squared=math.sqrt(math.fsum(each * each for each in errors) / len(errors)),
            covered=sum(within),
            intervals=len(within),
            unit=self._unit,
        )

    def gauges(
        self, registry: CollectorRegistry, by: Sequence[str]
    ) -> Callable[[Mapping[str, str], Errors], None]:
        absolute = Gauge(ABSOLUTE_ERROR, "Mean absolute error of the labelled rows.", by, registry=registry)
        about = "Root mean squared error of the labelled rows."
        squared = Gauge(SQUARED_ERROR, about, by, registry=registry)
        about = "Share of the labelled rows whose truth is within the prediction interval."
        coverage = Gauge(COVERAGE, about, by, registry=registry)

        def show(labels: Mapping[str, str], figures: Errors) -> None:
            absolute.labels(**labels).set(figures.absolute)
            squared.labels(**labels).set(figures.squared)
            if figures.intervals:
                coverage.labels(**labels).set(figures.covered / figures.intervals)

        return show


def scoring_of(manifest: Manifest) -> Scoring[Any]:
    return Classes(manifest) if manifest.task == "classification" else Values(manifest)


def wilson(right: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, which also holds for few rows and for shares of 0 and 1."""
    share, z2 = right / number, _Z * _Z
    middle = share + z2 / (2 * number)
    half = _Z * math.sqrt(share * (1 - share) / number + z2 / (4 * number * number))
    scale = 1 + z2 / number
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _share(right: int, number: int) -> str:
    low, high = wilson(right, number)
    return f"{right / number:.1%} ({low:.1%} to {high:.1%})"
