"""Small random problems on grids, where ties and thresholds lie, and what a model file answers to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from app.contract import Layout
from app.predictor import Classifier
from training.train.algorithms import ESTIMATOR, FEATURES
from training.train.onnx import export


@dataclass(frozen=True)
class Problem:
    """Rows with classes to learn from, and rows to ask about: near, far, and on half steps."""

    X: NDArray[np.float64]
    y: NDArray[np.int64]
    asked: NDArray[np.float64]


@st.composite
def problems(draw: st.DrawFn, classes: st.SearchStrategy[int] | None = None) -> Problem:
    count = draw(classes or st.integers(2, 6))
    features = draw(st.integers(1, 4))
    step = draw(st.sampled_from([1.0, 0.5, 0.1, 0.01]))
    spread = draw(st.sampled_from([0.3, 1.0, 3.0]))
    return problem(draw(st.integers(0, 2**32 - 1)), count, features, step, spread)


def problem(seed: int, classes: int, features: int, step: float = 0.1, spread: float = 1.0) -> Problem:
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), random.integers(6, 20))
    centres = random.integers(0, 10, (classes, features))
    X = _on_grid(centres[y] + random.normal(0, spread, (len(y), features)), step)
    asked = random.uniform(-20, 30, (1000, features))
    return Problem(X, y, np.concatenate([X, _on_grid(asked, step), _on_grid(asked, step / 2)]))


def fitted(estimator: ClassifierMixin, problem: Problem, *, scale: bool = True) -> Pipeline:
    """Fit a pipeline as `training.train.algorithms` makes it for complete numbers."""
    features = [(FEATURES, make_pipeline(StandardScaler()))] if scale else []
    return Pipeline([*features, (ESTIMATOR, estimator)]).fit(problem.X, problem.y)


def answers(pipeline: Pipeline, rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    layout = _layout(rows)
    return Classifier(export.export(pipeline, layout), layout).predict(rows)


def kinds(pipeline: Pipeline, rows: NDArray[np.float64]) -> list[str]:
    """The nodes of the exported file, in their order."""
    graph = onnx.load_model_from_string(export.export(pipeline, _layout(rows))).graph
    return [each.op_type for each in graph.node]


def _layout(rows: NDArray[np.float64]) -> Layout:
    return Layout(tuple(f"feature_{column}" for column in range(rows.shape[1])), ())


def _on_grid(values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    return np.round(np.round(values / step) * step, 6)
