"""Explanations against the definition of Shapley values, against the package `shap`, and against the model itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline
from xgboost import DMatrix

from app.predictor import Explainer
from tests.tools import examples
from tests.training.rows import FAST, mixed, numbers, prepared, shops, values
from tests.training.test_schemas import ALGORITHMS, table
from training.base.errors import ParityError
from training.data.dataset import Profile, Split
from training.results import scores
from training.results.figures import Floats
from training.results.report import Explained
from training.sections.algorithms import NATIVE, AlgorithmSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.train import algorithms, explanation
from training.train import fitting as train
from training.train.explanation import UnexplainedError, explain
from training.train.fitting import Task
from training.train.onnx import contributions, export
from training.train.onnx.ensembles import Ensemble, Link, Tree
from training.train.onnx.readers import read

UNEXPLAINED = ("svm", "k_nearest_neighbors", "naive_bayes", "mlp")
LINEAR = ("logistic_regression", "ridge")
CASES = [
    (name, classes)
    for classes, task in ((2, "classification"), (3, "classification"), (0, "regression"))
    for name in algorithms.FACTORIES[task]  # type: ignore[index]
]
EXPLAINED = [case for case in CASES if case[0] not in UNEXPLAINED]
TREES = [case for case in EXPLAINED if case[0] not in LINEAR]


def data(classes: int) -> tuple[Profile, Split]:
    return mixed(classes=classes) if classes else values()


def fitted(name: str, profile: Profile, rows: Split, **parameters: Any) -> tuple[Task, Pipeline]:
    block = AlgorithmSettings.model_validate(FAST.get(name, {}) | parameters)
    task = Task(name, block, EvaluateSettings(), DecisionSettings(), profile, rows, rows)
    return task, train.fit(algorithms.pipeline(name, block, profile), rows, name)


def contributed(file: bytes, profile: Profile, rows: Split) -> Floats:
    return Explainer(file, profile.layout).explain(rows.numbers, rows.categories)


def columns_of(pipeline: Pipeline, rows: Split) -> Floats:
    steps = Pipeline(pipeline.steps[:-1])
    columns = algorithms.inputs(rows)
    return np.asarray(steps.transform(columns) if steps.steps else columns, dtype=np.float64)


def by_feature(columns: Floats, task: Task) -> Floats:
    """Contributions of prepared columns, added up to features."""
    profile = task.profile
    origins = np.array(algorithms.origins(profile, task.block))
    places = range(len(profile.features))
    return np.stack([columns[:, origins == place].sum(axis=1) for place in places], axis=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LightGBM binary classifier:UserWarning")
@pytest.mark.parametrize(("name", "classes"), EXPLAINED)
def test_the_package_says_the_same(name: str, classes: int) -> None:
    shap = pytest.importorskip("shap")
    if (name, classes) == ("gradient_boosting", 3):
        pytest.skip("the package does not know these with more than two classes")
    profile, rows = data(classes)
    task, pipeline = fitted(name, profile, rows)
    file, explained = explain(task, pipeline)
    columns = columns_of(pipeline, rows)
    if name in LINEAR:
        masker = shap.maskers.Independent(columns, max_samples=len(columns))
        explainer = shap.LinearExplainer(pipeline[-1], masker)
    else:
        explainer = shap.TreeExplainer(pipeline[-1], feature_perturbation="tree_path_dependent")
    theirs = np.asarray(explainer.shap_values(columns))
    theirs = theirs.reshape(*theirs.shape[:2], -1)
    base = np.ravel(explainer.expected_value)
    if theirs.shape[2] == 2:  # of each of two classes
        theirs, base = theirs[:, :, 1:], base[1:]
    # XGBoost's own values are float32, and the target of the regression is about 2000.
    allowed = {"xgboost": 2e-6 if classes else 5e-4}.get(name, 1e-8)
    assert np.abs(by_feature(theirs, task) - contributed(file, profile, rows)).max() < allowed
    assert explained.explanation.base == pytest.approx(base, abs=allowed)


@pytest.mark.parametrize("classes", [2, 3, 0])
@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_a_package_says_the_same_of_sets_of_categories(name: str, classes: int) -> None:
    profile, rows = shops(classes)
    task, pipeline = fitted(name, profile, rows, categories="native")
    file, explained = explain(task, pipeline)
    columns = columns_of(pipeline, rows)
    if name == "lightgbm":
        theirs = pipeline[-1].predict(columns, pred_contrib=True).reshape(len(rows), -1, 5)
    else:
        features = DMatrix(columns, feature_types=["q", "q", "c", "c"], enable_categorical=True)
        theirs = pipeline[-1].get_booster().predict(features, pred_contribs=True).reshape(len(rows), -1, 5)
    theirs = theirs.transpose(0, 2, 1)
    allowed = 1e-8 if name == "lightgbm" else 2e-6 if classes else 5e-3
    assert np.abs(by_feature(theirs[:, :4], task) - contributed(file, profile, rows)).max() < allowed
    assert explained.explanation.base == pytest.approx(theirs[0, 4], abs=allowed)


@pytest.mark.parametrize("categories", ["native", "target"])
@pytest.mark.parametrize(
    ("name", "classes"), [*itertools.product(NATIVE, (0, 2, 3)), ("logistic_regression", 3)]
)
def test_what_categories_add_is_explained_whatever_the_model_sees_of_them(
    name: str, classes: int, categories: str
) -> None:
    if categories == "native" and name not in NATIVE:
        return
    profile, rows = shops(classes)
    task, pipeline = fitted(name, profile, rows, categories=categories)
    file, _ = explain(task, pipeline)
    found = contributed(file, profile, rows)
    town = [each.name for each in profile.features].index("town")
    assert np.abs(found).mean(axis=(0, 2)).argmax() == town


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_a_model_is_explained_exactly_or_not_at_all(name: str, classes: int) -> None:
    """All of the data have gaps and categories; `explain` compares the sums with the estimator's own scores."""
    profile, rows = data(classes)
    task, pipeline = fitted(name, profile, rows)
    if name in UNEXPLAINED:
        with pytest.raises(UnexplainedError, match="it is neither linear nor made of trees"):
            explain(task, pipeline)
        return
    _, found = explain(task, pipeline)
    unit = float(rows.target.std()) if not classes else 1.0
    assert found.largest_difference <= (1e-3 if name == "xgboost" else 1e-9) * unit
    assert found.rows >= 2 * len(rows) + 2 * explanation.GENERATED_ROWS
    assert len(found.explanation.base) == (classes if classes > 2 else 1)
    assert found.explanation.positive == ("kind 1" if classes == 2 else None)
    of_classes = "probability" if name in ("decision_tree", "random_forest", "extra_trees") else "log-odds"
    assert found.explanation.unit == (of_classes if classes else None)


