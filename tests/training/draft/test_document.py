"""The text of params.yaml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.contract import Task
from tests.training.project import ROOT
from training.base import config
from training.base.defaults import complete
from training.base.documents import parse_yaml
from training.data.dataset import Profile
from training.draft import command as draft
from training.draft import document, selection
from training.sections.algorithms import AlgorithmsSettings
from training.train.algorithms import FACTORIES


def test_sections_take_the_place_of_those_in_the_file() -> None:
    text = (ROOT / "params.yaml").read_text()
    drafted = "name: other\n\nselect:\n  tie: 1\n\nnew:\n  # in the section\n  a: 1\n"
    once = document.place(drafted, text)
    found, before = parse_yaml(once), parse_yaml(text)
    assert found == {**before, "name": "other", "select": {"tie": 1}, "new": {"a": 1}}
    assert document.place(drafted, once) == once
    # Comments above a section that stays, stay.
    assert once.startswith(text[: text.index("name:")] + "name: other\n")
    assert text[text.index("split:") : text.index("select:")] in once
    assert text[text.index("card:") :].strip() in once
    assert (
        document.place(drafted, "")
        == "\nname: other\n\nselect:\n  tie: 1\n\nnew:\n  # in the section\n  a: 1\n"
    )


@cache
def profile(task: str) -> Profile:
    source = ("sklearn:iris", "species") if task == "classification" else ("sklearn:diabetes", "target")
    return selection.prepared(draft.draft(*source, {})).profile


def test_what_fits_the_task_stays() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert document.fit(text, profile("classification")) == (text, [])
    assert document.fit("name: a\n", profile("regression")) == ("name: a\n", [])


def test_what_a_regression_cannot_have_is_replaced() -> None:
    text = (ROOT / "params.yaml").read_text()
    fitted, changes = document.fit(text, profile("regression"))
    before, after = parse_yaml(text), parse_yaml(fitted)
    assert after["evaluate"] == {key: each for key, each in before["evaluate"].items() if key != "score"}
    blocks = after["train"]["algorithms"]
    assert blocks.pop("xgboost")["search"]["method"] == "grid"
    assert blocks == dict.fromkeys(("ridge", "decision_tree", "random_forest", "svm"))
    assert {key: each for key, each in after.items() if key not in ("evaluate", "train")} == {
        key: each for key, each in before.items() if key not in ("evaluate", "train")
    }
    assert changes == [
        "evaluate.score: removed, because a regression has no f1_macro",
        "train: replaced by the algorithms of a regression",
    ]
    assert document.fit(fitted, profile("regression")) == (fitted, [])
    back, changes = document.fit(fitted, profile("classification"))
    assert changes == ["train: replaced by the algorithms of a classification"]
    assert "logistic_regression" in parse_yaml(back)["train"]["algorithms"]


def test_many_rows_get_large_trees_without_a_search() -> None:
    few, many = (parse_yaml(document.algorithms("classification", rows)) for rows in (5000, 5001))
    few, many = (each["train"]["algorithms"] for each in (few, many))
    assert few["xgboost"]["search"]["space"]["max_depth"] == [3, 6]
    assert many["xgboost"] == {"tree_method": "hist", "n_estimators": 200, "max_depth": 6}
    assert {*few} - {*many} == {"svm"}


def test_a_split_by_columns_of_other_data_is_removed() -> None:
    text = "split:\n  by: group  # patients\n  group: patient\n  seed: 3\n\ntrack:\n  project: a\n"
    assert document.fit(text, profile("regression")) == (
        "split:\n  seed: 3\n\ntrack:\n  project: a\n",
        ["split.by: removed, because the source has no column patient"],
    )
    kept = text.replace("patient\n", "age\n")
    assert document.fit(kept, profile("regression")) == (kept, [])


def test_slices_by_columns_of_other_data_are_removed() -> None:
    text = "evaluate:\n  slices:\n    - age\n    - ward\n  folds: 3\n"
    assert document.fit(text, profile("regression")) == (
        "evaluate:\n  folds: 3\n",
        ["evaluate.slices: removed, because the source has no column ward"],
    )
    assert document.fit(text.replace("ward", "sex"), profile("regression"))[1] == []


def test_a_decision_is_about_the_classes_of_its_data() -> None:
    text = 'data: {source: "sklearn:iris"}\nschema: {target: species}\n\ndecision:\n  threshold: 0.3\n\ntrack:\n  project: a\n'
    assert document.fit(text, profile("classification")) == (text, [])
    assert document.fit(text.replace("iris", "wine"), profile("classification"))[1] == [
        "decision: removed, because it is about other classes"
    ]
    fitted, changes = document.fit(text, profile("regression"))
    assert "decision" not in fitted
    assert fitted.endswith("track:\n  project: a\n")
    assert changes == ["decision: removed, because it is about other classes"]


def test_a_block_with_code_of_the_model_stays() -> None:
    text = "train:\n  algorithms:\n    ridge:\n    mine: {estimator: 'custom.net:make'}\n"
    assert document.fit(text, profile("regression")) == (text, [])


@pytest.mark.parametrize("task", document.DRAFTED)
def test_algorithms_of_a_draft_exist_and_have_defaults(task: Task) -> None:
    names = parse_yaml(document.algorithms(task))["train"]["algorithms"]
    assert tuple(names) == document.DRAFTED[task]
    assert set(names) <= FACTORIES[task].keys() & config.defaults()["train"]["algorithms"].keys()


def test_an_algorithm_that_takes_fewer_rows_is_left_out() -> None:
    assert "    svm:\n" in document.algorithms("classification", 5000)
    assert "    # svm: left out, since its time grows" in document.algorithms("classification", 5001)
    assert "    svm:\n" in document.algorithms("regression", 10_000)
    assert "svm" not in parse_yaml(document.algorithms("regression", 10_001))["train"]["algorithms"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_feature_with_many_categories_is_seen_otherwise_than_one_hot(task: Task) -> None:
    few, many = (
        parse_yaml(document.algorithms(task, 1000, categories))["train"]["algorithms"]
        for categories in (19, 20)
    )
    assert few["random_forest"] is None
    assert many == few | {"random_forest": {"categories": "target"}}
    for name, block in many.items():
        completed = complete({"train": {"algorithms": {name: block}}}, config.defaults())["train"]
        AlgorithmsSettings.model_validate(completed)


def test_the_draft_counts_the_categories(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    towns = [f"town {each}" for each in range(40)] * 20
    frame = pd.DataFrame({"town": towns, "size": np.round(random.normal(size=800), 2)})
    frame["price"] = frame["size"] * 3 + random.normal(size=40)[np.arange(800) % 40]
    frame.to_csv(tmp_path / "homes.csv", index=False)
    drafted = selection.prepared(draft.draft(str(tmp_path / "homes.csv"), "price", {})).profile
    assert document.widest(drafted) == 40
    assert document.widest(profile("regression")) == 0
    text, _ = document.fit((ROOT / "params.yaml").read_text(), drafted)
    assert parse_yaml(text)["train"]["algorithms"]["random_forest"] == {"categories": "target"}
