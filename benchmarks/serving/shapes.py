"""The requests: the same rows in every shape that the service or a peer accepts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.exchange import (
    Exchange,
    read_columns,
    read_instance,
    read_instances,
    read_tensors,
)
from benchmarks.serving.subjects import Subject


def single(subject: Subject) -> Exchange:
    """Each row on its own, one after another."""
    bodies = [_encoded(each) for each in _objects(_names(subject), subject.rows)]
    return Exchange("/predict", bodies, subject.predict(subject.rows), read_instance(_classes(subject)))


def many(subject: Subject, rows: NDArray[np.float64]) -> Exchange:
    """Rows as objects in one request."""
    body = _encoded({"instances": _objects(_names(subject), rows)})
    return Exchange("/predict", [body], subject.predict(rows), read_instances(_classes(subject)), len(rows))


def columns(subject: Subject, rows: NDArray[np.float64]) -> Exchange:
    """Rows as one list per feature."""
    body = _encoded({"columns": dict(zip(_names(subject), rows.T.tolist(), strict=True))})
    return Exchange("/predict", [body], subject.predict(rows), read_columns(_classes(subject)), len(rows))


def tensors(subject: Subject, rows: NDArray[np.float64], *, per_request: int) -> Exchange:
    """Rows in the Open Inference Protocol as JSON, one tensor per feature."""
    bodies = [
        _encoded(
            {
                "inputs": [
                    {"name": name, "shape": [per_request], "datatype": "FP64", "data": values}
                    for name, values in zip(_names(subject), part.T.tolist(), strict=True)
                ]
            }
        )
        for part in np.split(rows, len(rows) // per_request)
    ]
    return Exchange(_infer(subject), bodies, subject.predict(rows), read_tensors(), per_request)


def binary_tensors(subject: Subject, rows: NDArray[np.float64]) -> Exchange:
    """The same with the protocol's binary extension, both ways."""
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    inputs = []
    for name, values in zip(_names(subject), rows.T, strict=True):
        tensor = InferInput(name, [len(rows)], "FP64")
        tensor.set_data_from_numpy(np.ascontiguousarray(values), binary_data=True)
        inputs.append(tensor)
    outputs = [InferRequestedOutput(name, binary_data=True) for name in ("label", "probabilities")]
    body, length = InferenceServerClient.generate_request_body(inputs, outputs)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
    return Exchange(_infer(subject), [body], subject.predict(rows), read_tensors(), len(rows), headers)


def one_tensor(path: str, subject: Subject) -> Exchange:
    """Single rows in the Open Inference Protocol, with all features in one tensor as the model file has it."""
    bodies = [
        _encoded({"inputs": [{"name": "numbers", "shape": [1, len(row)], "datatype": "FP64", "data": row}]})
        for row in subject.rows.tolist()
    ]
    return Exchange(path, bodies, subject.predict(subject.rows), read_tensors())


def lists(path: str, subject: Subject) -> Exchange:
    """Single rows as lists, in the first version of KServe's protocol."""
    bodies = [_encoded({"instances": [row]}) for row in subject.rows.tolist()]
    return Exchange(path, bodies, subject.predict(subject.rows), read_instances(_classes(subject)))


def unread(exchange: Exchange) -> Exchange:
    """The same load for a server whose responses are not checked."""
    return dataclasses.replace(exchange, read=None)


def _objects(names: Sequence[str], rows: NDArray[np.float64]) -> list[dict[str, float]]:
    """Rows as objects by feature."""
    return [dict(zip(names, row, strict=True)) for row in rows.tolist()]


def _encoded(content: object) -> bytes:
    """JSON as most clients write it, without blanks."""
    return json.dumps(content, separators=(",", ":")).encode()


def _classes(subject: Subject) -> Sequence[str]:
    return subject.manifest.classes


def _names(subject: Subject) -> Sequence[str]:
    return [each.name for each in subject.manifest.features]


def _infer(subject: Subject) -> str:
    return f"/v2/models/{subject.manifest.name}/infer"