def expectation(tree: Tree, row: Floats, known: frozenset[int], node: int = 0) -> Floats:
    """What a tree is expected to answer if only some columns are known: the mean over the rows of the training data."""
    if tree.left[node] < 0:
        found: Floats = tree.values[node]
        return found
    left, right = int(tree.left[node]), int(tree.right[node])
    column = int(tree.feature[node])
    if column in known:
        value = row[column]
        if node in tree.sets:
            to_left = value in tree.sets[node]
        else:
            to_left = tree.missing_left[node] if math.isnan(value) else value <= tree.limit[node]
        return expectation(tree, row, known, left if to_left else right)
    # CatBoost's trees have nodes that no training row reached.
    shares = [tree.cover[each] / tree.cover[node] if tree.cover[node] else 0.5 for each in (left, right)]
    branches = [expectation(tree, row, known, each) for each in (left, right)]
    weighted: Floats = shares[0] * branches[0] + shares[1] * branches[1]
    return weighted


def shapley(ensemble: Ensemble, row: Floats, outputs: int) -> Floats:
    """Shapley values by their definition, of shape (columns, outputs)."""
    columns = frozenset(range(len(row)))
    scale = 1 / len(ensemble.trees) if ensemble.link is Link.MEAN else 1.0

    def worth(known: frozenset[int]) -> Floats:
        found = np.zeros(outputs)
        for place, tree in enumerate(ensemble.trees):
            answer = scale * expectation(tree, row, known)
            found[slice(None) if len(answer) > 1 else place % outputs] += (
                answer if len(answer) > 1 else answer[0]
            )
        return found

    worths: Mapping[frozenset[int], Floats] = {
        known: worth(known)
        for size in range(len(row) + 1)
        for known in map(frozenset, itertools.combinations(columns, size))
    }
    result = np.zeros((len(row), outputs))
    for column in columns:
        for known in (each for each in worths if column not in each):
            weight = 1 / (len(columns) * math.comb(len(columns) - 1, len(known)))
            result[column] += weight * (worths[known | {column}] - worths[known])
    return result


