"""The pipeline from raw values to predictions, with the parameters of a block checked and set."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline

from app.contract import Approximated, CategoryFeature
from training.base.errors import ConfigError
from training.data.dataset import Profile, Split
from training.sections.algorithms import OWN_KEYS, AlgorithmSettings
from training.train.algorithms import large, partitioned
from training.train.algorithms.encoding import CrossFittedTargetEncoder
from training.train.algorithms.factories import SEED, Algorithm, create
from training.train.algorithms.features import features_of
from training.train.algorithms.inputs import inputs
from training.train.algorithms.nystroem import NystroemSVC, NystroemSVR
from training.train.algorithms.preparation import ESTIMATOR, FEATURES, origins, preparation
from training.train.algorithms.weights import WeightedPipeline, takes_weights
from training.train.folds import held_out

MONOTONE = ("monotone_constraints", "monotonic_cst")
"""The parameters in which a block names features that only raise (1) or lower (-1) the prediction."""
CALIBRATION_FOLDS = 5
"""As many as scikit-learn's calibration has where rows are drawn at random."""
CLASS_WEIGHT = "class_weight"
CLASS_WEIGHTS = (CLASS_WEIGHT, "class_weights")
"""The parameters in which a block names classes and estimators number them."""


def pipeline(name: str, settings: AlgorithmSettings, profile: Profile) -> Pipeline:
    """The unfitted pipeline from raw values to predictions, with the block's parameters set.

    Raises:
        ConfigError: the algorithm or one of its parameters does not exist, or a value of one cannot be used.
    """
    algorithm = create(name, profile.task, settings.estimator, profile.train_rows)
    _check_names(name, algorithm, settings, profile.train_rows)
    _check_values(name, algorithm, settings)
    own = features_of(f"train.algorithms.{name}.features", settings.features, profile.layout.numbers)
    features = preparation(
        profile,
        settings,
        fill=not algorithm.takes_missing or (own is not None and not own.takes_missing),
        scale=algorithm.scale,
        features=own,
    )
    # The exporter knows "passthrough" in a ColumnTransformer, not as a step of its own.
    steps = [] if features == "passthrough" else [(FEATURES, features)]
    parameters = _native(name, algorithm, settings, profile) | settings.parameters
    parameters = {key: value for key, value in parameters.items() if key not in algorithm.without_effect}
    if algorithm.most_drawn and profile.train_rows > algorithm.most_drawn and "max_samples" not in parameters:
        parameters |= {"bootstrap": True, "max_samples": algorithm.most_drawn / profile.train_rows}
    for key in CLASS_WEIGHTS:
        if isinstance(weights := parameters.get(key), dict):
            parameters[key] = _by_position(f"train.algorithms.{name}.{key}", weights, profile.classes)
    for key in MONOTONE:
        if isinstance(signs := parameters.get(key), dict):
            if own is not None:
                raise ConfigError(
                    f"train.algorithms.{name}.{key}: the estimator gets the columns that {settings.features} makes, and not "
                    "the numbers; remove one of the two"
                )
            columns = _by_column(f"train.algorithms.{name}.{key}", signs, profile, settings)
            # XGBoost takes no list, and CatBoost changes one, so that it could not be cloned.
            parameters[key] = f"({','.join(map(str, columns))})" if name == "catboost" else tuple(columns)
    of_rows = None if CLASS_WEIGHT in _parameters(algorithm) else parameters.pop(CLASS_WEIGHT, None)
    whole = WeightedPipeline(
        [*steps, (ESTIMATOR, algorithm.estimator)], class_weight=of_rows, partitions=settings.partitions
    )
    whole.set_params(**{algorithm.prefix + key: value for key, value in parameters.items()})
    if profile.classes and not hasattr(type(whole[-1]), "predict_proba"):
        raise ConfigError(
            f"train.algorithms.{name}: {type(whole[-1]).__name__} has no predict_proba, and the service answers with "
            "probabilities: wrap it in scikit-learn's CalibratedClassifierCV"
        )
    return whole


def fit(pipeline: Pipeline, split: Split) -> Pipeline:
    """Fit a clone on a split. Steps that divide the rows once more keep them apart as the split's folds do."""
    copy: WeightedPipeline = clone(pipeline)
    seen = large.seen(split)
    apart = split.groups is not None or split.times is not None
    for step in copy.get_params().values():
        if isinstance(step, CrossFittedTargetEncoder):
            step.divide(seen)
        elif isinstance(step, CalibratedClassifierCV | NystroemSVC) and apart:
            step.cv = held_out(split, CALIBRATION_FOLDS, SEED)
    if copy.partitions is not None:
        copy.steps[-1] = (ESTIMATOR, partitioned.fit_last(copy, split, seen))
        return copy
    if large.is_large(copy, split):
        return large.fit(copy, split, seen)
    fitted: Pipeline = copy.fit(inputs(split), split.target, split.weights)
    return fitted


def approximated(fitted: Pipeline) -> Approximated | None:
    """How a fitted pipeline approximates the algorithm of its name; None if it does not."""
    model = getattr(fitted[-1], "regressor_", fitted[-1])
    if not isinstance(model, NystroemSVC | NystroemSVR):
        return None
    return Approximated(method="nystroem", components=len(model.support_vectors_))


