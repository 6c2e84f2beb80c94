"""The exported file against the fitted estimator, where naive exports go wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from skl2onnx.sklapi import CastTransformer
from sklearn.ensemble import GradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, LogisticRegressionCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline

from app.contract import DatetimeFeature, Layout, NumberFeature
from app.predictor import Classifier, Regressor
from tests.training.project import ROOT
from tests.training.rows import FAST, mixed, numbers, values
from training.base.errors import ParityError
from training.data.columns import moment_parts
from training.data.dataset import Profile, Split
from training.results import scores
from training.results.figures import Answers
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms, parity
from training.train import fitting as train
from training.train.algorithms import Algorithm
from training.train.onnx import export

NAMES = tuple(algorithms.FACTORIES["classification"])
REGRESSORS = tuple(algorithms.FACTORIES["regression"])


def fitted(name: str, classes: int = 3) -> tuple[Pipeline, Profile, Split]:
    return fit(name, *mixed(classes=classes))


def fit(name: str, profile: Profile, rows: Split) -> tuple[Pipeline, Profile, Split]:
    settings = AlgorithmSettings.model_validate(FAST.get(name, {}))
    return train.fit(algorithms.pipeline(name, settings, profile), rows, name), profile, rows


def answerer(predictor: Classifier) -> Callable[[Split], Answers]:
    return lambda split: predictor.predict(split.numbers, split.categories)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_file_and_estimator_agree_on_grids_with_gaps_and_categories(name: str, classes: int) -> None:
    pipeline, profile, rows = fitted(name, classes)
    predictor = Classifier(export.export(pipeline, profile.layout), profile.layout)
    generated = [parity.grid_rows(profile, rows, 20_000, fraction=each, seed=1) for each in (1, 2)]
    found = parity.check_parity(pipeline, answerer(predictor), rows, generated)
    assert found.label_differences == 0
    assert found.largest_difference <= parity.TOLERANCE
    assert found.generated_rows == 40_000


@pytest.mark.slow
@pytest.mark.parametrize("mean", [2000, 1e6])
@pytest.mark.parametrize("name", REGRESSORS)
def test_values_agree_on_grids_also_with_a_mean_far_above_the_spread(name: str, mean: float) -> None:
    pipeline, profile, rows = fit(name, *values(mean=mean))
    model = export.export(pipeline, profile.layout)
    generated = [parity.grid_rows(profile, rows, 10_000, fraction=each, seed=1) for each in (1, 2)]
    answerer = scores.of(profile.task).answerer(model, profile.layout)
    found = parity.check_parity(pipeline, answerer, rows, generated)
    assert found.largest_difference <= 1e-9
    (output,) = onnx.load_model_from_string(model).graph.output
    assert output.name == "value"
    assert [each.dim_value for each in output.type.tensor_type.shape.dim][1:] == [1]


@pytest.mark.parametrize(
    "other", [LinearRegression(), Lasso(), KNeighborsRegressor()], ids=lambda each: type(each).__name__
)
def test_another_regressor_takes_skl2onnx_as_it_is(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(algorithms.FACTORIES["regression"], "other", lambda _: Algorithm(other))
    pipeline, profile, rows = fit("other", *values())
    predictor = Regressor(export.export(pipeline, profile.layout), profile.layout)
    assert predictor.predict(rows.numbers, rows.categories) == pytest.approx(
        pipeline.predict(algorithms.inputs(rows))
    )


@pytest.mark.parametrize(
    "other",
    [
        Algorithm(GaussianNB()),
        Algorithm(GradientBoostingClassifier(n_estimators=10, random_state=0), scale=False),
        Algorithm(KNeighborsClassifier()),
        Algorithm(LogisticRegressionCV(l1_ratios=(0,), use_legacy_attributes=False)),
        Algorithm(MLPClassifier((8,), max_iter=50, random_state=0)),
        Algorithm(
            VotingClassifier(
                [("linear", LogisticRegression()), ("bayes", GaussianNB())],
                voting="soft",
                flatten_transform=False,
            )
        ),
    ],
    ids=lambda each: type(each.estimator).__name__,
)
@pytest.mark.parametrize("classes", [2, 3])
def test_another_algorithm_takes_skl2onnx_as_it_is(
    other: Algorithm, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(algorithms.FACTORIES["classification"], "other", lambda _: other)
    pipeline, profile, rows = fitted("other", classes)
    predictor = Classifier(export.export(pipeline, profile.layout), profile.layout)
    assert parity.check_parity(pipeline, answerer(predictor), rows, []).label_differences == 0


def test_a_wrong_file_is_caught() -> None:
    pipeline, profile, rows = fitted("decision_tree")
    other, _, _ = fitted("logistic_regression")
    predictor = Classifier(export.export(other, profile.layout), profile.layout)
    with pytest.raises(
        ParityError, match=r"\d+ of 240 labels differ, probabilities by up to .* first at numbers"
    ):
        parity.check_parity(pipeline, answerer(predictor), rows, [])


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_rows_have_the_bits_of_all_rows_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, profile, rows = fitted(name)
    model = export.export(pipeline, profile.layout)
    asked = parity.grid_rows(profile, rows, 2003, fraction=2, seed=1)
    whole = Classifier(model, profile.layout).predict(asked.numbers, asked.categories)
    monkeypatch.setattr("app.predictor.BLOCK_BYTES", 0)
    for block in (128, 200, 256, 1000):
        monkeypatch.setattr("app.predictor.SMALLEST_BLOCK", block)
        blocks = Classifier(model, profile.layout).predict(asked.numbers, asked.categories)
        assert (blocks[0] == whole[0]).all()
        assert (blocks[1] == whole[1]).all()


@pytest.mark.slow
def test_the_memory_of_a_support_vector_machine_is_bounded() -> None:
    """With all rows at once, the kernel would take rows times vectors: 1.6 GB here."""
    random = np.random.default_rng(0)
    X = random.normal(size=(1000, 4))
    layout = Layout(tuple("abcd"), ())
    pipeline = Pipeline([("estimator", algorithms.create("svm", "classification").estimator)])
    model = export.export(pipeline.fit(X, random.integers(0, 2, 1000)), layout)
    code = (
        "import resource, sys; import numpy as np\n"
        "from app.contract import Layout\n"
        "from app.predictor import Classifier\n"
        "predictor = Classifier(sys.stdin.buffer.read(), Layout(tuple('abcd'), ()))\n"
        "rows = np.random.default_rng(0).normal(size=(200_000, 4))\n"
        "predictor.predict(rows[:1000])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "predictor.predict(rows)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=model, capture_output=True, check=True
    )
    assert int(done.stdout) < 100 * 1024


def test_a_file_that_answers_no_number_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, profile, rows = fitted("logistic_regression")
    predictor = Classifier(export.export(pipeline, profile.layout), profile.layout)
    label, probabilities = predictor.predict(rows.numbers, rows.categories)
    probabilities[3] = np.nan
    monkeypatch.setattr(predictor, "predict", lambda *_: (label, probabilities))
    with pytest.raises(ParityError, match="0 of 240 labels differ, probabilities by up to nan"):
        parity.check_parity(pipeline, answerer(predictor), rows, [])


def test_without_its_cast_a_tree_is_caught_on_the_grid() -> None:
    """The fault the generated rows are there for: right on all the data, wrong on values between."""
    profile, rows = numbers()
    settings = AlgorithmSettings.model_validate({})
    pipeline = algorithms.pipeline("decision_tree", settings, profile)
    scaler = algorithms.pipeline("logistic_regression", settings, profile).steps[0]
    naive = Pipeline([scaler, pipeline.steps[-1]]).fit(algorithms.inputs(rows), rows.target)
    early = Pipeline([("cast", CastTransformer(dtype=np.float32)), *naive.steps])
    predictor = Classifier(export.export(early, profile.layout), profile.layout)
    generated = [parity.grid_rows(profile, rows, 50_000, fraction=each, seed=1) for each in (1, 2)]
    with pytest.raises(ParityError):
        parity.check_parity(naive, answerer(predictor), rows, generated)


def test_generated_rows_come_in_blocks_where_features_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,308 features of 100,000 rows are 1.8 GB, and both grids were held at once."""
    profile, rows = mixed()
    whole = list(parity.generated_rows(profile, rows, 1000, 7))
    assert [len(each) for each in whole] == [1000, 1000]
    same = parity.grid_rows(profile, rows, 1000, fraction=2, seed=7)
    assert np.array_equal(whole[1].numbers, same.numbers, equal_nan=True)
    monkeypatch.setattr(parity, "MOST_CELLS", 400 * (rows.numbers.shape[1] + 1))
    blocks = list(parity.generated_rows(profile, rows, 1000, 7))
    assert [len(each) for each in blocks] == [400, 400, 200] * 2
    assert not np.array_equal(blocks[0].numbers, blocks[1].numbers, equal_nan=True)
    pipeline, profile, rows = fitted("logistic_regression")
    predictor = Classifier(export.export(pipeline, profile.layout), profile.layout)
    found = parity.check_parity(pipeline, answerer(predictor), rows, iter(blocks))
    assert (found.data_rows, found.generated_rows) == (240, 2000)


