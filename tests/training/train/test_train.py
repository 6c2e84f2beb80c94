"""The training stage from its files to its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.semi_supervised import LabelPropagation

from app.contract import sha256
from app.predictor import Classifier, Explainer
from tests.e2e.clone import ROOT
from tests.training.project import Project
from training.base.errors import ConfigError, DataError, ParityError
from training.data.dataset import TEST_FILE, read_profile, read_split
from training.results import report
from training.train import algorithms
from training.train.stage import UNEXPLAINED


def test_report_is_what_the_file_scores(trained: Project) -> None:
    profile = read_profile()
    test = read_split(TEST_FILE, profile)
    for name in trained.params()["train"]["algorithms"]:
        result = report.read(name)
        model = (trained.root / "candidates" / name / "model.onnx").read_bytes()
        label, probabilities = Classifier(model, profile.layout).predict(test.numbers)
        assert result.test["accuracy"].value == pytest.approx(
            metrics.accuracy_score(test.target, label), abs=1e-6
        )
        assert result.test["log_loss"].value == pytest.approx(
            metrics.log_loss(test.target, _normalised(probabilities)), abs=1e-5
        )
        assert (np.array(result.confusion) == metrics.confusion_matrix(test.target, label)).all()
        assert len(result.cv["f1_macro"].folds) == 5
        assert result.cv["f1_macro"].mean == pytest.approx(np.mean(result.cv["f1_macro"].folds), abs=1e-6)
        assert result.parity.label_differences == 0
        assert result.parity.data_rows == 149
        assert set(result.importance) == {each.name for each in profile.features}
        assert result.model.bytes == len(model)


def _normalised(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    exact = probabilities.astype(np.float64)
    total: NDArray[np.float64] = exact.sum(axis=1, keepdims=True)
    return exact / total


def test_metrics_are_the_reports_headline(trained: Project) -> None:
    result = report.read("svm")
    headline = json.loads((trained.root / "metrics/svm.json").read_text())
    assert headline["cv"]["f1_macro"] == result.cv["f1_macro"].mean
    assert headline["test"]["accuracy"] == result.test["accuracy"].value
    assert (
        headline["test"]["f1_macro_low"] <= headline["test"]["f1_macro"] <= headline["test"]["f1_macro_high"]
    )


def test_plot_tables_say_what_the_report_says(trained: Project) -> None:
    result = report.read("random_forest")
    folder = trained.root / "candidates/random_forest/plots"
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in report.PLOTS["classification"]}
    assert tables["confusion"]["count"].sum() == 37
    diagonal = tables["confusion"].query("actual == predicted")
    assert diagonal["count"].sum() / 37 == pytest.approx(result.test["accuracy"].value, abs=1e-6)
    for name, curve in tables["roc"].groupby("class"):
        area = metrics.auc(curve["fpr"], curve["tpr"])
        assert area == pytest.approx(result.per_class[str(name)].roc_auc, abs=1e-4)
    assert tables["calibration"].groupby("class")["count"].sum().eq(37).all()
    assert tables["importance"]["importance"].is_monotonic_decreasing
    assert set(tables["precision_recall"]["class"]) == {"setosa", "versicolor", "virginica"}


def test_training_again_writes_the_same_bytes(trained: Project) -> None:
    folder = trained.root / "candidates" / "xgboost"
    before = {each: each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}
    trained.run("train", "xgboost")
    after = {each: each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}
    assert before == after
    assert len(before) == 8


def test_without_explanations_the_file_is_empty(trained: Project) -> None:
    """DVC's outputs always exist."""
    assert (trained.root / "candidates/xgboost/explain.onnx").read_bytes() == UNEXPLAINED
    result = report.read("xgboost")
    assert (result.explained, result.unexplained) == (None, "")


def test_an_explanation_is_written_beside_the_model(trained: Project) -> None:
    model = report.read("xgboost").model
    trained.change(explain="shap")
    trained.run("train", "xgboost")
    result = report.read("xgboost")
    assert result.explained is not None
    assert result.model == model
    content = (trained.root / "candidates/xgboost/explain.onnx").read_bytes()
    assert sha256(content) == result.explained.explanation.file.sha256
    assert result.explained.rows == 149 + 2000
    profile = read_profile()
    test = read_split(TEST_FILE, profile)
    assert Explainer(content, profile.layout).explain(test.numbers).shape == (len(test), 4, 3)
    trained.run("train", "xgboost")
    assert (trained.root / "candidates/xgboost/explain.onnx").read_bytes() == content