def _check_names(name: str, algorithm: Algorithm, settings: AlgorithmSettings, rows: int) -> None:
    known = _parameters(algorithm)
    if is_classifier(algorithm.estimator) and takes_weights(algorithm.estimator):
        known.append(CLASS_WEIGHT)
    searched = settings.search.space if settings.search else {}
    for parameter in sorted({*settings.parameters, *searched}):
        if parameter in algorithm.without_effect and parameter in searched:
            raise ConfigError(
                f"train.algorithms.{name}.search.space.{parameter}: it has no effect with {rows:,} training rows, for which "
                f"{name} is {'exact' if algorithm.approximation else 'an approximation'}: remove it"
            )
        if parameter not in known and parameter not in algorithm.without_effect:
            guess = difflib.get_close_matches(parameter.lower(), [*known, *OWN_KEYS], n=1)
            hint = f"; did you mean {guess[0]}?" if guess else ""
            raise ConfigError(f"train.algorithms.{name}.{parameter}: {name} has no such parameter{hint}")


def _parameters(algorithm: Algorithm) -> list[str]:
    """The names that a block may have."""
    start = f"{algorithm.tunable}__" if algorithm.tunable else ""
    known = [each.removeprefix(start) for each in algorithm.estimator.get_params() if each.startswith(start)]
    if start:
        return known
    # CatBoost lists only the parameters that are set.
    for kind in type(algorithm.estimator).__mro__:
        if "__init__" in vars(kind):
            declared = inspect.signature(kind).parameters.values()
            return [*known, *(each.name for each in declared if each.kind is not each.VAR_KEYWORD)]
    return known


def _check_values(name: str, algorithm: Algorithm, settings: AlgorithmSettings) -> None:
    """Refuse values that would fail only after training, or never."""
    values = [(key, key, value) for key, value in settings.parameters.items()]
    for key, listed in settings.search.space.items() if settings.search else ():
        if isinstance(listed, list):
            values += [(f"search.space.{key}", key, value) for value in listed]
    for where, key, value in values:
        if key.rpartition("__")[2] == "random_state" and value is None:
            raise ConfigError(
                f"train.algorithms.{name}.{where}: null would train another model each time, and the same inputs "
                f"must give the same bytes; write a number, or leave it out for {SEED}"
            )
        if key in CLASS_WEIGHTS and where != key and isinstance(value, dict):
            raise ConfigError(
                f"train.algorithms.{name}.{where}: weights of single classes cannot be searched; "
                f"write them as {key} of the block, or search over balanced and null"
            )
        possible = algorithm.exportable.get(key)
        if possible is not None and value is not None and value not in possible:
            raise ConfigError(
                f"train.algorithms.{name}.{where}: {value!r} cannot be exported to ONNX; "
                f"use {' or '.join(map(str, possible))}, or leave it out"
            )


def _native(name: str, algorithm: Algorithm, settings: AlgorithmSettings, profile: Profile) -> dict[str, Any]:
    """The parameters by which the estimator learns which columns are codes of categories."""
    categories = [each for each in profile.features if isinstance(each, CategoryFeature)]
    if settings.categories != "native" or not categories:
        return {}
    if settings.features:
        raise ConfigError(
            f"train.algorithms.{name}.categories: native needs to know the place of each column, and {settings.features} may "
            "make any number of them: use target or one_hot"
        )
    if algorithm.native is None:
        raise ConfigError(f"train.algorithms.{name}.categories: {name} has no splits over categories")
    for each in categories:
        if 0 < algorithm.most_codes < len(each.categories) + each.missing:
            raise ConfigError(
                f"train.algorithms.{name}.categories: native takes up to {algorithm.most_codes} categories, and "
                f"{each.name} has {len(each.categories) + each.missing}: use target"
            )
    return dict(algorithm.native(len(profile.layout.numbers), len(categories)))


def _by_column(
    where: str, signs: Mapping[Any, Any], profile: Profile, settings: AlgorithmSettings
) -> list[int]:
    """Signs as the estimators take them: one for each column, which are the numbers and then the encoded categories."""
    numbers = profile.layout.numbers
    for name, sign in signs.items():
        if name not in numbers:
            raise ConfigError(
                f"{where}: {name!r} is no number among the features; there are {', '.join(numbers)}"
            )
        if sign not in (1, -1, 0) or isinstance(sign, bool):
            raise ConfigError(f"{where}.{name}: {sign!r} is not 1, -1 or 0")
    encoded = len(origins(profile, settings)) - len(numbers)
    return [*(signs.get(name, 0) for name in numbers), *([0] * encoded)]


def _by_position(where: str, weights: Mapping[Any, Any], classes: Sequence[str]) -> dict[int, float]:
    """Weights as the estimators take them: by the index of the class."""
    for key, weight in weights.items():
        if str(key) not in classes:
            raise ConfigError(
                f"{where}: there is no class {key!r}; there are {', '.join(map(repr, classes))}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ConfigError(f"{where}.{key}: {weight!r} is not a weight; write a number above 0")
    return {classes.index(str(key)): weight for key, weight in weights.items()}
