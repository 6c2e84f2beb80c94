"""What the service does with a request: a request body in, an answer out.

Connections, routes, the inference protocol and tests all use it, so validation, inference, counting and the shape of
answers have one implementation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from app.contract import Bundle, BundleError, Layout
from app.errors import RequestError
from app.http import JSON_HEADERS, NO_HEADERS, Answer, RequestHeaders, json_answer
from app.limits import RowLimits
from app.metrics import ModelMetrics
from app.predictor import Classifier
from app.schema import Row, Rows, Schema
from app.settings import Settings

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]

DEFAULT_ANSWER_BYTES: int = Settings.model_fields["max_answer_bytes"].default


class Prediction:
    """The rows of a request and their answers, recorded for the prediction log."""

    id: str | None = None
    time: float
    rows: Row | Rows
    labels: int | Labels
    probabilities: list[float] | Probabilities

    def __len__(self) -> int:
        return len(self.rows) if isinstance(self.rows, Rows) else 1

    def record(
        self, rows: Row | Rows, labels: int | Labels, probabilities: list[float] | Probabilities
    ) -> None:
        self.rows, self.labels, self.probabilities = rows, labels, probabilities


class Service:
    """A loaded bundle.

    Raises:
        BundleError: onnxruntime cannot run the model, or the model does not fit its manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        registry: CollectorRegistry,
        max_answer_bytes: int = DEFAULT_ANSWER_BYTES,
        *,
        ignore_unknown: bool = False,
    ) -> None:
        self.manifest = bundle.manifest
        self.limits = RowLimits(bundle.manifest, max_answer_bytes)
        self.schema = Schema(bundle.manifest, self.limits, ignore_unknown=ignore_unknown)
        self.metrics = ModelMetrics(bundle.manifest, registry)
        self._predictor = Classifier(bundle.model, Layout.of(bundle.manifest.features))
        self._classes = bundle.manifest.classes
        self._names = np.array(self._classes, dtype=object)
        if self._predictor.classes not in (None, len(self._classes)):
            raise BundleError(
                f"the model answers {self._predictor.classes} probabilities, but the bundle has "
                f"{len(self._classes)} classes"
            )
        self._model = {"name": self.manifest.name, "version": self.manifest.version}

    def predict(
        self, body: bytes, _: RequestHeaders = NO_HEADERS, prediction: Prediction | None = None
    ) -> Answer:
        """Answer the body of `/predict` in the shape of the request.

        Raises:
            RequestError: 422 that names each invalid field; 413 for too many rows.
        """
        shape, rows = self.schema.parse(body)
        if isinstance(rows, tuple):
            label, row_probabilities = self.run_row(rows)
            if prediction is not None:
                prediction.record(rows, label, row_probabilities)
            answer: dict[str, Any] = {
                "label": self._classes[label],
                "probabilities": dict(zip(self._classes, row_probabilities)),  # noqa: B905  checked at the start
                "model": self._model,
            }
            return orjson.dumps(answer), 200, JSON_HEADERS
        labels, probabilities = self.run(rows)
        if prediction is not None:
            prediction.record(rows, labels, probabilities)
        if shape == "columns":
            # orjson needs contiguous arrays, and the transpose's rows are the classes.
            by_class = np.ascontiguousarray(probabilities.T)
            answer = {
                "labels": self._names[labels].tolist(),
                "probabilities": dict(zip(self._classes, by_class, strict=True)),
            }
        else:
            answer = {"predictions": list(map(self._one, labels.tolist(), probabilities.tolist()))}
        answer["model"] = self._model
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), 200, JSON_HEADERS

    def run_row(self, row: Row) -> tuple[int, list[float]]:
        """The class's index and the probabilities of one row, counted; otherwise as `run`."""
        numbers, categories = row
        label, probabilities = self._predictor.predict_row(numbers, categories)
        if not math.isfinite(sum(probabilities)):
            raise _unpredictable(0)
        self.metrics.count_row((numbers, categories, label, max(probabilities)))
        return label, probabilities

    def run(self, rows: Rows) -> tuple[Labels, Probabilities]:
        """Class indices of shape (rows,) and probabilities of shape (rows, classes), counted.

        Raises:
            RequestError: 422, the model has no finite answer, which huge values can cause.
        """
        if len(rows) == 1:
            categories = () if rows.categories is None else rows.categories[0].tolist()
            label, row_probabilities = self.run_row((rows.numbers[0].tolist(), categories))
            return np.array([label]), np.array([row_probabilities])
        labels, raw = self._predictor.predict(rows.numbers, rows.categories)
        probabilities = raw.astype(np.float64, copy=False)
        # The sum is NaN or infinite if any value is.
        if not math.isfinite(probabilities.sum()):
            raise _unpredictable(int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0]))
        # numpy reduces whole columns ten times as fast as short rows.
        self.metrics.count(rows, labels, np.ascontiguousarray(probabilities.T).max(axis=0))
        return labels, probabilities

    def refuse(self, error: RequestError) -> Answer:
        """Count an error, and return it as an answer."""
        if error.reason is not None:
            self.metrics.reject(error.reason, error.details)
        body, status, headers = json_answer(error.body(), error.status)
        return body, status, headers + error.headers

    def _one(self, label: int, probabilities: list[float]) -> dict[str, Any]:
        classes = self._classes
        return {
            "label": classes[label],
            "probabilities": dict(zip(classes, probabilities)),  # noqa: B905  as above
        }


def _unpredictable(row: int) -> RequestError:
    return RequestError(
        422,
        "unpredictable",
        f"row {row}: the model has no finite answer for these values",
        reason="unpredictable",
    )
