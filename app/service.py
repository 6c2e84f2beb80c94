"""What the service does with a request: a request body in, an answer out.

Connections, routes, the inference protocol and tests all use it, so validation, inference, counting and the shape of
answers have one implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from app.answers import answers_of
from app.contract import Bundle
from app.errors import RequestError
from app.http import JSON_HEADERS, NO_HEADERS, Answer, RequestHeaders, json_answer
from app.limits import RowLimits
from app.metrics import ModelMetrics
from app.predictor import load
from app.schema import Row, Rows, Schema
from app.settings import Settings

DEFAULT_ANSWER_BYTES: int = Settings.model_fields["max_answer_bytes"].default


class Prediction:
    """The rows of a request and their answers, recorded for the prediction log."""

    id: str | None = None
    time: float
    rows: Row | Rows
    answers: Any
    """Of one row or of many, as `Answers` has them."""

    def __len__(self) -> int:
        return len(self.rows) if isinstance(self.rows, Rows) else 1

    def record(self, rows: Row | Rows, answers: Any) -> None:
        self.rows, self.answers = rows, answers


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
        self.answers = answers_of(bundle.manifest)
        self.limits = RowLimits(len(bundle.manifest.features), self.answers.sizes, max_answer_bytes)
        self.schema = Schema(bundle.manifest, self.limits, ignore_unknown=ignore_unknown)
        self.metrics = ModelMetrics(bundle.manifest, self.answers, registry)
        self._predictor = load(bundle)
        self.answers.check(self._predictor)
        self._as_object = self.answers.as_object
        self.run_row: Callable[[Row], Any]
        """The answer to one row, counted; otherwise as `run`."""
        self.run_row = self.answers.row_runner(self._predictor.predict_row, self.metrics.count_row)
        self._model = orjson.Fragment(
            orjson.dumps({"name": self.manifest.name, "version": self.manifest.version})
        )

    def predict(
        self, body: bytes, _: RequestHeaders = NO_HEADERS, prediction: Prediction | None = None
    ) -> Answer:
        """Answer the body of `/predict` in the shape of the request.

        Raises:
            RequestError: 422 that names each invalid field; 413 for too many rows.
        """
        shape, rows = self.schema.parse(body)
        if isinstance(rows, tuple):
            one = self.run_row(rows)
            if prediction is not None:
                prediction.record(rows, one)
            answer = self._as_object(one)
            answer["model"] = self._model
            return orjson.dumps(answer), 200, JSON_HEADERS
        many = self.run(rows)
        if prediction is not None:
            prediction.record(rows, many)
        if shape == "columns":
            answer = self.answers.as_columns(many)
        else:
            answer = {"predictions": list(map(self._as_object, self.answers.each(many)))}
        answer["model"] = self._model
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), 200, JSON_HEADERS

    def run(self, rows: Rows) -> Any:
        """The answers to rows, counted.

        Raises:
            RequestError: 422, the model has no finite answer, which huge values can cause.
        """
        if len(rows) == 1:
            categories = () if rows.categories is None else rows.categories[0].tolist()
            return self.answers.many(self.run_row((rows.numbers[0].tolist(), categories)))
        many = self.answers.converted(self._predictor.predict(rows.numbers, rows.categories))
        self.metrics.count(rows, *self.answers.observe(many))
        return many

    def refuse(self, error: RequestError) -> Answer:
        """Count an error, and return it as an answer."""
        if error.reason is not None:
            self.metrics.reject(error.reason, error.details)
        body, status, headers = json_answer(error.body(), error.status)
        return body, status, headers + error.headers
