"""What an algorithm sees of categories, and that its file sees the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder

from app.contract import Task
from app.predictor import Classifier
from tests.tools import examples
from tests.training.rows import FAST, prepared, shops
from training.base.errors import ConfigError
from training.data.dataset import GROUP, TIME, Profile, Split
from training.results import scores
from training.sections.algorithms import NATIVE, AlgorithmSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.train import algorithms, parity
from training.train import fitting as train
from training.train.algorithms import CATEGORIES, FEATURES
from training.train.algorithms.encoding import CrossFittedTargetEncoder
from training.train.folds import folds
from training.train.onnx import export

MONOTONE = {
    "xgboost": "monotone_constraints",
    "lightgbm": "monotone_constraints",
    "catboost": "monotone_constraints",
    "hist_gradient_boosting": "monotonic_cst",
}


def pipeline(name: str, profile: Profile, **block: Any) -> Pipeline:
    keys = {**FAST.get(name, {}), **block}
    return algorithms.pipeline(name, AlgorithmSettings.model_validate(keys), profile)


def differences(fitted: Pipeline, profile: Profile, rows: Split, count: int = 10_000) -> float:
    """The largest difference between the file and the estimator; a class that differs is an error."""
    answerer = scores.of(profile.task).answerer(export.export(fitted, profile.layout), profile.layout)
    return parity.check_parity(
        fitted, answerer, rows, parity.generated_rows(profile, rows, count, 1)
    ).largest_difference


def fitted(name: str, profile: Profile, rows: Split, **block: Any) -> Pipeline:
    return train.fit(pipeline(name, profile, **block), rows, name)


TASKS: list[tuple[Task, int]] = [("classification", 2), ("classification", 3), ("regression", 0)]
CASES = [(name, task, classes) for task, classes in TASKS for name in algorithms.FACTORIES[task]]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task", "classes"), CASES)
def test_means_of_the_target_are_looked_up_exactly(name: str, task: Task, classes: int) -> None:
    few = {"max_iter": 50} if name in ("mlp", "logistic_regression") else {}
    profile, rows = shops(classes, rows=400)
    gap = differences(fitted(name, profile, rows, categories="target", **few), profile, rows, 5000)
    assert gap <= 1e-6 if task == "classification" else 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3, 0])
@pytest.mark.parametrize("name", NATIVE)
def test_splits_over_sets_are_exact(name: str, classes: int) -> None:
    profile, rows = shops(classes)
    gap = differences(fitted(name, profile, rows, categories="native"), profile, rows)
    if classes:
        assert gap <= (1e-6 if name in ("xgboost", "catboost") else 1e-12)
    else:
        # CatBoost adds up four trees at a time.
        assert gap <= (1e-13 if name == "catboost" else 0)


PARAMETERS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "catboost": st.fixed_dictionaries(
        {
            "depth": st.integers(1, 5),
            "one_hot_max_size": st.sampled_from([2, 10, 255]),
            "simple_ctr": st.sampled_from([None, "Counter", ["Borders", "Counter"]]),
        }
    ),
    "hist_gradient_boosting": st.fixed_dictionaries(
        {"max_leaf_nodes": st.integers(2, 20), "min_samples_leaf": st.integers(1, 30)}
    ),
    "lightgbm": st.fixed_dictionaries(
        {
            "num_leaves": st.integers(2, 20),
            "min_child_samples": st.integers(1, 30),
            "min_data_per_group": st.sampled_from([1, 100]),
            "max_cat_to_onehot": st.sampled_from([1, 4, 100]),
        }
    ),
    "xgboost": st.fixed_dictionaries(
        {
            "max_depth": st.integers(1, 6),
            "tree_method": st.sampled_from(["hist", "approx"]),
            "max_cat_to_onehot": st.sampled_from([1, 4, 100]),
        }
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=examples(6), deadline=None)
@given(
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
    towns=st.integers(1, 90),
    rows=st.integers(40, 300),
    classes=st.sampled_from([0, 2, 4]),
)
def test_sets_are_exact_also_for_categories_that_training_does_not_have(
    name: str, data: st.DataObject, seed: int, towns: int, rows: int, classes: int
) -> None:
    profile, whole = shops(classes, towns, rows, seed)
    random = np.random.default_rng(seed)
    # Some of the declared categories, and the missing one, may be in no row that is fitted on.
    absent = random.choice(whole.categories[:, 1], min(towns, rows) // 8)
    kept = np.flatnonzero(~np.isin(whole.categories[:, 1], absent))
    for number in range(classes):
        if not (whole.target[kept] == number).any():
            kept = np.append(kept, np.flatnonzero(whole.target == number)[0])
    parameters = {key: each for key, each in data.draw(PARAMETERS[name]).items() if each is not None}
    few = {"max_iter" if name == "hist_gradient_boosting" else "n_estimators": 8}
    found = fitted(name, profile, whole.take(kept), categories="native", **few, **parameters)
    assert differences(found, profile, whole, 1000) <= (1e-6 if classes else 1e-13)


@pytest.mark.parametrize("categories", ["native", "target"])
@pytest.mark.parametrize("name", NATIVE)
def test_a_category_that_nobody_declared_is_the_same_to_both(name: str, categories: str) -> None:
    profile, rows = shops(2)
    found = fitted(name, profile, rows, categories=categories)
    strange = Split(rows.numbers[:90], rows.categories[:90].copy(), rows.target[:90], rows.frame[:90])
    strange.categories[:30, 0] = "violet"
    strange.categories[20:60, 1] = "Atlantis"
    predictor = Classifier(export.export(found, profile.layout), profile.layout)
    _, shares = predictor.predict(strange.numbers, strange.categories)
    assert shares == pytest.approx(found.predict_proba(algorithms.inputs(strange)), abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("categories", ["native", "target"])
@pytest.mark.parametrize("name", NATIVE)
def test_monotone_constraints_find_their_column(name: str, categories: str, sign: int) -> None:
    profile, rows = shops(2)
    found = fitted(name, profile, rows, categories=categories, **{MONOTONE[name]: {"size": sign}})
    predictor = Classifier(export.export(found, profile.layout), profile.layout)
    column = profile.layout.numbers.index("size")
    asked = np.repeat(rows.numbers[:20], 101, axis=0)
    asked[:, column] = np.tile(np.linspace(0, 10, 101), 20)
    _, shares = predictor.predict(asked, np.repeat(rows.categories[:20], 101, axis=0))
    steps = np.diff(shares[:, 1].reshape(20, 101), axis=1) * sign
    assert steps.min() >= -1e-7
    assert sign < 0 or steps.max() > 0, "the second class is larger"


def test_without_numbers_or_with_one_category_a_file_is_written_too() -> None:
    frame = shops(2)[1].frame[["town", "kind"]]
    profile, rows = prepared(frame, {"town": {"type": "category", "missing": 0.5}})
    for name, categories in (("lightgbm", "native"), ("xgboost", "native"), ("naive_bayes", "target")):
        found = fitted(name, profile, rows, categories=categories)
        assert differences(found, profile, rows, 1000) <= 1e-6


def test_without_categories_the_key_changes_nothing() -> None:
    frame = shops(2)[1].frame[["age", "kind"]]
    profile, rows = prepared(frame, {"age": {"type": "number", "range": [0, 5]}})
    files = {
        export.export(fitted("lightgbm", profile, rows, categories=each), profile.layout)
        for each in ("one_hot", "native", "target")
    }
    assert len(files) == 1


@pytest.mark.parametrize(
    ("name", "block", "message"),
    [
        ("catboost", {"grow_policy": "Depthwise"}, "not supported with this grow_policy"),
        ("catboost", {"max_ctr_complexity": 2}, "max_ctr_complexity: 2 cannot be exported"),
        ("hist_gradient_boosting", {}, "native takes up to 255 categories, and town has 301: use target"),
    ],
)
def test_what_cannot_be_written_exactly_is_one_line(name: str, block: dict[str, Any], message: str) -> None:
    profile, rows = shops(2, towns=300, rows=3000)
    with pytest.raises(ConfigError, match=message):
        task_of(name, profile, rows, categories="native", **block)


def task_of(name: str, profile: Profile, rows: Split, **block: Any) -> bytes:
    """Fit and export as the stage does."""
    keys = AlgorithmSettings.model_validate({**FAST.get(name, {}), **block})
    task = train.Task(name, keys, EvaluateSettings(), DecisionSettings(), profile, rows, rows)
    found, parameters, _ = train.fit_searched(task, rows)
    return train.exported(task, found, parameters)


def test_the_search_varies_other_parameters() -> None:
    profile, rows = shops(2)
    search = {"method": "grid", "space": {"num_leaves": [2, 8]}, "folds": 2}
    for categories in ("native", "target"):
        assert task_of("lightgbm", profile, rows, categories=categories, search=search)


def noise(rows: int = 600, values: int = 200) -> tuple[Profile, Split]:
    """Two classes at random, a category of many values that says nothing, and a number that says something."""
    random = np.random.default_rng(3)
    label = random.integers(0, 2, rows)
    return prepared(
        pd.DataFrame(
            {
                "code": np.array([f"code {each}" for each in random.integers(0, values, rows)], dtype=object),
                "hint": np.round(label + random.normal(0, 1.5, rows), 2),
                "kind": np.array([f"kind {each}" for each in label], dtype=object),
            }
        ),
        {"code": {"type": "category"}, "hint": {"type": "number", "range": [-9, 9]}},
    )


def area(profile: Profile, rows: Split, fit: Any) -> float:
    """The area under the ROC curve over folds, of what `fit` makes of training rows."""
    shares = np.empty(len(rows))
    for inner, outer in folds(rows, 5, 1, "folds"):
        shares[outer] = fit(rows.take(inner)).predict_proba(algorithms.inputs(rows.take(outer)))[:, 1]
    return float(roc_auc_score(rows.target, shares))


def test_the_encoding_of_noise_does_not_leak_and_a_naive_one_does() -> None:
    rows = noise()[1]
    codes = rows.categories
    seen = TargetEncoder(target_type="binary").fit(codes, rows.target).transform(codes)
    naive = np.empty(len(rows))
    for inner, outer in StratifiedKFold(5, shuffle=True, random_state=1).split(seen, rows.target):
        model = LogisticRegression().fit(seen[inner], rows.target[inner])
        naive[outer] = model.predict_proba(seen[outer])[:, 1]
    assert roc_auc_score(rows.target, naive) > 0.8

    profile, alone = prepared(rows.frame[["code", "kind"]], {"code": {"type": "category"}})
    for name in ("logistic_regression", "lightgbm", "decision_tree"):
        found = area(profile, alone, lambda part, name=name: fitted(name, profile, part, categories="target"))
        assert abs(found - 0.5) < 0.06


def test_the_encoding_of_noise_does_not_hide_what_a_number_says() -> None:
    """A tree that saw each row's own target in its encoding would trust it more than the number."""
    profile, rows = noise()
    name = "decision_tree"
    crossed = area(profile, rows, lambda part: fitted(name, profile, part, categories="target", max_depth=3))

    def naively(part: Split) -> Pipeline:
        found = pipeline(name, profile, categories="target", max_depth=3)
        everything = np.arange(len(part))
        encoder = found.named_steps[FEATURES].transformers[-1][1]
        encoder.set_params(folds=[(everything, everything)])
        return found.fit(algorithms.inputs(part), part.target)

    assert crossed > 0.6
    assert area(profile, rows, naively) < crossed - 0.05


