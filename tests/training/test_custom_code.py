"""Code of a model's own from its params.yaml to the card, and the examples of docs/custom-code.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from common import pipelines
from deploy import inputs
from tests.training import own_code
from tests.training.project import ROOT, Project
from training.base.errors import ConfigError
from training.results import report

PAGE = (ROOT / "docs/custom-code.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (custom/\S+)\n(.*?)```", PAGE, re.DOTALL))
PIPELINE = ("settings", "fetch", "prepare")


@pytest.fixture
def own(project: Project) -> Iterator[Project]:
    own_code.write(project.root)
    own_code.write(project.root, EXAMPLES)
    project.change(train__algorithms={}, select__gate={})
    with own_code.forgotten(project.root):
        yield project


def trained(project: Project, *names: str) -> None:
    for stage in PIPELINE:
        project.run(stage)
    for name in names:
        project.run("train", name)


@pytest.mark.slow
def test_own_estimators_and_features_go_all_the_way(own: Project, capfd: pytest.CaptureFixture[str]) -> None:
    own_code.write(own.root, {"custom/loud.py": "print('imported')\nfrom custom.models import lda as make\n"})
    search = {"method": "random", "budget": 2, "space": {"estimator__max_depth": [1, 2, 3]}}
    own.change(
        train__features="custom.ratios:Ratios",
        train__algorithms={
            "loud": {"estimator": "custom.loud:make", "solver": "lsqr"},
            "bagging": {"estimator": "custom.models:bagging", "features": None, "search": search},
            "xgboost": {"n_estimators": 10},
        },
    )
    trained(own, "loud", "bagging", "xgboost")
    own.run("select")
    assert "imported" in capfd.readouterr().out
    assert report.read("bagging").parameters.keys() == {"estimator", "estimator__max_depth"}
    assert report.read("xgboost").parameters["features"] == "custom.ratios:Ratios"
    card = (own.root / "MODEL_CARD.md").read_text()
    champion = json.loads((own.root / "reports/leaderboard.json").read_text())["champion"]
    assert f"`{report.read(champion).parameters['features']}`" in card
    assert {each.name for each in (own.root / "model").iterdir()} == {"model.onnx", "model.json"}


@pytest.mark.slow
def test_code_that_is_another_each_time_is_refused(own: Project) -> None:
    text = """
import itertools
from sklearn.linear_model import LogisticRegression

numbers = itertools.count(1)


