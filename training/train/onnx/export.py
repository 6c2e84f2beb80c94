"""Exports a fitted pipeline to deterministic ONNX bytes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.base import ClassifierMixin
from sklearn.pipeline import Pipeline

from app.contract import Decision, Layout
from app.predictor import CATEGORIES, CONTRIBUTIONS, LABEL, NUMBERS, PROBABILITIES, VALUE
from training.base.errors import ConfigError
from training.train.algorithms import MedianImputer
from training.train.onnx import contributions, linear, lookups, mlp, neighbors, own, svm, trees

OPSET = 18
ML_OPSET = 3
"""The first version of the tree nodes that takes float64; the operator TreeEnsemble needs a later one."""

_EXACT = (lookups, linear, mlp, neighbors, svm, trees)
"""Each writes the nodes of some steps, of which `compact` makes what it writes."""


def export(fitted: Pipeline, layout: Layout, *, single: bool = False) -> bytes:
    """Export to ONNX with the inputs and outputs that `app.predictor` expects.

    Args:
        fitted: the pipeline.
        layout: of its features.
        single: whether the estimator gets its values as float32, of which some converters know no other kind.

    The bytes depend on the fitted pipeline alone: skl2onnx lists the operator sets in hash order, so they
    are sorted and the message is serialised deterministically.
    """
    _register_converters()
    fitted = own.exposed(fitted)
    own.register_converters(fitted, OPSET)
    for module in _EXACT:
        fitted = module.compact(fitted)
    if single or not layout.numbers:
        # Without numbers, the encoder's node answers float32.
        cast = ("cast", CastTransformer(dtype=np.float32 if single else np.float64))
        fitted = Pipeline([*fitted.steps[:-1], cast, fitted.steps[-1]])
    types: list[tuple[str, Any]] = []
    if layout.numbers:
        types.append((NUMBERS, DoubleTensorType([None, len(layout.numbers)])))
    if layout.categories:
        types.append((CATEGORIES, StringTensorType([None, len(layout.categories)])))
    with warnings.catch_warnings():
        # The converter reads every attribute of an SVC, also the deprecated ones, which it does not use.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            model = to_onnx(
                fitted,
                initial_types=types,
                options={"zipmap": False} if isinstance(fitted[-1], ClassifierMixin) else None,
                target_opset={"": OPSET, trees.DOMAIN: ML_OPSET},
            )
        except own.MISSING as error:
            raise ConfigError(own.lacking(error, fitted)) from error
    _name_outputs(model.graph, fitted[-1])
    opsets = {each.domain: each.version for each in model.opset_import}
    if trees.OPERATOR in {each.op_type for each in model.graph.node}:
        opsets[trees.DOMAIN] = trees.OPSET  # skl2onnx does not know it, and writes nothing that it changes
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*each) for each in sorted(opsets.items()))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def with_decision(model: bytes, decision: Decision, classes: Sequence[str]) -> bytes:
    """A classifier whose output `label` follows a decision."""
    loaded = onnx.load_model_from_string(model)
    graph = loaded.graph
    for node in graph.node:
        node.output[:] = ["most_probable" if name == LABEL else name for name in node.output]

    def constant(name: str, values: Any) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    def add(kind: str, inputs: list[str], result: str, **attributes: Any) -> str:
        graph.node.append(
            onnx.helper.make_node(kind, inputs, [result], name=f"decide_{result}", **attributes)
        )
        return result

    exact = add("Cast", [PROBABILITIES], "exact_probabilities", to=onnx.TensorProto.DOUBLE)
    if decision.threshold is None:
        costs = add("MatMul", [exact, constant("mistake_costs", np.array(decision.cost))], "expected_costs")
        add("ArgMin", [costs], LABEL, axis=1, keepdims=0)
    else:
        positive = classes.index(decision.positive or "")
        column = add(
            "Gather", [exact, constant("positive", np.array(positive))], "positive_probability", axis=1
        )
        limit = constant("threshold", np.array(decision.threshold))
        above = add("GreaterOrEqual" if positive else "Less", [column, limit], "second_class")
        add("Cast", [above], LABEL, to=onnx.TensorProto.INT64)
    onnx.checker.check_model(loaded)
    return bytes(loaded.SerializeToString(deterministic=True))


def complexity(model: bytes) -> int:
    """The number of coefficients, thresholds, support vectors and leaf values in a model."""
    graph = onnx.load_model_from_string(model).graph
    # The tables of sets of categories have bytes: a split that asks one is counted as it is.
    count = sum(
        int(np.prod(each.dims)) for each in graph.initializer if each.data_type != onnx.TensorProto.UINT8
    )
    for node in graph.node:
        for attribute in node.attribute:
            numbers = attribute.t.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
            count += len(attribute.floats) + int(np.prod(attribute.t.dims) if numbers else 0)
    return count


def _register_converters() -> None:
    for module in (*_EXACT, contributions):
        module.register_converters()
    update_registered_converter(
        MedianImputer, "EspalierMedianImputer", _median_imputer_shape, _convert_median_imputer
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


def _name_outputs(graph: onnx.GraphProto, estimator: Any) -> None:
    outputs = (VALUE,) if len(graph.output) == 1 else (LABEL, PROBABILITIES)
    if isinstance(estimator, contributions.Contributions):
        outputs = (CONTRIBUTIONS,)
        # The converters know outputs of two axes only.
        shape = [None, estimator.count, len(estimator.bases)]
        described = onnx.helper.make_tensor_value_info(graph.output[0].name, onnx.TensorProto.DOUBLE, shape)
        graph.output[0].CopyFrom(described)
    names = {each.name: name for each, name in zip(graph.output, outputs, strict=True)}
    for output in graph.output:
        output.name = names[output.name]
    for node in graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    if CONTRIBUTIONS not in outputs:
        _shape_output(graph, graph.output[0], [-1] if len(outputs) > 1 else [-1, 1])


def _shape_output(graph: onnx.GraphProto, output: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    """Give labels one dimension and values a second one of 1, which not all converters do."""
    declared = output.type.tensor_type.shape.dim
    if len(declared) == len(shape) and (len(shape) == 1 or declared[1].dim_value == 1):
        return
    unshaped, target = f"unshaped_{output.name}", f"shape_of_{output.name}"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [unshaped if each == output.name else each for each in names]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), target))
    graph.node.append(onnx.helper.make_node("Reshape", [unshaped, target], [output.name]))
    kind = output.type.tensor_type.elem_type
    output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, [None, *shape[1:]]))
