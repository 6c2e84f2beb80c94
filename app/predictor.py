"""Runs a model file, both for training's evaluation and for the service.

The model has at most two inputs, because a tensor has one type: `numbers` (float64, NaN if missing) and `categories`
(strings, "" if missing). Each has one column per feature of its type, in the order of the features. The outputs are
`label` (int64, an index into the classes) and `probabilities`.
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

from app.contract import BundleError, Layout

NUMBERS = "numbers"
CATEGORIES = "categories"
LABEL = "label"
PROBABILITIES = "probabilities"

_OUTPUTS = [LABEL, PROBABILITIES]
BLOCK_BYTES = 64 * 2**20
"""The rows of a block times the size of the model. A support vector machine compares every row with most of the file, and
its intermediate results take that much memory."""
SMALLEST_BLOCK = 256
"""The minimum rows of a block: with fewer, the calls would slow down a large forest."""
_ALIGNED = 64


class Predictor:
    """An ONNX classifier with its input layout.

    It uses one thread by default: a service answers many small requests concurrently, and onnxruntime's thread pool would
    halve its throughput.

    Attributes:
        layout: maps features to columns.
        classes: the number of classes; None if the file does not say.
        predict_row: classifies one row of numbers and categories like `predict`, in half the time if there are only
            numbers; returns the class's index and the probabilities of all classes.
    """

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
        self._block = max(SMALLEST_BLOCK, BLOCK_BYTES // len(model))
        self._check_inputs()
        outputs = {each.name: each for each in self._session.get_outputs()}
        width = outputs[PROBABILITIES].shape[-1]
        self.classes: int | None = width if isinstance(width, int) else None
        self.predict_row: Callable[[Sequence[float], Sequence[str]], tuple[int, list[float]]]
        self.predict_row = self._predict_row
        if self.classes is not None and not layout.categories:
            single = outputs[PROBABILITIES].type == "tensor(float)"
            row = _BoundRow(self._session, len(layout.numbers), self.classes, single=single)
            self.predict_row = row.predict

    def predict(
        self, numbers: NDArray[np.float64], categories: NDArray[np.object_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """Classify rows, in blocks to limit memory; the blocks do not change a bit of the results.

        Args:
            numbers: shape (rows, number of numeric features), NaN if missing.
            categories: shape (rows, number of categorical features), "" if missing; None if there are none.

        Returns:
            Class indices of shape (rows,) and probabilities of shape (rows, classes).
        """
        feed: dict[str, Any] = {}
        if self.layout.numbers:
            feed[NUMBERS] = numbers
        if self.layout.categories:
            feed[CATEGORIES] = categories
        if len(numbers) <= self._block:
            label, probabilities = self._session.run(_OUTPUTS, feed)
            return label, probabilities
        # The blocks have similar sizes and start at a multiple of the vector size: the rows after the last multiple, and
        # single rows, are computed by other instructions, which round differently.
        count = -(-len(numbers) // self._block)
        edges = [len(numbers) * each // count // _ALIGNED * _ALIGNED for each in range(count)] + [
            len(numbers)
        ]
        parts = [
            self._session.run(_OUTPUTS, {name: values[start:stop] for name, values in feed.items()})
            for start, stop in itertools.pairwise(edges)
        ]
        labels, shares = zip(*parts, strict=True)
        return np.concatenate(labels), np.concatenate(shares)

    def _predict_row(self, numbers: Sequence[float], categories: Sequence[str]) -> tuple[int, list[float]]:
        label, probabilities = self.predict(np.array([numbers]), np.array([categories], dtype=object))
        return label.item(), probabilities[0].tolist()

    def _check_inputs(self) -> None:
        expected = {}
        if self.layout.numbers:
            expected[NUMBERS] = ("tensor(double)", len(self.layout.numbers))
        if self.layout.categories:
            expected[CATEGORIES] = ("tensor(string)", len(self.layout.categories))
        actual = {each.name: (each.type, each.shape[-1]) for each in self._session.get_inputs()}
        if actual != expected:
            raise BundleError(f"the model takes {actual}, but the features of the bundle make {expected}")
        outputs = {each.name for each in self._session.get_outputs()}
        if not {LABEL, PROBABILITIES} <= outputs:
            raise BundleError(f"the model answers {sorted(outputs)}; {LABEL} and {PROBABILITIES} are needed")


class _BoundRow:
    """One row of numbers in memory that the session reads and writes directly, without new arrays.

    onnxruntime releases the GIL while it runs, so a lock gives the memory to one request at a time.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, width: int, classes: int, *, single: bool
    ) -> None:
        kind = np.float32 if single else np.float64
        row = np.zeros(width)
        self._numbers = row.data
        self._label = np.zeros(1, dtype=np.int64)
        self._probabilities = np.zeros(classes, dtype=kind)
        self._fill = struct.Struct(f"={width}d").pack_into
        self._session = session
        self._lock = Lock()
        self._binding = binding = session.io_binding()
        binding.bind_input(NUMBERS, "cpu", 0, np.float64, (1, width), row.ctypes.data)
        binding.bind_output(LABEL, "cpu", 0, np.int64, (1,), self._label.ctypes.data)
        binding.bind_output(PROBABILITIES, "cpu", 0, kind, (1, classes), self._probabilities.ctypes.data)

    def predict(self, numbers: Sequence[float], _: Sequence[str]) -> tuple[int, list[float]]:
        with self._lock:
            self._fill(self._numbers, 0, *numbers)
            self._session.run_with_iobinding(self._binding)
            return self._label.item(), self._probabilities.tolist()
