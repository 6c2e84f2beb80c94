"""MLServer with the same model file, over the Open Inference Protocol; run as a script of its own."""

from __future__ import annotations

import asyncio
import os

import onnxruntime
from mlserver import (  # type: ignore[import-not-found]
    MLModel,
    MLServer,
    ModelSettings,
    Settings,
)
from mlserver.codecs import NumpyCodec, StringCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]

CLASSES = ("setosa", "versicolor", "virginica")


class Forest(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL_FILE"], options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        numbers = NumpyCodec.decode_input(payload.inputs[0])
        labels, probabilities = self.session.run(["label", "probabilities"], {"numbers": numbers})
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("label", [CLASSES[label] for label in labels], use_bytes=False),
                NumpyCodec.encode_output("probabilities", probabilities),
            ],
        )


async def main() -> None:
    port = int(os.environ["PORT"])
    # No worker processes and no log lines: both would slow a single core down.
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        # Any free port: only HTTP is measured.
        grpc_port=0,
        metrics_port=0,
        parallel_workers=0,
        debug=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="iris", implementation=Forest)])


if __name__ == "__main__":
    asyncio.run(main())
