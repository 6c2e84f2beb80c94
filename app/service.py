"""What the service does with a request: a request body in, an answer out.

Connections, routes, the inference protocol and tests all use it, so validation, inference, counting and the shape of
answers have one implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from app.answers import OutputTensor, PredictedRow, answers_of
from app.contract import Bundle, columns_of
from app.errors import Detail, Reason, RequestError
from app.explanations import Explanations
from app.http import JSON_HEADERS, NO_HEADERS, Answer, RequestHeaders, json_answer
from app.limits import RowLimits
from app.predictor import load
from app.schema import EXPLAIN, Row, Rows, Schema, Shape, ToExplain
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


class RecordedOperation(Protocol):
    """An operation that can record what it predicts."""

    def __call__(
        self, body: bytes, headers: RequestHeaders, prediction: Prediction | None = None, /
    ) -> Answer: ...


class Counts(Protocol):
    """What counts the service's work: the metrics, or what another process adds to them."""

    def count_row(self, row: PredictedRow, /) -> None: ...

    def count(self, rows: Rows, indices: NDArray[np.int64], measures: NDArray[np.float64]) -> None: ...

    def count_explained(self, rows: int) -> None: ...

    def reject(self, reason: Reason, details: Collection[Detail] = ()) -> None: ...


class Service:
    """A loaded bundle.

    Args:
        bundle: what is served.
        counts: what counts predictions and refusals.
        max_answer_bytes: limit of an answer.
        ignore_unknown: whether fields that are not features are ignored.

    Raises:
        BundleError: onnxruntime cannot run the model, or the model does not fit its manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        counts: Counts,
        max_answer_bytes: int = DEFAULT_ANSWER_BYTES,
        *,
        ignore_unknown: bool = False,
    ) -> None:
        self.manifest = bundle.manifest
        self.answers = answers_of(bundle.manifest)
        columns = sum(len(columns_of(each)) for each in bundle.manifest.features)
        self.limits = RowLimits(columns, self.answers.sizes, max_answer_bytes)
        self.schema = Schema(bundle.manifest, self.limits, ignore_unknown=ignore_unknown)
        self._counts = counts
        self.explanations = (
            Explanations(bundle, self.answers, counts.count_explained, max_answer_bytes)
            if bundle.manifest.explanation
            else None
        )
        self._predictor = load(bundle)
        self.answers.check(self._predictor)
        self._as_object = self.answers.as_object
        self.run_row: Callable[[Row], Any]
        """The answer to one row, counted; otherwise as `run`."""
        self.run_row = self.answers.row_runner(self._predictor.predict_row, self._counts.count_row)
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
        if isinstance(rows, ToExplain):
            return self._predict_explained(shape, rows.rows, prediction)
        many = self.run(rows)
        if prediction is not None:
            prediction.record(rows, many)
        if shape == "columns":
            answer = self.answers.as_columns(many)
        else:
            answer = {"predictions": list(map(self._as_object, self.answers.each(many)))}
        answer["model"] = self._model
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), 200, JSON_HEADERS

    def _predict_explained(self, shape: Shape, given: Row | Rows, prediction: Prediction | None) -> Answer:
        explanations = self.explaining()
        predicted: Any
        if isinstance(given, Rows):
            limits = explanations.limits
            limits.check(len(given), limits.columns if shape == "columns" else limits.instances)
            predicted = self.run(given)
            explained = explanations.explain(given, self.answers.labels(predicted))
            if shape == "columns":
                answer = self.answers.as_columns(predicted)
                answer["explanation"] = explanations.as_columns(explained)
            else:
                answers = map(self._as_object, self.answers.each(predicted))
                pairs = zip(answers, explanations.each(explained), strict=True)
                answer = {"predictions": [one | {"explanation": explanation} for one, explanation in pairs]}
        else:
            predicted = self.run_row(given)
            answer = self._as_object(predicted)
            answer["explanation"] = explanations.explain_row(given, self.answers.label(predicted))
        if prediction is not None:
            prediction.record(given, predicted)
        answer["model"] = self._model
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), 200, JSON_HEADERS

    def explaining(self) -> Explanations:
        """The explanations of this model.

        Raises:
            RequestError: 422, it has none.
        """
        if self.explanations is None:
            raise RequestError(
                422,
                "not_explained",
                f"{EXPLAIN}: this model has no explanations; one that is trained with `explain: shap` in params.yaml has",
                reason="unsupported",
            )
        return self.explanations

    @property
    def tensors(self) -> tuple[OutputTensor, ...]:
        """The outputs of the inference protocol, with those that explain."""
        return self.answers.tensors + (self.explanations.tensors if self.explanations else ())

    def run(self, rows: Rows) -> Any:
        """The answers to rows, counted.

        Raises:
            RequestError: 422, the model has no finite answer, which huge values can cause.
        """
        if len(rows) == 1:
            categories = () if rows.categories is None else rows.categories[0].tolist()
            return self.answers.many(self.run_row((rows.numbers[0].tolist(), categories, ())))
        many = self.answers.converted(self._predictor.predict(rows.numbers, rows.categories))
        self._counts.count(rows, *self.answers.observe(many))
        return many

    def refuse(self, error: RequestError) -> Answer:
        """Count an error, and return it as an answer."""
        if error.reason is not None:
            self._counts.reject(error.reason, error.details)
        body, status, headers = json_answer(error.body(), error.status)
        return body, status, headers + error.headers
