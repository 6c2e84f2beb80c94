"""The stage that completes params.yaml and checks all of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date

import pytest

from common import pipelines
from tests.training import own_code
from tests.training.project import ROOT, Project
from training.base import config
from training.base.errors import ConfigError


def test_it_writes_the_parameters_with_the_defaults(project: Project) -> None:
    params = project.params()
    del params["split"]
    params["evaluate"] = {"folds": 3}
    project.write(params)
    project.run("settings")
    found = json.loads(config.SETTINGS_FILE.read_text())
    assert found["split"] == {"test_share": 0.25, "seed": 7}
    assert found["evaluate"]["folds"] == 3
    assert found["evaluate"]["confidence"] == 0.95
    assert found["schema"] == params["schema"]


def test_numbers_that_are_not_finite_are_text(project: Project) -> None:
    """DVC compares values, and NaN differs from itself."""
    project.change(train__algorithms__logistic_regression={"C": float("inf"), "tol": float("nan")})
    project.run("settings")
    block = json.loads(config.SETTINGS_FILE.read_text())["train"]["algorithms"]["logistic_regression"]
    assert block == {"C": "Infinity", "max_iter": 1000, "tol": "NaN"}


def test_keys_are_text_as_dvc_reads_them(project: Project) -> None:
    project.change(data__replace={"species": {0: "setosa"}})
    project.run("settings")
    assert json.loads(config.SETTINGS_FILE.read_text())["data"]["replace"] == {"species": {"0": "setosa"}}


NUMBER = {"target": "y", "task": "regression", "features": {"x": {"type": "number"}}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"evalute": {"folds": 3}}, "evalute: unknown key"),
        ({"card__limit": []}, r"card\.limit: unknown key"),
        ({"select__gate__minimum": {"accurracy": 1}}, r"select\.gate\.minimum\.accurracy"),
        ({"train__algorithms__xgboost__missing": date(2026, 1, 1)}, "a value is no text, number"),
        ({"train": {}}, "train.algorithms: is missing"),
        (
            {"evaluate__score": "rmse"},
            "evaluate.score: rmse is no metric of a classification; there are accuracy",
        ),
        ({"select__gate__maximum": {"mae": 1}}, "select.gate.maximum: mae is no metric of a classification"),
        (
            {"select__gate__maximum_log_loss": 0.5},
            r"maximum_log_loss is written as `maximum: \{log_loss: 0\.5\}`",
        ),
        ({"select__gate__worst_slice": {"accuracy": 0.5}}, r"worst_slice needs evaluate\.slices"),
        ({"evaluate__score": "cost"}, "cost is a metric, and decision.cost does not say what mistakes cost"),
        ({"evaluate__score": "roc_auc", "decision__threshold": "tuned"}, "tuned needs decision.cost"),
        (
            {"schema": NUMBER, "evaluate__score": "r2", "select": {}, "decision__threshold": 0.4},
            "decision is about classes, and the task is regression: remove it",
        ),
        ({"schema__unit": "kg"}, "schema: unit belongs to a regression, and the task is classification"),
        ({"schema__task": "regression"}, "schema: classes belongs to a classification"),
        (
            {"train__algorithms__svm__categories": "native"},
            "algorithms: svm: categories: native is for catboost, .*, xgboost: use target or one_hot",
        ),
        (
            {"train__algorithms__xgboost__categories": "native"},
            "algorithms: xgboost: categories: native needs tree_method: hist, and it is exact",
        ),
        (
            {"train__algorithms__svm__categories": "onehot"},
            r"svm\.categories: Input should be 'one_hot', 'native' or 'target'",
        ),
        (
            {"train__algorithms__svm__smooth": 3},
            "svm: smooth is for categories: target, and they are one_hot: remove it",
        ),
        (
            {"train__algorithms__svm": {"categories": "target", "smooth": -1}},
            r"algorithms\.svm\.smooth: -1 is neither auto nor a number from 0 on",
        ),
        (
            {"train__algorithms__svm__search": {"method": "grid", "space": {"categories": ["target"]}}},
            r"svm: search\.space\.categories: categories cannot be searched: write it in the block, beside search",
        ),
        ({"name": "credit_default"}, "params.yaml: name: a model cannot be called 'credit_default'"),
        ({"name": "all"}, "params.yaml: name: a model cannot be called 'all'"),
    ],
)
def test_a_mistake_in_any_section_is_named_and_nothing_is_written(
    project: Project, keys: dict[str, object], message: str
) -> None:
    project.change(**keys)
    with pytest.raises(ConfigError, match=message):
        project.run("settings")
    assert not config.SETTINGS_FILE.exists()


@pytest.fixture
def own(project: Project) -> Iterator[Project]:
    """The project with code of its own in two of its blocks."""
    own_code.write(project.root)
    (project.root / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    project.change(
        train__algorithms__mine={"estimator": "custom.models:bagging"},
        train__algorithms__xgboost__features="custom.features:products",
    )
    with own_code.forgotten(project.root):
        yield project


def test_a_block_records_the_code_that_it_names(own: Project) -> None:
    text = (ROOT / "dvc.yaml").read_text()
    fitting = pipelines.render(text, "classification", ["custom"], ["scikit-learn"])
    (own.root / "dvc.yaml").write_text(fitting)
    own.run("settings")
    blocks = json.loads(config.SETTINGS_FILE.read_text())["train"]["algorithms"]
    assert {name: set(block["code"]) for name, block in blocks.items() if "code" in block} == {
        "mine": {"custom/__init__.py", "custom/models.py", "custom/sizes.py", "scikit-learn"},
        "xgboost": {"custom/__init__.py", "custom/features.py", "scikit-learn"},
    }


def test_a_pipeline_that_would_not_see_the_code_change_is_refused(own: Project) -> None:
    line = r"dvc\.yaml does not list what the model's own functions consist of \({}\): run `make packages`"
    with pytest.raises(ConfigError, match=line.format("custom, scikit-learn")):
        own.run("settings")
    text = (ROOT / "dvc.yaml").read_text()
    (own.root / "dvc.yaml").write_text(pipelines.render(text, "classification", ["custom"], ["scikit-learn"]))
    shutil.copy(ROOT / "params.yaml", own.root)
    with pytest.raises(ConfigError, match=line.format("nothing any more")):
        own.run("settings")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"mine__estimator": "custom.models"},
            "mine.estimator: a function is written as package.module:function, and",
        ),
        ({"mine__estimator": "my-code.models:lda"}, "and 'my-code.models:lda' is not"),
        ({"mine__estimator": "custom.models:class"}, "and 'custom.models:class' is not"),
        ({"mine__estimator": "../custom:lda"}, "and '../custom:lda' is not"),
        ({"mine__estimator": 3}, r"mine\.estimator: .*string"),
        (
            {"mine__estimator": "custom.models:ridge"},
            r"mine\.estimator: custom\.models:ridge returns a Ridge, which is a reg",
        ),
        (
            {"svm__features": "custom.models:ridge"},
            r"svm\.features: custom\.models:ridge returns a Ridge, which is no trans",
        ),
    ],
)
def test_a_function_that_cannot_be_used_is_named_before_anything_runs(
    own: Project, keys: dict[str, object], message: str
) -> None:
    own.change(**{f"train__algorithms__{key}": value for key, value in keys.items()})
    with pytest.raises(ConfigError, match=message):
        own.run("settings")
    assert not config.SETTINGS_FILE.exists()


def test_features_of_all_blocks_are_named_once(own: Project) -> None:
    own.change(train__features="custom.features:product")
    with pytest.raises(ConfigError, match=r"^params\.yaml: train\.features: .* did you mean products\?$"):
        own.run("settings")


def test_a_further_model_is_called_as_its_folder(project: Project) -> None:
    folder = project.root / "models/churn"
    folder.mkdir(parents=True)
    shutil.copy(project.root / config.PARAMS_FILE, folder)
    project.root = folder
    with pytest.raises(ConfigError, match="write `name: churn`"):
        project.run("settings")


def test_the_plots_of_another_task_are_refused(project: Project) -> None:
    """The stages of a regression would end without the files that dvc.yaml lists for a classification."""
    text = (ROOT / "dvc.yaml").read_text()
    pipeline = project.root / "dvc.yaml"
    pipeline.write_text(pipelines.render(text, "regression"))
    with pytest.raises(
        ConfigError,
        match=r"schema\.task is classification, and dvc\.yaml lists the plots of a regression: run `make packages`",
    ):
        project.run("settings")
    assert not config.SETTINGS_FILE.exists()
    pipeline.write_text(pipelines.render(text, "classification"))
    project.run("settings")
