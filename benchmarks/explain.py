"""Measures what explanations cost: requests with and without one, and the `shap` package on the same rows.

Each algorithm that can be explained is fitted with the defaults of training/defaults.yaml to all rows of a data set and
served in this process. Takes three minutes; needs `make estimators`.
"""

from __future__ import annotations

# First, because it limits the numeric libraries to one thread.
import training  # noqa: F401

# isort: split
import argparse
import datetime
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from prometheus_client import CollectorRegistry
from sklearn.pipeline import Pipeline

from app.contract import Bundle, DataOrigin, Manifest, ModelFile, sha256
from app.metrics import ModelMetrics
from app.predictor import Explainer
from app.service import Service
from benchmarks import machine
from benchmarks.parity import TABLES, prepared
from common import files
from training.base import config
from training.data.dataset import Profile, Split
from training.sections.algorithms import AlgorithmSettings
from training.sections.decision import DecisionSettings
from training.sections.evaluate import EvaluateSettings
from training.train import algorithms
from training.train import fitting as train
from training.train.explanation import UnexplainedError, explain
from training.train.onnx import export

RESULT = Path(__file__).parents[1] / "benchmarks/results/explain.md"
CHOSEN = ("iris", "breast cancer", "diabetes")
BATCH = 100
ROUNDS = 7
SECONDS = 0.1
"""Of each measurement in a round."""


@dataclass(frozen=True)
class Measured:
    """Microseconds of a request with one row and with many, without and with an explanation; or why there is none."""

    algorithm: str
    size: int = 0
    one: tuple[float, float] = (0.0, 0.0)
    many: tuple[float, float] = (0.0, 0.0)
    ours: tuple[float, float] = (0.0, 0.0)
    """The explanation alone, of one row and of many."""
    shap: tuple[float, float] | None = None
    difference: float = 0.0
    """The largest one from what the package says."""
    refusal: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(CHOSEN), metavar="NAME")
    parser.add_argument(
        "--output", type=Path, default=RESULT, help="(default: benchmarks/results/explain.md)"
    )
    options = parser.parse_args()
    found = {}
    for name in options.tables:
        table = TABLES[name]()
        profile, rows = prepared(name, table)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = (
                profile,
                [measure(profile, rows, each) for each in algorithms.FACTORIES[table.task]],
            )
    text = report(found)
    files.write_text(options.output, text)
    print(text)


def measure(profile: Profile, rows: Split, name: str) -> Measured:
    parameters = {**config.defaults()["train"]["algorithms"][name]}
    parameters.pop("search", None)
    block = AlgorithmSettings.model_validate(parameters)
    fitted = train.fit(algorithms.pipeline(name, block, profile), rows, name)
    task = train.Task(
        name=name,
        block=block,
        evaluate=EvaluateSettings(),
        decision=DecisionSettings(),
        profile=profile,
        train=rows,
        test=rows.take(np.arange(1)),
    )
    try:
        file, explained = explain(task, fitted)
    except UnexplainedError as error:
        return Measured(name, refusal=str(error))
    service = served(profile, name, export.export(fitted, profile.layout), file, explained.explanation)
    chosen = rows.take(np.random.default_rng(7).choice(len(rows), BATCH, replace=len(rows) < BATCH))
    bodies = [
        body(profile, chosen.take(np.arange(count)), explained=each)
        for count in (1, BATCH)
        for each in (False, True)
    ]
    explainer = Explainer(file, profile.layout)
    first = chosen.take(np.arange(1))
    calls: list[Callable[[], Any]] = [
        *(lambda each=each: service.predict(each) for each in bodies),
        lambda: explainer.explain(first.numbers, first.categories),
        lambda: explainer.explain(chosen.numbers, chosen.categories),
    ]
    theirs = shap_values(fitted, chosen)
    calls += [lambda: theirs(1), lambda: theirs(BATCH)] if theirs else []
    times = timed(calls)
    return Measured(
        name,
        len(file),
        (times[0], times[1]),
        (times[2], times[3]),
        (times[4], times[5]),
        (times[6], times[7]) if theirs else None,
        difference(profile, explainer, chosen, theirs(BATCH)) if theirs else 0.0,
    )