@pytest.mark.slow
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(TREES),
    st.integers(0, 2**16),
    st.integers(1, 5),
    st.sampled_from(["one_hot", "native", "target"]),
)
def test_contributions_are_shapley_values_by_their_definition(
    case: tuple[str, int], seed: int, depth: int, categories: str
) -> None:
    name, classes = case
    _, whole = mixed(seed, 120, classes) if classes else values(seed, 120, mean=3)
    # The time of the definition doubles with each column.
    profile, rows = prepared(whole.frame.drop(columns="seen"))
    few = {"max_iter": 3} if name == "hist_gradient_boosting" else {"n_estimators": 3}
    key = {"catboost": "depth", "lightgbm": "max_depth"}.get(name, "max_depth")
    parameters: dict[str, Any] = ({} if name == "decision_tree" else few) | {key: depth}
    if categories == "target" or name in NATIVE:
        parameters |= {"categories": categories}
    task, pipeline = fitted(name, profile, rows, **parameters)
    file, _ = explain(task, pipeline)
    ensemble = read(pipeline[-1])
    assert ensemble is not None
    if classes == 2 and ensemble.wide:
        ensemble = replace(
            ensemble, trees=[replace(each, values=each.values[:, 1:]) for each in ensemble.trees]
        )
    asked = rows.take(np.arange(0, len(rows), 40))
    found = contributed(file, profile, asked)
    columns = columns_of(pipeline, asked)
    if ensemble.single:
        columns = columns.astype(np.float32).astype(np.float64)
    for row, ours in zip(columns, found, strict=True):
        expected = shapley(ensemble, row, classes if classes > 2 else 1)
        summed = by_feature(expected[np.newaxis], task)[0]
        assert np.abs(ours - summed).max() < 1e-9


@pytest.mark.slow
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([each for each in ALGORITHMS if each not in UNEXPLAINED]),
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["plain", "gaps", "constant"]), max_size=3, unique=True),
    st.lists(
        st.sampled_from(["letters", "letters gaps", "single", "pair gaps", "many"]), max_size=2, unique=True
    ),
    st.integers(2, 5),
)
def test_of_any_schema_they_add_up_to_what_is_answered(
    name: str, seed: int, given_numbers: list[str], categories: list[str], classes: int
) -> None:
    """Base and contributions give the probabilities of the model's own file."""
    if {*given_numbers, *categories} <= {"constant", "single"}:
        return
    profile, rows = table(seed, given_numbers, categories, classes)
    task, pipeline = fitted(name, profile, rows)
    file, found = explain(task, pipeline)
    sums = contributed(file, profile, rows).sum(axis=1) + np.array(found.explanation.base)
    model = export.export(pipeline, profile.layout)
    _, probabilities = scores.of(profile.task).answerer(model, profile.layout)(rows)
    assert np.abs(as_probabilities(sums, found) - probabilities).max() < 1e-5


