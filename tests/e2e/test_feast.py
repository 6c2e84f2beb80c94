"""Real Feast with files and SQLite: what training gets, and what the service looks up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tests import feast_repository
from tests.app.processes import running
from tests.app.test_metrics import parse, value
from tests.feast_repository import NAMES, START, TTL, Repository, driver_entities, flower_entities, taken
from tests.training.project import ROOT, Project
from training.base.errors import DataError
from training.data import dataset
from training.fetch import sources
from training.fetch.stream import Stream
from training.sections.data import FeastSettings

pytestmark = pytest.mark.long(
    "app/featurestore.py",
    "app/httpclient.py",
    "deploy/feast",
    "tests/e2e/test_feast.py",
    "tests/feast_repository.py",
    "training/fetch",
    "training/sections/data.py",
)
NOW = START + pd.Timedelta(hours=160)
"""Up to when the online store has values."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("feast") / "repository"
    return feast_repository.create(folder, feast_repository.feast_python())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_later_value_is_joined(repository: Repository, tmp_path: Path, kind: str) -> None:
    """Each row has what was the newest value at its time, within the ttl, written by then, and nothing else."""
    entities = driver_entities(repository)
    path = tmp_path / f"entities.{kind}"
    entities.to_csv(path, index=False) if kind == "csv" else entities.to_parquet(path, index=False)
    section = FeastSettings(
        repository=str(repository.folder), entities=str(path), full_names=kind == "parquet"
    )
    frame = sources.stream("feast:stamps", feast=section)
    # Objects, because pandas makes floats of integers with gaps.
    table = pd.DataFrame(
        {name: pd.Series(cells.to_pylist(), dtype=object) for name, cells in joined_table(frame).items()}
    )

    def column(view: str, feature: str) -> pd.Series[Any]:
        return table[f"{view}__{feature}" if section.full_names else feature]

    assert table["driver_id"].astype("int64").tolist() == entities["driver_id"].tolist()
    assert table["target"].tolist() == entities["target"].tolist()
    fresh, kept, late = (repository.read(name) for name in ("fresh", "kept", "late"))
    joined = {
        "fresh": (taken(fresh, "stamp", entities, TTL), column("fresh", "stamp")),
        "kept": (taken(kept, "kept_stamp", entities, None), column("kept", "kept_stamp")),
        "late": (taken(late, "late_stamp", entities, TTL, "created"), column("late", "late_stamp")),
        "made": (taken(late, "made", entities, TTL, "created"), column("late", "made")),
    }
    seconds = entities["event_timestamp"].astype("datetime64[s, UTC]").astype("int64")
    for name, (expected, found) in joined.items():
        values = [None if each is None else int(each) for each in found]
        assert values == expected, name
        assert 30 < sum(each is not None for each in values) < len(values), name
        assert all(value is None or value <= time for value, time in zip(values, seconds, strict=True)), name
    # The newest value of all, or one that was written later, would have been another.
    assert taken(late, "late_stamp", entities, TTL) != joined["late"][0]
    assert taken(fresh, "stamp", entities, None) != joined["fresh"][0]


def joined_table(stream: Stream) -> dict[str, Any]:
    import pyarrow as pa

    table = pa.Table.from_batches(stream.batches, stream.schema)
    return dict(zip(table.column_names, table.columns, strict=True))


