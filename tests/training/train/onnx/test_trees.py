"""Trees of every package, as they are and as their files answer: at thresholds and beside them, with ties and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app.contract import Layout, Task
from app.predictor import Classifier, Regressor
from tests.tools import examples
from tests.training.problems import fitted, kinds, problem
from training.train.algorithms import ESTIMATOR, create
from training.train.onnx import export
from training.train.onnx.ensembles import in_float32
from training.train.onnx.readers import read

VALUES = st.one_of(
    st.floats(-(2.0**126), 2.0**126),
    st.floats(-(2.0**126), 2.0**126, width=32),
    st.floats(-1e-44, 1e-44),
    st.integers(-1000, 1000).map(lambda steps: steps / 20),
)
LARGEST = float(np.finfo(np.float32).max)
SPECIAL = (0.0, -0.0, 1e-36, -1e-36, float(np.float32(1e-35)), -float(np.float32(1e-35)), 5e-324, 1e30, -1e30)
"""Signed zeros, what LightGBM takes for zero, the smallest number, and values far out."""


@settings(max_examples=examples(300))
@given(VALUES, VALUES)
def test_a_value_passes_the_limit_if_its_cast_passes_the_threshold(threshold: float, value: float) -> None:
    (limit,) = in_float32(np.array([threshold]))
    for each in (value, threshold, limit, np.nextafter(limit, -np.inf)):
        assert (float(np.float32(each)) <= threshold) == (each <= limit)
    assert float(np.float32(np.nextafter(limit, np.inf))) > threshold


def test_the_largest_float32_is_a_limit_too() -> None:
    (limit,) = in_float32(np.array([LARGEST]))
    with np.errstate(over="ignore"):
        assert np.float32(limit) == LARGEST
        assert np.float32(np.nextafter(limit, np.inf)) == np.inf


@dataclass(frozen=True)
class Case:
    """A fitted pipeline and rows to ask about."""

    pipeline: Pipeline
    rows: NDArray[np.float64]
    target: NDArray[Any]

    @property
    def layout(self) -> Layout:
        return Layout(tuple(f"feature_{column}" for column in range(self.rows.shape[1])), ())

    def file(self) -> bytes:
        return export.export(self.pipeline, self.layout)


def case(seed: int, name: str, task: Task, parameters: dict[str, Any]) -> Case:
    """A few rows on a grid, with ties, copies and, if the estimator takes them, gaps; and rows around the thresholds."""
    random = np.random.default_rng(seed)
    algorithm = create(name, task)
    classes, features, rows = (int(random.integers(*each)) for each in ((2, 6), (1, 4), (12, 80)))
    y = np.concatenate([np.arange(classes), random.integers(0, classes, rows)])
    X = (
        random.normal(0, random.choice([0.3, 1, 3]), (len(y), features))
        + random.integers(0, 4, (classes, features))[y]
    )
    step = random.choice([1.0, 0.5, 0.1, 0.01])
    X = np.round(np.round(X / step) * step + random.choice([0, 0, 1e4]), 6)
    if algorithm.takes_missing and random.random() < 0.6:
        X[random.random(X.shape) < 0.15] = np.nan
    if random.random() < 0.2:
        X, y = np.concatenate([X, X]), np.concatenate([y, y[::-1]])
    target = y
    if task == "regression":
        target = y + np.round(random.normal(0, 0.5, len(y)), 2) + random.choice([0, 2000, 1e6])
    pipeline = Pipeline([(ESTIMATOR, algorithm.estimator.set_params(**parameters))]).fit(X, target)
    columns = [around(random, pipeline, X, column, algorithm.takes_missing) for column in range(features)]
    return Case(pipeline, np.concatenate([X, np.column_stack(columns)]), target)


def around(
    random: np.random.Generator, pipeline: Pipeline, X: NDArray[np.float64], column: int, missing: bool
) -> NDArray[np.float64]:
    """Values at the limits of a feature, one step of either type beside them, and special ones."""
    ensemble = read(pipeline[-1])
    assert ensemble is not None
    limits = np.concatenate([each.limit[~each.leaf & (each.feature == column)] for each in ensemble.trees])
    # An infinite one parts missing values from all others.
    limits = np.clip(limits, -LARGEST, LARGEST)
    single = limits.astype(np.float32)
    near = [limits, np.nextafter(limits, np.inf), np.nextafter(limits, -np.inf), np.round(limits, 1), single]
    with np.errstate(over="ignore"):
        near += [np.nextafter(single, np.float32(-np.inf)), np.nextafter(single, np.float32(np.inf))]
    special = [*SPECIAL, *([np.nan] * 5 if missing else [])]
    pool = np.concatenate([*near, X[:, column], np.repeat(special, 1 + len(limits) // 20)])
    if not missing or "sklearn.ensemble._hist" not in type(pipeline[-1]).__module__:
        pool = np.clip(pool, -1e38, 1e38)
    return random.choice(pool, 600)


SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(1, 30)
DEPTHS = st.integers(1, 5)
RATES = st.sampled_from([0.1, 0.3, 1.0])
PARAMETERS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "decision_tree": st.fixed_dictionaries({"max_depth": st.none() | DEPTHS}),
    "random_forest": st.fixed_dictionaries({"n_estimators": COUNTS, "max_depth": st.none() | DEPTHS}),
    "extra_trees": st.fixed_dictionaries({"n_estimators": COUNTS, "max_depth": st.none() | DEPTHS}),
    "gradient_boosting": st.fixed_dictionaries(
        {"n_estimators": COUNTS, "max_depth": DEPTHS, "init": st.sampled_from([None, "zero"])}
    ),
    "hist_gradient_boosting": st.fixed_dictionaries(
        {"max_iter": COUNTS, "min_samples_leaf": st.integers(1, 30), "learning_rate": RATES}
    ),
    "xgboost": st.fixed_dictionaries(
        {
            "n_estimators": COUNTS,
            "max_depth": DEPTHS,
            "learning_rate": RATES,
            "tree_method": st.sampled_from(["exact", "hist"]),
            "base_score": st.sampled_from([None, 0.25]),
            "num_parallel_tree": st.sampled_from([1, 3]),
            "colsample_bytree": st.sampled_from([1.0, 0.5]),
        }
    ),
    "lightgbm": st.fixed_dictionaries(
        {
            "n_estimators": COUNTS,
            "num_leaves": st.integers(2, 10),
            "min_child_samples": st.integers(1, 60),
            "learning_rate": RATES,
            "boosting_type": st.sampled_from(["gbdt", "dart"]),
        }
    ),
    "catboost": st.fixed_dictionaries(
        {
            "n_estimators": COUNTS,
            "depth": DEPTHS,
            "learning_rate": RATES,
            "grow_policy": st.sampled_from(["SymmetricTree", "Depthwise", "Lossguide"]),
            "nan_mode": st.sampled_from(["Min", "Max"]),
        }
    ),
}
SINGLE = ("xgboost",)
"""What computes probabilities and values in float32."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
@settings(max_examples=examples(8), deadline=None)
@given(st.data(), SEEDS)
def test_classes_and_probabilities_are_the_estimators(name: str, data: st.DataObject, seed: int) -> None:
    made = case(seed, name, "classification", data.draw(PARAMETERS[name]))
    label, probabilities = Classifier(made.file(), made.layout).predict(made.rows)
    assert (label == made.pipeline.predict(made.rows)).all()
    gaps = np.abs(probabilities - made.pipeline.predict_proba(made.rows))
    assert gaps.max() < (1e-12 if probabilities.dtype == np.float64 else 5e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
@settings(max_examples=examples(5), deadline=None)
@given(st.data(), SEEDS)
def test_values_are_the_estimators_to_the_last_digits(name: str, data: st.DataObject, seed: int) -> None:
    """Also with a mean a million times the spread."""
    made = case(seed, name, "regression", data.draw(PARAMETERS[name]))
    value = Regressor(made.file(), made.layout).predict(made.rows)
    gaps = np.abs(value - made.pipeline.predict(made.rows))
    # CatBoost adds up four trees at a time, and the mean at the end.
    assert gaps.max() <= (1e-14 * np.abs(made.target).max() if name == "catboost" else 0)


def test_sums_that_a_division_makes_equal_are_told_apart() -> None:
    """3.6666666666666665 and 3.666666666666667 votes of 13 trees are the same share."""
    made = case(16, "random_forest", "classification", {"n_estimators": 13})
    shares = made.pipeline.predict_proba(made.rows)
    label, _ = Classifier(made.file(), made.layout).predict(made.rows)
    assert (label == made.pipeline.predict(made.rows)).all()
    assert shares.shape[1] > 2


@pytest.mark.parametrize(
    "name", ["gradient_boosting", "hist_gradient_boosting", "xgboost", "lightgbm", "catboost"]
)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_trees_of_a_single_leaf_are_exported(name: str, task: Task) -> None:
    """With so few rows, or so strong a penalty, nothing is split."""
    still: dict[str, dict[str, Any]] = {
        "gradient_boosting": {"min_impurity_decrease": 1e9},
        "hist_gradient_boosting": {"min_samples_leaf": 1000},
        "xgboost": {"gamma": 1e9},
        "lightgbm": {"min_child_samples": 1000},
        "catboost": {"grow_policy": "Lossguide", "min_data_in_leaf": 1000},
    }
    algorithm = create(name, task)
    random = np.random.default_rng(0)
    X = random.normal(size=(30, 2))
    y = random.integers(0, 3, 30) if task == "classification" else 2000 + random.normal(size=30)
    pipeline = Pipeline([(ESTIMATOR, algorithm.estimator.set_params(**still[name]))]).fit(X, y)
    made = Case(pipeline, X, y)
    if task == "classification":
        label, probabilities = Classifier(made.file(), made.layout).predict(X)
        assert (label == pipeline.predict(X)).all()
        assert np.abs(probabilities - pipeline.predict_proba(X)).max() < 5e-7
        assert len(np.unique(probabilities, axis=0)) == 1
    else:
        value = Regressor(made.file(), made.layout).predict(X)
        assert value == pytest.approx(pipeline.predict(X), abs=1e-9)


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_values_that_are_exponentials(loss: str) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 2))
    y = np.exp(X[:, 0]) + 0.1
    others: dict[str, dict[str, Any]] = {
        "hist_gradient_boosting": {"loss": loss},
        "lightgbm": {"objective": loss},
        "xgboost": {"objective": {"poisson": "count:poisson", "gamma": "reg:gamma"}[loss]},
    }
    for name, parameters in others.items():
        estimator = create(name, "regression").estimator.set_params(**parameters)
        made = Case(Pipeline([(ESTIMATOR, estimator)]).fit(X, y), X, y)
        value = Regressor(made.file(), made.layout).predict(X)
        expected = made.pipeline.predict(X)
        assert value == pytest.approx(expected, rel=1e-6 if name in SINGLE else 1e-13)


