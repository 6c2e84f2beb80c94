"""Rows that are kept in files: every algorithm makes of them the model that it makes of rows in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from app.contract import Task
from tests.training.project import Project
from tests.training.rows import FAST, mixed, shops, values
from training.base.errors import ConfigError
from training.data import memory, texts
from training.data.dataset import GROUP, WEIGHT, Profile, Split
from training.results import report, scores
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms, measures
from training.train.algorithms import factories, large
from training.train.onnx import export
from training.train.parity import check_parity

EVERY = [(name, task) for task in ("classification", "regression") for name in algorithms.FACTORIES[task]]


PLAIN = AlgorithmSettings.model_validate({})


@pytest.fixture
def small_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an array of half a kilobyte is large, and a block has 50 rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "LARGE", 500)
    monkeypatch.setattr(memory, "BLOCK", 50)
    return tmp_path


def on_disk(split: Split) -> Split:
    """Numbers in a file, and categories as numbers in another."""
    writer = texts.Writer(*split.categories.shape)
    for column in range(split.categories.shape[1]):
        writer.write(slice(None), column, pd.Series(split.categories[:, column], dtype=object))
    return replace(split, categories=writer.result()).take(np.arange(len(split)))


def in_memory(split: Split) -> Split:
    return replace(split, numbers=np.array(split.numbers), categories=np.asarray(split.categories))


def exported(name: str, profile: Profile, split: Split, **parameters: Any) -> bytes:
    settings = AlgorithmSettings.model_validate(FAST.get(name, {}) | parameters)
    pipeline = algorithms.pipeline(name, settings, profile)
    with pytest.MonkeyPatch.context() as patch:
        if not split.is_large:
            # The prepared rows stay in memory, too.
            patch.setattr(memory, "LARGE", 2**40)
        return export.export(algorithms.fit(pipeline, split), profile.layout)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), EVERY)
def test_the_model_is_the_same_as_of_rows_in_memory(name: str, task: Task, small_memory: Path) -> None:
    profile, split = mixed() if task == "classification" else values()
    rows, split = on_disk(split), in_memory(split)
    assert rows.is_large
    assert not split.is_large
    expected, found = (exported(name, profile, each) for each in (split, rows))
    if name == "naive_bayes":
        # What keeps its variances from 0 comes from the variances of the first block.
        answer = scores.of(task).answerer
        for before, after in zip(
            answer(expected, profile.layout)(split), answer(found, profile.layout)(split), strict=True
        ):
            np.testing.assert_allclose(before, after, atol=1e-3, rtol=0.1)
    else:
        assert found == expected


def test_weights_and_wide_categories_count_in_files_too(small_memory: Path) -> None:
    profile, split = shops()
    weighted = replace(split, frame=split.frame.assign(**{WEIGHT: np.arange(len(split)) % 3 + 1.0}))
    rows = on_disk(weighted)
    assert exported("logistic_regression", profile, rows) == exported(
        "logistic_regression", profile, in_memory(weighted)
    )
    assert exported("logistic_regression", profile, rows) != exported(
        "logistic_regression", profile, on_disk(split)
    )


def test_a_calibration_keeps_groups_apart_in_files_too(small_memory: Path) -> None:
    profile, split = mixed(classes=2)
    grouped = replace(split, frame=split.frame.assign(**{GROUP: np.arange(len(split)) // 8}))
    expected = exported("svm", profile, in_memory(grouped))
    assert exported("svm", profile, on_disk(grouped)) == expected
    assert exported("svm", profile, on_disk(split)) != expected


def test_the_preparation_is_fitted_on_a_sample_and_the_file_agrees(
    small_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "PREPARATION_ROWS", 100)
    profile, split = shops(classes=2)
    settings = AlgorithmSettings.model_validate({"categories": "target"})
    pipeline = algorithms.pipeline("logistic_regression", settings, profile)
    fitted = algorithms.fit(pipeline, on_disk(split))
    model = export.export(fitted, profile.layout)
    answers = scores.of(profile.task).answerer(model, profile.layout)
    assert check_parity(fitted, answers, split, []).data_rows == len(split)


@pytest.mark.parametrize("classes", [2, 3, 0])
def test_a_target_encoding_of_many_rows_shows_no_row_its_own_target(classes: int, small_memory: Path) -> None:
    profile, split = shops(classes=classes)
    name = "logistic_regression" if classes else "ridge"

    found, expected = (
        exported(name, profile, each, categories="target") for each in (on_disk(split), in_memory(split))
    )

    assert found == expected


def test_trees_of_a_forest_draw_no_more_rows_than_a_tree_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, _ = mixed()
    assert algorithms.pipeline("random_forest", PLAIN, profile)[-1].max_samples is None
    monkeypatch.setattr(factories, "ROWS_OF_A_TREE", 60)
    estimator = algorithms.pipeline("random_forest", PLAIN, profile)[-1]
    assert estimator.max_samples == pytest.approx(60 / profile.train_rows)
    own = AlgorithmSettings.model_validate({"max_samples": 0.5})
    assert algorithms.pipeline("random_forest", own, profile)[-1].max_samples == 0.5


def test_what_many_rows_would_take_for_ever_is_refused_with_a_remedy() -> None:
    profile = mixed()[0].model_copy(update={"train_rows": 200_001})
    reason = "the model holds all rows and compares each with them, and 200,001"
    with pytest.raises(ConfigError, match=rf"k_nearest_neighbors: {reason}.*use hist_gradient_boosting"):
        algorithms.pipeline("k_nearest_neighbors", PLAIN, profile)


@pytest.mark.slow
def test_a_whole_pipeline_gives_the_same_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage reads, splits and measures in blocks what it otherwise has in memory."""
    stages = ("settings", "fetch", "prepare")
    names = ("logistic_regression", "xgboost", "random_forest")

    def outputs() -> dict[str, bytes]:
        for stage in stages:
            project.run(stage)
        for name in names:
            project.run("train", name)
        found = [*project.root.glob("data/*.*"), *project.root.glob("candidates/**/*.*")]
        return {str(each.relative_to(project.root)): each.read_bytes() for each in found if each.is_file()}

    expected = outputs()
    monkeypatch.setattr(memory, "LARGE", 500)
    found = outputs()
    assert found.keys() == expected.keys()
    assert [each for each in found if found[each] != expected[each]] == []


