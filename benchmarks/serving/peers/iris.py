"""The flower as the peers know it: what a request holds and what an answer holds."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
CLASSES = ("setosa", "versicolor", "virginica")


class Flower(BaseModel):
    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Species(BaseModel):
    label: str
    probabilities: dict[str, float]


class OnnxModel:
    """A model file in onnxruntime with one thread, the fastest setting for small requests."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(self, rows: list[list[float]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Class indices, and probabilities of shape (rows, classes)."""
        numbers = np.array(rows, dtype=np.float64)
        label, probabilities = self._session.run(["label", "probabilities"], {"numbers": numbers})
        return label, probabilities
