"""Explains a fitted model in a file of its own, and checks that base and contributions add up to the model's score."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from app.contract import Explanation, ModelFile, sha256
from app.predictor import Explainer
from training.base.errors import ParityError
from training.data.dataset import Split
from training.results.report import Explained
from training.train.algorithms import ESTIMATOR, inputs, origins
from training.train.decision import positive_class
from training.train.fitting import Task
from training.train.onnx import contributions, export, linear
from training.train.onnx.contributions import Contributions
from training.train.onnx.ensembles import Ensemble, Floats, Link, Tree
from training.train.onnx.readers import read
from training.train.parity import MOST_ROWS, blocks, compared_rows, generated_rows

TOLERANCE = 1e-6
"""Largest difference between base plus contributions and the estimator's score: in log-odds, in probabilities or in standard
deviations of the target."""
SINGLE_TOLERANCE = 1e-5
"""Of a score that was added up in float32: the difference that its rounding allows in addition, as a part of all that is
added up."""
GENERATED_ROWS = 1000
"""Rows on each of the two grids on which the sums are checked beside all data."""

LOG_ODDS, PROBABILITY = "log-odds", "probability"

_RAW_SCORES: dict[str, dict[str, Any]] = {
    "xgboost": {"output_margin": True},
    "lightgbm": {"raw_score": True},
    "catboost": {"prediction_type": "RawFormulaVal"},
}
"""By package, what makes `predict` answer the sums of the trees."""


class UnexplainedError(Exception):
    """A model cannot be explained exactly; the message says why."""


def explain(task: Task, fitted: Pipeline) -> tuple[bytes, Explained]:
    """Export what explains the predictions of a fitted pipeline.

    Returns:
        The file, and what it explains.

    Raises:
        UnexplainedError: the estimator cannot be explained exactly.
        ParityError: base and contributions do not add up to the estimator's score.
    """
    profile = task.profile
    positive = positive_class(task.decision, profile) if len(profile.classes) == 2 else None
    rest, explained, unit = _explained(task, fitted, positive)
    file = export.export(Pipeline([*rest.steps, (ESTIMATOR, explained)]), profile.layout)
    rows, largest = _check(task, fitted, file, explained, positive)
    return file, Explained(
        explanation=Explanation(
            file=ModelFile(sha256=sha256(file), bytes=len(file), opset=export.OPSET),
            unit=profile.value.unit if profile.value else unit,
            positive=None if positive is None else profile.classes[positive],
            base=tuple(explained.bases.tolist()),
        ),
        rows=rows,
        largest_difference=float(f"{largest:.1e}"),
    )


def _explained(task: Task, fitted: Pipeline, positive: int | None) -> tuple[Pipeline, Contributions, str]:
    """The steps in front of the estimator, what explains it, and the unit of a classifier's score."""
    if task.block.features:
        raise UnexplainedError(f"its columns are made by {task.block.features}")
    features, count = np.array(origins(task.profile, task.block)), len(task.profile.features)
    # A model's own estimator need not have counted them.
    if getattr(fitted[-1], "n_features_in_", len(features)) != len(features):
        raise UnexplainedError("its columns do not come from one feature each")
    rest = Pipeline(fitted.steps[:-1])
    ensemble = read(fitted[-1])
    if ensemble is not None:
        if ensemble.link is Link.EXPONENTIAL:
            raise UnexplainedError("its values are products of what the features contribute, not sums")
        ensemble = _of_positive(ensemble, positive)
        outputs = len(task.profile.classes) if len(task.profile.classes) > 2 else 1
        of_trees = contributions.of_trees(ensemble, outputs, features, count)
        if (size := contributions.factors(of_trees)) > contributions.MOST_FACTORS:
            raise UnexplainedError(
                f"its trees need {size:,} factors for a row, and {contributions.MOST_FACTORS:,} are allowed: "
                "grow fewer or smaller trees"
            )
        return rest, of_trees, PROBABILITY if ensemble.link is Link.MEAN else LOG_ODDS
    compacted = linear.compact(fitted)
    sums = compacted[-1]
    if not isinstance(sums, linear.Linear):
        raise UnexplainedError("it is neither linear nor made of trees")
    weights, intercepts = sums.weights, sums.intercepts
    if positive is not None:
        # The score of the positive class, less that of the other.
        weights, intercepts = (
            each[..., [positive]] - each[..., [1 - positive]] for each in (weights, intercepts)
        )
    rest = Pipeline(compacted.steps[:-1])
    means = _transformed(rest, task.train.sample(MOST_ROWS, task.evaluate.seed)).mean(axis=0)
    return rest, contributions.of_terms(weights, intercepts, means, features, count), LOG_ODDS


def _of_positive(ensemble: Ensemble, positive: int | None) -> Ensemble:
    """Of two classes, the trees with values for the positive one alone."""
    if positive is None:
        return ensemble

    def values(tree: Tree) -> Floats:
        return tree.values[:, [positive]] if ensemble.wide else tree.values * (1 if positive else -1)

    return replace(ensemble, trees=[replace(each, values=values(each)) for each in ensemble.trees])


def _check(
    task: Task, fitted: Pipeline, file: bytes, explained: Contributions, positive: int | None
) -> tuple[int, float]:
    """Compare base plus contributions with the estimator's scores.

    Returns:
        How many rows were compared, and the largest difference.
    """
    whole = compared_rows(task.train, task.test, task.evaluate.seed)
    unit = float(whole.target.std()) or 1.0 if task.profile.value else 1.0
    explainer = Explainer(file, task.profile.layout)
    generated = generated_rows(task.profile, whole, GENERATED_ROWS, task.evaluate.seed)
    rows, largest = 0, 0.0
    for block in chain.from_iterable(map(blocks, chain([whole], generated))):
        found = explainer.explain(block.numbers, block.categories)
        scores = _scores(fitted, block, positive)
        gaps = np.abs(found.sum(axis=1) + explained.bases - scores)
        allowed = TOLERANCE * unit
        if scores.dtype == np.float32:
            allowed = allowed + SINGLE_TOLERANCE * (np.abs(found).sum(axis=1) + np.abs(explained.bases))
        # `not <=` instead of `>`, so that NaN fails too.
        if not (gaps <= allowed).all():
            raise ParityError(
                f"the explanation does not add up to the model's score: it differs by up to {gaps.max():.2g}"
            )
        rows, largest = rows + len(block), max(largest, float(gaps.max()))
    return rows, largest


def _scores(fitted: Pipeline, split: Split, positive: int | None) -> Floats:
    """The estimator's own scores, of shape (rows, outputs), in the type in which it adds them up."""
    estimator, columns = fitted[-1], _transformed(Pipeline(fitted.steps[:-1]), split)
    packages = {each.__module__.split(".")[0] for each in type(estimator).__mro__}
    raw = next((options for name, options in _RAW_SCORES.items() if name in packages), None)
    if raw is not None:
        found = estimator.predict(columns, **raw)
    elif hasattr(estimator, "decision_function"):
        found = estimator.decision_function(columns)
    elif hasattr(estimator, "predict_proba"):
        found = estimator.predict_proba(columns)
    else:
        found = estimator.predict(columns)
    scores = np.reshape(found, (len(split), -1))
    if positive is None:
        return scores
    return scores[:, [positive]] if scores.shape[1] == 2 else scores * (1 if positive else -1)


def _transformed(steps: Pipeline, split: Split) -> Any:
    rows = inputs(split)
    return np.asarray(steps.transform(rows)) if steps.steps else rows
