from __future__ import annotations

import hashlib
import logging
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.contract import sha256
from tests.training.project import ROOT, Project
from training.base.errors import ConfigError, DataError
from training.data import dataset
from training.fetch import stage as fetch
from training.sections.data import DataSettings

names = st.text("abcdefgh", min_size=1, max_size=4)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(
    lambda each: "x" + each.strip() + "x"
)


def test_iris(project: Project) -> None:
    project.run("fetch")
    frame = pd.read_parquet(dataset.RAW_FILE)
    origin = dataset.Origin.model_validate_json(dataset.ORIGIN_FILE.read_bytes())
    assert origin.source == "sklearn:iris"
    assert origin.sha256 == sha256(dataset.RAW_FILE.read_bytes())
    assert (origin.rows, origin.columns) == (150, tuple(frame.columns))


def test_the_same_source_gives_the_same_bytes(project: Project) -> None:
    (project.root / "data/source/a.csv").write_text("x,species\n1,a\n2,b\n")
    for source in ("sklearn:iris", "data/source/a.csv"):
        project.change(data__source=source)
        digests = set()
        for _ in range(2):
            project.run("fetch")
            digests.add(hashlib.sha256(dataset.RAW_FILE.read_bytes()).hexdigest())
            dataset.RAW_FILE.unlink()
        assert len(digests) == 1


def test_kaggles_iris_as_it_is(project: Project) -> None:
    """Its columns and classes under other names, and a column Id: the example alone makes it the bundled set."""
    project.run("fetch")
    project.run("prepare")
    expected = pd.read_parquet(dataset.TRAIN_FILE)
    raw = pd.read_parquet(dataset.RAW_FILE)
    kaggle = raw.set_axis(
        ["SepalLengthCm", "SepalWidthCm", "PetalLengthCm", "PetalWidthCm", "Species"], axis="columns"
    )
    kaggle["Species"] = "Iris-" + kaggle["Species"]
    kaggle.insert(0, "Id", range(1, 151))
    kaggle.to_csv(project.root / "data/source/Iris.csv", index=False)
    project.write(yaml.safe_load((ROOT / "docs/kaggle-iris.yaml").read_text()))
    project.run("fetch")
    project.run("prepare")
    pd.testing.assert_frame_equal(pd.read_parquet(dataset.TRAIN_FILE), expected)
    assert "Columns left out: `Id`" in dataset.DATA_REPORT_FILE.read_text()


@given(st.dictionaries(names, names, min_size=1, max_size=8))
def test_renaming_there_and_back_is_no_change(mapping: dict[str, str]) -> None:
    frame = pd.DataFrame({name: [position] for position, name in enumerate(mapping)})
    if len(set(mapping.values())) < len(mapping):
        with pytest.raises(ConfigError, match="more than one column would be called"):
            fetch.rename(frame, mapping)
        return
    back = {new: old for old, new in mapping.items()}
    pd.testing.assert_frame_equal(fetch.rename(fetch.rename(frame, mapping), back), frame)


@pytest.mark.slow
@given(st.lists(words, min_size=1), st.permutations(["a", "b", "c"]))
def test_replacing_there_and_back_is_no_change(values: list[str], order: list[str]) -> None:
    distinct = sorted(set(values))
    codes = {value: f"{order[position % 3]}{position}" for position, value in enumerate(distinct)}
    frame = pd.DataFrame({"x": pd.Series(values, dtype="str")})
    there = fetch.replace(frame, {"x": codes})
    assert there["x"].tolist() == [codes[value] for value in values]
    back = fetch.replace(there, {"x": {code: value for value, code in codes.items()}})
    pd.testing.assert_frame_equal(back, frame)


def test_replacing_swaps_at_once_and_can_make_missing() -> None:
    frame = pd.DataFrame({"x": ["a", "b", "NA", None], "y": [0, 1, -999, 2]})
    data = DataSettings.model_validate(
        {"source": "-", "replace": {"x": {"a": "b", "b": "a", "NA": "none given"}, "y": {-999: "", 0: 10}}}
    )
    replaced = fetch.replace(frame, data.replace)
    assert replaced["x"].tolist()[:3] == ["b", "a", "none given"]
    assert replaced["x"].isna().tolist() == [False, False, False, True]
    assert replaced["y"].tolist()[:2] == ["10", "1"]
    assert replaced["y"].isna().tolist() == [False, False, True, False]
    assert frame["x"][0] == "a"


