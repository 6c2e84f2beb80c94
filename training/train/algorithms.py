"""The algorithms and the pipeline around them.

To add one, write a factory function here and a block of its name under `train.algorithms` in `params.yaml`.
A factory returns the estimator with the project's defaults; the block's parameters are then set on it.

If an estimator computes in float32, the cast is a step of the pipeline: a model file that casts at another place than
the estimator gives other answers for values on a threshold.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from app.contract import MISSING_CATEGORY, CategoryFeature, NumberFeature
from training.base.config import AlgorithmSettings
from training.base.errors import ConfigError
from training.data.dataset import Profile, Split

SEED = 7
"""Random state of the estimators; in the code, so that it is the same for all algorithms."""

ESTIMATOR = "estimator"
"""Name of the pipeline's last step."""

FEATURES = "features"
"""Name of the step that prepares the features."""

CLASS_WEIGHT = "class_weight"
"""The parameter in which a block names classes and estimators number them."""

NUMBERS = "numbers"
"""Name of the part of that step for numbers, if there are categories too."""


@dataclass(frozen=True)
class Algorithm:
    """An estimator and the preparation that it needs.

    Attributes:
        estimator: a scikit-learn classifier.
        tunable: where in the estimator the block's parameters go, "" for the estimator itself.
        scale: whether numbers are standardised first.
        single: whether the values are cast to float32 before the estimator.
        exportable: for parameters with values that cannot be exported, the values that can.
    """

    estimator: Any
    tunable: str = ""
    scale: bool = True
    single: bool = False
    exportable: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The prefix of parameter names in the pipeline."""
        return f"{ESTIMATOR}__{self.tunable}__" if self.tunable else f"{ESTIMATOR}__"


def logistic_regression() -> Algorithm:
    from sklearn.linear_model import LogisticRegression

    return Algorithm(LogisticRegression(max_iter=1000, random_state=SEED))


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
    calibrated = CalibratedClassifierCV(SVC(kernel="rbf", random_state=SEED), ensemble=False)
    kernels = ("rbf", "linear", "poly", "sigmoid")
    return Algorithm(calibrated, tunable="estimator", exportable={"kernel": kernels})


def xgboost() -> Algorithm:
    from xgboost import XGBClassifier

    # One thread: with more, sums are added up in another order and the model differs between machines.
    booster = XGBClassifier(random_state=SEED, n_jobs=1, tree_method="hist")
    exportable = {
        "booster": ("gbtree",),
        "multi_strategy": ("one_output_per_tree",),
        "num_parallel_tree": (1,),
        # XGBoost itself replaces the others without a word where there are more than two classes.
        "objective": ("binary:logistic", "multi:softprob"),
    }
    return Algorithm(booster, scale=False, single=True, exportable=exportable)


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
            "another one takes a factory function in training/train/algorithms.py"
        )
    return FACTORIES[name]()


def pipeline(name: str, settings: AlgorithmSettings, profile: Profile) -> Pipeline:
    """The unfitted pipeline from raw values to classes, with the block's parameters set.

    Raises:
        ConfigError: the algorithm or one of its parameters does not exist, or a value of one cannot be used.
    """
    algorithm = create(name)
    _check_names(name, algorithm, settings)
    _check_values(name, algorithm, settings)
    preparation = _preparation(profile, scale=algorithm.scale)
    # The exporter knows "passthrough" in a ColumnTransformer, not as a step of its own.
    steps = [] if preparation == "passthrough" else [(FEATURES, preparation)]
    if algorithm.single:
        from skl2onnx.sklapi import CastTransformer

        steps.append(("single", CastTransformer(dtype=np.float32)))
    whole = Pipeline([*steps, (ESTIMATOR, algorithm.estimator)])
    parameters = dict(settings.parameters)
    if isinstance(weights := parameters.get(CLASS_WEIGHT), dict):
        parameters[CLASS_WEIGHT] = _by_position(name, weights, profile.classes)
    return whole.set_params(**{algorithm.prefix + key: value for key, value in parameters.items()})


def inputs(split: Split) -> NDArray[np.float64] | pd.DataFrame:
    """A split as input of the pipeline: numbers first, then categories, as in the model file."""
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


def reason(error: Exception) -> str:
    """The message of an estimator or converter in one short line."""
    text = re.split(r"\n\n|Stack trace:", str(error))[0]
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ", "", text)  # where in XGBoost's sources
    # The calibration checks the parameters of the classifier within under its own name.
    text = re.sub(r"(The '\w+' parameter) of \w+", r"\1", text)
    return " ".join(text.split())[:400] or type(error).__name__


def described(parameters: Mapping[str, Any]) -> str:
    """Parameters as params.yaml would list them, for messages."""
    words = {"None": "null", "True": "true", "False": "false"}
    return ", ".join(f"{key}: {words.get(repr(value), repr(value))}" for key, value in parameters.items())


class MedianImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Replaces missing numbers by the training median, in float64.

    ONNX's own imputation node knows float32 only, so SimpleImputer cannot be exported exactly.
    """

    def fit(self, X: NDArray[np.float64], y: object = None) -> MedianImputer:  # noqa: ARG002
        values = np.asarray(X, dtype=np.float64)
        self.n_features_in_ = values.shape[1]
        columns = (column[~np.isnan(column)] for column in values.T)
        # A fold may have no value of a rare feature; any number will do.
        self.medians_ = np.array([np.median(column) if column.size else 0.0 for column in columns])
        return self

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.asarray(X, dtype=np.float64)
        return np.where(np.isnan(values), self.medians_, values)


