from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import NumberFeature
from tests.training.project import ROOT, Project
from training.base.errors import DataError
from training.data import dataset
from training.prepare import split as division
from training.sections.split import SplitSettings

OUTPUTS = (dataset.TRAIN_FILE, dataset.TEST_FILE, dataset.PROFILE_FILE, dataset.DATA_REPORT_FILE)


@pytest.fixture
def prepared(project: Project) -> Project:
    project.change(schema__features__sepal_length__range=[1, 12])
    project.run("fetch")
    project.run("prepare")
    return project


def test_iris(prepared: Project) -> None:
    profile = dataset.read_profile()
    assert profile.classes == ("setosa", "versicolor", "virginica")
    assert (profile.rows, profile.duplicates_dropped) == (149, 1)
    assert sum(profile.class_shares) == pytest.approx(1)
    train = dataset.read_split(dataset.TRAIN_FILE, profile)
    test = dataset.read_split(dataset.TEST_FILE, profile)
    assert (len(train), len(test)) == (profile.train_rows, profile.test_rows) == (112, 37)
    assert train.numbers.shape == (112, 4)
    assert train.categories.shape == (112, 0)
    length = profile.features[0]
    assert isinstance(length, NumberFeature)
    assert (length.name, length.unit, length.step, length.bounded) == ("sepal_length", "cm", 0.1, True)
    assert length.minimum == 1


def test_the_same_input_gives_the_same_bytes(prepared: Project) -> None:
    first = [path.read_bytes() for path in OUTPUTS]
    prepared.run("prepare")
    assert [path.read_bytes() for path in OUTPUTS] == first


