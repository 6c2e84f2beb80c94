"""What a model answers: classes with their probabilities, or values with their prediction intervals.

Everything that depends on the task is here. The service, the inference protocol, metrics, limits, the prediction log and
the documentation ask `answers_of(manifest)` and have no branches of their own.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from app.contract import Bin, BundleError, Manifest
from app.errors import RequestError
from app.limits import NUMBER_BYTES, Sizes
from app.predictor import LABEL, PROBABILITIES, VALUE, Classifier, Regressor
from app.schema import Row, object_of

INTERVAL = "interval"
SIGNED_BYTES = NUMBER_BYTES + 1

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

One = TypeVar("One")
Many = TypeVar("Many")

Measure = Literal["confidence", "value"]

PredictedRow = tuple[Sequence[float], Sequence[str], int, float]
"""Numbers, NaN if missing; categories, "" if missing; the bin and the measure of the answer."""


@dataclass(frozen=True)
class OutputTensor:
    """An output of the inference protocol."""

    name: str
    datatype: Literal["BYTES", "FP64"]
    width: int | None = None
    """Columns, if the tensor has two dimensions."""

    def shape(self, rows: int) -> list[int]:
        return [rows] if self.width is None else [rows, self.width]


class Answers(ABC, Generic[One, Many]):
    """The answers of the model that a manifest describes; `One` is the answer to a row, `Many` the answers to rows.

    Attributes:
        bins: what predictions are counted in, with the shares that are expected of them.
        measure: what the number of `observe` means.
        sizes: the most bytes that the answer to a row takes.
        tensors: the outputs of the inference protocol, in their usual order.
    """

    measure: Measure

    bins: tuple[Bin, ...]
    sizes: Sizes
    tensors: tuple[OutputTensor, ...]

    @abstractmethod
    def check(self, predictor: Classifier | Regressor) -> None:
        """Raise a BundleError if the model's outputs do not fit the manifest."""

    @abstractmethod
    def row_runner(
        self,
        predict_row: Callable[[Sequence[float], Sequence[str]], One],
        count_row: Callable[[PredictedRow], None],
    ) -> Callable[[Row], One]:
        """A function that predicts a row, observes the answer as `observe` does, and counts both.

        One function, because each further call would take a percent of the time of a row.
        """

    @abstractmethod
    def observe(self, many: Many) -> tuple[Indices, Floats]:
        """The index of each answer's bin, and its measure.

        Raises:
            RequestError: 422, an answer is not finite, which huge values in a request can cause.
        """

    @abstractmethod
    def converted(self, predicted: Any) -> Many:
        """The result of the predictor for several rows."""

    @abstractmethod
    def many(self, one: One) -> Many:
        """The answers to a single row."""

    @abstractmethod
    def label(self, one: One) -> int | None:
        """The index of the answer's class; None if there are no classes."""

    @abstractmethod
    def labels(self, many: Many) -> Indices | None:
        """The index of each answer's class; None if there are no classes."""

    @abstractmethod
    def each(self, many: Many, rows: slice = slice(None)) -> Iterable[One]:
        """The answers to these rows one by one."""

    @abstractmethod
    def as_object(self, one: One) -> dict[str, Any]:
        """The answer to a row in JSON, and its fields in the prediction log."""

    @abstractmethod
    def as_columns(self, many: Many) -> dict[str, Any]:
        """The answer to a request of columns."""

    @abstractmethod
    def tensor(self, name: str, many: Many) -> NDArray[Any]:
        """The values of an output of the inference protocol; strings are objects."""

    @abstractmethod
    def object_fields(self) -> dict[str, Any]:
        """The types of `as_object`."""

    @abstractmethod
    def column_fields(self) -> dict[str, Any]:
        """The types of `as_columns`."""

    @abstractmethod
    def description(self) -> str:
        """The target, for a sentence that begins with "Predicts"; in Markdown."""


