"""Measures how time and memory of each stage grow with the rows and the columns.

Data is generated with a seed: numbers, some of them with gaps, and a class that depends on half of them. Each stage runs as
DVC runs it, in a process of its own. Beside it runs a script as people write it with pandas, scikit-learn and XGBoost.
Results are added to benchmarks/results/scale.json, so that a part can be repeated; the page and the plot come from there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks import machine, scale_report

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scale.json"

BLOCK = 131_072
"""Rows that are generated and written at once."""
POLL_SECONDS = 0.02
ALGORITHMS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"C": 1.0, "max_iter": 200},
    "xgboost": {"n_estimators": 60, "max_depth": 6, "learning_rate": 0.2, "tree_method": "hist"},
    "decision_tree": {"max_depth": 6, "min_samples_leaf": 20},
    "random_forest": {"n_estimators": 50, "max_depth": 10, "min_samples_leaf": 5},
    "hist_gradient_boosting": {
        "max_iter": 60,
        "max_leaf_nodes": 31,
        "learning_rate": 0.2,
        "early_stopping": False,
    },
    "svm": {"C": 1.0, "gamma": "scale"},
    "naive_bayes": {},
    "lightgbm": {"n_estimators": 60, "num_leaves": 31, "learning_rate": 0.2},
}
FOLDS = 3

PLAIN = """
import sys, pandas as pd, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.impute import SimpleImputer
from xgboost import XGBClassifier
frame = pd.read_parquet(sys.argv[1]).drop_duplicates()
X, y = frame.drop(columns="label"), (frame["label"] == "yes").astype(int)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=7)
models = {
    "logistic_regression": lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(C=1.0, max_iter=200)),
    "xgboost": lambda: XGBClassifier(n_estimators=60, max_depth=6, learning_rate=0.2, tree_method="hist", n_jobs=1, random_state=7),
}
for name in sys.argv[2:]:
    for inner, outer in StratifiedKFold(3, shuffle=True, random_state=7).split(X, y):
        model = models[name]().fit(X.iloc[inner], y.iloc[inner])
        p = model.predict_proba(X.iloc[outer])[:, 1]
        f1_score(y.iloc[outer], p > 0.5, average="macro"), roc_auc_score(y.iloc[outer], p), log_loss(y.iloc[outer], p)
    model = models[name]().fit(X, y)
    p = model.predict_proba(X_test)[:, 1]
    print(name, accuracy_score(y_test, p > 0.5), roc_auc_score(y_test, p))
