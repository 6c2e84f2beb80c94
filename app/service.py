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
from app.metrics import ModelMetrics
from app.predictor import Layout, Predictor
from app.schema import Rows, Schema

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
        labels, probabilities = self.run(rows)
        match shape:
            case "instance":
                answer = {**self._one(labels.item(), probabilities[0].tolist()), "model": self._model}
            case "instances":
                pairs = zip(labels.tolist(), probabilities.tolist(), strict=True)
                answer = {"predictions": [self._one(*pair) for pair in pairs], "model": self._model}
            case "columns":
                answer = self._columns(labels, probabilities)
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def run(self, rows: Rows) -> tuple[Labels, Probabilities]:
        """Class indices of shape (rows,) and probabilities of shape (rows, classes), counted.

        Raises:
            RequestError: 422, the model has no finite answer, as huge values can bring about.
        """
        labels, raw = self._predictor.predict(rows.numbers, rows.categories)
        probabilities = raw.astype(np.float64, copy=False)
        # One sum finds NaN and infinity wherever they are.
        if not math.isfinite(probabilities.sum()):
            row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
            raise RequestError(
                422,
                "unpredictable",
                f"row {row}: the model has no finite answer for these values",
                reason="unpredictable",
            )
        self.metrics.count(rows, labels, probabilities)
        return labels, probabilities

    def refuse(self, error: RequestError) -> bytes:
        """The body of an error, counted."""
        if error.reason is not None:
            self.metrics.reject(error.reason)
        return error.body()

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