def test_an_algorithm_without_explanations_says_why(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    trained.change(explain="shap")
    with caplog.at_level("WARNING"):
        trained.run("train", "svm")
    assert (
        "train.algorithms.svm with gamma: 'scale', C: 3.0 cannot be explained: it is neither" in caplog.text
    )
    assert report.read("svm").unexplained == "it is neither linear nor made of trees"
    assert (trained.root / "candidates/svm/explain.onnx").read_bytes() == UNEXPLAINED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgbm", "catboost", "hist_gradient_boosting"])
def test_another_algorithm_is_trained_by_naming_it(trained: Project, name: str) -> None:
    """With the defaults, and with the same bytes again."""
    trained.change(**{f"train__algorithms__{name}": None, "evaluate__parity_rows": 1000})
    trained.run("train", name)
    result = report.read(name)
    assert result.test["accuracy"].value > 0.85
    assert result.parity.label_differences == 0
    trained.run("train", name)
    assert report.read(name).model == result.model


def test_an_algorithm_without_a_block_is_named(trained: Project) -> None:
    with pytest.raises(ConfigError, match=r"'lda' has no block .* there are logistic_regression, "):
        trained.run("train", "lda")


def test_more_folds_than_rows_of_a_class(trained: Project) -> None:
    trained.change(evaluate__folds=60)
    with pytest.raises(
        ConfigError, match=r"evaluate\.folds is 60, but the rarest class has \d+ rows: use fewer folds"
    ):
        trained.run("train", "logistic_regression")


def test_without_prepared_data_it_says_what_to_run(project: Project) -> None:
    with pytest.raises(DataError, match=r"data/profile\.json.*dvc repro prepare"):
        project.run("train", "svm")


def test_a_model_that_does_not_converge_is_a_warning(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    trained.change(train__algorithms__logistic_regression={"max_iter": 1})
    with caplog.at_level("WARNING"):
        trained.run("train", "logistic_regression")
    assert "did not converge: raise max_iter under train.algorithms.logistic_regression" in caplog.text


def test_a_model_that_cannot_be_exported_is_one_line(trained: Project) -> None:
    """The converters know nothing of this algorithm of scikit-learn's."""
    factories = algorithms.FACTORIES["classification"]
    trained.monkeypatch.setitem(factories, "propagation", lambda _: algorithms.Algorithm(LabelPropagation()))
    trained.change(train__algorithms__propagation={"gamma": 2})
    with pytest.raises(
        ConfigError, match=r"train\.algorithms\.propagation with gamma: 2 cannot be exported to ONNX: \w+"
    ):
        trained.run("train", "propagation")


def test_a_model_whose_file_disagrees_names_its_parameters(trained: Project) -> None:
    trained.change(train__algorithms__xgboost={"n_estimators": 2, "base_score": 0.5, "max_depth": None})
    trained.monkeypatch.setattr("training.train.parity.TOLERANCE", -1.0)
    with pytest.raises(
        ParityError,
        match=r"xgboost with n_estimators: 2, learning_rate: 0\.1, tree_method: 'exact', base_score: 0\.5: the exported model disagrees",
    ):
        trained.run("train", "xgboost")


def test_an_infinite_parameter_is_not_lost_in_the_report(trained: Project) -> None:
    trained.change(train__algorithms__logistic_regression={"C": float("inf")})
    trained.run("train", "logistic_regression")
    assert report.read("logistic_regression").parameters == {"C": "Infinity", "max_iter": 1000}


PRODUCT = """
{imports}
import hashlib
import numpy as np
from scipy.linalg.blas import dgemm
values = np.random.default_rng(7).normal(size=(149, 31))
print(hashlib.sha256((values.T @ values).tobytes() + dgemm(1, values, values.T).tobytes()).hexdigest())
"""


CPU = Path("/proc/cpuinfo")


@pytest.mark.slow
@pytest.mark.skipif(
    not (CPU.exists() and {"avx2", "fma"} <= set(CPU.read_text(encoding="utf-8").split())),
    reason="the kernels are fixed on Linux, on x86-64 with AVX2",
)
def test_sums_are_rounded_alike_whatever_the_processor() -> None:
    """The variable stands for another processor: OpenBLAS takes the kernels that it would have there."""

    def products(imports: str) -> set[bytes]:
        return {
            subprocess.run(
                [sys.executable, "-c", PRODUCT.format(imports=imports)],
                env={**os.environ, "OPENBLAS_CORETYPE": processor, "OPENBLAS_NUM_THREADS": "1"},
                cwd=ROOT,
                capture_output=True,
                check=True,
            ).stdout
            for processor in ("Nehalem", "Sandybridge", "Haswell")
        }

    assert len(products("import training")) == 1
    assert len(products("")) > 1, "the processors of this test do not differ"
