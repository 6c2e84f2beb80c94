"""What the service does with a request, apart from HTTP: bytes in, bytes out.

Routes, the protocol and tests all come through here, so there is one implementation of validation,
inference, counting and the shape of answers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from app.contract import Bundle
from app.errors import RequestError
from app.http import Answer
from app.metrics import ModelMetrics, PredictedRow
from app.predictor import Layout, Predictor
from app.schema import Row, Rows, Schema

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


class Service:
    """A loaded bundle.

    Attributes:
        manifest: what is served.
        schema: what is accepted.
        metrics: what is counted.
    """

    def __init__(self, bundle: Bundle, registry: CollectorRegistry) -> None:
        """Load the model.

        Raises:
            BundleError: onnxruntime cannot run it, or it does not fit its manifest.
        """
        self.manifest = bundle.manifest
        self.schema = Schema(bundle.manifest)
        self.metrics = ModelMetrics(bundle.manifest, registry)
        self._predictor = Predictor(bundle.model, Layout.of(bundle.manifest.features))
        self._model = {"name": self.manifest.name, "version": self.manifest.version}

    def predict(self, body: bytes) -> bytes:
        """Answer the body of `/predict` in the shape in which it asks.

        Raises:
            RequestError: 422, with each field at fault.
        """
        shape, rows = self.schema.parse(body)
        if isinstance(rows, Row):
            answer = {**self._one(*self.run_row(rows)), "model": self._model}
            return orjson.dumps(answer)
        labels, probabilities = self.run(rows)
        if shape == "columns":
            answer = self._columns(labels, probabilities)
        else:
            pairs = zip(labels.tolist(), probabilities.tolist(), strict=True)
            answer = {"predictions": [self._one(*pair) for pair in pairs], "model": self._model}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def run_row(self, row: Row) -> tuple[int, list[float]]:
        """The class's index and the probabilities of one row, counted; otherwise as `run`."""
        label, probabilities = self._predictor.predict_row(*row)
        if not math.isfinite(sum(probabilities)):
            raise _unpredictable(0)
        self.metrics.count_row(PredictedRow(*row, label, max(probabilities)))
        return label, probabilities

    def run(self, rows: Rows) -> tuple[Labels, Probabilities]:
        """Class indices of shape (rows,) and probabilities of shape (rows, classes), counted.

        Raises:
            RequestError: 422, the model has no finite answer, as huge values can bring about.
        """
        labels, raw = self._predictor.predict(rows.numbers, rows.categories)
        probabilities = raw.astype(np.float64, copy=False)
        # One sum finds NaN and infinity wherever they are.
        if not math.isfinite(probabilities.sum()):
            raise _unpredictable(int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0]))
        self.metrics.count(rows, labels, probabilities.max(axis=1))
        return labels, probabilities

    def refuse(self, error: RequestError) -> Answer:
        """The answer that an error is, counted."""
        if error.reason is not None:
            self.metrics.reject(error.reason)
        return Answer(error.body(), error.status)

    def _one(self, label: int, probabilities: list[float]) -> dict[str, Any]:
        classes = self.manifest.classes
        return {
            "label": classes[label],
            "probabilities": dict(zip(classes, probabilities, strict=True)),
        }

    def _columns(self, labels: Labels, probabilities: Probabilities) -> dict[str, Any]:
        classes = self.manifest.classes
        # orjson wants contiguous arrays, and the transpose's rows are the classes.
        by_class = np.ascontiguousarray(probabilities.T)
        return {
            "labels": [classes[label] for label in labels.tolist()],
            "probabilities": dict(zip(classes, by_class, strict=True)),
            "model": self._model,
        }


def _unpredictable(row: int) -> RequestError:
    return RequestError(
        422,
        "unpredictable",
        f"row {row}: the model has no finite answer for these values",
        reason="unpredictable",
    )