def _check_names(name: str, algorithm: Algorithm, settings: AlgorithmSettings) -> None:
    start = f"{algorithm.tunable}__" if algorithm.tunable else ""
    known = [each.removeprefix(start) for each in algorithm.estimator.get_params() if each.startswith(start)]
    for parameter in sorted({*settings.parameters, *(settings.search.space if settings.search else ())}):
        if parameter not in known:
            guess = difflib.get_close_matches(parameter, known, n=1)
            hint = f"; did you mean {guess[0]}?" if guess else ""
            raise ConfigError(f"train.algorithms.{name}.{parameter}: {name} has no such parameter{hint}")


def _check_values(name: str, algorithm: Algorithm, settings: AlgorithmSettings) -> None:
    """Refuse values that would fail only after training, or never."""
    values = [(key, key, value) for key, value in settings.parameters.items()]
    for key, listed in settings.search.space.items() if settings.search else ():
        if isinstance(listed, list):
            values += [(f"search.space.{key}", key, value) for value in listed]
    for where, key, value in values:
        if key == "random_state" and value is None:
            raise ConfigError(
                f"train.algorithms.{name}.{where}: null would train another model each time, and the same inputs "
                f"must give the same bytes; write a number, or leave it out for {SEED}"
            )
        if key == CLASS_WEIGHT and where != key and isinstance(value, dict):
            raise ConfigError(
                f"train.algorithms.{name}.{where}: weights of single classes cannot be searched; "
                f"write them as {CLASS_WEIGHT} of the block, or search over balanced and null"
            )
        possible = algorithm.exportable.get(key)
        if possible is not None and value is not None and value not in possible:
            raise ConfigError(
                f"train.algorithms.{name}.{where}: {value!r} cannot be exported to ONNX; "
                f"use {' or '.join(map(str, possible))}, or leave it out"
            )


def _by_position(name: str, weights: Mapping[Any, Any], classes: Sequence[str]) -> dict[int, float]:
    """Weights as the estimators take them: by the index of the class."""
    where = f"train.algorithms.{name}.{CLASS_WEIGHT}"
    for key, weight in weights.items():
        if str(key) not in classes:
            raise ConfigError(
                f"{where}: there is no class {key!r}; there are {', '.join(map(repr, classes))}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ConfigError(f"{where}.{key}: {weight!r} is not a weight; write a number above 0")
    return {classes.index(str(key)): weight for key, weight in weights.items()}


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
