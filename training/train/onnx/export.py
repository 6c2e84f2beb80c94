"""Exports a fitted pipeline to deterministic ONNX bytes, and checks that both give the same answers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.pipeline import Pipeline

from app.contract import MISSING_CATEGORY, CategoryFeature, Feature, Layout, NumberFeature
from app.predictor import CATEGORIES, LABEL, NUMBERS, PROBABILITIES, Classifier
from training.base.errors import ParityError
from training.data.dataset import Profile, Split
from training.results.report import Parity
from training.train.algorithms import MedianImputer, inputs
from training.train.onnx import linear, svm, trees

OPSET = 18
ML_OPSET = 3
"""The first version of the tree nodes that takes float64."""

TOLERANCE = 1e-6
"""Largest difference between a probability of the file and of the estimator."""

PARITY_BLOCK = 10_000
"""Rows that are compared at once."""
MOST_CELLS = 8_000_000
"""Generated values that are held at once (64 MB)."""


def export(fitted: Pipeline, layout: Layout) -> bytes:
    """Export to ONNX with the inputs and outputs that `app.predictor` expects.

    The bytes depend on the fitted pipeline alone: skl2onnx lists the operator sets in hash order, so they
    are sorted and the message is serialised deterministically.
    """
    _register_converters()
    for module in (linear, svm):
        fitted = module.compact(fitted)
    types: list[tuple[str, Any]] = []
    if layout.numbers:
        types.append((NUMBERS, DoubleTensorType([None, len(layout.numbers)])))
    if layout.categories:
        types.append((CATEGORIES, StringTensorType([None, len(layout.categories)])))
    with warnings.catch_warnings():
        # The converter reads every attribute of an SVC, also the deprecated ones, which it does not use.
        warnings.simplefilter("ignore", FutureWarning)
        model = to_onnx(
            fitted,
            initial_types=types,
            options={"zipmap": False},
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        )
    _name_outputs(model.graph)
    opsets = sorted({(each.domain, each.version) for each in model.opset_import})
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*each) for each in opsets)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def complexity(model: bytes) -> int:
    """The number of coefficients, thresholds, support vectors and leaf values in a model."""
    graph = onnx.load_model_from_string(model).graph
    count = sum(int(np.prod(each.dims)) for each in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            count += len(attribute.floats) + int(np.prod(attribute.t.dims) if attribute.HasField("t") else 0)
    return count


def check_parity(fitted: Pipeline, predictor: Classifier, data: Split, generated: Iterable[Split]) -> Parity:
    """Compare the model file with the fitted estimator on the data and on generated rows.

    Raises:
        ParityError: a label differs, or a probability by more than `TOLERANCE`.
    """
    largest, rows = 0.0, 0
    for split in chain([data], generated):
        rows += len(split)
        for block in _blocks(split):
            X = inputs(block)
            label, probabilities = predictor.predict(block.numbers, block.categories)
            wrong = np.flatnonzero(label != fitted.predict(X))
            gaps = np.abs(fitted.predict_proba(X) - probabilities).max(axis=1)
            # `not <=` instead of `>`, so that NaN fails too.
            if len(wrong) or not gaps.max() <= TOLERANCE:
                row = int(wrong[0]) if len(wrong) else int(gaps.argmax())
                raise ParityError(
                    f"the exported model disagrees with the fitted one: {len(wrong)} of {len(block)} labels differ, "
                    f"probabilities by up to {gaps.max():.2g} (allowed {TOLERANCE:g}); first at numbers "
                    f"{block.numbers[row].tolist()} categories {block.categories[row].tolist()}"
                )
            largest = max(largest, float(gaps.max()))
    return Parity(
        data_rows=len(data),
        generated_rows=rows - len(data),
        label_differences=0,
        largest_probability_difference=float(f"{largest:.1e}"),
    )


def _blocks(split: Split) -> Iterator[Split]:
    """Pieces of a split, because the encoder of wide categories needs memory for all rows at once."""
    for start in range(0, len(split), PARITY_BLOCK):
        rows = slice(start, start + PARITY_BLOCK)
        yield Split(split.numbers[rows], split.categories[rows], split.labels[rows], split.frame.iloc[rows])


def generated_rows(profile: Profile, seen: Split, rows: int, seed: int) -> Iterator[Split]:
    """So many rows on the features' grid and as many half a step beside it, in blocks that fit in memory."""
    block = max(1, MOST_CELLS // len(profile.features))
    for fraction in (1, 2):
        for number, start in enumerate(range(0, rows, block)):
            size = min(block, rows - start)
            yield grid_rows(profile, seen, size, fraction=fraction, seed=[seed, number] if number else seed)


def grid_rows(profile: Profile, seen: Split, rows: int, *, fraction: int, seed: int | Sequence[int]) -> Split:
    """Generate rows on the features' natural grid, where thresholds of trees lie.

    Args:
        profile: gives each number's step and declared range, and each category's values.
        seen: rows whose extremes bound the first half; the second half spans the declared ranges.
        rows: how many.
        fraction: 1 for the grid of the step; 2 for half steps, the midpoints where trees split.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)
    layout = profile.layout
    features = {each.name: each for each in profile.features}
    numbers = np.empty((rows, len(layout.numbers)))
    for column, name in enumerate(layout.numbers):
        feature = features[name]
        assert isinstance(feature, NumberFeature)  # noqa: S101 - the layout says so
        values = seen.numbers[:, column]
        low, high = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 1.0)
        half = rows // 2
        numbers[:half, column] = _on_grid(random, low, high, feature.step / fraction, half)
        numbers[half:, column] = _on_grid(
            random, feature.minimum, feature.maximum, feature.step / fraction, rows - half
        )
        if feature.missing:
            numbers[random.random(rows) < 0.1, column] = np.nan
    categories = np.empty((rows, len(layout.categories)), dtype=object)
    for column, name in enumerate(layout.categories):
        choices = _choices(features[name])
        categories[:, column] = choices[random.integers(0, len(choices), rows)]
    return Split(numbers, categories, np.zeros(rows, dtype=np.int64), seen.frame.iloc[:0])


def _choices(feature: Feature) -> NDArray[np.object_]:
    assert isinstance(feature, CategoryFeature)  # noqa: S101 - the layout says so
    return np.array([*feature.categories, *([MISSING_CATEGORY] if feature.missing else [])], dtype=object)


def _on_grid(
    random: np.random.Generator, low: float, high: float, step: float, rows: int
) -> NDArray[np.float64]:
    # Far from zero, floats are further apart than a small step.
    step = max(step, max(abs(low), abs(high)) / 2**53)
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    multiples = random.integers(first, max(first, last) + 1, rows)
    # Rounded to the decimals of the step, because requests contain 0.3 and not 3 * 0.1.
    return np.round(multiples * step, max(0, int(np.ceil(-np.log10(step))) + 2))


def _register_converters() -> None:
    for module in (linear, svm, trees):
        module.register_converters()
    update_registered_converter(
        MedianImputer, "EspalierMedianImputer", _median_imputer_shape, _convert_median_imputer
    )
    try:
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
        from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
        from xgboost import XGBClassifier
    except ImportError:
        return
    update_registered_converter(
        XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        convert_xgboost,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )


def _median_imputer_shape(operator: Any) -> None:
    operator.outputs[0].type = DoubleTensorType([None, operator.inputs[0].type.shape[1]])


def _convert_median_imputer(scope: Any, operator: Any, container: Any) -> None:
    medians = operator.raw_operator.medians_
    median = scope.get_unique_variable_name("median")
    missing = scope.get_unique_variable_name("missing")
    container.add_initializer(median, onnx.TensorProto.DOUBLE, [1, len(medians)], medians.tolist())
    values = operator.inputs[0].full_name
    container.add_node("IsNaN", [values], [missing], op_version=13)
    container.add_node("Where", [missing, median, values], [operator.outputs[0].full_name], op_version=9)


def _name_outputs(graph: onnx.GraphProto) -> None:
    names = {each.name: name for each, name in zip(graph.output, (LABEL, PROBABILITIES), strict=True)}
    for output in graph.output:
        output.name = names[output.name]
    for node in graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
