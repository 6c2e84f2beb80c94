from __future__ import annotations

from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml as parse_yaml_of_dvc
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from training.base import config
from training.base.documents import parse_yaml
from training.base.errors import ConfigError
from training.base.section import Settings
from training.sections.algorithms import AlgorithmsSettings
from training.sections.data import DataSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.schema import SchemaSettings
from training.sections.select import SelectSettings
from training.sections.split import SplitSettings
from training.sections.track import TrackSettings

ROOT = Path(__file__).parents[3]


class Everything(Settings):
    name: str
    data: DataSettings
    data_schema: SchemaSettings = Field(alias="schema")
    split: SplitSettings
    evaluate: EvaluateSettings
    train: AlgorithmsSettings
    select: SelectSettings
    track: TrackSettings


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "examples").glob("*.yaml"))], ids=lambda path: path.name
)
def test_every_parameters_file_in_the_project_is_sound(path: Path) -> None:
    settings = config.load(Everything, path)
    assert settings.data_schema.features


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("  seed: 7\n\nevaluate", "  sed: 7\n\nevaluate", "split.sed: unknown key"),
        ("test_share: 0.25", "test_share: most", "split.test_share: Input should be a valid number"),
        ("test_share: 0.25", "test_share: 1.0", "split.test_share: Input should be less than 1"),
        ("  target: species\n", "", "schema.target: is missing"),
        ("range: [1, 6]", "range: [6, 1]", "schema.features.sepal_width.range: the range must ascend"),
        ("type: number, unit: cm, range: [1, 6]", "type: text", "schema.features.sepal_width"),
        (
            "[setosa, versicolor, virginica]",
            "[setosa, true]",
            "schema.classes.1: YAML reads this as a boolean",
        ),
        ("[setosa, versicolor, virginica]", "[setosa, 2024-01-31]", "YAML reads this as a date: put"),
        ("[setosa, versicolor, virginica]", "[setosa, ~]", "YAML reads this as nothing: put"),
        ("[setosa, versicolor, virginica]", "[setosa]", "at least two classes"),
        ("[setosa, versicolor, virginica]", "[setosa, setosa]", "distinct"),
        ("target: species", "target: sepal_width", "also listed as a feature"),
        ("    sepal_length:", "    instances:", "cannot be called 'instances'"),
        ("    svm:", "    SVM!:", "becomes a folder"),
        ("method: grid", "method: guess", "search.method"),
        ("C: [0.3, 1.0, 3.0]", "C: []", "the list of values is empty"),
        ("      gamma: scale", "      C: 1.0", "C is fixed and in search.space"),
        ("C: [0.3, 1.0, 3.0]", "C: {low: 1, high: 2}", "a grid needs a list"),
        ("C: [0.3, 1.0, 3.0]", "C: {low: 3, high: 2}", "low must be below high"),
        (
            "      accuracy: 0.9\n",
            "      log_loss: 0.9\n",
            "log_loss is better when lower: write it under maximum",
        ),
        ("data:\n", "data: [\n", "is not YAML: line "),
        ("  seed: 7\n\nevaluate", "  seed: 7\n  seed: 8\n\nevaluate", 'found duplicate key "seed"'),
        ("name: iris", "name: 2024-13-45", "is not YAML: month must be in 1..12"),
        ("name: iris", "name: !!python/name:os.system", "is not YAML: line "),
        ("name: iris", "name: " + 5000 * "[", "is not YAML: it is nested too deeply"),
        ("name: iris", "name: \a", "is not YAML: unacceptable character"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(
    before: str, after: str, complaint: str, tmp_path: Path
) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert before in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError) as error:
        config.load(Everything, path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


SCALARS = (
    *(
        "1e2",
        "1E2",
        "1e-05",
        "0.00001",
        "010",
        "08",
        "0o7",
        "0x1f",
        "0b11",
        "1_000",
        ".5",
        "1.",
        "+1",
        "-.inf",
    ),
    *("on", "off", "yes", "no", "y", "true", "True", "~", "null", "", "1:30", "2024-01-31", "'1e2'", "1,5"),
)


@pytest.mark.parametrize("written", SCALARS)
def test_a_value_means_the_same_here_and_in_dvc(written: str) -> None:
    found, theirs = (read(f"a: {written}") for read in (parse_yaml, lambda text: parse_yaml_of_dvc(text, "")))
    assert found == theirs
    assert type(found["a"]) is type(theirs["a"])


@given(st.from_regex(r"[-+]?[0-9_.]{1,5}([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_whatever_looks_like_a_number_is_one_here_if_it_is_one_in_dvc(written: str) -> None:
    test_a_value_means_the_same_here_and_in_dvc(written)


def test_numbers_are_those_of_yaml_1_2() -> None:
    document = parse_yaml("[1e2, 1e-05, 010, 0o7, on, 1:30, 'é']")
    assert document == [100.0, 0.00001, 10, 7, "on", "1:30", "é"]


def test_a_file_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes("name: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not YAML: 'utf-8' codec can't decode byte 0xe9"):
        config.load(Everything, tmp_path / "params.yaml")


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("split: {test_share: 2, seed: -1, extra: 0}\n")

    class OnlySplit(Settings):
        split: SplitSettings

    with pytest.raises(ConfigError) as error:
        config.load(OnlySplit, path)
    assert all(key in str(error.value) for key in ("split.test_share", "split.seed", "split.extra"))


def test_a_file_that_is_missing_or_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top folder"):
        config.load(Everything, tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- a list\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        config.load(Everything, tmp_path / "params.yaml")


def test_a_stage_reads_its_own_sections_only(tmp_path: Path) -> None:
    class OnlySplit(Settings):
        split: SplitSettings

    path = tmp_path / "params.yaml"
    path.write_text("split: {seed: 1}\nschema: nonsense\n")
    assert config.load(OnlySplit, path).split.seed == 1
    assert config.sections(Everything)[2] == "schema"


def test_numbers_written_for_classes_are_texts() -> None:
    schema = SchemaSettings.model_validate(
        {
            "target": "digit",
            "classes": [0, 1],
            "features": {"x": {"type": "category", "categories": [1, 2.5]}},
        }
    )
    assert schema.classes == ("0", "1")
    feature = schema.features["x"]
    assert feature.type == "category"
    assert feature.categories == ("1", "2.5")


SCHEMA = """
data: {source: a.csv, missing: [NA, -999], replace: {kind: {1: one, 2: two}}}
schema:
  target: kind
  classes: [0.0, on, no, 5, -1.5]
  features:
    x: {type: number, range: [0, 1e2], missing: 0.5}
    y: {type: category, categories: [a, 1]}
"""


class Texts(Settings):
    data: DataSettings
    data_schema: SchemaSettings = Field(alias="schema")


def test_texts_that_look_like_numbers_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SCHEMA)
    settings = config.load(Texts, path)
    assert settings.data_schema.classes == ("0.0", "on", "no", "5", "-1.5")
    assert settings.data.replace == {"kind": {"1": "one", "2": "two"}}
    assert settings.data.cells.missing == ("NA", "-999")
    (number, _) = settings.data_schema.features.values()
    assert number.type == "number"
    assert number.range == (0.0, 100.0)
    assert {type(bound) for bound in number.range} == {float}


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        *(
            ("0.0", spelling, f"schema.classes.0: YAML reads {spelling} as the number {number}: put it in quotes")
            for spelling, number in [
                ("1.10", "1.1"),
                ("01001", "1001"),
                ("1e3", "1000.0"),
                ("0x10", "16"),
                ("1_000", "1000"),
                ("+1", "1"),
            ]
        ),
        ("0.0", "2020-01-01", "schema.classes.0: YAML reads this as a date: put the value in quotes"),
        ("0.0", "true", "YAML reads this as a boolean"),
        ("    x:", "    08:", "schema.features: the key 08 is not a text as the others are: put it in quotes"),
        ("1: one", "'1': one", "data.replace.kind: the key 2 is not a text as the others are"),
        ("    x:", "    ~:", "schema.features: the key None is not a text"),
        ("missing: [NA,", "decimal: ',', thousands: ',', missing: [NA,", "decimal and thousands cannot both be"),
        ("missing: [NA,", "encoding: ansi, missing: [NA,", "'ansi' is not an encoding: utf-8, cp1252"),
        ("target: kind", "target: kind\n  drop_classes: [no, x]", "no: listed under classes and under drop_classes"),
    ],
)  # fmt: skip
def test_texts_that_yaml_would_write_otherwise_need_quotes(
    before: str, after: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    assert before in SCHEMA
    path.write_text(SCHEMA.replace(before, after))
    with pytest.raises(ConfigError) as error:
        config.load(Texts, path)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            "{type: datetime, timezone: Europe/Berlinn}",
            "schema.features.when.timezone: there is no time zone 'Europe/Berlinn'",
        ),
        ("{type: datetime, timezone: europe/berlin}", "did you mean Europe/Berlin?"),
        ("{type: datetime, timezone: '+02:00'}", "no time zone '+02:00'"),
        ("{type: datetime, parts: [year, years]}", "schema.features.when.parts.1: "),
        ("{type: datetime, parts: [year, year]}", "schema.features.when.parts: parts must be distinct"),
        ("{type: datetime, parts: []}", "schema.features.when.parts: "),
        ("{type: datetime, part: [year]}", "schema.features.when.part: unknown key"),
        ("{type: datetime, unit: s}", "schema.features.when.unit: unknown key"),
        ("{type: date}", "schema.features.when: "),
        (
            "{type: datetime}, when.year: {type: number}",
            "'when.year' is a feature and a part of 'when': rename one",
        ),
    ],
)
def test_a_datetime_that_is_declared_wrong_is_named(feature: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"data: {{source: a.csv}}\nschema: {{target: kind, features: {{when: {feature}}}}}\n")
    with pytest.raises(ConfigError) as error:
        config.load(Texts, path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
