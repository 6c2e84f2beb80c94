"""The plot templates under `.dvc/plots/`, filled by DVC's own renderer.

They fix the CSV files that training writes to `candidates/<algorithm>/plots/`; all measured on the test split:

    confusion.csv         actual,predicted,count,share     every pair of classes in the classes' order, zeros
                                                           too; share = count / rows of the actual class
    roc.csv               class,fpr,tpr                    per class, fpr ascending, from 0,0 to 1,1
    precision_recall.csv  class,recall,precision           per class; any order, recall 0 and 1 included
    calibration.csv       class,predicted,observed,count   per class, predicted ascending; empty bins left out
    predicted.csv         predicted,actual                 a row per row of the split, at most 1,000
    residuals.csv         predicted,residual               the same rows; residual = actual - predicted
    importance.csv        feature,importance,low,high      descending

A template reads its columns by name: `dvc.yaml` needs `template` and `title`, and x and y only where one
plot joins the files of several algorithms. Such a plot has one panel for each algorithm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dvc_render.vega import VegaRenderer  # type: ignore[import-untyped]

from common import pipelines
from training.results.report import PLOTS

TEMPLATES = Path(__file__).parents[2] / ".dvc" / "plots"
COLUMNS = {
    "confusion": ("actual", "predicted", "count", "share"),
    "roc": ("class", "fpr", "tpr"),
    "precision_recall": ("class", "recall", "precision"),
    "calibration": ("class", "predicted", "observed", "count"),
    "predicted": ("predicted", "actual"),
    "residuals": ("predicted", "residual"),
    "importance": ("feature", "importance", "low", "high"),
}
TEXTS = {"class", "feature"}
CONFUSED = {"predicted", "actual"}
"""Classes in the confusion matrix, and values in the plots of a regression."""


def rows(plot: str, revision: str, algorithm: str) -> list[dict[str, str]]:
    """As DVC hands them over: CSV fields as text, with revision and file name added."""
    samples: dict[str, list[tuple[str, ...]]] = {
        "confusion": [
            ("a", "a", "9", "0.9"),
            ("a", "b", "1", "0.1"),
            ("b", "a", "0", "0"),
            ("b", "b", "10", "1"),
        ],
        "roc": [("a", "0", "0"), ("a", "0", "1"), ("a", "1", "1"), ("b", "0", "0"), ("b", "1", "1")],
        "precision_recall": [("a", "1", "0.5"), ("a", "0.5", "1"), ("a", "0", "1")],
        "calibration": [("a", "0.1", "0.2", "10"), ("a", "0.9", "0.8", "10")],
        "predicted": [("1.5", "2"), ("9.5", "8"), ("11.25", "10.5")],
        "residuals": [("1.5", "0.5"), ("9.5", "-1.5"), ("11.25", "-0.75")],
        "importance": [("x", "0.3", "0.2", "0.4"), ("y", "0.1", "0", "0.2")],
    }
    where = {
        "rev": revision,
        "filename": f"candidates/{algorithm}/plots/{plot}.csv",
        "field": COLUMNS[plot][-1],
    }
    return [dict(zip(COLUMNS[plot], each, strict=True)) | where for each in samples[plot]]


def fill(plot: str, points: list[dict[str, str]]) -> dict[str, Any]:
    renderer = VegaRenderer(
        points, plot, template=plot, template_dir=str(TEMPLATES), title=f"A title of {plot}"
    )
    spec: dict[str, Any] = json.loads(json.dumps(renderer.get_filled_template()))
    return spec


def every(node: Any, key: str) -> list[Any]:
    """All values of a key, however deep."""
    found = []
    if isinstance(node, dict):
        found += [node[key]] if key in node else []
        found += [each for value in node.values() for each in every(value, key)]
    elif isinstance(node, list):
        found += [each for value in node for each in every(value, key)]
    return found


def test_there_is_one_template_for_each_plot_that_training_writes() -> None:
    written = {plot for plots in PLOTS.values() for plot in plots}
    assert {each.stem for each in TEMPLATES.glob("*.json")} == written
    assert set(COLUMNS) == written


def test_dvc_lists_the_plots_that_training_writes() -> None:
    assert {task: tuple(plots) for task, plots in pipelines.PLOTS.items()} == PLOTS


@pytest.mark.parametrize("task", sorted(pipelines.PLOTS))
def test_dvc_names_columns_that_a_plot_has(task: str) -> None:
    for plot, (x, y, _) in pipelines.PLOTS[task].items():
        assert {x, y} <= set(COLUMNS[plot])


@pytest.mark.parametrize("plot", sorted(COLUMNS))
@pytest.mark.parametrize("revisions", [("workspace",), ("workspace", "HEAD")])
@pytest.mark.parametrize("algorithms", [("svm",), ("svm", "decision_tree")])
def test_template_takes_data_and_title_and_leaves_no_anchor(
    plot: str, revisions: tuple[str, ...], algorithms: tuple[str, ...]
) -> None:
    points = [
        point
        for revision in revisions
        for algorithm in algorithms
        for point in rows(plot, revision, algorithm)
    ]
    spec = fill(plot, points)
    assert spec["data"]["values"] == points
    assert spec["title"]["text"] == f"A title of {plot}"
    assert "<DVC_" not in json.dumps(spec)
    assert spec["$schema"] == "https://vega.github.io/schema/vega-lite/v5.json"


@pytest.mark.parametrize("plot", sorted(COLUMNS))
def test_template_draws_columns_that_the_file_has(plot: str) -> None:
    spec = fill(plot, rows(plot, "workspace", "svm"))
    parsed = set(spec["data"]["format"]["parse"])
    # DVC hands over text: a number that is not parsed is sorted as text and drawn as a name.
    assert parsed == set(COLUMNS[plot]) - TEXTS - (CONFUSED if plot == "confusion" else set())
    drawn = {each for each in every(spec["spec"], "field") if isinstance(each, str)}
    assert drawn <= {*COLUMNS[plot], "rev", "model", "x", "y", "low", "high"}
    assert set(COLUMNS[plot]) - {"share"} <= drawn


@pytest.mark.parametrize("plot", sorted(COLUMNS))
def test_template_separates_algorithms_and_revisions(plot: str) -> None:
    spec = fill(plot, rows(plot, "workspace", "svm"))
    assert "model" in every(spec["facet"], "field")
    channels = {"confusion": "row", "importance": "yOffset", "predicted": "shape", "residuals": "shape"}
    channel = channels.get(plot, "strokeDash")
    assert "rev" in [each["field"] for each in every(spec, channel) if isinstance(each, dict)]


@pytest.mark.parametrize("plot", ["roc", "calibration"])
def test_template_draws_the_diagonal(plot: str) -> None:
    spec = fill(plot, rows(plot, "workspace", "svm"))
    assert [{"x": 0, "y": 0}, {"x": 1, "y": 1}] in every(spec["spec"], "values")


def test_the_diagonal_of_values_spans_them_all() -> None:
    """From the least to the largest of predicted and actual values, in each panel."""
    spec = fill("predicted", rows("predicted", "workspace", "svm"))
    (joined,) = every(spec["transform"], "joinaggregate")
    assert {(each["op"], each["field"]) for each in joined} == {
        (op, field) for op in ("min", "max") for field in COLUMNS["predicted"]
    }
    diagonal = spec["spec"]["layer"][0]["encoding"]
    assert {channel: each["field"] for channel, each in diagonal.items()} == {
        "x": "low",
        "y": "low",
        "x2": "high",
        "y2": "high",
    }


def test_residuals_are_drawn_around_zero() -> None:
    spec = fill("residuals", rows("residuals", "workspace", "svm"))
    assert [{"y": 0}] in every(spec["spec"], "values")


@pytest.mark.parametrize("plot", sorted(COLUMNS))
def test_axes_have_titles(plot: str) -> None:
    spec = fill(plot, rows(plot, "workspace", "svm"))
    titles = [axis.get("title") for axis in every(spec["spec"], "x") if isinstance(axis, dict)]
    assert any(titles)