def test_generated_rows_lie_on_the_grid_and_within_the_ranges() -> None:
    profile, rows = mixed()
    for fraction in (1, 2):
        split = parity.grid_rows(profile, rows, 5000, fraction=fraction, seed=3)
        for feature in profile.features:
            if not isinstance(feature, NumberFeature):
                continue
            values = split.numbers[:, profile.layout.places(feature)]
            values = values[~np.isnan(values)]
            multiples = values / (feature.step / fraction)
            assert np.allclose(multiples, np.round(multiples), atol=1e-6)
            assert values.min() >= feature.minimum
            assert values.max() <= feature.maximum
            # Literals as a person writes them: 0.3, not 0.30000000000000004.
            assert (values == np.round(values, 6)).all()
        assert set(split.categories[:, 0]) == {"", "blue", "green", "red"}


def test_generated_moments_are_on_their_grid_and_their_parts_fit() -> None:
    profile, rows = mixed()
    feature = profile.features[-1]
    assert isinstance(feature, DatetimeFeature)
    for fraction in (1, 2):
        split = parity.grid_rows(profile, rows, 2000, fraction=fraction, seed=3)
        parts = split.numbers[:, profile.layout.places(feature)]
        missing = np.isnan(parts)
        assert (missing.all(axis=1) == missing.any(axis=1)).all()
        assert 0.05 < missing.all(axis=1).mean() < 0.15
        seconds = parts[~missing.any(axis=1), -1]
        assert (seconds % (3600 / fraction) == 0).all()
        moments = pd.Series(pd.to_datetime(seconds, unit="s", utc=True))
        np.testing.assert_array_equal(
            moment_parts(moments, feature.parts, feature.timezone), parts[~missing.any(axis=1)]
        )
        first, last = (pd.Timestamp(each).timestamp() for each in (feature.earliest, feature.latest))
        inside = (seconds >= first) & (seconds <= last)
        assert inside[: len(inside) // 2 - 100].all()
        assert 0.2 < inside[len(inside) // 2 :].mean() < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_are_the_predictors(name: str) -> None:
    pipeline, profile, _ = fitted(name)
    graph = onnx.load_model_from_string(export.export(pipeline, profile.layout)).graph
    assert [each.name for each in graph.input] == ["numbers", "categories"]
    assert [each.name for each in graph.output] == ["label", "probabilities"]


def test_complexity_counts_what_the_model_learned() -> None:
    stump, profile, _ = fitted("decision_tree")
    small = export.complexity(export.export(stump, profile.layout))
    forest, profile, _ = fitted("random_forest")
    assert 0 < small < export.complexity(export.export(forest, profile.layout))


@pytest.mark.long("training/train", "tests/training/train/onnx", "uv.lock")
def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import hashlib; from tests.training.train.onnx.test_export import NAMES, fitted; from training.train.onnx import export\n"
        "for name in NAMES:\n"
        "    pipeline, profile, _ = fitted(name)\n"
        "    print(name, hashlib.sha256(export.export(pipeline, profile.layout)).hexdigest())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(outputs) == 1
    assert len(next(iter(outputs)).splitlines()) == len(NAMES)