class Changing(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        self.C = float(next(numbers))
        fitted = LogisticRegression(C=self.C).fit(X, y)
        self.__dict__.update(vars(fitted))
        return self


def make():
    from skl2onnx import update_registered_converter
    from skl2onnx.operator_converters.linear_classifier import convert_sklearn_linear_classifier
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as shapes

    both = [True, False]
    options = {"zipmap": [*both, "columns"], "nocl": both, "output_class_labels": both, "raw_scores": both}
    update_registered_converter(Changing, "Changing", shapes, convert_sklearn_linear_classifier, options=options)
    return Changing()
"""
    own_code.write(own.root, {"custom/changing.py": text})
    own.change(train__algorithms={"mine": {"estimator": "custom.changing:make"}})
    with pytest.raises(
        ConfigError, match=r"mine with estimator: .* makes another model each time it is fitted"
    ):
        trained(own, "mine")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fit", "predict_proba"])
def test_code_that_raises_is_named_with_its_line(own: Project, method: str) -> None:
    text = "\n".join(
        [
            "from sklearn.linear_model import LogisticRegression",
            "class Make(LogisticRegression):",
            f"    def {method}(self, *given, **more):",
            "        raise RuntimeError('no luck')",
            "    def to_onnx(self):",
            "        return None",
        ]
    )
    own_code.write(own.root, {"custom/raising.py": text})
    own.change(train__algorithms={"mine": {"estimator": "custom.raising:Make"}})
    with pytest.raises(ConfigError) as error:
        trained(own, "mine")
    assert str(error.value).startswith(
        "train.algorithms.mine with estimator: 'custom.raising:Make' cannot be "
    )
    if method == "fit":
        assert str(error.value).endswith("cannot be fitted: no luck (custom/raising.py:4)")


@pytest.mark.slow
def test_a_feature_that_is_not_finite_is_named_with_its_row(own: Project) -> None:
    ratio = "from sklearn.preprocessing import FunctionTransformer as F\ndef make(): return F(lambda X: 1 / X[['petal_width']])\n"
    own_code.write(own.root, {"custom/inverse.py": ratio})
    own.change(train__algorithms={"logistic_regression": {"features": "custom.inverse:make"}})
    trained(own)
    frame = own.root / "data/train.parquet"
    import pandas as pd

    rows = pd.read_parquet(frame)
    rows.loc[3, "petal_width"] = 0.0
    rows.to_parquet(frame)
    with pytest.raises(
        ConfigError, match=r"FunctionTransformer returns a number that is not finite, as for .*petal_width 0"
    ):
        own.run("train", "logistic_regression")


def test_the_image_takes_nothing_of_a_models_own_code() -> None:
    admitted = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert admitted == {"app", "model", "models/*/model", "pyproject.toml", "uv.lock"}
    assert {*inputs.INPUTS} - {".dockerignore"} <= admitted


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """This repository's files with the examples of the page in its first model."""
    root = tmp_path / "repository"
    for name in (
        "app",
        "common",
        "training",
        "data/source",
        ".dvcignore",
        "dvc.yaml",
        "params.yaml",
        "uv.lock",
        "pyproject.toml",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    own_code.write(root)
    own_code.write(root, EXAMPLES)
    return root


def run(root: Path, *command: str, start: tuple[str, ...] = ()) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": "",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [*start, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long("training", "common/pipelines.py", "dvc.yaml", "docs/custom-code.md", "tests/training")
def test_a_changed_file_runs_the_stages_that_use_it(copy: Path) -> None:
    document = yaml.safe_load((copy / "params.yaml").read_text())
    document["evaluate"] |= {"parity_rows": 1000, "bootstrap": 100}
    document["train"] = {
        "algorithms": {
            "logistic_regression": {},
            "bagging": {"estimator": "custom.models:bagging"},
            "ratios": {
                "estimator": "sklearn.linear_model:LogisticRegression",
                "features": "custom.ratios:Ratios",
            },
        }
    }
    (copy / "params.yaml").write_text(yaml.safe_dump(document))
    run(copy, "dvc", "init", "--quiet", "--no-scm")
    for each in ("pipelines", "packages"):
        run(copy, sys.executable, "-m", f"training.{each}")

    def stages() -> list[str]:
        return re.findall(r"Running stage '(\S+)'", run(copy, "dvc", "repro"))

    assert {"settings", "train@bagging", "train@ratios", "train@logistic_regression"} <= {*stages()}
    assert stages() == []
    for name, text, uses in (
        ("sizes", "DEEP = 2\n", "bagging"),
        ("ratios", EXAMPLES["custom/ratios.py"].replace("sepal_width", "sepal_length"), "ratios"),
    ):
        (copy / f"custom/{name}.py").write_text(text)
        assert stages() == ["settings", f"train@{uses}", "select"]
    (copy / "custom/net.py").write_text("\n")
    assert stages() == ["settings"]


@pytest.mark.long("training", "docs/custom-code.md", "tests/training", "uv.lock")
def test_a_network_of_pytorch_is_trained_and_exported(copy: Path) -> None:
    """With the parameters of the page, in an environment of its own: some gigabytes, so a machine without room skips it."""
    uv = shutil.which("uv")
    if not uv or shutil.disk_usage(copy).free < 15 * 2**30:
        pytest.skip("needs uv and 15 GB")
    document = yaml.safe_load((copy / "params.yaml").read_text())
    (train,) = re.findall(r"```yaml\n(train:.*?)```", PAGE, re.DOTALL)
    document |= yaml.safe_load(train)
    (copy / "params.yaml").write_text(yaml.safe_dump(document))
    text = (copy / "dvc.yaml").read_text()
    names = ["onnx", "scikit-learn", "torch"]
    (copy / "dvc.yaml").write_text(pipelines.render(text, "classification", ["custom"], names))
    # As `make packages` would write it once torch is in uv.lock.
    with (copy / "training/packages.yaml").open("a") as file:
        file.write("torch: '2'\n")
    torch = (uv, "run", "--project", str(ROOT), "--no-sync", "--with", "torch", "--with", "onnxscript")
    for stage in PIPELINE:
        run(copy, "python", "-m", f"training.{stage}", start=torch)
    run(copy, "python", "-m", "training.train", "net", start=torch)
    found = json.loads((copy / "candidates/net/report.json").read_text())
    assert found["parity"]["label_differences"] == 0
    assert found["parity"]["generated_rows"] == 200_000
    assert found["cv"]["f1_macro"]["mean"] > 0.9
