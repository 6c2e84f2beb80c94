"""A Feast repository with flowers, as sklearn has them, and with values that say when they were stamped.

Each flower has a measurement before its event time and a false one after it. Each stamp is the time of its row in seconds, so a
test sees which row a join took.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd

from tests.tools import free_port, missing
from training.fetch.feature_store import FEAST_PYTHON, PYTHON

TTL = 3 * 24 * 3600
"""Seconds that a stamp of the views `fresh` and `late` counts."""
START = pd.Timestamp("2026-03-01", tz="UTC")
NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")

STORE = """
project: garden
provider: local
registry: data/registry.db
offline_store: {type: file}
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""
DEFINITIONS = f"""
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

flower = Entity(name="flower", join_keys=["flower_id"], value_type=ValueType.INT64)
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


def view(name, entity, seconds, kind, *features, created=""):
    source = FileSource(
        path=f"data/{{name}}.parquet", timestamp_field="event_timestamp", created_timestamp_column=created
    )
    key = Field(name=f"{{entity.name}}_id", dtype=Int64)
    fields = [Field(name=each, dtype=kind) for each in features]
    return FeatureView(
        name=name, entities=[entity], ttl=timedelta(seconds=seconds), schema=[key, *fields], source=source
    )


sepals = view("sepals", flower, 0, Float64, "sepal_length", "sepal_width")
petals = view("petals", flower, {TTL}, Float64, "petal_length", "petal_width")
fresh = view("fresh", driver, {TTL}, Int64, "stamp")
kept = view("kept", driver, 0, Int64, "kept_stamp")
late = view("late", driver, {TTL}, Int64, "late_stamp", "made", created="created")
twin = view("twin", driver, 0, Int64, "stamp")

flowers = FeatureService(name="flowers", features=[sepals, petals])
stamps = FeatureService(name="stamps", features=[fresh, kept, late])
twins = FeatureService(name="twins", features=[fresh, twin])
"""


def feast_python() -> str:
    """The Python that has Feast; without it the test is skipped, as `require` does."""
    found = os.environ.get(FEAST_PYTHON) or str(PYTHON)
    return found if Path(found).is_file() else missing("Feast (`make feast`)", insists=("all",))


@dataclass
class Repository:
    """A Feast repository whose registry is up to date."""

    folder: Path
    python: str
    _server: subprocess.Popen[bytes] | None = None

    def feast(self, *arguments: str) -> None:
        done = subprocess.run(
            [self.python, "-m", "feast.cli.cli", *arguments],
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def read(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"data/{name}.parquet")

    @contextmanager
    def served(self) -> Iterator[str]:
        """The address of `feast serve`."""
        port = free_port()
        self._server = process = subprocess.Popen(
            [self.python, "-m", "feast.cli.cli", "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(1200):
                try:
                    urlopen(f"{url}/health", timeout=5).close()
                except (URLError, OSError):
                    assert process.poll() is None, "feast serve ended"
                    time.sleep(0.1)
                else:
                    break
            yield url
        finally:
            self.stop()

    def stop(self) -> None:
        """End `feast serve`."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)


def create(folder: Path, python: str) -> Repository:
    """The repository below a folder, with its data and its registry."""
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(STORE)
    (folder / "definitions.py").write_text(dedent(DEFINITIONS))
    for name, frame in (*_flowers(), *_stamps()):
        frame.to_parquet(folder / f"data/{name}.parquet")
    made = Repository(folder, python)
    made.feast("apply")
    return made


def flower_entities() -> pd.DataFrame:
    """A row for each flower, in no order, with its species; the measurement of each is a day old."""
    from sklearn.datasets import load_iris

    bunch = load_iris()
    rows = np.random.default_rng(3).permutation(150)
    return pd.DataFrame(
        {
            "flower_id": rows,
            "event_timestamp": START + pd.to_timedelta(rows, unit="h") + pd.Timedelta(days=1),
            "species": [str(bunch.target_names[bunch.target[each]]) for each in rows],
        }
    )


def _flowers() -> Iterator[tuple[str, pd.DataFrame]]:
    from sklearn.datasets import load_iris

    values = load_iris().data
    measured = START + pd.to_timedelta(range(150), unit="h")
    for view, columns in (("sepals", (0, 1)), ("petals", (2, 3))):
        true = pd.DataFrame({NAMES[each]: values[:, each] for each in columns}).assign(
            flower_id=range(150), event_timestamp=measured
        )
        # Another flower's values, half a day after the event.
        false = pd.DataFrame({NAMES[each]: values[::-1, each] for each in columns}).assign(
            flower_id=range(150), event_timestamp=measured + pd.Timedelta(days=1, hours=12)
        )
        yield view, pd.concat([true, false], ignore_index=True)


def _stamps() -> Iterator[tuple[str, pd.DataFrame]]:
    random = np.random.default_rng(11)
    for view, feature in (
        ("fresh", "stamp"),
        ("kept", "kept_stamp"),
        ("late", "late_stamp"),
        ("twin", "stamp"),
    ):
        seconds = random.choice(30 * 24 * 60, 600, replace=False) * 60
        frame = pd.DataFrame(
            {
                "driver_id": random.integers(0, 40, 600),
                "event_timestamp": START + pd.to_timedelta(seconds, unit="s"),
            }
        )
        frame[feature] = frame["event_timestamp"].astype("datetime64[s, UTC]").astype("int64")
        if view == "late":
            frame["made"] = frame[feature] + random.integers(0, TTL, 600)
            frame["created"] = pd.to_datetime(frame["made"], unit="s", utc=True)
        yield view, frame


def driver_entities(repository: Repository, rows: int = 300) -> pd.DataFrame:
    """Drivers at random times, some at the very second of a stamp, some twice, some unknown to Feast."""
    random = np.random.default_rng(5)
    drivers = random.integers(-2, 42, rows)
    times = START + pd.to_timedelta(random.integers(0, 30 * 24 * 3600, rows), unit="s")
    frame = pd.DataFrame(
        {"driver_id": drivers, "event_timestamp": times.astype("datetime64[ns, UTC]"), "target": "x"}
    )
    exact = repository.read("fresh").iloc[:20]
    exact = pd.DataFrame(
        {"driver_id": exact["driver_id"], "event_timestamp": exact["event_timestamp"], "target": "y"}
    )
    made = pd.concat([frame, exact, frame.iloc[:15].assign(target="z")], ignore_index=True)
    return made.sample(frac=1, random_state=1, ignore_index=True)


def taken(
    rows: pd.DataFrame, feature: str, entities: pd.DataFrame, ttl: int | None, created: str = ""
) -> list[Any]:
    """What the newest row that was known at the time of each entity has, row by row."""
    found: list[Any] = []
    for driver, moment in zip(entities["driver_id"], entities["event_timestamp"], strict=True):
        known = rows[(rows["driver_id"] == driver) & (rows["event_timestamp"] <= moment)]
        if ttl is not None:
            known = known[known["event_timestamp"] >= moment - pd.Timedelta(seconds=ttl)]
        if created:
            known = known[known[created] <= moment]
        newest = known.sort_values("event_timestamp")
        found.append(int(newest[feature].iloc[-1]) if len(newest) else None)
    return found


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return inherited | {"FEAST_USAGE": "False", "PYTHONUTF8": "1"}
