from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from tests.training.project import ROOT, Project
from training import config, draft, prepare
from training.checks import check
from training.config import DataSettings, SchemaSettings, Settings, SplitSettings
from training.dataset import Origin
from training.errors import ConfigError, DataError
from training.fetch import fetch


class Drafted(Settings):
    name: str
    data: DataSettings
    data_schema: SchemaSettings = Field(alias="schema")


def prepares(text: str, folder: Path) -> Drafted:
    """Load a draft as the stages do, and prepare the data by it."""
    path = folder / "params.yaml"
    path.write_text(text)
    drafted = config.load(Drafted, path)
    raw = fetch(drafted.data)
    checked = check(raw, drafted.data_schema)
    train, test = prepare.split(checked.frame, drafted.data_schema.target, SplitSettings())
    origin = Origin(source="-", sha256="0" * 64, rows=len(raw), columns=tuple(raw.columns))
    prepare.resolve(checked, drafted.data_schema, origin, train, test)
    return drafted


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sklearn:iris", "species"),
        ("sklearn:wine", "target"),
        ("sklearn:breast_cancer", "target"),
        ("sklearn:digits", "target"),
        (str(ROOT / "data/source/penguins.csv"), "species"),
    ],
)
def test_a_draft_is_ready_to_use(source: str, target: str, tmp_path: Path) -> None:
    drafted = prepares(draft.draft(source, target, {}), tmp_path)
    assert drafted.data.source == source
    assert drafted.data_schema.target == target


def test_what_a_column_is(tmp_path: Path) -> None:
    rows = 40
    frame = pd.DataFrame(
        {
            "Id": range(1, rows + 1),
            "size, cm": np.linspace(-1, 2.5, rows),
            "count": [3, 7] * (rows // 2),
            "same": 0,
            "code": ["007", "012"] * (rows // 2),
            "yes": ["yes", "no"] * (rows // 2),
            "note": [f"text {number}" for number in range(rows)],
            "empty": None,
            "gaps": [None, "a", "b", "a"] * (rows // 4),
            "Kind": ["10", "9"] * (rows // 2),
        }
    )
    frame.to_csv(tmp_path / "My Data.csv", index=False)
    text = draft.draft(str(tmp_path / "My Data.csv"), "kind", {"Kind": "kind", "size, cm": "size"})
    drafted = prepares(text, tmp_path)
    document = yaml.safe_load(text)
    assert drafted.name == "my-data"
    assert document["schema"]["classes"] == ["9", "10"]
    assert document["schema"]["min_rows_per_class"] == 20
    assert document["schema"]["features"] == {
        "size": {"type": "number", "range": [-1.9, 3.4]},
        "count": {"type": "number", "range": [2, 8]},
        "same": {"type": "number", "range": [0, 1]},
        "code": {"type": "category", "categories": ["007", "012"]},
        "yes": {"type": "category", "categories": ["no", "yes"]},
        "gaps": {"type": "category", "categories": ["a", "b"], "missing": 0.25},
    }
    for reason in (
        "# Id: left out, since it numbers the rows",
        "# note: left out, since its 40 different texts are no categories",
        "# empty: every value is missing",
    ):
        assert reason in text


def test_dates_and_infinities_become_comments(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2026-01-01", periods=20),
            "wild": [np.inf, 1.5] * 10,
            "x": [1.5, 2.5] * 10,
            "kind": list("aabb") * 5,
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    text = draft.draft(str(tmp_path / "a.parquet"), "kind", {})
    assert "# when: left out, since it holds datetime64" in text
    assert "# wild: some values are infinite" in text


@pytest.mark.parametrize(
    ("csv", "target", "renames", "complaint"),
    [
        ("x,kind\n1,a\n2,b\n", "sort", {}, "--target: there is no column 'sort'; there are x, kind"),
        ("x,kind\n1,a\n2,b\n", "kind", {"y": "z"}, "no column 'y'"),
        ("x,kind\n1,a\n2,a\n", "kind", {}, "1 different values; a classifier takes 2 to 100"),
        ("x,kind\n1,a\n2,\n", "kind", {}, "kind is missing in 1 rows"),
        ("x,kind\n1,a\n2,a\n2,b\n", "kind", {}, "'b' has 1; schema.min_rows_per_class asks for 2"),
        (
            "x,kind\n,a\n,a\n,b\n,b\n",
            "kind",
            {},
            "no column of .* can be a feature: x: every value is missing",
        ),
        (
            "instances,kind\n1,a\n2,a\n3,b\n5,b\n",
            "kind",
            {},
            "cannot be called 'instances'.*--rename OLD=NEW",
        ),
    ],
)
def test_what_cannot_be_drafted(
    csv: str, target: str, renames: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(csv)
    with pytest.raises((ConfigError, DataError), match=complaint):
        draft.draft(str(tmp_path / "a.csv"), target, renames)


def test_on_the_command_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "data/source/a.csv").write_text("X,kind\n1.5,a\n2.5,b\n3.5,a\n5.5,b\n")
    project.run("draft", "data/source/a.csv", "--target", "kind", "--rename", "X=x")
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["data"] == {"source": "data/source/a.csv", "rename": {"X": "x"}, "replace": {}}
    with pytest.raises(ConfigError, match="--rename X: write OLD=NEW"):
        project.run("draft", "data/source/a.csv", "--target", "kind", "--rename", "X")


cells = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
)
labels = st.sampled_from(["c: d", "no"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(cells, cells, labels), min_size=6, max_size=30), st.text(max_size=6))
def test_any_source_is_drafted_into_something_that_prepares_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, object, str]], name: str
) -> None:
    folder = tmp_path_factory.mktemp("draft")
    columns = ["x", f"y{name}", "kind"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "a.csv", index=False, quoting=1, errors="replace")
    try:
        text = draft.draft(str(folder / "a.csv"), "kind", {})
    except (DataError, ConfigError):
        return
    try:
        prepares(text, folder)
    except DataError as error:
        if "in the training split is missing" not in str(error):  # the few values were drawn to test on
            raise
