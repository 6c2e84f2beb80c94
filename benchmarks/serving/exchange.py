"""The requests to a server and the expected responses, for each shape of request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.processes import Answer, Running

JSON: Mapping[str, str] = {"Content-Type": "application/json"}
TOLERANCE = 1e-5
"""Of probabilities: models compute them in float32, and some servers answer them so."""


@dataclass(frozen=True)
class Prediction:
    """Labels of shape (rows,) by name and probabilities of shape (rows, classes) in the classes' order."""

    labels: Sequence[str]
    probabilities: NDArray[np.float64]

    def __getitem__(self, rows: slice) -> Prediction:
        return Prediction(self.labels[rows], self.probabilities[rows])


Reader = Callable[[Answer], Prediction]


@dataclass(frozen=True)
class Exchange:
    """Requests that are sent in turn, and the answer to each.

    Attributes:
        path: where they are sent.
        bodies: the requests.
        expected: the answers, one after another.
        read: how to read an answer; None if answers are not looked at.
        rows: how many are in each body.
        headers: of every request.
    """

    path: str
    bodies: Sequence[bytes]
    expected: Prediction
    read: Reader | None
    rows: int = 1
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


def verify(server: Running, exchange: Exchange) -> None:
    """Send every body once and compare the response with the model's prediction.

    Raises:
        BenchmarkError: an answer is an error, or it is wrong.
    """
    for index, body in enumerate(exchange.bodies):
        answer = server.request("POST", exchange.path, body, exchange.headers)
        where = f"request {index + 1} of {len(exchange.bodies)} to {exchange.path}"
        if answer.status != 200:
            text = answer.body[:200].decode(errors="replace")
            raise BenchmarkError(f"{where} is answered with {answer.status}: {text}")
        if exchange.read is not None:
            rows = slice(index * exchange.rows, (index + 1) * exchange.rows)
            _compare(_read(exchange.read, answer, where), exchange.expected[rows], where)


def read_instance(classes: Sequence[str]) -> Reader:
    """`{"label": ..., "probabilities": {...}}`"""
    return lambda answer: _by_row([json.loads(answer.body)], classes)


def read_instances(classes: Sequence[str]) -> Reader:
    """`{"predictions": [...]}`, each as above."""
    return lambda answer: _by_row(json.loads(answer.body)["predictions"], classes)


def read_columns(classes: Sequence[str]) -> Reader:
    """`{"labels": [...], "probabilities": {class: [...]}}`"""

    def read(answer: Answer) -> Prediction:
        document = json.loads(answer.body)
        columns = [document["probabilities"][name] for name in classes]
        return Prediction(document["labels"], np.array(columns).T)

    return read


def read_tensors() -> Reader:
    """The Open Inference Protocol's `label` and `probabilities`, as JSON or as binary."""
    from tritonclient.http import InferenceServerClient

    def read(answer: Answer) -> Prediction:
        length = answer.headers.get("Inference-Header-Content-Length")
        result = InferenceServerClient.parse_response_body(
            answer.body, header_length=None if length is None else int(length)
        )
        labels = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("label")]
        return Prediction(labels, result.as_numpy("probabilities"))

    return read


def _by_row(documents: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Prediction:
    return Prediction(
        [each["label"] for each in documents],
        np.array([[each["probabilities"][name] for name in classes] for each in documents]),
    )


def _read(read: Reader, answer: Answer, where: str) -> Prediction:
    try:
        return read(answer)
    except (LookupError, TypeError, ValueError) as error:
        text = answer.body[:200].decode(errors="replace")
        raise BenchmarkError(f"{where} has an answer of another shape ({error!r}): {text}") from error


def _compare(actual: Prediction, expected: Prediction, where: str) -> None:
    if list(actual.labels) != list(expected.labels):
        raise BenchmarkError(f"{where} has other labels than the model: {list(actual.labels)[:5]}…")
    if actual.probabilities.shape != expected.probabilities.shape:
        raise BenchmarkError(f"{where} has probabilities of shape {actual.probabilities.shape}")
    difference = float(np.abs(actual.probabilities - expected.probabilities).max())
    if not difference <= TOLERANCE:
        raise BenchmarkError(f"{where} has probabilities that are {difference:.2g} off the model's")
