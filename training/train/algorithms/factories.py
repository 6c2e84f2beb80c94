"""One factory for each algorithm.

To add one, write a factory function here and a block of its name under `train.algorithms` in `params.yaml`.
A factory returns the task's estimator with the project's defaults; the block's parameters are then set on it. A block may
name a function of the model's own instead.

Every estimator has one thread and a fixed seed: with more threads, sums are added up in another order and the model
differs between machines.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

from app.contract import Task
from training.base.errors import ConfigError
from training.custom import functions
from training.train.algorithms.preparation import ESTIMATOR

CLASSES: Task = "classification"
VALUES: Task = "regression"

SEED = 7
"""Random state of the estimators; in the code, so that it is the same for all algorithms."""


MOST_SVM_ROWS = 20_000
ROWS_OF_A_TREE = 1_000_000
"""Of a forest, if there are more."""


@dataclass(frozen=True)
class Algorithm:
    """An estimator and the preparation that it needs.

    Attributes:
        estimator: a scikit-learn classifier or regressor.
        tunable: where in the estimator the block's parameters go, "" for the estimator itself.
        scale: whether numbers are standardised first.
        takes_missing: whether the estimator itself decides about missing numbers; else they become the median.
        exportable: for parameters with values that cannot be exported, the values that can.
        most_rows: how many training rows there may be; 0 for any.
        why: why there may not be more.
        approximation: takes its place if there are more.
        without_effect: names that a block may have for the other of the two.
        most_drawn: how many rows each tree of a forest draws at most; 0 for as many as there are.
        native: the parameters by which the estimator learns that so many columns of numbers come first and so many of
            categories' codes after them; None if it splits over no categories.
        most_codes: how many categories a column of codes may have; 0 for any.
    """

    estimator: Any
    tunable: str = ""
    scale: bool = True
    takes_missing: bool = False
    exportable: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    most_rows: int = 0
    why: str = ""
    approximation: Callable[[], Algorithm] | None = None
    without_effect: tuple[str, ...] = ()
    most_drawn: int = 0
    native: Callable[[int, int], Mapping[str, Any]] | None = None
    most_codes: int = 0

    @property
    def prefix(self) -> str:
        """The prefix of parameter names in the pipeline."""
        return f"{ESTIMATOR}__{self.tunable}__" if self.tunable else f"{ESTIMATOR}__"


def logistic_regression(_: Task) -> Algorithm:
    from sklearn.linear_model import LogisticRegression

    return Algorithm(LogisticRegression(max_iter=1000, random_state=SEED))


def ridge(_: Task) -> Algorithm:
    from sklearn.linear_model import Ridge

    return Algorithm(Ridge(random_state=SEED))


def decision_tree(task: Task) -> Algorithm:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    kind = DecisionTreeClassifier if task == CLASSES else DecisionTreeRegressor
    return Algorithm(kind(random_state=SEED), scale=False)


def random_forest(task: Task) -> Algorithm:
    from sklearn.ensemble import RandomForestRegressor

    from training.train.algorithms.forests import SummedRandomForestClassifier

    kind = SummedRandomForestClassifier if task == CLASSES else RandomForestRegressor
    return Algorithm(kind(random_state=SEED, n_jobs=1), scale=False, most_drawn=ROWS_OF_A_TREE)


def extra_trees(task: Task) -> Algorithm:
    from sklearn.ensemble import ExtraTreesRegressor

    from training.train.algorithms.forests import SummedExtraTreesClassifier

    kind = SummedExtraTreesClassifier if task == CLASSES else ExtraTreesRegressor
    return Algorithm(kind(random_state=SEED, n_jobs=1), scale=False, most_drawn=ROWS_OF_A_TREE)


def gradient_boosting(task: Task) -> Algorithm:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    exportable: dict[str, tuple[Any, ...]] = {"init": ("zero",)}
    if task == CLASSES:
        exportable["loss"] = ("log_loss",)
    kind = GradientBoostingClassifier if task == CLASSES else GradientBoostingRegressor
    return Algorithm(kind(random_state=SEED), scale=False, exportable=exportable)


def hist_gradient_boosting(task: Task) -> Algorithm:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if task == CLASSES else HistGradientBoostingRegressor
    # Other columns than those of categories are numbers.
    exportable = {"categorical_features": ("from_dtype",)}
    return Algorithm(
        kind(random_state=SEED),
        scale=False,
        takes_missing=True,
        exportable=exportable,
        native=lambda numbers, codes: {"categorical_features": _after(numbers, codes)},
        most_codes=255,
    )


def xgboost(task: Task) -> Algorithm:
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBClassifier if task == CLASSES else XGBRegressor
    objectives = {
        # XGBoost itself replaces the others without a word where there are more than two classes.
        CLASSES: ("binary:logistic", "multi:softprob"),
        VALUES: (
            "reg:squarederror",
            "reg:absoluteerror",
            "reg:pseudohubererror",
            "count:poisson",
            "reg:gamma",
            "reg:tweedie",
        ),
    }
    return Algorithm(
        kind(random_state=SEED, n_jobs=1, tree_method="hist"),
        scale=False,
        takes_missing=True,
        exportable={
            "booster": ("gbtree",),
            "multi_strategy": ("one_output_per_tree",),
            "enable_categorical": (False,),
            "objective": objectives[task],
        },
        native=lambda numbers, codes: {
            "enable_categorical": True,
            "feature_types": ["q"] * numbers + ["c"] * codes,
        },
    )


_LIGHTGBM_MORE = (
    "monotone_constraints",
    "cat_l2",
    "cat_smooth",
    "max_cat_threshold",
    "max_cat_to_onehot",
    "min_data_per_group",
)


def lightgbm(task: Task) -> Algorithm:
    _require("lightgbm")
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMClassifier if task == CLASSES else LGBMRegressor
    objectives = {
        CLASSES: ("binary", "multiclass"),
        VALUES: (
            "regression",
            "regression_l1",
            "huber",
            "fair",
            "quantile",
            "mape",
            "poisson",
            "gamma",
            "tweedie",
        ),
    }
    fixed = {"random_state": SEED, "n_jobs": 1, "verbose": -1, "deterministic": True, "force_row_wise": True}
    return Algorithm(
        # LightGBM knows more parameters than scikit-learn can list, so those that blocks may have are named.
        kind(**fixed, **dict.fromkeys(_LIGHTGBM_MORE)),
        scale=False,
        takes_missing=True,
        exportable={"boosting_type": ("gbdt", "dart"), "objective": objectives[task]},
        # Under its main name, categorical_feature, LightGBM takes it for an argument of `fit`.
        native=lambda numbers, codes: {"categorical_column": _after(numbers, codes)},
    )


def catboost(task: Task) -> Algorithm:
    _require("catboost")
    from training.train.algorithms.catboost import CodedCatBoostClassifier, CodedCatBoostRegressor

    kind = CodedCatBoostClassifier if task == CLASSES else CodedCatBoostRegressor
    losses = {CLASSES: ("Logloss", "MultiClass"), VALUES: ("RMSE", "MAE")}
    return Algorithm(
        kind(random_state=SEED, thread_count=1, logging_level="Silent", allow_writing_files=False),
        scale=False,
        takes_missing=True,
        exportable={"loss_function": losses[task], "max_ctr_complexity": (1,)},
        # Statistics of combined categories would need a table over their combinations.
        native=lambda numbers, codes: {
            "cat_features": tuple(_after(numbers, codes)),
            "max_ctr_complexity": 1,
        },
    )


def svm(task: Task) -> Algorithm:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC, SVR

    attributes: dict[str, Any] = {
        "most_rows": MOST_SVM_ROWS,
        "approximation": partial(_approximate_svm, task),
        "without_effect": ("n_components",),
        "exportable": _KERNELS,
    }
    if task == VALUES:
        return _scaled_target(SVR(kernel="rbf"), **attributes)
    # SVC's own probabilities are deprecated and do not survive the export; calibrated ones do.
    calibrated = CalibratedClassifierCV(SVC(kernel="rbf", random_state=SEED), ensemble=False)
    return Algorithm(calibrated, tunable="estimator", **attributes)


_KERNELS = {"kernel": ("rbf", "linear", "poly", "sigmoid")}


def _approximate_svm(task: Task) -> Algorithm:
    from training.train.algorithms.nystroem import NystroemSVC, NystroemSVR

    solver = ("cache_size", "max_iter", "shrinking", "tol", "verbose")
    if task == VALUES:
        return _scaled_target(NystroemSVR(random_state=SEED), exportable=_KERNELS, without_effect=solver)
    of_classes = ("break_ties", "decision_function_shape", "probability")
    return Algorithm(
        NystroemSVC(random_state=SEED), exportable=_KERNELS, without_effect=(*solver, *of_classes)
    )


def k_nearest_neighbors(task: Task) -> Algorithm:
    from training.train.algorithms.neighbors import NearestNeighborsClassifier, NearestNeighborsRegressor

    estimator = NearestNeighborsClassifier() if task == CLASSES else NearestNeighborsRegressor()
    return Algorithm(estimator, most_rows=200_000, why="the model holds all rows and compares each with them")


def naive_bayes(_: Task) -> Algorithm:
    from sklearn.naive_bayes import GaussianNB

    # With less, an encoded category that a class lacks outweighs all other features.
    return Algorithm(GaussianNB(var_smoothing=1e-3))


def mlp(task: Task) -> Algorithm:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if task == VALUES:
        return _scaled_target(MLPRegressor(random_state=SEED, max_iter=1000))
    return Algorithm(MLPClassifier(random_state=SEED, max_iter=1000))


def _after(numbers: int, codes: int) -> list[int]:
    return list(range(numbers, numbers + codes))


def _scaled_target(regressor: Any, **attributes: Any) -> Algorithm:
    """An algorithm whose defaults are made for targets around 0 with a standard deviation of 1."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    scaled = TransformedTargetRegressor(regressor=regressor, transformer=StandardScaler())
    return Algorithm(scaled, tunable="regressor", **attributes)