class Classes(Answers[tuple[int, list[float]], tuple[Indices, Floats]]):
    """Classes with their probabilities: the class's index, and the probabilities in the order of the classes."""

    measure = "confidence"

    def __init__(self, manifest: Manifest) -> None:
        self._target = manifest.target
        self._classes = manifest.classes
        self._decision = manifest.decision
        self._names = np.array(manifest.classes, dtype=object)
        shares = zip(manifest.classes, manifest.class_shares, strict=True)
        self.bins = tuple(Bin(label=name, share=share) for name, share in shares)
        width = len(manifest.classes)
        self.tensors = (OutputTensor(LABEL, "BYTES"), OutputTensor(PROBABILITIES, "FP64", width))
        names = [len(orjson.dumps(name)) for name in manifest.classes]
        probabilities = NUMBER_BYTES * width
        self.sizes = Sizes(
            numbers=width,
            instance=len('{"label":,"probabilities":{}},') + max(names) + sum(names) + width + probabilities,
            columns=max(names) + 1 + probabilities,
            tensors={
                (LABEL, False): max(names) + 1,
                (LABEL, True): struct.calcsize("I") + max(len(name.encode()) for name in manifest.classes),
                (PROBABILITIES, False): probabilities,
                (PROBABILITIES, True): 8 * width,
            },
        )

    def check(self, predictor: Classifier | Regressor) -> None:
        assert isinstance(predictor, Classifier)  # noqa: S101  `load` chooses by the same manifest
        if predictor.classes not in (None, len(self._classes)):
            raise BundleError(
                f"the model answers {predictor.classes} probabilities, but the bundle has "
                f"{len(self._classes)} classes"
            )

    def row_runner(
        self,
        predict_row: Callable[[Sequence[float], Sequence[str]], tuple[int, list[float]]],
        count_row: Callable[[PredictedRow], None],
    ) -> Callable[[Row], tuple[int, list[float]]]:
        def run_row(row: Row) -> tuple[int, list[float]]:
            numbers, categories, _ = row
            label, probabilities = one = predict_row(numbers, categories)
            # The sum is NaN or infinite if any value is.
            if not isfinite(sum(probabilities)):
                raise unpredictable(0)
            count_row((numbers, categories, label, max(probabilities)))
            return one

        return run_row

    def observe(self, many: tuple[Indices, Floats]) -> tuple[Indices, Floats]:
        labels, probabilities = many
        if not isfinite(probabilities.sum()):
            raise unpredictable(int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0]))
        # numpy reduces whole columns ten times as fast as short rows.
        return labels, np.ascontiguousarray(probabilities.T).max(axis=0)

    def converted(self, predicted: tuple[Indices, NDArray[np.floating[Any]]]) -> tuple[Indices, Floats]:
        labels, probabilities = predicted
        return labels, probabilities.astype(np.float64, copy=False)

    def many(self, one: tuple[int, list[float]]) -> tuple[Indices, Floats]:
        label, probabilities = one
        return np.array([label]), np.array([probabilities])

    def label(self, one: tuple[int, list[float]]) -> int:
        return one[0]

    def labels(self, many: tuple[Indices, Floats]) -> Indices:
        return many[0]

    def each(
        self, many: tuple[Indices, Floats], rows: slice = slice(None)
    ) -> Iterable[tuple[int, list[float]]]:
        labels, probabilities = many
        return zip(labels[rows].tolist(), probabilities[rows].tolist(), strict=True)

    def as_object(self, one: tuple[int, list[float]]) -> dict[str, Any]:
        label, probabilities = one
        classes = self._classes
        return {
            "label": classes[label],
            "probabilities": dict(zip(classes, probabilities)),  # noqa: B905  checked at the start
        }

    def as_columns(self, many: tuple[Indices, Floats]) -> dict[str, Any]:
        labels, probabilities = many
        # orjson needs contiguous arrays, and the transpose's rows are the classes.
        by_class = np.ascontiguousarray(probabilities.T)
        return {
            "labels": self._names[labels].tolist(),
            "probabilities": dict(zip(self._classes, by_class, strict=True)),
        }

    def tensor(self, name: str, many: tuple[Indices, Floats]) -> NDArray[Any]:
        labels, probabilities = many
        return self._names[labels] if name == LABEL else probabilities

    def object_fields(self) -> dict[str, Any]:
        return {"label": self._label, "probabilities": self._by_class("Probabilities", float)}

    def column_fields(self) -> dict[str, Any]:
        lists: Any = list[float]
        return {
            "labels": _list_of(self._label),
            "probabilities": self._by_class("ProbabilitiesByClass", lists),
        }

    def description(self) -> str:
        return f"**{self._target}** ({', '.join(self._classes)})"

    @property
    def _label(self) -> Any:
        decision = self._decision
        if decision is None:
            about = "The most likely class."
        elif decision.cost is not None:
            about = "The class with the lowest expected cost."
        else:
            about = f"{decision.positive} from a probability of {decision.threshold:g}, otherwise the other class."
        return Annotated[Literal[self._classes], Field(description=about)]

    def _by_class(self, name: str, of_class: Any) -> Any:
        return object_of(name, dict.fromkeys(self._classes, of_class))


