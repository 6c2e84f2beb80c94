from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from training import config
from training.config import (
    AlgorithmsSettings,
    DataSettings,
    EvaluateSettings,
    SchemaSettings,
    SelectSettings,
    Settings,
    SplitSettings,
    TrackSettings,
)
from training.errors import ConfigError

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("  seed: 7\n\nevaluate", "  sed: 7\n\nevaluate", "split.sed: unknown key"),
        ("test_share: 0.25", "test_share: most", "split.test_share: Input should be a valid number"),
        ("test_share: 0.25", "test_share: 1.0", "split.test_share: Input should be less than 1"),
        ("  target: species\n", "", "schema.target: is missing"),
        ("range: [1, 6]", "range: [6, 1]", "schema.features.sepal_width.range: the range must ascend"),
        ("type: number, unit: cm, range: [1, 6]", "type: text", "schema.features.sepal_width"),
        ("[setosa, versicolor, virginica]", "[setosa, no]", "schema.classes.1: YAML reads yes, no"),
        ("[setosa, versicolor, virginica]", "[setosa]", "at least two classes"),
        ("[setosa, versicolor, virginica]", "[setosa, setosa]", "distinct"),
        ("target: species", "target: sepal_width", "also listed as a feature"),
        ("    sepal_length:", "    instances:", "cannot be called 'instances'"),
        ("    svm:", "    SVM!:", "becomes a folder"),
        ("method: grid", "method: guess", "search.method"),
        ("C: [0.3, 1.0, 3.0]", "C: []", "the list of values is empty"),
        ("C: [0.3, 1.0, 3.0]", "C: {low: 1, high: 2}", "a grid needs a list"),
        ("C: [0.3, 1.0, 3.0]", "C: {low: 3, high: 2}", "low must be below high"),
        ("      accuracy: 0.9\n", "      log_loss: 0.9\n", "use maximum_log_loss"),
        ("data:\n", "data: [\n", "is not YAML"),
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