def _by_name(*factories: Callable[[Task], Algorithm]) -> dict[str, Callable[[Task], Algorithm]]:
    return {each.__name__: each for each in factories}


_FOR_BOTH = (
    decision_tree,
    random_forest,
    extra_trees,
    gradient_boosting,
    hist_gradient_boosting,
    xgboost,
    lightgbm,
    catboost,
    svm,
    k_nearest_neighbors,
    mlp,
)

FACTORIES: Mapping[Task, dict[str, Callable[[Task], Algorithm]]] = {
    CLASSES: _by_name(logistic_regression, naive_bayes, *_FOR_BOTH),
    VALUES: _by_name(ridge, *_FOR_BOTH),
}
"""The algorithms of each task."""


def create(name: str, task: Task, function: str | None = None, rows: int = 0) -> Algorithm:
    """Build an algorithm by the name of its block.

    Args:
        name: of the block.
        task: of the model.
        function: of the model's own, which makes the estimator instead of the project's factory of that name.
        rows: of the training split. They decide whether an approximation takes the algorithm's place, so that it does in every
            fold or in none.

    Raises:
        ConfigError: there is no such factory or function for the task, its package is not installed, or there are too many
            rows.
    """
    if function is not None:
        return Algorithm(seeded(functions.estimator(f"train.algorithms.{name}.estimator", function, task)))
    known = FACTORIES[task]
    if name not in known:
        (other,) = FACTORIES.keys() - {task}
        if name in FACTORIES[other]:
            raise ConfigError(
                f"train.algorithms.{name}: {name} is for a {other}, and the target is a {task}; "
                f"there are {', '.join(known)}"
            )
        guess = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {guess[0]}? " if guess else ""
        raise ConfigError(
            f"train.algorithms.{name}: no such algorithm; {hint}There are {', '.join(known)}; "
            "another one takes the key estimator (docs/custom-code.md)"
        )
    made = known[name](task)
    if not made.most_rows or rows <= made.most_rows:
        return made
    if made.approximation is not None:
        return made.approximation()
    raise ConfigError(
        f"train.algorithms.{name}: {made.why}, and {rows:,} training rows are more than {made.most_rows:,}: remove the block, "
        "or use hist_gradient_boosting"
    )


def seeded(made: Any) -> Any:
    """An estimator or transformer with a seed wherever it has none."""
    unset = [
        key
        for key, value in made.get_params().items()
        if key.rpartition("__")[2] == "random_state" and value is None
    ]
    if unset:
        made.set_params(**dict.fromkeys(unset, SEED))
    return made


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(
            f"train.algorithms.{package}: the package {package} is not installed: "
            f"run `uv add --group train {package}`"
        )