class Values(Answers[float, Floats]):
    """Values with their prediction intervals."""

    measure = "value"

    tensors = (OutputTensor(VALUE, "FP64"), OutputTensor(INTERVAL, "FP64", 2))
    sizes = Sizes(
        numbers=3,
        instance=len('{"value":,"interval":[]},') + 3 * SIGNED_BYTES,
        columns=len("[],") + 3 * SIGNED_BYTES,
        tensors={
            (VALUE, False): SIGNED_BYTES,
            (VALUE, True): 8,
            (INTERVAL, False): 2 * SIGNED_BYTES,
            (INTERVAL, True): 2 * 8,
        },
    )

    def __init__(self, manifest: Manifest) -> None:
        assert manifest.value is not None  # noqa: S101  for mypy: it is a regression's manifest
        assert manifest.interval is not None  # noqa: S101  as above
        self._target, self._interval = manifest.value, manifest.interval
        self._margin = manifest.interval.margin
        self._edges = manifest.value.edges
        bins = manifest.value.bins[: len(self._edges) + 1]
        shares = manifest.predicted or [each.share for each in bins]
        self.bins = tuple(
            Bin(label=each.label, share=share) for each, share in zip(bins, shares, strict=True)
        )

    def check(self, predictor: Classifier | Regressor) -> None:
        assert isinstance(predictor, Regressor)  # noqa: S101  `load` chooses by the same manifest

    def row_runner(
        self,
        predict_row: Callable[[Sequence[float], Sequence[str]], float],
        count_row: Callable[[PredictedRow], None],
    ) -> Callable[[Row], float]:
        edges, margin = self._edges, self._margin

        def run_row(row: Row) -> float:
            numbers, categories, _ = row
            value = predict_row(numbers, categories)
            # The ends of the interval must be finite too.
            if not isfinite(abs(value) + margin):
                raise unpredictable(0)
            count_row((numbers, categories, bisect_right(edges, value), value))
            return value

        return run_row

    def observe(self, many: Floats) -> tuple[Indices, Floats]:
        finite = np.isfinite(np.abs(many) + self._margin)
        if not finite.all():
            raise unpredictable(int(finite.argmin()))
        return np.searchsorted(np.array(self._edges), many, side="right"), many

    def converted(self, predicted: Floats) -> Floats:
        return predicted

    def many(self, one: float) -> Floats:
        return np.array([one])

    def label(self, _: float) -> None:
        return None

    def labels(self, _: Floats) -> None:
        return None

    def each(self, many: Floats, rows: slice = slice(None)) -> Iterable[float]:
        values: list[float] = many[rows].tolist()
        return values

    def as_object(self, one: float) -> dict[str, Any]:
        return {"value": one, "interval": [one - self._margin, one + self._margin]}

    def as_columns(self, many: Floats) -> dict[str, Any]:
        return {"values": np.ascontiguousarray(many), "intervals": self._intervals(many)}

    def tensor(self, name: str, many: Floats) -> NDArray[Any]:
        return many if name == VALUE else self._intervals(many)

    def object_fields(self) -> dict[str, Any]:
        return {"value": self._value, "interval": self._pair}

    def column_fields(self) -> dict[str, Any]:
        return {"values": _list_of(self._value), "intervals": _list_of(self._pair)}

    def description(self) -> str:
        unit = f" in {self._target.unit}" if self._target.unit else ""
        return f"**{self._target.name}**{unit}, with {self._level} intervals,"

    @property
    def _value(self) -> Any:
        unit = self._target.unit
        return Annotated[
            float,
            Field(
                description=self._target.description or self._target.name,
                json_schema_extra={"x-unit": unit} if unit else None,
            ),
        ]

    @property
    def _pair(self) -> Any:
        about = f"Low and high end of the {self._level} prediction interval."
        return Annotated[list[float], Field(min_length=2, max_length=2, description=about)]

    @property
    def _level(self) -> str:
        return f"{100 * self._interval.level:g} %"

    def _intervals(self, many: Floats) -> Floats:
        return np.stack((many - self._margin, many + self._margin), axis=1)


def answers_of(manifest: Manifest) -> Answers[Any, Any]:
    return Classes(manifest) if manifest.task == "classification" else Values(manifest)


def _list_of(item: Any) -> Any:
    return list[item]


def unpredictable(row: int) -> RequestError:
    return RequestError(
        422,
        "unpredictable",
        f"row {row}: the model has no finite answer for these values",
        reason="unpredictable",
    )
