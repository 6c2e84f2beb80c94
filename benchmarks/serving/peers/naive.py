"""The service that people write first: a plain function, a data frame, scikit-learn's model from a file."""

from __future__ import annotations

import os

import joblib  # type: ignore[import-untyped]
import pandas as pd
from fastapi import FastAPI

from benchmarks.serving.peers.iris import Flower, Species

app = FastAPI()
model = joblib.load(os.environ["MODEL_FILE"])


@app.post("/predict")
def predict(flower: Flower) -> Species:
    row = pd.DataFrame([flower.model_dump()])
    label = model.predict(row)[0]
    probabilities = model.predict_proba(row)[0]
    return Species(label=label, probabilities=dict(zip(model.classes_, probabilities, strict=True)))
