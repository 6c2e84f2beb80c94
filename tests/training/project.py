"""A project folder in which a test runs stages as DVC would, but in this process."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@dataclass
class Project:
    root: Path
    monkeypatch: pytest.MonkeyPatch

    def run(self, stage: str, *arguments: str) -> None:
        """Run `python -m training.<stage> <arguments>` from the project's top folder."""
        self.monkeypatch.chdir(self.root)
        self.monkeypatch.setattr(sys, "argv", [stage, *arguments])
        package = f"training.{stage}"
        if (ROOT / "training" / stage).is_dir():
            package += ".__main__"
        importlib.import_module(package).main()

    def params(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text())
        return document

    def change(self, **keys: Any) -> None:
        """Set keys of params.yaml; `train__algorithms__svm__C=2` for train.algorithms.svm.C."""
        document = self.params()
        for path, value in keys.items():
            *parents, last = path.split("__")
            section = document
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        self.write(document)

    def write(self, document: dict[str, Any]) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def fast(self) -> None:
        """Make training quick: fewer generated rows, resamples and trees, and no search."""
        self.change(
            evaluate__parity_rows=2000,
            evaluate__bootstrap=100,
            train__algorithms__random_forest={"n_estimators": 10},
            train__algorithms__svm={"gamma": "scale"},
            train__algorithms__xgboost={"n_estimators": 10, "tree_method": "exact"},
        )