def test_report_and_card_say_what_was_measured_on_samples(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.change(train__algorithms={"logistic_regression": {}}, select__gate={})
    for stage in ("settings", "fetch", "prepare"):
        project.run(stage)

    def card() -> str:
        project.run("train", "logistic_regression")
        project.run("select")
        return (project.root / "MODEL_CARD.md").read_text(encoding="utf-8")

    assert "random samples" not in card()
    monkeypatch.setattr(measures, "MOST_TRAIN_ROWS", 60)
    monkeypatch.setattr(measures, "SHUFFLED_ROWS", 0)
    monkeypatch.setattr(measures, "FEWEST_SHUFFLED_ROWS", 20)
    monkeypatch.setattr(scores, "MOST_ROWS", 30)
    assert (
        "random samples of them were measured: the figures of the training split on 60 rows, importance on 20 rows, "
        "intervals on 30 rows."
    ) in card()
    assert report.read("logistic_regression").samples == {
        "the figures of the training split": 60,
        "importance": 20,
        "intervals": 30,
    }


def test_importance_of_many_features_is_measured_on_fewer_rows() -> None:
    assert measures.importance_rows(30) == 20_000
    assert measures.importance_rows(4) == 150_000
    assert measures.importance_rows(500) == 5000


def test_wide_categories_are_fitted_without_their_zeros(
    small_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, split = shops(classes=2, towns=150, rows=1_500)
    pipeline = algorithms.pipeline("logistic_regression", PLAIN, profile)
    answerer = scores.of(profile.task).answerer
    given: list[Any] = []
    fit = LogisticRegression.fit

    def recorded(self: LogisticRegression, X: Any, *more: Any) -> LogisticRegression:
        given.append(X)
        return fit(self, X, *more)

    monkeypatch.setattr(LogisticRegression, "fit", recorded)

    found = algorithms.fit(pipeline, on_disk(split))
    monkeypatch.setattr(memory, "LARGE", 2**30)
    expected = algorithms.fit(pipeline, in_memory(split))

    sparse, dense = given
    assert sparse.nnz <= 4 * len(split)
    np.testing.assert_array_equal(sparse.toarray(), np.asarray(dense))
    model, other = (export.export(each, profile.layout) for each in (found, expected))
    assert check_parity(found, answerer(model, profile.layout), in_memory(split), []).data_rows == len(split)
    for one, two in zip(
        answerer(model, profile.layout)(split), answerer(other, profile.layout)(split), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-3)


def test_few_rows_that_become_wide_are_kept_in_a_file(
    small_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LARGE", 300_000)
    profile, split = shops(classes=2)
    kept = in_memory(split)
    assert not kept.is_large
    pipeline = algorithms.pipeline("random_forest", PLAIN, profile)
    assert large.is_large(pipeline, kept)
    native = algorithms.pipeline(
        "xgboost", AlgorithmSettings.model_validate({"categories": "native"}), profile
    )
    assert not large.is_large(native, kept)