"""


@dataclass(frozen=True)
class Used:
    """What a process and its children took.

    Attributes:
        seconds: of the clock.
        cpu_seconds: of all cores.
        anonymous: the highest memory in bytes that only swapping could free; files that are mapped do not count.
        resident: the highest memory in bytes that was mapped, with such files.
    """

    seconds: float
    cpu_seconds: float
    anonymous: int
    resident: int


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10**each for each in range(3, 8)])
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument(
        "--algorithms", nargs="*", default=["logistic_regression", "xgboost"], choices=ALGORITHMS
    )
    parser.add_argument(
        "--format", choices=("parquet", "csv"), default="parquet", help="of the source (parquet)"
    )
    parser.add_argument("--no-plain", action="store_true", help="leave the script beside it out")
    parser.add_argument(
        "--folder", type=Path, help="keep the data and the outputs there; a temporary folder if not given"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write page and plot from the results"
    )
    arguments = parser.parse_args()
    if not arguments.report:
        for rows in arguments.rows:
            with _folder(arguments.folder, rows, arguments.features) as folder:
                for what, used in measure(
                    folder,
                    rows,
                    arguments.features,
                    arguments.algorithms,
                    arguments.format,
                    plain=not arguments.no_plain,
                ):
                    print(
                        f"{rows:>10,} × {arguments.features} {what:<32} {used.seconds:8.1f} s "
                        f"{used.anonymous / 2**20:8.0f} MB",
                        file=sys.stderr,
                        flush=True,
                    )
                    _keep(rows, arguments.features, what, used)
    print(scale_report.write(RESULT))


def measure(
    folder: Path, rows: int, features: int, algorithms: Sequence[str], kind: str, *, plain: bool
) -> Iterator[tuple[str, Used]]:
    """What each stage takes, by its name, in a folder that gets the data and the parameters."""
    source = folder / f"source.{kind}"
    if not source.exists():
        generate(source, rows, features)
    params = _params(source.name, features, algorithms)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    run = _runner(folder)
    run("training.settings")
    suffix = "" if kind == "parquet" else f" from {kind}"
    yield f"fetch{suffix}", run("training.fetch")
    yield "prepare", run("training.prepare")
    yield "explore", run("training.explore")
    for name in algorithms:
        yield f"train {name}", run("training.train", name)
    yield "select", run("training.select")
    both = [each for each in algorithms if each in ("logistic_regression", "xgboost")]
    if plain and both and kind == "parquet":
        yield f"script {' + '.join(both)}", used([sys.executable, "-c", PLAIN, str(source), *both], folder)


def generate(path: Path, rows: int, features: int) -> None:
    """Write a table with a class; the same rows for the same arguments."""
    random = np.random.default_rng(7)
    weights = random.normal(size=features) * (np.arange(features) % 2)
    names = [f"x{place:03d}" for place in range(features)]
    schema = pa.schema([*((name, pa.float64()) for name in names), ("label", pa.string())])
    temporary = path.with_suffix(".tmp")
    with _writer(temporary, schema, path.suffix) as writer:
        for start in range(0, rows, BLOCK):
            size = min(BLOCK, rows - start)
            X = random.normal(size=(size, features)).round(3)
            # A tree sees what a line does not: a product of two features.
            score = (X @ weights) / math.sqrt(features / 2) + X[:, 0] * X[:, -1] + random.logistic(size=size)
            X[:, features // 3][random.random(size) < 0.02] = np.nan
            labels = np.where(score > 0, "yes", "no")
            columns = [pa.array(column, from_pandas=True) for column in X.T]
            writer.write_table(pa.table([*columns, pa.array(labels)], schema=schema))
    temporary.replace(path)


def _writer(path: Path, schema: pa.Schema, suffix: str) -> Any:
    if suffix == ".parquet":
        return pq.ParquetWriter(path, schema)
    from pyarrow import csv

    return csv.CSVWriter(path, schema)


def _params(source: str, features: int, algorithms: Sequence[str]) -> Mapping[str, Any]:
    numbers: dict[str, dict[str, Any]] = {f"x{place:03d}": {"type": "number"} for place in range(features)}
    numbers[f"x{features // 3:03d}"]["missing"] = 0.2
    return {
        "name": "scale",
        "data": {"source": source},
        "schema": {
            "target": "label",
            "classes": ["no", "yes"],
            "min_rows_per_class": 20,
            "features": numbers,
        },
        "split": {"test_share": 0.2},
        "evaluate": {"folds": FOLDS, "score": "f1_macro"},
        "train": {"algorithms": {name: ALGORITHMS[name] for name in algorithms}},
        "select": {"tie": 0.005, "gate": {"maximum_latency_ms": 1000, "maximum_bytes": 10**9}},
        "card": {"intended_use": "Measuring.", "limits": ["Generated data."]},
    }


def _runner(folder: Path) -> Any:
    return lambda *module: used([sys.executable, "-m", *module], folder)


def used(command: Sequence[str], folder: Path) -> Used:
    """What a command takes; ends the benchmark if it fails."""
    start = time.perf_counter()
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PATH": f"{machine.BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        anonymous = resident = 0
        while process.poll() is None:
            sizes = _memory(process.pid)
            anonymous, resident = max(anonymous, sizes[0]), max(resident, sizes[1])
            time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"error: {' '.join(command[1:4])} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return Used(seconds, _children_seconds() - _taken(seconds=True), anonymous, resident)


_BEFORE = [0.0]


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _taken(*, seconds: bool) -> float:
    """The processor time of earlier commands; the next call returns that of this one too."""
    before, _BEFORE[0] = _BEFORE[0], _children_seconds()
    return before if seconds else 0.0


def _memory(pid: int) -> tuple[int, int]:
    """Anonymous and resident bytes of a process and of those that it started."""
    anonymous = resident = 0
    for each in [pid, *_children(pid)]:
        try:
            lines = Path(f"/proc/{each}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        sizes = {
            key: int(value.split()[0]) * 1024
            for key, _, value in (line.partition(":") for line in lines)
            if key.startswith("Rss") or key == "VmRSS"
        }
        anonymous += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        resident += sizes.get("VmRSS", 0)
    return anonymous, resident


def _children(pid: int) -> list[int]:
    try:
        direct = [
            int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        ]
    except OSError:
        return []
    return [*direct, *(below for each in direct for below in _children(each))]


def _folder(parent: Path | None, rows: int, features: int) -> Any:
    if parent is None:
        return _temporary()
    import contextlib

    path = parent / f"{rows}x{features}"
    path.mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext(path)


def _temporary() -> Any:
    import contextlib

    @contextlib.contextmanager
    def made() -> Iterator[Path]:
        (ROOT / "build").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
            yield Path(name)

    return made()


def _keep(rows: int, features: int, what: str, used: Used) -> None:
    """Add a figure to the results."""
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    known.setdefault(f"{rows} x {features}", {})[what] = {
        "seconds": round(used.seconds, 2),
        "cpu_seconds": round(used.cpu_seconds, 2),
        "anonymous_mb": round(used.anonymous / 2**20),
        "resident_mb": round(used.resident / 2**20),
    }
    RESULT.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
