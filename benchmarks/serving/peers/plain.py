"""A FastAPI service by the book for one row: async route, pydantic models, onnxruntime, the instrumentator."""

from __future__ import annotations

import os

from fastapi import FastAPI
from prometheus_fastapi_instrumentator import Instrumentator

from benchmarks.serving.peers.iris import CLASSES, Flower, OnnxModel, Species

app = FastAPI()
Instrumentator().instrument(app).expose(app)
model = OnnxModel(os.environ["MODEL_FILE"])


@app.post("/predict")
async def predict(flower: Flower) -> Species:
    labels, probabilities = model.predict(
        [[flower.sepal_length, flower.sepal_width, flower.petal_length, flower.petal_width]]
    )
    return Species(
        label=CLASSES[labels[0]],
        probabilities=dict(zip(CLASSES, probabilities[0].tolist(), strict=True)),
    )
