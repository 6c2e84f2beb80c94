"""The kernel SVM of many rows: an approximation with as many components as one asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_approximation import Nystroem
from sklearn.svm import SVC, LinearSVC, LinearSVR

from app.contract import Approximated
from tests.training.problems import Problem, answers, fitted, problem, problems
from tests.training.project import Project
from tests.training.rows import mixed, numbers, shops, values
from training.base.errors import ConfigError
from training.data import memory
from training.data.dataset import GROUP, WEIGHT, Profile, Split
from training.results import report, scores
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms, fitting
from training.train.algorithms import factories, nystroem
from training.train.algorithms.nystroem import NystroemSVC, NystroemSVR
from training.train.onnx import export
from training.train.parity import check_parity, generated_rows

KERNELS = ("rbf", "linear", "poly", "sigmoid")
EVERY_ROW = 10_000
"""More components than there are rows: the kernel is exact."""


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factories, "MOST_SVM_ROWS", 100)


def block(**keys: Any) -> AlgorithmSettings:
    return AlgorithmSettings.model_validate(keys)


def approximated(rows: tuple[Profile, Split], **parameters: Any) -> Any:
    profile, split = rows
    return fitting.fit(algorithms.pipeline("svm", block(**parameters), profile), split, "svm")


def features(X: Any, gamma: float) -> Any:
    """Numbers whose products are the kernel of all rows."""
    return Nystroem(gamma=gamma, n_components=len(X)).fit_transform(X)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_with_every_row_as_a_component_it_is_the_linear_machine_over_the_kernel(C: float) -> None:
    small = problem(seed=1, classes=2, features=3, step=0.01)
    found = NystroemSVC(C=C, gamma=0.1, n_components=EVERY_ROW, random_state=7).fit(small.X, small.y)
    # An intercept that is scaled so much is not penalised.
    kernel = features(small.X, 0.1)
    linear = LinearSVC(C=C, dual=False, intercept_scaling=1000, tol=1e-8).fit(kernel, small.y)
    np.testing.assert_allclose(found.decision_function(small.X), linear.decision_function(kernel), atol=0.01)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_regressor_is_the_linear_machine_over_the_kernel(weighted: bool) -> None:
    small = problem(seed=2, classes=4, features=3, step=0.01)
    y = small.X.sum(axis=1) + np.sin(small.X[:, 0])
    weights = np.where(np.arange(len(y)) % 3 == 0, 5.0, 1.0) if weighted else None
    found = NystroemSVR(C=2.0, gamma=0.1, n_components=EVERY_ROW, random_state=7).fit(small.X, y, weights)
    kernel = features(small.X, 0.1)
    linear = LinearSVR(
        C=2.0, epsilon=0.1, loss="squared_epsilon_insensitive", dual=False, intercept_scaling=1000, tol=1e-9
    ).fit(kernel, y, weights)
    np.testing.assert_allclose(found.predict(small.X), linear.predict(kernel), atol=0.02)


@settings(max_examples=25, deadline=None)
@given(problems(), st.sampled_from(KERNELS), st.floats(-3, 3), st.integers(1, 40))
@pytest.mark.slow
def test_the_file_answers_as_the_machine(small: Problem, kernel: str, size: float, components: int) -> None:
    machine = NystroemSVC(kernel=kernel, C=10**size, coef0=1.0, n_components=components, random_state=7)
    pipeline = fitted(machine, small)
    label, probabilities = answers(pipeline, small.asked)
    expected = pipeline.predict_proba(small.asked)
    assert np.abs(probabilities - expected).max() < 1e-6
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    certain = first - second > 1e-6
    assert (label == pipeline.predict(small.asked))[certain].all()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "rows",
    [mixed(), mixed(classes=2), values(), shops(classes=0)],
    ids=["three classes", "two classes", "values", "many categories"],
)
def test_gaps_categories_and_moments_are_exported(
    rows: tuple[Profile, Split], kernel: str, few_are_many: None
) -> None:
    profile, split = rows
    pipeline = approximated(rows, kernel=kernel, n_components=60)
    answer = scores.of(profile.task).answerer(export.export(pipeline, profile.layout), profile.layout)
    parity = check_parity(pipeline, answer, split, generated_rows(profile, split, 2000, 7))
    assert parity.largest_difference < 1e-9
    assert algorithms.approximated(pipeline) == Approximated(method="nystroem", components=60)


def test_blocks_and_starts_do_not_change_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    _, split = mixed(rows=900)
    X = np.nan_to_num(split.numbers[:, :2])
    machine = NystroemSVC(n_components=30, random_state=7)
    expected = machine.fit(X, split.target).predict_proba(X)
    monkeypatch.setattr(nystroem, "BLOCK_CELLS", 1000)
    monkeypatch.setattr(nystroem, "CURVATURE_CELLS", 1)
    np.testing.assert_allclose(machine.fit(X, split.target).predict_proba(X), expected, atol=1e-6)
    monkeypatch.setattr(nystroem, "START_ROWS", 200)
    # The scale of the kernel is that of the first rows.
    np.testing.assert_allclose(
        machine.set_params(gamma=0.5).fit(X, split.target).decision_function(X),
        _of_all_rows(machine, X, split.target, monkeypatch),
        atol=0.01,
    )
    monkeypatch.setattr(nystroem, "CALIBRATION_ROWS", 400)
    assert (
        np.abs(machine.set_params(gamma="scale").fit(X, split.target).predict_proba(X) - expected).max() < 0.1
    )


def _of_all_rows(machine: NystroemSVC, X: Any, y: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(nystroem, "START_ROWS", len(X))
        return machine.fit(X, y).decision_function(X)


def test_the_model_is_the_same_of_rows_in_files(
    tmp_path: Any, few_are_many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "LARGE", 500)
    for profile, split in (mixed(), values()):
        files = split.take(np.arange(len(split)))
        assert files.is_large
        plain = replace(split, numbers=np.array(split.numbers))
        one, other = (
            export.export(approximated((profile, each), n_components=50), profile.layout)
            for each in (files, plain)
        )
        assert one == other


def test_weights_groups_and_rare_classes_count(few_are_many: None) -> None:
    profile, split = mixed(classes=2, rows=640)
    split = split.take(
        np.sort(np.r_[np.flatnonzero(split.target == 0), np.flatnonzero(split.target == 1)[:80]])
    )
    X = algorithms.inputs(split)

    def probabilities(**parameters: Any) -> Any:
        return approximated((profile, split), n_components=50, **parameters).predict_proba(X)[:, 1]

    plain = probabilities()
    favoured = probabilities(class_weight={profile.classes[1]: 50})
    assert (probabilities(class_weight="balanced") != plain).any()
    assert favoured.mean() != plain.mean()
    split = replace(split, frame=split.frame.assign(**{WEIGHT: 1.0 + 9 * (split.target == 1)}))
    assert probabilities().mean() > plain.mean() + 0.05
    split = replace(
        split, frame=split.frame.drop(columns=WEIGHT).assign(**{GROUP: np.arange(len(split)) // 8})
    )
    grouped = probabilities()
    assert (grouped != plain).any()
    np.testing.assert_allclose(grouped, plain, atol=0.1)


def test_probabilities_are_calibrated_on_rows_that_were_left_out() -> None:
    """With noise for features, the machine of many components knows its rows by heart, and nothing of others."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(400, 20)), random.integers(0, 2, 400)
    machine = NystroemSVC(C=100.0, n_components=400, random_state=7).fit(X, y)
    assert ((machine.decision_function(X) > 0) == y).mean() > 0.95
    assert np.abs(machine.predict_proba(X) - 0.5).max() < 0.35


