"""The dvc.yaml of each model."""

from __future__ import annotations

import pytest
import yaml

from common import pipelines
from tests.training.project import ROOT

TEXT = pipelines.render((ROOT / "dvc.yaml").read_text(), "classification")


def test_further_models_have_another_path_to_the_code() -> None:
    copy = pipelines.render(TEXT, "classification", further=True)
    ((old, new),) = [
        pair for pair in zip(TEXT.splitlines(), copy.splitlines(), strict=True) if pair[0] != pair[1]
    ]
    assert (old, new) == ("  - code: ''", "  - code: ../../")


@pytest.mark.parametrize("task", pipelines.PLOTS)
def test_only_the_plots_of_the_stage_train_differ_by_task(task: str) -> None:
    text = pipelines.render(TEXT, task)
    document, before = yaml.safe_load(text), yaml.safe_load(TEXT)
    plots = document["stages"]["train"]["do"].pop("plots")
    del before["stages"]["train"]["do"]["plots"]
    assert document == before
    assert [next(iter(each)) for each in plots] == [
        f"candidates/${{key}}/plots/{name}.csv" for name in pipelines.PLOTS[task]
    ]
    assert pipelines.task_of(text) == task
    assert pipelines.render(text, "classification") == pipelines.render(TEXT, "classification")


def test_the_code_of_a_model_is_listed_in_one_stage_and_taken_out_again() -> None:
    many = [f"package-{each:02}" for each in range(30)]
    text = pipelines.render(TEXT, "classification", ["custom", "größe.py"], ["pydantic", *many])
    document, before = yaml.safe_load(text), yaml.safe_load(TEXT)
    changed, unchanged = (each["stages"].pop("settings") for each in (document, before))
    assert document == before
    assert changed["deps"] == [*unchanged["deps"], "custom", "größe.py"]
    (packages,), (few,) = (each["params"][0].values() for each in (changed, unchanged))
    assert packages == [*few, *many]
    assert max(map(len, text.splitlines())) <= 130
    assert pipelines.render(text, "classification") == TEXT
    assert pipelines.task_of(text) == "classification"


def test_plots_of_no_task() -> None:
    assert pipelines.task_of(TEXT.replace("plots/roc.csv", "plots/lift.csv")) is None
    assert pipelines.task_of("stages: {}\n") is None
