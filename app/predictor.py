"""Runs a model file: the one way in which training evaluates and the service answers.

The model takes at most two tensors, because ONNX cannot mix types in one: `numbers` (float64, NaN where
missing) and `categories` (strings, "" where missing), each with one column per feature of that type in
the order of the features. It answers `label` (int64, an index into the classes) and `probabilities`.
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
"""Rows run at once, times the size of the model. Where every row is held against everything in the file, as by a
support vector machine, the results between take the rows times a good part of the file."""
SMALLEST_BLOCK = 256
"""Rows that are always run at once: with fewer, a large forest would notice the calls."""
_ALIGNED = 64


class Predictor:
    """An ONNX classifier with its input layout.

    Threads are one by default: a service answers many small requests side by side, and onnxruntime's own
    thread pool halves its throughput.

    Attributes:
        layout: which feature is which column.
        classes: how many the model knows, None if the file does not say.
        predict_row: classifies one row of numbers and categories, as `predict` does, in half the time if
            there are only numbers; returns the class's index and the probabilities of all classes.
    """

    def __init__(self, model: bytes, layout: Layout, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime raises a dozen unrelated classes here; all mean that the file cannot be run.
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
        """Classify rows, many of them in blocks that bound the memory; the answers are the same bits.

        Args:
            numbers: shape (rows, number of numeric features), NaN where missing.
            categories: shape (rows, number of categorical features), "" where missing; None if there are none.

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
        # Of about one size, and cut where vector instructions begin: what is left over, and a single row, go through
        # other instructions, which round otherwise.
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
    """One row of numbers in memory that the session reads from and writes to, without any arrays made.

    onnxruntime lets other threads run while it works, hence the lock: the memory is one request's at a time.
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
