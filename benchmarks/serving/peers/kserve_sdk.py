"""KServe's Python SDK with the same model file, over both of its protocols; run as a script of its own."""

from __future__ import annotations

import os
from typing import Any

import kserve  # type: ignore[import-not-found]
import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse
from kserve.utils.utils import generate_uuid  # type: ignore[import-not-found]

CLASSES = ("setosa", "versicolor", "virginica")


class Forest(kserve.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("iris")
        self.load()

    def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL_FILE"], options, providers=["CPUExecutionProvider"]
        )
        self.ready = True
        return self.ready

    def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002  KServe's signature
    ) -> dict[str, Any] | InferResponse:
        if isinstance(payload, InferRequest):
            labels, probabilities = self._run(payload.inputs[0].as_numpy())
            outputs = [
                InferOutput("label", [len(labels)], "BYTES", data=[CLASSES[label] for label in labels]),
                InferOutput(
                    "probabilities", list(probabilities.shape), "FP64", data=probabilities.ravel().tolist()
                ),
            ]
            return InferResponse(
                response_id=payload.id or generate_uuid(), model_name=self.name, infer_outputs=outputs
            )
        labels, probabilities = self._run(np.array(payload["instances"], dtype=np.float64))
        predictions = [
            {"label": CLASSES[label], "probabilities": dict(zip(CLASSES, shares, strict=True))}
            for label, shares in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]
        return {"predictions": predictions}

    def _run(self, numbers: Any) -> tuple[Any, Any]:
        label, probabilities = self.session.run(["label", "probabilities"], {"numbers": numbers})
        return label, probabilities


if __name__ == "__main__":
    kserve.ModelServer().start([Forest()])
