"""Runs a model file, both for training's evaluation and for the service.

The model has at most two inputs, because a tensor has one type: `numbers` (float64, NaN if missing) and `categories`
(strings, "" if missing). Each has one column per feature of its type, in the order of the features. The outputs of a
classifier are `label` (int64, an index into the classes) and `probabilities`; a regressor has one output `value`. A file
that explains a model has the same inputs and the output `contributions`.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.contract import Bundle, BundleError, Layout

NUMBERS = "numbers"
CATEGORIES = "categories"
LABEL = "label"
PROBABILITIES = "probabilities"
VALUE = "value"
CONTRIBUTIONS = "contributions"

BLOCK_BYTES = 64 * 2**20
"""The rows of a block times the size of the model. A support vector machine compares every row with most of the file, and
its intermediate results take that much memory."""
SMALLEST_BLOCK = 256
"""The minimum rows of a block: with fewer, the calls would slow down a large forest."""
_ALIGNED = 64


class Predictor:
    """An ONNX model with its input layout.

    It uses one thread by default: a service answers many small requests concurrently, and onnxruntime's thread pool would
    halve its throughput.

    Attributes:
        layout: maps features to columns.
    """

    outputs: tuple[str, ...]
    """The names of the outputs, in the order of `run`'s result."""
    _aligned = _ALIGNED

    def __init__(self, model: bytes, layout: Layout, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime raises a dozen unrelated classes here; all mean that the model cannot run.
            raise BundleError(f"onnxruntime cannot load the model: {str(error).splitlines()[0]}") from error
        self.layout = layout
        self._block = self._rows_at_once(len(model))
        self._check_ends()

    def run(
        self, numbers: NDArray[np.float64], categories: NDArray[np.object_] | None = None
    ) -> list[NDArray[Any]]:
        """Compute the outputs of rows, in blocks to limit memory; the blocks do not change a bit of the results.

        Args:
            numbers: shape (rows, number of numeric features), NaN if missing.
            categories: shape (rows, number of categorical features), "" if missing; None if there are none.
        """
        feed: dict[str, Any] = {}
        if self.layout.numbers:
            feed[NUMBERS] = numbers
        if self.layout.categories:
            feed[CATEGORIES] = categories
        if len(numbers) <= self._block:
            whole: list[NDArray[Any]] = self._session.run(self.outputs, feed)
            return whole
        # The blocks have similar sizes and start at a multiple of the vector size: the rows after the last multiple, and
        # single rows, are computed by other instructions, which round differently.
        count = -(-len(numbers) // self._block)
        edges = [len(numbers) * each // count // self._aligned * self._aligned for each in range(count)] + [
            len(numbers)
        ]
        parts = [
            self._session.run(self.outputs, {name: values[start:stop] for name, values in feed.items()})
            for start, stop in itertools.pairwise(edges)
        ]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _rows_at_once(self, size: int) -> int:
        """How many rows are computed at once by a model of this size."""
        return max(SMALLEST_BLOCK, BLOCK_BYTES // size)

    def _check_ends(self) -> None:
        expected = {}
        if self.layout.numbers:
            expected[NUMBERS] = ("tensor(double)", len(self.layout.numbers))
        if self.layout.categories:
            expected[CATEGORIES] = ("tensor(string)", len(self.layout.categories))
        actual = {each.name: (each.type, each.shape[-1]) for each in self._session.get_inputs()}
        if actual != expected:
            raise BundleError(f"the model takes {actual}, but the features of the bundle make {expected}")
        outputs = {each.name for each in self._session.get_outputs()}
        if not outputs.issuperset(self.outputs):
            raise BundleError(f"the model answers {sorted(outputs)}; {' and '.join(self.outputs)} are needed")

    def _output(self, name: str) -> tuple[Any, bool]:
        """The width of an output, None if the file does not say, and whether its numbers are float32."""
        (found,) = (each for each in self._session.get_outputs() if each.name == name)
        width = found.shape[-1]
        return width if isinstance(width, int) else None, found.type == "tensor(float)"


class Classifier(Predictor):
    """A model that answers classes and their probabilities.

    Attributes:
        classes: the number of classes; None if the file does not say.
        predict_row: classifies one row of numbers and categories like `predict`, in half the time if there are only
            numbers; returns the class's index and the probabilities of all classes.
    """

    outputs = (LABEL, PROBABILITIES)

    def __init__(self, model: bytes, layout: Layout, *, threads: int = 1) -> None:
        super().__init__(model, layout, threads=threads)
        self.classes: int | None
        self.classes, single = self._output(PROBABILITIES)
        self.predict_row: Callable[[Sequence[float], Sequence[str]], tuple[int, list[float]]]
        self.predict_row = self._predict_row
        if self.classes is not None and not layout.categories:
            row = _ClassifiedRow(self._session, len(layout.numbers))
            row.bind(LABEL, np.zeros(1, dtype=np.int64))
            row.bind(PROBABILITIES, np.zeros((1, self.classes), dtype=np.float32 if single else np.float64))
            self.predict_row = row.predict

    def predict(
        self, numbers: NDArray[np.float64], categories: NDArray[np.object_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """Classify rows, which have the shapes of `run`.

        Returns:
            Class indices of shape (rows,) and probabilities of shape (rows, classes).
        """
        label, probabilities = self.run(numbers, categories)
        return label, probabilities

    def _predict_row(self, numbers: Sequence[float], categories: Sequence[str]) -> tuple[int, list[float]]:
        label, probabilities = self.predict(np.array([numbers]), np.array([categories], dtype=object))
        return label.item(), probabilities[0].tolist()


class Regressor(Predictor):
    """A model that answers a number.

    Attributes:
        predict_row: the value of one row of numbers and categories, faster than `predict` if there are only numbers.
    """

    outputs = (VALUE,)

    def __init__(self, model: bytes, layout: Layout, *, threads: int = 1) -> None:
        super().__init__(model, layout, threads=threads)
        width, single = self._output(VALUE)
        if width != 1:
            raise BundleError(f"the model's output {VALUE} has {width} columns; a regression has one")
        self.predict_row: Callable[[Sequence[float], Sequence[str]], float] = self._predict_row
        if not layout.categories:
            row = _ValuedRow(self._session, len(layout.numbers))
            row.bind(VALUE, np.zeros((1, 1), dtype=np.float32 if single else np.float64))
            self.predict_row = row.predict

    def predict(
        self, numbers: NDArray[np.float64], categories: NDArray[np.object_] | None = None
    ) -> NDArray[np.float64]:
        """Values of shape (rows,) of rows, which have the shapes of `run`."""
        (value,) = self.run(numbers, categories)
        return value[:, 0].astype(np.float64, copy=False)

    def _predict_row(self, numbers: Sequence[float], categories: Sequence[str]) -> float:
        return float(self.predict(np.array([numbers]), np.array([categories], dtype=object))[0])


class Explainer(Predictor):
    """A file that says what each feature adds to a model's score."""

    outputs = (CONTRIBUTIONS,)
    _aligned = 1  # blocks may be smaller than a vector

    def explain(
        self, numbers: NDArray[np.float64], categories: NDArray[np.object_] | None = None
    ) -> NDArray[np.float64]:
        """Contributions of shape (rows, features, outputs) of rows, which have the shapes of `run`."""
        (contributions,) = self.run(numbers, categories)
        return contributions

    def check(self, features: int, outputs: int) -> None:
        """Raise a BundleError if the contributions are not of so many features and outputs."""
        (found,) = self._session.get_outputs()
        if found.shape[1:] != [features, outputs]:
            raise BundleError(
                f"the explanation has the shape {found.shape[1:]}, but the bundle has {features} features and "
                f"{outputs} scores"
            )

    def _rows_at_once(self, size: int) -> int:
        # The intermediate results of a row take about as much as the file.
        return max(1, BLOCK_BYTES // (2 * size))


def load(bundle: Bundle) -> Classifier | Regressor:
    """The model of a bundle.

    Raises:
        BundleError: onnxruntime cannot run it, or it does not fit its manifest.
    """
    kind = Classifier if bundle.manifest.task == "classification" else Regressor
    return kind(bundle.model, Layout.of(bundle.manifest.features))


class _BoundRow:
    """One row of numbers in memory that the session reads and writes directly, without new arrays.

    onnxruntime releases the GIL while it runs, so a lock gives the memory to one request at a time.
    """

    def __init__(self, session: onnxruntime.InferenceSession, width: int) -> None:
        row = np.zeros(width)
        self._numbers = row.data
        self._fill = struct.Struct(f"={width}d").pack_into
        self._session = session
        self._lock = Lock()
        self._outputs: list[NDArray[Any]] = []
        self._binding = session.io_binding()
        self._binding.bind_input(NUMBERS, "cpu", 0, np.float64, (1, width), row.ctypes.data)

    def bind(self, name: str, output: NDArray[Any]) -> None:
        """Let the session write an output into an array of its shape."""
        self._binding.bind_output(name, "cpu", 0, output.dtype, output.shape, output.ctypes.data)
        self._outputs.append(output)


class _ClassifiedRow(_BoundRow):
    def predict(self, numbers: Sequence[float], _: Sequence[str]) -> tuple[int, list[float]]:
        with self._lock:
            self._fill(self._numbers, 0, *numbers)
            self._session.run_with_iobinding(self._binding)
            label, probabilities = self._outputs
            return label.item(), probabilities[0].tolist()


class _ValuedRow(_BoundRow):
    def predict(self, numbers: Sequence[float], _: Sequence[str]) -> float:
        with self._lock:
            self._fill(self._numbers, 0, *numbers)
            self._session.run_with_iobinding(self._binding)
            return float(self._outputs[0].item())
