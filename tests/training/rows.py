"""Small data with everything in it: numbers on a grid, categories, moments, and gaps in all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from training.data.dataset import Origin, Profile, Split, as_split
from training.prepare import split as division
from training.prepare import stage as prepare
from training.prepare.checks import check
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings

COLOURS = ("blue", "green", "red")
FIRST = datetime(2023, 1, 1)
FAST: dict[str, dict[str, Any]] = {
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "gradient_boosting": {"n_estimators": 10},
    "hist_gradient_boosting": {"max_iter": 10},
    "xgboost": {"n_estimators": 10},
    "lightgbm": {"n_estimators": 10},
    "catboost": {"n_estimators": 10, "depth": 4},
    "mlp": {"max_iter": 40},
}
"""Parameters with which an algorithm is fast."""


SHOPS: dict[str, dict[str, Any]] = {
    "size": {"type": "number", "range": [0, 10], "missing": 0.5},
    "colour": {"type": "category", "missing": 0.5},
    "age": {"type": "number", "range": [0, 5]},
    "town": {"type": "category", "missing": 0.5},
}


def mixed(seed: int = 0, rows: int = 240, classes: int = 3) -> tuple[Profile, Split]:
    """Rows whose class follows from a number and a colour, a tenth of the values missing."""
    random = np.random.default_rng(seed)
    length = np.round(random.uniform(0, 10, rows), 1)
    width = np.round(random.uniform(0, 5, rows) / 0.05) * 0.05
    colour = random.choice(np.array(COLOURS, dtype=object), rows)
    noise = random.normal(0, 0.8, rows)
    rank = length + 2 * (colour == "red") + noise
    label = np.digitize(rank, np.quantile(rank, np.linspace(0, 1, classes + 1)[1:-1]))
    frame = pd.DataFrame(
        {
            "length": np.where(random.random(rows) < 0.1, np.nan, length),
            "width": np.round(width, 2),
            "colour": [None if random.random() < 0.1 else each for each in colour],
            "kind": np.array([f"kind {each}" for each in label], dtype=object),
        }
    )
    hours = random.integers(0, 2 * 365 * 24, rows)
    offset = random.choice(np.array(["Z", "+02:00", ""], dtype=object), rows)
    frame["seen"] = [
        None if random.random() < 0.1 else f"{FIRST + timedelta(hours=int(each)):%Y-%m-%dT%H:%M}{zone}"
        for each, zone in zip(hours, offset, strict=True)
    ]
    return prepared(frame)


def shops(classes: int = 3, towns: int = 60, rows: int = 700, seed: int = 0) -> tuple[Profile, Split]:
    """Rows whose target follows from a number, a colour and a town of many, with gaps; of no classes, a number."""
    random = np.random.default_rng(seed)
    town = random.integers(0, towns, rows)
    size = np.round(random.uniform(0, 10, rows), 1)
    colour = random.choice(np.array(["blue", 'it\'s, "red"', "grün"], dtype=object), rows)
    rank = size / 3 + (random.normal(size=towns) * 2)[town] + (colour == "grün") + random.normal(0, 0.3, rows)
    edges = np.quantile(rank, np.linspace(0, 1, classes + 1)[1:-1]) if classes else ()
    frame = pd.DataFrame(
        {
            "size": np.where(random.random(rows) < 0.1, np.nan, size),
            "age": np.round(random.uniform(0, 5, rows), 2),
            "colour": [None if random.random() < 0.1 else each for each in colour],
            "town": [None if random.random() < 0.05 else f"town {each}" for each in town],
            "kind": np.array([f"kind {each}" for each in np.digitize(rank, edges)], dtype=object)
            if classes
            else 2000 + 100 * np.round(rank, 2),
        }
    )
    return prepared(frame, SHOPS)


def numbers(seed: int = 0, rows: int = 600) -> tuple[Profile, Split]:
    """Two complete numbers on grids of 0.1 and 0.05, two classes."""
    random = np.random.default_rng(seed)
    length = np.round(random.uniform(0, 10, rows), 1)
    width = np.round(np.round(random.uniform(0, 5, rows) / 0.05) * 0.05, 2)
    kind = np.where(length + width + random.normal(0, 1, rows) > 7, "kind 1", "kind 0")
    return prepared(pd.DataFrame({"length": length, "width": width, "kind": kind}))


def values(seed: int = 0, rows: int = 240, mean: float = 2000) -> tuple[Profile, Split]:
    """The rows of `mixed` with a number to predict, far from zero as a year is."""
    _, split = mixed(seed, rows)
    frame = split.frame.drop(columns="kind")
    random = np.random.default_rng(seed)
    known = frame["length"].fillna(5).to_numpy(dtype=np.float64)
    red = (frame["colour"] == "red").to_numpy()
    return prepared(frame.assign(kind=mean + np.round(known + 2 * red + random.normal(0, 0.8, rows), 2)))


def prepared(frame: pd.DataFrame, features: dict[str, dict[str, Any]] | None = None) -> tuple[Profile, Split]:
    """All rows of a frame whose target is `kind`, as the stages after `prepare` read them."""
    features = features or {
        "length": {"type": "number", "range": [0, 10], "missing": 0.5 if frame["length"].hasnans else 0},
        "colour": {"type": "category", "categories": COLOURS, "missing": 0.5},
        "width": {"type": "number", "range": [0, 5]},
        "seen": {"type": "datetime", "timezone": "Europe/Berlin", "missing": 0.5},
    }
    task = (
        {"task": "regression"} if pd.api.types.is_numeric_dtype(frame["kind"]) else {"min_rows_per_class": 5}
    )
    schema = SchemaSettings.model_validate(
        {
            "target": "kind",
            **task,
            "duplicates": "keep",
            "features": {name: each for name, each in features.items() if name in frame},
        }
    )
    checked = check(frame, schema)
    train, test = division.split(checked.frame, "kind", SplitSettings())
    origin = Origin(source="made up", sha256="0" * 64, rows=len(frame), columns=tuple(frame.columns))
    profile = prepare.resolve(checked, schema, origin, train, test)
    return profile, as_split(checked.frame, profile)
