"""What a tracker shows: a run for each algorithm, one for the data and one for the comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from app.contract import EXPLANATION_FILE, MANIFEST_FILE, MODEL_FILE, Manifest, Task, read_bundle
from training.base.errors import DataError
from training.data.dataset import EXPLORE
from training.results import leaderboard, report
from training.results.board import Leaderboard
from training.results.report import Report

BUNDLE = Path("model")


@dataclass(frozen=True)
class Chart:
    """A table, and how to draw it."""

    kind: Literal["confusion", "curve", "scatter", "bar"]
    title: str
    table: dict[str, Any]
    x: str
    """A column, as the next two."""
    y: str
    series: str | None = None
    """Of a curve what it belongs to; of a confusion matrix the count in a cell."""
    x_title: str | None = None
    y_title: str | None = None


@dataclass(frozen=True)
class Run:
    """What one run shows, as plain values."""

    id: str
    """Derived from the inputs: the same inputs are the same run, however often they are tracked."""
    name: str
    job_type: str
    tags: list[str]
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    charts: dict[str, Chart] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    artifact: dict[str, Any] | None = None
    made: float | None = None
    """When, in seconds since 1970; None for now. MLflow orders runs by it; W&B takes no time."""


@dataclass(frozen=True)
class Plan:
    group: str
    runs: list[Run]
    latest: bool = True
    """Whether these are the present results. A run that is recorded already moves to their group, and to no earlier one."""


def read_plan(name: str) -> Plan:
    """What there is to track.

    Raises:
        DataError, BundleError: an earlier stage has not run or its output is broken.
    """
    board = leaderboard.read()
    manifest = read_bundle(BUNDLE).manifest
    reports = [report.read(row.algorithm) for row in board.rows]
    plots = {each.algorithm: read_plots(each.algorithm, manifest.task) for each in reports}
    return make_plan(name, board, manifest, reports, plots, sorted(EXPLORE.glob("*.png")))


def read_plots(algorithm: str, task: Task) -> dict[str, pd.DataFrame]:
    frames = {}
    for plot in report.PLOTS[task]:
        path = report.directory(algorithm) / "plots" / f"{plot}.csv"
        texts = ["class", "feature", *(["actual", "predicted"] if plot == "confusion" else [])]
        try:
            frames[plot] = pd.read_csv(
                path,
                dtype=dict.fromkeys(texts, "str"),
                keep_default_na=False,  # a class may be called NA
                na_values=[""],
            )
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}; run `dvc repro train@{algorithm}`") from None
    return frames


def _as_json(frame: pd.DataFrame) -> dict[str, Any]:
    """The columns and the data; a missing number is None."""
    return frame.astype(object).where(frame.notna(), None).to_dict("split", index=False)


def make_plan(
    name: str,
    board: Leaderboard,
    manifest: Manifest,
    reports: Sequence[Report],
    plots: Mapping[str, Mapping[str, pd.DataFrame]],
    images: Sequence[Path],
) -> Plan:
    digests = [_digest(each.model_dump_json()) for each in reports]
    group = f"{name}-{_digest(name, manifest.data.sha256, *digests)[:8]}"
    runs = []
    for each, digest in zip(reports, digests, strict=True):
        champion = each.algorithm == manifest.algorithm
        runs.append(
            algorithm_run(
                f"{each.algorithm}-{_digest(name, each.algorithm, digest)[:12]}",
                name,
                each,
                plots[each.algorithm],
                manifest,
                artifact=bundle_artifact(name, manifest) if champion else None,
            )
        )
    # The data run shows the pictures, so they are part of its identity.
    pictures = [hashlib.sha256(each.read_bytes()).hexdigest() for each in images]
    described = {"data", "features", "classes", "class_shares", "target"}
    content = manifest.model_dump_json(include=described | ({"value"} if manifest.value else set()))
    runs.append(data_run(f"data-{_digest(name, content, *pictures)[:12]}", name, manifest, images))
    identity = _digest(name, board.model_dump_json(), manifest.digest, *digests)
    runs.append(comparison_run(f"leaderboard-{identity[:12]}", name, board, manifest, reports))
    return Plan(group, runs)


def algorithm_run(
    id: str,
    name: str,
    result: Report,
    plots: Mapping[str, pd.DataFrame],
    manifest: Manifest,
    *,
    artifact: dict[str, Any] | None,
) -> Run:
    summary: dict[str, Any] = {}
    for metric, folds in result.cv.items():
        summary |= {f"cv/{metric}": folds.mean, f"cv/{metric}_std": folds.std}
    for metric, score in result.train.items():
        summary[f"train/{metric}"] = score.value
    for metric, score in result.test.items():
        summary[f"test/{metric}"] = score.value
        if score.low is not None and score.high is not None:
            summary |= {f"test/{metric}_low": score.low, f"test/{metric}_high": score.high}
    if interval := result.interval:
        summary |= {
            "interval/level": interval.level,
            "interval/margin": interval.margin,
            "interval/coverage": interval.coverage.value,
            "interval/coverage_low": interval.coverage.low,
            "interval/coverage_high": interval.coverage.high,
        }
    summary |= {
        "champion": artifact is not None,
        "model/bytes": result.model.bytes,
        "model/complexity": result.complexity,
        "parity/label_differences": result.parity.label_differences,
        "parity/largest_difference": result.parity.largest_difference,
    }
    counts = range(len(next(iter(result.cv.values())).folds))
    return Run(
        id=id,
        name=f"{name} {result.algorithm}",
        job_type="train",
        tags=[name, result.algorithm, *(["champion"] if artifact else [])],
        config={
            "name": name,
            "algorithm": result.algorithm,
            "parameters": result.parameters,
            "search": result.search.model_dump(mode="json") if result.search else None,
            "score": result.score,
            "data": manifest.data.model_dump(mode="json"),
            "model_sha256": result.model.sha256,
        },
        summary=summary,
        history=[
            {f"fold/{metric}": each.folds[fold] for metric, each in result.cv.items()} for fold in counts
        ],
        tables=_tables_by_class(result, plots) if manifest.task == "classification" else {},
        charts=charts(plots, manifest.task),
        artifact=artifact,
    )


def _tables_by_class(result: Report, plots: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    return {
        "per_class": {
            "columns": ["class", "precision", "recall", "f1", "roc_auc", "support"],
            "data": [[label, *each.model_dump().values()] for label, each in result.per_class.items()],
        },
        "calibration": _as_json(plots["calibration"]),
    }


def charts(plots: Mapping[str, pd.DataFrame], task: Task) -> dict[str, Chart]:
    return {
        **(_charts_of_classes(plots) if task == "classification" else _charts_of_values(plots)),
        "importance": Chart(
            "bar", "Permutation importance", _as_json(plots["importance"]), x="importance", y="feature"
        ),
    }


def _charts_of_classes(plots: Mapping[str, pd.DataFrame]) -> dict[str, Chart]:
    confusion = _as_json(plots["confusion"][["actual", "predicted", "count"]])
    roc, precision_recall = _as_json(plots["roc"]), _as_json(plots["precision_recall"])
    titles = "False positive rate", "True positive rate"
    return {
        "confusion": Chart(
            "confusion", "Confusion matrix", confusion, x="predicted", y="actual", series="count"
        ),
        "roc": Chart("curve", "ROC", roc, "fpr", "tpr", "class", *titles),
        "precision_recall": Chart(
            "curve",
            "Precision and recall",
            precision_recall,
            "recall",
            "precision",
            "class",
            "Recall",
            "Precision",
        ),
    }


def _charts_of_values(plots: Mapping[str, pd.DataFrame]) -> dict[str, Chart]:
    return {
        "predicted": Chart(
            "scatter", "Actual against predicted", _as_json(plots["predicted"]), x="predicted", y="actual"
        ),
        "residuals": Chart("scatter", "Residuals", _as_json(plots["residuals"]), x="predicted", y="residual"),
    }


def release_run(name: str, manifest: Manifest, folder: Path) -> Run:
    """A run for a bundle that was released and whose training was never tracked."""
    return Run(
        id=f"release-{manifest.version}",
        name=f"{name} {manifest.version}",
        job_type="release",
        tags=[name, manifest.algorithm, "release"],
        config={
            "name": name,
            "algorithm": manifest.algorithm,
            "data": manifest.data.model_dump(mode="json"),
            "model_sha256": manifest.model.sha256,
        },
        summary={
            f"{split}/{metric}": score.value
            for split, scores in manifest.metrics.items()
            for metric, score in scores.items()
        },
        artifact=bundle_artifact(name, manifest, folder),
    )


def bundle_artifact(name: str, manifest: Manifest, folder: Path = BUNDLE) -> dict[str, Any]:
    return {
        "name": name,
        "files": [
            str(folder / name)
            for name in (MODEL_FILE, EXPLANATION_FILE, MANIFEST_FILE)
            if manifest.explanation or name != EXPLANATION_FILE
        ],
        "metadata": {
            "version": manifest.version,
            "digest": manifest.digest,
            "algorithm": manifest.algorithm,
            "data_source": manifest.data.source,
            "data_sha256": manifest.data.sha256,
            "model_sha256": manifest.model.sha256,
        },
        "aliases": ["champion", manifest.version],
    }


def data_run(id: str, name: str, manifest: Manifest, images: Sequence[Path]) -> Run:
    features = []
    for each in manifest.features:
        if each.type == "number":
            values = f"{each.minimum:g} to {each.maximum:g}"
        elif each.type == "datetime":
            values = each.span
        else:
            values = ", ".join(each.categories)
        features.append([each.name, each.type, each.unit, values, str(each.typical), each.missing])
    return Run(
        id=id,
        name=f"{name} data",
        job_type="data",
        tags=[name, "data"],
        config={"name": name, "target": manifest.target, "data": manifest.data.model_dump(mode="json")},
        summary={
            "rows/train": manifest.data.train_rows,
            "rows/test": manifest.data.test_rows,
            "count/features": len(manifest.features),
            **({} if manifest.value else {"count/classes": len(manifest.classes)}),
        },
        tables={
            "features": {
                "columns": ["feature", "type", "unit", "values", "typical", "may be missing"],
                "data": features,
            },
            **_shares(manifest),
        },
        images={each.stem: str(each) for each in images},
    )


def _shares(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """How the target is distributed in training."""
    if manifest.value is None:
        rows = list(zip(manifest.classes, manifest.class_shares, strict=True))
        return {"class_shares": {"columns": ["class", "share"], "data": rows}}
    bins = [[each.label, each.share] for each in manifest.value.bins]
    return {"target_shares": {"columns": [manifest.target, "share"], "data": bins}}


def comparison_run(
    id: str, name: str, board: Leaderboard, manifest: Manifest, reports: Sequence[Report]
) -> Run:
    by_name = {each.algorithm: each for each in reports}
    metrics = list(reports[0].test)
    columns = ["rank", "algorithm", f"cv/{board.score}", f"cv/{board.score}_std"]
    columns += [f"test/{each}" for each in metrics] + ["complexity", "bytes"]
    rows = []
    for rank, row in enumerate(board.rows, start=1):
        test = by_name[row.algorithm].test
        scores = [test[each].value for each in metrics]
        rows.append([rank, row.algorithm, row.cv_mean, row.cv_std, *scores, row.complexity, row.bytes])
    return Run(
        id=id,
        name=f"{name} leaderboard",
        job_type="select",
        tags=[name, "leaderboard"],
        config={"name": name, "score": board.score, "data": manifest.data.model_dump(mode="json")},
        summary={"champion": board.champion, "version": board.version, "rule": board.rule},
        tables={"leaderboard": {"columns": columns, "data": rows}},
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