def test_what_feast_cannot_join_is_named(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "entities.csv"
    path.write_text("driver_id,event_timestamp,made\n1,2026-03-05,1\n")
    section = FeastSettings(repository=str(repository.folder), entities=str(path))
    for service, expected in (
        ("none", "no feature service 'none'; there is flowers, stamps, twins"),
        ("twins", "feature 'stamp' is in the views fresh and twin"),
        ("stamps", "has a feature 'made', and so have the entities"),
    ):
        with pytest.raises(DataError, match=expected):
            sources.stream(f"feast:{service}", feast=section)


def test_a_model_is_trained_and_served_from_one_store(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes each time, no flower with what was measured later, and one answer for an entity and its features."""
    project = _project(tmp_path, monkeypatch)
    flowers = flower_entities()
    found = set()
    for _ in range(2):
        _fetch(project, repository, flowers)
        found.add((dataset.RAW_FILE.read_bytes(), dataset.ORIGIN_FILE.read_bytes()))
    assert len(found) == 1
    raw = pd.read_parquet(dataset.RAW_FILE)
    assert list(raw.columns) == [*flowers.columns, *NAMES]
    assert raw["flower_id"].tolist() == flowers["flower_id"].tolist()
    assert np.array_equal(raw[list(NAMES)].to_numpy(), _measured()[flowers["flower_id"]])
    for stage in (["prepare"], ["train", "logistic_regression"], ["select"]):
        project.run(*stage)

    repository.feast("materialize", "2026-01-01T00:00:00", NOW.strftime("%Y-%m-%dT%H:%M:%S"))
    ids = range(52, 150)  # the petals of the others are older than the ttl
    _fetch(project, repository, pd.DataFrame({"flower_id": ids, "event_timestamp": NOW, "species": "setosa"}))
    rows = pd.read_parquet(dataset.RAW_FILE)[list(NAMES)].to_dict("records")
    assert rows != _measured()[52:].tolist()
    with repository.served() as url, _served(project.root / "model", url) as client:
        for flower, row in zip(ids, rows, strict=True):
            by_entity = client.post("/predict", json={"entity": {"flower_id": flower}})
            assert by_entity.status_code == 200, by_entity.text
            assert by_entity.content == client.post("/predict", json=row).content
        many = client.post("/predict", json={"instances": [{"entity": {"flower_id": each}} for each in ids]})
        assert many.json() == client.post("/predict", json={"instances": rows}).json()
        unknown = client.post("/predict", json={"entity": {"flower_id": 1000}})
        assert (unknown.status_code, len(unknown.json()["details"])) == (422, 4)
        metrics = parse(client.get("/metrics").text)
        assert value(metrics, "feature_store_values_total", feature="petal_width", outcome="not_found") == 1
        assert value(metrics, "feature_store_requests_total", outcome="ok") == len(ids) + 2
        # Feast's online store knows no ttl; the service has a setting for it.
        with _served(project.root / "model", url, feature_store_max_age=f"petals={TTL}") as strict:
            old = strict.post("/predict", json={"entity": {"flower_id": 100}}).json()["error"]
            assert old.startswith("petal_length: is required, and the value of the feature store is too old")
        repository.stop()
        gone = client.post("/predict", json={"entity": {"flower_id": 100}})
        assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
        assert client.post("/predict", json=rows[0]).status_code == 200


def _project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "data/source").mkdir(parents=True)
    project = Project(folder, monkeypatch)
    project.fast()
    document = project.params()
    document["train"]["algorithms"] = {
        "logistic_regression": document["train"]["algorithms"]["logistic_regression"]
    }
    project.write(document)
    return project


def _fetch(project: Project, repository: Repository, entities: pd.DataFrame) -> None:
    entities.to_parquet(project.root / "data/source/entities.parquet", index=False)
    project.change(
        data__source="feast:flowers",
        data__feast={"repository": str(repository.folder), "entities": "data/source/entities.parquet"},
    )
    project.run("fetch")


def _measured() -> NDArray[np.float64]:
    """What was measured of each flower before its event."""
    from sklearn.datasets import load_iris

    measured: NDArray[np.float64] = load_iris().data
    return measured


@contextmanager
def _served(model: Path, url: str, **settings: object) -> Iterator[httpx.Client]:
    options = {
        "feature_store": url,
        "feature_store_keys": "flower_id:int",
        "feature_store_timeout": 10,
        **settings,
    }
    with running(model, **options) as service, httpx.Client(base_url=service.url, timeout=30) as client:
        yield client
