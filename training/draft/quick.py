"""Quick models on drafted data, by which the thresholds of its gate are drafted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from app.contract import Task, columns_of
from training.data.dataset import Profile, Split
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms
from training.train.folds import folds

_TREE = {"max_depth": 5, "min_samples_leaf": 5}
MODELS: dict[Task, dict[str, dict[str, Any]]] = {
    "classification": {"logistic_regression": {"max_iter": 200}, "decision_tree": _TREE},
    "regression": {"ridge": {}, "decision_tree": _TREE},
}
FOLDS = 3
SEED = 7
MOST_ROWS = 3000
MOST_CELLS = 1_000_000
"""Limit of rows times columns."""


def predictions(profile: Profile, split: Split) -> tuple[Split, dict[str, NDArray[Any]]]:
    """Cross-validate the quick models on at most MOST_ROWS rows, which are kept apart as those of the pipeline.

    Returns:
        The rows that were predicted, and each model's predictions for them.
    """
    width = sum(
        len(each.categories) if each.type == "category" else len(columns_of(each))
        for each in profile.features
    )
    split = _sample(split, profile, min(MOST_ROWS, max(300, MOST_CELLS // width)))
    parts = list(folds(split, _count(profile, split), SEED, "the draft's number of folds"))
    predicted = np.sort(np.concatenate([outer for _, outer in parts]))
    found = {}
    for name, parameters in MODELS[profile.task].items():
        pipeline = algorithms.pipeline(name, AlgorithmSettings.model_validate(parameters), profile)
        answers = np.empty_like(split.target)
        for inner, outer in parts:
            with warnings.catch_warnings():
                # Few rows of a class, or a quick model that has not converged, change little here.
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", UserWarning)
                part = split.take(inner)
                fitted = clone(pipeline).fit(algorithms.inputs(part), part.target)
            answers[outer] = fitted.predict(algorithms.inputs(split.take(outer)))
        found[name] = answers[predicted]
    return split.take(predicted), found


def _count(profile: Profile, split: Split) -> int:
    if profile.task == "regression":
        return FOLDS
    smallest = int(np.bincount(split.target, minlength=len(profile.classes)).min())
    return max(2, min(FOLDS, smallest))


def _sample(split: Split, profile: Profile, most: int) -> Split:
    """At most so many rows, including two of each class."""
    if len(split) <= most:
        return split
    order = np.random.default_rng(SEED).permutation(len(split))
    if profile.task == "classification":
        place = pd.Series(order).groupby(split.target[order]).cumcount().to_numpy()
        # The first rows of each class come first.
        order = order[np.lexsort((np.arange(len(order)), place >= FOLDS))]
    return split.take(np.sort(order[:most]))