def served(profile: Profile, name: str, model: bytes, file: bytes, explanation: Any) -> Service:
    value = None if profile.value is None else profile.value
    manifest = Manifest(
        name="measured",
        algorithm=name,
        target=profile.target,
        classes=profile.classes,
        class_shares=profile.class_shares,
        value=value,
        interval=None if value is None else {"level": 0.9, "margin": 1.0, "coverage": {"value": 0.9}},
        explanation=explanation,
        out_of_range="accept",
        features=profile.features,
        metrics={},
        data=DataOrigin(source=name, sha256="0" * 64, train_rows=profile.rows, test_rows=0),
        model=ModelFile(sha256=sha256(model), bytes=len(model), opset=export.OPSET),
    )
    bundle = Bundle(manifest=manifest, model=model, explanation=file)
    return Service(bundle, ModelMetrics(manifest, CollectorRegistry()))


def body(profile: Profile, rows: Split, *, explained: bool) -> bytes:
    """A request of one instance, or of columns."""
    columns = dict(zip(profile.layout.numbers, rows.numbers.T.tolist(), strict=True))
    columns |= dict(zip(profile.layout.categories, rows.categories.T.tolist(), strict=True))
    option = {"explain": True} if explained else {}
    if len(rows) > 1:
        return orjson.dumps({"columns": columns} | option)
    return orjson.dumps({name: values[0] for name, values in columns.items()} | option)


def shap_values(fitted: Pipeline, rows: Split) -> Callable[[int], Any] | None:
    """What the package says of so many rows; None if it does not know the model."""
    import shap

    steps = Pipeline(fitted.steps[:-1])
    columns = np.asarray(steps.transform(algorithms.inputs(rows)) if steps.steps else algorithms.inputs(rows))
    try:
        explainer = shap.TreeExplainer(fitted[-1], feature_perturbation="tree_path_dependent")
        explainer.shap_values(columns[:1])
    except Exception:
        return None
    return lambda count: explainer.shap_values(columns[:count])


def difference(profile: Profile, explainer: Explainer, rows: Split, values: Any) -> float:
    theirs = np.asarray(values)
    theirs = theirs.reshape(*theirs.shape[:2], -1)
    theirs = theirs[:, :, 1:] if theirs.shape[2] == 2 else theirs
    origins = np.array(algorithms.origins(profile, AlgorithmSettings(parameters={})))
    summed = [theirs[:, origins == place].sum(axis=1) for place in range(len(profile.features))]
    return float(np.abs(np.stack(summed, axis=1) - explainer.explain(rows.numbers, rows.categories)).max())


def timed(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Median microseconds of the processor for each call, measured in turn, so that a slow minute meets all."""
    found: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(ROUNDS):
        for times, call in zip(found, calls, strict=True):
            count, start = 0, time.process_time()
            while (passed := time.process_time() - start) < SECONDS:
                call()
                count += 1
            times.append(passed / count * 1e6)
    return list(map(statistics.median, found))


def report(found: dict[str, tuple[Profile, list[Measured]]]) -> str:
    lines = [
        "# What an explanation costs",
        "",
        "Each algorithm has the defaults of training/defaults.yaml, without a search. Times are from a request's body to the "
        f"answer's bytes, without the network: of one instance, and of a row among {BATCH} as columns; with and without "
        "`explain`. The last columns are the explanation alone: the time of the `shap` package's TreeExplainer over that of "
        "the file, for a single row and for a hundred, and the largest difference between their contributions.",
        "",
    ]
    for name, (profile, results) in found.items():
        kind = f"{len(profile.classes)} classes" if profile.classes else "a number"
        lines += [
            f"## {name}: {len(profile.features)} features, {kind}",
            "",
            f"| algorithm | kB | one row, µs | explained | ratio | of {BATCH}, µs | explained | ratio | shap / ours, one row | of {BATCH} | difference |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for each in results:
            if each.refusal:
                continue
            without, explained = each.one
            many = [time / BATCH for time in each.many]
            cells = [
                each.algorithm,
                f"{each.size / 1000:,.0f}",
                f"{without:.0f}",
                f"{explained:,.0f}",
                f"{explained / without:.1f}",
                f"{many[0]:.1f}",
                f"{many[1]:,.1f}",
                f"{many[1] / many[0]:.0f}",
                *(f"{theirs / ours:.1f}" for theirs, ours in zip(each.shap or (), each.ours, strict=False)),
                *([f"{each.difference:.0e}"] if each.shap else ["", "", ""]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        refused = [f"{each.algorithm}: {each.refusal}" for each in results if each.refusal]
        lines += ["", f"Without an explanation: {'; '.join(refused)}.", ""]
    packages = ("shap", "scikit-learn", "xgboost-cpu", "lightgbm", "catboost", "onnxruntime")
    lines += [
        "## On what",
        "",
        f"{datetime.date.today().isoformat()}, {machine.cpu()}, Python {platform.python_version()}, "
        f"{machine.versions(packages)}, one thread. `python -m benchmarks.explain` measures it again.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
