"""The same service by somebody who has measured: dictionaries instead of models in the answer, and orjson."""

from __future__ import annotations

import os

import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.serving.peers.iris import CLASSES, Flower, OnnxModel

app = FastAPI()
model = OnnxModel(os.environ["MODEL_FILE"])


class Flowers(BaseModel):
    instances: list[Flower]


@app.post("/predict")
async def predict(flowers: Flowers) -> Response:
    rows = [
        [each.sepal_length, each.sepal_width, each.petal_length, each.petal_width]
        for each in flowers.instances
    ]
    labels, probabilities = model.predict(rows)
    predictions = [
        {"label": CLASSES[label], "probabilities": dict(zip(CLASSES, shares, strict=True))}
        for label, shares in zip(labels.tolist(), probabilities.tolist(), strict=True)
    ]
    return Response(orjson.dumps({"predictions": predictions}), media_type="application/json")
