"""Parts that tests score, and the command that scores them in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.batch.__main__ import main
from tests.bundles import IRIS_FEATURES


@dataclass(frozen=True)
class Done:
    status: int
    lines: list[dict[str, Any]]
    """Of the log."""
    errors: str

    @property
    def summary(self) -> dict[str, Any]:
        return next(each for each in self.lines if each["message"] == "finished")


@dataclass
class Command:
    """`python -m app.batch` with a bundle."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, model: Path, given: object, output: object, *options: str) -> Done:
        self.monkeypatch.setenv("ESPALIER_MODEL_DIR", str(model))
        inputs = given if isinstance(given, list) else [given]
        arguments = ["--input", *map(str, inputs), "--output", str(output), "--workers", "2", *options]
        self.capsys.readouterr()
        status = main(arguments)
        errors = self.capsys.readouterr().err
        lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
        return Done(status, lines, errors)


def write_part(path: Path, rows: int = 100, seed: int = 0, group: int | None = None, **columns: Any) -> Any:
    """A part with the four numbers of Iris within their ranges, an `id`, and further columns."""
    generator = np.random.default_rng(seed)
    table = pa.table(
        {"id": np.arange(rows)} | {name: generator.uniform(1, 2, rows) for name in IRIS_FEATURES} | columns
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return table


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