@pytest.mark.parametrize("rows", [mixed(), values()], ids=["classes", "values"])
def test_one_block_fits_both_kinds(rows: tuple[Profile, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {
        "n_components": 40,
        "cache_size": 100,
        "tol": 0.01,
        "max_iter": 1000,
        "shrinking": False,
    }
    assert algorithms.approximated(approximated(rows, **keys)) is None
    monkeypatch.setattr(factories, "MOST_SVM_ROWS", 100)
    found = algorithms.approximated(approximated(rows, **keys))
    assert found is not None
    assert found.components == 40


def test_what_has_no_effect_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, _ = mixed()

    def searched(key: str) -> Any:
        search = {"method": "grid", "space": {key: [10, 20]}}
        return algorithms.pipeline("svm", block(search=search), profile)

    with pytest.raises(
        ConfigError, match=r"search\.space\.n_components: .* training rows, .* is exact: remove it"
    ):
        searched("n_components")
    assert searched("tol")
    monkeypatch.setattr(factories, "MOST_SVM_ROWS", 100)
    with pytest.raises(ConfigError, match=r"search\.space\.tol: .* is an approximation: remove it"):
        searched("tol")
    assert searched("n_components")
    with pytest.raises(ConfigError, match=r"svm\.cv: svm has no such parameter"):
        algorithms.pipeline("svm", block(cv=3), profile)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n_components": 0}, "The 'n_components' parameter must be an int"),
        ({"C": -1}, "The 'C' parameter must be a float"),
        ({"gamma": "big"}, "The 'gamma' parameter must be"),
    ],
)
def test_bad_values_are_one_line(keys: dict[str, Any], message: str, few_are_many: None) -> None:
    with pytest.raises(ConfigError, match=f"svm cannot be fitted: {message}"):
        approximated(numbers(rows=200), **keys)


@pytest.mark.slow
def test_report_bundle_and_card_say_that_it_is_an_approximation(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"method": "grid", "folds": 2, "space": {"C": [1.0, 3.0], "n_components": [20, 30]}}
    project.change(train__algorithms={"svm": {"gamma": "scale", "search": search}}, select__gate={})
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)
    rows = json.loads((project.root / "data/profile.json").read_text())["train_rows"]
    # Each fold has fewer rows than that, and is approximated all the same.
    monkeypatch.setattr(factories, "MOST_SVM_ROWS", rows - 1)
    monkeypatch.setattr(SVC, "fit", None)
    project.run("train", "svm")
    found = report.read("svm")
    assert found.approximated is not None
    assert found.approximated.components == found.parameters["n_components"]
    project.run("select")
    manifest = json.loads((project.root / "model/model.json").read_text())
    assert manifest["approximated"] == {"method": "nystroem", "components": found.approximated.components}
    card = (project.root / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"its Nyström approximation, with {found.approximated.components} components" in " ".join(
        card.split()
    )
