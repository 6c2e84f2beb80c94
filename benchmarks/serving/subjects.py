"""The models: a bundle of each algorithm, and rows to send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.contract import MANIFEST_FILE, MODEL_FILE, BundleError, Layout, Manifest, read_bundle
from app.predictor import Classifier
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.exchange import Prediction
from benchmarks.serving.peers.iris import CLASSES, FEATURES
from training.results.report import Report
from training.train.algorithms import SEED

FOREST = "random_forest"
LINEAR = "logistic_regression"
ALGORITHMS = ("decision_tree", LINEAR, FOREST, "svm", "xgboost")
TREES = 100
"""The random forest that the goals refer to."""


@dataclass(frozen=True)
class Subject:
    """One model.

    Attributes:
        manifest: of its bundle.
        bundle: the bundle's folder.
        rows: real rows, of shape (rows, features).
    """

    manifest: Manifest
    bundle: Path
    rows: NDArray[np.float64]

    @property
    def model(self) -> Path:
        return self.bundle / MODEL_FILE

    def sample(self, count: int) -> NDArray[np.float64]:
        """Rows drawn with replacement, the same ones each time."""
        return self.rows[np.random.default_rng(7).integers(len(self.rows), size=count)]

    def predict(self, rows: NDArray[np.float64]) -> Prediction:
        """The model's own predictions."""
        predictor = Classifier(self.model.read_bytes(), Layout.of(self.manifest.features))
        labels, probabilities = predictor.predict(rows)
        names = [self.manifest.classes[label] for label in labels]
        return Prediction(names, probabilities.astype(np.float64))


def read_subjects(root: Path, folder: Path) -> dict[str, Subject]:
    """The models of all algorithms by name, with their bundles in a folder.

    Raises:
        BenchmarkError: the pipeline has not run, or for other data.
    """
    try:
        champion = read_bundle(root / "model").manifest
        rows = read_rows(root)
        return {
            name: Subject(manifest, path, rows) for name, manifest, path in _bundles(root, champion, folder)
        }
    except (BundleError, OSError) as error:
        raise BenchmarkError(f"there are no models to measure ({error}): run make first") from None


def read_rows(root: Path) -> NDArray[np.float64]:
    """The rows of both splits."""
    frames = [pd.read_parquet(root / "data" / f"{split}.parquet") for split in ("train", "test")]
    return pd.concat(frames)[list(FEATURES)].to_numpy(dtype=np.float64)


def fit_forest(root: Path, target: str, file: Path) -> None:
    """Fit scikit-learn's forest as the pipeline does, and store it with joblib as peers do."""
    import joblib  # type: ignore[import-untyped]
    from sklearn.ensemble import RandomForestClassifier

    train = pd.read_parquet(root / "data" / "train.parquet")
    forest = RandomForestClassifier(random_state=SEED, **_report(root, FOREST).parameters)
    forest.fit(train[list(FEATURES)], train[target])
    joblib.dump(forest, file)


def _bundles(root: Path, champion: Manifest, folder: Path) -> Iterator[tuple[str, Manifest, Path]]:
    """The champion's bundle with each algorithm's model: nothing else in a bundle depends on the algorithm."""
    if tuple(each.name for each in champion.features) != FEATURES or champion.classes != CLASSES:
        raise BenchmarkError(
            f"the bundle in model/ is of {champion.name}, and the peers here are written for iris: "
            "run make with the params.yaml of this repository"
        )
    for name in ALGORITHMS:
        report = _report(root, name)
        model = (root / "candidates" / name / MODEL_FILE).read_bytes()
        manifest = champion.model_copy(
            update={"algorithm": name, "model": report.model, "metrics": {"test": report.test}}
        ).sealed()
        if name == FOREST and (trees := report.parameters["n_estimators"]) != TREES:
            raise BenchmarkError(f"the random forest has {trees} trees, and the goals are for {TREES}")
        path = folder / name
        path.mkdir()
        (path / MODEL_FILE).write_bytes(model)
        (path / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
        yield name, manifest, path


def _report(root: Path, algorithm: str) -> Report:
    return Report.model_validate_json((root / "candidates" / algorithm / "report.json").read_bytes())
