"""Quick models on drafted data, by which the thresholds of its gate are drafted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

from app.contract import Task
from training.base.config import AlgorithmSettings
from training.data.dataset import Profile, Split
from training.train import algorithms

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
    """Cross-validate the quick models on at most MOST_ROWS rows.

    Returns:
        The rows, and each model's predictions for them.
    """
    width = sum(1 if each.type == "number" else len(each.categories) for each in profile.features)
    split = _sample(split, profile, min(MOST_ROWS, max(300, MOST_CELLS // width)))
    found = {}
    for name, parameters in MODELS[profile.task].items():
        pipeline = algorithms.pipeline(name, AlgorithmSettings.model_validate(parameters), profile)
        with warnings.catch_warnings():
            # Few rows of a class, or a quick model that has not converged, change little here.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)
            found[name] = cross_val_predict(
                pipeline, algorithms.inputs(split), split.target, cv=_folds(profile, split)
            )
    return split, found


def _folds(profile: Profile, split: Split) -> KFold | StratifiedKFold:
    if profile.task == "regression":
        return KFold(FOLDS, shuffle=True, random_state=SEED)
    smallest = int(np.bincount(split.target, minlength=len(profile.classes)).min())
    return StratifiedKFold(max(2, min(FOLDS, smallest)), shuffle=True, random_state=SEED)


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
