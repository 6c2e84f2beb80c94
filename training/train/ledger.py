"""Remembers what an interrupted search has computed.

The search that follows proposes the same candidates, because it has the same seed, and takes their values from here. So
it ends with the same parameters as one that was not interrupted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sklearn
from sklearn.pipeline import Pipeline

from training.data.dataset import Split
from training.data.table import row_hashes
from training.sections.algorithms import SearchSettings

FOLDER = Path("build/search")


class Ledger:
    """Values by candidate, rows and fold, in a file of lines that are written as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, float] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                key, value = json.loads(line)
            except ValueError:
                continue  # cut off where the process was killed
            self._values[key] = value

    @classmethod
    def of(
        cls,
        name: str,
        split: Split,
        settings: SearchSettings,
        score: str,
        pipeline: Pipeline,
        code: Mapping[str, str],
    ) -> Ledger:
        """The ledger of a search; other rows, settings, parameters or code of the model's own have another one."""
        rows = row_hashes(split.frame, list(split.frame.columns))
        # A function or an object without a text of its own is shown with its place in memory.
        parameters = re.sub(r" at 0x[0-9a-f]+", "", repr(pipeline.get_params()))
        inputs = [settings.model_dump_json(), score, parameters, sklearn.__version__, dict(code)]
        digest = hashlib.sha256(rows.tobytes() + json.dumps(inputs).encode()).hexdigest()
        return cls(FOLDER / f"{name}-{digest[:16]}.jsonl")

    def get(self, candidate: dict[str, Any], rows: int, fold: int) -> float | None:
        return self._values.get(_key(candidate, rows, fold))

    def add(self, candidate: dict[str, Any], rows: int, fold: int, value: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([_key(candidate, rows, fold), value]) + "\n")


def forget(name: str) -> None:
    """Remove the ledgers of an algorithm whose stage has ended."""
    for path in FOLDER.glob(f"{name}-*.jsonl"):
        path.unlink(missing_ok=True)


def _key(candidate: dict[str, Any], rows: int, fold: int) -> str:
    return f"{rows}/{fold}/{candidate!r}"
