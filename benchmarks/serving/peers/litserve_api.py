"""LitServe with the same model file; run as a script of its own."""

from __future__ import annotations

import os
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import onnxruntime

CLASSES = ("setosa", "versicolor", "virginica")
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


class Forest(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's signature
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL_FILE"], options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: dict[str, float]) -> Any:
        return np.array([[request[name] for name in FEATURES]], dtype=np.float64)

    def predict(self, x: Any) -> Any:
        return self.session.run(["label", "probabilities"], {"numbers": x})

    def encode_response(self, output: Any) -> dict[str, Any]:
        labels, probabilities = output
        return {
            "label": CLASSES[labels[0]],
            "probabilities": dict(zip(CLASSES, probabilities[0].tolist(), strict=True)),
        }


if __name__ == "__main__":
    server = litserve.LitServer(Forest(), accelerator="cpu")
    server.run(
        host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False
    )
