"""Exports a model's own estimators and transformers: with skl2onnx's converters, or as the models that they make of themselves.

A step that has a method `to_onnx()` returns an onnx.ModelProto with one input, numbers of shape (rows, columns), and one
output: the probabilities of shape (rows, classes) of a classifier, the value of a regressor, the columns of a transformer.
Its nodes become part of the file, wherever the step is.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
import onnx.version_converter
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from skl2onnx.sklapi import CastTransformer
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from training.train.algorithms import FEATURES, NUMBERS, OwnFeatures
from training.train.onnx.nodes import Nodes

MISSING = (MissingConverter, MissingShapeCalculator)
"""What skl2onnx raises for a step that it does not know."""
_TYPES = {onnx.TensorProto.FLOAT: FloatTensorType, onnx.TensorProto.DOUBLE: DoubleTensorType}


class Columns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Changes nothing, and says of how many columns, which a transformer that takes some of them has to know."""

    def __init__(self, count: int) -> None:
        self.count = count


def exposed(fitted: Pipeline) -> Pipeline:
    """Put a model's own transformer in the place of the step around it, and the steps of an own pipeline at the end."""
    steps = [(name, _with_transformer(step) if name == FEATURES else step) for name, step in fitted.steps]
    while isinstance(steps[-1][1], Pipeline):
        steps[-1:] = [
            (f"{steps[-1][0]}_{name}", step)
            for name, step in steps[-1][1].steps
            if step not in (None, "passthrough")
        ]
    return Pipeline(steps)


def register_converters(fitted: Pipeline, opset: int) -> None:
    """Register a converter for the type of every step that exports itself."""
    update_registered_converter(
        Columns,
        "EspalierColumns",
        _shape_columns,
        _convert_columns,
        parser=_parse_columns,
        overwrite=True,
    )
    for each in _within(fitted, set()):
        if callable(getattr(each, "to_onnx", None)) and not hasattr(each, "onnx_converter"):
            _register(type(each), opset)


def lacking(error: Exception, fitted: Pipeline) -> str:
    """Which step has no converter, and what to do about it."""
    kinds = {type(each) for each in _within(fitted, set())}
    names = [each.__name__ for each in kinds if f"'{each}'" in str(error)]
    return (
        f"the step {' '.join(names) or error} has no converter: give it a method to_onnx, or have its module register one with skl2onnx "
        "(docs/custom-code.md)"
    )