def test_replacing_leaves_words_that_may_be_values_alone() -> None:
    frame = pd.DataFrame({"x": ["None", "NA", "null", "n.a.", "nan"]})
    data = DataSettings(source="-", replace={"x": {"n.a.": "NA"}}, missing=("NA", "None"))
    assert fetch.replace(frame, data.replace)["x"].tolist() == ["None", "NA", "null", "NA", "nan"]


def test_units_are_taken_off_numbers_alone() -> None:
    texts = ["12 %", "%12", "-% 3", "% -3", "%", "5 kg %", "1%2", None, "7"]
    frame = fetch.remove_units(pd.DataFrame({"x": texts}), {"x": "%"})
    expected = ["12", "12", "-3", "-3", "%", "5 kg %", "1%2", None, "7"]
    assert [None if pd.isna(each) else each for each in frame["x"]] == expected
    dollars = fetch.remove_units(pd.DataFrame({"x": ["US$ 1,000.5", "-US$3", "$4"]}), {"x": "US$"})
    assert list(dollars["x"]) == ["1,000.5", "-3", "$4"]


def test_a_unit_that_never_occurs_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    fetch.remove_units(pd.DataFrame({"x": ["1 %"]}), {"x": "kg"})
    assert "data.units.x: 'kg' stands beside no number" in caplog.text


def test_a_value_to_replace_that_never_occurs_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    data = DataSettings(source="-", replace={"x": {"Iris-setosa": "setosa"}})
    fetch.replace(pd.DataFrame({"x": ["iris-setosa"]}), data.replace)
    assert "data.replace.x: the value 'Iris-setosa' does not occur" in caplog.text


@pytest.mark.parametrize(
    ("rename", "replace", "complaint"),
    [
        ({"width": "w"}, {}, "data.rename: the source has no column 'width'; it has length, kind, when"),
        ({"length": "kind"}, {}, "more than one column would be called kind"),
        ({}, {"width": {"a": "b"}}, "data.replace: there is no column 'width' after renaming"),
        ({"length": "l"}, {"length": {"a": "b"}}, "after renaming; it is called 'l' by then"),
        ({}, {"when": {"a": "b"}}, "column 'when' holds datetime"),
    ],
)
def test_names_that_are_not_there(
    rename: dict[str, str], replace: dict[str, dict[str, str]], complaint: str, project: Project
) -> None:
    path = project.root / "data/source/a.parquet"
    pd.DataFrame({"length": [1], "kind": ["a"], "when": pd.to_datetime(["2026-01-01"])}).to_parquet(path)
    data = DataSettings(source=str(path), rename=rename, replace=replace)
    with pytest.raises((ConfigError, DataError), match=complaint):
        fetch.fetch(data)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("data/source/a.csv", None),
        ("sklearn:iris", None),
        ("a.csv", "does not see when a.csv changes; `dvc repro --force fetch` reads it again (it sees what"),
        ("sql:SELECT * FROM flowers", "does not see when sql:SELECT… changes"),
    ],
)
def test_a_source_that_dvc_does_not_see_is_said(
    source: str,
    said: str | None,
    project: Project,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    for path in ("data/source/a.csv", "a.csv"):
        (project.root / path).write_text("x,y\n1,2\n")
    pd.DataFrame({"x": [1]}).to_sql("flowers", f"sqlite:///{project.root}/a.db")
    monkeypatch.setenv("ESPALIER_SQL_URL", f"sqlite:///{project.root}/a.db")
    project.change(data__source=source)
    project.run("fetch")
    assert ("does not see" in caplog.text) == (said is not None)
    assert (said or "") in caplog.text


@pytest.mark.slow
def test_a_failure_is_one_line_and_keeps_the_last_good_data(project: Project) -> None:
    project.run("fetch")
    before = dataset.RAW_FILE.read_bytes()
    project.change(data__source="data/source/none.csv")
    done = subprocess.run(
        [sys.executable, "-m", "training.fetch"],
        cwd=project.root,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: data/source/none.csv does not exist: put the file there, or correct data.source\n"
    )
    assert dataset.RAW_FILE.read_bytes() == before


@pytest.mark.slow
def test_a_bundled_set_loads_no_database_or_cloud_library(project: Project) -> None:
    code = (
        "import sys, training.fetch.stage; sys.argv = ['fetch']; training.fetch.stage.main()\n"
        "print([name for name in ('sqlalchemy', 'botocore', 'pandera', 'dvc') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