def as_probabilities(sums: Floats, found: Explained) -> Floats:
    if found.explanation.positive is not None:
        positive = sums if found.explanation.unit == "probability" else 1 / (1 + np.exp(-sums))
        return np.concatenate([1 - positive, positive], axis=1)
    if found.explanation.unit == "probability":
        return sums
    powers: Floats = np.exp(sums - sums.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("name", ["logistic_regression", "decision_tree", "xgboost"])
def test_of_two_classes_the_declared_one_is_explained(name: str) -> None:
    profile, rows = mixed(classes=2)
    task, pipeline = fitted(name, profile, rows)
    file, second = explain(task, pipeline)
    other = replace(task, decision=DecisionSettings(positive="kind 0"))
    reversed_file, first = explain(other, pipeline)
    assert (second.explanation.positive, first.explanation.positive) == ("kind 1", "kind 0")
    whole = 1.0 if second.explanation.unit == "probability" else 0.0
    assert first.explanation.base[0] == pytest.approx(whole - second.explanation.base[0])
    gaps = contributed(reversed_file, profile, rows) + contributed(file, profile, rows)
    assert np.abs(gaps).max() < 1e-12


def test_a_feature_without_influence_contributes_nothing() -> None:
    profile, rows = numbers()
    task, pipeline = fitted("decision_tree", profile, rows, max_depth=1)
    file, _ = explain(task, pipeline)
    found = contributed(file, profile, rows)[:, :, 0]
    used = profile.layout.numbers[pipeline[-1].tree_.feature[0]]
    for place, feature in enumerate(profile.features):
        assert found[:, place].any() == (feature.name == used)


def test_features_keep_the_order_of_the_schema() -> None:
    """The category is between the numbers there, and behind them in the model."""
    profile, rows = mixed()
    assert [each.name for each in profile.features][:3] == ["length", "colour", "width"]
    task, pipeline = fitted("logistic_regression", profile, rows)
    file, _ = explain(task, pipeline)
    asked = rows.take(np.arange(1))
    moved = replace(
        asked, categories=np.array([["red" if asked.categories[0, 0] != "red" else "blue"]], dtype=object)
    )
    change = contributed(file, profile, moved) - contributed(file, profile, asked)
    assert change[0, 1].any()
    assert not np.delete(change[0], 1, axis=0).any()


def test_many_rows_are_explained_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a large forest takes megabytes."""
    profile, rows = mixed()
    task, pipeline = fitted("random_forest", profile, rows)
    file, _ = explain(task, pipeline)
    whole = contributed(file, profile, rows)
    monkeypatch.setattr("app.predictor.BLOCK_BYTES", 2 * 7 * len(file))
    explainer = Explainer(file, profile.layout)
    session, sizes = explainer._session, []

    class Watched:
        def run(self, outputs: list[str], feed: dict[str, Any]) -> Any:
            sizes.append(len(feed["numbers"]))
            return session.run(outputs, feed)

    monkeypatch.setattr(explainer, "_session", Watched())
    assert np.abs(explainer.explain(rows.numbers, rows.categories) - whole).max() < 1e-15
    assert set(sizes) == {6, 7}
    assert sum(sizes) == len(rows)


def test_a_tree_of_one_leaf_has_only_a_base() -> None:
    profile, rows = mixed()
    task, pipeline = fitted("decision_tree", profile, rows, min_samples_leaf=200)
    file, found = explain(task, pipeline)
    assert not contributed(file, profile, rows).any()
    assert sum(found.explanation.base) == pytest.approx(1)


def test_the_file_is_the_same_each_time() -> None:
    profile, rows = mixed()
    for name in ("random_forest", "logistic_regression"):
        first, second = (explain(*fitted(name, profile, rows)) for _ in range(2))
        assert first == second


def test_values_that_are_products_are_not_explained() -> None:
    profile, rows = values()
    task, pipeline = fitted("xgboost", profile, rows, objective="count:poisson")
    with pytest.raises(UnexplainedError, match="products of what the features contribute"):
        explain(task, pipeline)


def test_trees_that_would_take_too_long_are_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, rows = mixed()
    task, pipeline = fitted("random_forest", profile, rows)
    monkeypatch.setattr(contributions, "MOST_FACTORS", 100)
    with pytest.raises(
        UnexplainedError, match=r"need [\d,]+ factors .* and 100 are allowed: grow fewer or smaller trees"
    ):
        explain(task, pipeline)


@pytest.mark.parametrize("name", ["random_forest", "xgboost"])
def test_an_explanation_that_does_not_add_up_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, rows = mixed()
    task, pipeline = fitted(name, profile, rows)
    monkeypatch.setattr(explanation, "TOLERANCE", -1.0)
    with pytest.raises(ParityError, match=r"the explanation does not add up .*: it differs by up to \d"):
        explain(task, pipeline)