def test_many_rows_have_a_line_for_each_step(
    prepared: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("training.base.progress.MANY", 1)
    monkeypatch.setattr("training.base.progress.SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "training.base.progress"):
        prepared.run("prepare")
    lines = [record.message.partition(" in ")[0] for record in caplog.records]
    assert lines == [
        "check: 5 columns of 150 rows",
        *(f"check: {each} of 5 columns" for each in range(1, 6)),
        "comparison of rows: 150 rows",
        "split: 149 rows",
        "description: 4 columns of 149 rows",
        *(f"description: {each} of 4 columns" for each in range(1, 5)),
        "signs of leakage: 149 rows",
        "data/train.parquet and data/test.parquet: 149 rows",
        "reports/data.md: 149 rows",
    ]


def test_another_seed_gives_another_split(prepared: Project) -> None:
    before = dataset.TEST_FILE.read_bytes()
    prepared.change(split__seed=8)
    prepared.run("prepare")
    assert dataset.TEST_FILE.read_bytes() != before


def test_the_report_says_what_a_person_asks_first(prepared: Project) -> None:
    report = dataset.DATA_REPORT_FILE.read_text()
    for part in (
        "`sklearn:iris`, 150 rows",
        "149 rows: 112 to train, 37 to test",
        "Equal to an earlier row in all features and the target: 1 row, all dropped",
        "Read as missing: empty cells\n",
        "Columns left out: none",
        "| `setosa` | 50 | 37 | 13 | 33.6% | ████",
        "| `sepal_length` | cm | 1 to 12 | 4.3 to 7.9 | 5.844 |",
    ):
        assert part in report


def test_the_report_shows_figures_without_their_last_bits(project: Project) -> None:
    rows = "".join(
        f"{[-6.849999999999909, 15.930000000000064][number % 2]},{'ab'[number % 4 // 2]}\n"
        for number in range(60)
    )
    (project.root / "data/source/a.csv").write_text("x,kind\n" + rows)
    project.change(
        data={"source": "data/source/a.csv"},
        schema={"target": "kind", "duplicates": "keep", "features": {"x": {"type": "number"}}},
    )
    project.run("fetch")
    project.run("prepare")
    assert "| -6.85 to 15.93 |" in dataset.DATA_REPORT_FILE.read_text()


@pytest.mark.parametrize("example", ["wine", "breast-cancer", "digits", "penguins"], ids=str)
def test_the_further_models_prepare(example: str, project: Project) -> None:
    (project.root / "data/source/penguins.csv").write_bytes(
        (ROOT / "models/penguins/data/source/penguins.csv").read_bytes()
    )
    (project.root / "params.yaml").write_text((ROOT / f"models/{example}/params.yaml").read_text())
    project.run("fetch")
    project.run("prepare")
    profile = dataset.read_profile()
    train = dataset.read_split(dataset.TRAIN_FILE, profile)
    assert len(train) == profile.train_rows
    if example == "penguins":
        assert profile.missing["sex"] == 11
        assert "| `sex` | `female` 165, `male` 168 | 11 (3.2%) |" in dataset.DATA_REPORT_FILE.read_text()
        assert "Columns left out: `year`" in dataset.DATA_REPORT_FILE.read_text()


def test_a_bar_in_a_name_does_not_break_the_table(project: Project) -> None:
    rows = "".join(f"{number % 5},{'a|b' if number % 2 else 'c'}\n" for number in range(60))
    (project.root / "data/source/a.csv").write_text("x,kind\n" + rows)
    project.change(
        data={"source": "data/source/a.csv"},
        schema={"target": "kind", "duplicates": "keep", "features": {"x": {"type": "number"}}},
    )
    project.run("fetch")
    project.run("prepare")
    assert "| <code>a&#124;b</code> | 30 |" in dataset.DATA_REPORT_FILE.read_text()


def rows_of(**sizes: int) -> str:
    return "x,kind\n" + "".join(
        f"{number},{name}\n" for name, size in sizes.items() for number in range(size)
    )


def test_lost_rows_are_said_in_the_report(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    csv = rows_of(a=40, b=30, odd=2) + "1,?\n1,?\n5,a\n"
    (project.root / "data/source/a.csv").write_text(csv)
    features = {"x": {"type": "number"}}
    rules = {"target": "kind", "features": features, "missing_target": "drop", "drop_classes": ["odd"]}
    project.change(
        data={"source": "data/source/a.csv", "missing": ["?"]}, schema={**rules, "duplicates": "drop"}
    )
    project.run("fetch")
    project.run("prepare")
    profile = dataset.read_profile()
    assert (profile.rows, profile.equal_rows, profile.duplicates_dropped) == (70, 1, 1)
    losses = (
        "2 of 75 rows (2.7%) are of the class 'odd', which the model does not know (schema.drop_classes)",
        "2 of 75 rows (2.7%) have no kind and were dropped (schema.missing_target)",
        "1 of 75 rows (1.3%) equal an earlier one and were dropped (schema.duplicates)",
    )
    assert profile.losses() == losses
    report = dataset.DATA_REPORT_FILE.read_text()
    for line in losses:
        assert f"- **{line}**" in report
        assert line in caplog.text
    assert "Equal to an earlier row in all features and the target: 1 row, all dropped" in report
    assert "Read as missing: empty cells, `?`" in report


def test_equal_rows_that_are_kept_are_no_loss(project: Project) -> None:
    (project.root / "data/source/a.csv").write_text("x,kind\n" + "1,a\n2,b\n" * 30)
    project.change(
        data={"source": "data/source/a.csv"},
        schema={"target": "kind", "features": {"x": {"type": "number"}}, "duplicates": "keep"},
    )
    project.run("fetch")
    project.run("prepare")
    assert dataset.read_profile().losses() == ()
    assert "the target: 58 rows, kept" in dataset.DATA_REPORT_FILE.read_text()


def test_a_class_with_fewer_rows_than_folds_is_refused_with_ways_out(project: Project) -> None:
    (project.root / "data/source/a.csv").write_text(rows_of(a=40, b=30, odd=4))
    rules = {"target": "kind", "features": {"x": {"type": "number"}}, "min_rows_per_class": 2}
    project.change(data={"source": "data/source/a.csv"}, schema=rules)
    project.run("fetch")
    with pytest.raises(DataError) as error:
        project.run("prepare")
    complaint = str(error.value)
    assert "kind: fewer training rows of a class than evaluate.folds (5): 'odd' has 3" in complaint
    assert "`data.replace: {kind: {odd: OTHER}}`" in complaint
    assert "`schema.drop_classes: [odd]`" in complaint
    project.change(schema__drop_classes=["odd"])
    project.run("prepare")
    assert dataset.read_profile().classes == ("a", "b")


def test_without_raw_data_it_says_what_to_run(project: Project) -> None:
    with pytest.raises(DataError, match="dvc repro fetch"):
        project.run("prepare")


def test_data_that_breaks_the_schema_leaves_the_last_outputs(prepared: Project) -> None:
    before = [path.read_bytes() for path in OUTPUTS]
    prepared.change(schema__features__sepal_width__range=[3, 8])
    with pytest.raises(DataError, match=r"sepal_width: \d+ values are outside the range \[3, 8\] cm: row"):
        prepared.run("prepare")
    assert [path.read_bytes() for path in OUTPUTS] == before


@pytest.mark.slow
@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
    st.randoms(use_true_random=False),
)
def test_the_split_is_stratified_disjoint_and_repeatable(
    sizes: list[int], share: float, seed: int, random: np.random.Generator
) -> None:
    labels = [f"class {index}" for index, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(labels)
    frame = pd.DataFrame({"row": range(len(labels)), "kind": labels})
    settings = SplitSettings(test_share=share, seed=seed)
    train, test = division.split(frame, "kind", settings)
    assert sorted([*train["row"], *test["row"]]) == list(range(len(labels)))
    assert train["row"].is_monotonic_increasing
    assert test["row"].is_monotonic_increasing
    all_rows, tested = Counter(labels), Counter(test["kind"])
    for name, count in all_rows.items():
        assert 1 <= tested[name] < count
        assert abs(tested[name] - count * share) <= 1
    again = division.split(frame, "kind", settings)
    pd.testing.assert_frame_equal(again[1], test)
