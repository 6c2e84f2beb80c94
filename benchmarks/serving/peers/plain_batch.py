"""A FastAPI service by the book for many rows: a list of pydantic models in, another out, onnxruntime."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.iris import CLASSES, Flower, OnnxModel, Species

app = FastAPI()
model = OnnxModel(os.environ["MODEL_FILE"])


class Flowers(BaseModel):
    instances: list[Flower]


class Predictions(BaseModel):
    predictions: list[Species]


@app.post("/predict")
async def predict(flowers: Flowers) -> Predictions:
    rows = [
        [each.sepal_length, each.sepal_width, each.petal_length, each.petal_width]
        for each in flowers.instances
    ]
    labels, probabilities = model.predict(rows)
    return Predictions(
        predictions=[
            Species(label=CLASSES[label], probabilities=dict(zip(CLASSES, shares, strict=True)))
            for label, shares in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]
    )
