"""Reads the features of a Feast feature service, as they were at the time of each row of an entity frame.

Feast has an environment of its own, because it asks for other versions of pandas and of the Prometheus client. What happens
there is in `training.fetch.historical`; both sides exchange Parquet files.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from training.base.errors import ConfigError, DataError
from training.fetch import historical
from training.fetch.stream import Stream
from training.sections.data import FeastSettings

FEAST_PYTHON = "ESPALIER_FEAST_PYTHON"
"""Names the Python that has Feast."""
PYTHON = Path(__file__).parents[2] / ".venv/feast/bin/python"
"""The Python that has it otherwise."""


def read(service: str, settings: FeastSettings | None, entities: Stream | None) -> Stream:
    """The rows of the entities with the features of a service, in the order of the entities.

    All rows are in memory.

    Raises:
        ConfigError: Feast or a setting is missing.
        DataError: Feast refuses, says which key, type or feature is at fault, or a feature has the name of a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not service:
        raise ConfigError("data.source: feast: needs the name of a feature service, such as feast:drivers")
    if settings is None or entities is None:
        raise ConfigError(
            "data.source: feast: needs data.feast: {repository: FOLDER, entities: SOURCE}, the folder of feature_store.yaml "
            "and the rows to which features are joined"
        )
    python = _python()
    table = pa.Table.from_batches(entities.batches, entities.schema)
    with tempfile.TemporaryDirectory(prefix="espalier-feast-") as folder:
        rows, features = Path(folder, "entities.parquet"), Path(folder, "features.parquet")
        pq.write_table(table, rows)
        _run(
            python,
            {
                "repository": str(Path(settings.repository).resolve()),
                "service": service,
                "entities": str(rows),
                "output": str(features),
                "full_names": settings.full_names,
                "as_known": settings.as_known,
            },
        )
        found = pq.read_table(features)
    for name in found.column_names:
        if name in table.column_names:
            raise DataError(
                f"feast:{service} has a feature {name!r}, and so have the entities: rename or leave out their column"
            )
    for name in found.column_names:
        table = table.append_column(name, found.column(name))
    return Stream.of(table.replace_schema_metadata())


def _python() -> str:
    given = os.environ.get(FEAST_PYTHON)
    if given:
        if not Path(given).is_file():
            raise ConfigError(f"{FEAST_PYTHON}: there is no Python at {given}")
        return given
    if not PYTHON.is_file():
        raise ConfigError(
            f"feast: needs Feast: run `make feast`, or set {FEAST_PYTHON} to a Python that has it"
        )
    return str(PYTHON)


def _run(python: str, task: dict[str, object]) -> None:
    # A Feast repository may have modules of its own, and DVC sets PYTHONPATH to this project's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-P", historical.__file__],
        input=json.dumps(task),
        text=True,
        encoding="utf-8",
        capture_output=True,
        env={**environment, "PYTHONUTF8": "1", "FEAST_USAGE": "False"},
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        if done.returncode == historical.REFUSED:
            raise DataError(lines[-1])
        if any("No module named 'feast'" in line for line in lines):
            raise ConfigError(f"{FEAST_PYTHON}: {python} has no Feast: run `make feast`, or name another")
        raise DataError(f"feast: {python} failed: {lines[-1]}")