def test_what_trees_alone_do_not_express_is_refused() -> None:
    from lightgbm import LGBMClassifier

    random = np.random.default_rng(0)
    X, y = random.integers(0, 3, (90, 2)).astype(float), random.integers(0, 2, 90)
    for estimator, message in (
        (LGBMClassifier(zero_as_missing=True, verbose=-1, min_child_samples=2), "zero_as_missing"),
        (LGBMClassifier(linear_tree=True, verbose=-1, min_child_samples=2), "linear trees"),
        (
            LGBMClassifier(boosting_type="rf", subsample=0.5, subsample_freq=1, verbose=-1),
            "rf is not supported",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read(estimator.fit(X, y))


def test_splits_over_categories_that_are_numbers_are_refused() -> None:
    random = np.random.default_rng(0)
    X, y = random.integers(0, 3, (90, 2)).astype(float), random.integers(0, 2, 90)
    estimator = HistGradientBoostingClassifier(categorical_features=[0], min_samples_leaf=2)
    with pytest.raises(ValueError, match="use categories: native"):
        export.export(Pipeline([(ESTIMATOR, estimator)]).fit(X, y), Layout(("a", "b"), ()))


@pytest.mark.parametrize(
    ("estimator", "classes", "expected"),
    [
        (DecisionTreeClassifier(), 3, ["TreeEnsembleClassifier"]),
        (DecisionTreeClassifier(), 2, ["TreeEnsembleClassifier", "Slice"]),
        (create("random_forest", "classification").estimator, 3, ["TreeEnsembleClassifier", "Div"]),
        (create("random_forest", "classification").estimator, 2, ["TreeEnsembleClassifier", "Slice", "Div"]),
        (GradientBoostingClassifier(), 3, ["TreeEnsemble", "ArgMax", "Softmax"]),
        (HistGradientBoostingClassifier(), 2, ["TreeEnsemble", "Gemm", "ArgMax", "Softmax"]),
        (create("xgboost", "classification").estimator, 3, ["Cast", "TreeEnsemble", "Softmax", "ArgMax"]),
        (DecisionTreeRegressor(), 3, ["TreeEnsemble"]),
        (HistGradientBoostingRegressor(), 3, ["TreeEnsemble"]),
        (create("random_forest", "regression").estimator, 3, ["TreeEnsemble", "Div"]),
    ],
    ids=lambda each: type(each).__name__ if hasattr(each, "fit") else None,
)
def test_nodes_are_few(estimator: Any, classes: int, expected: list[str]) -> None:
    small = problem(seed=1, classes=classes, features=3)
    assert kinds(fitted(estimator, small, scale=False), small.X) == expected
