"""Drafts of targets that are quantities."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contract import Task, read_bundle
from common import pipelines
from tests.training.draft.test_draft import cells, prepares
from tests.training.draft.test_selection import Selecting, gate_of
from tests.training.project import ROOT, Project
from training.base import config
from training.base.documents import parse_yaml
from training.base.errors import ConfigError, DataError
from training.data.dataset import TEST_FILE, read_profile, read_split
from training.draft import command as draft
from training.draft import quantity, selection
from training.fetch.stage import fetch
from training.prepare.checks import check
from training.results import leaderboard, scores


def written(folder: Path, cells: list[str], delimiter: str = ",") -> str:
    """A CSV file with a target `price`, a number, and a colour."""
    lines = [
        delimiter.join([str(row % 17), ["red", "blue"][row % 2], f'"{cell}"'])
        for row, cell in enumerate(cells)
    ]
    path = folder / "a.csv"
    path.write_text("\n".join([delimiter.join(["x", "colour", "price"]), *lines]) + "\n")
    return str(path)


def prices(folder: Path, text: str) -> list[float]:
    """The target as `prepare` reads it."""
    found = prepares(text, folder)
    assert found.data_schema.task == "regression"
    checked = check(fetch(found.data), found.data_schema, found.data.cells)
    return list(checked.frame["price"])


@pytest.mark.parametrize(
    ("count", "divisor", "given", "task", "reason"),
    [
        (
            90,
            1,
            None,
            "regression",
            "90 different numbers are a quantity; --task classification drafts classes",
        ),
        (
            11,
            4,
            None,
            "regression",
            "11 different numbers are a quantity; --task classification drafts classes",
        ),
        (
            30,
            1,
            None,
            "classification",
            "30 different numbers are classes; --task regression drafts a quantity",
        ),
        (
            10,
            4,
            None,
            "classification",
            "10 different numbers are classes; --task regression drafts a quantity",
        ),
        (30, 1, "regression", "regression", ""),
        (90, 1, "classification", "classification", ""),
    ],
)
def test_many_different_numbers_are_a_quantity(
    count: int,
    divisor: int,
    given: Task | None,
    task: str,
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cells = [f"{number * 7 % count / divisor:g}" for number in range(900)]
    text = draft.draft(written(tmp_path, cells), "price", {}, given)
    assert prepares(text, tmp_path).data_schema.task == task
    if reason:
        assert f"  task: {task}  # {reason}\n" in text
    assert caplog.messages == [f"price: drafted for a {task}" + (f", since its {reason}" if reason else "")]


def test_codes_and_names_stay_classes(tmp_path: Path) -> None:
    codes = [f"{number * 7 % 60:03}" for number in range(900)]
    assert "task: regression" not in draft.draft(written(tmp_path, codes), "price", {})
    assert "task:" not in draft.draft("sklearn:iris", "species", {})


def test_the_target_is_described(tmp_path: Path) -> None:
    text = draft.draft(written(tmp_path, [f"{number / 4}" for number in range(200)]), "price", {})
    found = prepares(text, tmp_path).data_schema
    assert (found.unit, found.range, found.missing_target, found.classes) == (None, None, "reject", None)
    assert (
        "  target: price  # seen 0 to 49.75; add `unit: …`, and `range: [low, high]` to refuse other values\n"
        in text
    )


@pytest.mark.parametrize(
    ("odd", "value"),
    [
        ("n/a", None),
        ("?", None),
        ("", None),
        ("ten", None),
        ("inf", None),
        ("1,234.5", 1234.5),
        ("12 %", 12),
        ("€5", 5),
    ],
)
def test_odd_cells_of_the_target_are_read_as_those_of_a_feature(
    odd: str, value: float | None, tmp_path: Path
) -> None:
    cells = [f"{number * 7 % 199 / 4}" for number in range(200)]
    text = draft.draft(written(tmp_path, [*cells[:9], odd, *cells[10:]]), "price", {})
    expected = [float(each) for each in cells]
    expected[9:10] = [] if value is None else [value]
    assert prices(tmp_path, text) == expected
    assert ("missing_target: drop  # drop | reject; 1 of 200 rows without price" in text) == (value is None)


@pytest.mark.parametrize(
    ("pattern", "delimiter", "divisor", "unit"),
    [
        ("{} %", ",", 4, "%"),
        ("$ {}", ",", 4, "$"),
        ("{} kg", ",", 4, "kg"),
        ("{}", ";", 4, None),
        ("€{}", ";", 4, "€"),
    ],
)
def test_units_and_marks_of_the_target_are_read_as_those_of_a_feature(
    pattern: str, delimiter: str, divisor: int, unit: str | None, tmp_path: Path
) -> None:
    numbers = [number * 7 % 199 / divisor for number in range(200)]
    cells = [pattern.format(str(each).replace(".", "," if delimiter == ";" else ".")) for each in numbers]
    text = draft.draft(written(tmp_path, cells, delimiter), "price", {})
    assert prices(tmp_path, text) == numbers
    found = prepares(text, tmp_path)
    assert found.data_schema.unit == unit
    assert found.data.units == ({"price": unit} if unit else {})
    assert found.data.decimal == ("," if delimiter == ";" else ".")


def test_features_are_judged_on_the_rows_that_have_a_value(tmp_path: Path) -> None:
    """Else the share of missing values would be below what `prepare` measures."""
    random = np.random.default_rng(0)
    rows = 200
    frame = pd.DataFrame({"x": np.round(random.normal(size=rows), 2), "price": random.normal(size=rows)})
    frame.loc[:9, "x"] = np.nan
    frame.loc[100:, "price"] = np.nan
    frame.to_csv(tmp_path / "a.csv", index=False, na_rep="unknown")
    text = draft.draft(str(tmp_path / "a.csv"), "price", {})
    found = prepares(text, tmp_path)
    assert found.data_schema.features["x"].missing == 0.1
    assert found.data.missing == ("unknown",)
    assert "'unknown' stands 110 times in 'x', 'price'" in text


@pytest.mark.parametrize(
    ("cells", "given", "complaint"),
    [
        (
            ["a", "b"] * 30,
            "regression",
            "price cannot be the target of a regression, since 60 of 60 cells are not",
        ),
        (["1.5"] * 60, "regression", "since it is 1.5 in every row"),
        (["1.5", ""] * 30, "regression", r"price: only the value 1\.5 in 60 rows"),
        ([""] * 60, "regression", "since every value is missing"),
        (
            [f"{each}.5" for each in range(12)],
            None,
            "12 rows have a value, which is too few for evaluate.folds",
        ),
        ([f"{each}" for each in range(60)], None, "price numbers the rows: .* --task regression"),
        ([f"{each % 90}" for each in range(100)], "classification", "90 of 90 classes .* --task regression"),
        (
            [f"{each % 120}" for each in range(300)],
            "classification",
            "120 different values.* --task regression",
        ),
    ],
)
def test_what_cannot_be_drafted(cells: list[str], given: Task | None, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        draft.draft(written(tmp_path, cells), "price", {}, given)


def test_a_target_in_the_order_of_the_rows_can_be_a_quantity(tmp_path: Path) -> None:
    text = draft.draft(written(tmp_path, [f"{each}" for each in range(60)]), "price", {}, "regression")
    assert prices(tmp_path, text) == list(range(60))


def test_written_into_params_of_a_classification(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = project.root / "dvc.yaml"
    pipeline.write_text((ROOT / "dvc.yaml").read_text())
    project.run("draft", "sklearn:diabetes", "--target", "target", "--write")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "params.yaml: evaluate.score: removed, because a regression has no f1_macro",
        "params.yaml: train: replaced by the algorithms of a regression",
        "dvc.yaml: lists the plots of a regression",
    ]
    assert pipelines.task_of(pipeline.read_text()) == "regression"
    project.run("settings")

    project.run("draft", "sklearn:iris", "--target", "species", "--write")
    assert pipeline.read_text() == (ROOT / "dvc.yaml").read_text()
    project.run("settings")


@pytest.mark.slow
def test_draft_and_run_pass_without_an_edit(project: Project) -> None:
    project.run("draft", "sklearn:diabetes", "--target", "target", "--write")
    project.change(train={"algorithms": {"ridge": {}, "decision_tree": {"max_depth": 3}}})
    project.run("settings")
    project.run("fetch")
    project.run("prepare")
    for name in ("ridge", "decision_tree"):
        project.run("train", name)
    project.run("select")
    project.run("leaderboard")
    manifest = read_bundle(project.root / "model").manifest
    assert manifest.value is not None
    assert manifest.value.name == "target"

    # The mean, whatever the row, does not pass.
    gate = config.load(Selecting).select.gate
    test = read_split(TEST_FILE, read_profile())
    useless = scores.point(scores.of("regression"), test.target, (np.full(len(test), test.target.mean()),))
    assert all(useless[metric] < least for metric, least in gate.minimum.items())
    assert all(useless[metric] > most for metric, most in gate.maximum.items())
    assert leaderboard.read().rows[0].test["rmse"].value <= gate.maximum["rmse"]


def test_where_nothing_can_be_learnt_the_draft_says_so(project: Project) -> None:
    random = np.random.default_rng(0)
    rows = "".join(f"{random.random():.3f},{random.normal():.4f}\n" for _ in range(200))
    (project.root / "data/source/noise.csv").write_text("x,y\n" + rows)
    drafted = selection.sections(draft.draft("data/source/noise.csv", "y", {}))
    assert "hardly better than the mean" in drafted
    gate = gate_of(drafted, project.root)
    assert gate.minimum == {"r2": 0.0}
    assert gate.maximum["rmse"] == pytest.approx(1, abs=0.1)


def test_the_largest_error_is_one_of_the_test_rows(project: Project) -> None:
    """A few large values decide how far the mean is off, and they may be on either side."""
    for seed in range(4):
        random = np.random.default_rng(seed)
        x = random.normal(size=260)
        y = np.exp(1.5 * x + random.normal(scale=0.8, size=260)).round(3)
        pd.DataFrame({"x": x.round(4), "y": y}).to_csv(project.root / "data/source/a.csv", index=False)
        text = draft.draft("data/source/a.csv", "y", {})
        gate = gate_of(selection.sections(text), project.root)
        spread = selection.prepared(text).test.target.std()
        assert spread / 2 < gate.maximum["rmse"] <= spread * 1.01


@pytest.mark.parametrize("scale", [1e-9, 1, 1e7, 1e20])
def test_thresholds_have_the_unit_of_the_target(scale: float, project: Project) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=300)
    y = scale * (x + random.normal(scale=0.5, size=300))
    pd.DataFrame({"x": x, "y": y}).to_csv(project.root / "data/source/a.csv", index=False)
    text = draft.draft("data/source/a.csv", "y", {})
    gate = gate_of(selection.sections(text), project.root)
    assert gate.minimum["r2"] == pytest.approx(0.4, abs=0.05)
    assert gate.maximum["rmse"] / scale == pytest.approx(0.8, abs=0.1)
    assert 0.002 < gate.production.maximum_rise["rmse"] / scale < 0.05
    project.change(evaluate__score="mae")
    (project.root / "drafted.yaml").write_text(selection.sections(text))
    assert 0.002 < config.load(Selecting, project.root / "drafted.yaml").select.tie / scale < 0.05


@given(st.floats(1e-12, 1e25))
def test_significant_digits_are_rounded_up(value: float) -> None:
    found = quantity.significant(value)
    assert value * (1 - 1e-9) <= found <= value * 1.01
    assert len(f"{found:.15g}".replace(".", "").partition("e")[0].strip("0")) <= 3


def test_the_gate_of_grouped_rows_is_drafted_from_unseen_groups(project: Project) -> None:
    """Each group repeats a value that its feature tells: only rows of known groups can be predicted."""
    random = np.random.default_rng(0)
    group = np.arange(600) % 60
    frame = pd.DataFrame(
        {
            "patient": [f"p{each}" for each in group],
            "x": random.permutation(60)[group] + random.normal(scale=0.01, size=600),
            "y": random.normal(size=60)[group] + random.normal(scale=0.01, size=600),
        }
    )
    frame.to_csv(project.root / "data/source/a.csv", index=False)
    text = draft.draft("data/source/a.csv", "y", {})
    drawn = gate_of(selection.sections(text), project.root)
    project.change(split__by="group", split__group="patient")
    grouped = gate_of(selection.sections(text), project.root)
    assert drawn.minimum["r2"] > 0.1
    assert grouped.minimum["r2"] == 0
    assert "    patient: {type: category" in text
    assert "    # patient: left out, since split.group names it" in draft.draft("data/source/a.csv", "y", {})


def test_options_of_a_draft_keep_rows_apart(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    group = np.arange(600) % 60
    frame = pd.DataFrame(
        {
            "patient": [f"p{each}" for each in group],
            "visit, day": group + np.arange(600) // 60,
            "x": random.permutation(60)[group] + random.normal(scale=0.01, size=600),
            "y": random.normal(size=60)[group] + random.normal(scale=0.01, size=600),
        }
    )
    frame.to_csv(project.root / "data/source/a.csv", index=False)
    project.change(split__test_share=0.4)
    options = ["--target", "y", "--group", "patient", "--time", "visit, day", "--write"]
    monkeypatch.setattr(sys, "argv", ["draft", "data/source/a.csv", *options])
    draft.main()
    written = parse_yaml((project.root / "params.yaml").read_bytes())
    apart = {"by": "group_time", "time": "visit, day", "group": "patient"}
    assert written["split"] == {**apart, "test_share": 0.4}
    assert "patient" not in written["schema"]["features"]
    assert written["select"]["gate"]["minimum"]["r2"] == 0


@pytest.mark.parametrize("option", ["--group", "--time"])
def test_a_column_to_split_by_must_exist(
    option: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["draft", "sklearn:iris", "--target", "species", option, "patiemt"])
    with pytest.raises(ConfigError, match=f"{option}: there is no column 'patiemt'; there are .*species"):
        draft.main()


def test_an_identifier_that_rows_share_may_be_their_group(tmp_path: Path) -> None:
    cells = [f"{number / 4}" for number in range(200)]
    frame = pd.DataFrame({"id": np.arange(200) * 2 // 3 * 3, "y": cells})
    frame["x"] = np.arange(200) % 17
    frame.to_csv(tmp_path / "a.csv", index=False)
    text = draft.draft(str(tmp_path / "a.csv"), "y", {})
    assert "# id: left out, since it numbers the rows; draft with --group if" in text


def test_the_gate_of_rows_in_time_is_drafted_from_later_ones(project: Project) -> None:
    rows = 300
    frame = pd.DataFrame({"day": range(rows), "x": np.arange(rows) % 17, "y": np.arange(rows) * 1.5})
    frame.to_csv(project.root / "data/source/a.csv", index=False)
    project.change(split__by="time", split__time="day")
    drafted = selection.sections(draft.draft("data/source/a.csv", "y", {}, "regression"))
    assert "hardly better than the mean" in drafted


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)
texts = st.sampled_from(["n/a", "", "?", "1,5", "12 %", "ten", "1e400", "007"])


@pytest.mark.long("app/cells.py", "training", "tests/training/draft")
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(cells, numbers | texts), min_size=16, max_size=40))
def test_any_target_is_drafted_into_something_that_prepares_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, object]]
) -> None:
    folder = tmp_path_factory.mktemp("draft")
    pd.DataFrame(rows, columns=["x", "y"]).to_csv(folder / "a.csv", index=False, quoting=1)
    for task in (None, "regression"):
        try:
            text = draft.draft(str(folder / "a.csv"), "y", {}, task)
        except (DataError, ConfigError):
            continue
        try:
            prepares(text, folder)
        except DataError as error:
            if "in the training split is missing" not in str(error):  # the few values were drawn to test on
                raise
        else:
            selection.sections(text)
