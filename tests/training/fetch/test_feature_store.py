"""Sources `feast:` without Feast: what is missing is named. tests/e2e/test_feast.py has the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.training.project import Project
from training.base.errors import ConfigError
from training.fetch import feature_store, historical, sources
from training.sections.data import FeastSettings


@pytest.fixture
def entities(tmp_path: Path) -> str:
    path = tmp_path / "entities.csv"
    path.write_text("driver_id,event_timestamp,target\n1,2026-01-03,yes\n")
    return str(path)


def test_it_needs_its_section_and_a_name(entities: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"feast: needs data\.feast: \{repository: FOLDER, entities: SOURCE\}"
    ):
        sources.stream("feast:drivers")
    section = FeastSettings(repository=str(tmp_path), entities=entities)
    with pytest.raises(ConfigError, match="needs the name of a feature service"):
        sources.stream("feast:", feast=section)
    with pytest.raises(ValueError, match="another source than feast"):
        FeastSettings(repository="x", entities="feast:drivers")


def test_without_feast_the_remedy_is_named(
    entities: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = FeastSettings(repository=str(tmp_path), entities=entities)
    monkeypatch.delenv(feature_store.FEAST_PYTHON, raising=False)
    monkeypatch.setattr(feature_store, "PYTHON", tmp_path / "none")
    with pytest.raises(ConfigError, match="run `make feast`, or set ESPALIER_FEAST_PYTHON"):
        sources.stream("feast:drivers", feast=section)
    monkeypatch.setenv(feature_store.FEAST_PYTHON, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="ESPALIER_FEAST_PYTHON: there is no Python at"):
        sources.stream("feast:drivers", feast=section)


@pytest.mark.slow
def test_a_python_without_feast_is_named(
    entities: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(feature_store.FEAST_PYTHON, sys.executable)
    section = FeastSettings(repository=str(tmp_path), entities=entities)
    with pytest.raises(ConfigError, match="has no Feast: run `make feast`"):
        sources.stream("feast:drivers", feast=section)


def test_a_draft_needs_the_repository(project: Project) -> None:
    with pytest.raises(ConfigError, match="needs --feast-repository FOLDER and --entities SOURCE"):
        project.run("draft", "feast:drivers", "--target", "target")
    with pytest.raises(ConfigError, match="are of a source feast:"):
        project.run("draft", "sklearn:iris", "--target", "species", "--entities", "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "driver,event_timestamp\n1,2026-01-03\n",
            "no column 'driver_id', which Feast joins by; they have driver",
        ),
        ("driver_id,event_timestamp\n1,noon\n", "event_timestamp has a value that is no time"),
        ("driver_id,event_timestamp\n1,2026-01-03\n,2026-01-03\n", "driver_id is empty in row 2"),
        ("driver_id,event_timestamp\n1,\n", "event_timestamp is empty in row 1"),
        ("driver_id,event_timestamp\nx,2026-01-03\n", "driver_id has a value that is no Int64"),
        (
            "driver_id,event_timestamp\n99999999999999999999,2026-01-03\n",
            "driver_id has a value that is no Int64",
        ),
    ],
)
def test_an_entity_that_feast_cannot_join_is_named(
    entities: str, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    Path(entities).write_text(text)
    stream = sources.stream(entities)
    table = pa.Table.from_batches(stream.batches, stream.schema)
    with pytest.raises(SystemExit) as raised:
        historical.requests_of(table, historical.Asked(keys={"driver_id": "Int64"}))
    assert raised.value.code == historical.REFUSED
    assert expected in capsys.readouterr().err


def test_keys_get_the_types_that_feast_declares(entities: str) -> None:
    Path(entities).write_text(
        "region,driver_id,event_timestamp\n01,007,2026-01-03\n02,9007199254740993,2026-01-03T10:00:00.5+02:00\n"
    )
    stream = sources.stream(entities)
    table = pa.Table.from_batches(stream.batches, stream.schema)
    asked = historical.Asked(keys={"driver_id": "Int64", "region": "String"})
    frame = historical.requests_of(table, asked)
    assert frame["driver_id"].tolist() == [7, 9007199254740993]
    assert frame["region"].tolist() == ["01", "02"]
    assert [each.isoformat() for each in frame["event_timestamp"]] == [
        "2026-01-03T00:00:00+00:00",
        "2026-01-03T08:00:00.500000+00:00",
    ]
