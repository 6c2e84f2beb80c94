"""The algorithms and the pipeline around them.

To add one, write a factory function here and a block of its name under `train.algorithms` in `params.yaml`.
A factory returns the estimator with the defaults that are ours; the block's parameters are set on it.

Where an estimator computes in float32, the cast is a step of the pipeline: a model file that casts elsewhere
than the estimator answers differently on values that lie on a threshold.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from app.contract import MISSING_CATEGORY, CategoryFeature, NumberFeature
from training.config import AlgorithmSettings
from training.dataset import Profile, Split
from training.errors import ConfigError

SEED = 7
"""Of the estimators' own randomness; part of the code so that it never differs between algorithms."""

ESTIMATOR = "estimator"
"""Name of the pipeline's last step."""

FEATURES = "features"
"""Name of the step that prepares the values for it."""

NUMBERS = "numbers"
"""Name of that step's part for the numbers, where there are categories too."""


@dataclass(frozen=True)
class Algorithm:
    """How one algorithm is put behind the preparation of the features.

    Attributes:
        estimator: a scikit-learn classifier.
        tunable: where in the estimator the block's parameters go, "" for the estimator itself.
        scale: whether numbers are standardised first.
        single: whether the values are cast to float32 before the estimator.
    """

    estimator: Any
    tunable: str = ""
    scale: bool = True
    single: bool = False

    @property
    def prefix(self) -> str:
        """What a parameter's name starts with, seen from the pipeline."""
        return f"{ESTIMATOR}__{self.tunable}__" if self.tunable else f"{ESTIMATOR}__"


def logistic_regression() -> Algorithm:
    from sklearn.linear_model import LogisticRegression

    return Algorithm(LogisticRegression(max_iter=1000))


def decision_tree() -> Algorithm:
    from sklearn.tree import DecisionTreeClassifier

    return Algorithm(DecisionTreeClassifier(random_state=SEED), scale=False)


def random_forest() -> Algorithm:
    from sklearn.ensemble import RandomForestClassifier

    return Algorithm(RandomForestClassifier(random_state=SEED, n_jobs=1), scale=False)


def svm() -> Algorithm:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    # SVC's own probabilities are deprecated and do not survive the export; calibrated ones do.
    return Algorithm(CalibratedClassifierCV(SVC(kernel="rbf"), ensemble=False), tunable="estimator")


def xgboost() -> Algorithm:
    from xgboost import XGBClassifier

    # One thread: with more, sums are added up in another order and the model differs between machines.
    booster = XGBClassifier(random_state=SEED, n_jobs=1, tree_method="hist")
    return Algorithm(booster, scale=False, single=True)


FACTORIES: Mapping[str, Callable[[], Algorithm]] = {
    factory.__name__: factory for factory in (logistic_regression, decision_tree, random_forest, svm, xgboost)
}


def create(name: str) -> Algorithm:
    """Build an algorithm by the name of its block.

    Raises:
        ConfigError: there is no such factory.
    """
    if name not in FACTORIES:
        guess = difflib.get_close_matches(name, FACTORIES, n=1)
        hint = f"did you mean {guess[0]}? " if guess else ""
        raise ConfigError(
            f"train.algorithms.{name}: no such algorithm; {hint}There are {', '.join(FACTORIES)}; "
            "another one takes a factory function in training/algorithms.py"
        )
    return FACTORIES[name]()


def pipeline(name: str, settings: AlgorithmSettings, profile: Profile) -> Pipeline:
    """The unfitted pipeline from raw values to classes, with the block's parameters set.

    Raises:
        ConfigError: the algorithm or one of its parameters does not exist.
    """
    algorithm = create(name)
    known = algorithm.estimator.get_params()
    used = {*settings.parameters, *(settings.search.space if settings.search else ())}
    for parameter in sorted(used):
        if (f"{algorithm.tunable}__{parameter}" if algorithm.tunable else parameter) not in known:
            raise ConfigError(f"train.algorithms.{name}.{parameter}: {name} has no such parameter")
    preparation = _preparation(profile, scale=algorithm.scale)
    # The exporter knows "passthrough" in a ColumnTransformer, not as a step of its own.
    steps = [] if preparation == "passthrough" else [(FEATURES, preparation)]
    if algorithm.single:
        from skl2onnx.sklapi import CastTransformer

        steps.append(("single", CastTransformer(dtype=np.float32)))
    whole = Pipeline([*steps, (ESTIMATOR, algorithm.estimator)])
    return whole.set_params(**{algorithm.prefix + key: value for key, value in settings.parameters.items()})


def inputs(split: Split) -> NDArray[np.float64] | pd.DataFrame:
    """A split as the pipeline takes it: numbers first, then categories, as in the model file."""
    if not split.categories.shape[1]:
        return split.numbers
    numbers = pd.DataFrame(split.numbers).add_prefix("number_")
    categories = pd.DataFrame(split.categories, dtype=object).add_prefix("category_")
    return pd.concat([numbers, categories], axis=1)


def unscaled(fitted: Pipeline) -> tuple[Pipeline, StandardScaler | None]:
    """Take the scaling of the numbers, which is the last step of their preparation, out of a fitted pipeline.

    Returns:
        A copy of the pipeline without it, and the scaler; None where the numbers are not scaled.
    """
    rest = deepcopy(fitted)
    numbers = rest.named_steps.get(FEATURES)
    if isinstance(numbers, ColumnTransformer):
        numbers = numbers.named_transformers_.get(NUMBERS)
    if not isinstance(numbers, Pipeline) or not isinstance(numbers[-1], StandardScaler):
        return rest, None
    scaler = numbers[-1]
    numbers.steps[-1] = ("unscaled", FunctionTransformer())
    return rest, scaler


class MedianImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Puts the training median where a number is missing, in float64.

    ONNX's own imputation node knows float32 only, so SimpleImputer cannot be exported exactly.
    """

    def fit(self, X: NDArray[np.float64], y: object = None) -> MedianImputer:  # noqa: ARG002
        values = np.asarray(X, dtype=np.float64)
        self.n_features_in_ = values.shape[1]
        columns = (column[~np.isnan(column)] for column in values.T)
        # A fold may hold no value at all of a rare feature; zero is then as good as any.
        self.medians_ = np.array([np.median(column) if column.size else 0.0 for column in columns])
        return self

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.asarray(X, dtype=np.float64)
        return np.where(np.isnan(values), self.medians_, values)


def _preparation(profile: Profile, *, scale: bool) -> Any:
    numbers = [each for each in profile.features if isinstance(each, NumberFeature)]
    categories = [each for each in profile.features if isinstance(each, CategoryFeature)]
    steps: list[Any] = []
    if any(each.missing for each in numbers):
        steps.append(MedianImputer())
    if scale:
        steps.append(StandardScaler())
    number_steps = make_pipeline(*steps) if steps else "passthrough"
    if not categories:
        return number_steps
    encoder = OneHotEncoder(
        categories=[[*([MISSING_CATEGORY] if each.missing else []), *each.categories] for each in categories],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float64,
    )
    split = len(numbers)
    parts: list[Any] = [("categories", encoder, list(range(split, split + len(categories))))]
    if numbers:
        parts.insert(0, (NUMBERS, number_steps, list(range(split))))
    return ColumnTransformer(parts)