def _parse_columns(scope: Any, model: Columns, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001
    operator = scope.declare_local_operator("EspalierColumns", model)
    operator.inputs.append(inputs[0])
    operator.outputs.append(scope.declare_local_variable("columns", DoubleTensorType([None, model.count])))
    return operator.outputs


def _shape_columns(operator: Any) -> None:
    """Its parser has said."""


def _convert_columns(scope: Any, operator: Any, container: Any) -> None:  # noqa: ARG001
    container.add_node("Identity", operator.inputs[0].full_name, operator.outputs[0].full_name, op_version=14)


def _with_transformer(step: Any) -> Any:
    if isinstance(step, ColumnTransformer):
        step = deepcopy(step)
        step.transformers_ = [
            (name, _with_transformer(part) if name == NUMBERS else part, columns)
            for name, part, columns in step.transformers_
        ]
        return step
    if not isinstance(step, Pipeline):
        return step
    steps: list[tuple[str, Any]] = []
    for name, each in step.steps:
        if isinstance(each, OwnFeatures):
            # What comes after it expects float64, which not every converter answers.
            steps += [
                (f"{name}_columns", Columns(len(each.names))),
                (name, _by_position(each.transformer_)),
                (f"{name}_double", CastTransformer(dtype=np.float64)),
            ]
        else:
            steps.append((name, each))
    return Pipeline(steps)


def _by_position(transformer: Any) -> Any:
    """A fitted transformer that can be exported as part of others.

    Positions stand for names of columns, which the file does not have, and what is put side by side is float64.
    """
    if isinstance(transformer, Pipeline):
        (name, first), *rest = transformer.steps
        return Pipeline([(name, _by_position(first)), *rest])
    copy = deepcopy(transformer)
    if isinstance(transformer, FeatureUnion):
        copy.transformer_list = [(name, _as_double(part)) for name, part in transformer.transformer_list]
    elif isinstance(transformer, ColumnTransformer):
        place = {name: each for each, name in enumerate(getattr(transformer, "feature_names_in_", ()))}

        def position(column: Any) -> Any:
            return place[column] if isinstance(column, str) else column

        copy.transformers_ = [
            (
                name,
                _as_double(part),
                position(columns) if isinstance(columns, str | slice) else [*map(position, columns)],
            )
            for name, part, columns in transformer.transformers_
        ]
    return copy


def _as_double(part: Any) -> Any:
    if isinstance(part, str):
        return part
    return Pipeline([("own", part), ("double", CastTransformer(dtype=np.float64))])


def _within(value: Any, seen: set[int]) -> Iterator[Any]:
    """A fitted estimator and those that it holds."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        for each in value:
            yield from _within(each, seen)
    elif isinstance(value, dict):
        yield from _within(list(value.values()), seen)
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield value
        yield from _within(list(vars(value).values()), seen)


def _register(kind: type, opset: int) -> None:
    def shape(operator: Any) -> None:
        fitted = operator.raw_operator
        answer = _TYPES[_model(fitted, opset).graph.output[0].type.tensor_type.elem_type]
        if len(operator.outputs) == 2:
            operator.outputs[0].type = Int64TensorType([None])
            operator.outputs[1].type = answer([None, len(fitted.classes_)])
        else:
            operator.outputs[0].type = answer([None, 1 if is_regressor(fitted) else None])

    def convert(scope: Any, operator: Any, container: Any) -> None:
        nodes = Nodes(scope, operator, container)
        result = nodes.inline(_model(operator.raw_operator, opset))
        if len(operator.outputs) == 2:
            nodes.answer(nodes.add("ArgMax", result, axis=1, keepdims=0), result)
        elif is_regressor(operator.raw_operator):
            nodes.answer(nodes.add("Reshape", result, np.array([-1, 1])))
        else:
            nodes.answer(result)

    options = {"zipmap": [True, False, "columns"]} if issubclass(kind, ClassifierMixin) else {}
    update_registered_converter(
        kind, f"Own{kind.__module__}.{kind.__qualname__}", shape, convert, options=options
    )


def _model(fitted: Any, opset: int) -> onnx.ModelProto:
    """What a step makes of itself, without what depends on the machine.

    Raises:
        TypeError, ValueError: it is not what the protocol asks for.
    """
    who = f"to_onnx of {type(fitted).__name__}"
    found = fitted.to_onnx()
    model = getattr(found, "model_proto", found)
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"{who} returns {type(found).__name__}, and not an onnx.ModelProto")
    model = onnx.inliner.inline_local_functions(model)
    versions = {each.domain: each.version for each in model.opset_import}
    if versions.get("", opset) != opset:
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except Exception as error:
            raise ValueError(
                f"{who} returns a model of operator set {versions['']}, which cannot become {opset}: {error}"
            ) from error
    onnx.checker.check_model(model)
    graph = model.graph
    held = {each.name for each in graph.initializer}
    for kind, values in (
        ("input", [each for each in graph.input if each.name not in held]),
        ("output", graph.output),
    ):
        if len(values) != 1:
            raise ValueError(
                f"{who} returns a model with {len(values)} {kind}s ({_names(values)}), and not one"
            )
        tensor = values[0].type.tensor_type
        if tensor.elem_type not in _TYPES:
            raise ValueError(f"{who} returns a model whose {kind} {values[0].name} is not float or double")
        if tensor.HasField("shape") and tensor.shape.dim and tensor.shape.dim[0].HasField("dim_value"):
            raise ValueError(
                f"{who} returns a model whose {kind} {values[0].name} has exactly {tensor.shape.dim[0].dim_value} rows: "
                "export it with a first dimension that varies"
            )
    return model


def _names(values: Any) -> str:
    return ", ".join(each.name for each in values)
