"""Shared by the converters: their registration with skl2onnx, and a short way to write nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.compose
from numpy.typing import NDArray
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import ClassifierMixin


class Nodes:
    """Writes the nodes of one estimator into the graph that skl2onnx builds.

    Attributes:
        values: name of the estimator's input, as float64; a text stays one.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope = scope
        self._container = container
        self._outputs = [each.full_name for each in operator.outputs]
        self._nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        (given,) = operator.inputs
        self.values: str = given.full_name
        if not isinstance(given.type, DoubleTensorType | StringTensorType):
            # A step in front of the estimator may have cast them.
            self.values = self.add("Cast", self.values, to=onnx.TensorProto.DOUBLE)

    def add(self, kind: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        """Add a node with one result.

        Args:
            kind: as the standard calls it.
            inputs: names of results, or constants.
            attributes: of the node.

        Returns:
            The name of the result.
        """
        (result,) = self.add_with_results(1, kind, *inputs, **attributes)
        return result

    def add_with_results(
        self, results: int, kind: str, *inputs: str | NDArray[Any], **attributes: Any
    ) -> list[str]:
        """Add a node with several results. `op_domain` is passed like an attribute."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        outputs = [self._scope.get_unique_variable_name(kind.lower()) for _ in range(results)]
        self._nodes.append((kind, names, outputs, attributes))
        return outputs

    def inline(self, model: onnx.ModelProto) -> str:
        """Add the nodes of a model with one input, of numbers, and one output.

        Returns:
            The name of the result.
        """
        prefix = self._scope.get_unique_variable_name("own") + "/"
        copy = onnx.compose.add_prefix(model, prefix)
        graph, held = copy.graph, {each.name for each in copy.graph.initializer}
        (given,) = (each for each in graph.input if each.name not in held)
        kind = given.type.tensor_type.elem_type
        self._container.add_node("Cast", [self.values], [given.name], to=kind, op_version=13)
        for number, node in enumerate(graph.node):
            # skl2onnx orders equal nodes by name.
            node.name = f"{prefix}{number:05}"
            # They may tell where the file was made.
            for field in ("doc_string", "metadata_props"):
                node.ClearField(field)
            self._container.nodes.append(node)
        self._container.initializers.extend(graph.initializer)
        self._container.node_domain_version_pair_sets.update(
            (each.domain, each.version) for each in copy.opset_import
        )
        return self.add("Identity", graph.output[0].name)

    def answer(self, *results: str) -> None:
        """Write the nodes, with results as the outputs: label and probabilities, or the value."""
        outputs = dict(zip(results, self._outputs, strict=True))
        for kind, *names, attributes in self._nodes:
            inputs, given = ([outputs.get(name, name) for name in each] for each in names)
            name = self._scope.get_unique_operator_name(kind)
            self._container.add_node(kind, inputs, given, name=name, **attributes)

    def _constant(self, values: NDArray[Any]) -> str:
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, None, None, onnx.numpy_helper.from_array(values))
        return name


def register(
    kind: type, write: Callable[[Nodes, Any], None], single: Callable[[Any], bool] = lambda _: False
) -> None:
    """Make skl2onnx export an estimator with our nodes. The classes of a classifier are 0 to n - 1.

    Args:
        kind: the estimator's type.
        write: writes the nodes of a fitted estimator.
        single: whether the probabilities or values of a fitted estimator are float32.
    """

    def shape(operator: Any) -> None:
        fitted = operator.raw_operator
        answer = FloatTensorType if single(fitted) else DoubleTensorType
        if len(operator.outputs) == 1:
            operator.outputs[0].type = answer([None, 1])
        else:
            operator.outputs[0].type = Int64TensorType([None])
            operator.outputs[1].type = answer([None, len(fitted.classes_)])

    def convert(scope: Any, operator: Any, container: Any) -> None:
        write(Nodes(scope, operator, container), operator.raw_operator)

    options = {"zipmap": [True, False, "columns"]} if issubclass(kind, ClassifierMixin) else {}
    update_registered_converter(kind, f"Exact{kind.__name__}", shape, convert, options=options)