def encoder(classes: int, values: NDArray[np.object_]) -> CrossFittedTargetEncoder:
    return CrossFittedTargetEncoder([sorted({*values[:, 0]})], classes, 1.0)


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("apart", ["random", "time", "group", "group_time"])
def test_no_row_is_encoded_by_its_own_group_or_later_rows(apart: str, classes: int) -> None:
    random = np.random.default_rng(1)
    count = 300
    values = random.choice(np.array(list("abcdef"), dtype=object), (count, 1))
    target = random.integers(0, classes, count) if classes else random.normal(size=count)
    groups, times = random.integers(0, 40, count), random.integers(0, 60, count)
    columns: dict[str, NDArray[Any]] = {}
    if "time" in apart:
        columns[TIME] = times.astype(np.float64)
    if "group" in apart:
        columns[GROUP] = groups
    split = Split(np.zeros((count, 0)), values, target, pd.DataFrame(columns, index=range(count)))
    found = encoder(classes, values)
    found.divide(split)
    encoded = found.fit_transform(values, target)
    assert encoded.shape == (count, classes if classes > 2 else 1)
    assert len(np.unique(encoded[:, 0])) > 6
    for row in random.choice(count, 20, replace=False):
        hidden = np.arange(count) == row
        if "time" in apart:
            hidden |= times >= times[row]
        if "group" in apart:
            hidden |= groups == groups[row]
        changed = target.copy()
        changed[hidden] = (changed[hidden] + 1) % classes if classes else changed[hidden] + 100
        if (encoded[row] == encoded[times.argmin()]).all() and "time" in apart:
            continue  # among the earliest rows, which are all encoded by one mean
        assert found.fit_transform(values, changed)[row] == pytest.approx(encoded[row], abs=1e-12)


def test_fewer_groups_than_two_are_one_line() -> None:
    profile, rows = shops(2)
    alone = Split(rows.numbers, rows.categories, rows.target, rows.frame.assign(**{GROUP: 1}))
    with pytest.raises(ConfigError, match="fewer than two groups or moments"):
        fitted("lightgbm", profile, alone, categories="target")


def test_smoothing_moves_a_category_to_the_mean() -> None:
    profile, rows = shops(0)
    spreads = []
    for smooth in (0, 20, 1e9):
        found = fitted("ridge", profile, rows, categories="target", smooth=smooth)
        values = found.named_steps[FEATURES].named_transformers_[CATEGORIES][0].transform(rows.categories)
        spreads.append(values[:, 1].std())
    assert spreads[0] > spreads[1] > 1 > spreads[2]
